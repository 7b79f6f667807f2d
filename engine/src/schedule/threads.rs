//! The number of threads of a call, and the helpers of an encoder.
//!
//! The calling thread is the first thread of a call. Helpers are needed only for more than one
//! thread. They block all signals, and none exists before the first call that needs one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use once_cell::sync::Lazy;

use super::team::{Crew, Team};

/// Most threads of the automatic rule. A text of 512 tokens has not enough work for more.
const MAX_AUTOMATIC: usize = 8;

/// Cores that this process may use. Reading the number takes 10 µs, as long as the other overhead
/// of a call.
static CORES: Lazy<usize> =
    Lazy::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// The threads of one encoder.
pub(crate) struct Threads {
    /// The number that the caller set; 0 = automatic.
    wanted: AtomicUsize,
    /// Most threads of a call, whatever number is wanted.
    limit: AtomicUsize,
    /// Helpers that spin for the next call. The automatic number of threads does not count them as
    /// other tasks.
    spinning: Arc<AtomicUsize>,
    team: Mutex<Team>,
}

impl Threads {
    pub fn new(wanted: usize) -> Threads {
        let spinning = Arc::new(AtomicUsize::new(0));
        let team = Mutex::new(Team::new(spinning.clone()));
        let limit = AtomicUsize::new(usize::MAX);
        Threads { wanted: AtomicUsize::new(wanted), limit, spinning, team }
    }

    /// Sets the number of threads of later calls. Helpers that these do not need end, unless a call
    /// uses them now.
    pub fn set(&self, wanted: usize) {
        self.wanted.store(wanted, Ordering::Relaxed);
        self.end_surplus();
    }

    /// Limits later calls to the cores, and to `most` threads unless it is 0. Helpers as in
    /// [`Threads::set`].
    pub fn limit(&self, most: usize) {
        let limit = if most == 0 { *CORES } else { most.min(*CORES) };
        self.limit.store(limit, Ordering::Relaxed);
        self.end_surplus();
    }

    /// Ends the helpers that no later call needs.
    fn end_surplus(&self) {
        let most = match self.wanted.load(Ordering::Relaxed) {
            0 => MAX_AUTOMATIC.min(*CORES),
            wanted => wanted,
        };
        let most = most.min(self.limit.load(Ordering::Relaxed));
        match self.team.try_lock() {
            Ok(mut team) => team.shrink(most),
            // An interrupted call unwinds, after its helpers have stopped.
            Err(TryLockError::Poisoned(team)) => team.into_inner().shrink(most),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Number of threads for a call that starts now.
    ///
    /// The automatic number is the number of cores that no other task uses at this moment, from one
    /// to eight. One session alone gets all cores. Many sessions get one thread each, which gives
    /// the most texts per second.
    pub fn for_call(&self) -> usize {
        let limit = self.limit.load(Ordering::Relaxed);
        match self.wanted.load(Ordering::Relaxed) {
            0 => {
                let spinning = self.spinning.load(Ordering::Relaxed);
                let (cores, others) = (*CORES, running_tasks().saturating_sub(1 + spinning));
                let idle = cores.saturating_sub(others);
                cores.min(MAX_AUTOMATIC).min(idle).min(limit).max(1)
            }
            wanted => wanted.min(limit),
        }
    }

    /// Gives `use_crew` a crew of `members` threads, the calling thread included. The crew is
    /// smaller if the system starts no more threads. It has only the calling thread if another call
    /// uses the helpers.
    pub fn with_crew<T>(&self, members: usize, use_crew: impl FnOnce(Crew) -> T) -> T {
        if members <= 1 {
            return use_crew(Crew::alone());
        }
        match self.team.try_lock() {
            Ok(mut team) => use_crew(Crew::of(&mut team, members)),
            Err(TryLockError::Poisoned(team)) => {
                use_crew(Crew::of(&mut team.into_inner(), members))
            }
            Err(TryLockError::WouldBlock) => use_crew(Crew::alone()),
        }
    }
}

/// Tasks of the whole system that run or wait for a core, this one included. Returns 1 if the
/// system does not have this number. Reading it takes about 10 µs.
fn running_tasks() -> usize {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|line| line.split(' ').nth(3)?.split('/').next()?.parse().ok())
        .unwrap_or(1)
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
    fn helpers_block_every_signal_and_the_caller_keeps_its_mask() {
        let before = blocked_signals();
        let masks = Mutex::new(Vec::new());
        Threads::new(2).with_crew(2, |mut crew| {
            assert_eq!(crew.members(), 2);
            crew.run(&mut || Ok(()), &|member| {
                masks.lock().unwrap().push((member.index, blocked_signals()));
                Ok(())
            })
            .unwrap();
        });
        for (index, mask) in masks.into_inner().unwrap() {
            if index == 0 {
                assert_eq!(mask, before);
                continue;
            }
            // SIGKILL (9) and SIGSTOP (19) can't be blocked. Signals 32 and 33 belong to the C
            // library.
            for signal in (1..=64).filter(|signal| ![9, 19, 32, 33].contains(signal)) {
                assert!(mask >> (signal - 1) & 1 == 1, "signal {signal} is not blocked");
            }
        }
        assert_eq!(before, blocked_signals());
    }

    #[test]
    fn a_call_beside_another_one_runs_alone() {
        let threads = Threads::new(3);
        threads.with_crew(3, |crew| {
            assert_eq!(crew.members(), 3);
            threads.with_crew(3, |crew| assert_eq!(crew.members(), 1));
        });
        threads.with_crew(2, |crew| assert_eq!(crew.members(), 2));
    }

    #[test]
    fn the_limit_is_stronger_than_the_wanted_number() {
        let threads = Threads::new(64);
        assert_eq!(threads.for_call(), 64);
        threads.limit(0);
        assert_eq!(threads.for_call(), 64.min(*CORES));
        threads.limit(1);
        assert_eq!(threads.for_call(), 1);
        threads.set(0);
        assert_eq!(threads.for_call(), 1);
        threads.limit(1000);
        threads.set(1000);
        assert_eq!(threads.for_call(), 1000.min(*CORES));
    }
}
