//! Every layout of a model directory loads, and a model's identity depends on its content.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use gte_engine::Encoder;
use sha2::{Digest, Sha256};
use support::{TempDir, TinyModel, embed, embed_all, load, mixed_texts, words};

#[test]
fn every_layout_of_one_model_gives_the_same_vectors() {
    let texts = mixed_texts();
    let expected = embed_all(&load(&TinyModel::default()), &texts);
    for layout in 1..16 {
        let model = TinyModel {
            f16: layout & 1 != 0,
            bert_prefix: layout & 2 != 0,
            pooler: layout & 4 != 0,
            position_ids: layout & 8 != 0,
            ..Default::default()
        };
        // The weights are exact in both types, so the vectors have the same bits.
        assert!(embed_all(&load(&model), &texts) == expected, "{model:?}");
    }
}

#[test]
fn other_weights_give_other_vectors() {
    let [one, two] = [1, 2].map(|seed| load(&TinyModel { seed, ..Default::default() }));
    let distance = support::max_abs(&embed(&one, "cat").values, &embed(&two, "cat").values);
    assert!(distance > 0.01, "{distance}");
}

#[test]
fn truncation_and_padding_of_the_tokenizer_file_are_ignored() {
    let encoder = load(&TinyModel::default());
    assert_eq!(encoder.token_ids("cat").unwrap().ids.len(), 3);
    assert_eq!(embed(&encoder, "cat").tokens, 3);
    let long = embed(&encoder, &words(300));
    assert_eq!((long.tokens, long.truncated), (302, false));
}

#[test]
fn the_sentence_config_sets_the_token_limit() {
    for (max_tokens, expected) in [(Some(3), 3), (Some(128), 128), (Some(512), 512), (None, 512)] {
        let encoder = load(&TinyModel { max_tokens, ..Default::default() });
        assert_eq!(encoder.info().max_tokens, expected);
        let fits = embed(&encoder, &words(expected - 2));
        assert_eq!((fits.tokens, fits.truncated), (expected, false));
        let cut = embed(&encoder, &words(expected - 1));
        assert_eq!((cut.tokens, cut.truncated), (expected, true));
        assert_eq!(cut.values, fits.values, "the first tokens are kept");
    }
}

#[test]
fn without_a_limit_in_the_sentence_config_the_positions_are_the_limit() {
    let dir = TempDir::with(&TinyModel { positions: 64, max_tokens: None, ..Default::default() });
    std::fs::write(dir.join("sentence_bert_config.json"), r#"{"do_lower_case": false}"#).unwrap();
    assert_eq!(Encoder::load(dir.path()).unwrap().info().max_tokens, 64);
}

#[test]
fn info_and_identity_describe_the_model() {
    let dir = TempDir::new();
    let path = dir.join("my model");
    TinyModel::default().write(&path).unwrap();
    let encoder = Encoder::load(&path).unwrap();
    let info = encoder.info();
    let identity = encoder.identity().unwrap();
    assert_eq!(identity.name, "my model");
    assert_eq!(info.layers, 1);
    assert_eq!(identity.suggested_threshold, None, "a random model is unknown");
    let weights = std::fs::read(path.join("model.safetensors")).unwrap();
    assert_eq!(identity.weights_sha256, format!("{:x}", Sha256::digest(weights)));
    assert!(info.load_time > std::time::Duration::ZERO);
}

#[test]
fn the_fingerprint_depends_on_weights_tokenizer_and_limit() {
    let fingerprint = |model: &TinyModel| load(model).identity().unwrap().fingerprint.clone();
    let base = TinyModel::default();
    let first = fingerprint(&base);
    assert!(first.len() == 64 && first.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    assert_eq!(first, fingerprint(&base), "another directory, the same model");
    assert_eq!(
        first,
        fingerprint(&TinyModel { max_tokens: None, ..base.clone() }),
        "the same limit"
    );
    assert_ne!(first, fingerprint(&TinyModel { seed: 2, ..base.clone() }));
    assert_ne!(first, fingerprint(&TinyModel { max_tokens: Some(256), ..base.clone() }));

    let dir = TempDir::with(&base);
    let tokenizer = std::fs::read_to_string(dir.join("tokenizer.json")).unwrap();
    let changed = tokenizer.replace(r#""strip_accents": null"#, r#""strip_accents": false"#);
    assert_ne!(tokenizer, changed);
    std::fs::write(dir.join("tokenizer.json"), changed).unwrap();
    assert_ne!(first, Encoder::load(dir.path()).unwrap().identity().unwrap().fingerprint);
}
