//! The embedder of a backend: a lazily loaded model, its memo and its counters.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use gte_engine::{Embedding, Encoder, Options, Precision, Role};
use once_cell::unsync::OnceCell;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use pgvector_compat::VectorRef;

use crate::errors::{self, Outcome};
use crate::memo::Memo;
use crate::pg::plans;
use crate::pg::user::Asker;
use crate::recent::Recent;
use crate::settings::{self, OnTruncate};
use crate::version;

/// What this backend has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Texts requested.
    pub calls: u64,
    /// Of them, texts found in the memo.
    pub memo_hits: u64,
    /// Forward passes.
    pub model_runs: u64,
    /// Texts the model ran on.
    pub texts: u64,
    /// Their tokens, special tokens and prompts included.
    pub tokens: u64,
    /// Of these tokens, those of words that the vocabulary does not have.
    pub unknown_tokens: u64,
    /// Of the texts, those with more tokens than the model reads.
    pub truncated_texts: u64,
    /// Time in the model, tokenizing included.
    pub model_seconds: f64,
}

/// The settings that select a model: when one of them changes, another model is loaded.
#[derive(Clone, Debug, PartialEq)]
struct ModelKey {
    dir: PathBuf,
    precision: Option<Precision>,
    kernels: Option<String>,
}

/// Holds one model. It is empty until the first text, and stays empty when loading fails, so that
/// the next call tries again.
struct Slot {
    key: ModelKey,
    /// Whether the postmaster loaded it; its pages are then shared by all backends.
    preloaded: bool,
    encoder: OnceCell<Encoder>,
    memo: RefCell<Memo>,
    recent: RefCell<Recent>,
}

thread_local! {
    // A backend's Postgres code runs on one thread, which alone uses these.
    // The model is never dropped at exit: freeing its 60,000 strings takes 19 ms while the client
    // waits, and with preloading it would first copy the pages that hold them.
    static SLOT: RefCell<ManuallyDrop<Option<Rc<Slot>>>> =
        const { RefCell::new(ManuallyDrop::new(None)) };
    static COUNTERS: RefCell<Counters> = RefCell::new(Counters::default());
}

/// The loaded model that the settings select.
#[derive(Clone)]
pub struct Model(Rc<Slot>);

impl ModelKey {
    fn current() -> ModelKey {
        ModelKey {
            dir: settings::model_dir(),
            precision: settings::precision(),
            kernels: settings::kernels(),
        }
    }
}

impl Slot {
    fn new(key: ModelKey, preloaded: bool) -> Rc<Slot> {
        let (memo, recent) = (RefCell::new(Memo::new()), RefCell::new(Recent::new()));
        Rc::new(Slot { key, preloaded, encoder: OnceCell::new(), memo, recent })
    }

    /// The model. Loads it if it is not loaded yet. Starts no thread.
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

    /// Whether the model's files were overwritten in place after it was loaded.
    fn has_changed(&self) -> bool {
        self.encoder.get().is_some_and(Encoder::has_changed)
    }
}

/// Loads the model in the postmaster, for all later backends. A missing or broken model does not
/// stop the server: it is logged, and each backend tries again by itself.
pub fn preload() {
    let slot = Slot::new(ModelKey::current(), true);
    if !slot.key.dir.is_absolute() {
        pgrx::log!("gte-small: gte_small.model_path is not an absolute path; no model was loaded");
        return;
    }
    // `identity` hashes the weights: here once for all sessions, instead of once per session.
    let loaded = slot.load().and_then(|encoder| Ok((encoder.info(), encoder.identity()?)));
    match loaded {
        Ok((info, identity)) => {
            let seconds = info.load_time.as_secs_f64();
            pgrx::log!("gte-small: loaded {} ({}) in {seconds:.2} s", identity.name, info.kernels);
            // The extra reference is never dropped. So a session that changes to another model does
            // not free this one, which would first copy its shared pages.
            std::mem::forget(slot.clone());
            SLOT.with_borrow_mut(|current| **current = Some(slot));
        }
        // The postmaster can't read catalogues, which `errors::from_engine` does.
        Err(error) => pgrx::log!(
            "gte-small: {error}, in \"{}\"; sessions will look for the model when they need it",
            slot.key.dir.display()
        ),
    }
}

