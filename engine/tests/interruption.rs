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
