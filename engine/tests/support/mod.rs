//! Shared by the tests: model directories with random weights, and small comparisons.
#![allow(dead_code)] // each test file uses another part of it

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use gte_engine::{Embedding, Encoder, Error, Options};
use tokenizers::{Tokenizer, TruncationParams};

pub mod languages;
pub mod texts;
pub mod tiny_model;

pub use tiny_model::TinyModel;

/// A directory that is removed when it is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        TempDir(path)
    }

    /// A temporary directory with `model` in it.
    pub fn with(model: &TinyModel) -> TempDir {
        let dir = TempDir::new();
        model.write(dir.path()).expect("a written model");
        dir
    }

    /// A tiny model with a changed `tokenizer.json`.
    pub fn with_tokenizer(change: impl FnOnce(&mut serde_json::Value)) -> TempDir {
        let dir = TempDir::with(&TinyModel::default());
        let path = dir.join("tokenizer.json");
        let mut tokenizer = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut tokenizer);
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        dir
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A directory that stays in the target directory does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes `model` and loads it.
pub fn load(model: &TinyModel) -> Encoder {
    Encoder::load(TempDir::with(model).path()).expect("a loaded model")
}

/// Names of the tiers, from the error for an unknown tier.
pub fn tiers(dir: &Path) -> Vec<String> {
    let options = Options { kernels: Some("no such kernels".into()), ..Options::default() };
    match Encoder::load_with(dir, &options) {
        Err(Error::NoKernels { available, .. }) => {
            available.split(", ").map(String::from).collect()
        }
        other => panic!("{:?}", other.err()),
    }
}

/// A callback that never stops the work.
pub fn go() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub fn embed(encoder: &Encoder, text: &str) -> Embedding {
    encoder.embed(text, &mut go).expect("an embedding")
}

pub fn embed_all(encoder: &Encoder, texts: &[impl AsRef<str>]) -> Vec<Embedding> {
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    encoder.embed_batch(&texts, &mut go).expect("embeddings")
}

/// Largest difference between elements of two vectors.
pub fn max_abs(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A text of `words` words of the tiny vocabulary. Each word is one token.
pub fn words(words: usize) -> String {
    let some = ["cat", "dog", "stone", "river", "blue", "red", "mat", "search", "the", "data"];
    (0..words).map(|i| some[(i * 7 + i / 10) % some.len()]).collect::<Vec<_>>().join(" ")
}

/// Texts of many lengths. Short and long texts alternate, and neighbours differ.
pub fn mixed_texts() -> Vec<String> {
    let mut texts =
        vec![String::new(), "cat".into(), words(250), "  ".into(), words(510), words(600)];
    for n in [1, 250, 2, 251, 3, 17, 100, 249, 5, 64] {
        texts.push(format!("{} {n}", words(n)));
    }
    texts
}

/// Hugging Face's tokenizer, truncating to `max_tokens` and without padding. It reads whole texts.
pub fn reference_tokenizer(dir: &Path, max_tokens: usize) -> Tokenizer {
    let mut tokenizer = Tokenizer::from_file(dir.join("tokenizer.json")).expect("a tokenizer");
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(Some(TruncationParams { max_length: max_tokens, ..Default::default() }))
        .expect("a truncation");
    tokenizer
}

/// The token ids of the reference, and whether it truncated the text.
pub fn reference_ids(tokenizer: &Tokenizer, text: &str) -> (Vec<u32>, bool) {
    let encoding = tokenizer.encode(text, true).expect("an encoding");
    (encoding.get_ids().to_vec(), !encoding.get_overflowing().is_empty())
}
