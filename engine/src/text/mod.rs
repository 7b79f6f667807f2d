//! From a text to token ids, and to chunks with a limited number of tokens.
//!
//! Imports run one way: chunks → counted → tokenizer → segment → char_class ← words.
//! Imports run one way: chunks → prompt → counted → tokenizer → segment → char_class.

mod ascii;
mod boundary;
mod char_class;
pub(crate) mod chunks;
pub(crate) mod counted;
mod preflight;
pub(crate) mod prompt;
mod segment;
#[cfg(test)]
pub(crate) mod test_tokenizer;
pub mod tokenizer;
pub(crate) mod words;
