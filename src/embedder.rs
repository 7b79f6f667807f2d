//! The per-backend embedder: a lazily loaded model, its memo and its counters.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use gte_engine::{Embedding, Encoder, Options, Precision};
use once_cell::unsync::OnceCell;
use pgrx::{PgLogLevel, PgSqlErrorCode};

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

/// What has to change for another model to be loaded.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    dir: PathBuf,
    precision: Option<Precision>,
    kernels: Option<String>,
}

/// The place of a model: empty until the first text, and again empty after a load that failed, so
/// that the next call tries again.
struct Slot {
    key: Key,
    /// Whether the postmaster loaded it, so that this backend shares its pages with all others.
    preloaded: bool,
    encoder: OnceCell<Encoder>,
    memo: RefCell<Memo>,
}

thread_local! {
    // A backend is one thread; nothing here is ever touched from another.
    // The model is never dropped at exit: freeing its 60,000 strings takes 19 ms, for which the
    // client waits, and with preloading it would first copy the pages they are in.
    static SLOT: RefCell<ManuallyDrop<Option<Rc<Slot>>>> =
        const { RefCell::new(ManuallyDrop::new(None)) };
    static COUNTERS: RefCell<Counters> = RefCell::new(Counters::default());
}

/// The model the settings name, loaded.
#[derive(Clone)]
pub struct Model(Rc<Slot>);

impl Key {
    fn current() -> Key {
        Key {
            dir: settings::model_dir(),
            precision: settings::precision(),
            kernels: settings::kernels(),
        }
    }
}

impl Slot {
    fn new(key: Key, preloaded: bool) -> Rc<Slot> {
        let (encoder, memo) = (OnceCell::new(), RefCell::new(Memo::new()));
        Rc::new(Slot { key, preloaded, encoder, memo })
    }

    /// The model, loaded now if it was not yet. Starts no thread.
    fn load(&self) -> Result<&Encoder, gte_engine::Error> {
        self.encoder.get_or_try_init(|| {
            let options = Options {
                precision: self.key.precision,
                threads: settings::threads(),
                kernels: self.key.kernels.clone(),
            };
            Encoder::load_with(&self.key.dir, &options)
        })
    }

    /// Whether the files were overwritten in place since.
    fn has_changed(&self) -> bool {
        self.encoder.get().is_some_and(Encoder::has_changed)
    }
}

/// Loads the model in the postmaster, for every backend to come. A missing or broken model never
/// stops the server: the log says so, and each backend tries again by itself.
pub fn preload() {
    let slot = Slot::new(Key::current(), true);
    if !slot.key.dir.is_absolute() {
        pgrx::log!("gte-small: gte_small.model_path is not an absolute path; no model was loaded");
        return;
    }
    // The hash of the weights once for all sessions, not once for each that asks.
    let loaded = slot.load().and_then(|encoder| Ok((encoder.info(), encoder.identity()?)));
    match loaded {
        Ok((info, identity)) => {
            let seconds = info.load_time.as_secs_f64();
            pgrx::log!("gte-small: loaded {} ({}) in {seconds:.2} s", identity.name, info.kernels);
            // Counted once more than it is used, so that a session that takes another model does
            // not free this one, page by copied page.
            std::mem::forget(slot.clone());
            SLOT.with_borrow_mut(|current| **current = Some(slot));
        }
        // No catalogue can be read here, so this is not one of the surface's own errors.
        Err(error) => pgrx::log!(
            "gte-small: {error}, in \"{}\"; sessions will look for the model when they need it",
            slot.key.dir.display()
        ),
    }
}

impl Model {
    /// Loads at the first call, and again when a setting that makes another model of it changes.
    pub fn current() -> Outcome<Model> {
        let key = Key::current();
        if !key.dir.is_absolute() {
            return Err(errors::error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "gte_small.model_path is not an absolute path",
                "The model was not loaded.",
                "Set gte_small.model_path to the full path of a model directory.",
            ));
        }
        let slot = SLOT.with_borrow_mut(|current| match &mut **current {
            Some(slot) if slot.key == key && !slot.has_changed() => slot.clone(),
            current => {
                // The old model goes first, so that two are never in memory together.
                *current = None;
                current.insert(Slot::new(key, false)).clone()
            }
        });
        slot.load().map_err(|e| errors::from_engine(&e))?.set_threads(settings::threads());
        Ok(Model(slot))
    }

    /// Whether the postmaster loaded it.
    pub fn is_preloaded(&self) -> bool {
        self.0.preloaded
    }

    /// The engine.
    pub fn encoder(&self) -> Outcome<&Encoder> {
        self.0.encoder.get().ok_or_else(|| errors::internal("the model is not loaded"))
    }

    fn memo<T>(&self, action: impl FnOnce(&mut Memo) -> T) -> T {
        action(&mut self.0.memo.borrow_mut())
    }
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
    let model = Model::current()?;
    let encoder = model.encoder()?;
    let size = settings::memo_size();
    let mut known: HashMap<Asked, Rc<Embedding>> = HashMap::new();
    let mut missing: Vec<&str> = Vec::new();
    let mut hits = 0;
    model.memo(|memo| {
        memo.shrink_to(size);
        let mut seen = std::collections::HashSet::new();
        for &text in texts {
            match memo.get(text) {
                Some(embedding) => {
                    hits += 1;
                    known.insert(Asked(text), embedding);
                }
                None if seen.insert(Asked(text)) => missing.push(text),
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
            refuse_truncated(encoder, &missing, texts.len())?;
        }
        let fresh = run(encoder, &missing)?;
        model.memo(|memo| {
            for (&text, embedding) in missing.iter().zip(fresh) {
                let embedding = Rc::new(embedding);
                memo.put(text, embedding.clone(), size);
                known.insert(Asked(text), embedding);
            }
        });
    }
    let embeddings: Vec<Rc<Embedding>> =
        texts.iter().filter_map(|&text| known.get(&Asked(text)).cloned()).collect();
    let truncated = texts.iter().zip(&embeddings).filter(|(_, e)| e.truncated).map(|(&t, _)| t);
    apply_on_truncate(encoder, truncated, texts.len())?;
    Ok(embeddings)
}

/// A text of the call at hand. Equal texts are one, but a text that is too large for the memo is
/// only itself: hashing 100 MB four times takes a quarter of a second, in which nothing is asked.
#[derive(Clone, Copy)]
struct Asked<'t>(&'t str);

