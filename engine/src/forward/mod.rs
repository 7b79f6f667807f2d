//! The engine's own forward pass: weights packed once, operations fused, batches unpadded.
//!
//! Stock candle runs at 0.3 to 0.5 of the speed of ONNX Runtime. It packs the weights again on each
//! call (63 % of the time for 12 tokens), calls scalar `expf` and `erff`, allocates for every
//! operation and multiplies the padding. Here Q, K and V are one product, and the weights contain
//! the scale of attention. Bias, GELU and residual are computed while a tile is in the cache.
//! Sequences lie end to end without padding. Buffers are kept.
//!
//! The maths is that of Hugging Face's
//! [`modeling_bert.py`](https://github.com/huggingface/transformers/blob/v4.40.0/src/transformers/models/bert/modeling_bert.py).

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod block;
mod entry;
#[cfg(all(test, unix))]
mod guarded;
mod jobs;
mod kernels;
mod layers;
mod math;
mod memory;
pub(crate) mod number;
mod panels;
mod prefetch;
mod shared;
mod simd;
#[cfg(all(test, unix))]
mod tests;
pub(crate) mod tier;

use crate::model::checkpoint::Checkpoint;
use crate::model::config::ModelConfig;
use crate::schedule::team::{Crew, GoOn};
use crate::{DIMS, Error};

use block::{Block, Embeddings};
use layers::GeneralPass;
use tier::{PassKind, Tier};

/// A packed model.
pub(crate) struct Forward {
    embeddings: Embeddings,
    pass: Pass,
}

enum Pass {
    General(GeneralPass),
    #[cfg(target_arch = "x86_64")]
    Amx(amx::AmxPass),
}

impl Forward {
    /// Packs the weights for a tier.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`Error::OutOfMemory`].
    pub fn new(config: &ModelConfig, checkpoint: Checkpoint, tier: Tier) -> Result<Forward, Error> {
        let pass = match tier.pass {
            PassKind::General(kernels) => {
                Pass::General(GeneralPass::new(config, &checkpoint, kernels)?)
            }
            #[cfg(target_arch = "x86_64")]
            PassKind::Amx => Pass::Amx(amx::AmxPass::new(config, &checkpoint)?),
        };
        Ok(Forward { embeddings: Embeddings::new(checkpoint)?, pass })
    }

    /// Embeds the token ids of some texts: `[b]` lists of ids → `[b, 384]` unit vectors. The work
    /// is divided among the threads of the crew. `go_on` is called on the calling thread, with at
    /// most a few milliseconds of work between two calls.
    ///
    /// # Errors
    /// The first error of `go_on`; [`Error::Internal`] for a result that is not finite;
    /// [`Error::OutOfMemory`].
    pub fn run(
        &self,
        texts: &[&[u32]],
        crew: &mut Crew,
        go_on: GoOn,
    ) -> Result<Vec<[f32; DIMS]>, Error> {
        let block = Block::new(texts);
        match &self.pass {
            Pass::General(pass) => pass.run(&self.embeddings, &block, crew, go_on),
            #[cfg(target_arch = "x86_64")]
            Pass::Amx(pass) => pass.run(&self.embeddings, &block, crew, go_on),
        }
    }

    /// The file of the model.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.embeddings.checkpoint
    }
}
