//! Work on rows: layer normalisation, and conversions to and from the tile layout.

#![allow(unsafe_code)]
// A counted loop is clearer where several arrays and pointers advance together.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::layout::{BLOCK, PANELS, SQUARE, TILE, activation_row, stream_row, stream_vector};
use crate::DIMS;
use crate::forward::bf16::round_pair;
use crate::forward::shared::Shared;

/// Vectors of a row.
const VECTORS: usize = DIMS / TILE;
/// Rows that are normalised together: their chains of additions overlap.
const TOGETHER: usize = 8;

/// A layer normalisation with two outputs. The next product reads the first one. The second one is
/// the residual stream. The product after that adds to it, so it includes that product's bias.
pub(super) struct Norm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    /// `bias` plus the bias of the next product that adds to the stream.
    pub stream_bias: Vec<f32>,
    pub eps: f32,
}

impl Norm {
    /// # Panics
    /// If a vector does not have 384 values.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, next_bias: &[f32], eps: f32) -> Norm {
        assert!([weight.len(), bias.len(), next_bias.len()] == [DIMS; 3]);
        let stream_bias = bias.iter().zip(next_bias).map(|(a, b)| a + b).collect();
        Norm { weight, bias, stream_bias, eps }
    }
}

/// Normalises rows of the stream `from`. Writes the rows as bf16 to `activations`. Writes the
/// columns of the panels in `keep` as f32 to the stream `to`.
///
/// # Panics
/// If a row is outside of a buffer.
///
/// # Safety
/// No other thread writes these rows of `from`, or reads or writes them in `activations`, or the
/// panels in `to`. The CPU must have the instructions.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn normalise(
    norm: &Norm,
    from: Shared<f32>,
    to: Shared<f32>,
    activations: Shared<u16>,
    rows: Range<usize>,
    keep: Range<usize>,
) {
    let mut row = rows.start;
    while row < rows.end {
        // Eight rows from a multiple of eight on lie in one tile, at equal distances.
        let whole = row.is_multiple_of(TOGETHER) && row + TOGETHER <= rows.end;
        let count = if whole { TOGETHER } else { 1 };
        let end = stream_row(row + count - 1) + stream_vector(VECTORS - 1) + TILE;
        let start = stream_row(row);
        let (from, to) = (from.part(start..end).pointer(), to.part(start..end).pointer());
        let start = activation_row(row);
        let end = activation_row(row + count - 1) + (PANELS - 1) * SQUARE + BLOCK;
        let activations = activations.part(start..end).pointer();
        // SAFETY: these are the rows' own places, as checked above.
        unsafe {
            if whole {
                normalise_rows::<TOGETHER>(norm, from, to, activations, &keep);
            } else {
                normalise_rows::<1>(norm, from, to, activations, &keep);
            }
        }
        row += count;
    }
}

/// [`normalise`] for rows of one tile. The order of each sum does not depend on the number of rows.
///
/// # Safety
/// The rows must exist from these places on. The CPU must have AVX512-BF16.
#[inline(always)]
unsafe fn normalise_rows<const COUNT: usize>(
    norm: &Norm,
    from: *const f32,
    to: *mut f32,
    activations: *mut u16,
    keep: &Range<usize>,
) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let mut means = [_mm512_setzero_ps(); COUNT];
        let mut scales = [_mm512_setzero_ps(); COUNT];
        for i in 0..COUNT {
            let row = from.add(i * TILE);
            let mut sums = four(row);
            for j in 1..VECTORS / 4 {
                for (sum, x) in sums.iter_mut().zip(four(row.add(j * 2 * SQUARE))) {
                    *sum = _mm512_add_ps(*sum, x);
                }
            }
            means[i] = _mm512_set1_ps(total(sums) * (1.0 / DIMS as f32));
        }
        for i in 0..COUNT {
            let row = from.add(i * TILE);
            let mut sums = [_mm512_setzero_ps(); 4];
            for j in 0..VECTORS / 4 {
                for (sum, x) in sums.iter_mut().zip(four(row.add(j * 2 * SQUARE))) {
                    let d = _mm512_sub_ps(x, means[i]);
                    *sum = _mm512_fmadd_ps(d, d, *sum);
                }
            }
            let variance = total(sums) * (1.0 / DIMS as f32);
            scales[i] = _mm512_set1_ps(1.0 / (variance + norm.eps).sqrt());
        }
        let [weight, bias, stream_bias] =
            [&norm.weight, &norm.bias, &norm.stream_bias].map(|values| values.as_ptr());
        for panel in 0..PANELS {
            let pair = |values: *const f32| {
                let at = values.add(panel * BLOCK);
                [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(TILE))]
            };
            let (weights, biases, stream) = (pair(weight), pair(bias), pair(stream_bias));
            let kept = keep.contains(&panel);
            for i in 0..COUNT {
                let place = i * TILE + panel * SQUARE;
                let a = _mm512_sub_ps(_mm512_load_ps(from.add(place)), means[i]);
                let b = _mm512_sub_ps(_mm512_load_ps(from.add(place + TILE * TILE)), means[i]);
                let a = _mm512_mul_ps(_mm512_mul_ps(a, scales[i]), weights[0]);
                let b = _mm512_mul_ps(_mm512_mul_ps(b, scales[i]), weights[1]);
                let rounded = round_pair(_mm512_add_ps(a, biases[0]), _mm512_add_ps(b, biases[1]));
                _mm512_store_si512(activations.add(panel * SQUARE + i * BLOCK).cast(), rounded);
                if kept {
                    let to = to.add(place);
                    _mm512_store_ps(to, _mm512_add_ps(a, stream[0]));
                    _mm512_store_ps(to.add(TILE * TILE), _mm512_add_ps(b, stream[1]));
                }
            }
        }
    }
}

