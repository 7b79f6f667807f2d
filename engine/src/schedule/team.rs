//! Threads that run one function together and meet at barriers.
//!
//! The calling thread is a member of the team, so a text that needs one thread wakes no helper. A
//! waiting thread spins for a short time, because barriers are microseconds apart, and then sleeps.
//! Helpers block every signal: otherwise a signal could run the handlers of a database backend on a
//! helper.

#![allow(unsafe_code)]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::barrier::{Barrier, BreakOnDrop, spin};
use super::signals::SignalsBlocked;
use super::trim::give_memory_back;
use crate::{Error, memory};

/// How often the calling thread calls `go_on` while it waits for the others.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Bytes of a thread's stack.
pub(super) const STACK: usize = 2 << 20;

/// The work of helpers. The argument is the index of the helper, from 1.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// Helpers of the calling thread. They sleep between two jobs.
pub(crate) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

struct Shared {
    job: Mutex<Job>,
    given_out: Condvar,
    /// Number of the job, as in `job`, for helpers that spin.
    number: AtomicUsize,
    /// Helpers that have not finished the job.
    running: AtomicUsize,
    done: Condvar,
    panicked: AtomicBool,
    /// Helpers that spin for the next job.
    spinning: Arc<AtomicUsize>,
}

struct Job {
    number: usize,
    members: usize,
    /// Valid while `running` is not 0.
    work: Option<Work<'static>>,
    /// Helpers of this index and of higher ones end.
    end_from: usize,
}

impl Team {
    /// `spinning` counts the helpers that spin.
    pub fn new(spinning: Arc<AtomicUsize>) -> Team {
        let job = Job { number: 0, members: 0, work: None, end_from: usize::MAX };
        let shared = Shared {
            job: Mutex::new(job),
            given_out: Condvar::new(),
            number: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            done: Condvar::new(),
            panicked: AtomicBool::new(false),
            spinning,
        };
        Team { shared: Arc::new(shared), helpers: Vec::new() }
    }

    /// Starts helpers until there are `members` threads, the calling thread included. Returns the
    /// number of threads, which is smaller if the system starts no more.
    pub fn grow(&mut self, members: usize) -> usize {
        if self.helpers.len() + 1 < members {
            self.shared.lock().end_from = usize::MAX;
        }
        let before = self.helpers.len();
        while self.helpers.len() + 1 < members {
            let (shared, index) = (self.shared.clone(), self.helpers.len() + 1);
            let Ok(_blocked) = SignalsBlocked::new() else { break };
            let heaps = index - before;
            if !memory::is_enough_for(index + 1) || !memory::is_there_for_thread(STACK, heaps) {
                break;
            }
            let started = std::thread::Builder::new()
                .name(format!("gte-small {index}"))
                .stack_size(STACK)
                .spawn(move || help(&shared, index));
            match started {
                Ok(helper) => self.helpers.push(helper),
                Err(_) => break,
            }
        }
        members.min(self.helpers.len() + 1)
    }

    /// Ends helpers until there are at most `members` threads, the calling thread included. When
    /// this function returns, their buffers are free.
    pub fn shrink(&mut self, members: usize) {
        let kept = members.max(1) - 1;
        if self.helpers.len() > kept {
            self.end(kept);
            give_memory_back();
        }
    }

    /// Ends the helpers behind the first `kept` ones.
    fn end(&mut self, kept: usize) {
        self.shared.lock().end_from = kept + 1;
        // Another number than that of the job ends the spinning. The next job has this number.
        self.shared.number.fetch_add(1, Ordering::Release);
        self.shared.given_out.notify_all();
        for helper in self.helpers.drain(kept..) {
            // A helper catches the panics of its work.
            let _ = helper.join();
        }
    }

