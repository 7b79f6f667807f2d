//! The stock candle forward pass: `candle_transformers::models::bert` on padded ids.
//!
//! Tests, benchmarks, `gte-model check` and [`selftest`](crate::selftest()) compare the engine's own
//! forward pass with it. Nothing else runs it.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{self, BertModel};

use crate::model::checkpoint::{Checkpoint, WORD_EMBEDDINGS};
use crate::model::config::{Activation, ModelConfig};
use crate::model::files::ModelFiles;
use crate::model::pooling::Pooling;
use crate::schedule::team::GoOn;
use crate::{DIMS, Error, memory};

/// Stock BERT, then pooling and the L2 norm in candle's own operations.
pub struct StockBert {
    model: BertModel,
    pooling: Pooling,
    /// The tokens whose word embeddings the model has, in their order. `None`: all tokens.
    words: Option<Vec<u32>>,
}

impl StockBert {
    /// Loads the configuration and `model.safetensors` of a model directory.
    pub fn load(dir: &Path) -> Result<StockBert, Error> {
        let files = ModelFiles::locate(dir)?;
        let config = ModelConfig::read(&files)?;
        let checkpoint = Checkpoint::open(&files.weights, &config)?;
        let all = 0..u32::try_from(config.vocab_size).map_err(Error::internal)?;
        StockBert::from_checkpoint(&checkpoint, &config, all, &mut || Ok(()))
    }

    /// Loads a model for texts that have only these tokens. Without the other word embeddings,
    /// MiniLM takes half of its memory.
    ///
    /// # Errors
    /// The error of `go_on`, which is called between two tensors; errors of
    /// [`Checkpoint::read`](crate::model::checkpoint::Checkpoint::read).
    pub(crate) fn for_tokens(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        mut tokens: Vec<u32>,
        go_on: GoOn,
    ) -> Result<StockBert, Error> {
        tokens.sort_unstable();
        tokens.dedup();
        let config = ModelConfig { vocab_size: tokens.len(), ..config.clone() };
        let ids = tokens.iter().copied();
        let stock = StockBert::from_checkpoint(checkpoint, &config, ids, go_on)?;
        Ok(StockBert { words: Some(tokens), ..stock })
    }

    fn from_checkpoint(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        words: impl Iterator<Item = u32>,
        go_on: GoOn,
    ) -> Result<StockBert, Error> {
        let variables = var_builder(checkpoint, words, go_on)?;
        let model = BertModel::load(variables, &stock_config(config)).map_err(Error::internal)?;
        Ok(StockBert { model, pooling: config.pooling, words: None })
    }

    /// Embeds token ids, padded to the longest of the batch: `[b, s]` ids → `[b, 384]` unit
    /// vectors, in the order given. Each element of the batch needs at least one id.
    pub fn embed_batch(&self, batch: &[&[u32]]) -> Result<Vec<[f32; DIMS]>, Error> {
        let longest = batch.iter().map(|ids| ids.len()).max().unwrap_or(0);
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if batch.iter().any(|ids| ids.is_empty()) {
            return Err(Error::internal("a text without tokens"));
        }
        let vectors = self.vectors(batch, longest).map_err(Error::internal)?;
        if !vectors.iter().all(|value| value.is_finite()) {
            return Err(Error::internal("the hidden state is not finite"));
        }
        Ok(vectors.as_chunks::<DIMS>().0.to_vec())
    }

    /// The unit vectors, `[b, 384]` flattened.
    fn vectors(&self, batch: &[&[u32]], longest: usize) -> candle_core::Result<Vec<f32>> {
        let mut ids = vec![0u32; batch.len() * longest];
        let mut mask = vec![0f32; batch.len() * longest];
        for (row, tokens) in batch.iter().enumerate() {
            let start = row * longest;
            for (id, &token) in ids[start..].iter_mut().zip(*tokens) {
                *id = self.row(token)?;
            }
            mask[start..start + tokens.len()].fill(1.0);
        }
        let shape = (batch.len(), longest);
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let pooled = match self.pooling {
            Pooling::Mean => means(&hidden, &mask)?,
            Pooling::Cls => hidden.narrow(1, 0, 1)?.squeeze(1)?.to_dtype(DType::F64)?,
        };
        normalised(&pooled)?.flatten_all()?.to_vec1()
    }

    /// The row of a token in the word embeddings.
    fn row(&self, token: u32) -> candle_core::Result<u32> {
        match &self.words {
            None => Ok(token),
            Some(words) => match words.binary_search(&token) {
                Ok(row) => Ok(row as u32),
                Err(_) => candle_core::bail!("token {token} was not loaded"),
            },
        }
    }
}

/// A proof that candle starts no threads in this process.
#[derive(Clone, Copy, Debug)]
pub struct OneThread(());

