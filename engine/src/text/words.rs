//! The words of a text for a full-text index, by the rules of a BERT pre-tokenizer.
//!
//! The rules depend on no model. They differ from BERT's in three points, because a search must
//! distinguish words that a tokenizer may merge. A mark is removed only if the same word is often
//! written without it: an accent of Latin, Greek and Cyrillic, a vowel point of Hebrew and Arabic.
//! BERT also removes vowels of Hindi and the voicing of kana. Compatibility forms such as "ﬁ"
//! become their letters. A symbol such as "©" is no word.

use tokenizers::normalizers::{BertNormalizer, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use unicode_normalization_alignments::UnicodeNormalization;
use unicode_normalization_alignments::char::is_combining_mark;

use super::char_class::{CharClass, CharClasses};
use crate::{Error, memory};

/// Bytes of memory for a byte of a text. Measured were at most 27: the composition keeps a run of marks
/// in a buffer, and one ligature of Arabic has 18 letters.
const SPLIT_MEMORY: usize = 32;

/// Splits texts into words. The classes of characters are shared by all texts.
pub struct Words {
    classes: CharClasses,
}

impl Words {
    /// The rules of a BERT pre-tokenizer.
    pub fn new() -> Words {
        // It must keep the marks: which of them are removed is decided here.
        let normalizer = BertNormalizer::new(true, true, Some(false), false);
        let classes = CharClasses::new(
            NormalizerWrapper::BertNormalizer(normalizer),
            PreTokenizerWrapper::BertPreTokenizer(BertPreTokenizer),
        );
        Words { classes }
    }

    /// The words of a text with a blank between two: lower case, no accents, no punctuation, each
    /// CJK ideograph a word of its own.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn split(&self, text: &str) -> Result<String, Error> {
        let _hold = memory::hold(text.len().saturating_mul(SPLIT_MEMORY))?;
        let mut line = Line { text: String::with_capacity(text.len() + text.len() / 8) };
        let mut rest = text;
        while !rest.is_empty() {
            // Runs of ASCII need no normalization: no mark that is kept combines with ASCII.
            let ascii = rest.bytes().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
            let (run, others) = rest.split_at(ascii);
            for byte in run.bytes() {
                self.put(&mut line, char::from(byte.to_ascii_lowercase()));
            }
            let end = others.bytes().position(|byte| byte.is_ascii()).unwrap_or(others.len());
            let (run, others) = others.split_at(end);
            // Composed again, because the language's own words have composed letters too. Equal
            // words need one entry of the index.
            let decomposed = run.nfkd().map(|(c, _)| c).filter(|&c| !is_optional_mark(c));
            for (c, _) in decomposed.flat_map(char::to_lowercase).nfc() {
                match folded(c) {
                    Some(letters) => letters.chars().for_each(|c| self.put(&mut line, c)),
                    None => self.put(&mut line, c),
                }
            }
            rest = others;
        }
        Ok(line.finish())
    }

    fn put(&self, line: &mut Line, c: char) {
        match self.classes.of(c) {
            CharClass::Removed => {}
            // An ideograph. The other isolated characters are punctuation.
            CharClass::Isolated if c.is_alphanumeric() => {
                line.end_word();
                line.text.push(c);
                line.end_word();
            }
            CharClass::Word if c.is_alphanumeric() => line.text.push(c),
            CharClass::Word if is_combining_mark(c) => line.mark(c),
            _ => line.end_word(),
        }
    }
}

impl Default for Words {
    fn default() -> Words {
        Words::new()
    }
}

/// Words with one blank between two.
struct Line {
    text: String,
}

impl Line {
    fn end_word(&mut self) {
        if self.is_in_word() {
            self.text.push(' ');
        }
    }

    /// A mark belongs to the letter before it.
    fn mark(&mut self, c: char) {
        if self.is_in_word() {
            self.text.push(c);
        }
    }

    fn is_in_word(&self) -> bool {
        !self.text.is_empty() && !self.text.ends_with(' ')
    }

    fn finish(mut self) -> String {
        if self.text.ends_with(' ') {
            self.text.pop();
        }
        self.text
    }
}

/// Whether words are often written without this mark.
fn is_optional_mark(c: char) -> bool {
    matches!(c,
        // Latin, Greek and Cyrillic.
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{487}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}'
        // Hebrew: all but the punctuation between the points.
        | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}'
        // Arabic.
        | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6dc}'
        | '\u{6df}'..='\u{6e4}' | '\u{6e7}' | '\u{6e8}' | '\u{6ea}'..='\u{6ed}'
        // Variants of the glyph before them.
        | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// How a letter is written on a keyboard that lacks it, where Unicode has no decomposition.
fn folded(c: char) -> Option<&'static str> {
    Some(match c {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'ł' => "l",
        'đ' | 'ð' => "d",
        'ħ' => "h",
        'ŧ' => "t",
        'þ' => "th",
        'ı' => "i",
        'ς' => "σ",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> String {
        thread_local! { static WORDS: Words = Words::new(); }
        WORDS.with(|words| words.split(text)).unwrap()
    }

    #[test]
    fn punctuation_ends_a_word() {
        for (text, words) in [
            ("ERR-1042", "err 1042"),
            ("config.json", "config json"),
            ("TCP/IP", "tcp ip"),
            ("<file_name>", "file name"),
            ("v1.2.3", "v1 2 3"),
            ("don't\tstop\u{2014}now", "don t stop now"),
            (" ..a..  ", "a"),
            ("\u{a9} 5\u{20ac}\u{1f642}x", "5 x"),
            ("", ""),
            ("...", ""),
        ] {
            assert_eq!(split(text), words, "{text:?}");
        }
    }

    #[test]
    fn letters_lose_case_and_accents() {
        for (text, words) in [
            ("Café cafe\u{301} CAFE\u{301}", "cafe cafe cafe"),
            ("İstanbul ISTANBUL ıstanbul", "istanbul istanbul istanbul"),
            ("Straße STRASSE STRAẞE", "strasse strasse strasse"),
            ("ﬁle Ångström Łódź smørrebrød ÆON", "file angstrom lodz smorrebrod aeon"),
            ("ΟΔΟΣ οδός", "οδοσ οδοσ"),
            ("ＡＢＣ１２ ½ x²", "abc12 1 2 x2"),
            ("שָׁלוֹם مُحَمَّد", "שלום محمد"),
            ("soft\u{ad}hyphen zero\u{200b}width a\u{0}b\u{7}c", "softhyphen zerowidth abc"),
        ] {
            assert_eq!(split(text), words, "{text:?}");
        }
    }

    #[test]
    fn ideographs_are_apart_and_other_marks_stay() {
        for (text, words) in [
            ("売上報告", "売 上 報 告"),
            ("東京タワーで", "東 京 タワーで"),
            ("データ \u{30c6}\u{3099}\u{30fc}\u{30bf}", "データ データ"),
            ("ﾃﾞｰﾀ", "データ"),
            ("한국어 \u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}", "한국어 한국"),
            ("हिन्दी", "हिन्दी"),
            ("辻\u{e0100} ☎\u{fe0f} 1\u{fe0f}\u{20e3}", "辻 1"),
        ] {
            assert_eq!(split(text), words, "{text:?}");
        }
    }

    #[test]
    fn the_words_of_words_are_the_same() {
        for c in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let words = split(&format!("a{c}b {c}"));
            assert_eq!(split(&words), words, "{c:?}");
        }
    }
}
