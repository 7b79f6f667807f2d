//! Models whose weights are finite and extreme. Every bf16 tier gives the result of f32: a vector
//! in the same direction, or an error. No result depends on rounding. One token gets nearly all of
//! the attention, or all tokens get the same. So rounding the factors to 9 bits keeps the cosine at
//! 0.999 or more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;

use gte_engine::{DIMS, Encoder, Error, Options};
use support::tiny_model::Tensors;
use support::{TempDir, TinyModel, cosine, go};

/// Two special tokens. The first is the key of the largest scores of even heads, the second of odd
/// heads.
const HIGH: u32 = 7;
const LOW: u32 = 9;

const QUERY: &str = "encoder.layer.0.attention.self.query";
const KEY: &str = "encoder.layer.0.attention.self.key";
const VALUE: &str = "encoder.layer.0.attention.self.value";
const OUTPUT: &str = "encoder.layer.0.attention.output.dense";
const UP: &str = "encoder.layer.0.intermediate.dense";
const DOWN: &str = "encoder.layer.0.output.dense";

/// Changes the values of a tensor. `change` gets the index and the value.
fn change(tensors: &mut Tensors, name: &str, change: impl Fn(usize, f32) -> f32) {
    let tensor = tensors.get_mut(name).unwrap_or_else(|| panic!("no tensor {name}"));
    for (i, bytes) in tensor.bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let value = change(i, f32::from_le_bytes(*bytes));
        assert!(value.is_finite());
        *bytes = value.to_le_bytes();
    }
}

/// Multiplies weights and biases of a linear layer.
fn scale(tensors: &mut Tensors, layer: &str, factor: f32) {
    for part in ["weight", "bias"] {
        change(tensors, &format!("{layer}.{part}"), |_, value| value * factor);
    }
}

/// Sets the weights of a linear layer to 0, and its biases to a function of their index.
fn only_bias(tensors: &mut Tensors, layer: &str, bias: impl Fn(usize) -> f32) {
    change(tensors, &format!("{layer}.weight"), |_, _| 0.0);
    change(tensors, &format!("{layer}.bias"), |i, _| bias(i));
}

/// Makes scores depend only on the key and on whether the head is even: `±query * key * x / √32`,
/// where x is about 11 for [`HIGH`], -11 for [`LOW`] and within ±2 for all others.
fn scores_of_keys(tensors: &mut Tensors, query: f32, key: f32) {
    let words = "embeddings.word_embeddings.weight";
    change(tensors, words, |i, value| match ((i / DIMS) as u32, i % DIMS) {
        (HIGH, 0) => 8.0,
        (LOW, 0) => -8.0,
        _ => value,
    });
    only_bias(tensors, QUERY, |i| match (i % 32, i / 32 % 2) {
        (0, 0) => query,
        (0, _) => -query,
        _ => 0.0,
    });
    change(tensors, &format!("{KEY}.weight"), |i, _| match (i % DIMS, i / DIMS % 32) {
        (0, 0) => key,
        _ => 0.0,
    });
    change(tensors, &format!("{KEY}.bias"), |_, _| 0.0);
}

/// Texts with one [`HIGH`] and one [`LOW`] token each, except for the first text.
fn texts() -> Vec<Vec<u32>> {
    let others = |length: u32| (0..length).map(move |i| 10 + (i * 7 + length) % 90);
    let mut texts = vec![vec![HIGH]];
    for length in [2, 12, 33, 270] {
        let mut text: Vec<u32> = others(length).collect();
        text[length as usize / 2] = HIGH;
        text[0] = LOW;
        texts.push(text);
    }
    texts
}

/// The vectors of the texts, each embedded alone.
fn outcomes(dir: &Path, kernels: &str, threads: usize) -> Vec<Result<[f32; DIMS], Error>> {
    let options = Options { kernels: Some(kernels.into()), threads, precision: None };
    let encoder = Encoder::load_with(dir, &options).unwrap();
    let embed = |text: &Vec<u32>| Ok(encoder.embed_ids(&[text], &mut go)?[0].values);
    texts().iter().map(embed).collect()
}

/// The required result of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Vectors,
    Errors,
}

fn compare_with(case: &str, wanted: Wanted, activation: &str, damage: impl FnOnce(&mut Tensors)) {
    let dir = TempDir::new();
    TinyModel::default().write_with(dir.path(), damage).unwrap();
    let path = dir.join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("\"gelu\"", &format!("\"{activation}\""))).unwrap();
    let tiers = support::tiers(dir.path());
    let (bf16, f32): (Vec<_>, Vec<_>) = tiers.iter().partition(|tier| tier.ends_with("-bf16"));
    let reference = outcomes(dir.path(), f32[0], 1);
    let f32 = f32[1..].iter().map(|&tier| (tier, 1, 0.99999));
    let bf16 = bf16.iter().flat_map(|&tier| [(tier, 1, 0.999), (tier, 3, 0.999)]);
    for (tier, threads, least) in bf16.chain(f32) {
        let found = outcomes(dir.path(), tier, threads);
        for (i, (found, reference)) in found.iter().zip(&reference).enumerate() {
            let place = format!("{case}, {activation}, {tier}, {threads} threads, text {i}");
            let given = match (found, reference) {
                (Ok(found), Ok(reference)) => {
                    let cosine = cosine(found, reference);
                    assert!(cosine >= least, "{place}: cosine {cosine}");
                    Wanted::Vectors
                }
                (Err(Error::Internal(_)), Err(Error::Internal(_))) => Wanted::Errors,
                (Ok(_), Err(error)) => panic!("{place}: a vector instead of {error}"),
                (Err(error), _) => panic!("{place}: {error}"),
            };
            assert_eq!(given, wanted, "{place}");
        }
    }
}

