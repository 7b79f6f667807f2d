//! Memory for the packed weights and for activations.
//!
//! A pass of 12 tokens takes as long as reading the weights once: 21 MB for MiniLM in bf16. In
//! pages of 4 kB these are 5,200 pages, more than a core's translation buffers hold, and the
//! prefetcher stops at the end of each page. So the weights lie in huge pages if the system has
//! them. A backend that is forked from a preloaded server then copies a page table of ten entries.

#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::number::Precision;
use super::shared::{Plain, Shared, Values};
use crate::Error;

/// Bytes of a huge page on x86-64 and, with pages of 4 kB, on AArch64.
const HUGE: usize = 2 << 20;

/// 32-bit words that are zero at first and start at a page. From 2 MB on they lie in huge pages if
/// the system has them.
pub(super) struct PanelMemory {
    mapped: NonNull<u8>,
    mapped_bytes: usize,
    start: NonNull<u32>,
    length: usize,
}

// SAFETY: it owns its memory, and a shared reference only permits reading it.
unsafe impl Send for PanelMemory {}
// SAFETY: as above.
unsafe impl Sync for PanelMemory {}

impl PanelMemory {
    /// Allocates this number of zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(length: usize) -> Result<PanelMemory, Error> {
        let bytes = length.saturating_mul(4);
        // A small buffer must not take a whole huge page.
        let alignment = if bytes < HUGE { 1 } else { HUGE };
        let mapped_bytes = bytes
            .max(1)
            .checked_next_multiple_of(alignment)
            .and_then(|bytes| bytes.checked_add(alignment - 1))
            .ok_or(Error::OutOfMemory { bytes })?;
        // SAFETY: this is a new private mapping at an address that the system chooses.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let mapped = NonNull::new(mapped.cast::<u8>()).filter(|_| mapped != libc::MAP_FAILED);
        let Some(mapped) = mapped else {
            return Err(Error::OutOfMemory { bytes });
        };
        let offset = mapped.align_offset(alignment);
        // SAFETY: `offset` is less than the alignment, and the mapping is longer by that amount.
        let start = unsafe { mapped.add(offset) };
        #[cfg(target_os = "linux")]
        if bytes >= HUGE {
            // SAFETY: the range is inside the mapping. The call is advice: pages stay small if the
            // system does not follow it.
            unsafe {
                let length = bytes.next_multiple_of(HUGE);
                libc::madvise(start.as_ptr().cast(), length, libc::MADV_HUGEPAGE);
            }
        }
        Ok(PanelMemory { mapped, mapped_bytes, start: start.cast(), length })
    }

    pub fn as_slice(&self) -> &[u32] {
        // SAFETY: `length` words from `start` on are in the mapping, which is zero at first.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u32] {
        // SAFETY: as above, and `&mut self` excludes other users.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for PanelMemory {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping that `new` made.
        unsafe { libc::munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
    }
}

/// Words of a page of 4 kB.
pub(super) const PAGE_WORDS: usize = 1024;
/// Words by which the offsets of an arena's buffers within a page differ. A load that follows a
/// store to the same offset of another page has to wait for that store.
const STAGGER_WORDS: usize = 64;

/// The buffers of a pass in one piece. They are kept from one pass to the next.
#[derive(Default)]
pub(super) struct Arena {
    memory: Option<PanelMemory>,
}

impl Arena {
    pub fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| 4 * memory.length)
    }

    /// Reserves buffers of these sizes in bytes. They contain the last values written there, or
    /// zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn reserve(&mut self, buffers: &[usize]) -> Result<Carver<'_>, Error> {
        let words = buffers.iter().fold(0_usize, |sum, bytes| {
            let words = bytes.div_ceil(4).checked_next_multiple_of(PAGE_WORDS);
            sum.saturating_add(words.unwrap_or(usize::MAX)).saturating_add(2 * PAGE_WORDS)
        });
        let memory = match self.memory.take() {
            Some(memory) if memory.length >= words => memory,
            // The old memory is freed first.
            old => {
                drop(old);
                PanelMemory::new(words)?
            }
        };
        Ok(Carver { rest: self.memory.insert(memory).as_mut_slice(), taken: 0 })
    }
}

/// Cuts an arena into buffers.
pub(super) struct Carver<'a> {
    rest: &'a mut [u32],
    taken: usize,
}

