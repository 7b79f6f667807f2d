//! Attention: softmax(Q Kᵀ) V for heads of 32 columns, as one pipeline over all texts and heads.
//!
//! An item is 16 queries and 32 keys. While the scores of one item are in the tiles, the scores of
//! the item before are exponentiated and the powers of the item before that are multiplied with
//! their values. So tiles and vector units are busy at the same time:
//!
//! | item | operation |
//! |---|---|
//! | i | its scores are multiplied |
//! | i - 1 | its scores are stored |
//! | i - 2 | 2^score, rounded to bf16 |
//! | i - 3 | multiplied with the values, and with ones for the sum |
//! | i - 4 | divided by the sum and stored, if it is the last item of its queries |
//!
//! The queries are scaled by log2(e) / √32, so the exponential is a power of two. Softmax without
//! subtracting the largest score is exact while the sums are of moderate size. When a sum is not,
//! its 16 queries are computed again with the largest score subtracted ([`Attention::again`]).

#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::items::{Attention, CHUNK, EMPTY, Item, KEYS, LARGE_SLOTS, SMALL_SLOTS, Walk};
use super::layout::{BLOCK, SQUARE, TILE, activation_row};
use super::tile::{load, multiply, store, zero};
use crate::Error;
use crate::forward::bf16::round_pair;
use crate::forward::math::exp2_short;
use crate::forward::memory::Buffer;

/// Sums for which a softmax without the maximum is as precise as one with it. 2^score has the
/// relative precision of bf16 wherever it is a normal number, from 1e-38 to 3e38. A product of a
/// power and a value is zero below 1e-38: from this sum on, values of 1e-22 and more are not lost.
/// A smaller sum means that every score is below -27, which does not occur in useful models.
const SUMS: Range<f32> = 1e-12..1e34;

/// Buffers that a thread needs for [`attend`].
#[derive(Default)]
pub(super) struct Workspace {
    packed: Buffer,
    partial: Buffer,
}

impl Workspace {
    pub fn bytes(&self) -> usize {
        self.packed.bytes() + self.partial.bytes()
    }
}

/// Intermediate results of the items in the pipeline.
#[repr(C, align(64))]
struct Rings {
    scores: [[f32; SQUARE / 2]; 2],
    probabilities: [[u16; SQUARE / 2]; 2],
    /// Two column tiles of context before the division, and one tile of sums.
    outputs: [[f32; 3 * TILE * TILE]; 2],
}

/// Tiles of ones in bf16. A product with them computes the sum of a row.
#[repr(C, align(64))]
struct Ones([u16; SQUARE / 2]);
static ONES: Ones = Ones([0x3f80; SQUARE / 2]);

/// Attention of the job's heads, for the texts that have a row among the job's rows.
///
/// # Errors
/// [`Error::OutOfMemory`].
///
/// # Panics
/// If a text or a head is outside of a buffer. Queries are read 16 rows at a time, from the start
/// of each text on.
///
/// # Safety
/// No other thread writes the queries, keys and values of these texts, or reads or writes the
/// context of these rows and heads. The tiles must be configured, and the CPU must have the
/// instructions.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn attend(job: &Attention, workspace: &mut Workspace) -> Result<(), Error> {
    let longest = job.texts.iter().map(|text| text.len()).max().unwrap_or(0);
    if job.heads.is_empty() || longest == 0 {
        return Ok(());
    }
    let large = longest.div_ceil(KEYS) * CHUNK;
    let packed = workspace.packed.of::<u16>(LARGE_SLOTS * large + SMALL_SLOTS * CHUNK)?;
    let packed = packed.as_mut_ptr();
    let partial = workspace.partial.of::<f32>(longest.div_ceil(TILE) * 3 * TILE * TILE)?;
    let mut walk = Walk::new(job, packed, partial.as_mut_ptr(), large);
    let mut rings = Rings {
        scores: [[0.0; SQUARE / 2]; 2],
        probabilities: [[0; SQUARE / 2]; 2],
        outputs: [[0.0; 3 * TILE * TILE]; 2],
    };
    // This list allocates only when a sum cannot be trusted.
    let mut untrusted: Vec<Item> = Vec::new();
    let mut items = [EMPTY; 8];
    // After the last item, the pipeline runs until it is empty.
    let mut left = 5;
    let mut i = 0_usize;
    while left > 0 {
        // SAFETY: the caller guarantees it; every pointer of an item is inside its buffer.
        unsafe {
            items[i % 8] = match walk.next() {
                Some(item) => item,
                None => {
                    left -= 1;
                    EMPTY
                }
            };
            let (new, exponentiated, multiplied, finished) =
                (&items[i % 8], &items[(i + 6) % 8], &items[(i + 5) % 8], &items[(i + 4) % 8]);
            let [even, odd] = [i % 2, (i + 1) % 2];
            // The loads of the keys come before the stores. After the stores they would have to
            // wait.
            if !new.empty {
                load_keys(new);
            }
            store_scores(rings.scores[even].as_mut_ptr());
            if !new.empty {
                multiply_scores();
            }
            let scores = rings.scores[odd].as_ptr();
            let probabilities =
                [&raw mut rings.probabilities[even], &raw mut rings.probabilities[odd]];
            let [to, from] = probabilities.map(|ring| ring.cast::<u16>());
            let output = rings.outputs[even].as_mut_ptr();
            if exponentiated.mask == u32::MAX && !multiplied.empty {
                middle::<true>(exponentiated, scores, to, multiplied, from, output);
            } else {
                middle::<false>(exponentiated, scores, to, multiplied, from, output);
            }
            if finished.done && !job.output(finished, &rings.outputs[odd]) {
                let bytes = size_of::<Item>();
                untrusted.try_reserve(1).map_err(|_| Error::OutOfMemory { bytes })?;
                untrusted.push(*finished);
            }
        }
        i += 1;
    }
    for item in untrusted {
        // SAFETY: the caller guarantees it.
        unsafe { job.again(&item, packed, &mut rings) };
    }
    Ok(())
}

