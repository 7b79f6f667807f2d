//! Runs the blocks of a call: on the threads of the private pool, or on the calling thread.

use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::threads::Threads;
use crate::{DIMS, Error};

/// How long the calling thread waits for results before it calls `go_on` again.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The largest forward pass, in tokens, that the calling thread runs itself when a call has one
/// thread. The pool would wake a sleeping thread on another core with cold caches, and then this
/// one. That takes 50 µs, and a pass over 12 tokens takes 1.5 ms. One operation on 128 tokens takes
/// up to 15 ms, during which `go_on` is not called.
const MAX_TOKENS_ON_CALLER: usize = 128;

/// A callback that a pass calls between its operations. The pass ends with its error.
type GoOn<'a> = &'a mut dyn FnMut() -> Result<(), Error>;

/// One forward pass over lists of token ids with a number of threads. Returns one vector for each
/// list.
pub(crate) type Pass<'a> =
    dyn Fn(&[&[u32]], usize, GoOn) -> Result<Vec<[f32; DIMS]>, Error> + Sync + 'a;

/// Runs one pass for each block of `ids` and gives the block and its vectors to `done`, in the
/// order in which the passes end. `go_on` is called on the calling thread.
///
/// # Errors
/// [`Error::Interrupted`] when `go_on` breaks; the first error of a pass; [`Error::Internal`] when
/// a pass panics.
pub(crate) fn run_blocks(
    threads: &Threads,
    pass: &Pass,
    ids: &[&[u32]],
    blocks: &[Range<usize>],
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
    done: &mut dyn FnMut(Range<usize>, Vec<[f32; DIMS]>),
) -> Result<(), Error> {
    let thread_count = threads.for_call();
    if let [block] = blocks
        && thread_count == 1
        && ids.iter().map(|ids| ids.len()).sum::<usize>() <= MAX_TOKENS_ON_CALLER
    {
        let mut go_on = || if go_on().is_break() { Err(Error::Interrupted) } else { Ok(()) };
        done(block.clone(), pass(ids, 1, &mut go_on)?);
        return Ok(());
    }
    // Blocks that run side by side never wait for each other. The work inside a block is divided
    // among threads only when there are fewer blocks than keep all threads busy.
    let (workers, threads_per_block) =
        if blocks.len() >= 2 * thread_count { (thread_count, 1) } else { (1, thread_count) };
    let pool = threads.pool(thread_count)?;
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    pool.in_place_scope(|scope| {
        let _stop_at_exit = SetOnDrop(&stop);
        for _ in 0..workers {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move |_| {
                let mut go_on = || match stop.load(Ordering::Relaxed) {
                    true => Err(Error::Interrupted),
                    false => Ok(()),
                };
                while let Some(block) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ids = &ids[block.clone()];
                    // A panic becomes an error.
                    let run = AssertUnwindSafe(|| pass(ids, threads_per_block, &mut go_on));
                    let result = catch_unwind(run)
                        .unwrap_or_else(|_| Err(Error::internal("the forward pass panicked")));
                    let failed = result.is_err();
                    if sender.send((block.clone(), result)).is_err() || failed {
                        break;
                    }
                }
            });
        }
        let mut missing = blocks.len();
        while missing > 0 {
            if go_on().is_break() {
                return Err(Error::Interrupted);
            }
            match receiver.recv_timeout(POLL_INTERVAL) {
                Ok((block, result)) => {
                    done(block, result?);
                    missing -= 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal("the threads of the model are gone"));
                }
            }
        }
        Ok(())
    })
}

/// Sets a flag when it is dropped, also when a panic unwinds: the threads must not go on working
/// for a call that has ended.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
