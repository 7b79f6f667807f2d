//! A loaded model: text in, unit vectors out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use sha2::{Digest, Sha256};

use crate::forward::Forward;
use crate::forward::tier::{self, Precision};
use crate::interrupts::Interrupts;
use crate::model::checkpoint::{Checkpoint, hex};
use crate::model::config::ModelConfig;
use crate::model::files::ModelFiles;
use crate::model::known;
use crate::schedule::blocks;
use crate::schedule::run::run_blocks;
use crate::schedule::threads::Threads;
use crate::text::chunks::Chunks;
use crate::text::counted;
use crate::text::tokenizer::{TokenIds, Tokenizer};
use crate::{DIMS, Error};

/// Texts whose token ids are held at a time: blocks gain nothing from more, and 512 texts of 512
/// ids are 1 MB.
const WINDOW: usize = 512;

/// How to run a model.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `None` takes the fastest this CPU has.
    pub precision: Option<Precision>,
    /// Threads of the private pool; 0 lets each call take the cores nobody else is using.
    pub threads: usize,
    /// Kernels by name, for tests of the slower tiers. `None` takes the fastest of the precision.
    pub kernels: Option<String>,
}

/// One text's vector and what it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// 384 floats of unit length.
    pub values: [f32; DIMS],
    /// Tokens the model read, specials included.
    pub tokens: usize,
    /// Whether the text had more tokens than the model reads, so that its end had no say.
    pub truncated: bool,
}

/// What a loaded model is.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Tokens of a text the model reads, specials included.
    pub max_tokens: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Number format of the weights.
    pub precision: Precision,
    /// Kernels in use.
    pub kernels: &'static str,
    /// How long loading took.
    pub load_time: Duration,
}

/// Which model it is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of a known model, otherwise the directory's.
    pub name: String,
    /// sha256 over weights, tokenizer and token limit: equal fingerprints mean vectors that can
    /// be compared. 64 hexadecimal digits.
    pub fingerprint: String,
    /// sha256 of `model.safetensors`.
    pub weights_sha256: String,
    /// Cosine above which two texts are usually about the same thing; `None` for a model that is
    /// not known.
    pub suggested_threshold: Option<f64>,
}

/// A sentence encoder. Loading it starts no thread; the first text that needs one does.
pub struct Encoder {
    tokenizer: Tokenizer,
    model: Forward,
    vocab_size: usize,
    positions: usize,
    threads: Threads,
    passes: AtomicU64,
    info: ModelInfo,
    dir: PathBuf,
    identity: OnceCell<Identity>,
}

impl Encoder {
    /// Loads a model directory in f32, on one thread: the reference.
    ///
    /// # Errors
    /// As [`Encoder::load_with`].
    pub fn load(dir: &Path) -> Result<Encoder, Error> {
        let precision = Some(Precision::F32);
        Encoder::load_with(dir, &Options { precision, threads: 1, kernels: None })
    }

    /// Loads a model directory. Everything that can be wrong with its files is found here.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`], [`Error::Corrupt`] (also when a file changed
    /// meanwhile) or [`Error::Unsupported`], each with the file; [`Error::NoKernels`] for a
    /// precision or kernels this CPU does not have.
    pub fn load_with(dir: &Path, options: &Options) -> Result<Encoder, Error> {
        let started = Instant::now();
        let tier = tier::choose(options.precision, options.kernels.as_deref())?;
        let files = ModelFiles::locate(dir)?;
        let config = ModelConfig::read(&files)?;
        let checkpoint = Checkpoint::open(&files.weights, &config)?;
        let tokenizer = Tokenizer::from_file(&files.tokenizer, config.max_tokens)?;
        let model = Forward::new(&config, checkpoint, tier)?;
        files.check_unchanged()?;
        let info = ModelInfo {
            max_tokens: config.max_tokens,
            layers: config.layers,
            precision: tier.precision,
            kernels: tier.name,
            load_time: started.elapsed(),
        };
        Ok(Encoder {
            tokenizer,
            model,
            vocab_size: config.vocab_size,
            positions: config.positions,
            threads: Threads::new(options.threads),
            passes: AtomicU64::new(0),
            info,
            dir: dir.to_owned(),
            identity: OnceCell::new(),
        })
    }

