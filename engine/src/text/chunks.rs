//! Divides a long text into chunks with a limited number of tokens.
//!
//! A text is read once, segment by segment (see `segment.rs`), and the segments of at most one
//! chunk are held. A chunk ends at its best boundary. A word is divided only if it alone is too
//! long.
//!
//! Tokens do not bound the characters of a chunk: white space makes none, and a word that is too
//! long for the model makes one. So a chunk has a limit of characters too. A word of very many
//! characters is divided into parts that the model reads, and each is a chunk.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};

use unicode_segmentation::UnicodeSegmentation;

use super::boundary::Boundary;
use super::counted::{CountedSegment, CountedSegments, count, count_bare};
use super::prompt::Prompt;
use super::segment::Segment;
use super::tokenizer::Tokenizer;
use crate::Error;
use crate::interrupts::Interrupts;

/// Work of classifying one boundary, see [`Interrupts::count_work`].
const BOUNDARY_WORK: usize = 100;

/// Most characters of a chunk for each token that it may have. Prose has 4 to 6, and a table with
/// wide columns 15.
const CHARS_PER_TOKEN: usize = 32;

/// A word that the model does not read, because it has too many characters, stays in one piece up
/// to this many: a checksum or a key in a text is no place to end a chunk.
const UNREAD_WORD_CHARS: usize = 1000;

/// A word is divided at the end of a grapheme if one ends within this many bytes.
const GRAPHEME_BYTES: usize = 256;

/// With a tokenizer that reads texts as a whole, a rest of a divided word that is longer than this
/// is divided again, and its tokens are not counted first.
const REST_BYTES: usize = 1 << 16;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its place in the text, in bytes.
    pub range: Range<usize>,
    /// Number of its tokens as a document of its own, specials and prompt included.
    pub tokens: usize,
}

/// The chunks of one text, in order.
pub struct Chunks<'t> {
    tokenizer: &'t Tokenizer,
    prompt: &'t Prompt,
    text: &'t str,
    segments: CountedSegments<'t>,
    /// Whether a chunk has the tokens of its prompt and its segments, one after another. Otherwise
    /// their sum is an estimate.
    additive: bool,
    /// Most tokens of a chunk, the prompt included, and most tokens it repeats of the chunk before;
    /// both without specials.
    room: usize,
    overlap: usize,
    /// Most characters of a chunk, of a word that is not divided, and of a part of a divided one.
    max_chars: usize,
    max_word_chars: usize,
    part_chars: usize,
    /// Segments from the start of the next chunk on, and how many of them the last chunk had too.
    ahead: VecDeque<CountedSegment>,
    repeated: usize,
    /// Sums of the tokens and the characters of `ahead`.
    tokens: usize,
    chars: usize,
    done: bool,
}

