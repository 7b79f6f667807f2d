//! Where a value lies. Every tile is 1 kB in one piece, its rows 64 bytes apart, aligned to a cache
//! line.
//!
//! | what | form |
//! |---|---|
//! | weights | panels `[12 steps][2 column tiles][16 pairs][16]` of 32-bit words: 32 columns, 384 of `k` |
//! | activations | bf16 `[row / 32][12][32 rows][32]`: a step's two tiles of rows lie side by side |
//! | residual stream | f32 `[row / 32][12][2 row tiles][2 column tiles][16][16]`: a product's four sums |
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
/// The size of heads that attention on tiles is made for.
pub(super) const HEAD: usize = BLOCK;

/// Where a row starts in the residual stream; its vectors of 16 follow at [`stream_vector`].
pub(super) fn stream_row(row: usize) -> usize {
    row / BLOCK * BLOCK_VALUES + row / TILE % 2 * (SQUARE / 2) + row % TILE * TILE
}

/// Where vector `i` of 24 lies behind the start of its row.
pub(super) fn stream_vector(i: usize) -> usize {
    i / 2 * SQUARE + i % 2 * (TILE * TILE)
}

/// Where a row starts in activations; its 12 lines follow `SQUARE` values apart.
pub(super) fn activation_row(row: usize) -> usize {
    row / BLOCK * BLOCK_VALUES + row % BLOCK * BLOCK
}
