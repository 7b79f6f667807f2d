//! The caller can stop the work, and the encoder works afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gte_engine::{Encoder, Error, Options, Role};
use support::{TempDir, TinyModel, embed, go, load, tiers, words};

fn still_works(encoder: &Encoder) {
    let fresh = load(&TinyModel::default());
    assert_eq!(embed(encoder, "stone river"), embed(&fresh, "stone river"));
}

#[test]
fn a_stop_at_once_gives_no_vector() {
    let encoder = load(&TinyModel::default());
    let stop = &mut || ControlFlow::Break(());
    assert!(matches!(encoder.embed("cat", stop), Err(Error::Interrupted)));
    assert!(matches!(encoder.embed_batch(&["cat", "dog"], stop), Err(Error::Interrupted)));
    still_works(&encoder);
}

#[test]
fn the_callback_is_called_at_least_once_for_each_long_text() {
    let encoder = load(&TinyModel::default());
    let text = words(400);
    let mut calls = 0;
    let mut count = || {
        calls += 1;
        ControlFlow::Continue(())
    };
    encoder.embed_batch(&[text.as_str(); 12], &mut count).unwrap();
    assert!(calls >= 12, "{calls}");
}

#[test]
fn a_stop_half_way_ends_the_work_there() {
    let encoder = load(&TinyModel::default());
    let text = words(400);
    let mut calls = 0;
    let mut third = || {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = encoder.embed_batch(&[text.as_str(); 12], &mut third);
    assert!(matches!(result, Err(Error::Interrupted)));
    assert_eq!(calls, 3, "called again after it stopped the work");
    still_works(&encoder);
}

#[test]
fn the_callback_is_called_on_the_calling_thread() {
    let encoder = load(&TinyModel::default());
    let caller = std::thread::current().id();
    let mut same = true;
    let mut callback = || {
        same &= std::thread::current().id() == caller;
        ControlFlow::Continue(())
    };
    encoder.embed_batch(&[&words(400), "cat"], &mut callback).unwrap();
    assert!(same);
}

#[test]
fn a_panic_of_the_callback_passes_through() {
    let encoder = load(&TinyModel::default());
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _ = encoder.embed("cat", &mut || std::panic::resume_unwind(Box::new("of the caller")));
    }));
    assert_eq!(result.unwrap_err().downcast_ref::<&str>(), Some(&"of the caller"));
    still_works(&encoder);
}

#[test]
fn every_call_of_the_callback_can_stop_or_panic() {
    // With one thread the calling thread runs the model and calls the callback inside the pass.
    let encoder = load(&TinyModel { layers: 2, ..TinyModel::default() });
    let mut all_calls = 0;
    let mut count = || {
        all_calls += 1;
        ControlFlow::Continue(())
    };
    encoder.embed("cat", &mut count).unwrap();
    // There are at least five operations in each of two layers.
    assert!(all_calls > 10, "{all_calls}");
    for last in 1..=all_calls {
        for panics in [false, true] {
            end_at(false, last, panics, |callback| encoder.embed("cat", callback));
        }
    }
    let fresh = load(&TinyModel { layers: 2, ..TinyModel::default() });
    assert_eq!(embed(&encoder, "stone river"), embed(&fresh, "stone river"));
}

type Callback<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// Runs the work until call number `last` of the callback, which breaks or panics. With helpers,
/// the calling thread also calls it while it waits for them. So the number of calls varies, and the
/// work may end before.
fn end_at<T>(
    helpers: bool,
    last: usize,
    panics: bool,
    work: impl Fn(Callback) -> Result<T, Error>,
) {
    let mut calls = 0;
    let mut callback = || {
        calls += 1;
        match (calls < last, panics) {
            (true, _) => ControlFlow::Continue(()),
            (false, false) => ControlFlow::Break(()),
            (false, true) => std::panic::resume_unwind(Box::new("of the caller")),
        }
    };
    match catch_unwind(AssertUnwindSafe(|| work(&mut callback))) {
        Ok(Ok(_)) => {
            assert!(helpers && calls < last, "{calls} calls, none of which stopped the work");
            return;
        }
        Ok(result) => assert!(matches!(result, Err(Error::Interrupted)) && !panics),
        Err(panic) => assert!(panics && panic.downcast_ref() == Some(&"of the caller")),
    }
    assert_eq!(calls, last, "called again after it stopped the work");
}

