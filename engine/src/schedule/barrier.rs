//! Waiting for other threads: a barrier, and the short time in which a waiting thread stays awake.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::team::{GoOn, POLL_INTERVAL};
use crate::Error;

/// How long a waiting thread stays awake before it sleeps. Waking it takes some 50 µs. The threads
/// of a pass arrive at a barrier within 100 µs of each other.
pub(super) const AWAKE: Duration = Duration::from_micros(200);

/// How long a waiting thread keeps its core. After this time it yields at each turn: with more
/// threads than cores, the thread that it waits for may have no core.
const SPIN: Duration = Duration::from_micros(20);

/// Stays awake until `so` returns true, or for [`AWAKE`]. Returns whether `so` is true.
pub(super) fn spin(so: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    loop {
        for _ in 0..32 {
            if so() {
                return true;
            }
            std::hint::spin_loop();
        }
        match began.elapsed() {
            waited if waited < SPIN => {}
            waited if waited < AWAKE => std::thread::yield_now(),
            _ => return so(),
        }
    }
}

/// A barrier for the threads of a job.
pub(super) struct Barrier {
    members: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    /// A member has left, so no other member needs to wait.
    broken: AtomicBool,
    asleep: Mutex<()>,
    opened: Condvar,
}

impl Barrier {
    pub fn new(members: usize) -> Barrier {
        Barrier {
            members,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            asleep: Mutex::new(()),
            opened: Condvar::new(),
        }
    }

    /// Waits for the other members. If there is a `go_on`, it is called every 10 ms.
    pub fn wait(&self, go_on: Option<GoOn>) -> Result<(), Error> {
        if self.members == 1 {
            return Ok(());
        }
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.members {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            self.wake();
            return self.whole();
        }
        let open =
            || self.round.load(Ordering::Acquire) != round || self.broken.load(Ordering::Acquire);
        if !spin(open) {
            self.sleep(open, go_on)?;
        }
        self.whole()
    }

    /// Sleeps until `open` returns true.
    fn sleep(&self, open: impl Fn() -> bool, mut go_on: Option<GoOn>) -> Result<(), Error> {
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        while !open() {
            let waited = self.opened.wait_timeout(asleep, POLL_INTERVAL);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            if let Some(go_on) = &mut go_on {
                go_on()?;
            }
            asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    pub fn whole(&self) -> Result<(), Error> {
        if self.broken.load(Ordering::Acquire) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Taking the lock ensures that a thread that is about to sleep sees the earlier stores.
    fn wake(&self) {
        drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.opened.notify_all();
    }
}

/// Breaks the barrier when it is dropped. If a panic unwinds, no thread waits for this one.
pub(super) struct BreakOnDrop<'a>(pub &'a Barrier);

impl Drop for BreakOnDrop<'_> {
    fn drop(&mut self) {
        self.0.broken.store(true, Ordering::Release);
        self.0.wake();
    }
}
