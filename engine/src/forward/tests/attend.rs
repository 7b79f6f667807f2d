//! Attention of every tier on row-major hidden states.

#![allow(unsafe_code)]

use std::ops::Range;

use super::{GuardedValues, ROWS, UNTOUCHED, dot, near, random, refuses};
use crate::DIMS;
use crate::forward::entry::Kernels;
use crate::forward::guarded::Guarded;
use crate::forward::jobs::{Attend, Scratch};
use crate::forward::number::Precision;
use crate::forward::shared::Shared;
use crate::forward::tier::general;

/// Queries, keys and values of `rows` rows. Values outside of `rows` must not be read.
fn qkv(rows: &Range<usize>) -> Vec<f32> {
    let mut qkv = random(5, rows.end * 3 * DIMS);
    qkv[..rows.start * 3 * DIMS].fill(f32::NAN);
    qkv
}

/// Runs a job on buffers that end with the job's rows, shorter by `missing`.
fn run(
    kernels: Kernels,
    qkv: &[f32],
    rows: Range<usize>,
    head_size: usize,
    heads: Range<usize>,
    missing: [usize; 2],
) -> Vec<f32> {
    let lengths = [rows.end * 3 * DIMS - missing[0], rows.end * DIMS - missing[1]];
    let mut qkv = Guarded::holding(&qkv[..lengths[0]]);
    let mut out = GuardedValues::holding(kernels.form.precision, &vec![UNTOUCHED; lengths[1]]);
    let job = Attend {
        qkv: Shared::new(qkv.last(lengths[0])),
        out: out.values(),
        rows,
        head_size,
        heads,
    };
    // SAFETY: the tier was detected on this CPU; no other thread uses the buffers.
    unsafe { (kernels.attend)(&job, &mut Scratch::default()) }.unwrap();
    out.floats()
}

/// Softmax(q Kᵀ) V in f64, for one row and head.
fn reference(qkv: &[f32], rows: &Range<usize>, row: usize, columns: Range<usize>) -> Vec<f64> {
    let part = |row: usize, which: usize| {
        let start = row * 3 * DIMS + which * DIMS;
        &qkv[start + columns.start..start + columns.end]
    };
    let scores: Vec<f64> = rows.clone().map(|key| dot(part(row, 0), part(key, 1))).collect();
    let largest = scores.iter().copied().fold(f64::MIN, f64::max);
    let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let mut context = vec![0.0; columns.len()];
    for (key, power) in rows.clone().zip(powers) {
        for (to, &value) in context.iter_mut().zip(part(key, 2)) {
            *to += power / sum * f64::from(value);
        }
    }
    context
}

#[test]
fn attention_stays_inside_its_buffers_and_is_right() {
    for (name, kernels) in general() {
        for (nth, length) in ROWS.into_iter().enumerate() {
            for head_size in [32, 64, 24, 1, 384] {
                let heads = DIMS / head_size;
                let first = if nth % 2 == 0 { 0 } else { 3 };
                let rows = first..first + length;
                // The last heads end with the row.
                let heads = heads.saturating_sub(3)..heads;
                let qkv = qkv(&rows);
                let out = run(kernels, &qkv, rows.clone(), head_size, heads.clone(), [0, 0]);
                for row in 0..rows.end {
                    let values = &out[row * DIMS..(row + 1) * DIMS];
                    let ours = heads.start * head_size;
                    let (before, after) = values.split_at(ours);
                    assert!(before.iter().all(|&value| value == UNTOUCHED), "{name}, row {row}");
                    if row < rows.start {
                        assert!(after.iter().all(|&value| value == UNTOUCHED), "{name}, row {row}");
                        continue;
                    }
                    for head in heads.clone() {
                        let columns = head * head_size..(head + 1) * head_size;
                        let wanted = reference(&qkv, &rows, row, columns.clone());
                        for (&found, wanted) in values[columns].iter().zip(wanted) {
                            // The exponential that is precise enough for bf16 has an error of
                            // 7.5e-5, and rounding one of 2^-8.
                            let short = kernels.form.precision == Precision::Bf16;
                            let tolerance = if short { 2e-4 + wanted.abs() / 256.0 } else { 1e-5 };
                            near(found, wanted, tolerance, (name, length, head_size, row, head));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn attention_that_is_too_large_for_a_buffer_is_refused() {
    for (name, kernels) in general() {
        let qkv = qkv(&(0..17));
        run(kernels, &qkv, 0..17, 32, 0..12, [0, 0]);
        for missing in [[1, 0], [0, 1]] {
            refuses(&format!("{name}, without {missing:?}"), || {
                run(kernels, &qkv, 0..17, 32, 0..12, missing);
            });
        }
        refuses(&format!("{name}: a 13th head"), || {
            run(kernels, &qkv, 0..17, 32, 12..13, [0, 0]);
        });
    }
}

#[test]
fn a_score_that_is_no_number_gives_no_attention() {
    for (name, kernels) in general() {
        for score in [f32::NAN, f32::INFINITY, f32::MAX, f32::NEG_INFINITY] {
            for length in [1, 5, 17, 97] {
                let mut qkv = random(6, length * 3 * DIMS);
                // The last key of head 0, for all queries: MAX times 2 is infinite. With minus
                // infinity, all keys are changed, because a single such key gets no attention.
                for row in 0..length {
                    qkv[row * 3 * DIMS] = 2.0;
                    if row + 1 == length || score == f32::NEG_INFINITY {
                        qkv[row * 3 * DIMS + DIMS] = score;
                    }
                }
                let out = run(kernels, &qkv, 0..length, 32, 0..2, [0, 0]);
                for row in out.chunks_exact(DIMS) {
                    assert!(row[..32].iter().all(|value| value.is_nan()), "{name}, {score}");
                    assert!(row[32..64].iter().all(|value| value.is_finite()), "{name}, {score}");
                }
            }
        }
    }
}
