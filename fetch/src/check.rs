//! `gte-model check`: checks that a model directory gives the right numbers.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use gte_engine::oracle::StockBert;
use gte_engine::{Agreement, DIMS, Embedding, Encoder, Identity, ModelInfo};

use crate::failure::{Failure, Kind};
use crate::published::Published;

/// For f32 results; the published values are rounded to five digits.
const COSINE_TOLERANCE: f64 = 1e-5;

type Vector = [f32; DIMS];

/// One measured quantity and its bound.
#[derive(Debug)]
struct Row {
    what: String,
    measured: f64,
    bound: Bound,
}

#[derive(Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Near(f64),
    /// For a number of cases.
    Zero,
}

impl Row {
    /// False for NaN.
    fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(limit) => self.measured <= limit,
            Bound::AtLeast(limit) => self.measured >= limit,
            Bound::Near(value) => (self.measured - value).abs() <= COSINE_TOLERANCE,
            Bound::Zero => self.measured == 0.0,
        }
    }
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Report {
    heading: String,
    rows: Vec<Row>,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.rows.iter().all(Row::holds)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.heading)?;
        for row in &self.rows {
            let verdict = if row.holds() { "ok" } else { "WRONG" };
            let (measured, bound) = match row.bound {
                Bound::AtMost(limit) => {
                    (format!("{:.1e}", row.measured), format!("<= {limit:.0e}"))
                }
                Bound::AtLeast(limit) => (format!("{:.9}", row.measured), format!(">= {limit}")),
                Bound::Zero => (format!("{}", row.measured), "0".to_owned()),
                Bound::Near(value) => (format!("{:.6}", row.measured), format!("{value} +- 1e-5")),
            };
            writeln!(f, "  {:54} {measured:>12}  {bound:17} {verdict}", row.what)?;
        }
        let wrong = self.rows.iter().filter(|row| !row.holds()).count();
        match wrong {
            0 => writeln!(f, "the model gives the right numbers"),
            _ => writeln!(f, "{wrong} of {} checks failed: do not use this model", self.rows.len()),
        }
    }
}

/// Runs the model in `dir` on built-in texts.
pub fn check(dir: &Path, published: &Published) -> Result<Report, Failure> {
    let failed = |e: gte_engine::Error| broken(dir, &e);
    let encoder = Encoder::load(dir).map_err(failed)?;
    let stock = StockBert::load(dir).map_err(failed)?;
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut rows = agreement(&encoder, &stock, &texts).map_err(failed)?;
    let identity = encoder.identity().map_err(failed)?;
    let is_published = published.weights_sha256() == Some(identity.weights_sha256.as_str());
    if is_published {
        for expected in &published.cosines {
            let [a, b] = &expected.texts;
            let (one, other) = (embed(&encoder, a), embed(&encoder, b));
            let measured = cosine(&one.map_err(failed)?.values, &other.map_err(failed)?.values);
            let what = format!("cosine of \"{}\" and \"{}\"", opening(a), opening(b));
            rows.push(Row { what, measured, bound: Bound::Near(expected.cosine) });
        }
    }
    Ok(Report {
        heading: heading(
            encoder.info(),
            identity,
            texts.len(),
            is_published && !published.cosines.is_empty(),
        ),
        rows,
    })
}

fn heading(
    info: &ModelInfo,
    identity: &Identity,
    texts: usize,
    has_published_values: bool,
) -> String {
    let ModelInfo { layers, max_tokens, .. } = info;
    let Identity { name, pooling, .. } = identity;
    let pooling = if *pooling == "mean" { String::new() } else { format!(", {pooling} pooling") };
    let prompts = [("query", &identity.query_prompt), ("document", &identity.document_prompt)]
        .into_iter()
        .filter(|(_, prompt)| !prompt.is_empty())
        .map(|(role, prompt)| format!(", {role} prompt {prompt:?}"))
        .collect::<String>();
    let published = if has_published_values { "" } else { ", no published values" };
    format!(
        "{name}: {layers} layers, {max_tokens} tokens{pooling}{prompts}, {texts} texts{published}"
    )
}

/// Compares the engine with stock candle, and single texts with a batch of mixed lengths.
fn agreement(
    encoder: &Encoder,
    stock: &StockBert,
    texts: &[&str],
) -> Result<Vec<Row>, gte_engine::Error> {
    let mut to_stock = Agreement::default();
    let mut to_batch = Agreement::default();
    let mut largest_norm_error = 0f64;
    let mut miscounted = 0usize;
    let batch = encoder.embed_batch(texts, &mut || ControlFlow::Continue(()))?;
    for (text, in_batch) in texts.iter().zip(&batch) {
        let single = embed(encoder, text)?;
        let ids = encoder.token_ids(text)?;
        // One text per call, so that the oracle does not pad: padding is not compared here.
        for reference in stock.embed_batch(&[&ids.ids])? {
            to_stock.add(&single.values, &reference);
        }
        to_batch.add(&single.values, &in_batch.values);
        // `max` would ignore NaN.
        largest_norm_error = worst(largest_norm_error, (norm(&single.values) - 1.0).abs());
        let reported = (single.tokens, single.truncated);
        miscounted += usize::from(reported != (ids.ids.len(), ids.truncated));
    }
    let row = |what: &str, measured, bound| Row { what: what.to_owned(), measured, bound };
    Ok(vec![
        row("largest difference to stock candle", to_stock.max_abs, Bound::AtMost(1e-5)),
        row("smallest cosine to stock candle", to_stock.least_cosine, Bound::AtLeast(0.999999)),
        row("largest difference single / batch", to_batch.max_abs, Bound::AtMost(1e-6)),
        row("largest difference of the norm from 1", largest_norm_error, Bound::AtMost(1e-6)),
        row("texts with a wrong number of tokens", miscounted as f64, Bound::Zero),
    ])
}

/// The texts of the self-test, and two of about 250 and 510 tokens, just below the limits of most
/// models.
fn texts() -> Vec<String> {
    let words = "The quick brown fox jumps over the lazy dog while it rains in the valley. ";
    let mut texts = gte_engine::selftest_texts();
    texts.extend([16, 32].map(|times| words.repeat(times)));
    texts
}

fn embed(encoder: &Encoder, text: &str) -> Result<Embedding, gte_engine::Error> {
    encoder.embed(text, &mut || ControlFlow::Continue(()))
}

/// The larger value; NaN if either is NaN.
fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

fn norm(a: &Vector) -> f64 {
    dot(a, a).sqrt()
}

fn cosine(a: &Vector, b: &Vector) -> f64 {
    dot(a, b) / (norm(a) * norm(b))
}

fn opening(text: &str) -> String {
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn broken(dir: &Path, error: &gte_engine::Error) -> Failure {
    Failure::new(
        Kind::Other,
        format!("the model in {} cannot be used: {error}", dir.display()),
        "so nothing was checked",
        "download it again with `make model`, or name a directory that holds config.json, \
         tokenizer.json and model.safetensors",
    )
}
