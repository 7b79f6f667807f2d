//! Layer normalisation, conversions of rows, and packed keys and values.

use std::mem::ManuallyDrop;

use super::{ROWS, in_activations, in_stream, tiles};
use crate::DIMS;
use crate::forward::amx::layout::{BLOCK, HEAD, SQUARE, TILE};
use crate::forward::amx::pack::{pack_keys_and_values, value_column};
use crate::forward::amx::rows::{Norm, normalise, read_row, round_rows, write_row};
use crate::forward::guarded::Guarded;
use crate::forward::shared::Shared;
use crate::forward::tests::{UNTOUCHED, bf16, float, near, random, refuses, standardised};

const EPS: f32 = 1e-12;

/// Length of a stream, or of activations, that ends with its last row.
fn stream_length(rows: usize) -> usize {
    in_stream(rows - 1, DIMS - 1) + 1
}
fn activation_length(rows: usize) -> usize {
    in_activations(rows - 1, DIMS - 1) + 1
}

/// A vector of the last `length` floats of guarded memory.
///
/// # Safety
/// The vector must not be dropped. The memory must not be dropped before the last use of the
/// vector.
unsafe fn vector(memory: &mut Guarded, length: usize) -> Vec<f32> {
    let floats = memory.last::<f32>(length).as_mut_ptr();
    // SAFETY: the memory has this number of floats; the caller guarantees the rest.
    unsafe { Vec::from_raw_parts(floats, length, length) }
}

#[test]
fn rows_go_in_and_out_of_the_stream_inside_its_buffer() {
    for rows in ROWS {
        let length = stream_length(rows);
        let mut stream = Guarded::holding(&vec![UNTOUCHED; length]);
        let stream = Shared::new(stream.last(length));
        let values = random(21, rows * DIMS);
        for (row, values) in values.as_chunks::<DIMS>().0.iter().enumerate() {
            // SAFETY: no other thread uses the buffer.
            unsafe { write_row(values, stream, row) };
        }
        for (row, values) in values.as_chunks::<DIMS>().0.iter().enumerate() {
            let mut found = [0.0; DIMS];
            // SAFETY: as above.
            unsafe { read_row(stream, row, &mut found) };
            assert_eq!(found, *values);
            // SAFETY: as above.
            let place = |column| unsafe { stream.read(in_stream(row, column)..length)[0] };
            assert!((0..DIMS).all(|column| place(column) == values[column]));
        }
        let short = stream.part(0..length - TILE);
        // SAFETY: as above.
        refuses("write_row", || unsafe { write_row(&[0.0; DIMS], short, rows - 1) });
        // SAFETY: as above.
        refuses("read_row", || unsafe { read_row(short, rows - 1, &mut [0.0; DIMS]) });
    }
}

#[test]
fn rows_are_rounded_inside_their_buffers() {
    let Some(_tiles) = tiles() else { return };
    for rows in ROWS {
        let values = random(22, rows * DIMS);
        let length = activation_length(rows);
        let mut from = Guarded::holding(&values);
        let mut to = Guarded::holding(&vec![0x1234_u16; length]);
        let (from, to) = (Shared::new(from.last(rows * DIMS)), Shared::new(to.last(length)));
        // SAFETY: the CPU has the instructions; no other thread uses the buffers.
        unsafe { round_rows(from, to, 0..rows) };
        // SAFETY: as above.
        let found = unsafe { to.read(0..length) };
        for (i, &value) in values.iter().enumerate() {
            assert_eq!(found[in_activations(i / DIMS, i % DIMS)], bf16(value));
        }
        // SAFETY: as above.
        refuses("from", || unsafe { round_rows(from.part(0..rows * DIMS - 16), to, 0..rows) });
        // SAFETY: as above.
        refuses("to", || unsafe { round_rows(from, to.part(0..length - 32), 0..rows) });
    }
}