    /// Which model it is. Hashes the weights when it is first asked: 50 ms for MiniLM.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Corrupt`] when the file can no longer be read or has changed.
    pub fn identity(&self) -> Result<&Identity, Error> {
        self.identity.get_or_try_init(|| {
            let weights_sha256 = self.model.checkpoint().sha256()?.to_owned();
            let known = known::by_weights(&weights_sha256);
            Ok(Identity {
                name: match &known {
                    Some(known) => known.name.to_owned(),
                    None => directory_name(&self.dir),
                },
                fingerprint: fingerprint(
                    &weights_sha256,
                    self.tokenizer.sha256(),
                    self.info.max_tokens,
                ),
                weights_sha256,
                suggested_threshold: known.map(|known| known.suggested_threshold),
            })
        })
    }

    /// Whether somebody wrote into the file of the weights since it was loaded. The word
    /// embeddings are read from it as they are needed, so the model must then be loaded again.
    /// A new file in its place does not count: the old one stays open and as it is.
    pub fn has_changed(&self) -> bool {
        self.model.checkpoint().has_changed()
    }

    /// Threads for the calls to come; 0 = automatic.
    pub fn set_threads(&self, threads: usize) {
        self.threads.set(threads);
    }

    /// Threads a call that began now would use.
    pub fn threads(&self) -> usize {
        self.threads.for_call()
    }

    /// Forward passes so far.
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// What was loaded.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Token ids as the model sees them.
    ///
    /// # Errors
    /// [`Error::TextTooLong`] for a text over 1 MB under a tokenizer that is not of BERT's kind;
    /// [`Error::Internal`] for a token the model has no embedding for.
    pub fn token_ids(&self, text: &str) -> Result<TokenIds, Error> {
        self.token_ids_interruptible(text, &mut || ControlFlow::Continue(()))
    }

