//! Chunks of real texts that are not in the project. GTE_SHARED_TEXTS names a directory with
//! gte-small's `tokenizer.json` and `texts.jsonl`, one text in each line. `make test` makes that
//! directory if it has the files. Otherwise it reports the test as skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::PathBuf;

use gte_engine::{Encoder, Role};
use support::{TempDir, TinyModel, go};
use tokenizers::Tokenizer;

#[test]
#[ignore = "needs GTE_SHARED_TEXTS; make test runs it where shared/data is"]
fn of_real_texts() {
    let directory: PathBuf = std::env::var_os("GTE_SHARED_TEXTS").expect("a directory").into();
    let dir = TempDir::with(&TinyModel::default());
    std::fs::copy(directory.join("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    let encoder = Encoder::load(dir.path()).unwrap();
    let mut library = Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
    library.with_padding(None).with_truncation(None).unwrap();
    let count = |text: &str| library.encode(text, true).unwrap().len();

    let lines = std::fs::read_to_string(directory.join("texts.jsonl")).unwrap();
    let (mut texts, mut chunks, mut after_a_sentence) = (0, 0, 0);
    for line in lines.lines() {
        let text: String = serde_json::from_str(line).unwrap();
        texts += 1;
        assert_eq!(
            encoder.count_tokens(Role::Document, &text, &mut go).unwrap(),
            count(&text),
            "{text:?}"
        );
        for (max_tokens, overlap) in [(8, 0), (64, 0), (128, 20), (512, 0)] {
            let mut reader = encoder.chunks(&text, max_tokens, overlap).unwrap();
            let mut end = 0;
            while let Some(chunk) = reader.next(&mut go).unwrap() {
                let part = &text[chunk.range.clone()];
                assert_eq!(chunk.tokens, count(part), "{part:?}");
                assert!(chunk.tokens <= max_tokens, "{part:?}");
                assert!(chunk.range.start <= end && end < chunk.range.end, "{part:?}");
                assert!(count(&text[chunk.range.start..end]) - 2 <= overlap, "{part:?}");
                assert!(overlap > 0 || chunk.range.start == end, "{part:?}");
                if max_tokens == 64 && end > 0 {
                    chunks += 1;
                    let before = text[..end].trim_end().trim_end_matches(['"', ')', ']', '”', '’']);
                    after_a_sentence +=
                        usize::from(before.ends_with(['.', '!', '?', '。', '।', '؟']));
                }
                end = chunk.range.end;
            }
            assert_eq!(end, text.len(), "{text:?}");
        }
    }
    println!(
        "{texts} texts; of {chunks} chunks of 64 tokens, {after_a_sentence} start after a sentence"
    );
    assert!(texts >= 3000, "only {texts} texts");
    assert!(after_a_sentence * 2 > chunks, "too few chunks start after a sentence");
}
