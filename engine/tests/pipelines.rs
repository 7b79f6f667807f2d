//! The vectors are those of sentence-transformers for the configurations in
//! `tests/golden/pipelines.jsonl`, made by make_pipelines.py.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use gte_engine::{Encoder, Role};
use serde::Deserialize;
use support::{TempDir, TinyModel, go, max_abs};

#[derive(Deserialize)]
struct Golden {
    case: usize,
    files: BTreeMap<String, serde_json::Value>,
    text: String,
    query: Vec<f32>,
    document: Vec<f32>,
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/pipelines.jsonl");
    let golden = std::fs::read_to_string(path).unwrap();
    let mut worst = 0f32;
    for line in golden.lines() {
        let Golden { case, files, text, query, document } = serde_json::from_str(line).unwrap();
        let dir = TempDir::with(&TinyModel::default());
        for (name, value) in &files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
        }
        let encoder = Encoder::load(dir.path()).unwrap();
        for (role, expected) in [(Role::Query, query), (Role::Document, document)] {
            let found = encoder.embed_as(role, &[&text], &mut go).unwrap();
            let difference = max_abs(&expected, &found[0].values);
            assert!(difference <= 1e-5, "case {case}, {role:?} {text:?}: {difference}");
            worst = worst.max(difference);
        }
    }
    assert_eq!(golden.lines().count(), 28, "each case was compared");
    println!("largest difference {worst:.1e}");
}
