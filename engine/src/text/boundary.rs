//! How good a place to divide a text is.

use unicode_segmentation::UnicodeSegmentation;

use super::segment::Segment;

/// So many bytes on either side decide about a place. Unicode's rules for sentences look from a full
/// stop to the next letter, however far that is; without this bound a text of full stops and blanks
/// would take quadratic time.
const CONTEXT: usize = 32;

/// The end of a unit, from worst to best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Boundary {
    /// A new token starts, but not a new word: around an apostrophe, before a comma.
    Token,
    /// A word ends, without white space: between two ideographs, after a comma.
    Word,
    /// White space.
    Space,
    /// A line break.
    Line,
    /// The end of a sentence, by Unicode's rules (UAX 29). A line break counts as a space here,
    /// because lines are broken in the middle of sentences too.
    Sentence,
    /// A blank line.
    Paragraph,
}

impl Boundary {
    /// What the end of `unit` is.
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
    // Most words end with a letter, and no sentence does.
    if before.is_empty() || before.ends_with(char::is_alphanumeric) {
        return false;
    }
    let after = head(&text[segment.end..]);
    // What the rules say in the end (SB6, SB8, SB8a), without the 3 µs they take: of nothing else are
    // there tens of millions in a text that somebody stores.
    if after.starts_with(['.', '!', '?', ','])
        || before.ends_with('.')
            && (after.starts_with(char::is_lowercase)
                || !segment.spaced && after.starts_with(|c: char| c.is_ascii_digit()))
    {
        return false;
    }
    // However much white space there is, it counts as one blank.
    let gap = if segment.spaced { " " } else { "" };
    let context = format!("{before}{gap}{after}");
    let place = before.len() + gap.len();
    let mut starts = context.split_sentence_bound_indices().map(|(start, _)| start);
    starts.find(|&start| start >= place) == Some(place)
}

fn ends_word(text: &str, segment: &Segment) -> bool {
    let (before, after) = (tail(&text[..segment.word_end]), head(&text[segment.end..]));
    // Nothing should start with a comma or a closing bracket.
    if !after.starts_with(char::is_alphanumeric) {
        return false;
    }
    // Between letters only ideographs are apart; behind anything else it may be "don't" or "3.14".
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
