//! Matrix products of bf16 pairs with AVX512-BF16, summed in f32.
//!
//! On AMD's Zen 4 and 5, `vdpbf16ps` does twice the work of an f32 FMA at the same rate, and bf16
//! weights need half the bytes. On Intel's CPUs it runs at half the rate of an f32 FMA, so there
//! this tier is used only when bf16 is requested.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::jobs::{Attend, Linear, Scratch};
use super::kernels::{self, MAX_TILE};
use super::number::pair;
use super::prefetch::{Prefetch, Tile};
use super::simd::Simd;
use crate::Error;

/// Vectors of a panel's width.
const PANEL_VECTORS: usize = __m512::PANEL;

/// As [`kernels::linear`], with panels `[n / 48][k / 2][48]` of pairs along `k`, which is even.
///
/// # Errors
/// [`Error::OutOfMemory`].
///
/// # Panics
/// As [`Linear::check`].
///
/// # Safety
/// As [`kernels::linear`].
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn linear(job: &Linear, scratch: &mut Scratch) -> Result<(), Error> {
    const WIDTH: usize = kernels::panel_width::<__m512>();
    let words = job.k / 2;
    job.check(WIDTH, words);
    let a_pairs = scratch.pairs.of(job.rows.len() * words)?;
    let rows = job.rows.start * job.k..job.rows.end * job.k;
    // SAFETY: `round` reads only the job's rows of `a`, which no other thread writes. The number of
    // pairs is half the number of floats.
    unsafe { round(job.a.read(rows).as_ptr(), a_pairs) };
    let mut tile = [0.0; MAX_TILE];
    for panel in job.columns.clone() {
        for (nth, row) in job.rows.clone().step_by(__m512::MR).enumerate() {
            let count = __m512::MR.min(job.rows.end - row);
            // SAFETY: the caller guarantees it; panel and row are inside the job.
            unsafe {
                let a = a_pairs.as_ptr().add((row - job.rows.start) * words);
                let b = job.panels.as_ptr().add(panel * words * WIDTH);
                let prefetch = Prefetch::of(Tile {
                    panel: b,
                    words: words * WIDTH,
                    steps: words,
                    rows: job.rows.len(),
                    height: __m512::MR,
                    nth,
                });
                let out = tile.as_mut_ptr();
                match count {
                    8 => multiply::<8>(words, a, b, prefetch, out),
                    7 => multiply::<7>(words, a, b, prefetch, out),
                    6 => multiply::<6>(words, a, b, prefetch, out),
                    5 => multiply::<5>(words, a, b, prefetch, out),
                    4 => multiply::<4>(words, a, b, prefetch, out),
                    3 => multiply::<3>(words, a, b, prefetch, out),
                    2 => multiply::<2>(words, a, b, prefetch, out),
                    _ => multiply::<1>(words, a, b, prefetch, out),
                }
                kernels::finish::<__m512>(job, &mut tile, WIDTH, row..row + count, panel);
            }
        }
    }
    Ok(())
}

/// As [`kernels::attend`], in f32 except for the exponential.
///
/// # Errors
/// As [`kernels::attend`].
///
/// # Safety
/// As [`kernels::attend`].
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn attend(job: &Attend, scratch: &mut Scratch) -> Result<(), Error> {
    // SAFETY: the caller guarantees it.
    unsafe { kernels::attend::<__m512, true>(job, scratch) }
}

/// Rounds two vectors to 32 bf16. The first vector is in the low half.
///
/// # Safety
/// The CPU must have AVX512-BF16.
#[inline(always)]
pub(super) unsafe fn round_pair(first: __m512, second: __m512) -> __m512i {
    // SAFETY: the caller guarantees it; 512 bits are 32 bf16, whatever the name of their type.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(second, first)) }
}

/// Rounds floats to pairs, to nearest even.
///
/// # Safety
/// As [`linear`], for the sizes it is called with.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn round(from: *const f32, to: &mut [u32]) {
    let (whole, rest) = to.as_chunks_mut::<8>();
    let last = from.wrapping_add(16 * whole.len());
    for (i, to) in whole.iter_mut().enumerate() {
        // SAFETY: 16 floats become 8 pairs of 32 bits; both are inside their buffers.
        unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.add(16 * i)));
            to.as_mut_ptr().cast::<__m256bh>().write_unaligned(rounded);
        }
    }
    for (i, to) in rest.iter_mut().enumerate() {
        // SAFETY: there are two floats for each pair.
        *to = unsafe { pair(*last.add(2 * i), *last.add(2 * i + 1)) };
    }
}

/// `out[ROWS, 48] = a[ROWS, 2 * pairs] · b`.
///
/// # Safety
/// As [`linear`], for the sizes it is called with.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply<const ROWS: usize>(
    pairs: usize,
    a: *const u32,
    b: *const u32,
    mut prefetch: Prefetch,
    out: *mut f32,
) {
    // SAFETY: the caller guarantees the sizes; 512 bits are 32 bf16, whatever the name of their
    // type.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); PANEL_VECTORS]; ROWS];
        let mut b = b;
        for i in 0..pairs {
            prefetch.step();
            let mut panel = [_mm512_setzero_si512(); PANEL_VECTORS];
            for (j, vector) in panel.iter_mut().enumerate() {
                *vector = _mm512_loadu_si512(b.add(16 * j).cast());
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = _mm512_set1_epi32(*a.add(row * pairs + i) as i32);
                for (sum, vector) in sums.iter_mut().zip(panel) {
                    let factor = std::mem::transmute::<__m512i, __m512bh>(factor);
                    let vector = std::mem::transmute::<__m512i, __m512bh>(vector);
                    *sum = _mm512_dpbf16_ps(*sum, factor, vector);
                }
            }
            b = b.add(16 * PANEL_VECTORS);
        }
        for (row, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(out.add((row * PANEL_VECTORS + j) * 16), *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_rounded_alike_by_the_instruction_and_without_it() {
        if !is_x86_feature_detected!("avx512bf16") {
            return;
        }
        // Every exponent of a finite number, also of subnormal numbers, with mantissas around the
        // limits of rounding up, down and to even.
        let mantissas =
            [0, 1, 0x7fff, 0x8000, 0x8001, 0x17fff, 0x18000, 0x7f_7fff, 0x7f_8000, 0x7f_ffff];
        let values: Vec<f32> = (0..0xff_u32)
            .flat_map(|exponent| mantissas.map(|mantissa| exponent << 23 | mantissa))
            .flat_map(|bits| [f32::from_bits(bits), f32::from_bits(bits | 1 << 31)])
            .collect();
        let positive_zero = |half: u32| if half == 0x8000 { 0 } else { half };
        for shift in [0, 2, 6] {
            let values = &values[shift..];
            let mut rounded = vec![0; values.len() / 2];
            // SAFETY: the CPU has the instruction, and there are two floats for each pair.
            unsafe { round(values.as_ptr(), &mut rounded) };
            for (pair_of, rounded) in values.chunks_exact(2).zip(rounded) {
                let halves = |word: u32| [word & 0xffff, word >> 16].map(positive_zero);
                assert_eq!(halves(pair(pair_of[0], pair_of[1])), halves(rounded), "{pair_of:?}");
            }
        }
    }
}
