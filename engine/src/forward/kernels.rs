//! Matrix products, attention and layer normalisation, written once over [`Simd`].
//!
//! Every sum runs over its whole length in one order that depends only on that length. So a text
//! gets the same bits alone, in any batch and with any number of threads.

#![allow(unsafe_code)]

use std::ops::Range;

use super::jobs::{Activation, Attend, Linear, Norm, Scratch};
use super::math::{Short, exp_of_negative, gelu, gelu_tanh};
use super::prefetch::{Prefetch, Tile};
use super::shared::{Plain, Shared, Values};
use super::simd::Simd;
use crate::{DIMS, Error};

/// Vectors of the width of a panel of attention's V: heads have 32 columns, two vectors of 16.
const VALUE_VECTORS: usize = 2;
/// The largest register tile: 8 rows of 3 vectors of 16 lanes.
pub(super) const MAX_TILE: usize = 8 * 3 * 16;

/// Weight columns per panel.
pub(super) const fn panel_width<V: Simd>() -> usize {
    V::PANEL * V::LANES
}

/// # Panics
/// As [`Linear::check`].
///
/// # Safety
/// No other thread writes the rows of `a` and `residual`, or reads or writes these rows and columns
/// of `out`. The CPU must have the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn linear<V: Short>(job: &Linear) {
    let width = panel_width::<V>();
    job.check(width, job.k);
    let (a, panels) = (job.a.f32().pointer(), job.panels.as_ptr());
    let mut tile = [0.0; MAX_TILE];
    for panel in job.columns.clone() {
        for (nth, row) in job.rows.clone().step_by(V::MR).enumerate() {
            let count = V::MR.min(job.rows.end - row);
            // SAFETY: the caller guarantees it; panel and row are inside the job, as checked.
            unsafe {
                let b = panels.add(panel * job.k * width);
                let product = RegisterTile {
                    k: job.k,
                    a: a.add(row * job.k),
                    a_stride: job.k,
                    b: b.cast(),
                    out: tile.as_mut_ptr(),
                    out_stride: width,
                    prefetch: Prefetch::of(Tile {
                        panel: b,
                        words: job.k * width,
                        steps: job.k,
                        rows: job.rows.len(),
                        height: V::MR,
                        nth,
                    }),
                };
                product.multiply_panel::<V>(count);
                finish::<V>(job, &mut tile, width, row..row + count, panel);
            }
        }
    }
}

/// The epilogue of a tile of rows of `width` columns: bias, activation, residual, and the store to
/// `out` in f32.
///
/// # Panics
/// If `out` is in another format.
///
/// # Safety
/// As [`linear`]; `width` must be the width of the weight's panels and a multiple of the lanes.
#[inline(always)]
pub(super) unsafe fn finish<V: Short>(
    job: &Linear,
    tile: &mut [f32],
    width: usize,
    rows: Range<usize>,
    panel: usize,
) {
    assert!(rows.len() * width <= tile.len());
    let n = job.weights.n;
    let first = panel * width;
    let columns = width.min(n - first);
    let out = job.out.f32().pointer();
    for row in 0..rows.len() {
        // SAFETY: the tile has `rows.len()` rows of `width`. Whole vectors of `out` and `residual` are accessed only when the panel is whole.
        unsafe {
            let values = tile.as_mut_ptr().add(row * width);
            let place = (rows.start + row) * n + first;
            activate::<V>(job, values, width, first);
            if columns == width {
                for column in (0..width).step_by(V::LANES) {
                    let mut v = V::load(values.add(column));
                    if let Some(residual) = job.residual {
                        v = v.add(V::load(residual.pointer().add(place + column)));
                    }
                    v.store(out.add(place + column));
                }
            } else {
                for column in 0..columns {
                    let mut v = *values.add(column);
                    if let Some(residual) = job.residual {
                        v += *residual.pointer().add(place + column);
                    }
                    *out.add(place + column) = v;
                }
            }
        }
    }
}

