//! Memory that the system refuses.
//!
//! Rust aborts the process when a library can't allocate, and an abort of one backend restarts the
//! whole database server. A system refuses memory with `vm.overcommit_memory = 2`, `ulimit -v` and
//! similar limits. Three rules make it an error of the call:
//!
//! - A buffer of the engine's own, of a size that depends on a model or a text, is allocated with
//!   `try_reserve`.
//! - Everything else is small between two calls of [`check`], and there is a reserve for it: address
//!   space that is mapped and not used. [`Allocator`] unmaps it when the C library refuses memory,
//!   and tries again. The next [`check`] maps it again, or fails.
//! - A step of a library that allocates more than that between two checks makes the reserve larger
//!   for its time, with [`hold`].
//!
//! An unused reserve takes no memory, except from the limit. An allocator must not unwind, so it
//! can't report the error itself.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Error;

/// Bytes of the reserve for up to eight threads. The engine allocates less than 1 MB between two
/// checks on one thread, the fallible buffers aside, see `memory/tests.rs`. The C library takes
/// memory from the system by the megabyte when the heap can't grow in place.
const RESERVE: usize = 4 << 20;

/// The part of the reserve that is used last: for the text of the error.
const LAST: usize = 256 << 10;

/// A step that allocates no more than this needs no larger reserve. There is as much for each thread.
const SMALL: usize = RESERVE / 8;

/// What a new thread allocates before its first work. The C library ends the process when there is no
/// memory for its thread-local data.
const THREAD: usize = 1 << 20;

/// Address space that glibc maps for a moment to place the heap of a new thread; half of it stays.
/// Without it each allocation of the thread takes a page: 1,000 of 40 bytes took 4 MB.
const THREAD_HEAP: usize = 128 << 20;

/// Bytes that are allocated for a byte of JSON. Measured in `memory/tests.rs` were at most 128, for
/// objects of one entry, one inside the other.
const JSON_MEMORY: usize = 160;

/// The C library's allocator with the reserve behind it.
struct Allocator;

/// In the extension, this is the allocator of all Rust code. The unit tests have one that counts, too.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: every block is one of `System`. None of the functions unwinds.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees the layout.
        let allocate = || unsafe { System.alloc(layout) };
        or_from_reserve(allocate(), layout.size(), allocate)
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees the layout.
        let allocate = || unsafe { System.alloc_zeroed(layout) };
        or_from_reserve(allocate(), layout.size(), allocate)
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees the block, which stays valid when `System` refuses.
        let allocate = || unsafe { System.realloc(block, layout, size) };
        or_from_reserve(allocate(), size, allocate)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees the block, which is one of `System`.
        unsafe { System.dealloc(block, layout) };
    }
}

#[inline]
fn or_from_reserve(block: *mut u8, bytes: usize, allocate: impl Fn() -> *mut u8) -> *mut u8 {
    if block.is_null() { from_reserve(bytes, &allocate) } else { block }
}

/// Tries again to allocate, and gives up the reserve for it.
#[cold]
fn from_reserve(bytes: usize, allocate: &dyn Fn() -> *mut u8) -> *mut u8 {
    let mut kept = lock();
    loop {
        // Under the lock: another thread may just have given up the reserve.
        let block = allocate();
        // A large request would take the whole reserve and still fail. It comes from `try_reserve`.
        if !block.is_null() || bytes > kept.bytes {
            return block;
        }
        let rest = if kept.bytes > LAST { LAST } else { 0 };
        kept.shrink_to(rest);
        WHOLE.store(false, Ordering::Relaxed);
    }
}

/// Bytes of the reserve while no step holds more.
static WANTED: AtomicUsize = AtomicUsize::new(RESERVE);

/// Whether the reserve has its full size. There is none before the first [`check`].
static WHOLE: AtomicBool = AtomicBool::new(false);

static KEPT: Mutex<Kept> = Mutex::new(Kept { start: None, bytes: 0, held: 0 });

fn lock() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fails when there is no memory for the reserve. Call this at the start of a call and after each
/// piece of work.
///
/// # Errors
/// [`Error::OutOfMemory`].
#[inline]
pub fn check() -> Result<(), Error> {
    if WHOLE.load(Ordering::Relaxed) { Ok(()) } else { refill() }
}

#[cold]
fn refill() -> Result<(), Error> {
    let mut kept = lock();
    let wanted = WANTED.load(Ordering::Relaxed);
    // What a step was promised is now free for it.
    if kept.held > 0 || kept.resize(wanted) {
        WHOLE.store(kept.held == 0, Ordering::Relaxed);
        return Ok(());
    }
    if kept.bytes < LAST {
        kept.resize(LAST);
    }
    Err(Error::OutOfMemory { bytes: wanted })
}

