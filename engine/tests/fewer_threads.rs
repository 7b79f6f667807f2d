//! Helper threads end when fewer threads are wanted or allowed, and their memory comes back. The
//! test has a process of its own, because it counts the threads and measures the memory of the
//! process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gte_engine::{Encoder, Options};
use support::{TempDir, TinyModel, go, tiers, words};

fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn helpers_end_when_fewer_threads_are_wanted_or_allowed() {
    let model = TinyModel { max_tokens: None, intermediate: 1536, ..TinyModel::default() };
    let dir = TempDir::with(&model);
    let texts: Vec<String> = (0..100).map(|i| words(60 + i % 3)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for tier in tiers(dir.path()) {
        let options = Options { kernels: Some(tier.clone()), threads: 1, precision: None };
        let encoder = Encoder::load_with(dir.path(), &options).unwrap();
        let wanted = encoder.embed_batch(&texts, &mut go).unwrap();
        let (threads, memory) = (status("Threads"), status("RssAnon"));
        let embed = |count: usize, texts: &[&str]| {
            encoder.set_threads(count);
            let found = encoder.embed_batch(texts, &mut go).unwrap();
            assert!(found == wanted[..texts.len()], "{tier}, {count}");
            status("Threads") - threads
        };
        assert_eq!(embed(6, &texts), 5);
        let most = status("RssAnon") - memory;
        assert_eq!(embed(3, &texts[..9]), 2);
        assert_eq!(embed(4, &texts[..9]), 3, "helpers start again");

        // A panic, as Postgres's interrupts are, goes through a call that has the helpers.
        let mut calls = 0;
        let mut panics = || {
            calls += 1;
            if calls == 5 {
                std::panic::resume_unwind(Box::new("an interrupt"));
            }
            ControlFlow::Continue(())
        };
        let interrupted = AssertUnwindSafe(|| encoder.embed_batch(&texts, &mut panics));
        assert!(catch_unwind(interrupted).is_err());
        encoder.limit_threads(1);
        assert_eq!(status("Threads"), threads, "without another call");
        assert_eq!(embed(6, &texts[..9]), 0);
        let kept = status("RssAnon").saturating_sub(memory);
        println!("{tier}: 5 helpers took {most} kB, {kept} kB are left");
        assert!(most > 2 << 10, "{tier}: 5 helpers took {most} kB");
        // The C library keeps up to 2 MB of each thread for the next one.
        assert!(kept < most / 2, "{tier}: {kept} kB of {most} are left");
    }
}
