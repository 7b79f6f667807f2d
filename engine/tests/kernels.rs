//! Every tier of kernels that this CPU can run, on lengths that leave a partial tile in each. Small
//! enough for valgrind (`make valgrind`), which checks the memory accesses of the unsafe code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use gte_engine::oracle::StockBert;
use gte_engine::{Encoder, Options};
use support::{TempDir, TinyModel, cosine, go, max_abs, tiers};

/// Loads every tier and compares its vectors with those of stock candle, for texts of these
/// lengths: alone and in a batch, with one thread and with three.
fn compare(model: &TinyModel, lengths: &[u32]) {
    let dir = TempDir::with(model);
    let oracle = StockBert::load(dir.path()).unwrap();
    let texts: Vec<Vec<u32>> = lengths
        .iter()
        .map(|length| (0..*length).map(|i| 5 + (i * 7 + length) % 90).collect())
        .collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let stock: Vec<_> = texts.iter().map(|ids| oracle.embed_batch(&[ids]).unwrap()[0]).collect();
    let names = tiers(dir.path());
    assert!(names.iter().any(|name| name == "portable-f32"), "{names:?}");
    for name in names {
        let mut first = None;
        for threads in [1, 3] {
            let options = Options { kernels: Some(name.clone()), threads, precision: None };
            let encoder = Encoder::load_with(dir.path(), &options).unwrap();
            assert_eq!(encoder.info().kernels, name);
            // For one text the threads share the work of an operation, for a batch they share
            // texts.
            let together = encoder.embed_ids(&texts, &mut go).unwrap();
            for (ids, embedding) in texts.iter().zip(&together) {
                let alone = encoder.embed_ids(&[ids], &mut go).unwrap();
                assert!(alone[0] == *embedding, "{name}, {} tokens, {threads} threads", ids.len());
            }
            for (stock, embedding) in stock.iter().zip(&together) {
                assert!(cosine(stock, &embedding.values) >= 0.9999, "{name}");
                let exact = !name.ends_with("-bf16");
                assert!(!exact || max_abs(stock, &embedding.values) <= 1e-5, "{name}");
            }
            let first = first.get_or_insert_with(|| together.clone());
            assert!(*first == together, "{name}: other bits with {threads} threads");
        }
        println!("{name}: {} lengths, {} heads, 1 and 3 threads", texts.len(), model.heads);
    }
}

#[test]
fn every_tier_gives_the_stock_vectors_on_any_length_and_number_of_threads() {
    // The intermediate width is no multiple of a panel's width, so the last panel is padded.
    let model = TinyModel { intermediate: 70, ..TinyModel::default() };
    compare(&model, &[1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33]);
}

#[test]
fn every_tier_gives_the_stock_vectors_of_the_first_token() {
    let cls = TinyModel { pooling: Some("cls"), intermediate: 70, ..TinyModel::default() };
    compare(&cls, &[1, 2, 3, 16, 17, 33, 65]);
    compare(&TinyModel { heads: 6, ..cls }, &[2, 17, 35]);
}

#[test]
fn every_tier_gives_the_stock_vectors_on_more_than_a_panel_of_keys() {
    compare(&TinyModel { layers: 2, ..TinyModel::default() }, &[48, 49, 64, 65, 97]);
}

#[test]
fn every_tier_gives_the_stock_vectors_with_heads_of_any_size() {
    // 384, 64, 24, 16 and 1 columns.
    for heads in [1, 6, 16, 24, 384] {
        compare(&TinyModel { heads, intermediate: 70, ..TinyModel::default() }, &[2, 17, 35]);
    }
}
