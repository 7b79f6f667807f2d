//! A `tokenizer.json` that is too large is refused before it is loaded. One within the limits is
//! loaded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fmt::Write as _;

use gte_engine::{Encoder, Error, Role};
use serde_json::{Value, json};
use support::{TempDir, TinyModel, go};

fn added(id: usize, content: String) -> Value {
    json!({ "id": id, "content": content, "special": false, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false })
}

fn with_added(count: usize) -> TempDir {
    TempDir::with_tokenizer(|tokenizer| {
        let tokens = tokenizer["added_tokens"].as_array_mut().unwrap();
        tokens.extend((0..count).map(|i| added(1000 + i, format!("<{i}>"))));
    })
}

/// The error of loading `dir`, and the growth of the peak memory in MB.
fn refused(dir: &TempDir) -> (String, usize) {
    let before = peak();
    let Err(error) = Encoder::load(dir.path()) else { panic!("it loads") };
    assert!(matches!(error, Error::Unsupported { .. } | Error::Corrupt { .. }), "{error:?}");
    assert_eq!(error.path(), Some(dir.join("tokenizer.json").as_path()));
    (error.to_string(), (peak() - before) >> 20)
}

/// Peak resident memory of this process in bytes; 0 if the system does not have it.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024)
}

#[test]
fn a_million_added_tokens_are_refused() {
    // 120 MB in the usual format: larger than the largest file that is read.
    let dir = with_added(1_000_000);
    let size = std::fs::metadata(dir.join("tokenizer.json")).unwrap().len();
    assert!(size > 100 << 20, "{size}");
    let (message, _) = refused(&dir);
    assert!(message.contains("tokenizer.json") && message.contains(&size.to_string()), "{message}");
    // A million in the shortest form that the library reads, so that the file itself is read.
    for count in [1_000_000, 300_000, 10_001] {
        let dir = TempDir::with(&TinyModel::default());
        let path = dir.join("tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut tokens = String::new();
        for i in 0..count {
            write!(tokens, "{{\"id\":{i},\"content\":\"<{i}>\"}},").unwrap();
        }
        let changed =
            text.replacen("\"added_tokens\": [", &format!("\"added_tokens\": [{tokens}"), 1);
        assert_ne!(changed, text);
        std::fs::write(&path, changed).unwrap();
        let (message, megabytes) = refused(&dir);
        assert!(message.contains(&format!("{} added tokens", count + 5)), "{message}");
        assert!(megabytes < 300, "{megabytes} MB");
    }
}

#[test]
fn the_largest_number_of_added_tokens_works() {
    // This tokenizer reads a text as a whole.
    let dir = with_added(9_990);
    let encoder = Encoder::load(dir.path()).unwrap();
    assert_eq!(encoder.count_tokens(Role::Document, "cat <17> cat<9989>", &mut go).unwrap(), 6);
    let text = "cat <17> dog ".repeat(500);
    let mut chunks = encoder.chunks(&text, 20, 0).unwrap();
    let mut end = 0;
    while let Some(chunk) = chunks.next(&mut go).unwrap() {
        assert_eq!(chunk.range.start, end);
        assert!(chunk.tokens <= 20, "{}", chunk.tokens);
        end = chunk.range.end;
    }
    assert_eq!(end, text.len());
}

#[test]
fn content_that_would_take_gigabytes_is_refused() {
    let (message, _) = refused(&TempDir::with_tokenizer(|tokenizer| {
        let tokens = tokenizer["added_tokens"].as_array_mut().unwrap();
        tokens.push(added(1000, format!("<{}", "ab".repeat(5 << 20))));
    }));
    assert!(message.contains("bytes of added tokens"), "{message}");
    let (message, _) = refused(&TempDir::with_tokenizer(|tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.extend((0..600_000).map(|i| (format!("~{i}"), json!(1000 + i))));
    }));
    assert!(message.contains("tokens in its vocabulary"), "{message}");
    let (message, _) = refused(&TempDir::with_tokenizer(|tokenizer| {
        tokenizer["model"]["max_input_chars_per_word"] = json!(1_000_000)
    }));
    assert!(message.contains("1000000 characters in a word"), "{message}");
    let (message, _) = refused(&TempDir::with_tokenizer(|tokenizer| {
        tokenizer["model"]["continuing_subword_prefix"] = json!("#".repeat(40 << 20))
    }));
    assert!(message.contains("41943040 bytes of continuing_subword_prefix"), "{message}");
}

#[test]
fn an_added_token_may_end_with_letters_before_a_word() {
    let dir = TempDir::with_tokenizer(|tokenizer| {
        let tokens = tokenizer["added_tokens"].as_array_mut().unwrap();
        tokens.extend(
            ["<tok", "<tok en>", "< "]
                .into_iter()
                .enumerate()
                .map(|(i, token)| added(1000 + i, token.into())),
        );
    });
    let encoder = Encoder::load(dir.path()).unwrap();
    let mut library = tokenizers::Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
    library.with_padding(None).with_truncation(None).unwrap();
    for letters in [1, 60, 97, 98, 99, 100, 101, 102, 105, 1000, 2000] {
        for text in [
            format!("<tok{}", "c".repeat(letters)),
            format!(
                "the <tok{} <tok en>{} < {}",
                "c".repeat(letters),
                "d".repeat(letters),
                "e".repeat(letters)
            ),
        ] {
            let expected = library.encode(text.as_str(), true).unwrap().len();
            assert_eq!(
                encoder.count_tokens(Role::Document, &text, &mut go).unwrap(),
                expected,
                "{letters}: {text}"
            );
        }
    }
}
