//! The buffers of a large call are freed after it. The test has a process of its own, and it runs
//! one case after the other, because it measures the memory of the process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use gte_engine::{Encoder, Options};
use support::{TempDir, TinyModel, go, tiers};

/// Tokens of a long text, the most that a model may have. The buffers of its pass take 16 MB with
/// AMX and 32 MB without. More than `KEPT_BYTES` of `pass.rs` and `layers.rs` are not kept.
const LONG: usize = 2048;

/// Less than the buffers of the pass. Only the small buffers of each thread are kept.
const MOST: usize = 8 << 20;

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Peak of the resident memory since the last call.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    // If the system does not permit the reset, the peak is that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn buffers_of_a_large_call_are_given_back() {
    let model =
        TinyModel { positions: LONG, max_tokens: None, intermediate: 1536, ..TinyModel::default() };
    let dir = TempDir::with(&model);
    let long: Vec<u32> = (0..LONG).map(|i| 5 + (i * 7 % 90) as u32).collect();
    for tier in tiers(dir.path()) {
        for threads in [1, 3] {
            let options = Options { kernels: Some(tier.clone()), threads, precision: None };
            let encoder = Encoder::load_with(dir.path(), &options).unwrap();
            // This call starts the helpers and allocates the small buffers.
            encoder.embed_ids(&[&long[..200]], &mut go).unwrap();
            let before = resident();
            peak();
            for _ in 0..2 {
                encoder.embed_ids(&[&long], &mut go).unwrap();
            }
            let (grown, most) = (resident().saturating_sub(before), peak().saturating_sub(before));
            println!("{tier}, {threads} threads: {} of {} MB kept", grown >> 20, most >> 20);
            assert!(most > MOST + (MOST >> 2), "{tier}: only {} MB in use", most >> 20);
            assert!(grown <= MOST, "{tier}, {threads} threads: {} MB", grown >> 20);
        }
    }
}
