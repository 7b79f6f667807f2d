//! The pooling of a model is the one that its files name, or the model is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;

use gte_engine::oracle::StockBert;
use gte_engine::{Encoder, Error};
use serde_json::{Value, json};
use support::tiny_model::{modules, pooling_config};
use support::{TempDir, TinyModel, cosine, embed, embed_all, load, max_abs, mixed_texts};

const POOLING: &str = "1_Pooling/config.json";

fn cls() -> TinyModel {
    TinyModel { pooling: Some("cls"), ..TinyModel::default() }
}

fn write(dir: &Path, file: &str, value: &Value) {
    let path = dir.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, value.to_string()).unwrap();
}

/// A model whose `file` is `value`.
fn with(file: &str, value: &Value) -> TempDir {
    let dir = TempDir::with(&cls());
    write(dir.path(), file, value);
    dir
}

fn fingerprint(encoder: &Encoder) -> String {
    encoder.identity().unwrap().fingerprint.clone()
}

/// The message of the error for a model that is not supported because of `file`.
fn unsupported(dir: &TempDir, file: &str) -> String {
    match Encoder::load(dir.path()) {
        Err(error @ Error::Unsupported { .. }) => {
            assert_eq!(error.path(), Some(dir.join(file).as_path()), "{error}");
            let message = error.to_string();
            assert!(message.contains(file), "{message}");
            message
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it loads"),
    }
}

#[test]
fn the_first_token_is_taken_as_in_the_stock_forward_pass() {
    let dir = TempDir::with(&cls());
    let (encoder, oracle) =
        (Encoder::load(dir.path()).unwrap(), StockBert::load(dir.path()).unwrap());
    let mean = load(&TinyModel::default());
    let texts = mixed_texts();
    let embeddings = embed_all(&encoder, &texts);
    for (text, embedding) in texts.iter().zip(&embeddings) {
        let ids = encoder.token_ids(text).unwrap().ids;
        let stock = oracle.embed_batch(&[&ids]).unwrap();
        assert!(max_abs(&stock[0], &embedding.values) <= 1e-5, "{text:?}");
        let norm = embedding.values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        assert!((norm - 1.0).abs() < 1e-6, "{norm}");
        let other = cosine(&embed(&mean, text).values, &embedding.values);
        assert!(other < 0.99, "the mean has the cosine {other}, so nothing was compared");
        assert_eq!(embed(&encoder, text), *embedding, "alone and in a batch");
    }
    assert_eq!(encoder.identity().unwrap().pooling, "cls");
}

#[test]
fn padding_in_the_stock_forward_pass_does_not_move_the_first_token() {
    let oracle = StockBert::load(TempDir::with(&cls()).path()).unwrap();
    let (short, long) = ([2, 40, 50, 3], (0..100).map(|i| 5 + i % 90).collect::<Vec<u32>>());
    let together = oracle.embed_batch(&[&short, &long]).unwrap();
    assert!(max_abs(&oracle.embed_batch(&[&short]).unwrap()[0], &together[0]) <= 1e-6);
}

#[test]
fn every_way_to_write_a_pooling_is_read() {
    let mean = load(&TinyModel { pooling: Some("mean"), ..TinyModel::default() });
    let expected = [embed(&mean, "a cat"), embed(&load(&cls()), "a cat")];
    assert_ne!(expected[0], expected[1]);
    for (pooling, value) in [
        (0, json!({})),
        (0, json!({ "pooling_mode": "mean", "embedding_dimension": 384 })),
        (0, json!({ "pooling_mode": ["mean"], "include_prompt": false })),
        (0, pooling_config("mean")),
        (1, json!({ "pooling_mode": "cls", "embedding_dimension": 384, "include_prompt": true })),
        (1, json!({ "pooling_mode": ["cls"], "pooling_mode_mean_tokens": true })),
        (1, json!({ "pooling_mode_cls_token": true, "word_embedding_dimension": 384 })),
    ] {
        let encoder = Encoder::load(with(POOLING, &value).path()).unwrap();
        assert!(embed(&encoder, "a cat") == expected[pooling], "{value}");
    }
    // Without modules.json, too.
    let dir = TempDir::with(&TinyModel::default());
    write(dir.path(), POOLING, &pooling_config("cls"));
    assert!(embed(&Encoder::load(dir.path()).unwrap(), "a cat") == expected[1]);
}

#[test]
fn another_pooling_is_refused_by_its_name() {
    for (value, name) in [
        (pooling_config("max"), "\"max_tokens\""),
        (pooling_config("lasttoken"), "\"lasttoken\""),
        (json!({ "pooling_mode_some_new_kind": true }), "\"some_new_kind\""),
        (json!({ "pooling_mode": "weightedmean" }), "\"weightedmean\""),
        (json!({ "pooling_mode": [] }), "\"\""),
        (json!({ "pooling_mode": ["cls", "mean"] }), "\"cls + mean\""),
        (
            json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true }),
            "\"cls + mean\"",
        ),
        (json!({ "word_embedding_dimension": 768 }), "768"),
    ] {
        let message = unsupported(&with(POOLING, &value), POOLING);
        assert!(message.contains(name), "{message}");
    }
    for value in [json!({ "pooling_mode": 1 }), json!({ "pooling_mode_cls_token": "yes" })] {
        let error = Encoder::load(with(POOLING, &value).path()).err().unwrap();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
}

