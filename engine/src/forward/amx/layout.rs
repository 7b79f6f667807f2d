//! The places of values in memory. Every tile is 1 kB in one piece. Its rows are 64 bytes apart and
//! aligned to a cache line.
//!
//! | what | form |
//! |---|---|
//! | panels | `[12 steps][2 column tiles][16 pairs][16]` of 32-bit words: 32 columns, 384 of `k` |
//! | activations | bf16 `[row / 32][12][32 rows][32]`: a step's two row tiles lie side by side |
//! | residual stream | f32 `[row / 32][12][2 row tiles][2 column tiles][16][16]`: four sums |
//! | queries, keys, values | bf16 `[head][row][32]`, so that a text may start at any row |

use crate::DIMS;

/// Rows of a tile.
pub(super) const TILE: usize = 16;
/// Rows of a block, and columns of a panel: two tiles.
pub(super) const BLOCK: usize = 2 * TILE;
/// Panels of 384 columns, and steps along a `k` of 384.
pub(super) const PANELS: usize = DIMS / BLOCK;
/// Values of 32 rows and 32 columns.
pub(super) const SQUARE: usize = BLOCK * BLOCK;
/// Values of a block of rows and 384 columns.
pub(super) const BLOCK_VALUES: usize = BLOCK * DIMS;
/// Words of a panel.
pub(super) const PANEL_WORDS: usize = BLOCK * DIMS / 2;
/// The head size that attention on tiles supports.
pub(super) const HEAD: usize = BLOCK;

/// Start of a row in the residual stream. Its vectors of 16 follow at [`stream_vector`].
pub(super) fn stream_row(row: usize) -> usize {
    row / BLOCK * BLOCK_VALUES + row / TILE % 2 * (SQUARE / 2) + row % TILE * TILE
}

/// Place of vector `i` of 24, relative to the start of its row.
pub(super) fn stream_vector(i: usize) -> usize {
    i / 2 * SQUARE + i % 2 * (TILE * TILE)
}

/// Start of a row in activations. Its 12 lines are `SQUARE` values apart.
pub(super) fn activation_row(row: usize) -> usize {
    row / BLOCK * BLOCK_VALUES + row % BLOCK * BLOCK
}
