//! Buffers that the threads of a pass share.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

/// A number of at most 32 bits, of which any bits are a value.
pub(super) trait Plain: Copy + Send + Sync {}
impl Plain for f32 {}
impl Plain for u16 {}
impl Plain for u32 {}

/// A buffer in the number format of its reader: a matrix product reads its factors in the precision
/// of the tier.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    F32(Shared<'a, f32>),
    Bf16(Shared<'a, u16>),
}

impl<'a> Values<'a> {
    pub fn len(self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
        }
    }

    /// # Panics
    /// If the buffer has another format.
    pub fn f32(self) -> Shared<'a, f32> {
        match self {
            Values::F32(values) => values,
            Values::Bf16(_) => unreachable!("f32 is wanted"),
        }
    }

    /// # Panics
    /// If the buffer has another format.
    pub fn bf16(self) -> Shared<'a, u16> {
        match self {
            Values::Bf16(values) => values,
            Values::F32(_) => unreachable!("bf16 is wanted"),
        }
    }
}

/// A buffer that the threads of a pass share. Each thread writes its own part, and reads the parts
/// of others after a barrier.
pub(super) struct Shared<'a, T> {
    start: NonNull<T>,
    length: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: access is unsafe, and its caller guarantees that no other thread's access conflicts.
unsafe impl<T: Plain> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Shared<'_, T> {}

impl<'a, T: Plain> Shared<'a, T> {
    pub fn new(buffer: &'a mut [T]) -> Shared<'a, T> {
        let length = buffer.len();
        Shared { start: NonNull::from(buffer).cast(), length, lifetime: PhantomData }
    }

    pub fn len(self) -> usize {
        self.length
    }

    /// A part of the buffer, as a buffer of its own.
    ///
    /// # Panics
    /// If the range is not inside the buffer.
    pub fn part(self, range: Range<usize>) -> Shared<'a, T> {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: the range is inside the buffer.
        let start = unsafe { self.start.add(range.start) };
        Shared { start, length: range.len(), lifetime: PhantomData }
    }

    /// The start of the buffer. Access through it has the rules of [`Shared::read`] and
    /// [`Shared::write`].
    pub fn pointer(self) -> *mut T {
        self.start.as_ptr()
    }

    /// # Panics
    /// If the range is not inside the buffer.
    ///
    /// # Safety
    /// No thread writes the range while the slice is in use.
    pub unsafe fn read(self, range: Range<usize>) -> &'a [T] {
        let part = self.part(range);
        // SAFETY: the range is inside the buffer; the caller guarantees the rest.
        unsafe { std::slice::from_raw_parts(part.start.as_ptr(), part.length) }
    }

    /// # Panics
    /// If the range is not inside the buffer.
    ///
    /// # Safety
    /// No other code reads or writes the range while the slice is in use.
    pub unsafe fn write(self, range: Range<usize>) -> &'a mut [T] {
        let part = self.part(range);
        // SAFETY: the range is inside the buffer; the caller guarantees the rest.
        unsafe { std::slice::from_raw_parts_mut(part.start.as_ptr(), part.length) }
    }
}
