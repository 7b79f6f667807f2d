//! The per-backend embedder: a lazily loaded model, its memo and its counters.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use gte_engine::{Embedding, Encoder};
use pgrx::PgSqlErrorCode;

use crate::errors::{self, Outcome};
use crate::memo::Memo;
use crate::settings::{self, OnTruncate};

/// What this backend has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Texts asked for.
    pub calls: u64,
    /// Of them, answered from the memo.
    pub memo_hits: u64,
    /// Forward passes.
    pub model_runs: u64,
    /// Texts the model ran on.
    pub texts: u64,
    /// Their tokens, specials included.
    pub tokens: u64,
    /// Of them, texts with more tokens than the model reads.
    pub truncated_texts: u64,
    /// Time in the model, tokenizing included.
    pub model_seconds: f64,
}

/// A model and what belongs to it alone.
struct Loaded {
    dir: PathBuf,
    encoder: Rc<Encoder>,
    memo: Memo,
}

thread_local! {
    // A backend is one thread; nothing here is ever touched from another.
    static LOADED: RefCell<Option<Loaded>> = const { RefCell::new(None) };
    static COUNTERS: RefCell<Counters> = RefCell::new(Counters::default());
}

/// The model that `gte_small.model_path` names, loaded at the first call and again when the
/// setting changes. A failed load leaves nothing behind, so that the next call tries again.
pub fn encoder() -> Outcome<Rc<Encoder>> {
    let dir = settings::model_dir();
    if let Some(encoder) = LOADED.with_borrow(|loaded| {
        loaded.as_ref().filter(|loaded| loaded.dir == dir).map(|loaded| loaded.encoder.clone())
    }) {
        return Ok(encoder);
    }
    if !dir.is_absolute() {
        return Err(errors::error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "gte_small.model_path is not an absolute path",
            "The model was not loaded.",
            "Set gte_small.model_path to the full path of a model directory.",
        ));
    }
    // The old model goes first, so that two are never in memory together.
    LOADED.with_borrow_mut(|loaded| *loaded = None);
    let encoder = Rc::new(Encoder::load(&dir).map_err(|e| errors::from_engine(&e))?);
    LOADED.with_borrow_mut(|loaded| {
        *loaded = Some(Loaded { dir, encoder: encoder.clone(), memo: Memo::new() });
    });
    Ok(encoder)
}

/// What this backend has done so far.
pub fn counters() -> Counters {
    COUNTERS.with_borrow(|counters| *counters)
}

/// Embeds one text; `gte_small.on_truncate` is applied.
pub fn embed_one(text: &str) -> Outcome<Rc<Embedding>> {
    let mut embeddings = embed_many(&[text])?;
    embeddings.pop().ok_or_else(|| errors::internal("no embedding came back"))
}

/// Embeds texts in the order given. Each different text runs once, and one the memo knows not at
/// all. Cancelling the statement ends the call between two forward passes.
pub fn embed_many(texts: &[&str]) -> Outcome<Vec<Rc<Embedding>>> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let encoder = encoder()?;
    let size = settings::memo_size();
    let mut known: HashMap<&str, Rc<Embedding>> = HashMap::new();
    let mut missing: Vec<&str> = Vec::new();
    let mut hits = 0;
    with_memo(|memo| {
        memo.shrink_to(size);
        let mut seen = std::collections::HashSet::new();
        for &text in texts {
            match memo.get(text) {
                Some(embedding) => {
                    hits += 1;
                    known.insert(text, embedding);
                }
                None if seen.insert(text) => missing.push(text),
                None => {}
            }
        }
    });
    COUNTERS.with_borrow_mut(|counters| {
        counters.calls += texts.len() as u64;
        counters.memo_hits += hits;
    });
    if !missing.is_empty() {
        if settings::on_truncate() == OnTruncate::Error {
            refuse_truncated(&encoder, &missing)?;
        }
        let fresh = run(&encoder, &missing)?;
        with_memo(|memo| {
            for (&text, embedding) in missing.iter().zip(fresh) {
                let embedding = Rc::new(embedding);
                memo.put(text, embedding.clone(), size);
                known.insert(text, embedding);
            }
        });
    }
    let embeddings: Vec<Rc<Embedding>> =
        texts.iter().filter_map(|text| known.get(text).cloned()).collect();
    let truncated = embeddings.iter().filter(|embedding| embedding.truncated).count();
    errors::apply_on_truncate(truncated, texts.len(), encoder.info().max_tokens)?;
    Ok(embeddings)
}

/// Refuses texts that are too long before the model runs on the others: tokenizing twice costs 4 %
/// of a run, and a run for nothing costs all of it.
fn refuse_truncated(encoder: &Encoder, texts: &[&str]) -> Outcome<()> {
    let mut truncated = 0;
    for text in texts {
        pgrx::check_for_interrupts!();
        let tokens = encoder.token_ids(text).map_err(|e| errors::from_engine(&e))?;
        truncated += usize::from(tokens.truncated);
    }
    errors::apply_on_truncate(truncated, texts.len(), encoder.info().max_tokens)
}

fn with_memo<T>(action: impl FnOnce(&mut Memo) -> T) -> Option<T> {
    LOADED.with_borrow_mut(|loaded| loaded.as_mut().map(|loaded| action(&mut loaded.memo)))
}

/// Runs the model and counts. The callback is asked on this thread, before each forward pass; an
/// interrupt unwinds from there through the engine and ends in Postgres's own error.
fn run(encoder: &Encoder, texts: &[&str]) -> Outcome<Vec<Embedding>> {
    let started = Instant::now();
    let mut runs = 0;
    let result = encoder.embed_batch(texts, &mut || {
        pgrx::check_for_interrupts!();
        runs += 1;
        ControlFlow::Continue(())
    });
    COUNTERS.with_borrow_mut(|counters| {
        counters.model_runs += runs;
        counters.model_seconds += started.elapsed().as_secs_f64();
        if let Ok(embeddings) = &result {
            counters.texts += embeddings.len() as u64;
            counters.tokens += embeddings.iter().map(|e| e.tokens as u64).sum::<u64>();
            counters.truncated_texts += embeddings.iter().filter(|e| e.truncated).count() as u64;
        }
    });
    result.map_err(|e| errors::from_engine(&e))
}
