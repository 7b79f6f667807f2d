//! The caller can stop the work between two forward passes, and nothing is broken afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gte_engine::{Encoder, Error};
use support::{TinyModel, embed, load, words};

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
fn the_caller_is_asked_at_least_once_per_long_text() {
    let encoder = load(&TinyModel::default());
    let text = words(400);
    let mut asked = 0;
    let mut count = || {
        asked += 1;
        ControlFlow::Continue(())
    };
    encoder.embed_batch(&[text.as_str(); 12], &mut count).unwrap();
    assert!(asked >= 12, "{asked}");
}

#[test]
fn a_stop_half_way_ends_the_work_there() {
    let encoder = load(&TinyModel::default());
    let text = words(400);
    let mut asked = 0;
    let mut third = || {
        asked += 1;
        if asked == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = encoder.embed_batch(&[text.as_str(); 12], &mut third);
    assert!(matches!(result, Err(Error::Interrupted)));
    assert_eq!(asked, 3, "asked again after it said stop");
    still_works(&encoder);
}

#[test]
fn the_question_is_asked_on_the_calling_thread() {
    let encoder = load(&TinyModel::default());
    let caller = std::thread::current().id();
    let mut same = true;
    let mut ask = || {
        same &= std::thread::current().id() == caller;
        ControlFlow::Continue(())
    };
    encoder.embed_batch(&[&words(400), "cat"], &mut ask).unwrap();
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
fn a_short_text_can_be_stopped_or_thrown_out_of_at_every_question() {
    // One thread: the calling thread runs the model, and the questions come from within it.
    let encoder = load(&TinyModel { layers: 2, ..TinyModel::default() });
    let mut all = 0;
    let mut count = || {
        all += 1;
        ControlFlow::Continue(())
    };
    encoder.embed("cat", &mut count).unwrap();
    // Five operations in each of two layers at the least.
    assert!(all > 10, "{all}");
    for last in 1..=all {
        for throws in [false, true] {
            let mut asked = 0;
            let mut ask = || {
                asked += 1;
                match (asked < last, throws) {
                    (true, _) => ControlFlow::Continue(()),
                    (false, false) => ControlFlow::Break(()),
                    (false, true) => std::panic::resume_unwind(Box::new("of the caller")),
                }
            };
            let result = catch_unwind(AssertUnwindSafe(|| encoder.embed("cat", &mut ask)));
            match result {
                Ok(result) => assert!(matches!(result, Err(Error::Interrupted)) && !throws),
                Err(panic) => assert!(throws && panic.downcast_ref() == Some(&"of the caller")),
            }
            assert_eq!(asked, last, "asked again after it said stop");
        }
    }
    let fresh = load(&TinyModel { layers: 2, ..TinyModel::default() });
    assert_eq!(embed(&encoder, "stone river"), embed(&fresh, "stone river"));
}

/// Ten megabytes in which there is no word to count, or no end of one.
fn endless() -> [String; 5] {
    ["ab", "e\u{301}", "\u{301}", " ", "\u{d55c}"].map(|part| part.repeat((10 << 20) / part.len()))
}

type Work = fn(&Encoder, &str, &mut dyn FnMut() -> ControlFlow<()>) -> Result<(), Error>;

/// Everything that reads a text to its end.
const READING: [(&str, Work); 4] = [
    ("embed", |encoder, text, go_on| encoder.embed(text, go_on).map(|_| ())),
    ("token_ids", |encoder, text, go_on| encoder.token_ids_interruptible(text, go_on).map(|_| ())),
    ("count_tokens", |encoder, text, go_on| encoder.count_tokens(text, go_on).map(|_| ())),
    ("chunks", |encoder, text, go_on| {
        let mut chunks = encoder.chunks(text, 100, 10)?;
        while chunks.next(go_on)?.is_some() {}
        Ok(())
    }),
];

#[test]
fn the_caller_is_asked_while_an_endless_word_is_read() {
    let encoder = load(&TinyModel::default());
    for text in endless() {
        for (name, work) in READING {
            let mut asked = 0;
            let mut count = || {
                asked += 1;
                ControlFlow::Continue(())
            };
            work(&encoder, &text, &mut count).unwrap();
            // Every 2^18 characters, which are some 3 ms.
            assert!(asked >= text.chars().count() >> 18, "{name}: {asked}");
            for stop_at in [2, asked / 2, asked] {
                let mut asked = 0;
                let mut stop = || {
                    asked += 1;
                    if asked < stop_at { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                };
                assert!(
                    matches!(work(&encoder, &text, &mut stop), Err(Error::Interrupted)),
                    "{name}"
                );
                assert_eq!(asked, stop_at, "{name} asked again after it said stop");
            }
        }
    }
    still_works(&encoder);
}

#[test]
fn the_caller_is_asked_while_words_are_counted() {
    let encoder = load(&TinyModel::default());
    // No word comes twice, so each is tokenized: 100 KB are a tenth of a second.
    let text: String = (0..12_000).map(|i| format!("{} ", i * 7919)).collect();
    for (name, work) in &READING[2..] {
        let mut asked = 0;
        let mut count = || {
            asked += 1;
            ControlFlow::Continue(())
        };
        work(&encoder, &text, &mut count).unwrap();
        assert!(asked >= 20, "{name}: {asked}");
    }
}
