//! Chunks cover their text, fit the model by Hugging Face's count of tokens, and end at good
//! places.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::LazyLock;

use gte_engine::{Chunk, Encoder, Error, Role};
use proptest::prelude::*;
use support::languages::LANGUAGES;
use support::texts::{any_text, cases, long_text, short_text, sliding_text};
use support::{TempDir, TinyModel, go, words};
use tokenizers::Tokenizer;

/// The engine, and the library without truncation.
struct Pair {
    encoder: Encoder,
    library: Tokenizer,
}

static PAIR: LazyLock<Pair> = LazyLock::new(|| pair(&TinyModel::default()));

fn pair(model: &TinyModel) -> Pair {
    let dir = TempDir::with(model);
    let mut library = Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
    library.with_padding(None).with_truncation(None).unwrap();
    Pair { encoder: Encoder::load(dir.path()).unwrap(), library }
}

impl Pair {
    fn library_count(&self, text: &str) -> usize {
        self.library.encode(text, true).unwrap().len()
    }

    fn chunks(&self, text: &str, max_tokens: usize, overlap: usize) -> Vec<Chunk> {
        let mut chunks = self.encoder.chunks(text, max_tokens, overlap).unwrap();
        std::iter::from_fn(|| chunks.next(&mut go).unwrap()).collect()
    }