/// Makes the reserve large enough for this many threads, from now on. Returns whether it is.
pub(crate) fn is_enough_for(threads: usize) -> bool {
    let wanted = RESERVE.max(threads.saturating_mul(SMALL));
    if WANTED.fetch_max(wanted, Ordering::Relaxed) < wanted {
        WHOLE.store(false, Ordering::Relaxed);
    }
    check().is_ok()
}

/// Makes sure that a step can allocate this many bytes, until the result is dropped.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn hold(bytes: usize) -> Result<Hold, Error> {
    check()?;
    let mut hold = Hold {
        bytes: 0,
        #[cfg(test)]
        _counted: tests::Counted::begin(bytes.max(SMALL)),
    };
    if bytes > SMALL {
        let mut kept = lock();
        let wanted = kept.bytes.saturating_add(bytes);
        if !kept.resize(wanted) {
            // The old reserve may be gone as well: the next check looks.
            WHOLE.store(false, Ordering::Relaxed);
            return Err(Error::OutOfMemory { bytes });
        }
        kept.held += bytes;
        hold.bytes = bytes;
    }
    Ok(hold)
}

/// As [`hold`], for parsing JSON of this many bytes.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn hold_for_json(bytes: usize) -> Result<Hold, Error> {
    hold(bytes.saturating_mul(JSON_MEMORY))
}

/// A larger reserve.
pub struct Hold {
    bytes: usize,
    /// In the unit tests, each step is held against what it was promised.
    #[cfg(test)]
    _counted: tests::Counted,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut kept = lock();
            kept.held -= self.bytes;
            let most = WANTED.load(Ordering::Relaxed) + kept.held;
            kept.shrink_to(most);
        }
    }
}

/// An empty vector with room for this many values.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn vector<T>(count: usize) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    make_room(&mut values, count)?;
    Ok(values)
}

/// Makes room for this many values more, and for no others.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn make_room<T>(values: &mut Vec<T>, more: usize) -> Result<(), Error> {
    let bytes = more.saturating_mul(size_of::<T>());
    values.try_reserve_exact(more).map_err(|_| Error::OutOfMemory { bytes })
}

/// Whether a thread with a stack of this size can start, and there is address space for `heaps`: that
/// of this thread, if it makes many small allocations, and those of threads that were just started.
pub(crate) fn is_there_for_thread(stack: usize, heaps: usize) -> bool {
    // An empty range can't be mapped.
    let heaps = THREAD_HEAP.saturating_mul(heaps).max(1);
    let ranges = [(stack + THREAD, libc::PROT_READ | libc::PROT_WRITE), (heaps, libc::PROT_NONE)];
    // Both at once.
    let mapped = ranges.map(|(bytes, access)| map(bytes, access).map(|start| (start, bytes)));
    for (start, bytes) in mapped.into_iter().flatten() {
        unmap(start, bytes);
    }
    mapped.iter().all(Option::is_some)
}

/// The reserve: a mapping that nothing reads or writes.
struct Kept {
    start: Option<NonNull<u8>>,
    bytes: usize,
    /// The sum of all [`Hold`]s.
    held: usize,
}

// SAFETY: nothing reads or writes the mapping, and it belongs to no thread.
unsafe impl Send for Kept {}

impl Kept {
    /// Maps the reserve in another size. Keeps the old one if the system refuses.
    fn resize(&mut self, bytes: usize) -> bool {
        let before = self.bytes;
        // First, because both may be too much.
        self.shrink_to(0);
        for bytes in [bytes, before] {
            if bytes > 0
                && let Some(start) = map(bytes, libc::PROT_READ | libc::PROT_WRITE)
            {
                (self.start, self.bytes) = (Some(start), bytes);
                break;
            }
        }
        self.bytes == bytes
    }

    /// Gives back what is more than this many bytes, a multiple of a page.
    fn shrink_to(&mut self, bytes: usize) {
        let bytes = bytes.next_multiple_of(LAST);
        let Some(start) = self.start.filter(|_| bytes < self.bytes) else { return };
        // SAFETY: `bytes` is inside the mapping.
        unmap(unsafe { start.add(bytes) }, self.bytes - bytes);
        self.bytes = bytes;
        if bytes == 0 {
            self.start = None;
        }
    }
}

/// A new private mapping. It counts as memory of the process before it is used; without access it
/// counts for a limit of address space only.
fn map(bytes: usize, access: i32) -> Option<NonNull<u8>> {
    // SAFETY: this is a new mapping at an address that the system chooses.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            access,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED)
}

fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the range is a mapping of `map`, or the end of one, that nothing uses.
    unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
}

#[cfg(test)]
mod tests;
