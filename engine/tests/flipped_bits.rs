//! A model with a few flipped bits in its files is refused with the name of a file, or it is loaded
//! and its vectors are finite and of unit length. It never panics or hangs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use gte_engine::{Encoder, Error};
use proptest::prelude::*;
use support::{TempDir, TinyModel, go, words};

/// The files of an intact model.
static WHOLE: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let dir = TempDir::with(&TinyModel { max_tokens: Some(64), ..Default::default() });
    ["model.safetensors", "tokenizer.json", "config.json", "sentence_bert_config.json"]
        .map(|name| (name, std::fs::read(dir.join(name)).unwrap()))
        .to_vec()
});

/// Loads a damaged model and embeds texts.
fn outcome(dir: &Path, file: &str) -> Result<(), String> {
    let encoder = match Encoder::load(dir) {
        Ok(encoder) => encoder,
        Err(error) => {
            // The error may name another file than the one with the flipped bit: a changed
            // vocab_size does not fit the shape of a tensor.
            let named = error.path().and_then(Path::file_name).is_some();
            return if named { Ok(()) } else { Err(format!("{file}: {error:?}")) };
        }
    };
    let long = words(300);
    for text in ["", "a cat sat on the mat", "[CLS] naïve 漢字 🚀 data", &long] {
        match encoder.embed(text, &mut go) {
            Ok(embedding) => {
                let length: f32 = embedding.values.iter().map(|value| value * value).sum();
                if (length - 1.0).abs() > 1e-3 {
                    return Err(format!("{file}: {text:?} has a vector of length {length}"));
                }
            }
            Err(Error::Corrupt { .. } | Error::Internal(_)) => {}
            Err(error) => return Err(format!("{file}: {error:?}")),
        }
    }
    Ok(())
}

/// Runs a case on a thread of its own, so that a case that hangs fails.
fn check(file: &'static str, flips: Vec<(prop::sample::Index, u8)>) -> Result<(), TestCaseError> {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || {
        let dir = TempDir::new();
        for (name, bytes) in WHOLE.iter() {
            let mut bytes = bytes.clone();
            if *name == file {
                for (place, bit) in &flips {
                    let place = place.index(bytes.len());
                    bytes[place] ^= 1 << bit;
                }
            }
            std::fs::write(dir.join(name), bytes).unwrap();
        }
        done.send(outcome(dir.path(), file))
    });
    match result.recv_timeout(Duration::from_secs(60)) {
        Ok(outcome) => outcome.map_err(TestCaseError::fail),
        Err(error) => Err(TestCaseError::fail(format!("{file}: panicked or hung: {error}"))),
    }
}

/// One to eight flipped bits.
fn flips() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..=8)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn weights(flips in flips()) {
        check("model.safetensors", flips)?;
    }

    #[test]
    fn tokenizer(flips in flips()) {
        check("tokenizer.json", flips)?;
    }

    #[test]
    fn configuration(flips in flips()) {
        check("config.json", flips)?;
    }

    #[test]
    fn sentence_configuration(flips in flips()) {
        check("sentence_bert_config.json", flips)?;
    }
}
