//! A long text as chunks of at most so many tokens.
//!
//! A text is read once, unit by unit (see `units.rs`), and at most one chunk's units are held. A
//! chunk ends at the best border it has; a word is divided only where it alone is too long.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};

use unicode_segmentation::UnicodeSegmentation;

use super::boundary::Boundary;
use super::counted::{CountedSegment, CountedSegments, count_bare};
use super::tokenizer::Tokenizer;
use crate::Error;
use crate::interrupts::Interrupts;

/// Looking at a border is that much work, see [`Interrupts::count_work`].
const BOUNDARY_WORK: usize = 100;

/// A divided word is cut at the end of a grapheme, if one ends within so many bytes.
const GRAPHEME_BYTES: usize = 256;

/// Under a tokenizer that reads texts as a whole, a longer rest of a divided word is divided again
/// without asking how many tokens it has.
const REST_BYTES: usize = 1 << 16;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it stands, in bytes.
    pub range: Range<usize>,
    /// Its tokens, specials included: those of the part as a text of its own.
    pub tokens: usize,
}

/// The chunks of one text, in order.
pub struct Chunks<'t> {
    tokenizer: &'t Tokenizer,
    text: &'t str,
    segments: CountedSegments<'t>,
    /// Tokens a chunk has room for, and may repeat of the one before, specials not counted.
    room: usize,
    overlap: usize,
    /// Units from the start of the next chunk on; of them, how many the last chunk had too.
    ahead: VecDeque<CountedSegment>,
    repeated: usize,
    /// Sum of the tokens of `ahead`.
    tokens: usize,
    done: bool,
}

