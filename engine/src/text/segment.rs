//! Reads a text word by word, so that the tokenizer gets only the part that it needs.
//!
//! The tokenizers library keeps 16 bytes of alignments per byte of input and reads about 1 MB/s. A
//! text of 10 MB, given to it as a whole, costs 10 s and several hundred MB, and 510 tokens of it
//! are used. BERT's pipeline treats each word by itself. So a text can be divided where a word
//! starts that does not depend on the text before it: tokens(a + b) = tokens(a) + tokens(b).

use std::borrow::Cow;

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

use super::char_class::{CharClass, CharClasses};
use crate::Error;
use crate::interrupts::Interrupts;

/// A word longer than this is shortened before it is tokenized, see [`Segments::shortened`]. 510
/// words of 16 KB would be 8 MB to tokenize.
const GIANT_WORD_BYTES: usize = 1 << 10;

/// A shortened word that is still longer than this is refused. No word of a real tokenizer is.
const MAX_WORD_BYTES: usize = 1 << 20;

/// A piece ends before a longer stretch that makes no token.
const MAX_BLANK_BYTES: usize = 64;

/// At each character that can start an added token, all of them are compared with the text (BERT
/// has 5). A word is read at least to the end of the longest that is found.
const MAX_ADDED_TOKENS: usize = 1000;
const MAX_ADDED_TOKEN_BYTES: usize = 256;

/// Divides texts into segments for one tokenizer.
pub(crate) struct Segmenter {
    classes: CharClasses,
    /// A word of more characters than this is one unknown token.
    max_word_chars: usize,
    /// Contents of the added tokens (`[CLS]` and others). The library finds them before it splits a
    /// text into words.
    added_tokens: Vec<String>,
    /// Bytes of the longest of them.
    longest_added: usize,
}

impl Segmenter {
    /// `None` when the tokenizer is not of BERT's kind (normalizer, pre-tokenizer and WordPiece
    /// model), or when its added tokens may start in the middle of a word. Such a tokenizer can
    /// only read a text as a whole.
    pub fn for_tokenizer(tokenizer: &tokenizers::Tokenizer) -> Option<Segmenter> {
        let normalizer = tokenizer.get_normalizer()?.clone();
        let pre_tokenizer = tokenizer.get_pre_tokenizer()?.clone();
        let (
            NormalizerWrapper::BertNormalizer(_),
            PreTokenizerWrapper::BertPreTokenizer(_),
            ModelWrapper::WordPiece(model),
        ) = (&normalizer, &pre_tokenizer, tokenizer.get_model())
        else {
            return None;
        };
        let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        if added.len() > MAX_ADDED_TOKENS
            || added.values().any(|token| {
                token.normalized || token.single_word || token.content.len() > MAX_ADDED_TOKEN_BYTES
            })
        {
            return None;
        }
        let segmenter = Segmenter {
            max_word_chars: model.max_input_chars_per_word,
            added_tokens: added.values().map(|token| token.content.clone()).collect(),
            longest_added: added.values().map(|token| token.content.len()).max().unwrap_or(0),
            classes: CharClasses::new(normalizer, pre_tokenizer),
        };
        let starts_a_word = |token: &String| {
            let first = token.chars().next().map(|c| segmenter.classes.of(c));
            matches!(first, Some(CharClass::Isolated | CharClass::Starting))
        };
        segmenter.added_tokens.iter().all(starts_a_word).then_some(segmenter)
    }

    /// The segments of `text`.
    pub fn segments<'t>(&'t self, text: &'t str) -> Segments<'t> {
        Segments { segmenter: self, text, at: 0, covered: 0, pending: None }
    }

    /// Whether a new segment starts after `text`, whatever follows. White space and punctuation end
    /// a word. An added token must not begin in `text` and end in what follows.
    pub fn ends_apart(&self, text: &str) -> bool {
        let Some(last) = text.chars().next_back() else {
            return true;
        };
        let begins_in_text = |token: &String| {
            token.char_indices().skip(1).any(|(at, _)| text.ends_with(&token[..at]))
        };
        matches!(self.classes.of(last), CharClass::Space | CharClass::Isolated)
            && !self.added_tokens.iter().any(begins_in_text)
    }

    /// A word of more characters than this is one unknown token.
    pub fn max_word_chars(&self) -> usize {
        self.max_word_chars
    }

    /// What the tokenizer makes of each character.
    pub fn classes(&self) -> &CharClasses {
        &self.classes
    }

    /// Bytes of the longest added token that `text` starts with; 0 if there is none.
    pub fn added_token(&self, text: &str) -> usize {
        let found = self.added_tokens.iter().filter(|token| text.starts_with(token.as_str()));
        found.map(String::len).max().unwrap_or(0)
    }
}