#[test]
fn normalisation_stays_inside_its_buffers_and_is_right() {
    let Some(_tiles) = tiles() else { return };
    let [weight, bias, next] = [23, 24, 25].map(|seed| random(seed, DIMS));
    let stream_bias: Vec<f32> = bias.iter().zip(&next).map(|(a, b)| a + b).collect();
    let [mut guarded_weight, mut guarded_bias, mut guarded_stream] =
        [&weight, &bias, &stream_bias].map(|values| Guarded::holding(values));
    // SAFETY: `norm` is never dropped, and it is used only here.
    let norm = ManuallyDrop::new(unsafe {
        Norm {
            weight: vector(&mut guarded_weight, DIMS),
            bias: vector(&mut guarded_bias, DIMS),
            stream_bias: vector(&mut guarded_stream, DIMS),
            eps: EPS,
        }
    });
    for rows in ROWS {
        let values = random(26, rows * DIMS);
        let (length, halves) = (stream_length(rows), activation_length(rows));
        let mut input = vec![f32::NAN; length];
        for (i, &value) in values.iter().enumerate() {
            input[in_stream(i / DIMS, i % DIMS)] = value;
        }
        for (first, keep) in [(0, 0..12), (rows / 2, 4..7), (rows - 1, 0..0)] {
            let mut from = Guarded::holding(&input);
            let mut to = Guarded::holding(&vec![UNTOUCHED; length]);
            let mut activations = Guarded::holding(&vec![bf16(UNTOUCHED); halves]);
            let from = Shared::new(from.last(length));
            let to = Shared::new(to.last(length));
            let activations = Shared::new(activations.last(halves));
            let run = |from, to, activations| {
                // SAFETY: the CPU has the instructions; no other thread uses the buffers.
                unsafe { normalise(&norm, from, to, activations, first..rows, keep.clone()) };
            };
            run(from, to, activations);
            // SAFETY: as above.
            let (stream, rounded) = unsafe { (to.read(0..length), activations.read(0..halves)) };
            for (row, values) in values.chunks_exact(DIMS).enumerate() {
                for (column, wanted) in standardised(values, EPS).into_iter().enumerate() {
                    let found = float(rounded[in_activations(row, column)]);
                    let kept = stream[in_stream(row, column)];
                    let wanted = wanted * f64::from(weight[column]);
                    let place = (rows, row, column);
                    if row < first {
                        assert_eq!(found, float(bf16(UNTOUCHED)), "{place:?}");
                    } else {
                        let wanted = wanted + f64::from(bias[column]);
                        near(found, wanted, wanted.abs() / 256.0 + 1e-5, place);
                    }
                    if row >= first && keep.contains(&(column / BLOCK)) {
                        near(kept, wanted + f64::from(stream_bias[column]), 1e-5, place);
                    } else {
                        assert_eq!(kept, UNTOUCHED, "{place:?}");
                    }
                }
            }
            refuses("from", || run(from.part(0..length - TILE), to, activations));
            refuses("to", || run(from, to.part(0..length - TILE), activations));
            refuses("activations", || run(from, to, activations.part(0..halves - BLOCK)));
        }
    }
}

#[test]
fn keys_and_values_are_packed_inside_their_buffers() {
    let Some(_tiles) = tiles() else { return };
    for length in ROWS {
        let chunks = length.div_ceil(BLOCK);
        let halves =
            |seed| -> Vec<u16> { random(seed, length * HEAD).into_iter().map(bf16).collect() };
        let (keys, values) = (halves(27), halves(28));
        let (mut guarded_keys, mut guarded_values) =
            (Guarded::holding(&keys), Guarded::holding(&values));
        let size = chunks * 2 * SQUARE;
        let mut to = Guarded::holding(&vec![0x1234_u16; size]);
        // SAFETY: the buffers have this number of rows and enough space; the CPU has the
        // instructions.
        unsafe {
            pack_keys_and_values(
                guarded_keys.last::<u16>(length * HEAD).as_ptr(),
                guarded_values.last::<u16>(length * HEAD).as_ptr(),
                length,
                to.last::<u16>(size).as_mut_ptr(),
            );
        }
        let to = to.last::<u16>(size);
        let (packed_keys, packed_values) = to.split_at(chunks * SQUARE);
        for row in 0..chunks * BLOCK {
            for place in 0..HEAD {
                let value = |from: &[u16]| if row < length { from[row * HEAD + place] } else { 0 };
                let tile = row / TILE * (SQUARE / 2);
                let key = packed_keys[tile + place / 2 * BLOCK + row % TILE * 2 + place % 2];
                assert_eq!(key, value(&keys), "key {row} of {length}, column {place}");
                let column = value_column(place);
                let tile = row / BLOCK * SQUARE + column / TILE * (SQUARE / 2);
                let at = tile + row % BLOCK / 2 * BLOCK + column % TILE * 2 + row % 2;
                let found = packed_values[at];
                assert_eq!(found, value(&values), "value {row} of {length}, column {column}");
            }
        }
    }
}
