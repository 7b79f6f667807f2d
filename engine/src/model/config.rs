//! Reads the configuration of a model and checks that the engine can run it.

use serde::Deserialize;

use crate::model::files::{ModelFiles, read_config, read_optional};
use crate::model::modules;
use crate::model::pooling::Pooling;
use crate::model::prompts::Prompts;
use crate::{DIMS, Error};

/// Most positions of a model. The encoders that the engine is made for have 512. A forward pass
/// over 2048 tokens needs 28 MB of memory for each thread.
const MAX_POSITIONS: usize = 2048;

/// Largest sizes that are accepted. A larger number is taken for an error in the file.
const MAX_LAYERS: usize = 96;
const MAX_VOCABULARY: usize = 2_000_000;
const MAX_INTERMEDIATE: usize = 65_536;

/// The fields of `config.json` that change the forward pass, with Hugging Face's defaults.
#[derive(Deserialize)]
struct ConfigFile {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "bert_eps")]
    layer_norm_eps: f64,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    model_type: Option<String>,
}

#[derive(Deserialize)]
struct SentenceConfigFile {
    max_seq_length: Option<usize>,
}

fn two() -> usize {
    2
}

fn bert_eps() -> f64 {
    1e-12
}

/// The function between the two linear layers of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// The erf form, which BERT calls "gelu".
    Gelu,
    /// The tanh approximation.
    GeluTanh,
    Relu,
}

/// A checked configuration: the engine can allocate memory for each of its sizes.
#[derive(Clone, Debug)]
pub(crate) struct ModelConfig {
    pub vocab_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate: usize,
    pub activation: Activation,
    pub positions: usize,
    pub token_types: usize,
    pub layer_norm_eps: f64,
    /// Most tokens of a text that the model reads, specials included.
    pub max_tokens: usize,
    pub pooling: Pooling,
    pub prompts: Prompts,
}

impl ModelConfig {
    /// Reads and checks `config.json` and the files of sentence-transformers. Without the latter
    /// the number of positions is the limit of tokens, the pooling is the mean, and there are no
    /// prompts.
    pub fn read(files: &ModelFiles) -> Result<ModelConfig, Error> {
        let path = &files.config;
        let file: ConfigFile = read_config(path)?;
        let unsupported = |reason: String| Err(Error::unsupported(path, reason));

        if let Some(model_type) = file.model_type.as_deref()
            && model_type != "bert"
        {
            return unsupported(format!(
                "model_type is \"{model_type}\", only \"bert\" is supported"
            ));
        }
        if file.hidden_size != DIMS {
            return unsupported(format!("hidden_size is {}, it must be {DIMS}", file.hidden_size));
        }
        if let Some(kind) = file.position_embedding_type.as_deref()
            && kind != "absolute"
        {
            return unsupported(format!(
                "position_embedding_type is \"{kind}\", only \"absolute\" is supported"
            ));
        }
        let activation = match file.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => return unsupported(format!("hidden_act is \"{other}\"")),
        };
        for (name, value, most) in [
            ("vocab_size", file.vocab_size, MAX_VOCABULARY),
            ("num_hidden_layers", file.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", file.num_attention_heads, DIMS),
            ("intermediate_size", file.intermediate_size, MAX_INTERMEDIATE),
            ("max_position_embeddings", file.max_position_embeddings, MAX_POSITIONS),
            ("type_vocab_size", file.type_vocab_size, MAX_POSITIONS),
        ] {
            if value == 0 || value > most {
                return unsupported(format!("{name} is {value}, it must be from 1 to {most}"));
            }
        }
        if !DIMS.is_multiple_of(file.num_attention_heads) {
            return unsupported(format!(
                "num_attention_heads is {}, it must divide {DIMS}",
                file.num_attention_heads
            ));
        }
        if !file.intermediate_size.is_multiple_of(2) {
            return unsupported(format!(
                "intermediate_size is {}, it must be even",
                file.intermediate_size
            ));
        }
        if !(file.layer_norm_eps > 0.0 && file.layer_norm_eps < 1.0) {
            return Err(Error::corrupt(
                path,
                format_args!("layer_norm_eps is {}", file.layer_norm_eps),
            ));
        }
        let prompts = Prompts::read(files)?;
        Ok(ModelConfig {
            vocab_size: file.vocab_size,
            layers: file.num_hidden_layers,
            heads: file.num_attention_heads,
            intermediate: file.intermediate_size,
            activation,
            positions: file.max_position_embeddings,
            token_types: file.type_vocab_size,
            layer_norm_eps: file.layer_norm_eps,
            max_tokens: max_tokens(files, file.max_position_embeddings)?,
            pooling: modules::read_pooling(files, &prompts)?,
            prompts,
        })
    }
}

fn max_tokens(files: &ModelFiles, positions: usize) -> Result<usize, Error> {
    let path = &files.sentence_config;
    let Some(file) = read_optional::<SentenceConfigFile>(path)? else {
        return Ok(positions);
    };
    let max_tokens = file.max_seq_length.unwrap_or(positions);
    // At least two specials and one token of text.
    if max_tokens < 3 || max_tokens > positions {
        return Err(Error::corrupt(
            path,
            format_args!("max_seq_length is {max_tokens}, it must be from 3 to {positions}"),
        ));
    }
    Ok(max_tokens)
}
