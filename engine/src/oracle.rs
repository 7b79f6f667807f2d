//! The stock candle forward pass: `candle_transformers::models::bert` on padded ids.
//!
//! Tests, benchmarks and `gte-model check` compare the engine's own forward pass with it. Nothing
//! else runs it.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{self, BertModel};

use crate::model::checkpoint::Checkpoint;
use crate::model::config::{Activation, ModelConfig};
use crate::model::files::ModelFiles;
use crate::{DIMS, Error};

/// Stock BERT, then masked mean pooling and the L2 norm in candle's own operations.
pub struct StockBert {
    model: BertModel,
}

impl StockBert {
    /// Loads `config.json` and `model.safetensors` of a model directory.
    pub fn load(dir: &Path) -> Result<StockBert, Error> {
        let files = ModelFiles::locate(dir)?;
        let config = ModelConfig::read(&files)?;
        let checkpoint = Checkpoint::open(&files.weights, &config)?;
        let model = BertModel::load(var_builder(&checkpoint)?, &stock_config(&config))
            .map_err(Error::internal)?;
        Ok(StockBert { model })
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
            ids[start..start + tokens.len()].copy_from_slice(tokens);
            mask[start..start + tokens.len()].fill(1.0);
        }
        let shape = (batch.len(), longest);
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        unit_means(&hidden, &mask)?.flatten_all()?.to_vec1()
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

/// All tensors, under the names that candle's modules look up.
fn var_builder(checkpoint: &Checkpoint) -> Result<VarBuilder<'static>, Error> {
    let mut tensors = HashMap::new();
    for tensor in checkpoint.read_all() {
        let (name, shape, values) = tensor?;
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).map_err(Error::internal)?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
}

/// Hidden states `[b, s, 384]` and mask `[b, s]` → unit vectors `[b, 384]`: the sum of the hidden
/// states of all real tokens, specials included, over their number, divided by its L2 norm.
///
/// As sentence-transformers'
/// [`Pooling`](https://github.com/UKPLab/sentence-transformers/blob/v3.0.0/sentence_transformers/models/Pooling.py)
/// with `pooling_mode_mean_tokens`, then `Normalize`, but in f64: a sum of 512 f32 values loses the
/// last bits.
fn unit_means(hidden: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
    let (hidden, mask) = (hidden.to_dtype(DType::F64)?, mask.to_dtype(DType::F64)?);
    let sums = hidden.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
    let means = sums.broadcast_div(&mask.sum_keepdim(1)?)?;
    let norms = means.sqr()?.sum_keepdim(1)?.sqrt()?;
    means.broadcast_div(&norms)?.to_dtype(DType::F32)
}
