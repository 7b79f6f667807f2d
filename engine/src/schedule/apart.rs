//! Work on a thread of its own, for code that uses rayon and knows no interrupts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;

use rayon_core::{ThreadPool, ThreadPoolBuilder};

use super::run::StopOnDrop;
use super::signals::SignalsBlocked;
use super::team::{GoOn, POLL_INTERVAL, STACK};
use super::trim::give_memory_back;
use crate::{Error, memory};

/// Runs `work` on a new thread that blocks all signals. What `work` divides with rayon runs on the
/// same thread. The calling thread calls `go_on` every 10 ms. When this function returns or
/// unwinds, the thread has ended and its memory is free.
///
/// # Errors
/// [`Error::NoThread`], [`Error::OutOfMemory`]; the error of `work`; the error of `go_on`, after `work` has called its own
/// callback, which then fails; [`Error::Internal`] when `work` panics.
pub(crate) fn run_apart<T: Send>(
    go_on: GoOn,
    work: impl FnOnce(GoOn) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let apart = Apart::start()?;
    let stop = AtomicBool::new(false);
    let stop = &stop;
    let (sender, receiver) = sync_channel(1);
    apart.pool()?.in_place_scope(|scope| {
        scope.spawn(move |_| {
            let mut stopped = || match stop.load(Ordering::Relaxed) {
                true => Err(Error::Interrupted),
                false => Ok(()),
            };
            let result = catch_unwind(AssertUnwindSafe(|| work(&mut stopped)))
                .unwrap_or_else(|_| Err(Error::internal("stock candle panicked")));
            // The calling thread no longer listens if it was interrupted.
            let _ = sender.send(result);
        });
        let _stop = StopOnDrop(stop);
        loop {
            match receiver.recv_timeout(POLL_INTERVAL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => go_on()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal("the thread of stock candle gave no result"));
                }
            }
        }
    })
}

/// A rayon pool of one thread. Rayon itself does not wait for the threads of a pool that is
/// dropped.
struct Apart {
    pool: Option<ThreadPool>,
    thread: Option<JoinHandle<()>>,
}

impl Apart {
    fn start() -> Result<Apart, Error> {
        // Without a heap: the library's allocations are large, and the step that needs it holds memory.
        if !memory::is_there_for_thread(STACK, 0) {
            return Err(Error::OutOfMemory { bytes: STACK });
        }
        let mut thread = None;
        let blocked = SignalsBlocked::new()?;
        let pool = ThreadPoolBuilder::new()
            .num_threads(1)
            .spawn_handler(|worker| {
                let builder = std::thread::Builder::new().name("gte-small apart".to_owned());
                thread = Some(builder.stack_size(STACK).spawn(move || worker.run())?);
                Ok(())
            })
            .build();
        drop(blocked);
        match pool {
            Ok(pool) => Ok(Apart { pool: Some(pool), thread }),
            Err(error) => Err(Error::NoThread { reason: error.to_string() }),
        }
    }

    fn pool(&self) -> Result<&ThreadPool, Error> {
        self.pool.as_ref().ok_or_else(|| Error::internal("the pool has ended"))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        drop(self.pool.take());
        if let Some(thread) = self.thread.take() {
            // The work catches its panics.
            let _ = thread.join();
        }
        give_memory_back();
    }
}
