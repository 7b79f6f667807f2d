//! How a tokenizer of BERT's kind treats each character.
//!
//! There is no table of characters here that could differ from the tokenizer's rules. Each
//! character is put between two letters and goes through the normalizer and the pre-tokenizer of
//! the loaded tokenizer.

use std::sync::atomic::{AtomicU8, Ordering};

use once_cell::sync::OnceCell;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

/// Characters whose classes share one piece of memory. It is allocated when the first of them is
/// classified.
const BLOCK: usize = 256;

/// Number of blocks for all code points. The table of blocks has 70 kB.
const BLOCKS: usize = (char::MAX as usize + 1) / BLOCK;

/// How the tokenizer treats a character between two letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CharClass {
    /// Part of the word around it.
    Word,
    /// Ends a word and yields no token: white space.
    Space,
    /// A word of its own: punctuation, a CJK ideograph.
    Isolated,
    /// Starts a word that goes on after it.
    Starting,
    /// Removed, as if it were not there: control characters, stripped accents.
    Removed,
}

/// The character classes of one tokenizer. Probing a character takes 2 µs, so each is probed once.
pub(crate) struct CharClasses {
    normalizer: NormalizerWrapper,
    pre_tokenizer: PreTokenizerWrapper,
    ascii: [CharClass; 128],
    /// The classes of other characters that were probed, as [`code`].
    probed: Box<[OnceCell<Box<[AtomicU8; BLOCK]>>]>,
}

impl CharClasses {
    pub fn new(normalizer: NormalizerWrapper, pre_tokenizer: PreTokenizerWrapper) -> CharClasses {
        let probed = std::iter::repeat_with(OnceCell::new).take(BLOCKS).collect();
        let ascii = [CharClass::Word; 128];
        let mut classes = CharClasses { normalizer, pre_tokenizer, ascii, probed };
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
        let block = &self.probed[c as usize / BLOCK];
        let block = block.get_or_init(|| Box::new([const { AtomicU8::new(0) }; BLOCK]));
        let known = &block[c as usize % BLOCK];
        // Two threads that probe a character at the same time find the same class.
        class(known.load(Ordering::Relaxed)).unwrap_or_else(|| {
            let class = self.probe(c);
            known.store(code(class), Ordering::Relaxed);
            class
        })
    }

    /// The class of an ASCII byte. Any other byte starts a character that is not ASCII.
    pub fn of_ascii(&self, byte: u8) -> CharClass {
        self.ascii.get(usize::from(byte)).copied().unwrap_or(CharClass::Starting)
    }

    /// The normal form of an ASCII character, if it is one ASCII character too.
    pub fn normalized_ascii(&self, byte: u8) -> Option<u8> {
        let mut normalized = NormalizedString::from(char::from(byte).to_string());
        self.normalizer.normalize(&mut normalized).ok()?;
        match *normalized.get().as_bytes() {
            [letter] if letter.is_ascii() => Some(letter),
            _ => None,
        }
    }

    /// Runs `a{c}b` through the tokenizer's normalizer and pre-tokenizer.
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

/// The class as a byte that is not zero.
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
    fn a_class_is_the_same_the_second_time() {
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
            // Its decomposition is the ASCII grave accent.
            ('\u{1fef}', CharClass::Isolated),
            ('\u{20000}', CharClass::Isolated),
            (char::MAX, CharClass::Word),
        ] {
            assert_eq!((classes.of(c), classes.of(c)), (class, class), "{c:?}");
        }
    }
}
