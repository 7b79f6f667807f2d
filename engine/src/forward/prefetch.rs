//! Prefetching the next panel of the weights while this one is multiplied.
//!
//! A short text uses each weight for a few rows only, and the prefetcher of a CPU starts anew every
//! 4 kB. Prefetching the next panel, evenly while the register tiles of this one are computed, made
//! 12 tokens faster by 5 to 10 % in bf16, 5 % in f32 with AVX-512 and 20 to 55 % with AVX2 (AMD's
//! Zen 4, MiniLM and gte-small's shape, which no cache holds), and 128 tokens by 1 to 5 %.

#![allow(unsafe_code)]

/// 32-bit words of a cache line.
const LINE: usize = 16;

/// With fewer rows the memory is at its limit already. Prefetching made two rows slower by up to half.
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
    /// For one tile.
    #[inline(always)]
    pub fn of(tile: Tile) -> Prefetch {
        let Tile { panel, words, steps, rows, height, nth } = tile;
        let tiles = rows.div_ceil(height);
        let lines = if rows < MIN_ROWS { 0 } else { words / LINE };
        // The next matrix, or another thread's part of this one, follows the last panel; nothing
        // follows the last matrix. An address is only a hint, so any will do.
        let next = panel.wrapping_add(words + lines * nth / tiles * LINE);
        Prefetch { next, lines: lines.div_ceil(tiles), steps, due: 0 }
    }

    /// Prefetches nothing.
    #[inline(always)]
    pub fn nothing() -> Prefetch {
        Prefetch { next: std::ptr::null(), lines: 0, steps: 1, due: 0 }
    }

    /// Call it in each step.
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

/// Prefetches a line into the second level of the cache: the first has no room for two panels of
/// bf16, which have 24 to 147 kB each. The first level was slower.
#[inline(always)]
pub(super) fn prefetch(line: *const u32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: any address will do, none is read.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
