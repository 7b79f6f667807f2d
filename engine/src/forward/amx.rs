//! Matrix products of bf16 with AMX tiles, summed in f32.
//!
//! A tile is 16 rows of 64 bytes. `tdpbf16ps` multiplies 16 rows of 32 bf16 with 32 × 16 of them,
//! 8192 multiplications in 16 cycles: sixteen times the rate of an f32 FMA of 512 bits.
//! rustc has no stable intrinsics for tiles, hence `asm!`; the compiler itself never uses them, so
//! nothing happens to them between two blocks of it.
//!
//! Instructions as in Intel's Architecture Instruction Set Extensions Programming Reference,
//! chapter 3, packing as in its section on `TDPBF16PS`: 32-bit words, each two values along `k`.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::bf16::round;
use super::kernels::{self, Attend, Linear, Scratch};
use super::pair;

/// Rows of a tile, and words of one of its rows.
const TILE: usize = 16;
/// Columns of a panel: two tiles, so that four loads serve four products.
pub(super) const WIDTH: usize = 2 * TILE;
/// Rows of a block: two tiles.
pub(super) const ROWS: usize = 2 * TILE;

/// Whether CPU and kernel have the tiles, in the size that is meant here.
pub(super) fn available() -> bool {
    const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
    if __cpuid(0).eax < 0x1d || __cpuid_count(7, 0).edx & TILES_AND_BF16 != TILES_AND_BF16 {
        return false;
    }
    let palette = __cpuid_count(0x1d, 1);
    let (row_bytes, names, rows) = (palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
    (row_bytes, names, rows) == (64, 8, 16) && kernel::keeps_tiles()
}

/// Asks the kernel to keep the tiles' 8 kB for this process and those it forks. Only for kernels
/// that are wanted: from then on the process's alternate signal stacks have to be larger. A
/// process that has a small one is refused.
pub(super) fn permitted() -> bool {
    kernel::permits_tiles()
}

/// What Linux has to say, of its `Documentation/arch/x86/xstate.rst`.
#[cfg(target_os = "linux")]
mod kernel {
    const ARCH_GET_XCOMP_SUPP: libc::c_int = 0x1021;
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    /// Numbers of the tiles' configuration and of what is in them.
    const CONFIGURATION: u64 = 17;
    const DATA: u64 = 18;

    pub fn keeps_tiles() -> bool {
        let mut features = 0_u64;
        let mask = &raw mut features;
        // SAFETY: writes the mask of features; a kernel that does not know it returns an error.
        let status = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, mask) };
        status == 0 && features >> CONFIGURATION & 1 == 1 && features >> DATA & 1 == 1
    }

    pub fn permits_tiles() -> bool {
        // SAFETY: takes no pointer.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, DATA) == 0 }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    pub fn keeps_tiles() -> bool {
        false
    }

    pub fn permits_tiles() -> bool {
        false
    }
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles in their full size. Fewer rows than a tile has are computed with what lies
/// behind them, and thrown away.
static FULL: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The tiles of this thread, ready for use. Given back on drop: with tiles in use each switch of
/// tasks and each signal frame copies 8 kB more.
struct Tiles;

impl Tiles {
    /// # Safety
    /// [`available`] and [`permitted`] must have said so.
    unsafe fn configure() -> Tiles {
        // SAFETY: reads the 64 bytes of a valid configuration.
        unsafe {
            asm!(
                "ldtilecfg [{}]", in(reg) &raw const FULL,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags)
            );
        }
        Tiles
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: made by `configure`, so the instruction is there.
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

/// Words along `k`, so padded that they fill tiles.
pub(super) fn padded_words(k: usize) -> usize {
    (k / 2).next_multiple_of(TILE)
}

/// As [`kernels::linear`], with panels `[n / 32][padded_words(k)][32]` of pairs along `k`, zero
/// beyond it.
///
/// # Safety
/// As [`kernels::linear`]; [`available`] and [`permitted`] must have said so.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn linear(job: &Linear, scratch: &mut Scratch) {
    let (words, rows) = (padded_words(job.k), job.rows.len());
    let a = room(&mut scratch.pairs, rows.next_multiple_of(TILE) * words);
    for (row, to) in a.chunks_exact_mut(words).take(rows).enumerate() {
        // SAFETY: the job's rows of `a`.
        unsafe { round_row(job.a.add((job.rows.start + row) * job.k), job.k, to) };
    }
    let a = a.as_ptr();
    let mut block = Block([0.0; ROWS * WIDTH]);
    // SAFETY: the caller's word.
    let _tiles = unsafe { Tiles::configure() };
    for panel in job.panels.clone() {
        for row in (0..rows).step_by(ROWS) {
            let count = ROWS.min(rows - row);
            // SAFETY: the caller's word on the weights; `a` has whole tiles of rows.
            unsafe {
                let product = Product {
                    steps: words / TILE,
                    a: a.add(row * words),
                    a_stride: words,
                    b: job.weight.add(panel * words * WIDTH),
                    b_stride: WIDTH,
                    out: block.0.as_mut_ptr(),
                    out_stride: WIDTH,
                };
                product.run(count);
                let rows = job.rows.start + row..job.rows.start + row + count;
                kernels::finish::<__m512>(job, &mut block.0, WIDTH, rows, panel);
            }
        }
    }
}

