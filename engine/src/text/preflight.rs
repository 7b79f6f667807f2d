//! Checks the size of a `tokenizer.json` before the tokenizers library loads it.
//!
//! The library has no limits and can't be interrupted. 2,300,000 tokens of vocabulary took 20 s,
//! and one added token of 30 MB took 2.3 GB of memory. Counting reads the file at 300 MB/s.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::Error;

/// The largest known vocabulary of a model with 384 dimensions has 250,037 tokens (multilingual).
/// The largest of any BERT has 501,153, which take 2 s to load.
const MAX_VOCABULARY: usize = 1 << 19;

/// BERT has 5 added tokens. 10,000 of them take 30 ms to load. The library's automaton takes up to
/// 75 bytes for each byte of an added token.
const MAX_ADDED_TOKENS: usize = 10_000;
const MAX_ADDED_BYTES: usize = 1 << 20;

/// WordPiece takes quadratic time in the length of a word. Every known model has 100.
const MAX_WORD_CHARS: usize = 1000;

/// The prefix is copied for each word. Every known model has "##".
const MAX_PREFIX_BYTES: usize = 64;

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Option<Vec<Added>>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    content: String,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    vocab: Count,
    #[serde(default)]
    merges: Count,
    #[serde(default)]
    max_input_chars_per_word: Option<usize>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
}

/// Number of entries of a list or an object.
#[derive(Default)]
struct Count(usize);

/// Refuses a file with more content than loads quickly.
///
/// # Errors
/// [`Error::Corrupt`] for a file that is no tokenizer, [`Error::Unsupported`] for one that is too
/// large.
pub(crate) fn check(path: &Path, json: &[u8]) -> Result<(), Error> {
    let file: TokenizerFile = serde_json::from_slice(json).map_err(|e| Error::corrupt(path, e))?;
    let added = file.added_tokens.unwrap_or_default();
    let prefix = file.model.continuing_subword_prefix.unwrap_or_default();
    let added_bytes = added.iter().map(|token| token.content.len()).sum();
    for (what, count, most) in [
        ("added tokens", added.len(), MAX_ADDED_TOKENS),
        ("bytes of added tokens", added_bytes, MAX_ADDED_BYTES),
        ("tokens in its vocabulary", file.model.vocab.0, MAX_VOCABULARY),
        ("merges", file.model.merges.0, MAX_VOCABULARY),
        ("characters in a word", file.model.max_input_chars_per_word.unwrap_or(0), MAX_WORD_CHARS),
        ("bytes of continuing_subword_prefix", prefix.len(), MAX_PREFIX_BYTES),
    ] {
        if count > most {
            return Err(Error::unsupported(
                path,
                format_args!("it has {count} {what}, the limit is {most}"),
            ));
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        deserializer.deserialize_any(Counting)
    }
}

struct Counting;

impl<'de> Visitor<'de> for Counting {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_unit<E>(self) -> Result<Count, E> {
        Ok(Count(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
        let mut count = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Count(count))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Count, A::Error> {
        let mut count = 0;
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Count(count))
    }
}