    /// Runs `work(1..members)` on helpers and `own` on this thread. Waits for all helpers, also
    /// when `own` unwinds.
    ///
    /// # Errors
    /// [`Error::Internal`] when a helper panicked.
    fn run(&mut self, members: usize, work: Work<'_>, own: impl FnOnce()) -> Result<(), Error> {
        assert!(members <= self.helpers.len() + 1);
        // SAFETY: only the lifetime changes. Helpers no longer use `work` once `Wait` is dropped,
        // which happens before this function returns or unwinds.
        let work = unsafe { std::mem::transmute::<Work<'_>, Work<'static>>(work) };
        let shared = &self.shared;
        shared.panicked.store(false, Ordering::Relaxed);
        shared.running.store(members - 1, Ordering::Relaxed);
        {
            let mut job = shared.lock();
            job.number += 1;
            (job.members, job.work) = (members, Some(work));
            shared.number.store(job.number, Ordering::Release);
        }
        shared.given_out.notify_all();
        let wait = Wait(shared);
        own();
        drop(wait);
        match shared.panicked.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::internal("the forward pass panicked")),
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.end(0);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the helpers when it is dropped.
struct Wait<'a>(&'a Shared);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let finished = || self.0.running.load(Ordering::Acquire) == 0;
        if !spin(finished) {
            let mut job = self.0.lock();
            while !finished() {
                job = self.0.done.wait(job).unwrap_or_else(PoisonError::into_inner);
            }
        }
        self.0.lock().work = None;
    }
}

/// The loop of a helper.
fn help(shared: &Shared, index: usize) {
    let (mut seen, mut member) = (0, false);
    loop {
        // A helper without a part in the last job probably has none in the next.
        if member {
            shared.spinning.fetch_add(1, Ordering::Relaxed);
            spin(|| shared.number.load(Ordering::Acquire) != seen);
            shared.spinning.fetch_sub(1, Ordering::Relaxed);
        }
        let work = {
            let mut job = shared.lock();
            while job.number == seen && index < job.end_from {
                job = shared.given_out.wait(job).unwrap_or_else(PoisonError::into_inner);
            }
            if index >= job.end_from {
                return;
            }
            seen = job.number;
            member = index < job.members;
            job.work.filter(|_| member)
        };
        let Some(work) = work else { continue };
        if catch_unwind(AssertUnwindSafe(|| work(index))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        if shared.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            drop(shared.lock());
            shared.done.notify_all();
        }
    }
}

/// A callback that returns an error when the work has to stop.
pub(crate) type GoOn<'a> = &'a mut dyn FnMut() -> Result<(), Error>;

/// One of the threads that run a pass together.
pub(crate) struct Member<'a> {
    /// Member 0 is the calling thread.
    pub index: usize,
    /// Number of members.
    pub members: usize,
    barrier: &'a Barrier,
    go_on: GoOn<'a>,
}

impl Member<'_> {
    /// Waits for the other members. Afterwards, every member may read the earlier writes of all.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when another member has left; the error of `go_on`.
    pub fn meet(&mut self) -> Result<(), Error> {
        let calls = self.index == 0;
        self.barrier.wait(calls.then_some(&mut *self.go_on))
    }

    /// Calls `go_on` on the calling thread. On a helper, checks that no member has left. Call this
    /// every few milliseconds.
    ///
    /// # Errors
    /// The error of `go_on`; [`Error::Interrupted`] when another member has left.
    pub fn ask(&mut self) -> Result<(), Error> {
        (self.go_on)()
    }

    /// This member's part of `0..count`.
    pub fn share(&self, count: usize) -> Range<usize> {
        count * self.index / self.members..count * (self.index + 1) / self.members
    }
}

/// The threads of one pass.
pub(crate) struct Crew<'a> {
    team: Option<&'a mut Team>,
    members: usize,
}

