//! When the system cannot start a thread, the calling thread does its work. The test has a process
//! of its own, because a limit of address space applies to the whole process.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use gte_engine::{Embedding, Encoder, Options};
use support::{TempDir, TinyModel, go, tiers, words};

/// A number of bytes from /proc/self/status.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Leaves this number of bytes of address space, or removes the limit.
fn limit(bytes: Option<usize>) {
    // SAFETY: both calls get a pointer to a live limit of the right type.
    unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &mut limit), 0);
        limit.rlim_cur = match bytes {
            Some(bytes) => (status("VmSize") * 1024 + bytes) as libc::rlim_t,
            None => limit.rlim_max,
        };
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
    }
}

#[test]
fn a_thread_that_cannot_be_started_is_replaced_by_the_calling_thread() {
    let dir = TempDir::with(&TinyModel { layers: 2, ..TinyModel::default() });
    let short: Vec<String> = (0..12).map(|i| words(5 + i)).collect();
    let texts = [vec![words(100)], short];
    let embed = |encoder: &Encoder| -> Vec<Vec<Embedding>> {
        let embed = |texts: &Vec<String>| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            encoder.embed_batch(&texts, &mut go).unwrap()
        };
        texts.iter().map(embed).collect()
    };
    // No encoder is dropped before the end: the C library keeps the stacks of threads that have
    // ended.
    let mut encoders = Vec::new();
    for tier in tiers(dir.path()) {
        let options = Options { kernels: Some(tier.clone()), threads: 1, precision: None };
        let encoder = Encoder::load_with(dir.path(), &options).unwrap();
        let wanted = embed(&encoder);
        let before = status("Threads");
        encoder.set_threads(4);
        // A helper has a stack of 2 MB. The first limit has space for no helper, the second for one
        // and the buffers.
        for (room, most) in [(1 << 20, 0), (31 << 17, 1)] {
            limit(Some(room));
            let found = embed(&encoder);
            let helpers = status("Threads") - before;
            limit(None);
            assert!(found == wanted, "{tier}, {helpers} helpers");
            assert!(helpers <= most, "{tier}: {helpers} helpers in {room} bytes");
            println!("{tier}: {helpers} helpers in {room} bytes");
        }
        // Helpers start as soon as there is space.
        assert!(embed(&encoder) == wanted, "{tier}");
        assert_eq!(status("Threads") - before, 3, "{tier}");
        encoders.push(encoder);
    }
}
