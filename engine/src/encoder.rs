//! A loaded model: text in, unit vectors out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;

use crate::forward::Forward;
use crate::forward::number::Precision;
use crate::forward::tier;
use crate::identity::Identity;
use crate::interrupts::Interrupts;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::ModelConfig;
use crate::model::files::ModelFiles;
use crate::model::prompts::Role;
use crate::schedule::blocks;
use crate::schedule::run::{run_blocks, side_by_side};
use crate::schedule::team::{Crew, GoOn};
use crate::schedule::threads::Threads;
use crate::text::chunks::Chunks;
use crate::text::counted;
use crate::text::prompt::Prompt;
use crate::text::tokenizer::{TokenIds, Tokenizer};
use crate::{DIMS, Error, memory};

/// Texts whose token ids are in memory at the same time. More texts do not make better blocks. 512
/// texts of 512 ids take 1 MB.
const WINDOW: usize = 512;

/// Texts that a thread tokenizes before it takes the next ones.
const TEXTS_PER_TASK: usize = 8;

/// Options for running a model.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `None` takes the fastest precision of this CPU.
    pub precision: Option<Precision>,
    /// Threads of a call, the calling thread included. 0 is automatic: each call uses the cores that
    /// no other task uses.
    pub threads: usize,
    /// Kernels by name, for tests of the slower tiers. `None` takes the fastest kernels of the
    /// precision.
    pub kernels: Option<String>,
}

/// The vector of one text, and the number of its tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// 384 floats of unit length.
    pub values: [f32; DIMS],
    /// Number of tokens that the model read, specials and prompt included.
    pub tokens: usize,
    /// Of them, tokens of words that the vocabulary does not have.
    pub unknown: usize,
    /// Whether the text had more tokens than the model reads. The model then ignores the end of the
    /// text.
    pub truncated: bool,
}

/// Facts about a loaded model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Most tokens of a text that the model reads, specials included.
    pub max_tokens: usize,
    /// Number of encoder layers.
    pub layers: usize,
    /// Number format of the weights.
    pub precision: Precision,
    /// Kernels in use.
    pub kernels: &'static str,
    /// Time that loading took.
    pub load_time: Duration,
}

/// A sentence encoder. Loading starts no thread. The first text that needs threads starts them.
pub struct Encoder {
    tokenizer: Tokenizer,
    /// The prompts of documents and of queries.
    document: Prompt,
    query: Prompt,
    model: Forward,
    config: ModelConfig,
    threads: Threads,
    passes: AtomicU64,
    info: ModelInfo,
    dir: PathBuf,
    identity: OnceCell<Identity>,
}

impl Encoder {
    /// Loads a model directory in f32 with one thread. This is the reference.
    ///
    /// # Errors
    /// As [`Encoder::load_with`].
    pub fn load(dir: &Path) -> Result<Encoder, Error> {
        let precision = Some(Precision::F32);
        Encoder::load_with(dir, &Options { precision, threads: 1, kernels: None })
    }