impl Model {
    /// The model of the current settings. Loads it at the first call, and again after a change of
    /// these settings or of the model's files.
    pub fn current() -> Outcome<Model> {
        let key = ModelKey::current();
        if !key.dir.is_absolute() {
            return Err(errors::error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "gte_small.model_path is not an absolute path",
                "The model was not loaded.",
                "Set gte_small.model_path to the full path of a model directory.",
            ));
        }
        let (slot, replaced) = SLOT.with_borrow_mut(|current| match &mut **current {
            Some(slot) if slot.key == key && !slot.has_changed() => (slot.clone(), false),
            current => {
                // Drops the old model first, so that two models are never in memory together.
                let replaced = current.take().is_some();
                (current.insert(Slot::new(key, false)).clone(), replaced)
            }
        });
        // A change of the settings did so; a change of the files is first seen here.
        if replaced {
            plans::forget();
        }
        let encoder = slot.load().map_err(|e| errors::from_engine(&e))?;
        encoder.limit_threads(settings::max_threads());
        encoder.set_threads(settings::threads());
        version::compare_once();
        Ok(Model(slot))
    }

    /// Whether the postmaster loaded the model.
    pub fn is_preloaded(&self) -> bool {
        self.0.preloaded
    }

    /// The engine's encoder.
    pub fn encoder(&self) -> Outcome<&Encoder> {
        self.0.encoder.get().ok_or_else(|| errors::internal("the model is not loaded"))
    }

    fn memo<T>(&self, action: impl FnOnce(&mut Memo) -> T) -> T {
        action(&mut self.0.memo.borrow_mut())
    }
}

/// Evicts texts at once when `gte_small.memo_size` changes, so that setting it to 0 forgets them
/// all. Postgres calls this also at a rollback, where no error is allowed: this raises none.
pub extern "C-unwind" fn memo_size_assigned(size: i32, _: *mut std::ffi::c_void) {
    let size = usize::try_from(size).unwrap_or(0);
    let _ = SLOT.try_with(|slot| {
        if let Ok(slot) = slot.try_borrow()
            && let Some(slot) = &**slot
            && let Ok(mut memo) = slot.memo.try_borrow_mut()
        {
            memo.shrink_to(size);
        }
    });
}

/// What this backend has done so far.
pub fn counters() -> Counters {
    COUNTERS.with_borrow(|counters| *counters)
}

/// Whether this backend has a model in memory.
pub fn is_loaded() -> bool {
    SLOT.with_borrow(|slot| slot.as_ref().is_some_and(|slot| slot.encoder.get().is_some()))
}

/// Whether the model in use made `vector` from `text` in this backend a short while ago. Loads no
/// model: false if none is loaded.
pub fn made(text: &str, vector: VectorRef<'_>) -> bool {
    SLOT.with_borrow(|slot| {
        slot.as_ref().is_some_and(|slot| {
            slot.key == ModelKey::current()
                && !slot.has_changed()
                && slot.recent.borrow().knows(text, vector.elements())
        })
    })
}

/// Embeds one document; `gte_small.on_truncate` is applied.
pub fn embed_one(text: &str) -> Outcome<Rc<Embedding>> {
    only(embed_as(Role::Document, &[text])?)
}

/// Embeds one query; `gte_small.on_truncate` is applied.
pub fn embed_search(text: &str) -> Outcome<Rc<Embedding>> {
    only(embed_as(Role::Query, &[text])?)
}

/// Embeds documents, as [`embed_as`].
pub fn embed_many(texts: &[&str]) -> Outcome<Vec<Rc<Embedding>>> {
    embed_as(Role::Document, texts)
}

fn only(mut embeddings: Vec<Rc<Embedding>>) -> Outcome<Rc<Embedding>> {
    embeddings.pop().ok_or_else(|| errors::internal("no embedding came back"))
}

