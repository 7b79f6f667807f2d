//! What a tokenizer of BERT's kind makes of each character.
//!
//! Which characters start or end words is not written down here a second time. Each character is
//! put between two letters and run through the loaded tokenizer's own normalizer and pre-tokenizer.

use std::sync::atomic::{AtomicU8, Ordering};

use once_cell::sync::OnceCell;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

/// Characters whose classes are kept in one piece of memory, which is made when the first of them
/// is met.
const BLOCK: usize = 256;

/// Blocks up to the end of the last code point, 70 kB of them.
const BLOCKS: usize = (char::MAX as usize + 1) / BLOCK;

/// What the tokenizer makes of a character between two letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CharClass {
    /// Part of the word around it.
    Word,
    /// Ends a word and yields no token: white space.
    Space,
    /// A word of its own: punctuation, a CJK ideograph.
    Isolated,
    /// Starts a word that goes on behind it.
    Starting,
    /// Dropped, as if it had not been there: control characters, stripped accents.
    Removed,
}

/// The classes of one tokenizer. Probing a character takes 2 µs, so each is probed once.
pub(crate) struct CharClasses {
    normalizer: NormalizerWrapper,
    pre_tokenizer: PreTokenizerWrapper,
    ascii: [CharClass; 128],
    /// What was found out about the others, as [`code`].
    met: Box<[OnceCell<Box<[AtomicU8; BLOCK]>>]>,
}

impl CharClasses {
    pub fn new(normalizer: NormalizerWrapper, pre_tokenizer: PreTokenizerWrapper) -> CharClasses {
        let met = std::iter::repeat_with(OnceCell::new).take(BLOCKS).collect();
        let ascii = [CharClass::Word; 128];
        let mut classes = CharClasses { normalizer, pre_tokenizer, ascii, met };
        for code in 0..128u8 {
            classes.ascii[usize::from(code)] = classes.probe(char::from(code));
        }
        classes
    }

    /// The class of a character.
    pub fn of(&self, c: char) -> CharClass {
        if let Some(&class) = self.ascii.get(c as usize) {
            return class;
        }
        let block = &self.met[c as usize / BLOCK];
        let block = block.get_or_init(|| Box::new([const { AtomicU8::new(0) }; BLOCK]));
        let known = &block[c as usize % BLOCK];
        // Two threads that meet a character at once find the same.
        class(known.load(Ordering::Relaxed)).unwrap_or_else(|| {
            let class = self.probe(c);
            known.store(code(class), Ordering::Relaxed);
            class
        })
    }

    /// The class of a byte of ASCII. Any other byte is the start of something that is not for ASCII.
    pub fn of_ascii(&self, byte: u8) -> CharClass {
        self.ascii.get(usize::from(byte)).copied().unwrap_or(CharClass::Starting)
    }

    /// What the normalizer makes of a character of ASCII, if that is one character of ASCII too.
    pub fn normalized_ascii(&self, byte: u8) -> Option<u8> {
        let mut normalized = NormalizedString::from(char::from(byte).to_string());
        self.normalizer.normalize(&mut normalized).ok()?;
        match *normalized.get().as_bytes() {
            [letter] if letter.is_ascii() => Some(letter),
            _ => None,
        }
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
            ["a", .., "b"] => CharClass::Isolated,
            ["a", .., _] => CharClass::Starting,
            _ => CharClass::Word,
        }
    }
}

/// A class as a byte that is not zero.
fn code(class: CharClass) -> u8 {
    class as u8 + 1
}

fn class(code: u8) -> Option<CharClass> {
    use CharClass::{Isolated, Removed, Space, Starting, Word};
    [Word, Space, Isolated, Starting, Removed].into_iter().find(|&class| self::code(class) == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::test_tokenizer::bert_tokenizer;

    #[test]
    fn a_class_is_the_same_when_it_is_asked_again() {
        let tokenizer = bert_tokenizer();
        let classes = CharClasses::new(
            tokenizer.get_normalizer().unwrap().clone(),
            tokenizer.get_pre_tokenizer().unwrap().clone(),
        );
        for (c, class) in [
            ('a', CharClass::Word),
            ('\n', CharClass::Space),
            ('!', CharClass::Isolated),
            ('\u{1}', CharClass::Removed),
            ('\u{df}', CharClass::Word),
            ('\u{3000}', CharClass::Space),
            ('\u{201c}', CharClass::Isolated),
            ('\u{301}', CharClass::Removed),
            // Decomposed it is a grave accent of ASCII.
            ('\u{1fef}', CharClass::Isolated),
            ('\u{20000}', CharClass::Isolated),
            (char::MAX, CharClass::Word),
        ] {
            assert_eq!((classes.of(c), classes.of(c)), (class, class), "{c:?}");
        }
    }
}
