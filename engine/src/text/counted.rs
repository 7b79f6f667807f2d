//! The units of a text, each with its number of tokens.

use std::collections::HashMap;
use std::iter::Peekable;

use tokenizers::Encoding;
use unicode_segmentation::{UWordBoundIndices, UnicodeSegmentation};

use super::segment::{Unit, UnitReader, line_breaks};
use super::tokenizer::Tokenizer;
use crate::Error;
use crate::interrupts::Ask;

/// A text says most of its words again and again, and looking one up takes 40 ns where tokenizing it
/// takes 300 ns, or 4 µs if it is not of ASCII. So many words of at most so many bytes are 3 MB.
const REMEMBERED: usize = 1 << 15;
const REMEMBERED_BYTES: usize = 32;

/// A unit and its tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountedUnit {
    pub unit: Unit,
    pub tokens: usize,
}

/// Where units come from.
enum Source<'t> {
    /// A tokenizer that treats each word for itself.
    Words { reader: UnitReader<'t>, remembered: HashMap<&'t str, usize>, ids: Vec<u32> },
    /// Any other: the text was read as a whole, and each token counts where it starts.
    Whole { words: Peekable<UWordBoundIndices<'t>>, encoding: Encoding, token: usize },
}

/// Reads a text from its start to its end.
pub(crate) struct CountedUnits<'t> {
    tokenizer: &'t Tokenizer,
    text: &'t str,
    source: Source<'t>,
}

impl<'t> CountedUnits<'t> {
    /// # Errors
    /// What reading the text as a whole gives, where the tokenizer does that.
    pub fn new(tokenizer: &'t Tokenizer, text: &'t str) -> Result<CountedUnits<'t>, Error> {
        let source = match tokenizer.units(text) {
            Some(reader) => Source::Words { reader, remembered: HashMap::new(), ids: Vec::new() },
            None => Source::Whole {
                words: text.split_word_bound_indices().peekable(),
                encoding: tokenizer.encode_whole(text)?,
                token: 0,
            },
        };
        Ok(CountedUnits { tokenizer, text, source })
    }

    /// The next unit; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Interrupted`], and what the tokenizer gives.
    pub fn next_unit(&mut self, ask: &mut Ask) -> Result<Option<CountedUnit>, Error> {
        let CountedUnits { tokenizer, text, source } = self;
        match source {
            Source::Words { reader, remembered, ids } => {
                let Some(unit) = reader.next_unit(ask)? else {
                    return Ok(None);
                };
                let word = &text[unit.word..unit.word_end];
                if let Some(&tokens) = remembered.get(word) {
                    return Ok(Some(CountedUnit { unit, tokens }));
                }
                let read = reader.shortened(&unit, ask)?;
                ask.encoded(read.len())?;
                ids.clear();
                tokenizer.encode(&read, ids)?;
                let tokens = ids.len();
                if word.len() <= REMEMBERED_BYTES {
                    if remembered.len() >= REMEMBERED {
                        remembered.clear();
                    }
                    remembered.insert(word, tokens);
                }
                Ok(Some(CountedUnit { unit, tokens }))
            }
            Source::Whole { words, encoding, token } => {
                let Some(unit) = next_whole(words, ask)? else {
                    return Ok(None);
                };
                let starts = encoding.get_offsets()[*token..].iter();
                let tokens = starts.take_while(|&&(start, _)| start < unit.end).count();
                *token += tokens;
                Ok(Some(CountedUnit { unit, tokens }))
            }
        }
    }
}

/// Tokens of the whole text, specials included and without a limit.
pub(crate) fn count(tokenizer: &Tokenizer, text: &str, ask: &mut Ask) -> Result<usize, Error> {
    Ok(tokenizer.specials() + count_bare(tokenizer, text, ask)?)
}

/// Tokens of the whole text, without the specials.
pub(crate) fn count_bare(tokenizer: &Tokenizer, text: &str, ask: &mut Ask) -> Result<usize, Error> {
    ask.now()?;
    if !tokenizer.is_additive() {
        return Ok(tokenizer.encode_whole(text)?.len());
    }
    let mut tokens = 0;
    let mut units = CountedUnits::new(tokenizer, text)?;
    while let Some(unit) = units.next_unit(ask)? {
        tokens += unit.tokens;
    }
    Ok(tokens)
}

/// A word by Unicode's rules and the white space behind it.
fn next_whole(
    words: &mut Peekable<UWordBoundIndices>,
    ask: &mut Ask,
) -> Result<Option<Unit>, Error> {
    let is_blank = |word: &str| word.chars().all(char::is_whitespace);
    let mut found: Option<Unit> = None;
    let mut after_return = false;
    while let Some(&(start, word)) = words.peek() {
        ask.passed(word.len())?;
        let end = start + word.len();
        let unit = found.get_or_insert(Unit {
            start,
            word: start,
            word_end: start,
            end,
            spaced: false,
            breaks: 0,
        });
        if !is_blank(word) {
            if unit.word_end > unit.word {
                break;
            }
            (unit.word, unit.word_end) = (start, end);
            (unit.spaced, unit.breaks, after_return) = (false, 0, false);
        } else {
            unit.spaced = true;
            for c in word.chars() {
                unit.breaks = unit.breaks.saturating_add(line_breaks(c, after_return));
                after_return = c == '\r';
            }
        }
        unit.end = end;
        words.next();
    }
    Ok(found)
}
