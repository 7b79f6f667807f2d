//! Matrix products of every tier.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ops::Range;

use super::{
    GuardedValues, ROWS, UNTOUCHED, activated, dot, general_in_bf16, near, random, refuses, rounded,
};
use crate::forward::entry::Kernels;
use crate::forward::guarded::Guarded;
use crate::forward::jobs::{Activation, Linear};
use crate::forward::number::Precision;
use crate::forward::panels::{LinearWeights, Packer};
use crate::forward::shared::Shared;
use crate::forward::tier::general;

/// A matrix `[n, k]`, packed for a tier, and the other operands of the product.
struct Case {
    kernels: Kernels,
    n: usize,
    k: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    packed_bias: Vec<f32>,
    panels: Vec<u32>,
    a: Vec<f32>,
    residual: Vec<f32>,
}

/// Values by which each buffer is too short.
#[derive(Clone, Copy, Default)]
struct Missing {
    a: usize,
    panels: usize,
    bias: usize,
    residual: usize,
    out: usize,
}

impl Case {
    fn new(kernels: Kernels, n: usize, k: usize, rows: usize) -> Case {
        let (weight, bias) = (random(1, n * k), random(2, n));
        let mut packer = Packer::new(kernels.form, 1, &[(n, k)]).unwrap();
        let packed = packer.pack(&weight, bias.clone(), k).unwrap();
        let panels = packer.finish().as_slice().to_vec();
        let (a, residual) = (random(3, rows * k), random(4, rows * n));
        Case { kernels, n, k, weight, bias, packed_bias: packed.bias, panels, a, residual }
    }

    /// Runs a job with a result in this format, on buffers that are exactly as long as it needs, shorter by `missing`.
    fn run(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        activation: Activation,
        with_residual: bool,
        format: Precision,
        missing: Missing,
    ) -> Vec<f32> {
        let Case { n, k, .. } = *self;
        let width = self.kernels.form.width;
        let words = columns.end * width * self.kernels.form.packed_depth(k) - missing.panels;
        let mut panels = Guarded::holding(&self.panels[..words]);
        let bias_length = columns.end * width - missing.bias;
        let mut bias = Guarded::holding(&self.packed_bias[..bias_length]);
        let precision = self.kernels.form.precision;
        let mut a = GuardedValues::holding(precision, &self.a[..rows.end * k - missing.a]);
        let mut residual = Guarded::holding(&self.residual[..rows.end * n - missing.residual]);
        let out_length = rows.end * n - missing.out;
        let mut out = GuardedValues::holding(format, &vec![UNTOUCHED; out_length]);
        // SAFETY: the memory has this number of floats, and the vector never frees any of them.
        let bias = unsafe {
            Vec::from_raw_parts(
                bias.last::<f32>(bias_length).as_mut_ptr(),
                bias_length,
                bias_length,
            )
        };
        let weights = ManuallyDrop::new(LinearWeights { panels: 0..words, bias, n, k });
        let residual = Shared::new(residual.last(rows.end * n - missing.residual));
        let job = Linear {
            a: a.values(),
            k,
            weights: &weights,
            panels: panels.last(words),
            activation,
            residual: with_residual.then_some(residual),
            out: out.values(),
            rows,
            columns,
        };
        // SAFETY: the tier was detected on this CPU; no other thread uses the buffers.
        unsafe { (self.kernels.linear)(&job) };
        out.floats()
    }

    /// The products in f64, with factors rounded as in the tier.
    fn products(&self) -> Vec<f64> {
        let round = |values: &[f32]| -> Vec<f32> {
            match self.kernels.form.precision {
                Precision::F32 => values.to_vec(),
                Precision::Bf16 => values.iter().map(|&value| rounded(value)).collect(),
            }
        };
        let (a, weight) = (round(&self.a), round(&self.weight));
        let rows = a.chunks_exact(self.k);
        rows.flat_map(|a| weight.chunks_exact(self.k).map(|weight| dot(a, weight))).collect()
    }
}

const ALL: [Activation; 5] = [
    Activation::None,
    Activation::Gelu,
    Activation::GeluShort,
    Activation::GeluTanh,
    Activation::Relu,
];

