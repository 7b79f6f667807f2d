//! The self-test starts one thread, which blocks all signals and ends with it. The test has a
//! process of its own, because it sets variables of the environment and counts threads.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gte_engine::oracle::{OneThread, use_one_thread};
use gte_engine::{Encoder, Error, Options, selftest};
use support::{TempDir, TinyModel, go};

/// Signals that a thread can't block: SIGKILL, SIGSTOP and two of the C library.
const NEVER_BLOCKED: [u32; 4] = [9, 19, 32, 33];

fn tasks() -> BTreeSet<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| task.unwrap().file_name().into_string().unwrap()).collect()
}

/// Signals that a thread blocks; `None` if it has ended.
fn blocked(task: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/self/task/{task}/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"))?;
    u64::from_str_radix(mask, 16).ok()
}

/// The threads besides those of `before`, each with a check that it blocks every signal.
fn new_tasks(before: &BTreeSet<String>) -> usize {
    let new: Vec<String> = tasks().difference(before).cloned().collect();
    for mask in new.iter().filter_map(|task| blocked(task)) {
        for signal in (1..=64).filter(|signal| !NEVER_BLOCKED.contains(signal)) {
            assert!(mask >> (signal - 1) & 1 == 1, "signal {signal} is not blocked");
        }
    }
    new.len()
}

/// Waits for the system to remove a thread that was joined.
fn assert_no_new_task(before: &BTreeSet<String>, when: &str) {
    for _ in 0..1000 {
        if new_tasks(before) == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("{} threads are left {when}", new_tasks(before));
}

#[test]
fn one_thread_without_signals_that_ends_with_the_call() {
    let before = tasks();
    for name in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
        // SAFETY: the only other thread waits for this test.
        unsafe { std::env::set_var(name, "4") };
    }
    // SAFETY: as above.
    let one_thread = unsafe { use_one_thread() }.unwrap();
    assert_eq!(std::env::var("CANDLE_NUM_THREADS").unwrap(), "4");
    assert!(std::env::var("CANDLE_CPU_MASK").is_err());

    // Long enough for some polls while candle runs, and with operations that candle would divide.
    let dir = TempDir::with(&TinyModel { layers: 3, intermediate: 1536, ..TinyModel::default() });
    // An encoder with one thread has no helpers, so each new thread is candle's.
    let options = Options { threads: 1, ..Options::default() };
    let encoder = Encoder::load_with(dir.path(), &options).unwrap();
    let first = selftest(&encoder, one_thread, &mut go).unwrap();
    assert_no_new_task(&before, "after the first call");

    let (mut polls, mut most) = (0, 0);
    let second = selftest(&encoder, one_thread, &mut || {
        let new = new_tasks(&before);
        (polls, most) = (polls + usize::from(new > 0), most.max(new));
        go()
    });
    assert_no_new_task(&before, "after a call");
    assert_eq!(second.unwrap(), first);
    assert_eq!(most, 1, "threads of candle");
    assert!(polls > 2, "{polls} polls while candle ran");

    let stopped = selftest(&encoder, one_thread, &mut || match new_tasks(&before) {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    assert_no_new_task(&before, "after a stop");

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        selftest(&encoder, one_thread, &mut || {
            assert_eq!(new_tasks(&before), 0, "the panic of this test");
            go()
        })
    }));
    assert!(panicked.is_err());
    assert_no_new_task(&before, "after a panic");
    assert_eq!(selftest(&encoder, one_thread, &mut go).unwrap(), first);

    let small = support::load(&TinyModel::default());
    little_memory(&small, one_thread);
    assert_no_new_task(&before, "after calls with little memory");
}

/// With too little address space the self-test is refused. It never ends the process, as candle
/// does when it gets no memory.
fn little_memory(encoder: &Encoder, one_thread: OneThread) {
    let (mut refused, mut done) = (0, 0);
    for megabytes in (0..160).step_by(8) {
        limit(Some(megabytes << 20));
        let result = selftest(encoder, one_thread, &mut go);
        limit(None);
        match result {
            Ok(_) => done += 1,
            Err(Error::OutOfMemory { .. } | Error::NoThread { .. }) => refused += 1,
            Err(error) => panic!("{megabytes} MB: {error}"),
        }
    }
    println!("{refused} refused, {done} done");
    assert!(refused > 3 && done > 3, "{refused} refused, {done} done");
}

/// Leaves this number of bytes of address space, or removes the limit.
fn limit(bytes: Option<usize>) {
    // SAFETY: both calls get a pointer to a live limit of the right type.
    unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &mut limit), 0);
        limit.rlim_cur = match bytes {
            Some(bytes) => {
                let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
                let pages: usize = pages.split(' ').next().unwrap().parse().unwrap();
                (pages * 4096 + bytes) as libc::rlim_t
            }
            None => limit.rlim_max,
        };
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
    }
}
