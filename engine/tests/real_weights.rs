//! Compares the engine with PyTorch on real weights: `tests/golden/*.jsonl`, made by
//! make_golden.py.
//!
//! `GTE_MINILM_DIR` names the directory of all-MiniLM-L6-v2. `make test` downloads the model and
//! sets the variable.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use gte_engine::oracle::StockBert;
use gte_engine::{Encoder, MINILM_WEIGHTS_SHA256};
use serde::Deserialize;
use support::{TempDir, cosine, embed, embed_all, max_abs};

#[derive(Deserialize)]
struct Golden {
    name: String,
    text: String,
    ids: Vec<u32>,
    /// Number of tokens without a limit, specials included.
    tokens: usize,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct GoldenTokens {
    name: String,
    text: String,
    ids: Vec<u32>,
    limit: usize,
}

fn model_dir() -> PathBuf {
    let dir = std::env::var_os("GTE_MINILM_DIR").expect(
        "GTE_MINILM_DIR is not set: it must name the directory of all-MiniLM-L6-v2 \
         (`make model MODEL=all-MiniLM-L6-v2` downloads it, `make test` sets the variable)",
    );
    PathBuf::from(dir)
}

static ENCODER: LazyLock<Encoder> = LazyLock::new(|| Encoder::load(&model_dir()).unwrap());

fn golden<T: for<'a> Deserialize<'a>>(file: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<T> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.len() >= 40, "{file} has only {} texts", rows.len());
    rows
}

fn assert_close(name: &str, expected: &[f32], found: &[f32]) {
    let (distance, cosine) = (max_abs(expected, found), cosine(expected, found));
    assert!(distance <= 1e-5 && cosine >= 0.999_999, "{name}: {distance:e}, cosine {cosine}");
}

#[test]
#[ignore = "needs GTE_MINILM_DIR; make test runs it"]
fn the_directory_has_the_model_of_the_references() {
    let info = ENCODER.info();
    let identity = ENCODER.identity().unwrap();
    assert_eq!(identity.weights_sha256, MINILM_WEIGHTS_SHA256);
    assert_eq!(
        (identity.name.as_str(), info.layers, info.max_tokens),
        ("all-MiniLM-L6-v2", 6, 256)
    );
    assert!(identity.suggested_threshold.is_some());
}

#[test]
#[ignore = "needs GTE_MINILM_DIR; make test runs it"]
fn token_ids_are_those_of_the_reference() {
    for row in golden::<Golden>("minilm.jsonl") {
        let found = ENCODER.token_ids(&row.text).unwrap();
        assert_eq!(found.ids, row.ids, "{}", row.name);
        assert_eq!(found.truncated, row.tokens > 256, "{}", row.name);
        assert_eq!(found.ids.len(), row.tokens.min(256), "{}", row.name);
    }
}

#[test]
#[ignore = "needs GTE_MINILM_DIR; make test runs it"]
fn token_ids_are_those_of_the_reference_at_other_limits() {
    // The same files with another limit. The model has 512 positions.
    let scratch = TempDir::new();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::os::unix::fs::symlink(
            model_dir().canonicalize().unwrap().join(file),
            scratch.join(file),
        )
        .unwrap();
    }
    let mut rows = golden::<GoldenTokens>("tokens.jsonl");
    rows.sort_by_key(|row| row.limit);
    for rows in rows.chunk_by(|a, b| a.limit == b.limit) {
        let config = format!("{{\"max_seq_length\": {}}}", rows[0].limit);
        std::fs::write(scratch.join("sentence_bert_config.json"), config).unwrap();
        let encoder = Encoder::load(scratch.path()).unwrap();
        for row in rows {
            assert_eq!(encoder.token_ids(&row.text).unwrap().ids, row.ids, "{}", row.name);
        }
    }
}

#[test]
#[ignore = "needs GTE_MINILM_DIR; make test runs it"]
fn vectors_are_those_of_pytorch_alone() {
    for row in golden::<Golden>("minilm.jsonl") {
        let found = embed(&ENCODER, &row.text);
        assert_close(&row.name, &row.embedding, &found.values);
        assert_eq!(
            (found.tokens, found.truncated),
            (row.ids.len(), row.tokens > 256),
            "{}",
            row.name
        );
    }
}

#[test]
#[ignore = "needs GTE_MINILM_DIR; make test runs it"]
fn vectors_are_those_of_pytorch_in_a_batch_and_equal_those_alone() {
    let rows = golden::<Golden>("minilm.jsonl");
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    for (row, found) in rows.iter().zip(embed_all(&ENCODER, &texts)) {
        assert_close(&row.name, &row.embedding, &found.values);
        let distance = max_abs(&embed(&ENCODER, &row.text).values, &found.values);
        assert!(distance <= 1e-6, "{}: {distance:e}", row.name);
    }
}

#[test]
#[ignore = "needs GTE_MINILM_DIR; make test runs it"]
fn the_stock_forward_pass_gives_the_vectors_of_pytorch() {
    let oracle = StockBert::load(&model_dir()).unwrap();
    for row in golden::<Golden>("minilm.jsonl") {
        assert_close(&row.name, &row.embedding, &oracle.embed_batch(&[&row.ids]).unwrap()[0]);
    }
}
