//! The instructions of the tiles.
//!
//! rustc has no stable intrinsics for them, so this module uses `asm!`. Tiles keep their data from
//! one block of `asm!` to the next, because the compiler itself never uses them.

#![allow(unsafe_code)]

use std::arch::asm;

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles in their full size, 16 rows of 64 bytes. A block with fewer rows is computed
/// with the data that lies after them, and those results are not used.
static FULL: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The tiles of this thread, ready for use. They are released on drop: with tiles in use, each task
/// switch and each signal frame copies 8 kB more.
pub(super) struct Tiles(());

impl Tiles {
    /// # Safety
    /// [`super::available`] and [`super::permitted`] must have returned true.
    pub unsafe fn configure() -> Tiles {
        let tiles = Tiles(());
        tiles.again();
        tiles
    }

    /// Configures the tiles again. By the calling convention, a called function may change the
    /// configuration. All tiles are then zero.
    pub fn again(&self) {
        // SAFETY: the CPU has the instruction, as the caller of `configure` guarantees. It reads
        // the 64 bytes of a valid configuration.
        unsafe {
            asm!(
                "ldtilecfg [{}]", in(reg) &raw const FULL,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags)
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `configure` made this value, so the CPU has the instruction.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags)
            );
        }
    }
}

/// `load!("tmm0", from, stride)`: 16 rows of 64 bytes, `stride` bytes apart.
macro_rules! load {
    ($tile:tt, $from:expr, $stride:expr) => {
        std::arch::asm!(
            concat!("tileloadd ", $tile, ", [{from} + {stride}]"),
            from = in(reg) $from,
            stride = in(reg) { let stride: usize = $stride; stride },
            out($tile) _,
            options(nostack, readonly, preserves_flags)
        )
    };
}

/// `store!("tmm0", to)`: 16 rows of 64 bytes, end to end.
macro_rules! store {
    ($tile:tt, $to:expr) => {
        std::arch::asm!(
            concat!("tilestored [{to} + {stride}], ", $tile),
            to = in(reg) $to,
            stride = in(reg) 64_usize,
            options(nostack, preserves_flags)
        )
    };
}

/// `zero!("tmm0")`.
macro_rules! zero {
    ($tile:tt) => {
        std::arch::asm!(
            concat!("tilezero ", $tile),
            out($tile) _,
            options(nostack, nomem, preserves_flags)
        )
    };
}

/// `multiply!("tmm0", "tmm4", "tmm6")`: the first += the second · the third. The words of the third
/// are pairs.
macro_rules! multiply {
    ($sum:tt, $a:tt, $b:tt) => {
        std::arch::asm!(
            concat!("tdpbf16ps ", $sum, ", ", $a, ", ", $b),
            out($sum) _,
            options(nostack, nomem, preserves_flags)
        )
    };
}

pub(super) use {load, multiply, store, zero};
