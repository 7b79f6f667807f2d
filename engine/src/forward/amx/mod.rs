//! The forward pass of bf16 on AMX tiles.
//!
//! A tile is 16 rows of 64 bytes. `tdpbf16ps` multiplies 16 rows of 32 bf16 with 32 × 16 of them,
//! which are 8192 multiplications in 16 cycles: sixteen times the rate of an f32 FMA of 512 bits.
//! Loading the tiles of a step takes as long as multiplying them. So every other instruction has to
//! run while the tiles are busy, and nothing may be copied: each operation writes its activations
//! as bf16 in the tile layout of the next operation ([`layout`]).
//!
//! Instructions are as in Intel's Architecture Instruction Set Extensions Programming Reference,
//! chapter 3. Packing is as in its section on `TDPBF16PS`: 32-bit words, each with two values along
//! `k`.

mod activate;
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
