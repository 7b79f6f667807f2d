//! Work on many texts, divided among the calling thread and its helpers.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::team::{Crew, GoOn, POLL_INTERVAL};
use crate::{DIMS, Error};

/// One forward pass over lists of token ids, on the threads of a crew. Returns one vector for each
/// list.
pub(crate) type Pass<'a> =
    dyn Fn(&[&[u32]], &mut Crew, GoOn) -> Result<Vec<[f32; DIMS]>, Error> + Sync + 'a;

/// Runs one pass for each block of `ids`. Returns the vectors of each block, in the order of the
/// blocks. `go_on` is called on the calling thread, which takes part in the work.
///
/// # Errors
/// [`Error::Interrupted`] when `go_on` breaks; the first error of a pass; [`Error::Internal`] when
/// a pass panics on a helper.
pub(crate) fn run_blocks(
    crew: &mut Crew,
    pass: &Pass,
    ids: &[&[u32]],
    blocks: &[Range<usize>],
    go_on: GoOn,
) -> Result<Vec<Vec<[f32; DIMS]>>, Error> {
    // Blocks that run side by side never wait for each other. The work inside a block is divided
    // among threads only when there are too few blocks to keep all threads busy.
    if crew.members() == 1 || blocks.len() < 2 * crew.members() {
        return blocks.iter().map(|block| pass(&ids[block.clone()], crew, go_on)).collect();
    }
    let one = |i: usize, go_on: GoOn| pass(&ids[blocks[i].clone()], &mut Crew::alone(), go_on);
    side_by_side(crew, blocks.len(), &one, go_on)
}

/// A task by its index, with a callback that it calls between two steps.
type Task<'a, T> = dyn Fn(usize, GoOn) -> Result<T, Error> + Sync + 'a;

/// Runs `task(0..count)`, each task on one thread. Returns the results in this order.
///
/// # Errors
/// As [`run_blocks`].
pub(crate) fn side_by_side<T: Send>(
    crew: &mut Crew,
    count: usize,
    task: &Task<T>,
    go_on: GoOn,
) -> Result<Vec<T>, Error> {
    if crew.members() == 1 {
        return (0..count).map(|i| task(i, go_on)).collect();
    }
    let queue = Queue {
        task,
        count,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        results: Mutex::new(Vec::with_capacity(count)),
        done: Condvar::new(),
    };
    let helper = || queue.work(&mut || queue.stopped());
    crew.side_by_side(&helper, || {
        queue.work(&mut || queue.stopped().and_then(|()| go_on()));
        queue.wait(go_on);
    })?;
    let mut done: Vec<Option<T>> = (0..count).map(|_| None).collect();
    let mut failure = None;
    for (i, result) in queue.results.into_inner().unwrap_or_else(PoisonError::into_inner) {
        match result {
            Ok(result) => done[i] = Some(result),
            Err(error) => Error::keep_cause(&mut failure, error),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => done
            .into_iter()
            .collect::<Option<Vec<T>>>()
            .ok_or_else(|| Error::internal("a task was left out")),
    }
}

/// Tasks that threads take one after the other.
struct Queue<'a, T> {
    task: &'a Task<'a, T>,
    count: usize,
    next: AtomicUsize,
    stop: AtomicBool,
    results: Mutex<Vec<(usize, Result<T, Error>)>>,
    done: Condvar,
}

impl<T> Queue<'_, T> {
    /// Takes tasks until none is left or one has failed.
    fn work(&self, go_on: GoOn) {
        let stop = StopOnDrop(&self.stop);
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.count {
                break;
            }
            let result = (self.task)(i, go_on);
            let failed = result.is_err();
            self.push(i, result);
            if failed {
                return;
            }
        }
        std::mem::forget(stop);
    }

    fn push(&self, i: usize, result: Result<T, Error>) {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
        self.done.notify_all();
    }

    /// Returns an error if another thread has failed.
    fn stopped(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Calls `go_on` until the other threads have done their last tasks.
    fn wait(&self, go_on: GoOn) {
        let stop = StopOnDrop(&self.stop);
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        while results.len() < self.count && self.stopped().is_ok() {
            let waited = self.done.wait_timeout(results, POLL_INTERVAL);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            if let Err(error) = go_on() {
                self.push(0, Err(error));
                return;
            }
            results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::forget(stop);
    }
}

/// Sets a flag when it is dropped, also when a panic unwinds. The other threads must not continue
/// to work for a call that has ended.
pub(super) struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::team::Team;
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_tasks() {
        let mut team = Team::new(Default::default());
        for members in [1, 2, 3] {
            let mut crew = Crew::of(&mut team, members);
            let double = |i: usize, go_on: GoOn| go_on().map(|()| 2 * i);
            let results = side_by_side(&mut crew, 1000, &double, &mut || Ok(())).unwrap();
            assert!(results.into_iter().eq((0..1000).map(|i| 2 * i)));
            assert!(side_by_side(&mut crew, 0, &double, &mut || Ok(())).unwrap().is_empty());
        }
    }

    #[test]
    fn an_error_ends_the_work_of_all() {
        let mut team = Team::new(Default::default());
        let mut crew = Crew::of(&mut team, 3);
        let ran = AtomicUsize::new(0);
        let task = |i: usize, go_on: GoOn| {
            go_on()?;
            std::thread::sleep(Duration::from_micros(100));
            ran.fetch_add(1, Ordering::Relaxed);
            if i == 20 { Err(Error::internal("task 20")) } else { Ok(()) }
        };
        let error = side_by_side(&mut crew, 100_000, &task, &mut || Ok(())).unwrap_err();
        assert!(error.to_string().ends_with("task 20"), "{error}");
        assert!(ran.load(Ordering::Relaxed) < 10_000);
    }

    #[test]
    fn the_caller_is_asked_while_a_helper_is_busy() {
        let mut team = Team::new(Default::default());
        let mut crew = Crew::of(&mut team, 2);
        let caller = std::thread::current().id();
        let both = std::sync::Barrier::new(2);
        // One task for each thread. The helper's task ends only when it is stopped.
        let task = |_: usize, go_on: GoOn| {
            both.wait();
            while std::thread::current().id() != caller {
                go_on()?;
            }
            Ok(())
        };
        let mut asked = 0;
        let mut third = || {
            asked += 1;
            if asked == 3 { Err(Error::Interrupted) } else { Ok(()) }
        };
        let result = side_by_side(&mut crew, 2, &task, &mut third);
        assert!(matches!(result, Err(Error::Interrupted)));
        assert_eq!(asked, 3);
    }
}
