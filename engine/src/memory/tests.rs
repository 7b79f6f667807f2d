//! Holds each step against the bytes that it was promised.

use std::cell::Cell;

use serde_json::{Value, json};

use super::*;
use crate::text::test_tokenizer::bert_tokenizer;
use crate::text::tokenizer::Tokenizer;
use crate::text::words::Words;

/// Counts what a thread has allocated.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    // Memory of another thread that is freed here counts for neither.
    let live = (LIVE.get() + more).saturating_sub(less);
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: as for `Allocator`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller guarantees the layout.
        unsafe { Allocator.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The C library may have both for a moment.
        count(size, 0);
        count(0, layout.size());
        // SAFETY: the caller guarantees the block.
        unsafe { Allocator.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller guarantees the block.
        unsafe { Allocator.dealloc(block, layout) };
    }
}

/// What a step allocates on its thread.
pub struct Counted {
    promised: usize,
    before: usize,
    peak_before: usize,
}

impl Counted {
    pub fn begin(promised: usize) -> Counted {
        let counted = Counted { promised, before: LIVE.get(), peak_before: PEAK.get() };
        PEAK.set(counted.before);
        counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let taken = PEAK.get().saturating_sub(self.before);
        PEAK.set(PEAK.get().max(self.peak_before));
        if !std::thread::panicking() {
            assert!(taken <= self.promised, "{taken} bytes of {}", self.promised);
        }
    }
}

/// A short name of its own for each number.
fn name(mut number: usize) -> String {
    let mut name = String::new();
    loop {
        name.push(char::from(b'a' + (number % 26) as u8));
        number /= 26;
        if number == 0 {
            return name;
        }
    }
}

fn added(id: usize, content: &str, normalized: bool) -> Value {
    json!({ "id": id, "content": content, "special": false, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": normalized })
}

/// Loads a changed `tokenizer.json`.
fn load(case: &str, change: impl FnOnce(&mut Value)) -> Tokenizer {
    let path = std::env::temp_dir().join(format!("gte-small-{case}-{}.json", std::process::id()));
    let mut file = serde_json::from_str(&bert_tokenizer().to_string(false).unwrap()).unwrap();
    change(&mut file);
    std::fs::write(&path, file.to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(&path, 512);
    std::fs::remove_file(&path).unwrap();
    tokenizer.unwrap()
}

#[test]
fn a_vocabulary_takes_no_more_than_promised() {
    // 33,000 entries are just too many for a table of 32,768.
    for (count, long) in [(1000, 0), (33_000, 0), (33_000, 100)] {
        load("wordpiece", |file| {
            let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
            for i in 0..count {
                let id = vocabulary.len();
                vocabulary.entry(name(i) + &"x".repeat(long)).or_insert(id.into());
            }
        });
    }
    for (count, times) in [(10, 100), (1000, 30), (30_000, 1)] {
        load("unigram", |file| {
            let names = (0..count).map(|i| json!([name(i * 7919).repeat(times), -1.5]));
            let vocabulary: Vec<Value> = [json!(["<unk>", 0.0])].into_iter().chain(names).collect();
            file["model"] = json!({ "type": "Unigram", "unk_id": 0, "vocab": vocabulary });
        });
    }
    load("bpe", |file| {
        let mut vocabulary = serde_json::Map::new();
        let mut merges = Vec::new();
        let letters = || ('a'..='z').map(String::from);
        let mut words: Vec<String> = letters().collect();
        for length in 1..4 {
            for word in &words {
                vocabulary.insert(word.clone(), vocabulary.len().into());
            }
            if length < 3 {
                let pairs = words.iter().flat_map(|word| letters().map(move |c| (word.clone(), c)));
                let pairs: Vec<(String, String)> = pairs.collect();
                words = pairs.iter().map(|(word, c)| format!("{word}{c}")).collect();
                merges.extend(pairs.iter().map(|(word, c)| json!([word, c])));
            }
        }
        file["model"] = json!({ "type": "BPE", "vocab": vocabulary, "merges": merges });
    });
    for (count, times) in [(9000, 1), (5000, 30)] {
        load("added", |file| {
            let tokens = file["added_tokens"].as_array_mut().unwrap();
            tokens.extend(
                (0..count).map(|i| added(1000 + i, &format!("<{}>", name(i).repeat(times)), false)),
            );
        });
    }
}

/// Texts of one part each. NFKC writes U+FDFA as 18 letters in four words, U+FDFB as 8.
fn texts() -> impl Iterator<Item = String> {
    let parts = ["!", "a ", "cat", "the cat ", "日", "é", "\u{301}", "\u{fdfa}", "\u{fdfa} "];
    let others = ["\u{fdfb}", "㌀", "한", "x", "\u{1f600}"];
    parts.into_iter().chain(others).flat_map(|part| {
        [3000, 16_384, 100_000, 400_000].map(|bytes| part.repeat(bytes / part.len()))
    })
}

#[test]
fn a_text_takes_no_more_than_promised() {
    // This tokenizer reads a text as a whole.
    let whole = load("whole", |file| {
        file["added_tokens"].as_array_mut().unwrap().push(added(1, "cat", true));
    });
    let words = Words::new();
    for text in texts() {
        whole.encode_whole(&text).unwrap();
        words.split(&text).unwrap();
    }
}

#[test]
fn a_text_for_another_pipeline_takes_no_more_than_promised() {
    for kind in ["Unigram", "BPE"] {
        let whole = load(kind, |file| {
            file["normalizer"] = json!({ "type": "NFKC" });
            file["post_processor"] = json!({
                "type": "TemplateProcessing",
                "single": [{ "SpecialToken": { "id": "a", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
                "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
                "special_tokens": { "a": { "id": "a", "ids": [0], "tokens": ["a"] } },
            });
            file["added_tokens"] = json!([]);
            if kind == "Unigram" {
                let split = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
                file["pre_tokenizer"] = split;
                file["model"] = json!({ "type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁a", -1.0], ["a", -2.0]] });
            } else {
                file["pre_tokenizer"] = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
                file["model"] = json!({ "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": [] });
            }
        });
        for text in texts() {
            whole.encode_whole(&text).unwrap();
        }
    }
}

#[test]
fn json_takes_no_more_than_promised() {
    let nested = |depth: usize| r#"{"":"#.repeat(depth) + "1" + &"}".repeat(depth);
    let many = |part: &str, bytes: usize| {
        format!("[{}{part}]", format!("{part},").repeat(bytes / (part.len() + 1)))
    };
    let mut texts: Vec<String> = [1000, 30_000, 400_000]
        .iter()
        .flat_map(|&bytes| {
            ["[]", "{}", r#"{"":1}"#, r#"{"a":{}}"#, "1", r#""""#, &nested(120)]
                .map(|part| many(part, bytes))
        })
        .collect();
    texts.push(nested(120));
    texts.push("[".repeat(120) + &"]".repeat(120));
    for text in texts {
        let hold = hold_for_json(text.len()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        drop(value);
        drop(hold);
    }
}

#[test]
fn a_step_that_is_too_large_is_refused_and_the_reserve_stays() {
    for bytes in [usize::MAX, 1 << 50] {
        assert!(matches!(hold(bytes), Err(Error::OutOfMemory { .. })));
        assert!(matches!(vector::<u64>(bytes), Err(Error::OutOfMemory { .. })));
        check().unwrap();
    }
    assert!(lock().bytes >= RESERVE);
}