    /// Tokens of a text, specials included, however many. Takes as long as the text is: some
    /// 70 MB/s where words come again, 13 MB/s where none does, 2 MB/s where they are not of ASCII
    /// either. `go_on` is asked every few milliseconds.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; what [`Encoder::token_ids`] gives.
    pub fn count_tokens(
        &self,
        text: &str,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<usize, Error> {
        counted::count(&self.tokenizer, text, &mut Interrupts::new(go_on))
    }

    /// The text as chunks of at most `max_tokens` tokens, specials included, and at most the
    /// model's limit. Each repeats at most `overlap` tokens of the one before.
    ///
    /// # Errors
    /// [`Error::Internal`] where `overlap` leaves no room for anything new;
    /// [`Error::TextTooLong`] as [`Encoder::token_ids`].
    pub fn chunks<'t>(
        &'t self,
        text: &'t str,
        max_tokens: usize,
        overlap: usize,
    ) -> Result<Chunks<'t>, Error> {
        Chunks::new(&self.tokenizer, text, max_tokens, overlap)
    }

    /// Tokens that are put around each text.
    pub fn special_tokens(&self) -> usize {
        self.tokenizer.specials()
    }

    /// The same; `go_on` is asked every few milliseconds.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; what [`Encoder::token_ids`] gives.
    pub fn token_ids_interruptible(
        &self,
        text: &str,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<TokenIds, Error> {
        let tokens = self.tokenizer.token_ids_interruptible(text, go_on)?;
        match tokens.ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            None => Ok(tokens),
            Some(id) => Err(Error::Internal(format!(
                "the tokenizer gives token {id}, the model has {} tokens",
                self.vocab_size
            ))),
        }
    }

    /// Embeds one text.
    ///
    /// # Errors
    /// As [`Encoder::embed_batch`].
    pub fn embed(
        &self,
        text: &str,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Embedding, Error> {
        let mut embeddings = self.embed_batch(&[text], go_on)?;
        embeddings.pop().ok_or_else(|| Error::internal("no embedding came back"))
    }

    /// Embeds texts, in the order given, to the same bits as each alone and with any number of
    /// threads. `go_on` is asked on the calling thread, before each piece of a text is tokenized,
    /// before and after each forward pass and every 10 ms in between, or before each operation of
    /// one that this thread runs itself; when it breaks, the model stops within a few
    /// milliseconds.
    /// A panic in it passes through and leaves the encoder as it was.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; what [`Encoder::token_ids`] gives;
    /// [`Error::Corrupt`] when the weights changed meanwhile; [`Error::Internal`] when the model
    /// fails.
    pub fn embed_batch(
        &self,
        texts: &[&str],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Embedding>, Error> {
        let mut embeddings = Vec::with_capacity(texts.len());
        for window in texts.chunks(WINDOW) {
            let mut tokens = Vec::with_capacity(window.len());
            for text in window {
                // A long text takes 3 ms here, a window of them a second and a half.
                tokens.push(self.token_ids_interruptible(text, go_on)?);
            }
            embeddings.append(&mut self.run_window(&tokens, go_on)?);
        }
        Ok(embeddings)
    }

    /// Embeds token ids as they are, specials included: what benchmarks compare with engines that
    /// take ids. A text may have as many as the position table has rows, [`ModelInfo::max_tokens`]
    /// notwithstanding. Otherwise as [`Encoder::embed_batch`].
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; [`Error::Internal`] for a text without ids or
    /// with more than the model has positions, for an id without an embedding, and when the model
    /// fails.
    pub fn embed_ids(
        &self,
        texts: &[&[u32]],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Embedding>, Error> {
        let positions = self.positions;
        let fits = |ids: &&[u32]| {
            (1..=positions).contains(&ids.len())
                && ids.iter().all(|&id| (id as usize) < self.vocab_size)
        };
        if !texts.iter().all(fits) {
            return Err(Error::Internal(format!(
                "a text of ids must have 1 to {positions} of them, each below {}",
                self.vocab_size
            )));
        }
        let mut embeddings = Vec::with_capacity(texts.len());
        for window in texts.chunks(WINDOW) {
            let tokens: Vec<TokenIds> =
                window.iter().map(|ids| TokenIds { ids: ids.to_vec(), truncated: false }).collect();
            embeddings.append(&mut self.run_window(&tokens, go_on)?);
        }
        Ok(embeddings)
    }

    fn run_window(
        &self,
        tokens: &[TokenIds],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Embedding>, Error> {
        // Long texts first, so that the threads finish together.
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(tokens[i].ids.len()));
        let ids: Vec<&[u32]> = order.iter().map(|&i| tokens[i].ids.as_slice()).collect();
        let lengths: Vec<usize> = ids.iter().map(|ids| ids.len()).collect();
        let blocks = blocks::plan(&lengths);

        let mut embeddings: Vec<Option<Embedding>> = vec![None; tokens.len()];
        let pass = |ids: &[&[u32]], threads, go_on: &mut dyn FnMut() -> Result<(), Error>| {
            self.passes.fetch_add(1, Ordering::Relaxed);
            self.model.run(ids, threads, go_on)
        };
        run_blocks(&self.threads, &pass, &ids, &blocks, go_on, &mut |block, vectors| {
            for (&i, values) in order[block].iter().zip(vectors) {
                let TokenIds { ids, truncated } = &tokens[i];
                embeddings[i] =
                    Some(Embedding { values, tokens: ids.len(), truncated: *truncated });
            }
        })?;
        self.model.checkpoint().check_unchanged()?;
        embeddings
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::internal("a text was left out"))
    }
}

fn directory_name(dir: &Path) -> String {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

fn fingerprint(weights_sha256: &str, tokenizer_sha256: &str, max_tokens: usize) -> String {
    let text = format!(
        "weights {weights_sha256}\ntokenizer {tokenizer_sha256}\nmax_tokens {max_tokens}\n"
    );
    hex(&Sha256::digest(text))
}
