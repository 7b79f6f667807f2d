//! The self-test finds kernels that agree with stock candle, and kernels that do not.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::File;

use gte_engine::oracle::{OneThread, use_one_thread};
use gte_engine::{Encoder, Error, Options, selftest, selftest_texts};
use support::{TempDir, TinyModel, go, tiers};

fn one_thread() -> OneThread {
    // SAFETY: the other threads of this process run tests, which use the environment through
    // `std::env`.
    unsafe { use_one_thread() }.unwrap()
}

#[test]
fn every_tier_agrees_with_stock_candle() {
    let dir = TempDir::with(&TinyModel { layers: 2, ..TinyModel::default() });
    for name in tiers(dir.path()) {
        let options = Options { kernels: Some(name.clone()), threads: 2, precision: None };
        let encoder = Encoder::load_with(dir.path(), &options).unwrap();
        let agreement = selftest(&encoder, one_thread(), &mut go).unwrap();
        println!("{name}: {agreement:?}");
        assert_eq!(agreement.texts, selftest_texts().len());
        let (cosine, max_abs) =
            if name.ends_with("-bf16") { (0.9999, 0.01) } else { (0.999999, 1e-5) };
        assert!(agreement.least_cosine >= cosine, "{name}: {agreement:?}");
        assert!(agreement.max_abs <= max_abs, "{name}: {agreement:?}");
    }
}

#[test]
fn the_half_precision_file_and_a_model_of_few_positions_are_tested_too() {
    for model in [
        TinyModel { f16: true, bert_prefix: true, ..TinyModel::default() },
        TinyModel { positions: 32, max_tokens: None, ..TinyModel::default() },
        // So many heads that candle's attention scores limit the length of a text.
        TinyModel { heads: 384, positions: 2048, max_tokens: None, ..TinyModel::default() },
    ] {
        let agreement = selftest(&support::load(&model), one_thread(), &mut go).unwrap();
        assert!(agreement.least_cosine >= 0.999999, "{model:?}: {agreement:?}");
    }
}

/// The kernels hold the weights of one model, the file those of another with the same time of
/// change. So the kernels compute something else than the file says, as wrong kernels would.
#[test]
fn wrong_weights_in_the_kernels_are_found() {
    let dir = TempDir::with(&TinyModel::default());
    let encoder = Encoder::load(dir.path()).unwrap();
    let weights = dir.join("model.safetensors");
    let modified = std::fs::metadata(&weights).unwrap().modified().unwrap();
    TinyModel::default()
        .write_with(dir.path(), |tensors| {
            // Zero for the first output of one matrix in the middle of the model.
            let name = "encoder.layer.0.attention.output.dense.weight";
            tensors.get_mut(name).unwrap().bytes[..4 * 384].fill(0);
        })
        .unwrap();
    File::options().write(true).open(&weights).unwrap().set_modified(modified).unwrap();
    assert!(!encoder.has_changed());
    let agreement = selftest(&encoder, one_thread(), &mut go).unwrap();
    assert!(agreement.least_cosine < 0.9999, "{agreement:?}");
    assert!(agreement.max_abs > 0.001, "{agreement:?}");
}

#[test]
fn a_file_that_changes_meanwhile_is_an_error() {
    let dir = TempDir::with(&TinyModel::default());
    let change = || {
        File::options()
            .write(true)
            .open(dir.join("model.safetensors"))
            .unwrap()
            .set_len(99)
            .unwrap();
    };
    // The first one changes the file before the kernels run, the others while candle reads or runs.
    let mut polls = 0;
    selftest(&support::load(&TinyModel::default()), one_thread(), &mut || {
        polls += 1;
        go()
    })
    .unwrap();
    for at in [1, polls - 2, polls] {
        TinyModel::default().write(dir.path()).unwrap();
        let encoder = Encoder::load(dir.path()).unwrap();
        let mut calls = 0;
        let result = selftest(&encoder, one_thread(), &mut || {
            calls += 1;
            if calls == at {
                change();
            }
            go()
        });
        if calls >= at {
            assert!(matches!(result, Err(Error::Corrupt { .. })), "{at}: {result:?}");
        }
    }
}
