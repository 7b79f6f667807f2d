//! Layer normalisation of every tier on row-major hidden states.

#![allow(unsafe_code)]

use std::ops::Range;

use super::{ROWS, UNTOUCHED, near, random, refuses, standardised};
use crate::DIMS;
use crate::forward::entry::Kernels;
use crate::forward::guarded::Guarded;
use crate::forward::jobs::Norm;
use crate::forward::shared::Shared;
use crate::forward::tier::general;

const EPS: f32 = 1e-12;

/// Runs a job on buffers that end with the job's rows, shorter by `missing`.
fn run(kernels: Kernels, from: &[f32], rows: Range<usize>, missing: [usize; 4]) -> Vec<f32> {
    let length = rows.end * DIMS;
    let mut from = Guarded::holding(&from[..length - missing[0]]);
    let mut to = Guarded::holding(&vec![UNTOUCHED; length - missing[1]]);
    let mut weight = Guarded::holding(&random(7, DIMS)[missing[2]..]);
    let mut bias = Guarded::holding(&random(8, DIMS)[missing[3]..]);
    let job = Norm {
        from: Shared::new(from.last(length - missing[0])),
        to: Shared::new(to.last(length - missing[1])),
        weight: weight.last(DIMS - missing[2]),
        bias: bias.last(DIMS - missing[3]),
        eps: EPS,
        rows,
    };
    // SAFETY: the tier was detected on this CPU; no other thread uses the buffers.
    unsafe { (kernels.normalise)(&job) };
    to.last::<f32>(length - missing[1]).to_vec()
}

#[test]
fn normalisation_stays_inside_its_buffers_and_is_right() {
    let (weight, bias) = (random(7, DIMS), random(8, DIMS));
    for (name, kernels) in general() {
        for rows in ROWS {
            let from = random(9, rows * DIMS);
            let out = run(kernels, &from, rows / 2..rows, [0; 4]);
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
        run(kernels, &from, 0..17, [0; 4]);
        for missing in [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] {
            refuses(&format!("{name}, without {missing:?}"), || {
                run(kernels, &from, 0..17, missing);
            });
        }
    }
}