fn compare(case: &str, wanted: Wanted, damage: impl FnOnce(&mut Tensors)) {
    compare_with(case, wanted, "gelu", damage);
}

#[test]
fn scores_of_any_size_give_the_attention_of_f32() {
    // Scores from ±2 to ±2e38, with the factors in every proportion.
    for [query, key] in [
        [1.0, 1.0],
        [1e2, 1.0],
        [1.0, 1e2],
        [1e2, 1e2],
        [1e3, 1e-3],
        [1e-20, 1e24],
        [1e10, 1e10],
        [1e19, 1e10],
        [1e10, 1e19],
        [1e18, 1e18],
        [8e18, 8e18],
    ] {
        compare(&format!("query {query}, key {key}"), Wanted::Vectors, |tensors| {
            scores_of_keys(tensors, query, key);
        });
    }
}

#[test]
fn equal_scores_of_any_size_give_equal_attention() {
    for bias in [3.0, 1e1, 1e3, 1e9, 1e18] {
        for sign in [1.0, -1.0] {
            compare(&format!("bias {bias}, sign {sign}"), Wanted::Vectors, |tensors| {
                only_bias(tensors, QUERY, |_| bias);
                only_bias(tensors, KEY, |_| sign * bias);
            });
        }
    }
}

#[test]
fn small_and_large_values_are_not_lost() {
    for factor in [1e-25, 1e-15, 1e-5, 1e5, 1e15, 1e30] {
        // Powers near 1, far below 1 and far above 1.
        for bias in [0.0, 1.0, -1.0, 3.0, -3.0, 20.0] {
            compare(&format!("values {factor}, bias {bias}"), Wanted::Vectors, |tensors| {
                only_bias(tensors, QUERY, |_| f32::abs(bias));
                only_bias(tensors, KEY, |_| bias);
                scale(tensors, VALUE, factor);
                change(tensors, &format!("{OUTPUT}.weight"), |_, weight| weight / factor);
            });
        }
        compare(&format!("values {factor}, output as before"), Wanted::Vectors, |tensors| {
            scale(tensors, VALUE, factor);
        });
    }
}

#[test]
fn a_feed_forward_part_of_any_size_gives_what_f32_gives() {
    for activation in ["gelu", "gelu_new", "relu"] {
        for factor in [1e4, -1e4, 1e15, 1e30] {
            let case = format!("intermediate {factor}");
            compare_with(&case, Wanted::Vectors, activation, |tensors| {
                scale(tensors, UP, factor);
                change(tensors, &format!("{DOWN}.weight"), |_, weight| weight / factor);
            });
        }
        for bias in [1e4, -1e4, 1e30, -1e30] {
            compare_with(&format!("bias {bias}"), Wanted::Vectors, activation, |tensors| {
                change(tensors, &format!("{UP}.bias"), |_, _| bias);
                change(tensors, &format!("{DOWN}.weight"), |_, weight| weight / bias.abs());
            });
        }
    }
}

#[test]
fn a_feed_forward_part_that_overflows_is_an_error() {
    for activation in ["gelu", "gelu_new", "relu"] {
        compare_with("infinite intermediate", Wanted::Errors, activation, |tensors| {
            scale(tensors, UP, 1e38);
        });
        // Infinity minus infinity must not become 0.
        compare_with("no intermediate", Wanted::Errors, activation, |tensors| {
            change(tensors, &format!("{UP}.weight"), |i, _| if i % 2 == 0 { 3e38 } else { -3e38 });
        });
    }
}

#[test]
fn layer_norms_of_zero_or_of_any_size_give_what_f32_gives() {
    let norms = ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"];
    for norm in norms {
        for factor in [0.0, 1e-30, 1e-10, 1e8, 1e15, 1e30] {
            compare(&format!("{norm} {factor}"), Wanted::Vectors, |tensors| {
                // Scores do not depend on the norm. Otherwise rounding could move the attention to
                // another token.
                only_bias(tensors, QUERY, |_| 0.1);
                only_bias(tensors, KEY, |_| 0.1);
                change(tensors, &format!("{norm}.LayerNorm.weight"), |_, weight| weight * factor);
            });
        }
    }
    compare("no last hidden state", Wanted::Errors, |tensors| {
        scale(tensors, "encoder.layer.0.output.LayerNorm", 0.0);
    });
}

#[test]
fn a_score_that_overflows_is_an_error() {
    let both = [("inf", 1.0), ("-inf", -1.0)];
    for (case, sign) in both {
        compare(case, Wanted::Errors, |tensors| {
            only_bias(tensors, QUERY, |_| 1e20);
            only_bias(tensors, KEY, |_| sign * 1e20);
        });
    }
    compare("NaN", Wanted::Errors, |tensors| {
        only_bias(tensors, QUERY, |_| 1e20);
        only_bias(tensors, KEY, |i| if i % 2 == 0 { 1e20 } else { -1e20 });
    });
    // In every text, one or two keys have infinite scores. All other scores are finite.
    compare("one infinite score", Wanted::Errors, |tensors| {
        scores_of_keys(tensors, 2e19, 1e19);
    });
}

#[test]
fn a_key_whose_score_is_minus_infinity_has_no_attention() {
    compare("one score of -inf", Wanted::Vectors, |tensors| {
        scores_of_keys(tensors, 2e19, 1e19);
        change(tensors, &format!("{QUERY}.bias"), |_, value| value.max(0.0));
        change(tensors, "embeddings.word_embeddings.weight", |i, value| {
            if i == HIGH as usize * DIMS { 2.5 } else { value }
        });
    });
}

#[test]
fn values_that_overflow_are_an_error() {
    compare("values", Wanted::Errors, |tensors| scale(tensors, VALUE, 1e38));
}
