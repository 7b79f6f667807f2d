//! A BERT with random weights, small enough to be made in each test: hidden size 384, one layer, 12
//! heads. Benchmarks make one of gte-small's shape: the time does not depend on the weights.
//!
//! Every weight is a multiple of a power of two that F16 represents exactly. So the F32 and the F16
//! file of one seed are the same model and must give the same vectors.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

pub const HIDDEN: usize = 384;
pub const INTERMEDIATE: usize = 64;

/// The properties of the model and its files.
#[derive(Clone, Debug)]
pub struct TinyModel {
    /// The same seed gives the same bytes on any machine.
    pub seed: u64,
    /// Weights in F16 instead of F32.
    pub f16: bool,
    /// Names start with `bert.`, as in checkpoints of a model with a head.
    pub bert_prefix: bool,
    /// With `pooler.dense`, which the engine must ignore.
    pub pooler: bool,
    /// With `embeddings.position_ids` in I64, which the engine must ignore.
    pub position_ids: bool,
    /// `max_seq_length` of sentence_bert_config.json; `None` writes no such file.
    pub max_tokens: Option<usize>,
    /// Number of positions.
    pub positions: usize,
    /// Number of encoder layers.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Number of word embeddings. No text has the ids above those of [`vocabulary`].
    pub words: usize,
    /// The pooling of 1_Pooling/config.json, written together with modules.json; `None` writes
    /// neither.
    pub pooling: Option<&'static str>,
    /// The prompts of config_sentence_transformers.json, by name; without any there is no such file.
    pub prompts: &'static [(&'static str, &'static str)],
}

impl TinyModel {
    /// The shape of gte-small: 12 layers, a feed-forward width of 1536, 30522 word embeddings.
    pub fn like_gte_small() -> TinyModel {
        TinyModel { layers: 12, intermediate: 1536, words: 30522, ..TinyModel::default() }
    }
}

impl Default for TinyModel {
    fn default() -> Self {
        TinyModel {
            seed: 1,
            f16: false,
            bert_prefix: false,
            pooler: false,
            position_ids: false,
            max_tokens: Some(512),
            positions: 512,
            layers: 1,
            heads: 12,
            intermediate: INTERMEDIATE,
            words: vocabulary().len(),
            pooling: None,
            prompts: &[],
        }
    }
}

/// One tensor before it is serialized.
pub struct TensorData {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// Tensors by name. Their order in the file is that of the safetensors library.
pub type Tensors = BTreeMap<String, TensorData>;

impl TinyModel {
    /// Writes the files into `dir`. Creates `dir` if it does not exist.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        self.write_with(dir, |_| ())
    }

