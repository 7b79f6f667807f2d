//! The segments of a text, each with its number of tokens.

use std::collections::HashMap;
use std::iter::Peekable;

use tokenizers::Encoding;
use unicode_segmentation::{UWordBoundIndices, UnicodeSegmentation};

use super::prompt::Prompt;
use super::segment::{Segment, Segments, line_breaks};
use super::tokenizer::Tokenizer;
use crate::Error;
use crate::interrupts::Interrupts;

/// Bounds of the cache of words: words, and bytes of a word; 3 MB at most. A text repeats most of
/// its words. To look one up takes 40 ns. To tokenize it takes 300 ns, or 4 µs if it is not ASCII.
const CACHED_WORDS: usize = 1 << 15;
const CACHED_WORD_BYTES: usize = 32;

/// A segment and its number of tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountedSegment {
    pub segment: Segment,
    pub tokens: usize,
    /// Whether it is divided, although it may have few tokens. Set by the reader.
    pub oversized: bool,
}

impl CountedSegment {
    fn new(segment: Segment, tokens: usize) -> CountedSegment {
        CountedSegment { segment, tokens, oversized: false }
    }
}

/// How segments are found and counted.
enum Source<'t> {
    /// The tokenizer treats each word by itself, so each word is tokenized on its own.
    Words { segments: Segments<'t>, cache: HashMap<&'t str, usize>, ids: Vec<u32> },
    /// Any other tokenizer: the text is tokenized as a whole, and a token counts for the segment in
    /// which it starts.
    Whole { words: Peekable<UWordBoundIndices<'t>>, encoding: Encoding, token: usize },
}

/// The segments of one text with their numbers of tokens, in order.
pub(crate) struct CountedSegments<'t> {
    tokenizer: &'t Tokenizer,
    text: &'t str,
    source: Source<'t>,
}

impl<'t> CountedSegments<'t> {
    /// # Errors
    /// Errors of the tokenizer, where it reads the text as a whole.
    pub fn new(tokenizer: &'t Tokenizer, text: &'t str) -> Result<CountedSegments<'t>, Error> {
        let source = match tokenizer.segments(text) {
            Some(segments) => Source::Words { segments, cache: HashMap::new(), ids: Vec::new() },
            None => Source::Whole {
                words: text.split_word_bound_indices().peekable(),
                encoding: tokenizer.encode_whole(text)?,
                token: 0,
            },
        };
        Ok(CountedSegments { tokenizer, text, source })
    }

    /// The next segment; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; errors of the tokenizer.
    pub fn next_segment(
        &mut self,
        interrupts: &mut Interrupts,
    ) -> Result<Option<CountedSegment>, Error> {
        let CountedSegments { tokenizer, text, source } = self;
        match source {
            Source::Words { segments, cache, ids } => {
                let Some(segment) = segments.next_segment(interrupts)? else {
                    return Ok(None);
                };
                let word = &text[segment.word..segment.word_end];
                if let Some(&tokens) = cache.get(word) {
                    return Ok(Some(CountedSegment::new(segment, tokens)));
                }
                let read = segments.shortened(&segment, interrupts)?;
                interrupts.count_encoding(read.len())?;
                ids.clear();
                tokenizer.encode(&read, ids)?;
                let tokens = ids.len();
                if word.len() <= CACHED_WORD_BYTES {
                    if cache.len() >= CACHED_WORDS {
                        cache.clear();
                    }
                    cache.insert(word, tokens);
                }
                Ok(Some(CountedSegment::new(segment, tokens)))
            }
            Source::Whole { words, encoding, token } => {
                let Some(segment) = next_whole(words, interrupts)? else {
                    return Ok(None);
                };
                let starts = encoding.get_offsets()[*token..].iter();
                let tokens = starts.take_while(|&&(start, _)| start < segment.end).count();
                *token += tokens;
                Ok(Some(CountedSegment::new(segment, tokens)))
            }
        }
    }
}

/// Number of tokens of prompt and whole text, without the specials and without a limit.
pub(crate) fn count(
    tokenizer: &Tokenizer,
    prompt: &Prompt,
    text: &str,
    interrupts: &mut Interrupts,
) -> Result<usize, Error> {
    let (first, text) = prompt.before(text)?;
    Ok(first.len() + count_bare(tokenizer, &text, interrupts)?)
}

/// Number of tokens of the whole text alone, without the specials.
pub(crate) fn count_bare(
    tokenizer: &Tokenizer,
    text: &str,
    interrupts: &mut Interrupts,
) -> Result<usize, Error> {
    interrupts.check()?;
    if !tokenizer.is_additive() {
        return Ok(tokenizer.encode_whole(text)?.len());
    }
    let mut tokens = 0;
    let mut segments = CountedSegments::new(tokenizer, text)?;
    while let Some(segment) = segments.next_segment(interrupts)? {
        tokens += segment.tokens;
    }
    Ok(tokens)
}

/// A word by Unicode's rules (UAX 29) and the white space after it.
fn next_whole(
    words: &mut Peekable<UWordBoundIndices>,
    interrupts: &mut Interrupts,
) -> Result<Option<Segment>, Error> {
    let is_blank = |word: &str| word.chars().all(char::is_whitespace);
    let mut found: Option<Segment> = None;
    let mut after_return = false;
    while let Some(&(start, word)) = words.peek() {
        interrupts.count_work(word.len())?;
        let end = start + word.len();
        let segment = found.get_or_insert(Segment {
            start,
            word: start,
            word_end: start,
            end,
            spaced: false,
            breaks: 0,
            chars: 0,
        });
        if !is_blank(word) {
            if segment.word_end > segment.word {
                break;
            }
            (segment.word, segment.word_end) = (start, end);
            (segment.spaced, segment.breaks, after_return) = (false, 0, false);
        } else {
            segment.spaced = true;
            for c in word.chars() {
                segment.breaks = segment.breaks.saturating_add(line_breaks(c, after_return));
                after_return = c == '\r';
            }
        }
        segment.chars += word.chars().count();
        segment.end = end;
        words.next();
    }
    Ok(found)
}