/// A part of a text that is tokenized by itself: a word and the characters after it that make no
/// token. A segment starts where the one before it ends. At each of these places
/// tokens(a + b) = tokens(a) + tokens(b).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub start: usize,
    /// Start of the word. The word is empty in a text that makes no token at all. White space at
    /// the start of the text belongs to its first segment.
    pub word: usize,
    pub word_end: usize,
    pub end: usize,
    /// Whether white space follows the word.
    pub spaced: bool,
    /// Number of line breaks that follow the word, up to 255.
    pub breaks: u8,
    /// Number of its characters.
    pub chars: usize,
}

/// The segments of one text, in order.
pub(crate) struct Segments<'t> {
    segmenter: &'t Segmenter,
    text: &'t str,
    at: usize,
    /// End of the last added token that was found: no segment ends inside it.
    covered: usize,
    /// A segment that was read and belongs to the next piece.
    pending: Option<Segment>,
}

impl<'t> Segments<'t> {
    /// The next segment; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn next_segment(&mut self, interrupts: &mut Interrupts) -> Result<Option<Segment>, Error> {
        let (text, start) = (self.text, self.at);
        if start == text.len() {
            return Ok(None);
        }
        let mut segment = Segment {
            start,
            word: start,
            word_end: start,
            end: text.len(),
            spaced: false,
            breaks: 0,
            chars: 0,
        };
        let mut in_word = false;
        // Whether a word that starts here is a new word, whatever character it starts with.
        let mut parted = true;
        let mut after_return = false;
        for (offset, c) in text[start..].char_indices() {
            interrupts.count_work(1)?;
            let (at, class) = (start + offset, self.segmenter.classes.of(c));
            let after = at + c.len_utf8();
            let covered = at < self.covered;
            match class {
                CharClass::Space | CharClass::Removed => {
                    parted |= class == CharClass::Space;
                    if covered {
                        segment.word_end = after;
                    }
                    segment.spaced |= class == CharClass::Space;
                    segment.breaks = segment.breaks.saturating_add(line_breaks(c, after_return));
                    after_return = c == '\r';
                }
                CharClass::Word | CharClass::Isolated | CharClass::Starting => {
                    let starts = parted || class != CharClass::Word;
                    if in_word && starts && !covered {
                        segment.end = at;
                        break;
                    }
                    if class != CharClass::Word {
                        interrupts.count_work(self.segmenter.added_tokens.len())?;
                        let token = self.segmenter.added_token(&text[at..]);
                        self.covered = self.covered.max(at + token);
                    }
                    if !in_word {
                        (in_word, segment.word) = (true, at);
                    }
                    segment.word_end = after;
                    (segment.spaced, segment.breaks, after_return) = (false, 0, false);
                    parted = class == CharClass::Isolated;
                }
            }
            segment.chars += 1;
        }
        if !in_word {
            (segment.word, segment.word_end) = (segment.end, segment.end);
        }
        self.at = segment.end;
        Ok(Some(segment))
    }

    /// The next piece, some segments of together about `target` bytes; `None` at the end. The
    /// tokens of all pieces, one after another, are the text's tokens.
    ///
    /// # Errors
    /// [`Error::Interrupted`], [`Error::TextTooLong`] as [`Segments::shortened`].
    pub fn next_piece(
        &mut self,
        target: usize,
        interrupts: &mut Interrupts,
    ) -> Result<Option<Cow<'t, str>>, Error> {
        let Some(first) = self.pending_or_next(interrupts)? else {
            return Ok(None);
        };
        if first.word_end - first.word > GIANT_WORD_BYTES {
            return self.shortened(&first, interrupts).map(Some);
        }
        let mut last = first;
        while last.word_end - first.word < target && last.end - last.word_end <= MAX_BLANK_BYTES {
            let Some(segment) = self.pending_or_next(interrupts)? else {
                break;
            };
            if segment.word_end - segment.word > GIANT_WORD_BYTES {
                self.pending = Some(segment);
                break;
            }
            last = segment;
        }
        Ok(Some(Cow::Borrowed(&self.text[first.word..last.word_end])))
    }

    fn pending_or_next(&mut self, interrupts: &mut Interrupts) -> Result<Option<Segment>, Error> {
        match self.pending.take() {
            Some(segment) => Ok(Some(segment)),
            None => self.next_segment(interrupts),
        }
    }

    /// A text that has the same tokens as the segment's word. It is the word itself, or, for a very
    /// long word, its first characters, more of them than the model takes in one word. A run of
    /// removed characters becomes one character, not none, so that its neighbours stay apart.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; [`Error::TextTooLong`] for a word that is still too long.
    pub fn shortened(
        &mut self,
        segment: &Segment,
        interrupts: &mut Interrupts,
    ) -> Result<Cow<'t, str>, Error> {
        let word = &self.text[segment.word..segment.word_end];
        if word.len() <= GIANT_WORD_BYTES {
            return Ok(Cow::Borrowed(word));
        }
        // An added token at its start may end with letters. They are no part of the word after it.
        let enough = self.segmenter.max_word_chars.saturating_add(self.segmenter.longest_added);
        let mut kept = String::new();
        let mut word_chars = 0;
        let mut in_removed = false;
        for c in word.chars() {
            interrupts.count_work(1)?;
            let class = self.segmenter.classes.of(c);
            match class {
                CharClass::Word => word_chars += 1,
                CharClass::Removed if in_removed => continue,
                CharClass::Removed => {}
                // It is the first of the segment or inside an added token. A new word follows.
                CharClass::Space | CharClass::Isolated | CharClass::Starting => word_chars = 0,
            }
            in_removed = class == CharClass::Removed;
            kept.push(c);
            if word_chars > enough {
                break;
            }
            if kept.len() > MAX_WORD_BYTES {
                return Err(Error::TextTooLong { bytes: word.len(), limit: MAX_WORD_BYTES });
            }
        }
        Ok(Cow::Owned(kept))
    }
}

