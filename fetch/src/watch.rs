//! A bound on silence. hf-hub sets no timeout of its own: a hub behind dropped packets, or one
//! that stops in the middle of a file, would hold it for as long as TCP waits.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// How long nothing may arrive.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the start to the first byte of content, all attempts together.
    pub connect: Duration,
    /// Between bytes after that.
    pub stall: Duration,
}

/// The time of the last sign of life.
#[derive(Debug)]
pub struct Activity {
    start: Instant,
    last_millis: AtomicU64,
    data_seen: AtomicBool,
    /// What the attempts since the last content failed with.
    trouble: Mutex<Option<Failure>>,
}

impl Activity {
    pub fn new() -> Arc<Activity> {
        Arc::new(Activity {
            start: Instant::now(),
            last_millis: AtomicU64::new(0),
            data_seen: AtomicBool::new(false),
            trouble: Mutex::new(None),
        })
    }

    /// Content arrived.
    pub fn data_arrived(&self) {
        self.restart();
        self.data_seen.store(true, Ordering::Relaxed);
        self.set_trouble(None);
    }

    /// Remembers why the silence lasts, in case it lasts too long.
    pub fn set_trouble(&self, trouble: Option<Failure>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub fn trouble(&self) -> Option<Failure> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Work on this machine that nobody's silence is to blame for.
    pub fn restart(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(now, Ordering::Relaxed);
    }

    pub fn data_seen(&self) -> bool {
        self.data_seen.load(Ordering::Relaxed)
    }

    /// What is left of the patience.
    fn remaining(&self, timeouts: Timeouts) -> Duration {
        let limit = if self.data_seen() { timeouts.stall } else { timeouts.connect };
        let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
        (last + limit).saturating_sub(self.start.elapsed())
    }
}

/// How watched work ended.
pub enum Ended<T> {
    Done(T),
    /// Silent for too long. The work still hangs in its thread: the caller ends the process.
    TimedOut,
    Panicked,
}

/// Runs `work` in a thread and waits for it as long as `activity` beats.
pub fn watch<T: Send + 'static>(
    timeouts: Timeouts,
    activity: &Activity,
    work: impl FnOnce() -> T + Send + 'static,
) -> Ended<T> {
    let (sender, receiver) = mpsc::channel();
    activity.restart();
    thread::spawn(move || {
        if let Ok(result) = panic::catch_unwind(AssertUnwindSafe(work)) {
            // Nobody listens any more when the watcher has given up.
            let _ = sender.send(result);
        }
    });
    loop {
        match receiver.recv_timeout(activity.remaining(timeouts)) {
            Ok(result) => return Ended::Done(result),
            Err(RecvTimeoutError::Disconnected) => return Ended::Panicked,
            Err(RecvTimeoutError::Timeout) if activity.remaining(timeouts).is_zero() => {
                return Ended::TimedOut;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
