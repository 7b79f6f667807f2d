//! The SQL functions, one file for each group. `embed_trigger()` is in `trigger`,
//! `embedding_written()` in `note`.

mod array;
mod chunks;
pub mod embed;
mod force;
mod info;
mod selftest;
mod vectors;
mod words;
