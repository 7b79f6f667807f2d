//! Runs every function of the tiles on buffers that are exactly as long as its job needs and end at
//! a page that cannot be accessed. On a CPU without tiles nothing is tested.

#![allow(unsafe_code, clippy::unwrap_used)]

mod attention;
mod product;
mod rows;

use super::layout::{BLOCK, SQUARE, TILE, activation_row, stream_row, stream_vector};
use super::tile::Tiles;
use super::{available, permitted};

/// Rows around the tiles and blocks.
const ROWS: [usize; 10] = [1, 2, 15, 16, 17, 31, 32, 33, 48, 97];

/// The tiles of this thread, or none if the CPU has none.
fn tiles() -> Option<Tiles> {
    if !(available() && permitted()) {
        println!("no AMX here");
        return None;
    }
    // SAFETY: both conditions were checked above.
    Some(unsafe { Tiles::configure() })
}

/// Place of a value in the residual stream.
fn in_stream(row: usize, column: usize) -> usize {
    stream_row(row) + stream_vector(column / TILE) + column % TILE
}

/// Place of a value in activations.
fn in_activations(row: usize, column: usize) -> usize {
    activation_row(row) + column / BLOCK * SQUARE + column % BLOCK
}
