//! What identifies a model.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::model::checkpoint::hex;
use crate::model::config::ModelConfig;
use crate::model::known;
use crate::model::pooling::Pooling;

/// Identifies a model.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of a known model, otherwise name of the directory.
    pub name: String,
    /// sha256 over weights, tokenizer, token limit, pooling and prompts, 64 hexadecimal digits.
    /// Vectors with equal fingerprints can be compared.
    pub fingerprint: String,
    /// sha256 of `model.safetensors`.
    pub weights_sha256: String,
    /// Cosine above which two texts usually have the same subject; `None` for an unknown model.
    pub suggested_threshold: Option<f64>,
    /// How hidden states become a vector: `mean` or `cls`.
    pub pooling: &'static str,
    /// What the model reads before a query, and before a document; empty for most models.
    pub query_prompt: String,
    /// See `query_prompt`.
    pub document_prompt: String,
}

impl Identity {
    pub(crate) fn new(
        dir: &Path,
        weights_sha256: &str,
        tokenizer_sha256: &str,
        config: &ModelConfig,
    ) -> Identity {
        let known = known::by_weights(weights_sha256);
        Identity {
            name: match &known {
                Some(known) => known.name.to_owned(),
                None => directory_name(dir),
            },
            fingerprint: fingerprint(weights_sha256, tokenizer_sha256, config),
            weights_sha256: weights_sha256.to_owned(),
            suggested_threshold: known.map(|known| known.suggested_threshold),
            pooling: config.pooling.name(),
            query_prompt: config.prompts.query.clone(),
            document_prompt: config.prompts.document.clone(),
        }
    }
}

fn directory_name(dir: &Path) -> String {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

/// A model with mean pooling and without prompts has the fingerprint that it had when there was
/// nothing else.
fn fingerprint(weights_sha256: &str, tokenizer_sha256: &str, config: &ModelConfig) -> String {
    let ModelConfig { max_tokens, pooling, prompts, .. } = config;
    let mut text = format!(
        "weights {weights_sha256}\ntokenizer {tokenizer_sha256}\nmax_tokens {max_tokens}\n"
    );
    if *pooling != Pooling::Mean {
        text += &format!("pooling {}\n", pooling.name());
    }
    if !prompts.are_empty() {
        // In hexadecimal, because a prompt can contain line breaks.
        let (query, document) = (hex(prompts.query.as_bytes()), hex(prompts.document.as_bytes()));
        text += &format!("query_prompt {query}\ndocument_prompt {document}\n");
    }
    hex(&Sha256::digest(text))
}
