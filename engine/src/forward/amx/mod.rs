//! The forward pass of bf16 on AMX tiles.
//!
//! A tile is 16 rows of 64 bytes. `tdpbf16ps` multiplies 16 rows of 32 bf16 with 32 × 16 of them,
//! 8192 multiplications in 16 cycles: sixteen times the rate of an f32 FMA of 512 bits. Loading the
//! tiles of a step takes as long as multiplying them, so every other instruction has to run in the
//! shadow of the tiles, and nothing may be copied: whoever makes an activation writes it as bf16 in
//! the form of its consumer's tiles ([`layout`]).
//!
//! Instructions as in Intel's Architecture Instruction Set Extensions Programming Reference,
//! chapter 3, packing as in its section on `TDPBF16PS`: 32-bit words, each two values along `k`.

mod attention;
mod cpu;
mod items;
mod layout;
mod pack;
mod pass;
mod product;
mod rows;
#[cfg(all(test, unix))]
mod tests;
mod tile;
mod weights;

pub(super) use cpu::{available, permitted};
pub(super) use pass::AmxPass;