#[test]
fn a_pooling_that_leaves_the_prompt_out_is_refused_if_there_is_a_prompt() {
    let dir = TempDir::with(&TinyModel { prompts: &[("query", "the ")], ..cls() });
    write(dir.path(), POOLING, &json!({ "pooling_mode": "mean", "include_prompt": false }));
    assert!(unsupported(&dir, POOLING).contains("include_prompt"));
}

#[test]
fn other_modules_and_other_orders_are_refused() {
    let module = |path: &str, class: &str| json!({ "idx": 0, "path": path, "type": class });
    let own = |class: &str| format!("sentence_transformers.models.{class}");
    let transformer = module("", &own("Transformer"));
    let pooling = module("1_Pooling", &own("Pooling"));
    let normalize = module("2_Normalize", &own("Normalize"));
    let newer = [
        module("", "sentence_transformers.base.modules.transformer.Transformer"),
        module("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
        module("2_Normalize", "sentence_transformers.base.modules.normalize.Normalize"),
    ];
    for right in [
        modules(),
        json!([transformer, pooling]),
        json!([transformer, pooling, normalize]),
        json!(newer),
    ] {
        Encoder::load(with("modules.json", &right).path()).unwrap();
    }
    let dense = module("2_Dense", &own("Dense"));
    let foreign = module("", "custom.Transformer");
    let elsewhere = module("0_Transformer", &own("Transformer"));
    let moved = module("2_Pooling", &own("Pooling"));
    for (wrong, name) in [
        (json!([transformer, pooling, dense]), "Dense"),
        (json!([transformer, pooling, dense, normalize]), "Dense"),
        (json!([transformer, normalize, pooling]), "Transformer, Normalize, Pooling"),
        (json!([transformer, pooling, normalize, normalize]), "Normalize, Normalize"),
        (json!([transformer]), "\"Transformer\""),
        (json!([]), "\"\""),
        (json!([foreign, pooling]), "custom.Transformer"),
        (json!([elsewhere, pooling]), "0_Transformer"),
        (json!([transformer, moved]), "2_Pooling"),
    ] {
        let message = unsupported(&with("modules.json", &wrong), "modules.json");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn a_pooling_that_the_modules_name_and_that_is_not_there_is_missing() {
    let dir = TempDir::with(&cls());
    std::fs::remove_file(dir.join(POOLING)).unwrap();
    let error = Encoder::load(dir.path()).err().unwrap();
    assert!(matches!(error, Error::MissingFile { .. }), "{error:?}");
    assert!(error.to_string().contains(POOLING), "{error}");
    assert_eq!(error.directory(), Some(dir.path()));
    std::fs::remove_file(dir.join("modules.json")).unwrap();
    std::fs::remove_file(dir.join("config.json")).unwrap();
    let error = Encoder::load(dir.path()).err().unwrap();
    assert_eq!(error.directory(), Some(dir.path()), "{error}");
}

#[test]
fn a_configuration_of_more_than_a_megabyte_is_refused() {
    for file in ["modules.json", POOLING, "config_sentence_transformers.json"] {
        let dir = TempDir::with(&cls());
        std::fs::write(dir.join(file), " ".repeat((1 << 20) + 1)).unwrap();
        let error = Encoder::load(dir.path()).err().unwrap();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("limit"), "{error}");
    }
}

#[test]
fn the_fingerprint_tells_cls_from_mean() {
    let plain = fingerprint(&load(&TinyModel::default()));
    let mean = load(&TinyModel { pooling: Some("mean"), ..TinyModel::default() });
    assert_eq!(plain, fingerprint(&mean), "the files say what their absence means");
    assert_eq!(mean.identity().unwrap().pooling, "mean");
    assert_ne!(plain, fingerprint(&load(&cls())));
}