#[test]
fn every_call_of_the_callback_can_stop_or_panic_while_helpers_work() {
    let dir = TempDir::with(&TinyModel { layers: 2, ..TinyModel::default() });
    // With 20 tokens each thread has panels and heads. With 100 tokens each thread has rows.
    let texts = [20, 100].map(|length| (0..length).map(|i| 5 + i % 90).collect::<Vec<u32>>());
    for tier in tiers(dir.path()) {
        for threads in [2, 3] {
            let options = Options { kernels: Some(tier.clone()), threads, precision: None };
            let encoder = Encoder::load_with(dir.path(), &options).unwrap();
            for ids in &texts {
                let mut all_calls = 0;
                let mut count = || {
                    all_calls += 1;
                    ControlFlow::Continue(())
                };
                let wanted = encoder.embed_ids(&[ids], &mut count).unwrap();
                // There are at least two operations in each of two layers.
                assert!(all_calls >= 5, "{tier}: {all_calls}");
                for last in 1..=all_calls {
                    for panics in [false, true] {
                        end_at(true, last, panics, |callback| encoder.embed_ids(&[ids], callback));
                        let found = encoder.embed_ids(&[ids], &mut go).unwrap();
                        assert!(found == wanted, "{tier}, {threads} threads, call {last}");
                    }
                }
            }
        }
    }
}

/// Texts of 10 MB without a word, or of one word.
fn huge_words() -> [String; 5] {
    ["ab", "e\u{301}", "\u{301}", " ", "\u{d55c}"].map(|part| part.repeat((10 << 20) / part.len()))
}

type Work = fn(&Encoder, &str, &mut dyn FnMut() -> ControlFlow<()>) -> Result<(), Error>;

/// All functions that read a text to its end.
const READING: [(&str, Work); 4] = [
    ("embed", |encoder, text, go_on| encoder.embed(text, go_on).map(|_| ())),
    ("token_ids", |encoder, text, go_on| {
        encoder.token_ids_interruptible(Role::Document, text, go_on).map(|_| ())
    }),
    ("count_tokens", |encoder, text, go_on| {
        encoder.count_tokens(Role::Document, text, go_on).map(|_| ())
    }),
    ("chunks", |encoder, text, go_on| {
        let mut chunks = encoder.chunks(text, 100, 10)?;
        while chunks.next(go_on)?.is_some() {}
        Ok(())
    }),
];

#[test]
fn the_callback_is_called_while_a_huge_word_is_read() {
    let encoder = load(&TinyModel::default());
    for text in huge_words() {
        for (name, work) in READING {
            let mut calls = 0;
            let mut count = || {
                calls += 1;
                ControlFlow::Continue(())
            };
            work(&encoder, &text, &mut count).unwrap();
            // One call per 2^18 characters, which take about 3 ms.
            assert!(calls >= text.chars().count() >> 18, "{name}: {calls}");
            for stop_at in [2, calls / 2, calls] {
                let mut calls = 0;
                let mut stop = || {
                    calls += 1;
                    if calls < stop_at { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                };
                assert!(
                    matches!(work(&encoder, &text, &mut stop), Err(Error::Interrupted)),
                    "{name}"
                );
                assert_eq!(calls, stop_at, "{name} called again after it stopped the work");
            }
        }
    }
    still_works(&encoder);
}

#[test]
fn the_callback_is_called_while_words_are_counted() {
    let encoder = load(&TinyModel::default());
    // All words differ, so each word is tokenized. 100 KB take 0.1 s.
    let text: String = (0..12_000).map(|i| format!("{} ", i * 7919)).collect();
    for (name, work) in &READING[2..] {
        let mut calls = 0;
        let mut count = || {
            calls += 1;
            ControlFlow::Continue(())
        };
        work(&encoder, &text, &mut count).unwrap();
        assert!(calls >= 20, "{name}: {calls}");
    }
}
