//! The stock candle forward pass: `candle_transformers::models::bert` on padded ids.
//!
//! It is what the engine's own forward pass is compared with, in tests, by `gte-model check` and in
//! benchmarks; nothing else runs it.

use std::path::Path;

use candle_core::{Device, Tensor};
use candle_transformers::models::bert::BertModel;

use crate::model::checkpoint::Weights;
use crate::model::config::ModelConfig;
use crate::model::files::ModelFiles;
use crate::{DIMS, Error};

/// BERT with masked mean pooling and the L2 norm.
///
/// Pooling as in sentence-transformers'
/// [`Pooling`](https://github.com/UKPLab/sentence-transformers/blob/v3.0.0/sentence_transformers/models/Pooling.py)
/// with `pooling_mode_mean_tokens`: the sum of the hidden states of all real tokens, specials
/// included, over their number.
pub struct StockBert {
    model: BertModel,
}

impl StockBert {
    /// Loads `config.json` and `model.safetensors` of a model directory.
    pub fn load(dir: &Path) -> Result<StockBert, Error> {
        let files = ModelFiles::locate(dir)?;
        let config = ModelConfig::read(&files)?;
        let weights = Weights::open(&files.weights, &config)?.var_builder()?;
        let model = BertModel::load(weights, &config.for_candle()).map_err(Error::internal)?;
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
        let hidden = self.hidden_states(batch, longest).map_err(Error::internal)?;
        batch
            .iter()
            .enumerate()
            .map(|(row, ids)| {
                let states = &hidden[row * longest * DIMS..][..ids.len() * DIMS];
                mean_and_normalise(states)
            })
            .collect()
    }

    /// The last hidden state, `[b, s, 384]` flattened.
    fn hidden_states(&self, batch: &[&[u32]], longest: usize) -> candle_core::Result<Vec<f32>> {
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
        hidden.flatten_all()?.to_vec1()
    }
}

/// Mean of the rows of `[s, 384]`, scaled to unit length. Sums in f64: a sum of 512 f32 values
/// would lose the last bits that the reference's blocked summation keeps.
pub(crate) fn mean_and_normalise(states: &[f32]) -> Result<[f32; DIMS], Error> {
    let mut sums = [0f64; DIMS];
    for row in states.as_chunks::<DIMS>().0 {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }
    // The mean's divisor cancels in the norm.
    let norm = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    if !(norm.is_finite() && norm > 0.0) {
        return Err(Error::internal("the hidden state is not finite"));
    }
    Ok(sums.map(|sum| (sum / norm) as f32))
}
