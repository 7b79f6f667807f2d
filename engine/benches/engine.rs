//! `make bench`: the engine without PostgreSQL, on random weights of gte-small's shape.
//!
//! Measures every tier of this CPU with one and two threads, by length and in batches. The input is
//! token ids. Tokenizing is measured in a group of its own.

#![allow(missing_docs)] // criterion's macros make public items without docs
#![allow(clippy::expect_used, clippy::panic)] // without a model there is nothing to measure

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gte_engine::{Encoder, Error, Options};

#[path = "../tests/support/tiny_model.rs"]
mod tiny_model;

use tiny_model::TinyModel;

const TIERS: [&str; 5] = ["amx-bf16", "avx512-bf16", "avx512-f32", "avx2-f32", "portable-f32"];
const LENGTHS: [usize; 5] = [12, 32, 128, 256, 512];
/// Number of texts of a batch, and the length of each.
const BATCHES: [(usize, usize); 3] = [(8, 12), (64, 12), (16, 60)];

/// A model directory, which is removed when it is dropped.
struct Model(PathBuf);

impl Model {
    fn make() -> Model {
        let name = format!("bench-{}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        TinyModel::like_gte_small().write(&dir).expect("a written model");
        Model(dir)
    }

    /// `None` for kernels that this CPU can't run.
    fn load(&self, kernels: &str) -> Option<Encoder> {
        let options = Options { kernels: Some(kernels.into()), ..Options::default() };
        match Encoder::load_with(&self.0, &options) {
            Ok(encoder) => Some(encoder),
            Err(Error::NoKernels { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // A directory that stays in the target directory does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn go() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Ids that are spread over the word embeddings, as in real texts.
fn ids(texts: usize, length: usize) -> Vec<Vec<u32>> {
    let id = |n: usize| 1000 + (n * 7919 % 29_000) as u32;
    (0..texts).map(|text| (0..length).map(|i| id(text * length + i)).collect()).collect()
}

fn forward(criterion: &mut Criterion) {
    let model = Model::make();
    for tier in TIERS {
        let Some(encoder) = model.load(tier) else {
            println!("{tier}: this CPU does not have it");
            continue;
        };
        for threads in [1, 2] {
            encoder.set_threads(threads);
            let mut group = criterion.benchmark_group(format!("{tier}/{threads} threads"));
            group.sample_size(10);
            group.warm_up_time(Duration::from_millis(300));
            group.measurement_time(Duration::from_secs(2));
            let single = LENGTHS.map(|length| (1, length));
            for (texts, length) in single.into_iter().chain(BATCHES) {
                let ids = ids(texts, length);
                let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
                let name = if texts == 1 { "length" } else { "batch" };
                let size =
                    if texts == 1 { length.to_string() } else { format!("{texts}x{length}") };
                group.throughput(Throughput::Elements((texts * length) as u64));
                group.bench_function(BenchmarkId::new(name, size), |bencher| {
                    bencher.iter(|| encoder.embed_ids(black_box(&ids), &mut go).expect("vectors"));
                });
            }
        }
    }
}

fn tokenizing(criterion: &mut Criterion) {
    let model = Model::make();
    let encoder = model.load("portable-f32").expect("the tier every CPU has");
    let mut group = criterion.benchmark_group("tokenizing");
    group.sample_size(20);
    group.warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1));
    // Of a million words the model reads at most 510.
    for words in [10, 126, 510, 1_000_000] {
        let text = "the blue stone and a dog sat on the red mat ".repeat(words / 11 + 1);
        let end = text.match_indices(' ').nth(words - 1).expect("as many words").0;
        group.bench_function(BenchmarkId::new("words", words), |bencher| {
            bencher.iter(|| encoder.token_ids(black_box(&text[..end])).expect("ids"));
        });
    }
}

criterion_group!(benches, forward, tokenizing);
criterion_main!(benches);