    fn parts<'t>(&self, text: &'t str, max_tokens: usize) -> Vec<&'t str> {
        self.chunks(text, max_tokens, 0).iter().map(|chunk| &text[chunk.range.clone()]).collect()
    }

    /// Checks what is true for every text.
    fn check(&self, text: &str, max_tokens: usize, overlap: usize) {
        let case = format!("{max_tokens} tokens, overlap {overlap}, of {text:?}");
        assert_eq!(
            self.encoder.count_tokens(Role::Document, text, &mut go).unwrap(),
            self.library_count(text),
            "{case}"
        );
        let chunks = self.chunks(text, max_tokens, overlap);
        assert_eq!(chunks.is_empty(), text.is_empty(), "{case}");
        let mut start = 0;
        let mut end = 0;
        for (i, Chunk { range, tokens }) in chunks.iter().enumerate() {
            let part = &text[range.clone()];
            assert_eq!(*tokens, self.library_count(part), "{part:?} of {case}");
            assert!(*tokens <= max_tokens, "{part:?} of {case}");
            assert!(part.chars().count() <= 32 * max_tokens, "{part:?} of {case}");
            assert!(range.end > end && range.start <= end, "{part:?} of {case}");
            assert!(range.start > start || i == 0, "{part:?} of {case}");
            let repeated = self.library_count(&text[range.start..end]) - 2;
            assert!(repeated <= overlap, "{repeated} repeated by {part:?} of {case}");
            if overlap == 0 {
                assert_eq!(range.start, end, "{part:?} of {case}");
            }
            (start, end) = (range.start, range.end);
        }
        assert_eq!(end, text.len(), "{case}");
    }

    fn check_all(&self, text: &str) {
        for (max_tokens, overlap) in
            [(8, 0), (8, 5), (13, 3), (40, 0), (64, 20), (512, 0), (512, 509)]
        {
            self.check(text, max_tokens, overlap);
        }
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn of_short_texts(text in short_text(), max_tokens in 8..60usize, overlap in 0..60usize) {
        PAIR.check(&text, max_tokens, overlap.min(max_tokens - 3));
    }

    #[test]
    fn of_any_characters(text in any_text(), max_tokens in 8..60usize, overlap in 0..60usize) {
        PAIR.check(&text, max_tokens, overlap.min(max_tokens - 3));
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn of_long_texts(text in long_text(), max_tokens in 8..512usize, part in 0..4usize) {
        PAIR.check(&text, max_tokens, (max_tokens - 3) * part / 8);
    }

    #[test]
    fn of_long_texts_with_a_pattern(text in sliding_text(), max_tokens in 8..512usize, part in 0..4usize) {
        PAIR.check(&text, max_tokens, (max_tokens - 3) * part / 8);
    }
}

#[test]
fn of_texts_in_many_languages() {
    for (language, text) in LANGUAGES {
        println!("{language}: {} tokens", PAIR.library_count(text));
        PAIR.check_all(text);
        PAIR.check_all(&text.replace('\n', "\r\n"));
        PAIR.check_all(&text.split_whitespace().collect::<String>());
        // Long enough for chunks of several sentences.
        PAIR.check_all(&[text; 8].join("\r\n\r\n"));
    }
}

#[test]
fn of_an_empty_text_and_white_space() {
    PAIR.check_all("");
    for blank in [" ", "\n\n", "\u{3000}", "\u{200b}\u{301}", &" ".repeat(256)] {
        PAIR.check_all(blank);
        assert_eq!(PAIR.parts(blank, 8), [blank], "white space is not lost");
    }
    PAIR.check_all(&" ".repeat(20_000));
    assert_eq!(PAIR.parts(" cat \n", 8), [" cat \n"]);
}

#[test]
fn a_text_that_fits_is_one_chunk() {
    let text = words(510);
    assert_eq!(PAIR.chunks(&text, 512, 0), [Chunk { range: 0..text.len(), tokens: 512 }]);
    assert_eq!(PAIR.chunks(&text, 512, 100).len(), 1);
    assert_eq!(PAIR.chunks(&format!("{text} cat"), 512, 0).len(), 2);
    // The model's limit is lower than the given limit.
    assert_eq!(PAIR.chunks(&words(1020), 100_000, 0).len(), 2);
    assert!(PAIR.chunks(&words(1020), usize::MAX, 0).iter().all(|chunk| chunk.tokens == 512));
}

#[test]
fn a_chunk_ends_with_a_sentence() {
    let text = "The cat sat on the mat. The dog sat on the red mat. A stone is in the river.";
    let sentences =
        ["The cat sat on the mat. ", "The dog sat on the red mat. ", "A stone is in the river."];
    for max_tokens in 11..16 {
        assert_eq!(PAIR.parts(text, max_tokens), sentences, "{max_tokens}");
    }
    // Two sentences fit.
    assert_eq!(PAIR.parts(text, 18), [&text[..52], sentences[2]]);
    // Neither a full stop inside a sentence nor the end of a line ends it.
    let lower = "The cat sat (e.g. on the mat) at 3.14 in\nthe data base. The dog too.";
    assert_eq!(PAIR.parts(lower, PAIR.library_count(lower) - 1), [&lower[..56], "The dog too."]);
}

#[test]
fn a_sentence_is_divided_only_if_it_alone_is_too_long() {
    let long = format!("C{}. ", &words(30)[1..]);
    let text = format!("The cat sat. {long}The dog sat.");
    let parts = PAIR.parts(&text, 22);
    assert_eq!(parts[0], "The cat sat. ");
    assert_eq!(parts[1].split_whitespace().count(), 20);
    assert!(parts[1].ends_with(' ') && parts[2].ends_with(". The dog sat."), "{parts:?}");
}

#[test]
fn a_blank_line_in_the_second_half_ends_a_chunk() {
    let paragraph = "The cat sat. The dog sat. The cat sat.\n\n";
    let text = paragraph.repeat(5) + "The end.";
    // Two paragraphs and one sentence of the third fit.
    for part in &PAIR.parts(&text, 30)[..2] {
        assert_eq!(*part, paragraph.repeat(2));
    }
    // A heading alone is no chunk, although a blank line follows it.
    let headed = format!("Data\r\n\r\n{}", "The cat sat on the mat. ".repeat(9));
    assert!(PAIR.parts(&headed, 30)[0].ends_with("mat. "));
}

#[test]
fn lines_end_a_chunk_where_there_are_no_sentences() {
    let line = "cat dog stone river blue\n";
    assert!(
        PAIR.parts(&line.repeat(20), 20).iter().rev().skip(1).all(|part| *part == line.repeat(3))
    );
}

#[test]
fn a_chunk_starts_with_a_word() {
    let text = "don't the cat's (red) mat, 3.14 of data-base ".repeat(20);
    for max_tokens in 12..40 {
        for part in PAIR.parts(&text, max_tokens) {
            assert!(part.ends_with(' ') && !part.starts_with(' '), "{part:?}");
        }
    }
    // In a text without spaces no chunk starts with a comma or a closing bracket.
    let text = "山川（水火）、日本。漢字、".repeat(30);
    for max_tokens in 8..40 {
        for part in PAIR.parts(&text, max_tokens) {
            assert!(part.starts_with(char::is_alphanumeric), "{part:?}");
        }
    }
}

#[test]
fn a_word_is_divided_only_if_it_alone_is_too_long() {
    let letters = "bcdfghjklmnp";
    let text = format!("the cat {letters} the dog");
    assert_eq!(PAIR.library_count(letters), 14);
    assert_eq!(PAIR.parts(&text, 14), ["the cat ", "bcdfghjklmnp ", "the dog"]);
    let parts = PAIR.parts(&text, 8);
    assert_eq!(parts[0], "the cat ");
    assert_eq!(parts[1], &letters[..6]);
}

#[test]
fn a_grapheme_is_not_divided() {
    // A word that is too long, made of one grapheme: a letter with an accent, a syllable, an emoji.
    for grapheme in ["e\u{301}", "한", "👩\u{200d}👩\u{200d}👧"] {
        let text = grapheme.repeat(60);
        for part in PAIR.parts(&text, 8) {
            assert_eq!(part.len() % grapheme.len(), 0, "{part:?}");
        }
    }
}

#[test]
fn the_overlap_is_as_many_whole_words_as_fit() {
    let text = words(100);
    let chunks = PAIR.chunks(&text, 22, 7);
    for pair in chunks.windows(2) {
        assert_eq!(PAIR.library_count(&text[pair[1].range.start..pair[0].range.end]), 7 + 2);
    }
    // Three whole words are repeated, although one more token is allowed.
    let text = "databasing ".repeat(50);
    let each = PAIR.library_count("databasing") - 2;
    let chunks = PAIR.chunks(&text, 40, 3 * each + 1);
    for pair in chunks.windows(2) {
        let repeated = &text[pair[1].range.start..pair[0].range.end];
        assert_eq!(repeated, "databasing ".repeat(3));
    }
}

#[test]
fn limits_without_space_for_new_tokens_are_refused() {
    for (max_tokens, overlap) in [(2, 0), (10, 8), (10, 100), (100_000, 510)] {
        assert!(matches!(PAIR.encoder.chunks("cat", max_tokens, overlap), Err(Error::Internal(_))));
    }
    assert!(PAIR.encoder.chunks("cat", 10, 7).is_ok());
}