/// Adds the bias to a row of a tile, and applies the activation.
///
/// # Safety
/// As [`linear`]; the row must have `width` floats, which belong to the panel from column `first`
/// on.
#[inline(always)]
pub(super) unsafe fn activate<V: Short>(
    job: &Linear,
    values: *mut f32,
    width: usize,
    first: usize,
) {
    let bias = job.weights.bias.as_ptr();
    for column in (0..width).step_by(V::LANES) {
        // SAFETY: the caller guarantees it; the bias is padded to whole panels.
        unsafe {
            let v = V::load(values.add(column)).add(V::load(bias.add(first + column)));
            let v = match job.activation {
                Activation::None => v,
                Activation::Gelu => gelu(v),
                Activation::GeluShort => v.gelu_short(),
                Activation::GeluTanh => gelu_tanh(v),
                // `max` returns its second operand when one operand is NaN, so NaN stays NaN.
                Activation::Relu => V::splat(0.0).max(v),
            };
            v.store(values.add(column));
        }
    }
}

/// The number format in which attention writes its result.
pub(super) trait Format: Plain {
    /// Whether the exponential of [`Short`] is precise enough.
    const SHORT: bool;

    /// The buffer in this format.
    ///
    /// # Panics
    /// If it has another format.
    fn of(values: Values<'_>) -> Shared<'_, Self>;

    /// Writes `scale` times some values. They may change.
    ///
    /// # Safety
    /// `to` must have space for as many values. The CPU must have the instruction set of the tier.
    unsafe fn write(values: &mut [f32], scale: f32, to: *mut Self);
}

impl Format for f32 {
    const SHORT: bool = false;

