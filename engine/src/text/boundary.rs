//! Classifies the places where a text can be divided.

use unicode_segmentation::UnicodeSegmentation;

use super::segment::Segment;

/// Bytes on each side of a place that are looked at. Unicode's rules for sentences look from a full
/// stop to the next letter, however far away it is. Without this bound a text of full stops and
/// blanks would take quadratic time.
const CONTEXT: usize = 32;

/// The end of a segment, from the worst to the best place to divide a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Boundary {
    /// A token ends inside a word or before punctuation: around an apostrophe, before a comma.
    Token,
    /// A word ends, without white space: between two ideographs, after a comma.
    Word,
    /// White space.
    Space,
    /// A line break.
    Line,
    /// The end of a sentence by Unicode's rules (UAX 29). A line break counts as a space here,
    /// because a sentence may go on in the next line.
    Sentence,
    /// A blank line.
    Paragraph,
}

impl Boundary {
    /// The boundary at the end of `segment`.
    pub fn after(text: &str, segment: &Segment) -> Boundary {
        if segment.breaks > 1 {
            Boundary::Paragraph
        } else if ends_sentence(text, segment) {
            Boundary::Sentence
        } else if segment.breaks > 0 {
            Boundary::Line
        } else if segment.spaced {
            Boundary::Space
        } else if ends_word(text, segment) {
            Boundary::Word
        } else {
            Boundary::Token
        }
    }
}

fn ends_sentence(text: &str, segment: &Segment) -> bool {
    let before = tail(&text[..segment.word_end]);
    // Most words end with a letter or a digit. No sentence does.
    if before.is_empty() || before.ends_with(char::is_alphanumeric) {
        return false;
    }
    let after = head(&text[segment.end..]);
    // The results of the rules SB6, SB8 and SB8a, without the 3 µs that the library takes for them.
    // A text of 1 GB can have tens of millions of these cases.
    if after.starts_with(['.', '!', '?', ','])
        || before.ends_with('.')
            && (after.starts_with(char::is_lowercase)
                || !segment.spaced && after.starts_with(|c: char| c.is_ascii_digit()))
    {
        return false;
    }
    // Any amount of white space counts as one blank.
    let gap = if segment.spaced { " " } else { "" };
    let context = format!("{before}{gap}{after}");
    let place = before.len() + gap.len();
    let mut starts = context.split_sentence_bound_indices().map(|(start, _)| start);
    starts.find(|&start| start >= place) == Some(place)
}

fn ends_word(text: &str, segment: &Segment) -> bool {
    let (before, after) = (tail(&text[..segment.word_end]), head(&text[segment.end..]));
    // A chunk should not start with a comma or a closing bracket.
    if !after.starts_with(char::is_alphanumeric) {
        return false;
    }
    // No segment ends between two letters, except around ideographs. After any other character the
    // place may be inside a word, as in "don't" or "3.14".
    if before.ends_with(char::is_alphanumeric) {
        return true;
    }
    let context = format!("{before}{after}");
    let mut starts = context.split_word_bound_indices().map(|(start, _)| start);
    starts.find(|&start| start >= before.len()) == Some(before.len())
}

/// At most [`CONTEXT`] bytes of the end.
fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(CONTEXT);
    let from = (from..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[from..]
}

/// At most [`CONTEXT`] bytes of the beginning.
fn head(text: &str) -> &str {
    let to = text.len().min(CONTEXT);
    let to = (0..=to).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..to]
}