impl<'t> Chunks<'t> {
    /// `max_tokens` includes the specials. A number over the model's limit means the limit.
    pub(crate) fn new(
        tokenizer: &'t Tokenizer,
        prompt: &'t Prompt,
        text: &'t str,
        max_tokens: usize,
        overlap: usize,
    ) -> Result<Chunks<'t>, Error> {
        let max_tokens = max_tokens.min(tokenizer.max_tokens());
        let room = max_tokens.saturating_sub(tokenizer.specials());
        if room <= prompt.tokens() || overlap >= room - prompt.tokens() {
            return Err(Error::internal(format_args!(
                "a chunk of {max_tokens} tokens can't repeat {overlap} tokens"
            )));
        }
        let max_chars = max_tokens.saturating_mul(CHARS_PER_TOKEN);
        let (max_word_chars, part_chars) = match tokenizer.max_word_chars() {
            Some(chars) => (chars.max(UNREAD_WORD_CHARS), chars.clamp(1, room - prompt.tokens())),
            None => (max_chars, max_chars),
        };
        Ok(Chunks {
            tokenizer,
            prompt,
            text,
            segments: CountedSegments::new(tokenizer, text)?,
            additive: tokenizer.is_additive() && prompt.is_apart(),
            room,
            overlap,
            max_chars,
            max_word_chars,
            part_chars,
            ahead: VecDeque::new(),
            repeated: 0,
            tokens: 0,
            chars: 0,
            done: false,
        })
    }

    /// The next chunk; `None` at the end. The ranges of all chunks cover the text. With an overlap
    /// of 0 each chunk starts where the one before it ends. `go_on` is called every few
    /// milliseconds.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `go_on` breaks; [`Error::CharacterTooLong`] for a character
    /// that alone has more tokens than a chunk may have; errors of the tokenizer.
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
        if first.tokens > self.room_for_text() {
            return self.divide_word(interrupts).map(Some);
        }
        let mut fitting = self.fitting();
        let (segments, tokens) = loop {
            let segments = if to_the_end && fitting == self.ahead.len() {
                fitting
            } else {
                self.best_end(fitting, interrupts)?
            };
            let sum: usize = self.ahead.iter().take(segments).map(|segment| segment.tokens).sum();
            if self.additive {
                break (segments, self.prompt.tokens() + sum);
            }
            // The sum is an estimate, so the chunk may be too long. It is then tried with fewer
            // segments. If only the repeated ones are left, it repeats nothing. If it repeats
            // nothing and its first segment alone is too long, that word is divided.
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

    /// Reads segments until they have more tokens or characters than a chunk may have. Returns
    /// whether the text ended before that.
    fn read_ahead(&mut self, interrupts: &mut Interrupts) -> Result<bool, Error> {
        while self.tokens <= self.room_for_text() && self.chars <= self.max_chars {
            let Some(mut next) = self.segments.next_segment(interrupts)? else {
                return Ok(true);
            };
            if self.is_oversized(&next.segment, interrupts)? {
                (next.oversized, next.tokens) = (true, self.room + 1);
            }
            self.tokens += next.tokens;
            self.chars += next.segment.chars;
            self.ahead.push_back(next);
        }
        Ok(false)
    }

    /// How many segments fit into a chunk: at least one that the last chunk did not have.
    fn fitting(&self) -> usize {
        let (mut tokens, mut chars) = (0, 0);
        let fits = |next: &&CountedSegment| {
            tokens += next.tokens;
            chars += next.segment.chars;
            tokens <= self.room_for_text() && chars <= self.max_chars
        };
        self.ahead.iter().take_while(fits).count()
    }

    /// How many of the first `fitting` segments make the chunk. It takes the best boundary (blank
    /// line, end of a sentence, line break) in the second half, else the last one of these in the
    /// first half. If there is none, it takes white space in the second half, else the last
    /// boundary of a word.
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
            // Only a blank line is better than the end of a sentence.
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

    /// The boundary after the first `segments`.
    fn boundary_after(
        &self,
        segments: usize,
        interrupts: &mut Interrupts,
    ) -> Result<Boundary, Error> {
        interrupts.count_work(BOUNDARY_WORK)?;
        Ok(Boundary::after(self.text, &self.ahead[segments - 1].segment))
    }

    /// The index in the `segments` of a chunk at which the next chunk starts. It is at a boundary
    /// of words. The next chunk repeats at most `overlap` tokens, not the whole chunk, and has room
    /// for at least one new segment.
    fn repeat_from(&self, segments: usize, interrupts: &mut Interrupts) -> Result<usize, Error> {
        let Some(following) =
            self.ahead.get(segments).filter(|segment| segment.tokens <= self.room_for_text())
        else {
            return Ok(segments);
        };
        let room = self.overlap.min(self.room_for_text() - following.tokens);
        let room_chars = self.max_chars.saturating_sub(following.segment.chars);
        let mut from = segments;
        let (mut tokens, mut chars) = (0, 0);
        for start in (1..segments).rev() {
            tokens += self.ahead[start].tokens;
            chars += self.ahead[start].segment.chars;
            if tokens > room || chars > room_chars {
                break;
            }
            from = start;
        }
        while from < segments {
            let range = self.ahead[from].segment.start..self.ahead[segments - 1].segment.end;
            if self.boundary_after(from, interrupts)? >= Boundary::Word
                && (self.additive || self.count_bare(range, interrupts)? <= self.overlap)
            {
                break;
            }
            from += 1;
        }
        Ok(from)
    }

    /// Whether a segment is divided for its number of characters.
    fn is_oversized(&self, segment: &Segment, interrupts: &mut Interrupts) -> Result<bool, Error> {
        if segment.chars > self.max_chars {
            return Ok(true);
        }
        if segment.word_end - segment.word <= self.max_word_chars {
            return Ok(false);
        }
        interrupts.count_work(segment.chars)?;
        let word = &self.text[segment.word..segment.word_end];
        let read = word.chars().filter(|&c| !self.tokenizer.removes(c)).count();
        Ok(read > self.max_word_chars)
    }

    /// The first part of a word that alone is too long. The rest stays in `ahead` as a segment.
    fn divide_word(&mut self, interrupts: &mut Interrupts) -> Result<Chunk, Error> {
        let Some(&CountedSegment { segment, oversized, .. }) = self.ahead.front() else {
            return Err(Error::internal("there is no word to divide"));
        };
        // White space after it makes no token and stays with the last part.
        let additive = self.additive;
        let end = if additive { segment.word_end } else { segment.end };
        let (at, tokens) = match oversized {
            true => self.readable_part(&segment, interrupts)?,
            false => self.filling_part(segment.start, end, interrupts)?,
        };
        let mut rest = Segment { start: at, word: segment.word.max(at), ..segment };
        rest.word_end = segment.word_end.max(rest.word);
        rest.chars -= self.text[segment.start..at].chars().count();
        let oversized = oversized && self.part_end(&rest, interrupts)? < rest.end;
        // Counting a very long rest again for each part would take quadratic time.
        let end = end.max(at);
        let rest_tokens = if !oversized && (additive || end - at <= REST_BYTES) {
            self.count_bare(at..end, interrupts)?
        } else {
            self.room + 1
        };
        self.repeated = 0;
        self.done = at == self.text.len();
        if let Some(first) = self.ahead.front_mut() {
            self.tokens = self.tokens - first.tokens + rest_tokens;
            self.chars = self.chars - first.segment.chars + rest.chars;
            *first = CountedSegment { segment: rest, tokens: rest_tokens, oversized };
            if at == segment.end {
                self.forget(1);
            }
        }
        Ok(Chunk { range: segment.start..at, tokens: tokens + self.tokenizer.specials() })
    }

    /// The end of the first part of an oversized segment, and its number of tokens.
    fn readable_part(
        &self,
        segment: &Segment,
        interrupts: &mut Interrupts,
    ) -> Result<(usize, usize), Error> {
        let end = self.part_end(segment, interrupts)?;
        let tokens = self.count(segment.start..end, interrupts)?;
        match tokens <= self.room {
            true => Ok((end, tokens)),
            false => self.filling_part(segment.start, end, interrupts),
        }
    }

    /// Where a part of `part_chars` characters of the word ends, or of `max_chars` in all.
    /// Characters that the tokenizer removes stay with the one before them.
    fn part_end(&self, segment: &Segment, interrupts: &mut Interrupts) -> Result<usize, Error> {
        let (mut chars, mut read) = (0, 0);
        for (offset, c) in self.text[segment.start..segment.end].char_indices() {
            interrupts.count_work(1)?;
            let at = segment.start + offset;
            let in_word = (segment.word..segment.word_end).contains(&at);
            let is_read = in_word && !self.tokenizer.removes(c);
            if chars == self.max_chars || is_read && read == self.part_chars {
                let whole = |at| self.grapheme_end(segment.start, at, segment.end);
                return Ok(if c.is_ascii() { at } else { whole(at).unwrap_or(at) });
            }
            chars += 1;
            read += usize::from(is_read);
        }
        Ok(segment.end)
    }

    /// The last end of a grapheme at or before `at`, if there is one nearby.
    fn grapheme_end(&self, start: usize, at: usize, end: usize) -> Option<usize> {
        let text = self.text;
        let from = ceil(text, start.max(at.saturating_sub(GRAPHEME_BYTES)));
        let to = ceil(text, end.min(at + GRAPHEME_BYTES));
        let ends = text[from..to].grapheme_indices(true).map(|(offset, _)| from + offset);
        ends.take_while(|&end| end <= at).last().filter(|&end| end > from)
    }

    /// The end of a part that starts at `start`, ends before `end` and fills a chunk, and its
    /// number of tokens. A longer part may have fewer tokens than a shorter one, so only a part
    /// whose tokens were counted is taken.
    fn filling_part(
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
        if let Some(at) = self.grapheme_end(start, fits, end)
            && at < fits
        {
            let found = self.count(start..at, interrupts)?;
            if found <= self.room {
                (fits, tokens) = (at, found);
            }
        }
        Ok((fits, tokens))
    }

    /// Most tokens of a chunk without its prompt.
    fn room_for_text(&self) -> usize {
        self.room - self.prompt.tokens()
    }

    /// Number of tokens of a part with its prompt.
    fn count(&self, range: Range<usize>, interrupts: &mut Interrupts) -> Result<usize, Error> {
        count(self.tokenizer, self.prompt, &self.text[range], interrupts)
    }

    /// Number of tokens of a part alone.
    fn count_bare(&self, range: Range<usize>, interrupts: &mut Interrupts) -> Result<usize, Error> {
        count_bare(self.tokenizer, &self.text[range], interrupts)
    }

    /// Drops the first segments.
    fn forget(&mut self, segments: usize) {
        for first in self.ahead.drain(..segments) {
            self.tokens -= first.tokens;
            self.chars -= first.segment.chars;
        }
    }
}

/// The first start of a character at or after `at`.
fn ceil(text: &str, at: usize) -> usize {
    (at..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

/// The last start of a character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}
