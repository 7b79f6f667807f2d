//! Runs the blocks of a call on the calling thread and its helpers.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::team::{Crew, GoOn, POLL_INTERVAL};
use super::threads::Threads;
use crate::{DIMS, Error};

/// One forward pass over lists of token ids, on the threads of a crew. Returns one vector for each
/// list.
pub(crate) type Pass<'a> =
    dyn Fn(&[&[u32]], &mut Crew, GoOn) -> Result<Vec<[f32; DIMS]>, Error> + Sync + 'a;

/// Runs one pass for each block of `ids` and gives the block and its vectors to `done`. `go_on` is
/// called on the calling thread, which works as well.
///
/// # Errors
/// [`Error::Interrupted`] when `go_on` breaks; the first error of a pass; [`Error::Internal`] when
/// a pass panics on a helper.
pub(crate) fn run_blocks(
    threads: &Threads,
    members: usize,
    pass: &Pass,
    ids: &[&[u32]],
    blocks: &[Range<usize>],
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
    done: &mut dyn FnMut(Range<usize>, Vec<[f32; DIMS]>),
) -> Result<(), Error> {
    let mut go_on = || if go_on().is_break() { Err(Error::Interrupted) } else { Ok(()) };
    threads.with_crew(members, |mut crew| {
        // Blocks that run side by side never wait for each other. The work inside a block is divided
        // among threads only when there are fewer blocks than keep all threads busy.
        if crew.members() == 1 || blocks.len() < 2 * crew.members() {
            for block in blocks {
                done(block.clone(), pass(&ids[block.clone()], &mut crew, &mut go_on)?);
            }
            return Ok(());
        }
        let queue = Queue {
            pass,
            ids,
            blocks,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            results: Mutex::new(Vec::with_capacity(blocks.len())),
            done: Condvar::new(),
        };
        let helper = || queue.work(&mut || queue.stopped());
        crew.side_by_side(&helper, || {
            queue.work(&mut || queue.stopped().and_then(|()| go_on()));
            queue.wait(&mut go_on);
        })?;
        let mut failure = None;
        for (block, result) in queue.results.into_inner().unwrap_or_else(PoisonError::into_inner) {
            match result {
                Ok(vectors) => done(block, vectors),
                // Those that stopped because another one failed are not the cause.
                Err(error) if matches!(failure, None | Some(Error::Interrupted)) => {
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        failure.map_or(Ok(()), Err)
    })
}

type Outcome = (Range<usize>, Result<Vec<[f32; DIMS]>, Error>);

/// Blocks that threads take one after the other.
struct Queue<'a> {
    pass: &'a Pass<'a>,
    ids: &'a [&'a [u32]],
    blocks: &'a [Range<usize>],
    next: AtomicUsize,
    stop: AtomicBool,
    results: Mutex<Vec<Outcome>>,
    done: Condvar,
}

impl Queue<'_> {
    /// Takes blocks until there are none, or one has failed.
    fn work(&self, go_on: GoOn) {
        let stop = StopOnDrop(&self.stop);
        while let Some(block) = self.blocks.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let result = (self.pass)(&self.ids[block.clone()], &mut Crew::alone(), go_on);
            let failed = result.is_err();
            self.push(block.clone(), result);
            if failed {
                return;
            }
        }
        std::mem::forget(stop);
    }

    fn push(&self, block: Range<usize>, result: Result<Vec<[f32; DIMS]>, Error>) {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).push((block, result));
        self.done.notify_all();
    }

    /// An error where another thread has failed.
    fn stopped(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Calls `go_on` until the other threads have done their last blocks.
    fn wait(&self, go_on: GoOn) {
        let stop = StopOnDrop(&self.stop);
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        while results.len() < self.blocks.len() && self.stopped().is_ok() {
            let waited = self.done.wait_timeout(results, POLL_INTERVAL);
            (results, _) = waited.unwrap_or_else(PoisonError::into_inner);
            drop(results);
            if let Err(error) = go_on() {
                self.push(0..0, Err(error));
                return;
            }
            results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::forget(stop);
    }
}

/// Sets a flag when it is dropped, also when a panic unwinds: the other threads must not go on
/// working for a call that has ended.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
