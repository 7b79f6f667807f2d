//! A chunk has a bound of characters, whatever the text is made of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::ops::ControlFlow;

use gte_engine::{Chunk, Encoder};
use proptest::prelude::*;
use support::texts::{cases, fragment};
use support::{TinyModel, load, words};

fn chunks(encoder: &Encoder, text: &str, max_tokens: usize, overlap: usize) -> (Vec<Chunk>, usize) {
    let mut calls = 0;
    let mut go_on = || {
        calls += 1;
        ControlFlow::Continue(())
    };
    let mut reader = encoder.chunks(text, max_tokens, overlap).unwrap();
    let chunks = std::iter::from_fn(|| reader.next(&mut go_on).unwrap()).collect();
    (chunks, calls)
}

fn parts<'t>(encoder: &Encoder, text: &'t str, max_tokens: usize) -> Vec<&'t str> {
    let (chunks, _) = chunks(encoder, text, max_tokens, 0);
    chunks.iter().map(|chunk| &text[chunk.range.clone()]).collect()
}

#[test]
fn joined_characters_are_divided_into_parts_that_the_model_reads() {
    let encoder = load(&TinyModel::default());
    let (chunks, _) = chunks(&encoder, &"cat".repeat(1000), 512, 0);
    assert_eq!(chunks.len(), 30);
    for Chunk { range, tokens } in chunks {
        assert_eq!(range.len(), 100);
        assert!(tokens > 30, "a part of a word is read: {tokens}");
    }
}

#[test]
fn the_last_part_of_a_word_goes_with_the_text_after_it() {
    let encoder = load(&TinyModel::default());
    let text = format!("The cat sat. {} The dog sat.", "a".repeat(1030));
    let parts = parts(&encoder, &text, 512);
    assert_eq!(parts.len(), 12, "{parts:?}");
    assert_eq!(parts[0], "The cat sat. ");
    assert_eq!(parts[11], format!("{} The dog sat.", "a".repeat(30)));
}

#[test]
fn a_checksum_does_not_end_a_chunk() {
    let encoder = load(&TinyModel::default());
    let line = format!("{}  {}", "0123456789abcdef".repeat(60), "cat.dog\n");
    let text = line.repeat(16);
    assert_eq!(parts(&encoder, &text, 512), [text.as_str()]);
    let marked = format!("the ca{}t sat", "\u{301}".repeat(1200));
    assert_eq!(parts(&encoder, &marked, 512), [marked.as_str()], "the model reads three letters");
}

#[test]
fn white_space_between_words_is_divided_where_there_is_too_much_of_it() {
    let encoder = load(&TinyModel::default());
    let blank = " ".repeat(100);
    let text = format!("the{blank} cat{blank} sat{blank} on{blank} the");
    assert_eq!(parts(&encoder, &text, 8).len(), 2, "two words fit, each with its white space");
    let text = format!("{0}the{0}cat\n{0}", " ".repeat(40_000));
    for part in parts(&encoder, &text, 512) {
        assert!(part.len() <= 512 * 32, "{}", part.len());
    }
}

/// A letter, a kind of white space, a mark, a syllable of three letters, an ideograph, punctuation,
/// an emoji of several characters.
const RUNS: [&str; 9] =
    ["ab", " ", "\u{301}", "e\u{301}", "\u{d55c}", "漢", "-", "\u{3000}", "👩\u{200d}👧"];

#[test]
fn the_work_is_linear_in_the_length() {
    let encoder = load(&TinyModel::default());
    for run in RUNS {
        for max_tokens in [8, 100, 512] {
            let work = |times: usize| chunks(&encoder, &run.repeat(times), max_tokens, 0);
            let ((few, work_of_few), (many, work_of_many)) = (work(20_000), work(80_000));
            assert!(
                many.len() <= 4 * few.len() + 4 && work_of_many <= 4 * work_of_few + 40,
                "{run:?}, {max_tokens} tokens: {} chunks with {work_of_few} calls, then {} with {work_of_many}",
                few.len(),
                many.len()
            );
        }
    }
}

/// Fragments that are repeated often enough for words and blanks of any length.
fn text_of_runs() -> impl Strategy<Value = String> {
    let times = prop_oneof![3 => 1..3usize, 2 => 80..400usize, 2 => 900..4000usize];
    let run = (fragment(), times).prop_map(|(part, times)| part.repeat(times));
    proptest::collection::vec(run, 1..10).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn no_character_is_lost_or_twice(text in text_of_runs(), max_tokens in 8..512usize, part in 0..3usize) {
        let encoder = load(&TinyModel::default());
        let overlap = (max_tokens - 3) * part / 4;
        let (chunks, _) = chunks(&encoder, &text, max_tokens, overlap);
        let mut end = 0;
        for Chunk { range, tokens } in chunks {
            assert!(tokens <= max_tokens);
            assert!(text[range.clone()].chars().count() <= 32 * max_tokens);
            assert!(range.start <= end && end < range.end);
            assert!(overlap > 0 || range.start == end);
            end = range.end;
        }
        assert_eq!(end, text.len());
    }
}

#[test]
fn a_text_of_words_is_divided_by_its_tokens_alone() {
    let encoder = load(&TinyModel::default());
    for part in parts(&encoder, &words(3000), 302).iter().rev().skip(1) {
        assert_eq!(part.split_whitespace().count(), 300);
    }
}
