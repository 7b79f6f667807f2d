//! The cost of a long text is the cost of the tokens that the model reads, not of the whole text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use gte_engine::Encoder;
use support::{TempDir, TinyModel, reference_ids, reference_tokenizer, words};

const SIZE: usize = 10 << 20;
/// A huge text, and a small one with the same tokens for the reference.
struct Case {
    name: &'static str,
    text: String,
    same: String,
}

/// `part` repeated up to 10 MB, and `part_of_same` repeated as often, but at most 600 times.
fn repeated(name: &'static str, part: &str, part_of_same: &str) -> Case {
    let times = SIZE / part.len();
    Case { name, text: part.repeat(times), same: part_of_same.repeat(times.min(600)) }
}

/// 10 MB in one piece, with the tokens of `same`.
fn one_run(name: &'static str, part: &str, same: &str) -> Case {
    Case { same: same.into(), ..repeated(name, part, "") }
}

fn cases() -> Vec<Case> {
    // A word over 100 characters is one unknown token, and so is this character.
    let unknown = "\u{12000} ";
    let word = |part: &str, bytes: usize| part.repeat(bytes / part.len()) + " ";
    let fifty = words(50) + " ";
    vec![
        repeated("words", &fifty, &fifty),
        repeated("punctuation", "!?", "!?"),
        repeated("chinese", "山川", "山川"),
        repeated("special tokens", "[SEP]", "[SEP]"),
        repeated("broken special tokens", "[SEP", "[SEP"),
        repeated("open brackets", "[", "["),
        repeated("words of 200 letters", &word("ab", 200), unknown),
        repeated("words of 3000 letters", &word("ab", 3_000), unknown),
        // 510 words of 16 KB are 8 MB. It would take too long to tokenize each as a whole.
        repeated("words of 16000 letters", &word("ab", 16_000), unknown),
        repeated("words of 16000 bytes of accents", &word("e\u{301}", 16_000), unknown),
        repeated("words of 16000 bytes of hangul", &word("\u{d55c}", 16_000), unknown),
        repeated("words of 40000 letters", &word("ab", 40_000), unknown),
        repeated(
            "letters with 16000 bytes of marks",
            &word("\u{301}", 16_000).replace(' ', " o"),
            "o ",
        ),
        repeated(
            "letters with 16000 bytes of zero width",
            &word("\u{200b}", 16_000).replace(' ', "o "),
            "o ",
        ),
        repeated("letters 30000 spaces apart", &(" ".repeat(30_000) + "a"), "a "),
        one_run("one word", "ab", unknown),
        one_run("one word of hangul", "\u{d55c}", unknown),
        one_run("one word of accents", "e\u{301}", unknown),
        one_run("spaces", " ", ""),
        one_run("line ends", "\r\n\u{85}\u{2028}", ""),
        one_run("zero width", "\u{200b}", ""),
        one_run("marks", "\u{301}", ""),
    ]
}

#[test]
fn ten_megabytes_have_the_tokens_of_the_reference_within_a_second() {
    let dir = TempDir::with(&TinyModel::default());
    let encoder = Encoder::load(dir.path()).unwrap();
    let reference = reference_tokenizer(dir.path(), 512);
    let mut too_slow = Vec::new();
    for Case { name, text, same } in cases() {
        let started = Instant::now();
        let found = encoder.token_ids(&text).unwrap();
        let took = started.elapsed();
        assert_eq!((found.ids, found.truncated), reference_ids(&reference, &same), "{name}");
        println!("{name}: {took:?}");
        if took > Duration::from_secs(1) {
            too_slow.push((name, took));
        }
    }
    assert!(too_slow.is_empty(), "{too_slow:?}");
}

#[test]
fn ten_megabytes_have_the_vector_of_their_beginning() {
    let encoder = support::load(&TinyModel::default());
    let long = support::embed(&encoder, &(words(50) + " ").repeat(SIZE / 200));
    let short = support::embed(&encoder, &(words(50) + " ").repeat(11));
    assert_eq!(long, short);
    assert_eq!((long.tokens, long.truncated), (512, true));
}

/// Peak resident memory of this process in bytes.
#[cfg(target_os = "linux")]
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Runs itself in a process of its own, because other tests would change the peak.
#[test]
#[cfg(target_os = "linux")]
fn ten_megabytes_take_little_memory() {
    const ALONE: &str = "GTE_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["ten_megabytes_take_little_memory", "--exact", "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let encoder = support::load(&TinyModel::default());
    support::embed(&encoder, "cat");
    let cases = cases();
    let before = peak();
    for case in &cases {
        support::embed(&encoder, &case.text);
    }
    let grown = peak() - before;
    println!("{} MB", grown >> 20);
    assert!(grown <= 100 << 20, "{} MB", grown >> 20);
}

/// Time this thread has run on a core, in nanoseconds. Other tests do not change it.
#[cfg(target_os = "linux")]
fn worked() -> u64 {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

/// There are at most 20 ms of work between two calls of the callback, for any texts.
#[test]
#[cfg(target_os = "linux")]
fn the_callback_is_called_every_few_milliseconds_of_work() {
    let encoder = support::load(&TinyModel::default());
    let short: Vec<String> = (0..2000).map(|i| format!("{} {i}", words(i % 7))).collect();
    let long: Vec<String> = (0..64).map(|i| format!("{} {i}", words(600))).collect();
    let mut calls = vec![("short", short), ("long", long)];
    calls.extend(cases().into_iter().map(|case| (case.name, vec![case.text])));
    for (name, texts) in calls {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut last = worked();
        let mut most = 0;
        let mut callback = || {
            let now = worked();
            most = most.max(now - last);
            last = now;
            std::ops::ControlFlow::Continue(())
        };
        encoder.embed_batch(&texts, &mut callback).unwrap();
        most = most.max(worked() - last);
        println!("{name}: {} us", most / 1000);
        assert!(most <= 20_000_000, "{name}: {} us", most / 1000);
    }
}
