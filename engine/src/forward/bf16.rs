//! Matrix products of bf16 pairs with AVX512-BF16, summed in f32.
//!
//! On AMD's Zen 4 and 5, `vdpbf16ps` does twice the work of an f32 FMA at the same rate, and bf16
//! weights need half the bytes. On Intel's CPUs it runs at half the rate of an f32 FMA, so there
//! this tier is used only when bf16 is requested.

#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::jobs::{Attend, Linear, Norm, Scratch};
use super::kernels::{self, Format, MAX_TILE};
use super::prefetch::{Prefetch, Tile};
use super::shared::{Shared, Values};
use super::simd::Simd;
use crate::{DIMS, Error};

/// Vectors of a panel's width.
const PANEL_VECTORS: usize = __m512::PANEL;

/// Columns of a panel.
const WIDTH: usize = kernels::panel_width::<__m512>();

/// As [`kernels::linear`], with panels `[n / 48][k / 2][48]` of pairs along `k`, which is even.
/// `a` is in bf16, and `out` in either format.
///
/// # Panics
/// As [`Linear::check`].
///
/// # Safety
/// As [`kernels::linear`].
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn linear(job: &Linear) {
    let words = job.k / 2;
    job.check(WIDTH, words);
    let a = job.a.bf16().pointer();
    let mut tile = [0.0; MAX_TILE];
    for panel in job.columns.clone() {
        for (nth, row) in job.rows.clone().step_by(__m512::MR).enumerate() {
            let count = __m512::MR.min(job.rows.end - row);
            // SAFETY: the caller guarantees it; panel and row are inside the job.
            unsafe {
                let a = a.add(row * job.k).cast();
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
                let rows = row..row + count;
                match job.out {
                    Values::F32(_) => {
                        kernels::finish::<__m512>(job, &mut tile, WIDTH, rows, panel);
                    }
                    Values::Bf16(out) => finish(job, &mut tile, out, rows, panel),
                }
            }
        }
    }
}

/// As [`kernels::finish`], for a result in bf16 and without a residual.
///
/// # Panics
/// If the tile has fewer rows.
///
/// # Safety
/// As [`linear`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
unsafe fn finish(
    job: &Linear,
    tile: &mut [f32; MAX_TILE],
    out: Shared<u16>,
    rows: Range<usize>,
    panel: usize,
) {
    let n = job.weights.n;
    let first = panel * WIDTH;
    let columns = WIDTH.min(n - first);
    let (tile, _) = tile.as_chunks_mut::<WIDTH>();
    for (row, values) in rows.clone().zip(&mut tile[..rows.len()]) {
        // SAFETY: the row has the width of a panel; the columns of the panel are inside of `out`.
        unsafe {
            kernels::activate::<__m512>(job, values.as_mut_ptr(), WIDTH, first);
            round(&values[..columns], out.pointer().add(row * n + first));
        }
    }
}

/// As [`kernels::normalise`], with the rounded rows in addition.
///
/// # Panics
/// As [`Norm::check`].
///
/// # Safety
/// As [`kernels::normalise`], for `rounded` too.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn normalise(job: &Norm) {
    for row in job.rows.clone() {
        // SAFETY: the caller guarantees it. `normalise` checks that the row is inside all buffers.
        unsafe {
            kernels::normalise::<__m512>(&Norm { rows: row..row + 1, ..job.clone() });
            if let Some(rounded) = job.rounded {
                let row = row * DIMS..(row + 1) * DIMS;
                round(job.to.read(row.clone()), rounded.pointer().add(row.start));
            }
        }
    }
}

impl Format for u16 {
    const SHORT: bool = true;

    #[inline(always)]
    fn of(values: Values<'_>) -> Shared<'_, u16> {
        values.bf16()
    }

    #[inline(always)]
    unsafe fn write(values: &mut [f32], scale: f32, to: *mut u16) {
        values.iter_mut().for_each(|value| *value *= scale);
        // SAFETY: the caller guarantees it.
        unsafe { round(values, to) };
    }
}

/// As [`kernels::attend`], in f32 except for the exponential and the result.
///
/// # Errors
/// As [`kernels::attend`].
///
/// # Safety
/// As [`kernels::attend`].
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn attend(job: &Attend, scratch: &mut Scratch) -> Result<(), Error> {
    // SAFETY: the caller guarantees it.
    unsafe { kernels::attend::<__m512, u16>(job, scratch) }
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

/// Rounds floats to bf16, to nearest even.
///
/// # Safety
/// `to` must have space for as many values. The CPU must have AVX512-BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn round(from: &[f32], to: *mut u16) {
    let (whole, rest) = from.as_chunks::<16>();
    // SAFETY: the caller guarantees the space. The masked instructions access only `rest` and its
    // place. 256 bits are 16 bf16, whatever the name of their type.
    unsafe {
        for (i, from) in whole.iter().enumerate() {
            let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.as_ptr()));
            to.add(16 * i).cast::<__m256bh>().write_unaligned(rounded);
        }
        if !rest.is_empty() {
            let mask = !(!0 << rest.len());
            let rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, rest.as_ptr()));
            let rounded = std::mem::transmute::<__m256bh, __m256i>(rounded);
            _mm256_mask_storeu_epi16(to.add(16 * whole.len()).cast(), mask, rounded);
        }
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
                let factor = a.add(row * pairs + i).read_unaligned();
                let factor = _mm512_set1_epi32(factor as i32);
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
    use crate::forward::number::pair;

    #[test]
    fn a_value_is_rounded_alike_by_the_instruction_and_without_it() {
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
        for shift in [0, 1, 6] {
            let values = &values[shift..];
            let mut rounded = vec![0; values.len()];
            // SAFETY: the CPU has the instruction, and both have the same length.
            unsafe { round(values, rounded.as_mut_ptr()) };
            for (&value, rounded) in values.iter().zip(rounded) {
                let wanted = pair(value, 0.0);
                assert_eq!(positive_zero(wanted), positive_zero(rounded.into()), "{value:e}");
            }
        }
    }
}
