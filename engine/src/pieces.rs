//! Reading a text piece by piece, so that a tokenizer sees only as much of it as it needs.
//!
//! `tokenizers` keeps an alignment of 16 bytes per byte of input and works at about 1 MB/s, so a
//! 10 MB text handed over whole costs 10 s and several hundred MB, for the 510 tokens that are
//! used. BERT's pipeline treats each word for itself, so the text can be cut before a character
//! that always starts a new word: tokens(a + b) = tokens(a) + tokens(b).
//!
//! Which characters those are is not written down here a second time. Each character is put
//! between two letters and run through the loaded tokenizer's own normalizer and pre-tokenizer.

use std::borrow::Cow;
use std::collections::HashMap;

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

/// A word longer than this is read in its shortened form, see [`PieceReader::giant_word`]: 510
/// words of 16 KB would otherwise be 8 MB and a second of tokenizing.
const GIANT_WORD_BYTES: usize = 1 << 10;

/// So much is passed over before the caller may stop: some 5 ms of accents without letters.
const MOST_SKIPPED_BYTES: usize = 256 << 10;

/// More added tokens than this are not looked at one by one (BERT has 5).
const MAX_ADDED_TOKENS: usize = 1000;

/// What the tokenizer makes of a character between two letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CharClass {
    /// Part of the word around it.
    Word,
    /// Ends a word and yields no token: white space.
    Space,
    /// A word of its own: punctuation, a CJK ideograph.
    Isolated,
    /// Dropped, as if it had not been there: control characters, stripped accents.
    Removed,
}

/// How to cut texts for one tokenizer.
pub(crate) struct Pieces {
    normalizer: NormalizerWrapper,
    pre_tokenizer: PreTokenizerWrapper,
    ascii: [CharClass; 128],
    /// A word of more characters than this is one unknown token, whatever it is made of.
    max_word_chars: usize,
    /// Contents of the added tokens (`[CLS]` and the like), which are found before any splitting.
    added_tokens: Vec<String>,
}

impl Pieces {
    /// `None` when the tokenizer is not of BERT's kind (normalizer, pre-tokenizer and WordPiece
    /// model), or has added tokens that may start in the middle of a word: then a text can only be
    /// read as a whole.
    pub fn for_tokenizer(tokenizer: &tokenizers::Tokenizer) -> Option<Pieces> {
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
            || added.values().any(|token| token.normalized || token.single_word)
        {
            return None;
        }
        let mut pieces = Pieces {
            max_word_chars: model.max_input_chars_per_word,
            added_tokens: added.values().map(|token| token.content.clone()).collect(),
            ascii: [CharClass::Word; 128],
            normalizer,
            pre_tokenizer,
        };
        for code in 0..128u8 {
            pieces.ascii[usize::from(code)] = pieces.probe(char::from(code));
        }
        let starts_a_word = |token: &String| {
            token.chars().next().is_some_and(|c| pieces.probe(c) == CharClass::Isolated)
        };
        pieces.added_tokens.iter().all(starts_a_word).then_some(pieces)
    }

    /// Starts reading `text`.
    pub fn read<'t>(&'t self, text: &'t str) -> PieceReader<'t> {
        PieceReader { pieces: self, text, start: 0, classes: HashMap::new() }
    }

    /// Runs `a{c}b` through the tokenizer's own first two stages.
    fn probe(&self, c: char) -> CharClass {
        let mut normalized = NormalizedString::from(format!("a{c}b"));
        if self.normalizer.normalize(&mut normalized).is_err() {
            return CharClass::Word;
        }
        let mut split = PreTokenizedString::from(normalized);
        if self.pre_tokenizer.pre_tokenize(&mut split).is_err() {
            return CharClass::Word;
        }
        let splits = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        let words: Vec<&str> =
            splits.iter().map(|&(word, _, _)| word).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            ["ab"] => CharClass::Removed,
            ["a", "b"] => CharClass::Space,
            ["a", .., _] => CharClass::Isolated,
            _ => CharClass::Word,
        }
    }

    /// Whether an added token of the text would lie across byte `at`.
    fn splits_added_token(&self, text: &str, at: usize) -> bool {
        self.added_tokens.iter().any(|token| {
            token.char_indices().skip(1).any(|(inside, _)| {
                text[..at].ends_with(&token[..inside]) && text[at..].starts_with(&token[inside..])
            })
        })
    }
}

