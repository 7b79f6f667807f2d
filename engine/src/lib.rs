//! Text to 384 floats: a BERT sentence encoder on candle.
//!
//! The crate knows no Postgres, no SQL and has no global state. An [`Encoder`] is loaded from a
//! model directory (`config.json`, `tokenizer.json`, `model.safetensors` and, where the model has
//! one, `sentence_bert_config.json`) and turns texts into unit-length vectors: masked mean over the
//! last hidden state, then the L2 norm.
//!
//! ```no_run
//! # use std::{ops::ControlFlow, path::Path};
//! let encoder = gte_engine::Encoder::load(Path::new("models/gte-small"))?;
//! let embedding = encoder.embed("a cat sat on the mat", &mut || ControlFlow::Continue(()))?;
//! assert_eq!(embedding.values.len(), gte_engine::DIMS);
//! # Ok::<(), gte_engine::Error>(())
//! ```

mod encoder;
mod error;
mod forward;
mod interrupts;
mod model;
pub mod oracle;
mod schedule;
mod text;

pub use encoder::{Embedding, Encoder, Identity, ModelInfo, Options};
pub use error::Error;
pub use forward::tier::Precision;
pub use model::known::{GTE_SMALL_WEIGHTS_SHA256, MINILM_WEIGHTS_SHA256};
pub use text::chunks::{Chunk, Chunks};
pub use text::tokenizer::{self, TokenIds};

/// Dimensions of an embedding. The SQL type `vector(384)` is built on it, so a model with any
/// other hidden size is refused when it is loaded.
pub const DIMS: usize = 384;
