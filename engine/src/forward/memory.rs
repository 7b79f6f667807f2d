//! Memory for the packed weights: one piece, in huge pages where the system has them.
//!
//! 12 tokens are bound by reading the weights once, 21 MB of them for MiniLM in bf16: 5,200 pages of
//! 4 kB, more than a core's translation buffers hold, and the prefetcher stops at each page's end.
//! Backends that are forked from a preloaded server copy a page table of ten entries instead.

#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::Error;

/// What a huge page has on x86-64 and, with pages of 4 kB, on AArch64.
const HUGE: usize = 2 << 20;

/// 32-bit words that start at the beginning of a huge page, so at that of a cache line.
pub(super) struct Words {
    mapped: NonNull<u8>,
    mapped_bytes: usize,
    start: NonNull<u32>,
    length: usize,
}

// SAFETY: it owns its memory, and through a shared reference only reads it.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// So many zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(length: usize) -> Result<Words, Error> {
        let bytes = length.saturating_mul(4);
        let mapped_bytes = bytes
            .checked_next_multiple_of(HUGE)
            .and_then(|bytes| bytes.checked_add(HUGE))
            .ok_or(Error::OutOfMemory { bytes })?;
        // SAFETY: a new private mapping wherever the system wants it.
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
        let offset = mapped.align_offset(HUGE);
        // SAFETY: at most HUGE bytes on, and so much longer the mapping is.
        let start = unsafe { mapped.add(offset) };
        #[cfg(target_os = "linux")]
        // SAFETY: inside the mapping. Advice: where it is not taken, pages stay small.
        unsafe {
            libc::madvise(start.as_ptr().cast(), mapped_bytes - HUGE, libc::MADV_HUGEPAGE);
        }
        Ok(Words { mapped, mapped_bytes, start: start.cast(), length })
    }

    pub fn as_slice(&self) -> &[u32] {
        // SAFETY: `length` words from `start` on are in the mapping, which is zeros at first.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u32] {
        // SAFETY: as above, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, whole.
        unsafe { libc::munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_zero_aligned_and_their_own() {
        for length in [0, 1, HUGE / 4, HUGE / 4 + 1] {
            let mut words = Words::new(length).unwrap();
            assert_eq!(words.as_slice().as_ptr().align_offset(64), 0);
            assert!(words.as_slice().iter().all(|&word| word == 0));
            words.as_mut_slice().fill(7);
            assert!(Words::new(length).unwrap().as_slice().iter().all(|&word| word == 0));
            assert_eq!(words.as_slice(), vec![7; length]);
        }
    }

    #[test]
    fn too_much_is_an_error() {
        // More than there are numbers, and more than an address space of 47 bits.
        for length in [usize::MAX / 2, 1 << 50] {
            assert!(matches!(Words::new(length), Err(Error::OutOfMemory { .. })));
        }
    }
}