/// As [`kernels::attend`], the factors rounded to bf16, the softmax in f32. Heads of another size
/// than a multiple of 32 are left to it.
///
/// # Safety
/// As [`linear`] and [`kernels::attend`].
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn attend(job: &Attend, scratch: &mut Scratch) {
    let (length, size) = (job.length, job.head_size);
    if !size.is_multiple_of(WIDTH) {
        // SAFETY: the caller's word.
        return unsafe { kernels::attend::<__m512>(job, scratch) };
    }
    let (words, stride) = (size / 2, 3 * job.hidden);
    let padded = length.next_multiple_of(WIDTH);
    let Scratch { query_pairs, key_pairs, value_pairs, pairs, scores, .. } = scratch;
    let queries = room(query_pairs, padded * words);
    let keys = room(key_pairs, padded * words);
    let values = room(value_pairs, padded / 2 * size);
    let scores = room(scores, ROWS * padded);
    let weights = room(pairs, ROWS * padded / 2);
    let mut block = Block([0.0; ROWS * WIDTH]);
    // SAFETY: the caller's word.
    let _tiles = unsafe { Tiles::configure() };
    for head in job.heads.clone() {
        // SAFETY: the caller's word on `qkv` and `out`; the buffers have the sizes just made.
        unsafe {
            let from = job.qkv.add(head * size);
            for (row, to) in queries.chunks_exact_mut(words).take(length).enumerate() {
                round_row(from.add(row * stride), size, to);
            }
            pack_keys(from.add(job.hidden), stride, length, keys, words);
            pack_values(from.add(2 * job.hidden), stride, length, values, size);
            for row in (0..length).step_by(ROWS) {
                let count = ROWS.min(length - row);
                for panel in 0..padded / WIDTH {
                    let product = Product {
                        steps: words / TILE,
                        a: queries.as_ptr().add(row * words),
                        a_stride: words,
                        b: keys.as_ptr().add(panel * words * WIDTH),
                        b_stride: WIDTH,
                        out: scores.as_mut_ptr().add(panel * WIDTH),
                        out_stride: padded,
                    };
                    product.run(count);
                }
                let mut scales = [0.0; ROWS];
                for (i, scale) in scales.iter_mut().enumerate().take(count) {
                    let scores = scores.as_mut_ptr().add(i * padded);
                    *scale = 1.0 / kernels::exponentiate::<__m512>(scores, length, padded);
                    round_row(scores, padded, &mut weights[i * padded / 2..][..padded / 2]);
                }
                for column in (0..size).step_by(WIDTH) {
                    let product = Product {
                        steps: padded / WIDTH,
                        a: weights.as_ptr(),
                        a_stride: padded / 2,
                        b: values.as_ptr().add(column),
                        b_stride: size,
                        out: block.0.as_mut_ptr(),
                        out_stride: WIDTH,
                    };
                    product.run(count);
                    for (i, scale) in scales.iter().enumerate().take(count) {
                        let to = job.out.add((row + i) * job.hidden + head * size + column);
                        for j in 0..WIDTH {
                            *to.add(j) = block.0[i * WIDTH + j] * scale;
                        }
                    }
                }
            }
        }
    }
}

/// A block of results, aligned so that no row of a tile straddles two cache lines.
#[repr(align(64))]
struct Block([f32; ROWS * WIDTH]);

/// The first `length` items of a buffer that is made longer if need be, and keeps what it has.
fn room<T: Copy + Default>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
    &mut buffer[..length]
}

/// Rounds `k` floats to pairs, and fills up with zeros.
///
/// # Safety
/// `from` must have `k` floats; the instructions of [`linear`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn round_row(from: *const f32, k: usize, to: &mut [u32]) {
    let (values, rest) = to.split_at_mut(k / 2);
    // SAFETY: the caller's word.
    unsafe { round(from, values) };
    rest.fill(0);
}

