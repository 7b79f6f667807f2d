//! Holds the kernels of a loaded model against stock candle.

use std::ops::ControlFlow;

use crate::encoder::Encoder;
use crate::model::config::ModelConfig;
use crate::model::prompts::Role;
use crate::oracle::{OneThread, StockBert};
use crate::schedule::apart::run_apart;
use crate::{DIMS, Error, memory};

/// Most tokens of a text in the self-test, if the model reads as many.
const MOST_TOKENS: usize = 512;

/// Most memory for candle's attention scores. They grow with the square of the number of tokens:
/// 512 tokens in 12 heads take 13 MB for each of [`COPIES`]. With gte-small's weights, 86 MB, the
/// self-test takes 160 MB.
const SCORES: usize = 64 << 20;

/// Copies of the attention scores and of the feed-forward state that candle has at the same time.
const COPIES: usize = 5;

/// How close vectors are to those of stock candle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Number of texts.
    pub texts: usize,
    /// Least cosine of two vectors of one text. NaN if a vector is not finite.
    pub least_cosine: f64,
    /// Largest difference of a component. NaN if a vector is not finite.
    pub max_abs: f64,
}

impl Default for Agreement {
    fn default() -> Agreement {
        Agreement { texts: 0, least_cosine: 1.0, max_abs: 0.0 }
    }
}

impl Agreement {
    /// Counts a text with its two vectors.
    pub fn add(&mut self, one: &[f32; DIMS], other: &[f32; DIMS]) {
        self.texts += 1;
        // `f64::max` would ignore NaN.
        self.least_cosine = -worst(-self.least_cosine, -cosine(one, other));
        self.max_abs = worst(self.max_abs, difference(one, other));
    }
}

/// Embeds [`texts`] with the kernels of the encoder and with stock candle, which reads the weights
/// from the file that the encoder has open. Candle runs on a thread that ends with this function.
///
/// `go_on` is called as in [`Encoder::embed_batch`], and every 10 ms while candle runs. When it
/// breaks, candle ends after the text that it computes.
///
/// # Errors
/// [`Error::Interrupted`] when `go_on` breaks; [`Error::Corrupt`] when the file of the weights has
/// changed; [`Error::OutOfMemory`] when there is no memory for candle's model;
/// [`Error::NoThread`]; errors of [`Encoder::embed_batch`].
pub fn selftest(
    encoder: &Encoder,
    _: OneThread,
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Agreement, Error> {
    let (config, checkpoint) = (encoder.config(), encoder.checkpoint());
    let limit = most_tokens(config);
    let mut texts: Vec<Vec<u32>> = Vec::new();
    for text in self::texts() {
        let mut ids = encoder.token_ids_interruptible(Role::Document, &text, go_on)?.ids;
        ids.truncate(limit);
        // A tokenizer without specials gives an empty text no token.
        if !ids.is_empty() {
            texts.push(ids);
        }
    }
    let lists: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let embeddings = encoder.embed_ids(&lists, go_on)?;

    let tokens = texts.concat();
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let values = checkpoint.values() + tokens.len() * DIMS + activations(config, longest);
    let bytes = values.saturating_mul(size_of::<f32>());
    let mut go_on = || if go_on().is_break() { Err(Error::Interrupted) } else { Ok(()) };
    // Before the thread starts, whose heap reserves 64 MB of address space if there is so much.
    let hold = memory::hold(bytes)?;
    let stock = run_apart(&mut go_on, |go_on| {
        let stock = StockBert::for_tokens(checkpoint, config, tokens, go_on)?;
        let mut vectors = Vec::with_capacity(lists.len());
        for &ids in &lists {
            go_on()?;
            // One text at a time: a batch would need more memory.
            vectors.append(&mut stock.embed_batch(&[ids])?);
        }
        Ok(vectors)
    })?;
    drop(hold);
    checkpoint.check_unchanged()?;

    let mut agreement = Agreement::default();
    for (embedding, stock) in embeddings.iter().zip(&stock) {
        agreement.add(&embedding.values, stock);
    }
    Ok(agreement)
}

/// Texts in several scripts, from no word to more tokens than any BERT model reads.
pub fn texts() -> Vec<String> {
    let words = "The quick brown fox jumps over the lazy dog while it rains in the valley. ";
    let mut texts: Vec<String> = [
        "",
        "a",
        "cat",
        "How do I see what a query is waiting for?",
        "This framework generates embeddings for each input sentence",
        "  Leading\tand trailing \n white space  ",
        "Größe, naïve café, Ångström, ½ Liter — “quoted”",
        "Быстрая коричневая лиса прыгает через ленивую собаку",
        "素早い茶色の狐がのろまな犬を飛び越える",
        "الثعلب البني السريع يقفز فوق الكلب الكسول",
        "👩‍🚀 emoji 🚀 and\u{200d}joiners \u{0301}",
        "select content from query_embeddings(embed('x'), 0.8) limit 3;",
    ]
    .map(str::to_owned)
    .to_vec();
    // About 50 and 130 tokens, and more than a model reads.
    texts.extend([3, 8, 60].map(|times| words.repeat(times)));
    texts
}

/// Most tokens of a text, so that candle's attention scores stay within [`SCORES`].
fn most_tokens(config: &ModelConfig) -> usize {
    let square = SCORES / (COPIES * size_of::<f32>() * config.heads);
    square.isqrt().clamp(1, MOST_TOKENS)
}

/// Number of values to reserve for candle besides the weights, for a text of this many tokens.
/// Measured were up to 5.1 copies. The C library's heap leaves gaps between them: with 5 copies
/// reserved, a process without more memory was aborted.
fn activations(config: &ModelConfig, tokens: usize) -> usize {
    let widest = (config.heads * tokens).max(config.intermediate);
    (COPIES + 2) * tokens * (widest + 2 * DIMS)
}

/// The larger value; NaN if either is NaN.
fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn difference(a: &[f32; DIMS], b: &[f32; DIMS]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).abs()).fold(0.0, worst)
}

fn cosine(a: &[f32; DIMS], b: &[f32; DIMS]) -> f64 {
    let dot = |a: &[f32; DIMS], b: &[f32; DIMS]| -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