    /// As [`TinyModel::write`]. `damage` changes the tensors before they are written.
    pub fn write_with(&self, dir: &Path, damage: impl FnOnce(&mut Tensors)) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let mut tensors = self.tensors();
        damage(&mut tensors);
        let views = tensors.iter().map(|(name, tensor)| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)
                .map_err(io::Error::other)?;
            Ok((name.clone(), view))
        });
        let views = views.collect::<io::Result<Vec<_>>>()?;
        let file = safetensors::serialize(views, None).map_err(io::Error::other)?;
        std::fs::write(dir.join("model.safetensors"), file)?;
        write_json(&dir.join("config.json"), &self.config())?;
        write_json(&dir.join("tokenizer.json"), &tokenizer())?;
        if let Some(max_tokens) = self.max_tokens {
            let config = json!({ "max_seq_length": max_tokens, "do_lower_case": false });
            write_json(&dir.join("sentence_bert_config.json"), &config)?;
        }
        if let Some(pooling) = self.pooling {
            std::fs::create_dir_all(dir.join("1_Pooling"))?;
            write_json(&dir.join("1_Pooling/config.json"), &pooling_config(pooling))?;
            write_json(&dir.join("modules.json"), &modules())?;
        }
        if !self.prompts.is_empty() {
            let prompts: BTreeMap<_, _> = self.prompts.iter().copied().collect();
            let config = json!({ "prompts": prompts, "default_prompt_name": null });
            write_json(&dir.join("config_sentence_transformers.json"), &config)?;
        }
        Ok(())
    }

    fn config(&self) -> Value {
        json!({
            "architectures": ["BertModel"],
            "model_type": "bert",
            "vocab_size": self.words,
            "hidden_size": HIDDEN,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": self.positions,
            "type_vocab_size": 2,
            "pad_token_id": 0,
            "position_embedding_type": "absolute",
        })
    }

    fn tensors(&self) -> Tensors {
        let mut random = Random(self.seed);
        let mut tensors = Tensors::new();
        let mut add = |name: &str, shape: &[usize], centre: f32, spread: f32| {
            let bytes = (0..shape.iter().product())
                .flat_map(|_| self.encode(centre + spread * random.step()))
                .collect();
            let prefix = if self.bert_prefix { "bert." } else { "" };
            let dtype = if self.f16 { Dtype::F16 } else { Dtype::F32 };
            tensors.insert(
                format!("{prefix}{name}"),
                TensorData { dtype, shape: shape.to_vec(), bytes },
            );
        };
        // The spreads are powers of two (see the top) at which the states keep their size: the sum
        // of 384 products of a state of unit variance and weights within ±1/8 has a standard
        // deviation of 1.4.
        add("embeddings.word_embeddings.weight", &[self.words, HIDDEN], 0.0, 1.0);
        add("embeddings.position_embeddings.weight", &[self.positions, HIDDEN], 0.0, 0.25);
        add("embeddings.token_type_embeddings.weight", &[2, HIDDEN], 0.0, 0.25);
        add("embeddings.LayerNorm.weight", &[HIDDEN], 1.0, 0.25);
        add("embeddings.LayerNorm.bias", &[HIDDEN], 0.0, 0.25);
        for layer in 0..self.layers {
            let layer = format!("encoder.layer.{layer}");
            for (part, output, input) in [
                ("attention.self.query", HIDDEN, HIDDEN),
                ("attention.self.key", HIDDEN, HIDDEN),
                ("attention.self.value", HIDDEN, HIDDEN),
                ("attention.output.dense", HIDDEN, HIDDEN),
                ("intermediate.dense", self.intermediate, HIDDEN),
                ("output.dense", HIDDEN, self.intermediate),
            ] {
                add(&format!("{layer}.{part}.weight"), &[output, input], 0.0, 0.125);
                add(&format!("{layer}.{part}.bias"), &[output], 0.0, 0.125);
            }
            for part in ["attention.output", "output"] {
                add(&format!("{layer}.{part}.LayerNorm.weight"), &[HIDDEN], 1.0, 0.25);
                add(&format!("{layer}.{part}.LayerNorm.bias"), &[HIDDEN], 0.0, 0.25);
            }
        }
        if self.pooler {
            add("pooler.dense.weight", &[HIDDEN, HIDDEN], 0.0, 0.125);
            add("pooler.dense.bias", &[HIDDEN], 0.0, 0.125);
        }
        if self.position_ids {
            let prefix = if self.bert_prefix { "bert." } else { "" };
            let ids = (0..self.positions as i64).flat_map(i64::to_le_bytes).collect();
            tensors.insert(
                format!("{prefix}embeddings.position_ids"),
                TensorData { dtype: Dtype::I64, shape: vec![1, self.positions], bytes: ids },
            );
        }
        tensors
    }

    fn encode(&self, value: f32) -> Vec<u8> {
        if self.f16 { f16_bits(value).to_le_bytes().to_vec() } else { value.to_le_bytes().to_vec() }
    }
}

/// 1_Pooling/config.json of version 2 to 5 of sentence-transformers: a flag for each kind.
pub fn pooling_config(pooling: &str) -> Value {
    json!({
        "word_embedding_dimension": HIDDEN,
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean",
        "pooling_mode_max_tokens": pooling == "max",
        "pooling_mode_mean_sqrt_len_tokens": false,
        "pooling_mode_weightedmean_tokens": false,
        "pooling_mode_lasttoken": pooling == "lasttoken",
        "include_prompt": true,
    })
}