/// Keys as panels `[length / 32][words][32]`. What lies beyond the last key is whatever was there:
/// its scores count for nothing.
///
/// # Safety
/// `from` must have `length` rows of `2 * words` floats, `stride` apart; as [`round_row`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pack_keys(from: *const f32, stride: usize, length: usize, to: &mut [u32], words: usize) {
    for (first, panel) in (0..length).step_by(WIDTH).zip(to.chunks_exact_mut(words * WIDTH)) {
        for i in 0..WIDTH.min(length - first) {
            for part in (0..words).step_by(TILE) {
                let mut row = [0; TILE];
                // SAFETY: the caller's word.
                unsafe { round(from.add((first + i) * stride + 2 * part), &mut row) };
                for (word, value) in row.into_iter().enumerate() {
                    panel[(part + word) * WIDTH + i] = value;
                }
            }
        }
    }
}

/// Values as pairs of rows, `[length / 2][size]`, zero beyond the last: nothing times whatever was
/// there could be no number.
///
/// # Safety
/// `from` must have `length` rows of `size` floats, `stride` apart.
unsafe fn pack_values(from: *const f32, stride: usize, length: usize, to: &mut [u32], size: usize) {
    for (i, to) in to.chunks_exact_mut(size).enumerate() {
        let row = |row: usize| {
            if row >= length {
                return None;
            }
            // SAFETY: the caller's word, for a row that is there.
            Some(unsafe { std::slice::from_raw_parts(from.add(row * stride), size) })
        };
        match (row(2 * i), row(2 * i + 1)) {
            (Some(first), Some(second)) => {
                for ((to, &first), &second) in to.iter_mut().zip(first).zip(second) {
                    *to = pair(first, second);
                }
            }
            (Some(last), None) => {
                for (to, &last) in to.iter_mut().zip(last) {
                    *to = pair(last, 0.0);
                }
            }
            _ => to.fill(0),
        }
    }
}

/// `out[16 or 32, 32] = a[_, 32 * steps] · b`. Strides are in words from one row to the next; `b`
/// has pairs of its rows in one.
struct Product {
    steps: usize,
    a: *const u32,
    a_stride: usize,
    b: *const u32,
    b_stride: usize,
    out: *mut f32,
    out_stride: usize,
}

impl Product {
    /// As many tiles of rows as `count` rows need.
    ///
    /// # Safety
    /// `a` and `out` must have the rows of one tile for up to 16 rows, else of two, `b` 16 for
    /// each step; the tiles must be configured.
    unsafe fn run(&self, count: usize) {
        // SAFETY: the caller's word.
        unsafe { if count > TILE { self.two() } else { self.one() } }
    }

    /// # Safety
    /// As [`Product::run`].
    unsafe fn one(&self) {
        // SAFETY: the caller's word.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{a} + {a_stride}]",
                "tileloadd tmm6, [{b} + {b_stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {b_stride} + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, 64",
                "add {b}, {b_step}",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{out} + {out_stride}], tmm0",
                "tilestored [{out} + {out_stride} + 64], tmm1",
                steps = inout(reg) self.steps => _,
                a = inout(reg) self.a => _,
                a_stride = in(reg) 4 * self.a_stride,
                b = inout(reg) self.b => _,
                b_stride = in(reg) 4 * self.b_stride,
                b_step = in(reg) 4 * TILE * self.b_stride,
                out = in(reg) self.out,
                out_stride = in(reg) 4 * self.out_stride,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }

    /// # Safety
    /// As [`Product::run`].
    unsafe fn two(&self) {
        // SAFETY: the caller's word.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a} + {a_stride}]",
                "tileloadd tmm6, [{b} + {b_stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {b_stride} + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{below} + {a_stride}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 64",
                "add {below}, 64",
                "add {b}, {b_step}",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{out} + {out_stride}], tmm0",
                "tilestored [{out} + {out_stride} + 64], tmm1",
                "tilestored [{out_below} + {out_stride}], tmm2",
                "tilestored [{out_below} + {out_stride} + 64], tmm3",
                steps = inout(reg) self.steps => _,
                a = inout(reg) self.a => _,
                below = inout(reg) self.a.add(TILE * self.a_stride) => _,
                a_stride = in(reg) 4 * self.a_stride,
                b = inout(reg) self.b => _,
                b_stride = in(reg) 4 * self.b_stride,
                b_step = in(reg) 4 * TILE * self.b_stride,
                out = in(reg) self.out,
                out_below = in(reg) self.out.add(TILE * self.out_stride),
                out_stride = in(reg) 4 * self.out_stride,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}
