//! The thread the forward pass runs on.
//!
//! candle's softmax and its matrix products run on whatever rayon pool is current, which outside
//! of a pool is rayon's global one: as many threads as the machine has cores, made without a signal
//! mask. Inside a database backend a signal delivered to such a thread runs the backend's handlers
//! there. So the forward pass is always run inside a private pool whose threads block every signal.

#![allow(unsafe_code)]

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Error;

/// Makes a pool of `threads` threads that block all signals.
pub(crate) fn private_pool(threads: usize) -> Result<ThreadPool, Error> {
    let _blocked = SignalsBlocked::new()?;
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("gte-small {index}"))
        // The default of a spawned thread (2 MiB) is what RUST_MIN_STACK may lower; candle's
        // deepest call chain needs under 200 KiB.
        .stack_size(4 << 20)
        .build()
        .map_err(Error::internal)
}

/// All signals blocked on this thread until dropped. A new thread inherits the mask of the one
/// that spawns it, and there is no moment in between in which it could take a signal.
struct SignalsBlocked {
    previous: libc::sigset_t,
}

impl SignalsBlocked {
    fn new() -> Result<SignalsBlocked, Error> {
        // SAFETY: both sets are plain data that sigfillset and pthread_sigmask write before they
        // are read; the pointers are to live locals of the right type.
        let (status, previous) = unsafe {
            let mut all = std::mem::zeroed::<libc::sigset_t>();
            let mut previous = std::mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&mut all);
            (libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut previous), previous)
        };
        if status == 0 {
            Ok(SignalsBlocked { previous })
        } else {
            Err(Error::internal(std::io::Error::from_raw_os_error(status)))
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `previous` was filled by pthread_sigmask in `new`; a null third pointer is
        // allowed and means that the old mask is not wanted.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.previous, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked_signals() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
        u64::from_str_radix(mask, 16).unwrap()
    }

    #[test]
    fn pool_threads_block_every_signal_and_the_caller_keeps_its_mask() {
        let before = blocked_signals();
        let inside = private_pool(1).unwrap().install(blocked_signals);
        // SIGKILL (9) and SIGSTOP (19) can't be blocked, 32 and 33 belong to the C library.
        for signal in (1..=64).filter(|signal| ![9, 19, 32, 33].contains(signal)) {
            assert!(inside >> (signal - 1) & 1 == 1, "signal {signal} is not blocked");
        }
        assert_eq!(before, blocked_signals());
    }
}
