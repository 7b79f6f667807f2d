//! The items of attention, 16 queries and 32 keys each, in order.

#![allow(unsafe_code)]

use std::ops::Range;

use super::layout::{HEAD, SQUARE, TILE};
use super::pack::pack_keys_and_values;
use crate::forward::shared::Shared;

/// Keys of an item.
pub(super) const KEYS: usize = 2 * TILE;
/// Items whose keys and values stay in the first level of the cache: 16 kB each.
const KEY_BLOCK: usize = 8;
/// bf16 values of the packed keys and values of 32 keys.
pub(super) const CHUNK: usize = 2 * SQUARE;
/// A text of at most 32 tokens has one or two items per head, so this many may be in the pipeline.
pub(super) const SMALL_SLOTS: usize = 8;
/// A longer text has at least two items per head, so three slots are enough.
pub(super) const LARGE_SLOTS: usize = 3;

/// Attention of some heads over the texts of a block.
pub(super) struct Attention<'a> {
    /// bf16 `[head][row][32]`. Each head starts `head_stride` values after the one before.
    pub queries: Shared<'a, u16>,
    pub keys: Shared<'a, u16>,
    pub values: Shared<'a, u16>,
    pub head_stride: usize,
    /// Activations `[row / 32][12][32][32]`.
    pub context: Shared<'a, u16>,
    /// Rows of each text.
    pub texts: &'a [Range<usize>],
    pub heads: Range<usize>,
    /// Rows whose context is computed.
    pub rows: Range<usize>,
}

impl Attention<'_> {
    /// Packs the keys and values of a text and head.
    ///
    /// # Safety
    /// As [`super::attention::attend`]; the slot must have space for the text.
    #[inline(always)]
    pub unsafe fn pack(&self, text: usize, head: usize, slot: *mut u16) {
        let text = &self.texts[text];
        let start = head * self.head_stride + text.start * HEAD;
        let place = start..start + text.len() * HEAD;
        let (keys, values) = (self.keys.part(place.clone()), self.values.part(place));
        // SAFETY: the number of rows of each was checked above; the caller guarantees the slot.
        unsafe { pack_keys_and_values(keys.pointer(), values.pointer(), text.len(), slot) };
    }
}

/// 16 queries and 32 keys.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub queries: *const u16,
    pub keys: *const u16,
    pub values: *const u16,
    /// Holds context and sum between two key blocks.
    pub partial: *mut f32,
    /// One bit for each key that exists.
    pub mask: u32,
    /// First and last item of their key block.
    pub first: bool,
    pub last: bool,
    /// The key block is not the first.
    pub resumes: bool,
    /// The last item of its queries.
    pub done: bool,
    /// No item: the pipeline is filling or draining.
    pub empty: bool,
    pub text: usize,
    pub head: usize,
    /// First row of the queries, and the number of the 16 rows that belong to the text.
    pub row: usize,
    pub count: usize,
}

pub(super) const EMPTY: Item = Item {
    queries: std::ptr::null(),
    keys: std::ptr::null(),
    values: std::ptr::null(),
    partial: std::ptr::null_mut(),
    mask: 0,
    first: false,
    last: false,
    resumes: false,
    done: false,
    empty: true,
    text: 0,
    head: 0,
    row: 0,
    count: 0,
};

/// Iterates over the items in order: texts, heads, key blocks, queries, keys.
pub(super) struct Walk<'a, 'j> {
    job: &'j Attention<'a>,
    packed: *mut u16,
    partial: *mut f32,
    /// Length in values of the packed keys and values of the longest text.
    large: usize,
    smalls: usize,
    larges: usize,
    /// The current text and head: the index, the tiles of queries and the chunks of keys.
    text: usize,
    head: usize,
    tiles: Range<usize>,
    chunks: usize,
    slot: *mut u16,
    fresh: bool,
    tile: usize,
    key_block: usize,
    chunk: usize,
}

impl<'a, 'j> Walk<'a, 'j> {
    /// `packed` has slots for keys and values, with `large` values in each of the first
    /// [`LARGE_SLOTS`]. `partial` has three tiles for each 16 queries of the longest text.
    pub fn new(
        job: &'j Attention<'a>,
        packed: *mut u16,
        partial: *mut f32,
        large: usize,
    ) -> Walk<'a, 'j> {
        Walk {
            job,
            packed,
            partial,
            large,
            smalls: 0,
            larges: 0,
            text: 0,
            head: job.heads.start,
            tiles: 0..0,
            chunks: 0,
            slot: packed,
            fresh: true,
            tile: 0,
            key_block: 0,
            chunk: 0,
        }
    }

