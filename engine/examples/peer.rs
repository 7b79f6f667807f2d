//! One peer of `make bench-peers`: this engine, or stock candle, on token ids.
//!
//! `peer gte-small DIR PRECISION [KERNELS]` or `peer candle DIR`. Candle takes its number of
//! threads from RAYON_NUM_THREADS. The first line of output describes the model. Then each line of
//! input, in JSON, gets one line of output:
//!
//! - `{"ids": "W1", "texts": [[101, 2023, 102]]}` stores token ids under a name → `{}`
//! - `{"run": "W1", "threads": 1, "group": 8, "times": 3}` → `{"ms": [5.1, 5.0, 5.0]}`. Candle runs
//!   `group` texts in one padded pass. The engine ignores `group` and divides a batch itself.
//! - `{"strings": "rows", "texts": ["a", "b"]}` stores texts under a name → `{}`. The engine
//!   tokenizes and embeds them, one in each call: `{"run": "rows", "threads": 1, "times": 1}`, or
//!   with `"batch": true` all in one call.
//! - `{"vectors": "W1"}` → `{"vectors": [[0.1, …]]}`, in the order of the texts

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use gte_engine::oracle::StockBert;
use gte_engine::{DIMS, Encoder, Options, Precision};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: peer gte-small DIR f32|bf16 [KERNELS] | peer candle DIR";

enum Model {
    Engine(Box<Encoder>),
    Candle(Box<StockBert>),
}

impl Model {
    fn load(arguments: &[&str]) -> Outcome<(Model, Value)> {
        match *arguments {
            ["candle", dir] => {
                let about = json!({ "kernels": "stock" });
                Ok((Model::Candle(Box::new(StockBert::load(Path::new(dir))?)), about))
            }
            ["gte-small", dir, precision, ref kernels @ ..] if kernels.len() < 2 => {
                let precision = match precision {
                    "f32" => Precision::F32,
                    "bf16" => Precision::Bf16,
                    _ => return Err(USAGE.into()),
                };
                let options = Options {
                    precision: Some(precision),
                    threads: 1,
                    kernels: kernels.first().map(|&name| name.to_owned()),
                };
                let encoder = Encoder::load_with(Path::new(dir), &options)?;
                let info = encoder.info();
                let about = json!({
                    "kernels": info.kernels,
                    "precision": info.precision.name(),
                    "weights_sha256": encoder.identity().map(|i| i.weights_sha256.clone()).unwrap_or_default(),
                });
                Ok((Model::Engine(Box::new(encoder)), about))
            }
            _ => Err(USAGE.into()),
        }
    }

    /// The vectors of the texts. Candle runs `group` texts at a time, in their order.
    fn embed(&self, texts: &[&[u32]], group: usize) -> Outcome<Vec<[f32; DIMS]>> {
        Ok(match self {
            Model::Engine(encoder) => encoder
                .embed_ids(texts, &mut || ControlFlow::Continue(()))?
                .into_iter()
                .map(|embedding| embedding.values)
                .collect(),
            Model::Candle(bert) => {
                let mut vectors = Vec::with_capacity(texts.len());
                for texts in texts.chunks(group) {
                    vectors.append(&mut bert.embed_batch(texts)?);
                }
                vectors
            }
        })
    }
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (model, about) = Model::load(&arguments)?;
    let (mut workloads, mut strings) = (HashMap::new(), HashMap::new());
    let mut out = std::io::stdout().lock();
    writeln!(out, "{about}")?;
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&model, &serde_json::from_str(&line?)?, &mut workloads, &mut strings)?;
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

fn answer(
    model: &Model,
    question: &Value,
    workloads: &mut HashMap<String, Vec<Vec<u32>>>,
    strings: &mut HashMap<String, Vec<String>>,
) -> Outcome<Value> {
    if let Some(name) = question["strings"].as_str() {
        strings.insert(name.to_owned(), serde_json::from_value(question["texts"].clone())?);
        return Ok(json!({}));
    }
    if let Some(name) = question["ids"].as_str() {
        let texts = serde_json::from_value(question["texts"].clone())?;
        workloads.insert(name.to_owned(), texts);
        return Ok(json!({}));
    }
    let name = question["run"].as_str().or(question["vectors"].as_str()).ok_or("no command")?;
    if let (Some(texts), Model::Engine(encoder)) = (strings.get(name), model) {
        return run_strings(encoder, texts, question);
    }
    let texts = workloads.get(name).ok_or("no such workload")?;
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    if question["run"].is_null() {
        let vectors: Vec<Vec<f32>> =
            model.embed(&texts, 1)?.iter().map(|vector| vector.to_vec()).collect();
        return Ok(json!({ "vectors": vectors }));
    }
    let number = |name: &str| question[name].as_u64().ok_or("a number is missing");
    if let Model::Engine(encoder) = model {
        encoder.set_threads(number("threads")? as usize);
    }
    let group = number("group")? as usize;
    // The texts are sorted before the time starts, as for ONNX Runtime. The engine sorts again.
    let mut sorted = texts;
    sorted.sort_by_key(|ids| ids.len());
    let mut times = Vec::new();
    for _ in 0..number("times")? {
        let began = Instant::now();
        let vectors = model.embed(&sorted, group)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        std::hint::black_box(vectors);
    }
    Ok(json!({ "ms": times }))
}

/// Runs the texts and returns the time of each run in milliseconds.
fn run_strings(encoder: &Encoder, texts: &[String], question: &Value) -> Outcome<Value> {
    encoder.set_threads(question["threads"].as_u64().ok_or("no threads")? as usize);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = question["batch"].as_bool().unwrap_or(false);
    let mut go_on = || ControlFlow::Continue(());
    let mut times = Vec::new();
    for _ in 0..question["times"].as_u64().ok_or("no times")? {
        let began = Instant::now();
        if together {
            std::hint::black_box(encoder.embed_batch(&texts, &mut go_on)?);
        } else {
            for text in &texts {
                std::hint::black_box(encoder.embed(text, &mut go_on)?);
            }
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(json!({ "ms": times }))
}