impl<'t> Chunks<'t> {
    /// `max_tokens` counts the specials; what is over the model's limit counts as the limit.
    pub(crate) fn new(
        tokenizer: &'t Tokenizer,
        text: &'t str,
        max_tokens: usize,
        overlap: usize,
    ) -> Result<Chunks<'t>, Error> {
        let room = max_tokens.min(tokenizer.max_tokens()).saturating_sub(tokenizer.specials());
        if room == 0 || overlap >= room {
            return Err(Error::internal(format_args!(
                "no chunk of {max_tokens} tokens repeats {overlap} of them"
            )));
        }
        Ok(Chunks {
            tokenizer,
            text,
            segments: CountedSegments::new(tokenizer, text)?,
            room,
            overlap,
            ahead: VecDeque::new(),
            repeated: 0,
            tokens: 0,
            done: false,
        })
    }

    /// The next chunk; `None` at the end. Laid by their ranges the chunks cover the text; with an
    /// overlap of 0 they are the text, end to end. `go_on` is asked every few milliseconds.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; [`Error::CharacterTooLong`] for a character
    /// that alone has more tokens than there is room; what the tokenizer gives.
    pub fn next(
        &mut self,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<Chunk>, Error> {
        let mut interrupts = Interrupts::new(go_on);
        interrupts.check()?;
        let interrupts = &mut interrupts;
        let to_the_end = self.read_ahead(interrupts)?;
        let Some(first) = self.ahead.front() else {
            return Ok(None);
        };
        if self.done {
            return Ok(None);
        }
        if first.tokens > self.room {
            return self.divide_word(interrupts).map(Some);
        }
        let mut fitting = self.fitting();
        let (segments, tokens) = loop {
            let segments = if to_the_end && fitting == self.ahead.len() {
                fitting
            } else {
                self.best_end(fitting, interrupts)?
            };
            let sum = self.ahead.iter().take(segments).map(|segment| segment.tokens).sum();
            if self.tokenizer.is_additive() {
                break (segments, sum);
            }
            // The sum was an estimate. A chunk of one unit more than was repeated may still be too
            // long: then nothing is repeated, and a word that is too long by itself is divided.
            let tokens = self.count(
                self.ahead[0].segment.start..self.ahead[segments - 1].segment.end,
                interrupts,
            )?;
            if tokens <= self.room {
                break (segments, tokens);
            }
            fitting = segments - 1;
            if fitting == self.repeated {
                if self.repeated == 0 {
                    return self.divide_word(interrupts).map(Some);
                }
                self.forget(self.repeated);
                self.repeated = 0;
                return self.next(go_on);
            }
        };
        let range = self.ahead[0].segment.start..self.ahead[segments - 1].segment.end;
        self.done = range.end == self.text.len();
        let keep = self.repeat_from(segments, interrupts)?;
        self.repeated = segments - keep;
        self.forget(keep);
        Ok(Some(Chunk { range, tokens: tokens + self.tokenizer.specials() }))
    }

    /// Reads units until there are more than a chunk has room for; whether the text ended before.
    fn read_ahead(&mut self, interrupts: &mut Interrupts) -> Result<bool, Error> {
        while self.tokens <= self.room {
            let Some(next) = self.segments.next_segment(interrupts)? else {
                return Ok(true);
            };
            self.tokens += next.tokens;
            self.ahead.push_back(next);
        }
        Ok(false)
    }

    /// How many units fit into a chunk: at least one that the last chunk did not have.
    fn fitting(&self) -> usize {
        let mut tokens = 0;
        let fits = |segment: &&CountedSegment| {
            tokens += segment.tokens;
            tokens <= self.room
        };
        self.ahead.iter().take_while(fits).count()
    }

    /// How many of the first `fitting` units make the chunk. Blank line, end of a sentence, line
    /// break: the best one in the second half, else the last one; where there is none, white
    /// space in the second half, else the last border of a word.
    fn best_end(&self, fitting: usize, interrupts: &mut Interrupts) -> Result<usize, Error> {
        let mut tokens: usize = self.ahead.iter().take(fitting).map(|segment| segment.tokens).sum();
        let half = tokens / 2;
        let mut best = (Boundary::Token, fitting);
        let mut last_word = None;
        for segments in (self.repeated + 1..=fitting).rev() {
            let in_second_half = tokens >= half;
            if best.0 >= if in_second_half { Boundary::Paragraph } else { Boundary::Line } {
                break;
            }
            // From the end of a sentence on, only a blank line is better.
            if best.0 < Boundary::Sentence || self.ahead[segments - 1].segment.breaks > 1 {
                let boundary = self.boundary_after(segments, interrupts)?;
                if boundary > best.0 && (in_second_half || boundary >= Boundary::Line) {
                    best = (boundary, segments);
                }
                if boundary >= Boundary::Word && last_word.is_none() {
                    last_word = Some(segments);
                }
            }
            tokens -= self.ahead[segments - 1].tokens;
        }
        Ok(if best.0 >= Boundary::Word { best.1 } else { last_word.unwrap_or(fitting) })
    }

    /// What is behind the first `units`.
    fn boundary_after(
        &self,
        segments: usize,
        interrupts: &mut Interrupts,
    ) -> Result<Boundary, Error> {
        interrupts.count_work(BOUNDARY_WORK)?;
        Ok(Boundary::after(self.text, &self.ahead[segments - 1].segment))
    }

    /// From which of the `units` of a chunk the next one starts: at a border of words, so that it
    /// repeats at most `overlap` tokens, not the whole chunk, and has room for something new.
    fn repeat_from(&self, segments: usize, interrupts: &mut Interrupts) -> Result<usize, Error> {
        let Some(following) =
            self.ahead.get(segments).filter(|segment| segment.tokens <= self.room)
        else {
            return Ok(segments);
        };
        let room = self.overlap.min(self.room - following.tokens);
        let mut from = segments;
        let mut tokens = 0;
        for start in (1..segments).rev() {
            tokens += self.ahead[start].tokens;
            if tokens > room {
                break;
            }
            from = start;
        }
        while from < segments {
            let range = self.ahead[from].segment.start..self.ahead[segments - 1].segment.end;
            if self.boundary_after(from, interrupts)? >= Boundary::Word
                && (self.tokenizer.is_additive() || self.count(range, interrupts)? <= self.overlap)
            {
                break;
            }
            from += 1;
        }
        Ok(from)
    }

    /// The first part of a word that alone is too long. The rest stays ahead as a unit.
    fn divide_word(&mut self, interrupts: &mut Interrupts) -> Result<Chunk, Error> {
        let Some(&CountedSegment { segment, .. }) = self.ahead.front() else {
            return Err(Error::internal("there is no word to divide"));
        };
        // White space behind it makes no token and stays with the last part.
        let additive = self.tokenizer.is_additive();
        let (start, end) = (segment.start, if additive { segment.word_end } else { segment.end });
        let (at, tokens) = self.longest_start(start, end, interrupts)?;
        // Counting an endless rest again for each part would take quadratic time.
        let rest = if additive || end - at <= REST_BYTES {
            self.count(at..end, interrupts)?
        } else {
            self.room + 1
        };
        self.repeated = 0;
        self.done = at == self.text.len();
        if let Some(first) = self.ahead.front_mut() {
            self.tokens = self.tokens - first.tokens + rest;
            (first.segment.start, first.tokens) = (at, rest);
            if at == segment.end {
                self.forget(1);
            }
        }
        Ok(Chunk { range: start..at, tokens: tokens + self.tokenizer.specials() })
    }

    /// Where a part from `start` on, before `end`, has as many tokens as there is room, and how
    /// many it has. A longer part may have fewer tokens, so each that is taken was counted.
    fn longest_start(
        &self,
        start: usize,
        end: usize,
        interrupts: &mut Interrupts,
    ) -> Result<(usize, usize), Error> {
        let text = self.text;
        let mut fits = ceil(text, start + 1);
        let mut tokens = self.count(start..fits, interrupts)?;
        if tokens > self.room {
            let limit = self.room + self.tokenizer.specials();
            let tokens = tokens + self.tokenizer.specials();
            return Err(Error::CharacterTooLong { tokens, limit });
        }
        let mut too_long = end;
        let mut step = self.room;
        while fits + step < too_long {
            let at = ceil(text, fits + step);
            let found = self.count(start..at, interrupts)?;
            if found > self.room {
                too_long = at;
                break;
            }
            (fits, tokens, step) = (at, found, step * 2);
        }
        loop {
            let mut at = floor(text, fits + (too_long - fits) / 2);
            if at == fits {
                at = ceil(text, fits + 1);
            }
            if at >= too_long {
                break;
            }
            let found = self.count(start..at, interrupts)?;
            if found > self.room {
                too_long = at;
            } else {
                (fits, tokens) = (at, found);
            }
        }
        // Back to the last grapheme that ends there.
        let from = ceil(text, start.max(fits.saturating_sub(GRAPHEME_BYTES)));
        let to = ceil(text, end.min(fits + GRAPHEME_BYTES));
        let ends = text[from..to].grapheme_indices(true).map(|(offset, _)| from + offset);
        if let Some(at) = ends.take_while(|&at| at <= fits).last()
            && at > from
            && at < fits
        {
            let found = self.count(start..at, interrupts)?;
            if found <= self.room {
                (fits, tokens) = (at, found);
            }
        }
        Ok((fits, tokens))
    }

    fn count(&self, range: Range<usize>, interrupts: &mut Interrupts) -> Result<usize, Error> {
        count_bare(self.tokenizer, &self.text[range], interrupts)
    }

    /// Drops the first units.
    fn forget(&mut self, segments: usize) {
        let tokens: usize = self.ahead.drain(..segments).map(|segment| segment.tokens).sum();
        self.tokens -= tokens;
    }
}

/// The first place from `at` on where a character starts.
fn ceil(text: &str, at: usize) -> usize {
    (at..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

/// The last place up to `at` where a character starts.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}