/// The pieces of one text, in order. Their tokens, laid end to end, are the text's tokens.
pub(crate) struct PieceReader<'t> {
    pieces: &'t Pieces,
    text: &'t str,
    start: usize,
    /// Classes of the characters met so far that are not ASCII.
    classes: HashMap<char, CharClass>,
}

impl<'t> PieceReader<'t> {
    /// The next piece, of about `target` bytes where a cut is possible there; `None` at the end.
    /// Empty where a long run of characters that make no token goes on.
    pub fn next_piece(&mut self, target: usize) -> Option<Cow<'t, str>> {
        let text = self.text;
        if self.start == text.len() {
            return None;
        }
        if !self.skip_what_yields_nothing() {
            return Some(Cow::Borrowed(""));
        }
        let start = self.start;
        if start == text.len() {
            return None;
        }
        let mut window = start + target.max(1);
        if window >= text.len() {
            self.start = text.len();
            return Some(Cow::Borrowed(&text[start..]));
        }
        while !text.is_char_boundary(window) {
            window += 1;
        }
        let behind = text[start..window].char_indices().rev();
        for (offset, c) in behind.take_while(|&(offset, _)| offset > 0) {
            if self.may_cut(start + offset, c) {
                self.start = start + offset;
                return Some(Cow::Borrowed(&text[start..self.start]));
            }
        }
        let end = self.next_cut(window);
        self.start = end;
        if end - start <= GIANT_WORD_BYTES {
            Some(Cow::Borrowed(&text[start..end]))
        } else {
            Some(Cow::Owned(self.giant_word(&text[start..end])))
        }
    }

    /// White space and dropped characters at the start of a piece make no token, however many.
    /// Returns whether it came to their end.
    fn skip_what_yields_nothing(&mut self) -> bool {
        let text = self.text;
        for (offset, c) in text[self.start..].char_indices() {
            let ended = matches!(self.class(c), CharClass::Word | CharClass::Isolated);
            if ended || offset >= MOST_SKIPPED_BYTES {
                self.start += offset;
                return ended;
            }
        }
        self.start = text.len();
        true
    }

    fn next_cut(&mut self, from: usize) -> usize {
        let text = self.text;
        text[from..]
            .char_indices()
            .find(|&(offset, c)| self.may_cut(from + offset, c))
            .map_or(text.len(), |(offset, _)| from + offset)
    }

    fn may_cut(&mut self, at: usize, c: char) -> bool {
        matches!(self.class(c), CharClass::Space | CharClass::Isolated)
            && !self.pieces.splits_added_token(self.text, at)
    }

    /// A text that stands for an endless word: its first characters, enough of them to be more
    /// than the model takes in one word. Runs of dropped characters shrink to one, not to none,
    /// so that nothing becomes adjacent that was not.
    fn giant_word(&mut self, word: &str) -> String {
        let mut kept = String::new();
        let mut word_chars = 0;
        let mut in_removed = false;
        for c in word.chars() {
            let class = self.class(c);
            match class {
                CharClass::Word => word_chars += 1,
                CharClass::Removed if in_removed => continue,
                CharClass::Removed => {}
                // A cut was forbidden here, so an added token ends and the word starts anew.
                CharClass::Space | CharClass::Isolated => word_chars = 0,
            }
            in_removed = class == CharClass::Removed;
            kept.push(c);
            if word_chars > self.pieces.max_word_chars {
                break;
            }
        }
        kept
    }

    fn class(&mut self, c: char) -> CharClass {
        let pieces = self.pieces;
        match pieces.ascii.get(c as usize) {
            Some(&class) => class,
            None => *self.classes.entry(c).or_insert_with(|| pieces.probe(c)),
        }
    }
}
