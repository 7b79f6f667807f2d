//! Compares token ids with reference files that are not in the project. GTE_SHARED_TOKENS names a
//! directory with gte-small's `tokenizer.json` and the references, one `{"text", "ids"}` in each
//! line. `make test` makes that directory if it has the files. Otherwise it reports the tests as
//! skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use gte_engine::tokenizer::Tokenizer;
use serde::Deserialize;

/// The token limit of the references.
const MAX_TOKENS: usize = 512;

#[derive(Deserialize)]
struct Reference {
    text: String,
    ids: Vec<u32>,
}

fn directory() -> PathBuf {
    std::env::var_os("GTE_SHARED_TOKENS")
        .expect("GTE_SHARED_TOKENS names the references' directory")
        .into()
}

fn references(path: &Path) -> Vec<Reference> {
    let lines = std::fs::read_to_string(path).expect("a readable reference file");
    lines.lines().map(|line| serde_json::from_str(line).expect("a reference")).collect()
}

/// Checks that every text of the file has the ids of the reference. Texts with U+0000 are left out:
/// PostgreSQL's text type has no such texts.
fn check(file: &str, at_least: usize) {
    let directory = directory();
    let tokenizer =
        Tokenizer::from_file(&directory.join("tokenizer.json"), MAX_TOKENS).expect("the tokenizer");
    let references = references(&directory.join(file));
    assert!(references.len() >= at_least, "{file} has only {} references", references.len());
    for Reference { text, ids } in
        references.iter().filter(|reference| !reference.text.contains('\0'))
    {
        assert_eq!(&tokenizer.token_ids(text).expect("token ids").ids, ids, "{file}: {text:?}");
    }
}

#[test]
#[ignore = "needs GTE_SHARED_TOKENS; make test runs it where shared/data is"]
fn edge_cases() {
    check("ref_edge_cases.jsonl", 70);
}

#[test]
#[ignore = "needs GTE_SHARED_TOKENS; make test runs it where shared/data is"]
fn truncation() {
    check("ref_truncation_512.jsonl", 7);
}

#[test]
#[ignore = "needs GTE_SHARED_TOKENS; make test runs it where shared/data is"]
fn ten_languages() {
    check("ref_xquad_other_languages.jsonl", 700);
}

#[test]
#[ignore = "needs GTE_SHARED_TOKENS; make test runs it where shared/data is"]
fn short_questions() {
    check("ref_banking77.jsonl", 3000);
}

#[test]
#[ignore = "needs GTE_SHARED_TOKENS; make test runs it where shared/data is"]
fn published_cases() {
    check("published.jsonl", 41);
}