/// The powers of two of one item and the products of another with the values, in turns.
///
/// # Safety
/// As [`attend`], for items in the pipeline.
#[inline(always)]
unsafe fn middle<const FULL: bool>(
    item: &Item,
    scores: *const f32,
    to: *mut u16,
    multiplied: &Item,
    probabilities: *const u16,
    output: *mut f32,
) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let products = FULL || !multiplied.empty;
        exponentiate::<FULL>(item.mask, scores, to, 0);
        if products {
            multiply_first(multiplied, probabilities);
        }
        exponentiate::<FULL>(item.mask, scores, to, 4);
        if products {
            multiply_second(multiplied);
        }
        exponentiate::<FULL>(item.mask, scores, to, 8);
        if products {
            multiply_ones(multiplied, output);
        }
        exponentiate::<FULL>(item.mask, scores, to, 12);
    }
}

/// # Safety
/// As [`attend`], for an item in the pipeline.
#[inline(always)]
unsafe fn load_keys(item: &Item) {
    // SAFETY: the caller guarantees it.
    unsafe {
        if item.first {
            load!("tmm3", item.queries, 64);
        }
        load!("tmm6", item.keys, 64);
        load!("tmm7", item.keys.add(SQUARE / 2), 64);
    }
}

/// # Safety
/// Call this after [`load_keys`].
#[inline(always)]
unsafe fn multiply_scores() {
    // SAFETY: the tiles are configured.
    unsafe {
        zero!("tmm4");
        multiply!("tmm4", "tmm3", "tmm6");
        zero!("tmm5");
        multiply!("tmm5", "tmm3", "tmm7");
    }
}

/// # Safety
/// `scores` must have space for two tiles.
#[inline(always)]
unsafe fn store_scores(scores: *mut f32) {
    // SAFETY: the caller guarantees it.
    unsafe {
        store!("tmm4", scores);
        store!("tmm5", scores.add(TILE * TILE));
    }
}

/// Powers of two of four rows of scores, and zero for missing keys.
///
/// # Safety
/// The pointers must refer to two tiles of scores and one tile of probabilities.
#[inline(always)]
unsafe fn exponentiate<const FULL: bool>(mask: u32, scores: *const f32, to: *mut u16, row: usize) {
    for i in row..row + 4 {
        // SAFETY: the caller guarantees it.
        unsafe {
            let first = exp2_short(_mm512_load_ps(scores.add(i * TILE)));
            let second = exp2_short(_mm512_load_ps(scores.add(TILE * TILE + i * TILE)));
            let rounded = round_pair(first, second);
            let kept = if FULL { rounded } else { _mm512_maskz_mov_epi16(mask, rounded) };
            _mm512_store_si512(to.add(i * KEYS).cast(), kept);
        }
    }
}

/// # Safety
/// As [`attend`], for an item in the pipeline.
#[inline(always)]
unsafe fn multiply_first(item: &Item, probabilities: *const u16) {
    // SAFETY: the caller guarantees it.
    unsafe {
        if item.first {
            if item.resumes {
                load!("tmm0", item.partial, 64);
                load!("tmm1", item.partial.add(TILE * TILE), 64);
                load!("tmm2", item.partial.add(2 * TILE * TILE), 64);
            } else {
                zero!("tmm0");
                zero!("tmm1");
                zero!("tmm2");
            }
        }
        load!("tmm7", probabilities, 64);
        load!("tmm6", item.values, 64);
        multiply!("tmm0", "tmm7", "tmm6");
    }
}

/// # Safety
/// Call this after [`multiply_first`].
#[inline(always)]
unsafe fn multiply_second(item: &Item) {
    // SAFETY: the caller guarantees it.
    unsafe {
        load!("tmm6", item.values.add(SQUARE / 2), 64);
        multiply!("tmm1", "tmm7", "tmm6");
    }
}