impl Asked<'_> {
    fn content(&self) -> Option<&str> {
        Memo::remembers(self.0).then_some(self.0)
    }
}

impl PartialEq for Asked<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.content(), other.content()) {
            (Some(one), Some(other)) => one == other,
            (None, None) => std::ptr::eq(self.0, other.0),
            _ => false,
        }
    }
}

impl Eq for Asked<'_> {}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.content() {
            Some(text) => text.hash(state),
            None => self.0.as_ptr().hash(state),
        }
    }
}

/// Refuses texts that are too long before the model runs on the others: tokenizing twice costs 4 %
/// of a run, and a run for nothing costs all of it.
fn refuse_truncated(encoder: &Encoder, texts: &[&str], of: usize) -> Outcome<()> {
    let mut truncated = Vec::new();
    for &text in texts {
        let tokens = encoder.token_ids_interruptible(text, &mut go_on);
        if tokens.map_err(|e| errors::from_engine(&e))?.truncated {
            truncated.push(text);
        }
    }
    apply_on_truncate(encoder, truncated.into_iter(), of)
}

/// Applies `gte_small.on_truncate` to the texts of a call that are too long. Counts their tokens,
/// for the message, only when there is one.
fn apply_on_truncate<'t>(
    encoder: &Encoder,
    truncated: impl Iterator<Item = &'t str>,
    of: usize,
) -> Outcome<()> {
    let on_truncate = settings::on_truncate();
    if on_truncate == OnTruncate::Silent {
        return Ok(());
    }
    let max_tokens = encoder.info().max_tokens;
    let mut counted: HashMap<Asked<'_>, usize> = HashMap::new();
    let (mut texts, mut dropped) = (0, 0);
    for text in truncated {
        let tokens = match counted.get(&Asked(text)) {
            Some(&tokens) => tokens,
            None => {
                let tokens = encoder.count_tokens(text, &mut go_on);
                let tokens = tokens.map_err(|e| errors::from_engine(&e))?;
                counted.insert(Asked(text), tokens);
                tokens
            }
        };
        texts += 1;
        dropped += tokens.saturating_sub(max_tokens);
    }
    if texts == 0 {
        return Ok(());
    }
    let report = errors::truncated(texts, of, max_tokens, dropped);
    if on_truncate == OnTruncate::Error {
        return Err(report);
    }
    report.report(PgLogLevel::WARNING);
    Ok(())
}

/// The engine's callback: an interrupt unwinds from here and ends in Postgres's own error.
pub fn go_on() -> ControlFlow<()> {
    pgrx::check_for_interrupts!();
    ControlFlow::Continue(())
}

/// Runs the model and counts. The callback is asked on this thread, at least every 10 ms; an
/// interrupt unwinds from there through the engine and ends in Postgres's own error.
fn run(encoder: &Encoder, texts: &[&str]) -> Outcome<Vec<Embedding>> {
    let _count = CountOnDrop { encoder, passes: encoder.passes(), started: Instant::now() };
    let embeddings = encoder.embed_batch(texts, &mut go_on).map_err(|e| errors::from_engine(&e))?;
    COUNTERS.with_borrow_mut(|counters| {
        counters.texts += embeddings.len() as u64;
        counters.tokens += embeddings.iter().map(|e| e.tokens as u64).sum::<u64>();
        counters.truncated_texts += embeddings.iter().filter(|e| e.truncated).count() as u64;
    });
    Ok(embeddings)
}

/// Counts the forward passes and the time of a call, whichever way it ends.
struct CountOnDrop<'a> {
    encoder: &'a Encoder,
    passes: u64,
    started: Instant,
}

impl Drop for CountOnDrop<'_> {
    fn drop(&mut self) {
        COUNTERS.with_borrow_mut(|counters| {
            counters.model_runs += self.encoder.passes() - self.passes;
            counters.model_seconds += self.started.elapsed().as_secs_f64();
        });
    }
}
