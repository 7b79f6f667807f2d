//! Timeouts of a download. hf-hub sets none: if packets are dropped, or if the hub stops in the
//! middle of a file, it waits as long as TCP does.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// How long no data may arrive.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the start to the first content, all attempts together.
    pub connect: Duration,
    /// After that, between one piece of content and the next.
    pub stall: Duration,
}

/// When data last arrived.
#[derive(Debug)]
pub struct Activity {
    start: Instant,
    last_millis: AtomicU64,
    data_seen: AtomicBool,
    /// The failure of the last attempt, if no content has arrived since.
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

    /// Content arrived: restarts the timeout.
    pub fn data_arrived(&self) {
        self.restart();
        self.data_seen.store(true, Ordering::Relaxed);
        self.set_trouble(None);
    }

    /// Keeps the failure of an attempt; it is reported if the timeout expires before a retry
    /// succeeds.
    pub fn set_trouble(&self, trouble: Option<Failure>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub fn trouble(&self) -> Option<Failure> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Restarts the timeout. Local work such as hashing calls this: the hub is not to blame for it.
    pub fn restart(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(now, Ordering::Relaxed);
    }

    pub fn data_seen(&self) -> bool {
        self.data_seen.load(Ordering::Relaxed)
    }

    /// The time until the timeout expires.
    fn remaining(&self, timeouts: Timeouts) -> Duration {
        let limit = if self.data_seen() { timeouts.stall } else { timeouts.connect };
        let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
        (last + limit).saturating_sub(self.start.elapsed())
    }
}

/// How watched work ended.
pub enum Ended<T> {
    Done(T),
    /// No data within the timeout. The thread still hangs: the caller ends the process.
    TimedOut,
    Panicked,
}

/// Runs `work` in a thread and waits for its result until a timeout expires.
pub fn watch<T: Send + 'static>(
    timeouts: Timeouts,
    activity: &Activity,
    work: impl FnOnce() -> T + Send + 'static,
) -> Ended<T> {
    let (sender, receiver) = mpsc::channel();
    activity.restart();
    thread::spawn(move || {
        if let Ok(result) = panic::catch_unwind(AssertUnwindSafe(work)) {
            // Sending fails if the timeout has expired and the receiver is gone.
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