/// Number of line breaks that a character adds. A line feed after a carriage return adds none.
pub(crate) fn line_breaks(c: char, after_return: bool) -> u8 {
    match c {
        '\n' => u8::from(!after_return),
        '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' => 1,
        '\u{2029}' => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::text::test_tokenizer::bert_tokenizer;

    fn assert_pieces_change_nothing(tokenizer: &tokenizers::Tokenizer, text: &str) {
        let whole = tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec();
        let segmenter = Segmenter::for_tokenizer(tokenizer).unwrap();
        for target in [1, 2, 3, 7, 20, 100] {
            let mut joined = Vec::new();
            let mut segments = segmenter.segments(text);
            let mut go_on = || ControlFlow::Continue(());
            let mut interrupts = Interrupts::new(&mut go_on);
            while let Some(piece) = segments.next_piece(target, &mut interrupts).unwrap() {
                joined.extend_from_slice(tokenizer.encode_fast(&*piece, false).unwrap().get_ids());
            }
            assert_eq!(joined, whole, "pieces of {target} bytes of {text:?}");
        }
    }

    #[test]
    fn pieces_of_any_size_have_the_tokens_of_the_whole() {
        let tokenizer = bert_tokenizer();
        for text in [
            "",
            " ",
            "the cats, the cat.",
            "[CLS]the[SEP]cat[MASK]",
            "[CLS[SEP]]",
            "[[CLS]]x[CLS",
            "日本the日本cat",
            "na\u{ef}ve cafe\u{301} a\u{301}\u{302}\u{303}b",
            "\u{301}the \u{301}cat",
            "a\u{200d}b\u{200d} \u{200d}c",
            "한국어 한",
            "\u{feff}the\u{a0}cat\u{3000}the\u{85}cat",
            "\u{201c}the\u{201d}\u{2014}cat\u{bf}",
            "\u{130}stanbul \u{df} \u{1f600}\u{1f1e6}cat",
            "[CL\u{200d}S] [C\u{301}LS]",
            "the\u{fffd}cat\t\r\nthe",
            "\u{f900}\u{2f800}x\u{20000}",
        ] {
            assert_pieces_change_nothing(&tokenizer, text);
        }
    }

    #[test]
    fn a_giant_word_is_one_unknown_token_and_what_follows_is_read() {
        let tokenizer = bert_tokenizer();
        let letters = "a".repeat(40_000);
        let marks = "\u{301}".repeat(20_000);
        for text in [
            format!("{letters} the cat"),
            format!("the {letters}[SEP]cat"),
            format!("[CLS]{letters}.cat"),
            format!("[CL{marks}S]{letters}]cat"),
            format!("a{marks}b the"),
            format!("{marks}the {marks}"),
            format!("[CLS{letters}]{letters}"),
        ] {
            let whole = tokenizer.encode_fast(&*text, false).unwrap().get_ids().to_vec();
            let segmenter = Segmenter::for_tokenizer(&tokenizer).unwrap();
            let mut segments = segmenter.segments(&text);
            let mut joined = Vec::new();
            let mut go_on = || ControlFlow::Continue(());
            let mut interrupts = Interrupts::new(&mut go_on);
            while let Some(piece) = segments.next_piece(3000, &mut interrupts).unwrap() {
                assert!(piece.len() <= 17_000);
                joined.extend_from_slice(tokenizer.encode_fast(&*piece, false).unwrap().get_ids());
            }
            assert_eq!(joined, whole);
        }
    }

    #[test]
    fn a_tokenizer_of_another_kind_is_read_whole() {
        let mut tokenizer = bert_tokenizer();
        tokenizer.add_tokens([tokenizers::AddedToken::from("cat", false)]).unwrap();
        assert!(Segmenter::for_tokenizer(&tokenizer).is_none());
    }
}
