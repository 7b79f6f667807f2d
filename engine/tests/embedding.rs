//! Vectors are those of the reference forward pass, in every batch and on every thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use gte_engine::oracle::StockBert;
use gte_engine::{DIMS, Encoder};
use support::{TempDir, TinyModel, embed, embed_all, load, max_abs, mixed_texts, words};

#[test]
fn vectors_have_unit_length() {
    for embedding in embed_all(&load(&TinyModel::default()), &mixed_texts()) {
        let norm = embedding.values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        assert!((norm - 1.0).abs() < 1e-6, "{norm}");
        assert_eq!(embedding.values.len(), DIMS);
    }
}

#[test]
fn vectors_are_those_of_the_stock_forward_pass() {
    let dir = TempDir::with(&TinyModel::default());
    let encoder = Encoder::load(dir.path()).unwrap();
    let oracle = StockBert::load(dir.path()).unwrap();
    let texts = mixed_texts();
    for (text, embedding) in texts.iter().zip(embed_all(&encoder, &texts)) {
        let ids = encoder.token_ids(text).unwrap().ids;
        let expected = oracle.embed_batch(&[&ids]).unwrap();
        assert!(max_abs(&expected[0], &embedding.values) <= 1e-5, "{text:?}");
    }
}

#[test]
fn padding_in_the_stock_forward_pass_changes_nothing() {
    let oracle = StockBert::load(TempDir::with(&TinyModel::default()).path()).unwrap();
    let short = [2, 40, 50, 3];
    let long: Vec<u32> = (0..300).map(|i| 5 + i % 90).collect();
    let together = oracle.embed_batch(&[&short, &long]).unwrap();
    for (ids, vector) in [&short[..], &long].into_iter().zip(&together) {
        assert!(max_abs(&oracle.embed_batch(&[ids]).unwrap()[0], vector) <= 1e-6);
    }
    assert!(max_abs(&together[0], &together[1]) > 0.01);
}

#[test]
fn a_text_has_the_same_vector_alone_and_in_a_batch() {
    let encoder = load(&TinyModel::default());
    let texts = mixed_texts();
    let together = embed_all(&encoder, &texts);
    for (text, in_batch) in texts.iter().zip(&together) {
        let alone = embed(&encoder, text);
        assert!(max_abs(&alone.values, &in_batch.values) <= 1e-6, "{text:?}");
        assert_eq!((alone.tokens, alone.truncated), (in_batch.tokens, in_batch.truncated));
    }
    let reversed: Vec<&String> = texts.iter().rev().collect();
    for (forth, back) in together.iter().zip(embed_all(&encoder, &reversed).iter().rev()) {
        assert!(max_abs(&forth.values, &back.values) <= 1e-6);
    }
}

#[test]
fn embeddings_are_in_the_order_of_the_texts() {
    // More texts than a window or a block has, with neighbours of very different lengths.
    let encoder = load(&TinyModel::default());
    let texts: Vec<String> =
        (0..1300).map(|i| format!("{} {i}", words(1 + (i * 37) % 23))).collect();
    let embeddings = embed_all(&encoder, &texts);
    assert_eq!(embeddings.len(), texts.len());
    for (text, embedding) in texts.iter().zip(&embeddings) {
        assert_eq!(embedding.tokens, encoder.token_ids(text).unwrap().ids.len(), "{text:?}");
    }
    for i in (0..texts.len()).step_by(61) {
        assert!(max_abs(&embed(&encoder, &texts[i]).values, &embeddings[i].values) <= 1e-6, "{i}");
    }
}

#[test]
fn the_empty_string_and_blanks_have_the_same_vector() {
    let encoder = load(&TinyModel::default());
    let empty = embed(&encoder, "");
    assert_eq!((empty.tokens, empty.truncated), (2, false));
    for blank in [" ", "\t\n\r ", "\u{a0}\u{3000}\u{85}\u{2028}", "\u{200b}\u{feff}\u{7}"] {
        assert_eq!(embed(&encoder, blank), empty, "{blank:?}");
    }
    assert!(max_abs(&embed(&encoder, "cat").values, &empty.values) > 0.01);
}

#[test]
fn no_texts_no_vectors() {
    assert!(load(&TinyModel::default()).embed_batch(&[], &mut support::go).unwrap().is_empty());
}

#[test]
fn the_same_text_always_has_the_same_vector() {
    let dir = TempDir::with(&TinyModel::default());
    let [first, second] = [(), ()].map(|()| Encoder::load(dir.path()).unwrap());
    let texts = mixed_texts();
    let expected = embed_all(&first, &texts);
    assert!(embed_all(&first, &texts) == expected, "a second time");
    assert!(embed_all(&second, &texts) == expected, "loaded a second time");
    let twice = embed_all(&first, &["stone", "stone"]);
    assert_eq!(twice[0], twice[1], "twice in one batch");
}

#[test]
fn several_threads_share_one_encoder() {
    let encoder = load(&TinyModel::default());
    let texts = mixed_texts();
    let expected = embed_all(&encoder, &texts);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (encoder, texts, expected) = (&encoder, &texts, &expected);
            scope.spawn(move || {
                for i in 0..texts.len() {
                    let i = (i + 4 * thread) % texts.len();
                    let values = embed(encoder, &texts[i]).values;
                    assert!(max_abs(&values, &expected[i].values) <= 1e-6, "{:?}", texts[i]);
                }
            });
        }
    });
}