    /// Loads a model directory and checks its files.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`], [`Error::Corrupt`] (also when a file changes during
    /// loading) or [`Error::Unsupported`], each with the file; [`Error::NoKernels`] when this CPU
    /// can't run the precision or the kernels; [`Error::OutOfMemory`] when there is no memory for
    /// the weights.
    pub fn load_with(dir: &Path, options: &Options) -> Result<Encoder, Error> {
        let started = Instant::now();
        memory::check()?;
        let tier = tier::choose(options.precision, options.kernels.as_deref())?;
        let files = ModelFiles::locate(dir)?;
        let config = ModelConfig::read(&files)?;
        let checkpoint = Checkpoint::open(&files.weights, &config)?;
        let tokenizer = Tokenizer::from_file(&files.tokenizer, config.max_tokens)?;
        let prompt = |text: &str| read_prompt(&files, &tokenizer, text);
        let (document, query) = (prompt(&config.prompts.document)?, prompt(&config.prompts.query)?);
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
            document,
            query,
            model,
            config,
            threads: Threads::new(options.threads),
            passes: AtomicU64::new(0),
            info,
            dir: dir.to_owned(),
            identity: OnceCell::new(),
        })
    }

    /// Identifies the model. The first call hashes the weights, in 50 ms for MiniLM.
    ///
    /// # Errors
    /// [`Error::Io`] when the file can't be read, [`Error::Corrupt`] when it has changed.
    pub fn identity(&self) -> Result<&Identity, Error> {
        self.identity.get_or_try_init(|| {
            let weights_sha256 = self.model.checkpoint().sha256()?;
            Ok(Identity::new(&self.dir, weights_sha256, self.tokenizer.sha256(), &self.config))
        })
    }

    /// Whether the weights file was written to since it was loaded. If so, the model must be loaded
    /// again, because the word embeddings are read from the file when they are needed. A new file
    /// in its place is no change: the old file stays open.
    pub fn has_changed(&self) -> bool {
        self.model.checkpoint().has_changed()
    }

    /// The file of the weights.
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        self.model.checkpoint()
    }

    /// The configuration that the weights were packed with.
    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Sets the number of threads of later calls; 0 = automatic. Helper threads that these calls do
    /// not need end, and their memory is free.
    pub fn set_threads(&self, threads: usize) {
        self.threads.set(threads);
    }

    /// Limits the threads of later calls to the number of cores, and to `most` unless it is 0.
    /// Without this call there is no limit.
    pub fn limit_threads(&self, most: usize) {
        self.threads.limit(most);
    }

    /// Number of threads for a call that starts now.
    pub fn threads(&self) -> usize {
        self.threads.for_call()
    }

    /// Number of forward passes so far.
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// Facts about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Whether documents and queries have different prompts. Otherwise a text has one vector.
    pub fn has_roles(&self) -> bool {
        self.document.text() != self.query.text()
    }

    fn prompt(&self, role: Role) -> &Prompt {
        match role {
            Role::Document => &self.document,
            Role::Query => &self.query,
        }
    }

    /// The token ids that the model reads for a document.
    ///
    /// # Errors
    /// [`Error::TextTooLong`] for a text over 1 MB when the tokenizer is not of BERT's kind;
    /// [`Error::OutOfMemory`] when there is no memory to join prompt and text; [`Error::Internal`]
    /// for a token that has no embedding.
    pub fn token_ids(&self, text: &str) -> Result<TokenIds, Error> {
        self.token_ids_interruptible(Role::Document, text, &mut || ControlFlow::Continue(()))
    }

    /// Number of tokens of the whole text, specials and prompt included and without a limit. The
    /// speed is about 70 MB/s for repeated words, 13 MB/s for different words, and 2 MB/s for
    /// different words that are not ASCII. `go_on` is called every few milliseconds.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; errors of [`Encoder::token_ids`].
    pub fn count_tokens(
        &self,
        role: Role,
        text: &str,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<usize, Error> {
        let mut interrupts = Interrupts::new(go_on);
        let own = counted::count(&self.tokenizer, self.prompt(role), text, &mut interrupts)?;
        Ok(self.tokenizer.specials() + own)
    }

    /// Of the tokens that the model reads of a text, without specials and prompt: how many belong to
    /// words that the vocabulary does not have, and how many there are.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; [`Error::TextTooLong`] as [`Encoder::token_ids`].
    pub fn unknown_tokens(
        &self,
        text: &str,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(usize, usize), Error> {
        let ids = self.tokenizer.token_ids_after(&[], text, go_on)?.ids;
        let unknown = ids.iter().filter(|&&id| Some(id) == self.tokenizer.unknown()).count();
        Ok((unknown, ids.len() - self.tokenizer.specials()))
    }

    /// Divides the text into chunks of at most `max_tokens` tokens as documents, specials and
    /// prompt included, and at most the model's limit. Each chunk repeats at most `overlap` tokens
    /// of the chunk before it.
    ///
    /// # Errors
    /// [`Error::Internal`] when `overlap` leaves no space for new tokens; [`Error::TextTooLong`] as
    /// [`Encoder::token_ids`].
    pub fn chunks<'t>(
        &'t self,
        text: &'t str,
        max_tokens: usize,
        overlap: usize,
    ) -> Result<Chunks<'t>, Error> {
        Chunks::new(&self.tokenizer, &self.document, text, max_tokens, overlap)
    }

    /// Number of special tokens around each text.
    pub fn special_tokens(&self) -> usize {
        self.tokenizer.specials()
    }

    /// Number of tokens of the prompt before each document.
    pub fn prompt_tokens(&self) -> usize {
        self.document.tokens()
    }

    /// The token ids that the model reads for a text. `go_on` is called every few milliseconds.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; errors of [`Encoder::token_ids`].
    pub fn token_ids_interruptible(
        &self,
        role: Role,
        text: &str,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<TokenIds, Error> {
        let (prompt, text) = self.prompt(role).before(text)?;
        let tokens = self.tokenizer.token_ids_after(prompt, &text, go_on)?;
        match tokens.ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            None => Ok(tokens),
            Some(id) => Err(Error::Internal(format!(
                "the tokenizer gives token {id}, the model has {} tokens",
                self.config.vocab_size
            ))),
        }
    }

    /// Embeds one document.
    ///
    /// # Errors
    /// As [`Encoder::embed_as`].
    pub fn embed(
        &self,
        text: &str,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Embedding, Error> {
        let mut embeddings = self.embed_batch(&[text], go_on)?;
        embeddings.pop().ok_or_else(|| Error::internal("no embedding came back"))
    }

    /// Embeds documents.
    ///
    /// # Errors
    /// As [`Encoder::embed_as`].
    pub fn embed_batch(
        &self,
        texts: &[&str],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Embedding>, Error> {
        self.embed_as(Role::Document, texts, go_on)
    }

    /// Embeds texts of one role. The vectors are in the order of the texts. The vector of a text
    /// has the same bits alone, in a batch and with any number of threads.
    ///
    /// `go_on` is called on the calling thread: at the start of each text, every few milliseconds
    /// of tokenizing, before and after each forward pass and every 10 ms during a pass. If the
    /// calling thread runs the forward pass itself, `go_on` is called before each operation. When
    /// `go_on` breaks, the model stops within a few milliseconds. A panic in `go_on` passes through
    /// this function, and the encoder can still be used.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; errors of [`Encoder::token_ids`];
    /// [`Error::Corrupt`] when the file of the weights has changed; [`Error::Internal`] when the
    /// model fails.
    pub fn embed_as(
        &self,
        role: Role,
        texts: &[&str],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Embedding>, Error> {
        let mut go_on = as_result(go_on);
        let mut embeddings = memory::vector(texts.len())?;
        for window in texts.chunks(WINDOW) {
            let threads = self.threads.for_call();
            let run = self.threads.with_crew(threads, |mut crew| {
                let tokens = self.tokenize(role, window, &mut crew, &mut go_on)?;
                self.run_window(&tokens, &mut crew, &mut go_on)
            });
            embeddings.append(&mut run?);
        }
        Ok(embeddings)
    }

    /// Token ids of texts, computed on the threads of the crew. Tokenizing a text that is not ASCII
    /// takes up to a tenth of its time in the model, and helpers would wait for it.
    fn tokenize(
        &self,
        role: Role,
        texts: &[&str],
        crew: &mut Crew,
        go_on: GoOn,
    ) -> Result<Vec<TokenIds>, Error> {
        let parts: Vec<&[&str]> = texts.chunks(TEXTS_PER_TASK).collect();
        let tokenize = |i: usize, go_on: GoOn| {
            let mut cause = None;
            let mut go_on = || match go_on() {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    cause = Some(error);
                    ControlFlow::Break(())
                }
            };
            let tokens = parts[i].iter();
            let tokens = tokens.map(|text| self.token_ids_interruptible(role, text, &mut go_on));
            let tokens = tokens.collect::<Result<Vec<TokenIds>, Error>>();
            tokens.map_err(|error| cause.unwrap_or(error))
        };
        // Waking a helper for one part takes longer than the part itself.
        let tokens = match parts.len() {
            0 | 1 => parts.iter().enumerate().map(|(i, _)| tokenize(i, go_on)).collect(),
            count => side_by_side(crew, count, &tokenize, go_on),
        };
        Ok(tokens?.into_iter().flatten().collect())
    }

    /// Embeds texts that are given as token ids, specials included. Benchmarks use it to compare
    /// with engines that take ids. A text may have as many ids as the model has positions, also
    /// more than [`ModelInfo::max_tokens`]. Otherwise as [`Encoder::embed_as`].
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; [`Error::Internal`] for a text without ids, for
    /// more ids than the model has positions, for an id without an embedding, and when the model
    /// fails; [`Error::Corrupt`] when the file of the weights has changed.
    pub fn embed_ids(
        &self,
        texts: &[&[u32]],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Embedding>, Error> {
        let positions = self.config.positions;
        let fits = |ids: &&[u32]| {
            (1..=positions).contains(&ids.len())
                && ids.iter().all(|&id| (id as usize) < self.config.vocab_size)
        };
        if !texts.iter().all(fits) {
            return Err(Error::Internal(format!(
                "a text of ids must have 1 to {positions} of them, each below {}",
                self.config.vocab_size
            )));
        }
        let mut go_on = as_result(go_on);
        let mut embeddings = memory::vector(texts.len())?;
        for window in texts.chunks(WINDOW) {
            let tokens: Vec<TokenIds> =
                window.iter().map(|ids| TokenIds { ids: ids.to_vec(), truncated: false }).collect();
            let threads = self.threads.for_call();
            let run = |mut crew: Crew| self.run_window(&tokens, &mut crew, &mut go_on);
            embeddings.append(&mut self.threads.with_crew(threads, run)?);
        }
        Ok(embeddings)
    }

    fn run_window(
        &self,
        tokens: &[TokenIds],
        crew: &mut Crew,
        go_on: GoOn,
    ) -> Result<Vec<Embedding>, Error> {
        // Long texts come first, so that the threads finish at about the same time.
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(tokens[i].ids.len()));
        let ids: Vec<&[u32]> = order.iter().map(|&i| tokens[i].ids.as_slice()).collect();
        let lengths: Vec<usize> = ids.iter().map(|ids| ids.len()).collect();
        let blocks = blocks::plan(&lengths, crew.members());
        let pass = |ids: &[&[u32]], crew: &mut Crew, go_on: GoOn| {
            self.passes.fetch_add(1, Ordering::Relaxed);
            self.model.run(ids, crew, go_on)
        };
        let vectors = run_blocks(crew, &pass, &ids, &blocks, go_on)?;
        self.model.checkpoint().check_unchanged()?;
        go_on()?;
        let mut embeddings: Vec<Option<Embedding>> = memory::vector(tokens.len())?;
        embeddings.resize(tokens.len(), None);
        for (&i, values) in order.iter().zip(vectors.into_iter().flatten()) {
            let TokenIds { ids, truncated } = &tokens[i];
            let unknown = ids.iter().filter(|&&id| Some(id) == self.tokenizer.unknown()).count();
            embeddings[i] =
                Some(Embedding { values, tokens: ids.len(), unknown, truncated: *truncated });
        }
        embeddings
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::internal("a text was left out"))
    }
}

/// The caller's callback, which returns an error instead of a break.
fn as_result(
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> impl FnMut() -> Result<(), Error> + use<'_> {
    || if go_on().is_break() { Err(Error::Interrupted) } else { memory::check() }
}

/// A prompt after which the model can still read a token of a text.
fn read_prompt(files: &ModelFiles, tokenizer: &Tokenizer, text: &str) -> Result<Prompt, Error> {
    let prompt = Prompt::new(tokenizer, text)?;
    let (tokens, most) = (tokenizer.specials() + prompt.tokens(), tokenizer.max_tokens());
    if tokens >= most {
        return Err(Error::unsupported(
            &files.prompts,
            format_args!(
                "a prompt has {tokens} tokens with the special ones, and the model reads at most {most}"
            ),
        ));
    }
    Ok(prompt)
}
