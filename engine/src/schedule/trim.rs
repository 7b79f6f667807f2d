//! Memory of threads that have ended.

#![allow(unsafe_code)]

/// Gives free memory back to the system. The C library keeps the memory that a thread has freed for
/// the next thread.
pub(super) fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function has no conditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
