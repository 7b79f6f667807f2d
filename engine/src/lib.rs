//! Text to 384 floats: a BERT sentence encoder.
//!
//! The crate knows no Postgres and no SQL. An [`Encoder`] is loaded from a model directory
//! (`config.json`, `tokenizer.json`, `model.safetensors` and, if the model has them, the files of
//! sentence-transformers: `sentence_bert_config.json`, `modules.json`, `1_Pooling/config.json`,
//! `config_sentence_transformers.json`). It turns texts into vectors of unit length: the mean over
//! the last hidden states of all tokens, or the one of `[CLS]`, then the L2 norm. The forward pass runs on kernels of its own;
//! [`oracle`] has the forward pass of stock candle, for comparison.
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
mod identity;
mod interrupts;
pub mod memory;
mod model;
pub mod oracle;
mod schedule;
mod selftest;
mod text;

pub use encoder::{Embedding, Encoder, ModelInfo, Options};
pub use error::Error;
pub use forward::number::Precision;
pub use identity::Identity;
pub use model::files::MODEL_FILES;
pub use model::known::{GTE_SMALL_WEIGHTS_SHA256, MINILM_WEIGHTS_SHA256};
pub use model::prompts::Role;
pub use selftest::{Agreement, selftest, texts as selftest_texts};
pub use text::chunks::{Chunk, Chunks};
pub use text::tokenizer::{self, TokenIds};
pub use text::words::Words;

/// Dimensions of an embedding. A model with another hidden size is refused, because the SQL
/// functions return `vector(384)`.
pub const DIMS: usize = 384;