/// Makes candle compute on the thread that calls it, for the rest of the process.
///
/// Candle divides an operation on 65,536 elements or more among threads of a pool, which it starts
/// for the first such operation and never ends. The environment has the number of threads. So this
/// function sets two variables, makes candle read them, and restores them. Without the second one,
/// each matrix product would read /proc/cpuinfo, which takes milliseconds on a large machine.
///
/// What candle divides with rayon runs in the rayon pool of the calling thread. A thread that
/// belongs to no pool uses rayon's global pool.
///
/// # Errors
/// [`Error::Internal`] when candle has started threads before.
///
/// # Safety
/// While this function runs, no other thread may read or write the environment, except through
/// `std::env`.
pub unsafe fn use_one_thread() -> Result<OneThread, Error> {
    const VARIABLES: [(&str, &str); 2] = [("CANDLE_NUM_THREADS", "1"), ("CANDLE_CPU_MASK", "0")];
    static THREADS: OnceLock<usize> = OnceLock::new();
    let threads = *THREADS.get_or_init(|| {
        let before = VARIABLES.map(|(name, _)| std::env::var_os(name));
        for (name, value) in VARIABLES {
            // SAFETY: the caller keeps other threads from the environment.
            unsafe { std::env::set_var(name, value) };
        }
        // Both read their variable once for the life of the process.
        let workers = candle_core::utils::barrier_pool().n_workers();
        candle_core::utils::get_num_threads();
        for ((name, _), before) in VARIABLES.into_iter().zip(before) {
            match before {
                // SAFETY: as above.
                Some(value) => unsafe { std::env::set_var(name, value) },
                // SAFETY: as above.
                None => unsafe { std::env::remove_var(name) },
            }
        }
        1 + workers
    });
    match threads {
        1 => Ok(OneThread(())),
        _ => Err(Error::internal(format_args!("candle runs on {threads} threads"))),
    }
}

/// The configuration in candle's terms.
fn stock_config(config: &ModelConfig) -> bert::Config {
    bert::Config {
        vocab_size: config.vocab_size,
        hidden_size: DIMS,
        num_hidden_layers: config.layers,
        num_attention_heads: config.heads,
        intermediate_size: config.intermediate,
        hidden_act: match config.activation {
            Activation::Gelu => bert::HiddenAct::Gelu,
            Activation::GeluTanh => bert::HiddenAct::GeluApproximate,
            Activation::Relu => bert::HiddenAct::Relu,
        },
        max_position_embeddings: config.positions,
        type_vocab_size: config.token_types,
        layer_norm_eps: config.layer_norm_eps,
        model_type: None,
        ..bert::Config::default()
    }
}

/// All tensors, under the names that candle's modules look up. The word embeddings are those of
/// `words`.
fn var_builder(
    checkpoint: &Checkpoint,
    words: impl Iterator<Item = u32>,
    go_on: GoOn,
) -> Result<VarBuilder<'static>, Error> {
    let mut tensors = HashMap::new();
    let mut add = |name: &str, shape: &[usize], values: Vec<f32>| {
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).map_err(Error::internal)?;
        tensors.insert(name.to_owned(), tensor);
        Ok::<(), Error>(())
    };
    let mut rows: Vec<f32> = memory::vector(words.size_hint().0 * DIMS)?;
    let (mut bytes, mut row) = ([0; 4 * DIMS], [0.0; DIMS]);
    for word in words {
        checkpoint.word(word, &mut bytes, &mut row)?;
        rows.extend_from_slice(&row);
    }
    add(WORD_EMBEDDINGS, &[rows.len() / DIMS, DIMS], rows)?;
    for tensor in checkpoint.read_all() {
        go_on()?;
        let (name, shape, values) = tensor?;
        add(name, shape, values)?;
    }
    Ok(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
}

/// Hidden states `[b, s, 384]` and mask `[b, s]` → means `[b, 384]`: the sum of the hidden states of
/// all real tokens, specials included, over their number.
///
/// As sentence-transformers'
/// [`Pooling`](https://github.com/UKPLab/sentence-transformers/blob/v3.0.0/sentence_transformers/models/Pooling.py)
/// with `pooling_mode_mean_tokens`, but in f64: a sum of 512 f32 values loses the last bits.
fn means(hidden: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
    let (hidden, mask) = (hidden.to_dtype(DType::F64)?, mask.to_dtype(DType::F64)?);
    let sums = hidden.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
    sums.broadcast_div(&mask.sum_keepdim(1)?)
}

/// Vectors `[b, 384]`, each divided by its L2 norm.
fn normalised(vectors: &Tensor) -> candle_core::Result<Tensor> {
    let norms = vectors.sqr()?.sum_keepdim(1)?.sqrt()?;
    vectors.broadcast_div(&norms)?.to_dtype(DType::F32)
}