/// Four neighbouring vectors of a row.
///
/// # Safety
/// The CPU must have AVX-512, and there must be two squares from `row` on.
#[inline(always)]
unsafe fn four(row: *const f32) -> [__m512; 4] {
    // SAFETY: the caller guarantees it.
    unsafe {
        let [first, second] = [row, row.add(SQUARE)];
        [
            _mm512_load_ps(first),
            _mm512_load_ps(first.add(TILE * TILE)),
            _mm512_load_ps(second),
            _mm512_load_ps(second.add(TILE * TILE)),
        ]
    }
}

/// Sum of four vectors, in one fixed order.
///
/// # Safety
/// The CPU must have AVX-512.
#[inline(always)]
unsafe fn total(sums: [__m512; 4]) -> f32 {
    // SAFETY: the caller guarantees it.
    unsafe {
        let [a, b, c, d] = sums;
        _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)))
    }
}

/// Writes a row of 384 floats to the stream.
///
/// # Panics
/// If the row is outside of the buffer.
///
/// # Safety
/// No other thread reads or writes the row.
pub(super) unsafe fn write_row(values: &[f32; DIMS], to: Shared<f32>, row: usize) {
    for (i, values) in values.as_chunks::<TILE>().0.iter().enumerate() {
        let place = stream_row(row) + stream_vector(i);
        // SAFETY: the caller guarantees it.
        unsafe { to.write(place..place + TILE) }.copy_from_slice(values);
    }
}

/// Reads a row of the stream as 384 floats.
///
/// # Panics
/// As [`write_row`].
///
/// # Safety
/// No other thread writes the row.
pub(super) unsafe fn read_row(from: Shared<f32>, row: usize, values: &mut [f32; DIMS]) {
    for (i, values) in values.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
        let place = stream_row(row) + stream_vector(i);
        // SAFETY: the caller guarantees it.
        values.copy_from_slice(unsafe { from.read(place..place + TILE) });
    }
}

/// Converts rows of 384 floats to activations.
///
/// # Panics
/// If a row is outside of a buffer.
///
/// # Safety
/// No other thread writes these rows of `from`, or reads or writes them in `to`. The CPU must have
/// the instructions.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn round_rows(from: Shared<f32>, to: Shared<u16>, rows: Range<usize>) {
    for row in rows {
        // SAFETY: the caller guarantees it; only whole lines of the row are accessed.
        unsafe {
            let from = from.read(row * DIMS..(row + 1) * DIMS).as_ptr();
            for panel in 0..PANELS {
                let place = activation_row(row) + panel * SQUARE;
                let to = to.write(place..place + BLOCK).as_mut_ptr();
                let first = _mm512_loadu_ps(from.add(panel * BLOCK));
                let second = _mm512_loadu_ps(from.add(panel * BLOCK + TILE));
                _mm512_store_si512(to.cast(), round_pair(first, second));
            }
        }
    }
}
