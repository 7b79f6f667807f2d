//! Layer normalisation of every tier on row-major hidden states.

#![allow(unsafe_code)]

use std::ops::Range;

use super::{
    GuardedValues, ROWS, UNTOUCHED, general_in_bf16, near, random, refuses, rounded, standardised,
};
use crate::DIMS;
use crate::forward::entry::Kernels;
use crate::forward::guarded::Guarded;
use crate::forward::jobs::Norm;
use crate::forward::number::Precision;
use crate::forward::shared::Shared;
use crate::forward::tier::general;

const EPS: f32 = 1e-12;

/// Runs a job on buffers that end with the job's rows, shorter by `missing`. Returns the result in
/// f32, and in a bf16 tier the rounded one.
fn run(
    kernels: Kernels,
    from: &[f32],
    rows: Range<usize>,
    missing: [usize; 5],
) -> (Vec<f32>, Option<Vec<f32>>) {
    let length = rows.end * DIMS;
    let mut from = Guarded::holding(&from[..length - missing[0]]);
    let mut to = Guarded::holding(&vec![UNTOUCHED; length - missing[1]]);
    let mut weight = Guarded::holding(&random(7, DIMS)[missing[2]..]);
    let mut bias = Guarded::holding(&random(8, DIMS)[missing[3]..]);
    let mut halves = (kernels.form.precision == Precision::Bf16)
        .then(|| GuardedValues::holding(Precision::Bf16, &vec![UNTOUCHED; length - missing[4]]));
    let job = Norm {
        from: Shared::new(from.last(length - missing[0])),
        to: Shared::new(to.last(length - missing[1])),
        rounded: halves.as_mut().map(|halves| halves.values().bf16()),
        weight: weight.last(DIMS - missing[2]),
        bias: bias.last(DIMS - missing[3]),
        eps: EPS,
        rows,
    };
    // SAFETY: the tier was detected on this CPU; no other thread uses the buffers.
    unsafe { (kernels.normalise)(&job) };
    let halves = halves.as_mut().map(GuardedValues::floats);
    (to.last::<f32>(length - missing[1]).to_vec(), halves)
}

#[test]
fn normalisation_stays_inside_its_buffers_and_is_right() {
    let (weight, bias) = (random(7, DIMS), random(8, DIMS));
    for (name, kernels) in general() {
        for rows in ROWS {
            let from = random(9, rows * DIMS);
            let (out, _) = run(kernels, &from, rows / 2..rows, [0; 5]);
            for (row, (from, found)) in
                from.chunks_exact(DIMS).zip(out.chunks_exact(DIMS)).enumerate()
            {
                if row < rows / 2 {
                    assert!(found.iter().all(|&value| value == UNTOUCHED), "{name}, row {row}");
                    continue;
                }
                for (i, wanted) in standardised(from, EPS).into_iter().enumerate() {
                    let wanted = wanted * f64::from(weight[i]) + f64::from(bias[i]);
                    near(found[i], wanted, 1e-5, (name, rows, row, i));
                }
            }
        }
    }
}

#[test]
fn normalisation_that_is_too_large_for_a_buffer_is_refused() {
    for (name, kernels) in general() {
        let from = random(9, 17 * DIMS);
        run(kernels, &from, 0..17, [0; 5]);
        let bf16 = kernels.form.precision == Precision::Bf16;
        for buffer in 0..if bf16 { 5 } else { 4 } {
            let mut missing = [0; 5];
            missing[buffer] = 1;
            refuses(&format!("{name}, without {missing:?}"), || {
                run(kernels, &from, 0..17, missing);
            });
        }
    }
}

#[test]
fn normalisation_in_a_bf16_tier_rounds_its_result_too() {
    for (name, kernels) in general_in_bf16() {
        for rows in ROWS {
            let from = random(9, rows * DIMS);
            let (out, halves) = run(kernels, &from, rows / 2..rows, [0; 5]);
            assert!(out.into_iter().map(rounded).eq(halves.unwrap()), "{name}, {rows} rows");
        }
    }
}
