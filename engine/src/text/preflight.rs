//! Checks the size of a `tokenizer.json` before the tokenizers library loads it.
//!
//! The library has no limits and can't be interrupted. 2,300,000 tokens of vocabulary took 20 s,
//! and one added token of 30 MB took 2.3 GB of memory. Counting reads the file at 300 MB/s.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{Error, memory};

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

/// Bytes of memory for a byte of the file when it is checked: added tokens in their shortest form.
const CHECK_MEMORY: usize = 4;

/// The memory that the library takes to load a file, in bytes: for its caches, for each byte of the file, for each
/// entry of the vocabulary, the merges and the added tokens, for each byte of an added token, and for
/// each byte of a Unigram vocabulary, which can become a node of a tree. Measured were at most
/// 1 MB, 1, 384, 92 and 345. gte-small's file takes 8 MB of the 15 MB that this makes.
const BASE_MEMORY: usize = 1 << 20;
const FILE_MEMORY: usize = 4;
const ENTRY_MEMORY: usize = 400;
const ADDED_MEMORY: usize = 150;
const NODE_MEMORY: usize = 400;

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

/// Number of entries of a list or an object, and bytes of all strings in it.
#[derive(Default)]
struct Count {
    is_list: bool,
    entries: usize,
    bytes: usize,
}

/// Refuses a file with more content than loads quickly. Returns the most bytes that the library
/// allocates to load it.
///
/// # Errors
/// [`Error::OutOfMemory`];
/// [`Error::Corrupt`] for a file that is no tokenizer, [`Error::Unsupported`] for one that is too
/// large.
pub(crate) fn check(path: &Path, json: &[u8]) -> Result<usize, Error> {
    // Added tokens, which are counted afterwards.
    let _hold = memory::hold(json.len().saturating_mul(CHECK_MEMORY))?;
    let file: TokenizerFile = serde_json::from_slice(json).map_err(|e| Error::corrupt(path, e))?;
    let added = file.added_tokens.unwrap_or_default();
    let prefix = file.model.continuing_subword_prefix.unwrap_or_default();
    let added_bytes = added.iter().map(|token| token.content.len()).sum();
    for (what, count, most) in [
        ("added tokens", added.len(), MAX_ADDED_TOKENS),
        ("bytes of added tokens", added_bytes, MAX_ADDED_BYTES),
        ("tokens in its vocabulary", file.model.vocab.entries, MAX_VOCABULARY),
        ("merges", file.model.merges.entries, MAX_VOCABULARY),
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
    let Model { vocab, merges, .. } = file.model;
    let nodes = if vocab.is_list { vocab.bytes * NODE_MEMORY } else { 0 };
    let entries = (vocab.entries + merges.entries + added.len()) * ENTRY_MEMORY;
    Ok(BASE_MEMORY + json.len() * FILE_MEMORY + entries + nodes + added_bytes * ADDED_MEMORY)
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
        Ok(Count::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<Count, E> {
        Ok(Count { bytes: text.len(), ..Count::default() })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
        Ok(Count::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Count, E> {
        Ok(Count::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Count, E> {
        Ok(Count::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Count, E> {
        Ok(Count::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
        let mut count = Count { is_list: true, ..Count::default() };
        while let Some(entry) = list.next_element::<Count>()? {
            count.entries += 1;
            count.bytes += entry.bytes;
        }
        Ok(count)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Count, A::Error> {
        let mut count = Count::default();
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count.entries += 1;
        }
        Ok(count)
    }
}