impl<'a> Carver<'a> {
    /// The next buffer, aligned to a cache line.
    ///
    /// # Panics
    /// If there is no space left: a buffer was not reserved.
    pub fn take<T: Plain>(&mut self, length: usize) -> Shared<'a, T> {
        let words = (length * size_of::<T>()).div_ceil(4);
        let stagger = STAGGER_WORDS * (self.taken % (PAGE_WORDS / STAGGER_WORDS));
        self.taken += 1;
        let rest = std::mem::take(&mut self.rest);
        let (buffer, rest) = rest.split_at_mut(words.next_multiple_of(PAGE_WORDS) + PAGE_WORDS);
        self.rest = rest;
        let buffer = &mut buffer[stagger..stagger + words];
        // SAFETY: the buffer has `length` values, aligned to a cache line and so for `T`. Any bits
        // are a value of `T`.
        Shared::new(unsafe {
            std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<T>(), length)
        })
    }

    /// The next buffer, in the format of a precision.
    ///
    /// # Panics
    /// As [`Carver::take`].
    pub fn take_values(&mut self, precision: Precision, length: usize) -> Values<'a> {
        match precision {
            Precision::F32 => Values::F32(self.take(length)),
            Precision::Bf16 => Values::Bf16(self.take(length)),
        }
    }
}

/// A cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u32; 16]);

/// Activations or scratch values. The buffer is zero at first, aligned to a cache line, and as long
/// as its longest use.
#[derive(Default)]
pub(super) struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// Bytes of the buffer.
    pub fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    /// The first `length` values of a buffer that has at least `length` values.
    ///
    /// # Panics
    /// If the buffer has fewer values.
    pub fn values<T: Plain>(&self, length: usize) -> &[T] {
        assert!(length <= self.lines.len() * (size_of::<Line>() / size_of::<T>()));
        // SAFETY: the length was checked above; otherwise as in `of`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), length) }
    }

    /// The first `length` values. They contain the last values written there.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn of<T: Plain>(&mut self, length: usize) -> Result<&mut [T], Error> {
        let bytes = length.saturating_mul(size_of::<T>());
        let lines = bytes.div_ceil(size_of::<Line>());
        if let Some(more) = lines.checked_sub(self.lines.len()).filter(|&more| more > 0) {
            self.lines.try_reserve_exact(more).map_err(|_| Error::OutOfMemory { bytes })?;
            self.lines.resize(lines, Line([0; 16]));
        }
        // SAFETY: the buffer has `length` values, aligned for `T`. Any bits are a value of `T`.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_are_zero_aligned_and_their_own() {
        for length in [0, 1, HUGE / 4 - 1, HUGE / 4, HUGE / 4 + 1] {
            let mut words = PanelMemory::new(length).unwrap();
            assert_eq!(words.as_slice().as_ptr().align_offset(64), 0);
            assert!(words.as_slice().iter().all(|&word| word == 0));
            words.as_mut_slice().fill(7);
            assert!(PanelMemory::new(length).unwrap().as_slice().iter().all(|&word| word == 0));
            assert_eq!(words.as_slice(), vec![7; length]);
        }
    }

    #[test]
    fn too_much_is_an_error() {
        // The first length overflows in bytes. The second exceeds an address space of 47 bits.
        for length in [usize::MAX / 2, 1 << 50] {
            assert!(matches!(PanelMemory::new(length), Err(Error::OutOfMemory { .. })));
        }
    }

    #[test]
    fn a_buffer_is_aligned_and_keeps_what_it_has() {
        let mut buffer = Buffer::default();
        buffer.of::<f32>(3).unwrap().copy_from_slice(&[1.0, 2.0, 3.0]);
        let longer = buffer.of::<f32>(100).unwrap();
        assert_eq!(longer.as_ptr().align_offset(64), 0);
        assert_eq!(longer[..4], [1.0, 2.0, 3.0, 0.0]);
        assert!(buffer.bytes() >= 400);
        assert!(matches!(buffer.of::<f32>(usize::MAX / 2), Err(Error::OutOfMemory { .. })));
    }

    #[test]
    fn buffers_of_an_arena_are_apart_and_keep_what_they_have() {
        let mut arena = Arena::default();
        for (length, first) in [(5_usize, 0.0), (5, 1.0), (100_000, 0.0), (5, 7.0)] {
            let mut carver = arena.reserve(&[4 * length, 2 * length]).unwrap();
            let (floats, halves) = (carver.take::<f32>(length), carver.take::<u16>(length));
            // SAFETY: no other thread uses them.
            unsafe {
                assert_eq!(floats.read(0..1)[0], first);
                floats.write(0..length).fill(if length == 5 { 1.0 } else { 7.0 });
                halves.write(0..length).fill(3);
                assert_eq!(floats.read(length - 1..length), [if length == 5 { 1.0 } else { 7.0 }]);
            }
            for place in [floats.pointer().addr(), halves.pointer().addr()] {
                assert_eq!(place % 64, 0);
            }
            assert_ne!(floats.pointer().addr() % 4096, halves.pointer().addr() % 4096);
        }
        assert!(arena.bytes() >= 600_000);
        assert!(matches!(arena.reserve(&[usize::MAX, 1]), Err(Error::OutOfMemory { .. })));
    }
}
