//! Writes a model directory with random weights, for tests that need no real vectors.
//!
//! `cargo run --profile fast -p gte-engine --example tiny-model -- DIR [--seed N] [--f16]
//! [--bert-prefix] [--pooler] [--position-ids] [--max-tokens N] [--like-gte-small]`

use std::path::PathBuf;
use std::process::ExitCode;

#[path = "../tests/support/tiny_model.rs"]
mod tiny_model;

use tiny_model::TinyModel;

const USAGE: &str = "usage: tiny-model DIR [--seed N] [--f16] [--bert-prefix] [--pooler] [--position-ids] [--max-tokens N] [--like-gte-small]";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let mut dir = None;
    let mut model = TinyModel::default();
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or(format!("{argument} needs a number\n{USAGE}"))?;
            value
                .parse::<u64>()
                .map_err(|_| format!("{argument} needs a number, not \"{value}\"\n{USAGE}"))
        };
        match argument.as_str() {
            "--seed" => model.seed = number()?,
            "--max-tokens" => model.max_tokens = Some(number()? as usize),
            "--like-gte-small" => {
                let TinyModel { layers, intermediate, words, .. } = TinyModel::like_gte_small();
                model = TinyModel { layers, intermediate, words, ..model };
            }
            "--f16" => model.f16 = true,
            "--bert-prefix" => model.bert_prefix = true,
            "--pooler" => model.pooler = true,
            "--position-ids" => model.position_ids = true,
            _ if argument.starts_with('-') || dir.is_some() => {
                return Err(format!("unknown argument \"{argument}\"\n{USAGE}"));
            }
            _ => dir = Some(PathBuf::from(argument)),
        }
    }
    let dir = dir.ok_or(USAGE)?;
    if model.max_tokens.is_some_and(|limit| !(3..=model.positions).contains(&limit)) {
        return Err(format!("--max-tokens must be from 3 to {}", model.positions));
    }
    model.write(&dir).map_err(|error| format!("could not write {}: {error}", dir.display()))
}
