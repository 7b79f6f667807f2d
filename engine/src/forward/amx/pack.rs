//! Keys and values in the form of tiles.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::layout::{HEAD, SQUARE, TILE};

/// Packs `length` rows of 32 keys and the same number of rows of values, bf16 and end to end, for
/// chunks of 32 keys. First come the keys of all chunks,
/// `[chunk][2 tiles of keys][16 pairs of columns][16 keys][2]`, then the values,
/// `[chunk][2 tiles of columns][16 pairs of keys][16 columns][2]`. Missing rows are zero, because
/// 0 × a stale NaN is NaN.
///
/// The columns of a row of values must lie as [`value_column`] says.
///
/// # Safety
/// `keys` and `values` must have `length` rows. `to` must have space for `2 * SQUARE` values for
/// each chunk and be aligned to a cache line. The CPU must have the instructions.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn pack_keys_and_values(
    keys: *const u16,
    values: *const u16,
    length: usize,
    to: *mut u16,
) {
    let chunks = length.div_ceil(2 * TILE);
    // SAFETY: the caller guarantees it; only existing rows are read.
    unsafe {
        for tile in 0..2 * chunks {
            let mut rows = [_mm512_setzero_si512(); TILE];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = row_or_zero(keys, tile * TILE + i, length);
            }
            transpose(rows, to.add(tile * TILE * HEAD));
        }
        let to = to.add(chunks * SQUARE);
        for pair in 0..chunks * TILE {
            let first = row_or_zero(values, 2 * pair, length);
            let second = row_or_zero(values, 2 * pair + 1, length);
            let to = to.add(pair / TILE * SQUARE + pair % TILE * HEAD);
            _mm512_store_si512(to.cast(), _mm512_unpacklo_epi16(first, second));
            let to = to.add(SQUARE / 2);
            _mm512_store_si512(to.cast(), _mm512_unpackhi_epi16(first, second));
        }
    }
}

/// The column at a place of a stored row of values. With this order, unpacking the halves of two
/// rows gives columns 0 to 15 and 16 to 31: unpacking takes four values of each eight.
pub(super) fn value_column(place: usize) -> usize {
    let (lane, i) = (place / 8, place % 8);
    if i < 4 { 4 * lane + i } else { TILE + 4 * lane + i - 4 }
}

/// # Safety
/// `from` must have `length` rows.
#[inline(always)]
unsafe fn row_or_zero(from: *const u16, row: usize, length: usize) -> __m512i {
    // SAFETY: the caller guarantees it.
    unsafe {
        if row < length {
            _mm512_loadu_si512(from.add(row * HEAD).cast())
        } else {
            _mm512_setzero_si512()
        }
    }
}

/// Transposes 16 × 16 words in four rounds. The rounds exchange words, pairs of words and then
/// quarters of the vectors.
///
/// # Safety
/// `to` must have space for 16 lines and be aligned to a cache line.
#[inline(always)]
unsafe fn transpose(rows: [__m512i; 16], to: *mut u16) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let mut words = [_mm512_setzero_si512(); 16];
        for i in 0..8 {
            words[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            words[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        // Quarter `q` of vector `4 * g + j` is column `4 * q + j` of rows `4 * g` to `4 * g + 3`.
        let mut fours = [_mm512_setzero_si512(); 16];
        for g in 0..4 {
            let [a, b, c, d] = [words[4 * g], words[4 * g + 1], words[4 * g + 2], words[4 * g + 3]];
            fours[4 * g] = _mm512_unpacklo_epi64(a, c);
            fours[4 * g + 1] = _mm512_unpackhi_epi64(a, c);
            fours[4 * g + 2] = _mm512_unpacklo_epi64(b, d);
            fours[4 * g + 3] = _mm512_unpackhi_epi64(b, d);
        }
        for j in 0..4 {
            let (a, b, c, d) = (fours[j], fours[4 + j], fours[8 + j], fours[12 + j]);
            let upper = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d)];
            let lower = [_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d)];
            let to = to.add(j * HEAD);
            let columns = [
                (0, _mm512_shuffle_i32x4::<0x88>(upper[0], upper[1])),
                (8, _mm512_shuffle_i32x4::<0xdd>(upper[0], upper[1])),
                (4, _mm512_shuffle_i32x4::<0x88>(lower[0], lower[1])),
                (12, _mm512_shuffle_i32x4::<0xdd>(lower[0], lower[1])),
            ];
            for (column, values) in columns {
                _mm512_store_si512(to.add(column * HEAD).cast(), values);
            }
        }
    }
}
