//! Attention on tiles.

use std::ops::Range;

use super::{ROWS, in_activations, tiles};
use crate::forward::amx::attention::{Workspace, attend};
use crate::forward::amx::items::Attention;
use crate::forward::amx::layout::{BLOCK, HEAD, TILE};
use crate::forward::amx::pack::value_column;
use crate::forward::guarded::Guarded;
use crate::forward::shared::Shared;
use crate::forward::tests::{bf16, float, near, random, refuses, rounded};

const UNTOUCHED: u16 = 0x1234;

/// Queries, keys and values of some heads, with all rows of all texts.
struct Case {
    texts: Vec<Range<usize>>,
    heads: Range<usize>,
    /// Rows whose context is computed.
    rows: Range<usize>,
    /// Distance between two heads in the buffers.
    stride: usize,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// bf16 values by which each buffer is too short. They fill a cache line.
#[derive(Clone, Copy, Default)]
struct Missing {
    queries: usize,
    keys: usize,
    values: usize,
    context: usize,
}

impl Case {
    /// `spread` is the largest query. Scores have about this size.
    fn new(texts: Vec<Range<usize>>, heads: Range<usize>, spread: f32) -> Case {
        let end = texts.last().unwrap().end;
        let stride = (end.next_multiple_of(BLOCK) + TILE) * HEAD;
        let numbers = |seed: u64, scale: f32| -> Vec<f32> {
            let values = random(seed, heads.end * stride);
            let mut values: Vec<f32> = values.iter().map(|value| rounded(value * scale)).collect();
            // Values that belong to no text must not matter.
            for (i, value) in values.iter_mut().enumerate() {
                if !texts.iter().any(|text| text.contains(&(i % stride / HEAD))) {
                    *value = f32::NAN;
                }
            }
            values
        };
        let (queries, keys, values) = (numbers(31, spread), numbers(32, 1.0), numbers(33, 1.0));
        Case { rows: 0..end, texts, heads, stride, queries, keys, values }
    }

    fn alone(text: Range<usize>, heads: Range<usize>, spread: f32) -> Case {
        Case::new(std::iter::once(text).collect(), heads, spread)
    }

    /// Makes all scores the same.
    fn set_scores(&mut self, score: f32) {
        self.queries.fill(0.0);
        for line in self.queries.as_chunks_mut::<HEAD>().0 {
            line[7] = 1.0;
        }
        for line in self.keys.as_chunks_mut::<HEAD>().0 {
            line[7] = rounded(score);
        }
    }

    fn wanted(&self, row: usize) -> bool {
        self.rows.contains(&row)
    }

    /// Runs the job on buffers that are exactly as long as it needs, shorter by `missing`.
    fn run(&self, missing: Missing) -> Vec<u16> {
        let last_head = (self.heads.end - 1) * self.stride;
        let used = self.texts.iter().filter(|text| (*text).clone().any(|row| self.wanted(row)));
        let end = used.clone().map(|text| text.end).max().unwrap();
        // Queries are read 16 at a time, counted from the start of their text.
        let query_end = used.map(|text| {
            let last = text.clone().rev().find(|&row| self.wanted(row)).unwrap();
            text.start + (last - text.start + 1).next_multiple_of(TILE)
        });
        let queries = last_head + query_end.max().unwrap() * HEAD - missing.queries;
        let keys = last_head + end * HEAD - missing.keys;
        let values = last_head + end * HEAD - missing.values;
        let last = (self.rows.end.min(end)) - 1;
        let context = in_activations(last, self.heads.end * HEAD - 1) + 1 - missing.context;
        let halves = |from: &[f32]| -> Vec<u16> { from.iter().map(|&value| bf16(value)).collect() };
        let mut guarded_queries = Guarded::holding(&halves(&self.queries[..queries]));
        let mut guarded_keys = Guarded::holding(&halves(&self.keys[..keys]));
        let mut guarded_values = Guarded::holding(&halves(&self.values[..values]));
        let mut guarded_context = Guarded::holding(&vec![UNTOUCHED; context]);
        let job = Attention {
            queries: Shared::new(guarded_queries.last(queries)),
            keys: Shared::new(guarded_keys.last(keys)),
            values: Shared::new(guarded_values.last(values)),
            head_stride: self.stride,
            context: Shared::new(guarded_context.last(context)),
            texts: &self.texts,
            heads: self.heads.clone(),
            rows: self.rows.clone(),
        };
        // SAFETY: the tiles are configured; no other thread uses the buffers.
        unsafe { attend(&job, &mut Workspace::default()) }.unwrap();
        guarded_context.last::<u16>(context).to_vec()
    }

    /// Softmax with powers of two in f64.
    fn reference(&self, text: &Range<usize>, row: usize, head: usize) -> [f64; HEAD] {
        let line = |from: &[f32], row: usize| -> [f64; HEAD] {
            let start = head * self.stride + row * HEAD;
            std::array::from_fn(|i| f64::from(from[start + i]))
        };
        let query = line(&self.queries, row);
        let score = |key| line(&self.keys, key).iter().zip(query).map(|(k, q)| k * q).sum::<f64>();
        let scores: Vec<f64> = text.clone().map(score).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp2()).collect();
        let sum: f64 = powers.iter().sum();
        let mut context = [0.0; HEAD];
        for (key, power) in text.clone().zip(powers) {
            for (place, value) in line(&self.values, key).into_iter().enumerate() {
                context[value_column(place)] += power / sum * value;
            }
        }
        context
    }