#[test]
fn a_product_stays_inside_its_buffers_and_is_right() {
    for (name, kernels) in general() {
        // Matrices with whole panels and with a partial panel, and a `k` that is not a multiple of
        // a vector.
        for (n, k) in [(384, 384), (70, 384), (384, 70), (2, 2), (144, 32)] {
            let case = Case::new(kernels, n, k, ROWS[ROWS.len() - 1]);
            let products = case.products();
            let width = kernels.form.width;
            let panels = n.div_ceil(width);
            for (nth, rows) in ROWS.into_iter().enumerate() {
                for (first_row, columns) in
                    [(0, 0..panels), (rows / 2, panels / 2..panels), (0, 0..1)]
                {
                    let (activation, residual) = (ALL[nth % 5], nth % 3 > 0);
                    let job_rows = first_row..rows;
                    let missing = Missing::default();
                    let out = case.run(
                        job_rows,
                        columns.clone(),
                        activation,
                        residual,
                        Precision::F32,
                        missing,
                    );
                    for (i, &found) in out.iter().enumerate() {
                        let (row, column) = (i / n, i % n);
                        if row < first_row || !columns.contains(&(column / width)) {
                            assert_eq!(found, UNTOUCHED, "{name}, row {row}, column {column}");
                            continue;
                        }
                        let sum = products[i] + f64::from(case.bias[column]);
                        let mut wanted = activated(activation, sum);
                        if residual {
                            wanted += f64::from(case.residual[i]);
                        }
                        // f32 adds 384 products, with a sum around 10.
                        let short = activation == Activation::GeluShort;
                        let tolerance = if short { 2.5e-4 } else { 4e-5 };
                        near(found, wanted, tolerance, (name, n, k, row, column, activation));
                    }
                }
            }
        }
    }
}

#[test]
fn a_product_that_is_too_large_for_a_buffer_is_refused() {
    for (name, kernels) in general() {
        let case = Case::new(kernels, 70, 64, 17);
        let panels = 70_usize.div_ceil(kernels.form.width);
        let run = |missing| {
            case.run(0..17, 0..panels, Activation::None, true, Precision::F32, missing);
        };
        run(Missing::default());
        let none = Missing::default();
        refuses(&format!("{name}: a"), || run(Missing { a: 1, ..none }));
        refuses(&format!("{name}: panels"), || run(Missing { panels: 1, ..none }));
        refuses(&format!("{name}: bias"), || run(Missing { bias: 1, ..none }));
        refuses(&format!("{name}: residual"), || run(Missing { residual: 1, ..none }));
        refuses(&format!("{name}: out"), || run(Missing { out: 1, ..none }));
        // One panel more than the matrix has, in buffers that are large enough for it.
        let mut wider = Case::new(kernels, 70 + kernels.form.width, 64, 17);
        wider.n = 70;
        refuses(&format!("{name}: columns"), || {
            wider.run(0..17, 0..panels + 1, Activation::None, true, Precision::F32, none);
        });
    }
}

#[test]
fn a_product_in_bf16_is_the_product_in_f32_rounded() {
    for (name, kernels) in general_in_bf16() {
        for (n, k) in [(384, 384), (70, 70), (49, 32), (2, 2)] {
            let case = Case::new(kernels, n, k, ROWS[ROWS.len() - 1]);
            let panels = n.div_ceil(kernels.form.width);
            for (nth, rows) in ROWS.into_iter().enumerate() {
                for columns in [0..panels, panels / 2..panels, 0..1] {
                    let run = |format| {
                        let (rows, columns) = (rows / 2..rows, columns.clone());
                        case.run(rows, columns, ALL[nth % 5], false, format, Missing::default())
                    };
                    let wanted = run(Precision::F32).into_iter().map(rounded);
                    assert!(wanted.eq(run(Precision::Bf16)), "{name}, {n} × {k}, {rows} rows");
                }
            }
        }
        let case = Case::new(kernels, 70, 64, 17);
        let run = |residual, out| {
            let missing = Missing { out, ..Missing::default() };
            case.run(0..17, 0..2, Activation::None, residual, Precision::Bf16, missing);
        };
        run(false, 0);
        refuses(&format!("{name}: out"), || run(false, 1));
        refuses(&format!("{name}: a residual"), || run(true, 0));
    }
}
