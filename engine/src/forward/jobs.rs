//! The jobs of kernels on row-major hidden states. A kernel checks its job against the buffers
//! before it accesses them.

use std::ops::Range;

use super::memory::Buffer;
use super::panels::LinearWeights;
use super::shared::{Shared, Values};
use crate::DIMS;

/// The operation after a matrix product and its bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    None,
    Gelu,
    /// GELU for results that are rounded to bf16.
    GeluShort,
    GeluTanh,
    Relu,
}

/// `out[rows, n] = activation(a[rows, k] · W[n, k]ᵀ + bias) + residual`, for some rows and panels.
#[derive(Clone)]
pub(super) struct Linear<'a> {
    /// Row-major `[m, k]`, in the precision of the tier.
    pub a: Values<'a>,
    pub k: usize,
    pub weights: &'a LinearWeights,
    /// Packed panels, see [`LinearWeights`].
    pub panels: &'a [u32],
    pub activation: Activation,
    /// `[m, n]`. Only with `out` in f32.
    pub residual: Option<Shared<'a, f32>>,
    /// `[m, n]`. In bf16 if only a product of a bf16 tier reads it.
    pub out: Values<'a>,
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

impl Linear<'_> {
    /// # Panics
    /// If rows or panels of the job lie outside of a buffer. A panel has `width` columns of `words`
    /// words.
    pub fn check(&self, width: usize, words: usize) {
        let Linear { rows, columns, .. } = self;
        assert!(rows.end * self.k <= self.a.len());
        assert!(columns.end * width * words <= self.panels.len());
        assert!(columns.end * width <= self.weights.bias.len());
        assert!(columns.end * width < self.weights.n + width);
        assert!(rows.end * self.weights.n <= self.out.len());
        assert!(self.residual.is_none() || matches!(self.out, Values::F32(_)));
        assert!(self.residual.is_none_or(|residual| residual.len() >= rows.end * self.weights.n));
    }
}

/// Attention of some heads over one sequence.
#[derive(Clone)]
pub(super) struct Attend<'a> {
    /// `[m, 3 * 384]`: queries (already scaled), keys, values.
    pub qkv: Shared<'a, f32>,
    /// `[m, 384]`, in the precision of the tier.
    pub out: Values<'a>,
    /// The sequence.
    pub rows: Range<usize>,
    pub head_size: usize,
    pub heads: Range<usize>,
}

impl Attend<'_> {
    /// # Panics
    /// If rows or heads of the job lie outside of a buffer.
    pub fn check(&self) {
        assert!(self.rows.start <= self.rows.end && self.heads.start <= self.heads.end);
        assert!(self.heads.end * self.head_size <= DIMS);
        assert!(self.rows.end * 3 * DIMS <= self.qkv.len());
        assert!(self.rows.end * DIMS <= self.out.len());
    }
}

/// Layer normalisation of rows.
#[derive(Clone)]
pub(super) struct Norm<'a> {
    /// `[m, 384]`.
    pub from: Shared<'a, f32>,
    /// `[m, 384]`.
    pub to: Shared<'a, f32>,
    /// `to` once more, rounded for the next product. Only in a bf16 tier.
    pub rounded: Option<Shared<'a, u16>>,
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub eps: f32,
    pub rows: Range<usize>,
}

impl Norm<'_> {
    /// # Panics
    /// If rows of the job lie outside of a buffer.
    pub fn check(&self) {
        assert!(self.rows.end * DIMS <= self.from.len());
        assert!(self.rows.end * DIMS <= self.to.len());
        assert!(self.rounded.is_none_or(|rounded| rounded.len() >= self.rows.end * DIMS));
        assert!(self.weight.len() == DIMS && self.bias.len() == DIMS);
    }
}

/// Buffers that a thread keeps between calls.
#[derive(Default)]
pub(super) struct Scratch {
    pub keys: Buffer,
    pub values: Buffer,
    pub scores: Buffer,
}

impl Scratch {
    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        let Scratch { keys, values, scores } = self;
        [keys, values, scores].iter().map(|buffer| buffer.bytes()).sum()
    }
}