/// modules.json of a model whose vectors have unit length.
pub fn modules() -> Value {
    let module = |idx: usize, path: &str, class: &str| {
        json!({ "idx": idx, "name": idx.to_string(), "path": path,
                "type": format!("sentence_transformers.models.{class}") })
    };
    json!([
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        module(2, "2_Normalize", "Normalize"),
    ])
}

/// The F16 bits of a value that F16 represents exactly. Panics for other values.
fn f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    if value == 0.0 {
        return sign;
    }
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let fraction = bits & 0x7f_ffff;
    assert!((-14..=15).contains(&exponent) && fraction & 0x1fff == 0, "{value} is no exact F16");
    sign | ((exponent + 15) as u16) << 10 | (fraction >> 13) as u16
}

/// splitmix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of the 511 multiples of 1/256 between −1 and 1.
    fn step(&mut self) -> f32 {
        ((self.next() % 511) as f32 - 255.0) / 256.0
    }
}

/// The vocabulary in the order of ids: specials, single characters (also as continuations),
/// punctuation, words.
pub fn vocabulary() -> Vec<String> {
    let mut tokens: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from).into();
    let letters = ('a'..='z').chain('0'..='9').chain("ßıøđłæœ".chars());
    let greek_cyrillic = ('α'..='ω').chain('а'..='я').chain("іјђ".chars());
    // NFD decomposes Hangul syllables and voiced kana, so the vocabulary needs their parts.
    let hangul =
        ('\u{1100}'..='\u{1112}').chain('\u{1161}'..='\u{1175}').chain('\u{11a8}'..='\u{11c2}');
    let others = "かきくけこはひふへほアイウエオשלוםابتثกขคคनमस".chars();
    let mut seen = std::collections::BTreeSet::new();
    for character in letters.chain(greek_cyrillic).chain(hangul).chain(others) {
        if seen.insert(character) {
            tokens.push(character.to_string());
            tokens.push(format!("##{character}"));
        }
    }
    let punctuation = ('!'..='~')
        .filter(|c| c.is_ascii_punctuation())
        .chain("。、“”–…¿€🚀漢字水火山川日本".chars());
    tokens.extend(punctuation.map(String::from));
    tokens.extend("the a of and to in is cat dog sat on mat red blue stone river un ##ing ##ed ##ness data ##base search".split(' ').filter(|word| word.chars().count() > 1).map(String::from));
    tokens
}

/// tokenizer.json like the real ones, with the truncation and the padding (128) that the engine
/// must ignore.
fn tokenizer() -> Value {
    let vocabulary = vocabulary();
    let ids: serde_json::Map<String, Value> =
        vocabulary.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    assert_eq!(ids.len(), vocabulary.len(), "a token is in the vocabulary twice");
    let added: Vec<Value> = vocabulary[..5]
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({ "id": id, "content": token, "special": true, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false })
        })
        .collect();
    let special =
        |token: &str, type_id: u8| json!({ "SpecialToken": { "id": token, "type_id": type_id } });
    let sequence = |id: &str, type_id: u8| json!({ "Sequence": { "id": id, "type_id": type_id } });
    json!({
        "version": "1.0",
        "truncation": { "max_length": 128, "strategy": "LongestFirst", "stride": 0, "direction": "Right" },
        "padding": { "strategy": { "Fixed": 128 }, "direction": "Right", "pad_to_multiple_of": null,
                     "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]" },
        "added_tokens": added,
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                        "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)],
            "pair": [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0),
                     sequence("B", 1), special("[SEP]", 1)],
            "special_tokens": {
                "[CLS]": { "id": "[CLS]", "ids": [2], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [3], "tokens": ["[SEP]"] },
            },
        },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": ids },
    })
}

fn write_json(path: &Path, value: &Value) -> io::Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(value)?)
}
