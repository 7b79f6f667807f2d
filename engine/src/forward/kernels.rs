//! Matrix products, attention and layer normalisation, written once over [`Simd`].
//!
//! Every sum runs over its whole length in one order that depends on nothing but that length, so
//! a text gets the same bits alone, in any batch and with any number of threads.

#![allow(unsafe_code)]

use std::ops::Range;

use super::math::{exp_of_negative, gelu, gelu_tanh};
use super::prefetch::{Ahead, Tile};
use super::simd::Simd;

/// Vectors of the width of a panel of attention's V: heads have 32 columns, two vectors of 16.
const VALUE_VECTORS: usize = 2;
/// The largest register tile: 8 rows of 3 vectors of 16 lanes.
pub(super) const MAX_TILE: usize = 8 * 3 * 16;

/// What follows a matrix product and its bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    None,
    Gelu,
    GeluTanh,
    Relu,
}

/// `out[rows, n] = activation(a[rows, k] · W[n, k]ᵀ + bias) + residual`, for some rows and panels.
#[derive(Clone)]
pub(super) struct Linear {
    /// Row-major `[m, k]`.
    pub a: *const f32,
    pub k: usize,
    /// Packed panels `[n / NR][k][NR]`, zero beyond `n`: words that are floats, or `[k / 2]` pairs
    /// of bf16 in a bf16 tier.
    pub weight: *const u32,
    /// `[n]`, padded to whole panels.
    pub bias: *const f32,
    pub n: usize,
    pub activation: Activation,
    /// `[m, n]`, or null.
    pub residual: *const f32,
    /// `[m, n]`.
    pub out: *mut f32,
    pub rows: Range<usize>,
    pub panels: Range<usize>,
}

/// Attention of some heads over one sequence.
#[derive(Clone)]
pub(super) struct Attend {
    /// The sequence's first row of `[m, 3 * hidden]`: queries (already scaled), keys, values.
    pub qkv: *const f32,
    /// The sequence's first row of `[m, hidden]`.
    pub out: *mut f32,
    pub length: usize,
    pub hidden: usize,
    pub head_size: usize,
    pub heads: Range<usize>,
}

/// Layer normalisation of rows in place.
#[derive(Clone)]
pub(super) struct Norm {
    /// `[m, hidden]`.
    pub x: *mut f32,
    pub hidden: usize,
    pub weight: *const f32,
    pub bias: *const f32,
    pub eps: f32,
    pub rows: Range<usize>,
}

/// Buffers a thread keeps between calls.
#[derive(Default)]
pub(super) struct Scratch {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
    pub scores: Vec<f32>,
    /// Pairs of bf16: rows of `a`, and attention's weights.
    pub pairs: Vec<u32>,
    pub query_pairs: Vec<u32>,
    pub key_pairs: Vec<u32>,
    pub value_pairs: Vec<u32>,
}

/// Weight columns per panel.
pub(super) const fn panel_width<V: Simd>() -> usize {
    V::PANEL * V::LANES
}

