//! Tokenizes words of ASCII characters without the library.
//!
//! The tokenizers library takes 2.5 µs a word. Nearly all of it is for the alignments of its
//! normalized strings, which are not needed here. For a text of 12 tokens this is 2 % of the time
//! in a loop, and twice that in a single statement, where the weights have pushed the library's
//! code out of the caches. ASCII needs a table of 128 characters and the vocabulary. The library
//! gets the parts that are not ASCII, from the white space before them to white space after them.
//! If a part has an added token, the library gets the whole rest of the text.
//!
//! The table is filled by the normalizer of the loaded tokenizer. Greedy WordPiece is as in
//! [BERT's tokenization.py](https://github.com/google-research/bert/blob/eedf5716ce1268e56f0a50264a88cafad334ac61/tokenization.py#L300).

use tokenizers::Model;
use tokenizers::models::ModelWrapper;
use tokenizers::models::wordpiece::WordPiece;

use super::char_class::CharClass;
use super::segment::Segmenter;
use crate::Error;

/// A shorter run of ASCII goes to the library together with its neighbours, because a call of the
/// library costs as much as two words.
const MIN_ASCII_BYTES: usize = 24;

/// How a tokenizer of BERT's kind treats ASCII.
pub(crate) struct AsciiWords {
    /// The normal form of each character.
    letters: [u8; 128],
    /// The token of a word that has no tokens of the vocabulary.
    unknown: u32,
    /// Prefix of a token that does not start a word: "##".
    prefix: String,
}

/// The tokens so far and the word that is being read.
struct Reading<'a> {
    words: &'a AsciiWords,
    vocabulary: &'a WordPiece,
    ids: &'a mut Vec<u32>,
    /// Space for the prefix, then the word.
    word: Vec<u8>,
}

impl AsciiWords {
    /// `None` when the normal form of an ASCII character is not one ASCII character, or when there
    /// is no token for unknown words.
    pub fn for_tokenizer(
        tokenizer: &tokenizers::Tokenizer,
        segmenter: &Segmenter,
    ) -> Option<AsciiWords> {
        let vocabulary = vocabulary(tokenizer)?;
        let mut letters = [0; 128];
        for (code, letter) in (0..128u8).zip(&mut letters) {
            *letter = match segmenter.classes().of_ascii(code) {
                CharClass::Word | CharClass::Isolated => {
                    segmenter.classes().normalized_ascii(code)?
                }
                CharClass::Space | CharClass::Removed | CharClass::Starting => code,
            };
        }
        let prefix = vocabulary.continuing_subword_prefix.clone();
        Some(AsciiWords {
            letters,
            unknown: vocabulary.token_to_id(&vocabulary.unk_token)?,
            prefix,
        })
    }

    /// Appends the tokens of a piece of a text. `library` appends the tokens of a part that the
    /// library must tokenize.
    ///
    /// # Errors
    /// Errors of `library`; [`Error::Internal`] for a tokenizer without WordPiece.
    pub fn read(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        segmenter: &Segmenter,
        text: &str,
        ids: &mut Vec<u32>,
        mut library: impl FnMut(&str, &mut Vec<u32>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let vocabulary =
            vocabulary(tokenizer).ok_or_else(|| Error::internal("not a WordPiece tokenizer"))?;
        let word = self.prefix.as_bytes().to_vec();
        let mut reading = Reading { words: self, vocabulary, ids, word };
        // After white space a new word starts, whatever its first character is.
        let (mut start, mut before) = (0, reading.ids.len());
        let mut at = 0;
        while let Some(&byte) = text.as_bytes().get(at) {
            let class = segmenter.classes().of_ascii(byte);
            match class {
                CharClass::Word => reading.letter(byte),
                CharClass::Removed => {}
                CharClass::Space => {
                    reading.end_word();
                    (start, before) = (at + 1, reading.ids.len());
                }
                CharClass::Isolated if segmenter.added_token(&text[at..]) == 0 => {
                    reading.end_word();
                    reading.letter(byte);
                    reading.end_word();
                }
                CharClass::Isolated | CharClass::Starting => {
                    let end = library_end(segmenter, text, at);
                    reading.ids.truncate(before);
                    reading.word.truncate(self.prefix.len());
                    library(&text[start..end], reading.ids)?;
                    (start, before, at) = (end, reading.ids.len(), end);
                    continue;
                }
            }
            at += 1;
        }
        reading.end_word();
        Ok(())
    }
}

impl Reading<'_> {
    fn letter(&mut self, byte: u8) {
        self.word.extend(self.words.letters.get(usize::from(byte)));
    }

    /// Appends the word's tokens. At each place it takes the longest token that fits.
    fn end_word(&mut self) {
        let Reading { words, vocabulary, ids, word } = self;
        let prefix = words.prefix.as_bytes();
        let first = ids.len();
        let mut start = prefix.len();
        if word.len() - start > vocabulary.max_input_chars_per_word {
            ids.push(words.unknown);
            start = word.len();
        }
        while start < word.len() {
            let mut from = start;
            if start > prefix.len() {
                // The prefix overwrites letters that have their token already.
                from -= prefix.len();
                word[from..start].copy_from_slice(prefix);
            }
            let rest = str::from_utf8(&word[from..]).unwrap_or_default();
            let longest = (start - from + 1..=rest.len())
                .rev()
                .find_map(|end| Some((vocabulary.token_to_id(rest.get(..end)?)?, from + end)));
            let Some((id, end)) = longest else {
                ids.truncate(first);
                ids.push(words.unknown);
                break;
            };
            ids.push(id);
            start = end;
        }
        word.truncate(prefix.len());
    }
}