    fn compare(&self, tolerance: f64) {
        let found = self.run(Missing::default());
        let mut expected: Vec<Option<f64>> = vec![None; found.len()];
        for text in &self.texts {
            for row in text.clone().filter(|&row| self.wanted(row)) {
                for head in self.heads.clone() {
                    for (i, value) in self.reference(text, row, head).into_iter().enumerate() {
                        expected[in_activations(row, head * HEAD + i)] = Some(value);
                    }
                }
            }
        }
        for (place, (&found, wanted)) in found.iter().zip(expected).enumerate() {
            match wanted {
                Some(wanted) => near(float(found), wanted, tolerance, (&self.texts, place)),
                None => assert_eq!(found, UNTOUCHED, "{:?}, {place}", self.texts),
            }
        }
    }
}

/// Values are within ±1. Powers and the result are rounded to 9 bits each, and the errors of the
/// powers do not all have the same sign.
const TOLERANCE: f64 = 3.0 / 512.0;

#[test]
fn attention_stays_inside_its_buffers_and_is_right() {
    let Some(_tiles) = tiles() else { return };
    // Lengths with more than one block of keys, and with more than two.
    for length in ROWS.into_iter().chain([256, 257, 300, 600]) {
        Case::alone(0..length, 0..2, 1.0).compare(TOLERANCE);
        Case::alone(5..5 + length, 11..12, 1.0).compare(TOLERANCE);
    }
}

#[test]
fn attention_of_several_texts_and_of_some_rows_is_right() {
    let Some(_tiles) = tiles() else { return };
    let mut texts = Vec::new();
    let mut start = 0;
    for length in [40, 1, 2, 16, 33, 17, 31, 32, 15, 70, 3] {
        texts.push(start..start + length);
        start += length;
    }
    for rows in [0..start, 0..32, 32..96, 96..start, 64..65] {
        Case { rows, ..Case::new(texts.clone(), 2..5, 1.0) }.compare(TOLERANCE);
    }
    let long = vec![0..300, 300..340];
    for rows in [0..32, 256..340, 288..320] {
        Case { rows, ..Case::new(long.clone(), 0..1, 1.0) }.compare(TOLERANCE);
    }
}

#[test]
fn attention_with_scores_out_of_the_range_of_powers_is_right() {
    let Some(_tiles) = tiles() else { return };
    for length in [1, 2, 16, 17, 33, 97, 300] {
        // Scores of hundreds and of 1e30. The difference between the two largest scores grows with
        // their size.
        for (spread, tolerance) in [(300.0, TOLERANCE), (1e30, 1.0 / 256.0)] {
            Case::alone(0..length, 0..2, spread).compare(tolerance);
        }
        // All scores are equal: far below or above the range of powers, or at its ends.
        for score in [-1e30, -1e4, -160.0, -125.0, -90.0, -89.0, 99.0, 127.0, 128.0, 1e4, 1e30] {
            let mut case = Case::alone(0..length, 0..2, 1.0);
            case.set_scores(score);
            case.compare(TOLERANCE);
        }
    }
}

#[test]
fn tiny_and_huge_values_keep_their_precision_with_any_sum() {
    let Some(_tiles) = tiles() else { return };
    for length in [1, 17, 300] {
        for score in [-1e4, -89.0, -60.0, -40.0, -20.0, -3.0, 0.0, 40.0, 99.0, 1e4] {
            for scale in [1e-22_f32, 1e-18, 1e-15, 1e-10, 1.0, 1e10, 1e20, 1e30] {
                let mut case = Case::alone(0..length, 0..1, 1.0);
                case.set_scores(score);
                case.values.iter_mut().for_each(|value| *value = rounded(*value * scale));
                case.compare(TOLERANCE * f64::from(scale));
            }
        }
    }
}

#[test]
fn a_score_that_is_no_number_gives_a_context_that_is_none() {
    let Some(_tiles) = tiles() else { return };
    for length in [1, 17, 33, 300] {
        for key in [0, length / 2, length - 1] {
            for (query, value) in [(1.0, f32::NAN), (1.0, f32::INFINITY), (1e20, 1e20)] {
                let mut case = Case::alone(0..length, 0..2, 1.0);
                for line in case.queries[..case.stride].as_chunks_mut::<HEAD>().0 {
                    line[0] = query;
                }
                case.keys[key * HEAD] = value;
                let found = case.run(Missing::default());
                for row in 0..length {
                    let line = |head: usize| {
                        (0..HEAD)
                            .map(|i| float(found[in_activations(row, head * HEAD + i)]))
                            .collect()
                    };
                    let [first, second]: [Vec<f32>; 2] = [line(0), line(1)];
                    assert!(first.iter().all(|value| value.is_nan()), "{length}, {key}, {value}");
                    assert!(second.iter().all(|value| value.is_finite()), "{length}, {key}");
                }
            }
        }
    }
}

#[test]
fn attention_that_is_too_large_for_a_buffer_is_refused() {
    let Some(_tiles) = tiles() else { return };
    let none = Missing::default();
    for length in [16, 33, 300] {
        let case = Case::alone(0..length, 0..2, 1.0);
        case.run(none);
        for (name, missing) in [
            ("queries", Missing { queries: 32, ..none }),
            ("keys", Missing { keys: 32, ..none }),
            ("values", Missing { values: 32, ..none }),
            ("context", Missing { context: 32, ..none }),
        ] {
            refuses(name, || {
                case.run(missing);
            });
        }
    }
}