/// # Safety
/// The pointers of the job must be valid for the sizes it names, `out` for nobody else in its
/// rows and panels; the instruction set of `V` must be there.
#[inline(always)]
pub(super) unsafe fn linear<V: Simd>(job: &Linear) {
    let width = panel_width::<V>();
    let mut tile = [0.0; MAX_TILE];
    for panel in job.panels.clone() {
        for (nth, row) in job.rows.clone().step_by(V::MR).enumerate() {
            let count = V::MR.min(job.rows.end - row);
            // SAFETY: the caller's word; panel and row are inside the job.
            unsafe {
                let b = job.weight.add(panel * job.k * width);
                let product = Product {
                    k: job.k,
                    a: job.a.add(row * job.k),
                    a_stride: job.k,
                    b: b.cast(),
                    out: tile.as_mut_ptr(),
                    out_stride: width,
                    ahead: Ahead::of(Tile {
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

/// Bias, activation and residual of a finished tile, rows of `width` columns, and its way out.
///
/// # Safety
/// As [`linear`]; `width` must be that of the weight's panels and a multiple of the lanes.
#[inline(always)]
pub(super) unsafe fn finish<V: Simd>(
    job: &Linear,
    tile: &mut [f32],
    width: usize,
    rows: Range<usize>,
    panel: usize,
) {
    assert!(rows.len() * width <= tile.len());
    let first = panel * width;
    let columns = width.min(job.n - first);
    for row in 0..rows.len() {
        // SAFETY: the tile has `rows.len()` rows of `width`; bias is padded to whole panels; whole
        // vectors of out and residual are touched only where the panel is whole.
        unsafe {
            let values = tile.as_mut_ptr().add(row * width);
            let place = (rows.start + row) * job.n + first;
            for column in (0..width).step_by(V::LANES) {
                let v = V::load(values.add(column)).add(V::load(job.bias.add(first + column)));
                let v = match job.activation {
                    Activation::None => v,
                    Activation::Gelu => gelu(v),
                    Activation::GeluTanh => gelu_tanh(v),
                    Activation::Relu => v.max(V::splat(0.0)),
                };
                v.store(values.add(column));
            }
            if columns == width {
                for column in (0..width).step_by(V::LANES) {
                    let mut v = V::load(values.add(column));
                    if !job.residual.is_null() {
                        v = v.add(V::load(job.residual.add(place + column)));
                    }
                    v.store(job.out.add(place + column));
                }
            } else {
                for column in 0..columns {
                    let mut v = *values.add(column);
                    if !job.residual.is_null() {
                        v += *job.residual.add(place + column);
                    }
                    *job.out.add(place + column) = v;
                }
            }
        }
    }
}

/// Softmax(Q Kᵀ) V, head by head. The scale is in the queries' weights.
///
/// # Safety
/// As [`linear`]; `out` for nobody else in the columns of its heads.
#[inline(always)]
pub(super) unsafe fn attend<V: Simd>(job: &Attend, scratch: &mut Scratch) {
    let (length, size) = (job.length, job.head_size);
    let key_width = panel_width::<V>();
    let key_panels = length.div_ceil(key_width);
    let value_width = VALUE_VECTORS * V::LANES;
    let value_panels = size.div_ceil(value_width);
    let padded = key_panels * key_width;
    scratch.keys.resize(key_panels * size * key_width, 0.0);
    scratch.values.resize(value_panels * length * value_width, 0.0);
    scratch.scores.resize(V::MR * padded, 0.0);
    let stride = 3 * job.hidden;
    for head in job.heads.clone() {
        // SAFETY: the caller's word on `qkv`; the packed copies have the sizes just made.
        unsafe {
            let queries = job.qkv.add(head * size);
            let keys = queries.add(job.hidden);
            let values = keys.add(job.hidden);
            pack_rows(&mut scratch.keys, keys, stride, length, size, key_width);
            pack_columns(&mut scratch.values, values, stride, length, size, value_width);

            let mut row = 0;
            while row < length {
                let count = V::MR.min(length - row);
                let scores = scratch.scores.as_mut_ptr();
                for panel in 0..key_panels {
                    let product = Product {
                        k: size,
                        a: queries.add(row * stride),
                        a_stride: stride,
                        b: scratch.keys.as_ptr().add(panel * size * key_width),
                        out: scores.add(panel * key_width),
                        out_stride: padded,
                        ahead: Ahead::nothing(),
                    };
                    product.multiply_panel::<V>(count);
                }
                let mut scales = [0.0; 8];
                for (i, scale) in scales.iter_mut().enumerate().take(count) {
                    *scale = 1.0 / exponentiate::<V>(scores.add(i * padded), length, padded);
                }
                for panel in 0..value_panels {
                    let mut tile = [0.0; MAX_TILE];
                    let product = Product {
                        k: length,
                        a: scores,
                        a_stride: padded,
                        b: scratch.values.as_ptr().add(panel * length * value_width),
                        out: tile.as_mut_ptr(),
                        out_stride: value_width,
                        ahead: Ahead::nothing(),
                    };
                    product.multiply::<V, VALUE_VECTORS>(count);
                    let columns = value_width.min(size - panel * value_width);
                    for (i, scale) in scales.iter().enumerate().take(count) {
                        let to =
                            job.out.add((row + i) * job.hidden + head * size + panel * value_width);
                        for column in 0..columns {
                            *to.add(column) = tile[i * value_width + column] * scale;
                        }
                    }
                }
                row += count;
            }
        }
    }
}

/// `scores = exp(scores - max)`; returns their sum. What is beyond `length` counts for nothing.
///
/// # Safety
/// As [`linear`], for the sizes it is called with.
#[inline(always)]
pub(super) unsafe fn exponentiate<V: Simd>(scores: *mut f32, length: usize, padded: usize) -> f32 {
    // SAFETY: the row has `padded` floats, a multiple of the lanes.
    unsafe {
        for i in length..padded {
            *scores.add(i) = f32::MIN;
        }
        let mut largest = V::splat(f32::MIN);
        for i in (0..padded).step_by(V::LANES) {
            largest = largest.max(V::load(scores.add(i)));
        }
        let largest = V::splat(largest.largest());
        let mut sum = V::splat(0.0);
        for i in (0..padded).step_by(V::LANES) {
            let e = exp_of_negative(V::load(scores.add(i)).sub(largest));
            e.store(scores.add(i));
            sum = sum.add(e);
        }
        sum.sum()
    }
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias`, row by row.
///
/// # Safety
/// As [`linear`]; `hidden` must be a multiple of the lanes.
#[inline(always)]
pub(super) unsafe fn normalise<V: Simd>(job: &Norm) {
    let scale = 1.0 / job.hidden as f32;
    for row in job.rows.clone() {
        // SAFETY: the caller's word.
        unsafe {
            let x = job.x.add(row * job.hidden);
            let columns = || (0..job.hidden).step_by(V::LANES);
            let mut sum = V::splat(0.0);
            for i in columns() {
                sum = sum.add(V::load(x.add(i)));
            }
            let mean = V::splat(sum.sum() * scale);
            let mut squares = V::splat(0.0);
            for i in columns() {
                let d = V::load(x.add(i)).sub(mean);
                squares = d.mul_add(d, squares);
            }
            let deviation = V::splat(1.0 / (squares.sum() * scale + job.eps).sqrt());
            for i in columns() {
                let d = V::load(x.add(i)).sub(mean).mul(deviation);
                d.mul_add(V::load(job.weight.add(i)), V::load(job.bias.add(i))).store(x.add(i));
            }
        }
    }
}

/// Packs the rows of a matrix `[n, k]` as panels `[n / width][k][width]`. Beyond `n` they keep what
/// they were: those columns of the product are overwritten, and 12 rows leave 36 of 48.
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

/// A few rows times one panel: `out[count, W] = a[count, k] · b[k, W]`, `b` packed densely.
struct Product {
    k: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    out: *mut f32,
    out_stride: usize,
    ahead: Ahead,
}

impl Product {
    /// [`Product::multiply`] with a weight panel's width.
    ///
    /// # Safety
    /// As [`linear`], for the sizes it is called with.
    #[inline(always)]
    unsafe fn multiply_panel<V: Simd>(self, count: usize) {
        // SAFETY: the callers' word.
        unsafe {
            match V::PANEL {
                3 => self.multiply::<V, 3>(count),
                _ => self.multiply::<V, 2>(count),
            }
        }
    }

    /// With `W = VECTORS * LANES`.
    ///
    /// # Safety
    /// As [`linear`], for the sizes it is called with.
    #[inline(always)]
    unsafe fn multiply<V: Simd, const VECTORS: usize>(self, count: usize) {
        // SAFETY: the callers' word; each arm has as many rows as it counts.
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
        let Product { k, a, a_stride, mut b, out, out_stride, mut ahead } = self;
        // SAFETY: the callers' word on the sizes.
        unsafe {
            let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
            for i in 0..k {
                ahead.step();
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
