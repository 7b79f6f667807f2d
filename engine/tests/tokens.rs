//! Token ids of any text are those of Hugging Face's library, although a long text is read in
//! pieces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::LazyLock;

use gte_engine::Encoder;
use proptest::prelude::*;
use support::texts::{any_text, cases, long_text, short_text, sliding_text};
use support::{TempDir, TinyModel, reference_ids, reference_tokenizer};
use tokenizers::Tokenizer;

/// The engine and the reference with the same limit.
struct Pair {
    encoder: Encoder,
    reference: Tokenizer,
}

impl Pair {
    fn new(max_tokens: usize) -> Pair {
        let dir = TempDir::with(&TinyModel {
            max_tokens: Some(max_tokens),
            positions: max_tokens.max(512),
            ..Default::default()
        });
        let reference = reference_tokenizer(dir.path(), max_tokens);
        Pair { encoder: Encoder::load(dir.path()).unwrap(), reference }
    }

    fn check(&self, text: &str) {
        let found = self.encoder.token_ids(text).unwrap();
        let (ids, truncated) = reference_ids(&self.reference, text);
        assert_eq!(found.ids, ids, "{text:?}");
        assert_eq!(found.truncated, truncated, "{text:?}");
    }
}

/// A limit that truncates most texts, the usual limit, and one with which many pieces are read.
static PAIRS: LazyLock<[Pair; 3]> = LazyLock::new(|| [5, 512, 2048].map(Pair::new));

fn check(text: &str) {
    for pair in PAIRS.iter() {
        pair.check(text);
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn of_short_texts(text in short_text()) {
        check(&text);
    }

    #[test]
    fn of_any_characters(text in any_text()) {
        check(&text);
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn of_long_texts(text in long_text()) {
        check(&text);
    }

    #[test]
    fn of_long_texts_with_a_pattern(text in sliding_text()) {
        check(&text);
    }
}

#[test]
fn every_character_alone_between_letters_and_after_a_space() {
    // Planes 0 to 3 have all assigned characters except tags, variation selectors and private use.
    let pair = &PAIRS[1];
    let all: Vec<char> = (0..=0x3ffff).filter_map(char::from_u32).collect();
    for some in all.chunks(16) {
        let text: String = some.iter().map(|c| format!("{c}a{c}b {c} ")).collect();
        pair.check(&text);
    }
}