/// # Safety
/// Call this after [`multiply_second`]; `output` must have space for three tiles.
#[inline(always)]
unsafe fn multiply_ones(item: &Item, output: *mut f32) {
    // SAFETY: the caller guarantees it.
    unsafe {
        load!("tmm6", ONES.0.as_ptr(), 64);
        multiply!("tmm2", "tmm7", "tmm6");
        if item.last {
            let to = if item.done { output } else { item.partial };
            store!("tmm0", to);
            store!("tmm1", to.add(TILE * TILE));
            store!("tmm2", to.add(2 * TILE * TILE));
        }
    }
}

impl Attention<'_> {
    /// Divides by the sums and stores the rows of the job. Returns whether every sum can be
    /// trusted.
    ///
    /// # Safety
    /// As [`attend`], for a finished item.
    #[inline(always)]
    unsafe fn output(&self, item: &Item, output: &[f32; 3 * TILE * TILE]) -> bool {
        let mut trusted: __mmask16 = !0;
        for i in 0..item.count {
            // SAFETY: `output` has three tiles; `part` checks the place of the row.
            unsafe {
                let from = output.as_ptr().add(i * TILE);
                let sums = _mm512_load_ps(from.add(2 * TILE * TILE));
                let reciprocal = _mm512_rcp14_ps(sums);
                let first = _mm512_mul_ps(_mm512_load_ps(from), reciprocal);
                let second = _mm512_mul_ps(_mm512_load_ps(from.add(TILE * TILE)), reciprocal);
                let largest = _mm512_set1_ps(f32::MAX);
                trusted &= _mm512_cmp_ps_mask::<_CMP_GE_OQ>(sums, _mm512_set1_ps(SUMS.start))
                    & _mm512_cmp_ps_mask::<_CMP_LE_OQ>(sums, _mm512_set1_ps(SUMS.end))
                    & _mm512_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_abs_ps(first), largest)
                    & _mm512_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_abs_ps(second), largest);
                let row = item.row + i;
                if self.rows.contains(&row) {
                    let place = activation_row(row) + item.head * SQUARE;
                    let to = self.context.part(place..place + BLOCK).pointer();
                    _mm512_store_si512(to.cast(), round_pair(first, second));
                }
            }
        }
        trusted == !0
    }

    /// Computes 16 queries with the largest score of each row subtracted first. A score that is NaN
    /// gives a context that is NaN.
    ///
    /// # Safety
    /// As [`attend`]; `slot` must have space for the longest text.
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn again(&self, item: &Item, slot: *mut u16, rings: &mut Rings) {
        let length = self.texts[item.text].len();
        let chunks = length.div_ceil(KEYS);
        let scores = rings.scores[0].as_mut_ptr();
        let probabilities = rings.probabilities[0].as_mut_ptr();
        // SAFETY: the caller guarantees it.
        unsafe {
            self.pack(item.text, item.head, slot);
            let mut largest = [_mm512_set1_ps(f32::MIN); TILE];
            for chunk in 0..chunks {
                let part = item.part(slot, chunk, chunks, length);
                scores_of(&part, scores);
                let [low, high] = [part.mask as __mmask16, (part.mask >> TILE) as __mmask16];
                for (i, largest) in largest.iter_mut().enumerate() {
                    let first = _mm512_load_ps(scores.add(i * TILE));
                    let second = _mm512_load_ps(scores.add(TILE * TILE + i * TILE));
                    *largest = _mm512_mask_max_ps(*largest, low, *largest, first);
                    *largest = _mm512_mask_max_ps(*largest, high, *largest, second);
                }
            }
            for largest in &mut largest {
                *largest = _mm512_set1_ps(_mm512_reduce_max_ps(*largest));
            }
            for chunk in 0..chunks {
                let part = item.part(slot, chunk, chunks, length);
                scores_of(&part, scores);
                for (i, largest) in largest.iter().enumerate() {
                    for scores in [scores.add(i * TILE), scores.add(TILE * TILE + i * TILE)] {
                        _mm512_store_ps(scores, _mm512_sub_ps(_mm512_load_ps(scores), *largest));
                    }
                }
                for row in [0, 4, 8, 12] {
                    exponentiate::<false>(part.mask, scores, probabilities, row);
                }
                multiply_first(&part, probabilities);
                multiply_second(&part);
                multiply_ones(&part, rings.outputs[0].as_mut_ptr());
            }
            self.output(item, &rings.outputs[0]);
        }
    }
}

/// Computes the scores of an item in the tiles and stores them to memory. The queries are loaded
/// each time.
///
/// # Safety
/// As [`attend`], for an item whose pointers are valid.
#[inline(always)]
unsafe fn scores_of(item: &Item, to: *mut f32) {
    // SAFETY: the caller guarantees it.
    unsafe {
        load_keys(&Item { first: true, ..*item });
        multiply_scores();
        store_scores(to);
    }
}