/// Embeds texts of one role; the embeddings are in the order of the texts. The model runs once for
/// each different text, and not at all for a text in the memo. `gte_small.on_truncate` is applied.
fn embed_as(role: Role, texts: &[&str]) -> Outcome<Vec<Rc<Embedding>>> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let model = Model::current()?;
    let encoder = model.encoder()?;
    // For most models a text has one vector, so the memo answers a search for a stored text.
    let role = if encoder.has_roles() { role } else { Role::Document };
    let size = settings::memo_size();
    let asker = Asker::now();
    let mut known: HashMap<TextKey, Rc<Embedding>> = HashMap::new();
    let mut missing: Vec<&str> = Vec::new();
    let mut hits = 0;
    model.memo(|memo| {
        memo.shrink_to(size);
        let mut seen = std::collections::HashSet::new();
        for &text in texts {
            match memo.get(asker, role, text) {
                Some(embedding) => {
                    hits += 1;
                    known.insert(TextKey(text), embedding);
                }
                None if seen.insert(TextKey(text)) => missing.push(text),
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
            refuse_truncated(encoder, role, &missing, texts.len())?;
        }
        let fresh = run(encoder, role, &missing)?;
        model.memo(|memo| -> Outcome<()> {
            for (&text, embedding) in missing.iter().zip(fresh) {
                errors::check_memory()?;
                let embedding = Rc::new(embedding);
                memo.put(asker, role, text, embedding.clone(), size);
                known.insert(TextKey(text), embedding);
            }
            Ok(())
        })?;
    }
    let embeddings: Vec<Rc<Embedding>> =
        texts.iter().filter_map(|&text| known.get(&TextKey(text)).cloned()).collect();
    // A query's vector beside a text of a table is foreign.
    if matches!(role, Role::Document) {
        let mut recent = model.0.recent.borrow_mut();
        for (&text, embedding) in texts.iter().zip(&embeddings) {
            recent.remember(text, embedding.values.iter().copied());
        }
    }
    let truncated = texts.iter().zip(&embeddings).filter(|(_, e)| e.truncated).map(|(&t, _)| t);
    apply_on_truncate(encoder, role, truncated, texts.len())?;
    Ok(embeddings)
}

/// A text of one call, as the key of a map. Texts are compared by content. Texts that are too large
/// for the memo are compared by address: hashing 100 MB four times takes a quarter of a second
/// without a check for interrupts.
#[derive(Clone, Copy)]
struct TextKey<'t>(&'t str);

impl TextKey<'_> {
    fn content(&self) -> Option<&str> {
        Memo::remembers(self.0).then_some(self.0)
    }
}

impl PartialEq for TextKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.content(), other.content()) {
            (Some(one), Some(other)) => one == other,
            (None, None) => std::ptr::eq(self.0, other.0),
            _ => false,
        }
    }
}

impl Eq for TextKey<'_> {}

impl Hash for TextKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.content() {
            Some(text) => text.hash(state),
            None => self.0.as_ptr().hash(state),
        }
    }
}

/// Refuses a call with texts that are too long, before the model runs on the others. Tokenizing a
/// second time costs 4 % of a run; refusing after the run would waste all of it.
fn refuse_truncated(encoder: &Encoder, role: Role, texts: &[&str], of: usize) -> Outcome<()> {
    let mut truncated = Vec::new();
    for &text in texts {
        let tokens = encoder.token_ids_interruptible(role, text, &mut check_interrupts);
        if tokens.map_err(|e| errors::from_engine(&e))?.truncated {
            truncated.push(text);
        }
    }
    apply_on_truncate(encoder, role, truncated.into_iter(), of)
}

/// Applies `gte_small.on_truncate` to `truncated`, those of the `of` texts of a call that are too
/// long. Reads them to their ends, to count the tokens for the message.
fn apply_on_truncate<'t>(
    encoder: &Encoder,
    role: Role,
    truncated: impl Iterator<Item = &'t str>,
    of: usize,
) -> Outcome<()> {
    let on_truncate = settings::on_truncate();
    if on_truncate == OnTruncate::Silent {
        return Ok(());
    }
    let max_tokens = encoder.info().max_tokens;
    let mut counted: HashMap<TextKey<'_>, usize> = HashMap::new();
    let (mut texts, mut dropped) = (0, 0);
    for text in truncated {
        let tokens = match counted.get(&TextKey(text)) {
            Some(&tokens) => tokens,
            None => {
                let tokens = encoder.count_tokens(role, text, &mut check_interrupts);
                let tokens = tokens.map_err(|e| errors::from_engine(&e))?;
                counted.insert(TextKey(text), tokens);
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

/// The engine's callback. An interrupt raises Postgres's own error, which unwinds from here.
pub fn check_interrupts() -> ControlFlow<()> {
    pgrx::check_for_interrupts!();
    ControlFlow::Continue(())
}

/// Runs the model and updates the counters. The engine calls the callback on this thread, at least
/// every 10 ms.
fn run(encoder: &Encoder, role: Role, texts: &[&str]) -> Outcome<Vec<Embedding>> {
    let _count = CountOnDrop { encoder, passes: encoder.passes(), started: Instant::now() };
    let embeddings = encoder
        .embed_as(role, texts, &mut check_interrupts)
        .map_err(|e| errors::from_engine(&e))?;
    COUNTERS.with_borrow_mut(|counters| {
        counters.texts += embeddings.len() as u64;
        counters.tokens += embeddings.iter().map(|e| e.tokens as u64).sum::<u64>();
        counters.unknown_tokens += embeddings.iter().map(|e| e.unknown as u64).sum::<u64>();
        counters.truncated_texts += embeddings.iter().filter(|e| e.truncated).count() as u64;
    });
    Ok(embeddings)
}

/// Counts the forward passes and the time of a call, also of one that an interrupt ends.
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
