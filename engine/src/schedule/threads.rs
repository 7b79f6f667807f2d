//! The private thread pool, and the number of threads of a call.
//!
//! rayon's global pool is not used. Its threads have the caller's signal mask, so the signal
//! handlers of a database backend could run on them. The threads of the private pool block all
//! signals and sleep when there is no work. The pool is created for the first text that needs it.
//! With one thread, the caller runs short texts itself.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use once_cell::sync::Lazy;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Error;

/// Most threads of the automatic rule. A text of 512 tokens has no work for more.
const MAX_AUTOMATIC: usize = 8;

/// Cores that this process may use. Reading the number takes 10 µs, as long as the rest of a call's
/// overhead.
static CORES: Lazy<usize> =
    Lazy::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// The threads of one encoder.
pub(crate) struct Threads {
    /// The number that the caller set; 0 = automatic.
    setting: AtomicUsize,
    pool: Mutex<Option<Arc<ThreadPool>>>,
}

impl Threads {
    pub fn new(setting: usize) -> Threads {
        Threads { setting: AtomicUsize::new(setting), pool: Mutex::new(None) }
    }

    pub fn set(&self, setting: usize) {
        self.setting.store(setting, Ordering::Relaxed);
    }

    /// Number of threads for a call that begins now.
    ///
    /// The automatic number is the number of cores that no other task uses at this moment, from one
    /// to eight. One session alone gets all cores. Many sessions get one thread each, which gives
    /// the most texts per second.
    pub fn for_call(&self) -> usize {
        match self.setting.load(Ordering::Relaxed) {
            0 => {
                let (cores, others) = (*CORES, running_tasks().saturating_sub(1));
                cores.min(MAX_AUTOMATIC).min(cores.saturating_sub(others)).max(1)
            }
            setting => setting,
        }
    }

    /// A pool of at least `threads` threads. A larger pool replaces a pool that is too small.
    pub fn pool(&self, threads: usize) -> Result<Arc<ThreadPool>, Error> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pool.as_ref()
            && pool.current_num_threads() >= threads
        {
            return Ok(pool.clone());
        }
        let larger = Arc::new(private_pool(threads)?);
        *pool = Some(larger.clone());
        Ok(larger)
    }
}

/// Tasks of the whole system that run or wait for a core, this one included; 1 if the system does
/// not have this number. Reading it takes about 10 µs.
fn running_tasks() -> usize {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|line| line.split(' ').nth(3)?.split('/').next()?.parse().ok())
        .unwrap_or(1)
}

/// Makes a pool of `threads` threads that block all signals.
pub(crate) fn private_pool(threads: usize) -> Result<ThreadPool, Error> {
    let _blocked = SignalsBlocked::new()?;
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("gte-small {index}"))
        .stack_size(2 << 20)
        .build()
        .map_err(Error::internal)
}

/// Blocks all signals on this thread until it is dropped. A new thread inherits the mask of the
/// thread that spawns it, so it never gets a signal.
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
        // SAFETY: `previous` was filled by pthread_sigmask in `new`. The third pointer may be null:
        // then the old mask is not returned.
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