impl<'a> Crew<'a> {
    /// Only the calling thread.
    pub fn alone() -> Crew<'static> {
        Crew { team: None, members: 1 }
    }

    /// The calling thread and `members - 1` helpers, or as many as the system starts.
    pub fn of(team: &'a mut Team, members: usize) -> Crew<'a> {
        let members = team.grow(members);
        Crew { team: Some(team), members }
    }

    pub fn members(&self) -> usize {
        self.members
    }

    /// Runs `work` on every thread. `go_on` is called on the calling thread, which is member 0.
    ///
    /// # Errors
    /// The first error of a member. The others then leave at their next call of `meet` or `ask`.
    pub fn run(
        &mut self,
        go_on: GoOn,
        work: &(dyn Fn(&mut Member) -> Result<(), Error> + Sync),
    ) -> Result<(), Error> {
        let members = self.members;
        let barrier = &Barrier::new(members);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let run = |index: usize, go_on: GoOn| {
            let breaks = BreakOnDrop(barrier);
            match work(&mut Member { index, members, barrier, go_on }) {
                Ok(()) => std::mem::forget(breaks),
                Err(error) => {
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    Error::keep_cause(&mut failure, error);
                }
            }
        };
        match &mut self.team {
            Some(team) if members > 1 => {
                team.run(members, &|index| run(index, &mut || barrier.whole()), || run(0, go_on))?;
            }
            _ => run(0, go_on),
        }
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Runs `helper` on every other thread, and `own` on this one.
    ///
    /// # Errors
    /// [`Error::Internal`] when a helper panicked.
    pub fn side_by_side(
        &mut self,
        helper: &(dyn Fn() + Sync),
        own: impl FnOnce(),
    ) -> Result<(), Error> {
        match &mut self.team {
            Some(team) if self.members > 1 => team.run(self.members, &|_| helper(), own),
            _ => {
                own();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::barrier::AWAKE;
    use super::*;

    fn fine() -> impl FnMut() -> Result<(), Error> {
        || Ok(())
    }

    #[test]
    fn members_see_what_the_others_wrote_before_a_barrier() {
        let mut team = Team::new(Arc::default());
        for members in [1, 2, 3, 5] {
            let mut crew = Crew::of(&mut team, members);
            assert_eq!(crew.members(), members);
            let cells: Vec<AtomicUsize> = (0..members).map(|_| AtomicUsize::new(0)).collect();
            crew.run(&mut fine(), &|member| {
                for round in 1..500 {
                    cells[member.index].store(round, Ordering::Relaxed);
                    member.meet()?;
                    assert!(cells.iter().all(|cell| cell.load(Ordering::Relaxed) == round));
                    member.meet()?;
                }
                Ok(())
            })
            .unwrap();
        }
    }

    #[test]
    fn one_that_leaves_or_panics_stops_the_others() {
        let mut team = Team::new(Arc::default());
        for leaver in 0..3 {
            for panics in [false, true] {
                let mut crew = Crew::of(&mut team, 3);
                let work = |member: &mut Member| {
                    for round in 0.. {
                        if round == 7 && member.index == leaver {
                            if panics {
                                std::panic::resume_unwind(Box::new("of a member"));
                            }
                            return Err(Error::internal("left"));
                        }
                        member.meet()?;
                        member.ask()?;
                    }
                    Ok(())
                };
                let result = catch_unwind(AssertUnwindSafe(|| crew.run(&mut fine(), &work)));
                match result {
                    Ok(result) => {
                        let text = result.unwrap_err().to_string();
                        assert!(text.ends_with(if panics { "panicked" } else { "left" }), "{text}");
                    }
                    Err(_) => assert!(panics && leaver == 0),
                }
            }
        }
        Crew::of(&mut team, 3).run(&mut fine(), &|member| member.meet()).unwrap();
    }

    #[test]
    fn the_caller_is_asked_on_its_own_thread_and_helpers_hear_its_no() {
        let mut team = Team::new(Arc::default());
        let caller = std::thread::current().id();
        let mut asked = 0;
        let mut third = || {
            assert_eq!(std::thread::current().id(), caller);
            asked += 1;
            if asked == 3 { Err(Error::Interrupted) } else { Ok(()) }
        };
        let result = Crew::of(&mut team, 2).run(&mut third, &|member| {
            loop {
                member.ask()?;
            }
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        assert_eq!(asked, 3);
    }

    #[test]
    fn sleepers_wake_up() {
        let mut team = Team::new(Arc::default());
        for _ in 0..3 {
            std::thread::sleep(2 * AWAKE);
            Crew::of(&mut team, 2)
                .run(&mut fine(), &|member| {
                    if member.index == 0 {
                        std::thread::sleep(3 * AWAKE);
                    }
                    member.meet()
                })
                .unwrap();
        }
    }
}