    #[inline(always)]
    fn of(values: Values<'_>) -> Shared<'_, f32> {
        values.f32()
    }

    #[inline(always)]
    unsafe fn write(values: &mut [f32], scale: f32, to: *mut f32) {
        for (i, value) in values.iter().enumerate() {
            // SAFETY: the caller guarantees it.
            unsafe { *to.add(i) = value * scale };
        }
    }
}

/// Softmax(Q Kᵀ) V in the format `T`, one head after the other. The weights of the queries contain
/// the scale.
///
/// # Errors
/// [`Error::OutOfMemory`].
///
/// # Panics
/// If rows or heads of the job lie outside of a buffer.
///
/// # Safety
/// No other thread writes the rows of `qkv`, or reads or writes the columns of these heads in the
/// rows of `out`. The CPU must have the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn attend<V: Short, T: Format>(
    job: &Attend,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    job.check();
    let (length, size) = (job.rows.len(), job.head_size);
    let key_width = panel_width::<V>();
    let key_panels = length.div_ceil(key_width);
    let value_width = VALUE_VECTORS * V::LANES;
    let value_panels = size.div_ceil(value_width);
    let padded = key_panels * key_width;
    let packed_keys = scratch.keys.of(key_panels * size * key_width)?;
    let packed_values = scratch.values.of(value_panels * length * value_width)?;
    let scores = scratch.scores.of::<f32>(V::MR * padded)?.as_mut_ptr();
    let stride = 3 * DIMS;
    for head in job.heads.clone() {
        // SAFETY: the caller guarantees it, and the sizes were checked above; the packed copies
        // have the sizes that were reserved above.
        unsafe {
            let queries = job.qkv.pointer().add(job.rows.start * stride + head * size);
            let keys = queries.add(DIMS);
            let values = keys.add(DIMS);
            let out = T::of(job.out).pointer().add(job.rows.start * DIMS + head * size);
            pack_rows(packed_keys, keys, stride, length, size, key_width);
            pack_columns(packed_values, values, stride, length, size, value_width);

            let mut row = 0;
            while row < length {
                let count = V::MR.min(length - row);
                for panel in 0..key_panels {
                    let product = RegisterTile {
                        k: size,
                        a: queries.add(row * stride),
                        a_stride: stride,
                        b: packed_keys.as_ptr().add(panel * size * key_width),
                        out: scores.add(panel * key_width),
                        out_stride: padded,
                        prefetch: Prefetch::nothing(),
                    };
                    product.multiply_panel::<V>(count);
                }
                let mut scales = [0.0; 8];
                for (i, scale) in scales.iter_mut().enumerate().take(count) {
                    *scale = exponentiate::<V, T>(scores.add(i * padded), length, padded);
                }
                for panel in 0..value_panels {
                    let mut tile = [0.0; MAX_TILE];
                    let product = RegisterTile {
                        k: length,
                        a: scores,
                        a_stride: padded,
                        b: packed_values.as_ptr().add(panel * length * value_width),
                        out: tile.as_mut_ptr(),
                        out_stride: value_width,
                        prefetch: Prefetch::nothing(),
                    };
                    product.multiply::<V, VALUE_VECTORS>(count);
                    let columns = value_width.min(size - panel * value_width);
                    for (i, scale) in scales.iter().enumerate().take(count) {
                        let to = out.add((row + i) * DIMS + panel * value_width);
                        T::write(&mut tile[i * value_width..][..columns], *scale, to);
                    }
                }
                row += count;
            }
        }
    }
    Ok(())
}

/// `scores = exp(scores - max)`. Returns the reciprocal of their sum. It is NaN when a score is NaN
/// or infinity, or when all are minus infinity: softmax is then undefined. Scores beyond `length`
/// are padding.
///
/// # Safety
/// The row must have `padded` floats, a multiple of the lanes. The CPU must have the instruction
/// set.
#[inline(always)]
unsafe fn exponentiate<V: Short, T: Format>(scores: *mut f32, length: usize, padded: usize) -> f32 {
    // SAFETY: the caller guarantees it.
    unsafe {
        for i in length..padded {
            *scores.add(i) = f32::NEG_INFINITY;
        }
        // Four independent chains of maxima take no longer than one, because each waits only for
        // its own.
        let mut largest = [V::splat(f32::MIN); 4];
        for (nth, i) in (0..padded).step_by(V::LANES).enumerate() {
            largest[nth % 4] = largest[nth % 4].max(V::load(scores.add(i)));
        }
        let [a, b, c, d] = largest;
        let largest = V::splat(a.max(b).max(c.max(d)).largest());
        let mut sums = [V::splat(0.0); 4];
        for (nth, i) in (0..padded).step_by(V::LANES).enumerate() {
            let below = V::load(scores.add(i)).sub(largest);
            let e = if T::SHORT { below.exp_of_negative_short() } else { exp_of_negative(below) };
            e.store(scores.add(i));
            sums[nth % 4] = sums[nth % 4].add(e);
        }
        let [a, b, c, d] = sums;
        let sum = a.add(b).add(c.add(d)).sum();
        // The largest score contributes 1 to the sum.
        if sum >= 0.5 { 1.0 / sum } else { f32::NAN }
    }
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias`, row by row.
///
/// # Panics
/// If rows of the job lie outside of a buffer.
///
/// # Safety
/// No other thread writes the rows of `from`, or reads or writes the rows of `to`. The CPU must
/// have the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn normalise<V: Simd>(job: &Norm) {
    job.check();
    let scale = 1.0 / DIMS as f32;
    let (weight, bias) = (job.weight.as_ptr(), job.bias.as_ptr());
    for row in job.rows.clone() {
        // SAFETY: the caller guarantees it; the row is inside the buffers, as checked.
        unsafe {
            let x = job.from.pointer().add(row * DIMS);
            let to = job.to.pointer().add(row * DIMS);
            let columns = || (0..DIMS).step_by(V::LANES).enumerate();
            let mut sums = [V::splat(0.0); 4];
            for (nth, i) in columns() {
                sums[nth % 4] = sums[nth % 4].add(V::load(x.add(i)));
            }
            let [a, b, c, d] = sums;
            let mean = V::splat(a.add(b).add(c.add(d)).sum() * scale);
            let mut squares = [V::splat(0.0); 4];
            for (nth, i) in columns() {
                let d = V::load(x.add(i)).sub(mean);
                squares[nth % 4] = d.mul_add(d, squares[nth % 4]);
            }
            let [a, b, c, d] = squares;
            let variance = a.add(b).add(c.add(d)).sum() * scale;
            let deviation = V::splat(1.0 / (variance + job.eps).sqrt());
            for (_, i) in columns() {
                let d = V::load(x.add(i)).sub(mean).mul(deviation);
                d.mul_add(V::load(weight.add(i)), V::load(bias.add(i))).store(to.add(i));
            }
        }
    }
}

/// Packs the rows of a matrix `[n, k]` as panels `[n / width][k][width]`. Columns beyond `n` keep
/// their old values: those columns of the product are overwritten. 12 rows leave 36 of 48.
///
/// # Safety
/// `from` must have `n` rows of `k` floats, `stride` apart.
unsafe fn pack_rows(
    to: &mut [f32],
    from: *const f32,
    stride: usize,
    n: usize,
    k: usize,
    width: usize,
) {
    for (panel, to) in to.chunks_exact_mut(k * width).enumerate() {
        let rows = width.min(n.saturating_sub(panel * width));
        for (column, to) in to.chunks_exact_mut(width).enumerate() {
            for (i, to) in to.iter_mut().enumerate().take(rows) {
                // SAFETY: row and column are inside the matrix.
                *to = unsafe { *from.add((panel * width + i) * stride + column) };
            }
        }
    }
}

/// Packs the columns of a matrix `[k, n]` as panels `[n / width][k][width]`, zero beyond `n`.
///
/// # Safety
/// As [`linear`], for the sizes it is called with.
unsafe fn pack_columns(
    to: &mut [f32],
    from: *const f32,
    stride: usize,
    k: usize,
    n: usize,
    width: usize,
) {
    for (panel, to) in to.chunks_exact_mut(k * width).enumerate() {
        let columns = width.min(n - panel * width);
        for (row, to) in to.chunks_exact_mut(width).enumerate() {
            // SAFETY: row and columns are inside the matrix.
            let from = unsafe {
                std::slice::from_raw_parts(from.add(row * stride + panel * width), columns)
            };
            to[..columns].copy_from_slice(from);
            to[columns..].fill(0.0);
        }
    }
}

/// Some rows times one panel: `out[count, W] = a[count, k] · b[k, W]`, with `b` packed densely.
struct RegisterTile {
    k: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    out: *mut f32,
    out_stride: usize,
    prefetch: Prefetch,
}

impl RegisterTile {
    /// [`RegisterTile::multiply`] with the width of a weight panel.
    ///
    /// # Safety
    /// As [`linear`], for the sizes it is called with.
    #[inline(always)]
    unsafe fn multiply_panel<V: Simd>(self, count: usize) {
        // SAFETY: the callers guarantee it.
        unsafe {
            match V::PANEL {
                3 => self.multiply::<V, 3>(count),
                _ => self.multiply::<V, 2>(count),
            }
        }
    }

    /// The product with `W = VECTORS * LANES`.
    ///
    /// # Safety
    /// As [`linear`], for the sizes it is called with.
    #[inline(always)]
    unsafe fn multiply<V: Simd, const VECTORS: usize>(self, count: usize) {
        // SAFETY: the callers guarantee it; each arm handles as many rows as it matches.
        unsafe {
            match count {
                8 => self.tile::<V, 8, VECTORS>(),
                7 => self.tile::<V, 7, VECTORS>(),
                6 => self.tile::<V, 6, VECTORS>(),
                5 => self.tile::<V, 5, VECTORS>(),
                4 => self.tile::<V, 4, VECTORS>(),
                3 => self.tile::<V, 3, VECTORS>(),
                2 => self.tile::<V, 2, VECTORS>(),
                _ => self.tile::<V, 1, VECTORS>(),
            }
        }
    }

    /// The register tile: `ROWS × VECTORS` accumulators over the whole of `k`.
    ///
    /// # Safety
    /// As [`linear`], for the sizes it is called with.
    #[inline(always)]
    unsafe fn tile<V: Simd, const ROWS: usize, const VECTORS: usize>(self) {
        let RegisterTile { k, a, a_stride, mut b, out, out_stride, mut prefetch } = self;
        // SAFETY: the caller guarantees the sizes.
        unsafe {
            let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
            for i in 0..k {
                prefetch.step();
                let mut panel = [V::splat(0.0); VECTORS];
                for (j, vector) in panel.iter_mut().enumerate() {
                    *vector = V::load(b.add(j * V::LANES));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factor = V::splat(*a.add(row * a_stride + i));
                    for (sum, vector) in sums.iter_mut().zip(panel) {
                        *sum = factor.mul_add(vector, *sum);
                    }
                }
                b = b.add(VECTORS * V::LANES);
            }
            for (row, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    sum.store(out.add(row * out_stride + j * V::LANES));
                }
            }
        }
    }
}
