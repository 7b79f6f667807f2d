//! The functions that SQL calls, apart from the trigger and the notes.

mod array;
mod chunks;
pub mod embed;
mod info;