    /// # Safety
    /// As [`super::attention::attend`].
    #[inline(always)]
    pub unsafe fn next(&mut self) -> Option<Item> {
        if self.fresh {
            // SAFETY: the caller guarantees it.
            if !unsafe { self.begin() } {
                return None;
            }
        }
        let job = self.job;
        let text = &job.texts[self.text];
        let chunk = self.key_block * KEY_BLOCK + self.chunk;
        let here = KEY_BLOCK.min(self.chunks - self.key_block * KEY_BLOCK);
        let last = self.chunk + 1 == here;
        let last_block = (self.key_block + 1) * KEY_BLOCK >= self.chunks;
        let row = text.start + self.tile * TILE;
        let place = self.head * job.head_stride + row * HEAD;
        let item = Item {
            queries: job.queries.part(place..place + TILE * HEAD).pointer(),
            keys: self.slot.wrapping_add(chunk * SQUARE),
            values: self.slot.wrapping_add((self.chunks + chunk) * SQUARE),
            partial: self.partial.wrapping_add(self.tile * 3 * TILE * TILE),
            mask: (u64::MAX >> (64 - KEYS.min(text.len() - chunk * KEYS))) as u32,
            first: self.chunk == 0,
            last,
            resumes: self.key_block > 0,
            done: last && last_block,
            empty: false,
            text: self.text,
            head: self.head,
            row,
            count: TILE.min(text.end - row),
        };
        self.chunk += 1;
        if last {
            self.chunk = 0;
            self.tile += 1;
            if self.tile == self.tiles.end {
                self.tile = self.tiles.start;
                self.key_block += 1;
                if last_block {
                    self.fresh = true;
                    self.head += 1;
                    if self.head == job.heads.end {
                        self.head = job.heads.start;
                        self.text += 1;
                    }
                }
            }
        }
        Some(item)
    }

    /// Packs the keys and values of the next text and head. Returns `false` after the last one.
    ///
    /// # Safety
    /// As [`super::attention::attend`].
    unsafe fn begin(&mut self) -> bool {
        let job = self.job;
        loop {
            let Some(text) = job.texts.get(self.text) else {
                return false;
            };
            self.tiles = wanted_tiles(text, &job.rows);
            if !self.tiles.is_empty() {
                break;
            }
            self.text += 1;
        }
        let text = &job.texts[self.text];
        self.chunks = text.len().div_ceil(KEYS);
        if self.chunks == 1 {
            let small = LARGE_SLOTS * self.large + self.smalls % SMALL_SLOTS * CHUNK;
            self.slot = self.packed.wrapping_add(small);
            self.smalls += 1;
        } else {
            self.slot = self.packed.wrapping_add(self.larges % LARGE_SLOTS * self.large);
            self.larges += 1;
        }
        // SAFETY: the caller guarantees it; the slot has space for the longest text.
        unsafe { job.pack(self.text, self.head, self.slot) };
        (self.tile, self.key_block, self.chunk, self.fresh) = (self.tiles.start, 0, 0, false);
        true
    }
}

/// Tiles of 16 queries of a text that contain one of `rows`.
fn wanted_tiles(text: &Range<usize>, rows: &Range<usize>) -> Range<usize> {
    let first = rows.start.clamp(text.start, text.end) - text.start;
    let end = rows.end.clamp(text.start, text.end) - text.start;
    if first < end { first / TILE..end.div_ceil(TILE) } else { 0..0 }
}

impl Item {
    /// The same queries with one chunk of keys of a slot.
    pub fn part(&self, slot: *mut u16, chunk: usize, chunks: usize, length: usize) -> Item {
        let last = chunk + 1 == chunks;
        Item {
            keys: slot.wrapping_add(chunk * SQUARE),
            values: slot.wrapping_add((chunks + chunk) * SQUARE),
            mask: (u64::MAX >> (64 - KEYS.min(length - chunk * KEYS))) as u32,
            first: chunk == 0,
            last,
            resumes: false,
            done: true,
            ..*self
        }
    }
}
