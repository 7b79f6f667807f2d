//! From a text to token ids, and to chunks of a number of tokens.
//!
//! Imports run one way: chunks → counted → tokenizer → segment → char_class.

mod ascii;
mod boundary;
mod char_class;
pub(crate) mod chunks;
mod counted;
mod preflight;
mod segment;
pub mod tokenizer;
