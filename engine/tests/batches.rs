//! A text has the same bits alone, in any batch and on any number of threads, in every tier.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use gte_engine::{Encoder, Options};
use support::{TempDir, TinyModel, go, tiers};

/// Lengths around the tiles, the blocks and the key blocks of every tier, and the longest.
const LENGTHS: [usize; 14] = [1, 5, 16, 17, 31, 32, 33, 64, 127, 128, 129, 300, 511, 512];

/// A text of this length, the same in each batch.
fn text(length: usize) -> Vec<u32> {
    (0..length).map(|i| 5 + ((i * 7 + length * 3) % 90) as u32).collect()
}

/// Batches that divide into blocks and threads in many ways.
fn batches() -> Vec<Vec<usize>> {
    let short = [17, 1, 16, 5, 31, 33, 32, 5, 17];
    vec![
        LENGTHS.to_vec(),
        short.to_vec(),
        vec![33; 9],
        vec![129, 128, 127],
        vec![512, 1],
        vec![64, 16],
    ]
}

fn compare(model: &TinyModel, numbers: &[usize]) {
    let dir = TempDir::with(model);
    for tier in tiers(dir.path()) {
        let options = Options { kernels: Some(tier.clone()), threads: 1, precision: None };
        let encoder = Encoder::load_with(dir.path(), &options).unwrap();
        let embed = |lengths: &[usize]| {
            let texts: Vec<_> = lengths.iter().map(|&length| text(length)).collect();
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            encoder.embed_ids(&texts, &mut go).unwrap()
        };
        let alone = LENGTHS.map(|length| embed(&[length]).remove(0));
        for &threads in numbers {
            encoder.set_threads(threads);
            let single = [5, 17, 64, 129, 300, 512].map(|length| vec![length]);
            for batch in batches().into_iter().chain(single) {
                for (length, found) in batch.iter().zip(embed(&batch)) {
                    let place = LENGTHS.iter().position(|known| known == length).unwrap();
                    assert!(
                        alone[place] == found,
                        "{tier}, {threads} threads, {length} of {batch:?}"
                    );
                }
            }
        }
        println!("{tier}: {} heads, intermediate {}", model.heads, model.intermediate);
    }
}

#[test]
fn a_text_has_the_same_bits_in_any_batch_on_any_number_of_threads() {
    let model = TinyModel { layers: 2, intermediate: 70, ..TinyModel::default() };
    compare(&model, &[1, 2, 3, 4, 5, 8, 13]);
}

#[test]
fn a_text_has_the_same_bits_with_any_width_of_the_feed_forward_part() {
    // AMX computes 384 columns of the intermediate size at a time.
    for (intermediate, threads) in [(384, [2, 5]), (1536, [3, 13])] {
        compare(&TinyModel { layers: 2, intermediate, ..TinyModel::default() }, &threads);
    }
}

#[test]
fn a_text_has_the_same_bits_with_heads_of_another_size() {
    let model = TinyModel { layers: 2, heads: 6, intermediate: 70, ..TinyModel::default() };
    compare(&model, &[2, 3, 13]);
}
