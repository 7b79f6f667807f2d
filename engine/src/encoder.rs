//! A loaded model: text in, unit vectors out.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use rayon::ThreadPool;
use sha2::{Digest, Sha256};

use crate::config::ModelConfig;
use crate::files::ModelFiles;
use crate::oracle::StockBert;
use crate::tokenizer::{TokenIds, Tokenizer};
use crate::weights::{Weights, hex};
use crate::{DIMS, Error, batch, known, pool};

/// Texts whose token ids are held at a time: the sort by length gains nothing from more, and
/// 512 texts of 512 ids are 1 MB.
const WINDOW: usize = 512;

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
    /// Name of a known model, otherwise the directory's.
    pub name: String,
    /// sha256 over weights, tokenizer and token limit: equal fingerprints mean vectors that can
    /// be compared. 64 hexadecimal digits.
    pub fingerprint: String,
    /// sha256 of `model.safetensors`.
    pub weights_sha256: String,
    /// Tokens of a text the model reads, specials included.
    pub max_tokens: usize,
    /// Cosine above which two texts are usually about the same thing; `None` for a model that is
    /// not known.
    pub suggested_threshold: Option<f64>,
    /// Encoder layers.
    pub layers: usize,
    /// How long loading took.
    pub load_time: Duration,
}

/// A sentence encoder. Loading it starts no thread; the first text does.
pub struct Encoder {
    tokenizer: Tokenizer,
    model: StockBert,
    vocab_size: usize,
    pool: OnceCell<ThreadPool>,
    info: ModelInfo,
}

impl Encoder {
    /// Loads a model directory. Everything that can be wrong with its files is found here.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`], [`Error::Corrupt`] or [`Error::Unsupported`], each
    /// with the file.
    pub fn load(dir: &Path) -> Result<Encoder, Error> {
        let started = Instant::now();
        let files = ModelFiles::locate(dir)?;
        let config = ModelConfig::read(&files)?;
        let tokenizer = Tokenizer::from_file(&files.tokenizer, config.max_tokens)?;
        let weights = Weights::read(&files.weights, &config)?;
        let weights_sha256 = weights.sha256.clone();
        let model = StockBert::new(&config, weights)?;
        let known = known::by_weights(&weights_sha256);
        let name = match &known {
            Some(known) => known.name.to_owned(),
            None => directory_name(dir),
        };
        let info = ModelInfo {
            name,
            fingerprint: fingerprint(&weights_sha256, tokenizer.sha256(), config.max_tokens),
            weights_sha256,
            max_tokens: config.max_tokens,
            suggested_threshold: known.map(|known| known.suggested_threshold),
            layers: config.layers,
            load_time: started.elapsed(),
        };
        Ok(Encoder { tokenizer, model, vocab_size: config.vocab_size, pool: OnceCell::new(), info })
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
        let tokens = self.tokenizer.token_ids(text)?;
        match tokens.ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            None => Ok(tokens),
            Some(id) => Err(Error::Internal(format!(
                "the tokenizer gives token {id}, the model has {} tokens",
                self.vocab_size
            ))),
        }
    }

    /// Embeds one text. `go_on` is asked once before the model runs.
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

    /// Embeds texts, in the order given; equal to embedding each alone within 1e-6. Texts of
    /// similar length run together. `go_on` is asked on the calling thread before each forward
    /// pass; a panic in it passes through and leaves the encoder as it was.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; what [`Encoder::token_ids`] gives;
    /// [`Error::Internal`] when the model fails.
    pub fn embed_batch(
        &self,
        texts: &[&str],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Embedding>, Error> {
        let mut embeddings = Vec::with_capacity(texts.len());
        for window in texts.chunks(WINDOW) {
            let tokens =
                window.iter().map(|text| self.token_ids(text)).collect::<Result<Vec<_>, _>>()?;
            embeddings.append(&mut self.run_window(&tokens, go_on)?);
        }
        Ok(embeddings)
    }

    fn run_window(
        &self,
        tokens: &[TokenIds],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Embedding>, Error> {
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(tokens[i].ids.len()));
        let lengths: Vec<usize> = order.iter().map(|&i| tokens[i].ids.len()).collect();
        let mut embeddings: Vec<Option<Embedding>> = vec![None; tokens.len()];
        for range in batch::plan(&lengths) {
            if go_on().is_break() {
                return Err(Error::Interrupted);
            }
            let members = &order[range];
            let ids: Vec<&[u32]> = members.iter().map(|&i| tokens[i].ids.as_slice()).collect();
            for (&i, values) in members.iter().zip(self.forward(&ids)?) {
                embeddings[i] = Some(Embedding {
                    values,
                    tokens: tokens[i].ids.len(),
                    truncated: tokens[i].truncated,
                });
            }
        }
        embeddings
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::internal("a text was left out"))
    }

    /// One forward pass inside the private pool. A panic of the libraries below becomes an error.
    fn forward(&self, ids: &[&[u32]]) -> Result<Vec<[f32; DIMS]>, Error> {
        let pool = self.pool.get_or_try_init(|| pool::private_pool(1))?;
        catch_unwind(AssertUnwindSafe(|| pool.install(|| self.model.embed_batch(ids))))
            .unwrap_or_else(|_| Err(Error::internal("the forward pass panicked")))
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