/// The end of a part for the library that has at `at` a character which is not ASCII or starts an
/// added token. It is after the first white space that is followed by enough ASCII, or by nothing
/// but ASCII. If there is an added token before, it is the end of the text, because an added token
/// may contain white space.
fn library_end(segmenter: &Segmenter, text: &str, at: usize) -> usize {
    let mut end = None;
    for (i, c) in text[at..].char_indices() {
        let here = at + i;
        if let Some(end) = end
            && here - end >= MIN_ASCII_BYTES
        {
            return end;
        }
        let class = match u8::try_from(c) {
            Ok(byte) => segmenter.classes().of_ascii(byte),
            Err(_) => CharClass::Starting,
        };
        match class {
            CharClass::Space => end = end.or(Some(here + 1)),
            CharClass::Starting | CharClass::Isolated => {
                if segmenter.added_token(&text[here..]) > 0 {
                    return text.len();
                }
                if class == CharClass::Starting {
                    end = None;
                }
            }
            CharClass::Word | CharClass::Removed => {}
        }
    }
    end.unwrap_or(text.len())
}

fn vocabulary(tokenizer: &tokenizers::Tokenizer) -> Option<&WordPiece> {
    match tokenizer.get_model() {
        ModelWrapper::WordPiece(model) => Some(model),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use tokenizers::AddedToken;
    use tokenizers::normalizers::BertNormalizer;

    use super::*;
    use crate::text::test_tokenizer::bert_tokenizer;

    struct Reader {
        library: tokenizers::Tokenizer,
        segmenter: Segmenter,
        words: AsciiWords,
    }

    impl Reader {
        fn new(library: tokenizers::Tokenizer) -> Reader {
            let segmenter = Segmenter::for_tokenizer(&library).unwrap();
            let words = AsciiWords::for_tokenizer(&library, &segmenter).unwrap();
            Reader { library, segmenter, words }
        }

        /// The tokens, and the parts of the text that the library tokenized.
        fn read(&self, text: &str) -> (Vec<u32>, Vec<String>) {
            let (mut ids, mut parts) = (Vec::new(), Vec::new());
            let library = |part: &str, ids: &mut Vec<u32>| {
                parts.push(part.to_owned());
                ids.extend(self.expected(part));
                Ok(())
            };
            self.words.read(&self.library, &self.segmenter, text, &mut ids, library).unwrap();
            (ids, parts)
        }

        fn expected(&self, text: &str) -> Vec<u32> {
            self.library.encode_fast(text, false).unwrap().get_ids().to_vec()
        }
    }

    /// All combinations of the normalizer's options, with added tokens that contain white space or
    /// start with a character that is not ASCII.
    fn readers() -> Vec<Reader> {
        let mut readers = Vec::new();
        for bits in 0..16 {
            let is = |bit: u32| bits >> bit & 1 == 1;
            let mut library = bert_tokenizer();
            let _ = library.with_normalizer(Some(BertNormalizer::new(
                is(0),
                is(1),
                Some(is(2)),
                is(3),
            )));
            let added = ["[x y]", "[x", "\u{201c}q r", "-- "];
            let added = added.map(|content| AddedToken::from(content, true).normalized(false));
            library.add_special_tokens(added).unwrap();
            readers.push(Reader::new(library));
        }
        readers
    }

    #[test]
    fn ascii_is_read_without_the_library() {
        let reader = Reader::new(bert_tokenizer());
        let every: String = (0..128u8).map(char::from).collect();
        let long = ["a".repeat(100), "a".repeat(101), "cats".repeat(25)].join(" ");
        for text in ["", " ", "The CATS, the cat.", "abc123 [CLS", "x\u{1}y\tz\r\n", &every, &long]
        {
            assert_eq!(reader.read(text), (reader.expected(text), vec![]), "{text:?}");
        }
    }

    #[test]
    fn the_library_gets_what_is_not_ascii_from_one_space_to_another() {
        let reader = Reader::new(bert_tokenizer());
        let ascii = "the cat and the cats and the cat ";
        for (text, parts) in [
            (format!("{ascii}caf\u{e9}s, {ascii}"), vec!["caf\u{e9}s, "]),
            (format!("{ascii}caf\u{e9} the caf\u{e9} {ascii}"), vec!["caf\u{e9} the caf\u{e9} "]),
            (format!("caf\u{e9} {ascii}\u{e9}"), vec!["caf\u{e9} ", "\u{e9}"]),
            (format!("{ascii}x[SEP] {ascii}"), vec!["x[SEP] the cat and the cats and the cat "]),
        ] {
            let (ids, found) = reader.read(&text);
            assert_eq!(ids, reader.expected(&text), "{text:?}");
            assert_eq!(found, parts, "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_tokens_are_the_librarys(parts in proptest::collection::vec(select(vec![
            "the", "Cat", "s", "xyz", "Q9", " ", "  ", "\t", "\u{b}", "\u{0}", "\u{1}", "\u{1c}",
            "\u{7f}", ",", "#", "##s", "[", "]", "[CLS]", "[x", " y]", "[x y]", "--", "- ",
            "\u{201c}", "\u{201c}q", " r", "\u{e9}", "e\u{301}", " \u{301}", "\u{df}", "\u{130}",
            "\u{65e5}", "\u{2003}", "\u{1fed}", "the cat and the cats and ",
        ]), 0..24)) {
            thread_local! { static READERS: Vec<Reader> = readers(); }
            let text = parts.concat();
            READERS.with(|readers| for reader in readers {
                assert_eq!(reader.read(&text).0, reader.expected(&text), "{text:?}");
            });
        }
    }
}
