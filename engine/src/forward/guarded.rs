//! Memory for tests that ends at a page that cannot be accessed.

#![allow(unsafe_code, clippy::unwrap_used)]

use std::ptr::NonNull;

use super::shared::Plain;

/// Memory that ends at a page that cannot be accessed. A kernel that reads or writes beyond its
/// buffer crashes there.
pub(super) struct Guarded {
    mapped: NonNull<u8>,
    bytes: usize,
}

impl Guarded {
    const PAGE: usize = 1 << 16;

    /// Space for this number of bytes.
    pub fn new(bytes: usize) -> Guarded {
        let bytes = bytes.next_multiple_of(Self::PAGE);
        // SAFETY: this is a new private mapping; access to its last page is then removed.
        let mapped = unsafe {
            let (all, access) = (bytes + Self::PAGE, libc::PROT_READ | libc::PROT_WRITE);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let mapped = libc::mmap(std::ptr::null_mut(), all, access, flags, -1, 0);
            assert_ne!(mapped, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(mapped.byte_add(bytes), Self::PAGE, libc::PROT_NONE), 0);
            mapped
        };
        Guarded { mapped: NonNull::new(mapped.cast()).unwrap(), bytes }
    }

    /// These values, directly before the protected page.
    pub fn holding<T: Plain>(values: &[T]) -> Guarded {
        let mut guarded = Guarded::new(size_of_val(values));
        guarded.last(values.len()).copy_from_slice(values);
        guarded
    }

    /// The last `length` values before the protected page.
    pub fn last<T: Plain>(&mut self, length: usize) -> &mut [T] {
        let start = self.bytes.checked_sub(length * size_of::<T>()).unwrap();
        // SAFETY: the range is inside the mapping, which is zero at first. It is aligned because
        // the end of the mapping is.
        unsafe { std::slice::from_raw_parts_mut(self.mapped.add(start).as_ptr().cast(), length) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping that `new` made.
        unsafe { libc::munmap(self.mapped.as_ptr().cast(), self.bytes + Self::PAGE) };
    }
}
