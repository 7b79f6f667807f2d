//! Prefetches the next panel of the weights while the current one is multiplied.
//!
//! A short text uses each weight for a few rows only, and the prefetcher of a CPU starts again
//! every 4 kB. The next panel is prefetched evenly while the register tiles of the current one are
//! computed. This made 12 tokens faster by 5 to 10 % in bf16, by 5 % in f32 with AVX-512 and by 20
//! to 55 % with AVX2, and 128 tokens by 1 to 5 %. It was measured on AMD's Zen 4 with MiniLM and
//! the shape of gte-small, whose weights no cache holds.
//!
//! The lines are prefetched in their order. A line of each page in turn, as on AMX, gained nothing
//! in bf16 and with AVX2. In f32 with AVX-512 it made 12 tokens slower by 23 to 40 %, and 128 tokens
//! by 12 % (an Intel Xeon with AMX).

#![allow(unsafe_code)]

/// 32-bit words of a cache line.
pub(super) const LINE: usize = 16;

/// With fewer rows, the memory is already at its limit. Prefetching made two rows slower by up to
/// half.
const MIN_ROWS: usize = 5;

/// One register tile of a product of `rows` rows with a panel.
pub(super) struct Tile {
    pub panel: *const u32,
    /// 32-bit words of the panel.
    pub words: usize,
    /// Steps in which the tile is computed.
    pub steps: usize,
    pub rows: usize,
    /// Rows of a tile.
    pub height: usize,
    /// Index of the tile in the panel.
    pub nth: usize,
}

/// The share of one register tile in prefetching the next panel.
pub(super) struct Prefetch {
    next: *const u32,
    /// Lines to prefetch during the tile.
    lines: usize,
    steps: usize,
    due: usize,
}

impl Prefetch {
    /// The share of this tile.
    #[inline(always)]
    pub fn of(tile: Tile) -> Prefetch {
        let Tile { panel, words, steps, rows, height, nth } = tile;
        let tiles = rows.div_ceil(height);
        let lines = if rows < MIN_ROWS { 0 } else { words / LINE };
        // The next matrix, or another thread's part of this one, follows the last panel. Nothing
        // follows the last matrix. A prefetch address is only a hint, so any address is allowed.
        let next = panel.wrapping_add(words + lines * nth / tiles * LINE);
        Prefetch { next, lines: lines.div_ceil(tiles), steps, due: 0 }
    }

    /// Prefetches nothing.
    #[inline(always)]
    pub fn nothing() -> Prefetch {
        Prefetch { next: std::ptr::null(), lines: 0, steps: 1, due: 0 }
    }

    /// Call this in each step.
    #[inline(always)]
    pub fn step(&mut self) {
        self.due += self.lines;
        while self.due >= self.steps {
            self.due -= self.steps;
            prefetch(self.next);
            self.next = self.next.wrapping_add(LINE);
        }
    }
}

/// Prefetches a line into the second level of the cache. The first level has no space for two
/// panels of bf16, which have 24 to 147 kB each. Prefetching into the first level was slower.
#[inline(always)]
pub(super) fn prefetch(line: *const u32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: any address is allowed, because a prefetch reads no value.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
