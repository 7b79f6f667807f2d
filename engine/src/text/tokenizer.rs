//! `tokenizer.json` and the token ids of a text.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::{Encoding, PostProcessorWrapper};

use super::ascii::AsciiWords;
use super::counted::CountedUnits;
use super::preflight as outline;
use super::segment::Pieces;
use crate::Error;
use crate::interrupts::Ask;
use crate::model::checkpoint::hex;
use crate::model::files::read_json_bytes;

/// The largest text that is handed whole to a tokenizer that can't read it in pieces.
const WHOLE_TEXT_BYTES: usize = 1 << 20;

/// Bytes read per token still wanted: English has about 4.5, and a second look costs little.
const BYTES_PER_TOKEN: usize = 6;

/// Token ids of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIds {
    /// Specials included, at most the model's `max_tokens`.
    pub ids: Vec<u32>,
    /// Whether the text had more tokens than the model reads.
    pub truncated: bool,
}

/// A tokenizer with the model's own limit. The truncation and padding that `tokenizer.json`
/// carries (both known models: 128 and 128) are switched off.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Option<Pieces>,
    words: Option<AsciiWords>,
    /// Specials before and after the text's own tokens.
    before: Vec<u32>,
    after: Vec<u32>,
    max_tokens: usize,
    sha256: String,
}

impl Tokenizer {
    /// Loads `tokenizer.json`; `max_tokens` counts the specials.
    pub fn from_file(path: &Path, max_tokens: usize) -> Result<Tokenizer, Error> {
        let bytes = read_json_bytes(path)?;
        outline::check(path, &bytes)?;
        let sha256 = hex(&Sha256::digest(&bytes));
        // The library indexes without checking: a template that names a token the file does not
        // have, a BPE prefix longer than a merge.
        let (inner, (before, after), pieces, words) = catch_unwind(|| {
            let mut inner =
                tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| Error::corrupt(path, e))?;
            inner.with_padding(None);
            inner.with_truncation(None).map_err(|e| Error::corrupt(path, e))?;
            let specials =
                specials(&mut inner).map_err(|reason| Error::unsupported(path, reason))?;
            let pieces = Pieces::for_tokenizer(&inner);
            let words =
                pieces.as_ref().and_then(|pieces| AsciiWords::for_tokenizer(&inner, pieces));
            Ok::<_, Error>((inner, specials, pieces, words))
        })
        .unwrap_or_else(|_| Err(Error::corrupt(path, "the tokenizers library can't read it")))?;
        if before.is_empty() && after.is_empty() {
            return Err(Error::unsupported(
                path,
                "it adds no special token, so an empty text would have none at all",
            ));
        }
        if before.len() + after.len() >= max_tokens {
            return Err(Error::unsupported(
                path,
                format_args!(
                    "it adds {} tokens to each text, the model reads {max_tokens}",
                    before.len() + after.len()
                ),
            ));
        }
        Ok(Tokenizer { inner, pieces, words, before, after, max_tokens, sha256 })
    }

    /// Token ids of `text`, cut at the model's limit as Hugging Face's truncation cuts: the first
    /// tokens stay and the closing special follows them. Reads no more of a huge text than that
    /// takes. Like the reference, takes "[CLS]" and the like in a text for the special token.
    pub fn token_ids(&self, text: &str) -> Result<TokenIds, Error> {
        self.token_ids_asking(text, &mut || ControlFlow::Continue(()))
    }

    /// The same; `go_on` is asked before anything is read and every few milliseconds.
    pub(crate) fn token_ids_asking(
        &self,
        text: &str,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<TokenIds, Error> {
        let room = self.max_tokens - self.specials();
        let mut ids = self.before.clone();
        self.read_tokens(text, room + 1, &mut ids, &mut Ask::new(go_on))?;
        let most = self.before.len() + room;
        let truncated = ids.len() > most;
        ids.truncate(most);
        ids.extend_from_slice(&self.after);
        Ok(TokenIds { ids, truncated })
    }

    /// Tokens of the whole text, specials included and without a limit.
    pub(crate) fn count(&self, text: &str, ask: &mut Ask) -> Result<usize, Error> {
        Ok(self.specials() + self.count_bare(text, ask)?)
    }

    /// Tokens of the whole text, without the specials.
    pub(crate) fn count_bare(&self, text: &str, ask: &mut Ask) -> Result<usize, Error> {
        ask.now()?;
        let mut tokens = 0;
        match &self.pieces {
            None => tokens = self.encode_whole(text)?.len(),
            Some(_) => {
                let mut units = self.units(text)?;
                while let Some(unit) = units.next_unit(ask)? {
                    tokens += unit.tokens;
                }
            }
        }
        Ok(tokens)
    }

    /// Starts reading a text unit by unit, each with its number of tokens.
    pub(crate) fn units<'t>(&'t self, text: &'t str) -> Result<CountedUnits<'t>, Error> {
        CountedUnits::new(self, self.pieces.as_ref(), text)
    }

    /// Whether the tokens of a text are those of its units, laid end to end. Otherwise they are
    /// nearly as many.
    pub(crate) fn is_additive(&self) -> bool {
        self.pieces.is_some()
    }

    /// How many tokens are put around each text.
    pub(crate) fn specials(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// The model's limit, specials included.
    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// sha256 of the file, lower-case hex.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Appends tokens of the text until there are at least `wanted` or the text ends.
    fn read_tokens(
        &self,
        text: &str,
        wanted: usize,
        ids: &mut Vec<u32>,
        ask: &mut Ask,
    ) -> Result<(), Error> {
        ask.now()?;
        let Some(pieces) = &self.pieces else {
            ids.extend_from_slice(self.encode_whole(text)?.get_ids());
            return Ok(());
        };
        let goal = ids.len() + wanted;
        let mut reader = pieces.read(text);
        while ids.len() < goal {
            let target = ((goal - ids.len()) * BYTES_PER_TOKEN).clamp(256, 1 << 14);
            let Some(piece) = reader.next_piece(target, ask)? else {
                break;
            };
            ask.encoded(piece.len())?;
            self.encode(&piece, ids)?;
        }
        Ok(())
    }

    /// Reads a text as a whole, with the places of its tokens.
    pub(crate) fn encode_whole(&self, text: &str) -> Result<Encoding, Error> {
        if text.len() > WHOLE_TEXT_BYTES {
            return Err(Error::TextTooLong { bytes: text.len(), limit: WHOLE_TEXT_BYTES });
        }
        caught(|| self.inner.encode(text, false))
    }

    /// Appends the tokens of a piece of a text.
    pub(crate) fn encode(&self, piece: &str, ids: &mut Vec<u32>) -> Result<(), Error> {
        let library = |part: &str, ids: &mut Vec<u32>| {
            ids.extend_from_slice(caught(|| self.inner.encode_fast(part, false))?.get_ids());
            Ok(())
        };
        match (&self.words, &self.pieces) {
            (Some(words), Some(pieces)) => words.read(&self.inner, pieces, piece, ids, library),
            _ => library(piece, ids),
        }
    }
}

fn caught(encode: impl FnOnce() -> tokenizers::Result<Encoding>) -> Result<Encoding, Error> {
    catch_unwind(AssertUnwindSafe(encode))
        .map_err(|_| Error::internal("the tokenizer panicked"))?
        .map_err(Error::internal)
}

/// The ids the post-processor puts before and after a text's own.
fn specials(tokenizer: &mut tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), String> {
    let encode = |tokenizer: &tokenizers::Tokenizer, with_specials| {
        tokenizer
            .encode_fast("a", with_specials)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| e.to_string())
    };
    let (bare, full) = (encode(tokenizer, false)?, encode(tokenizer, true)?);
    let post_processor = tokenizer.get_post_processor().cloned();
    tokenizer.with_post_processor(None::<PostProcessorWrapper>);
    let own = encode(tokenizer, false);
    tokenizer.with_post_processor(post_processor);
    if bare.is_empty() {
        return Err("it makes no token of the letter a".into());
    }
    let at = full.windows(bare.len()).position(|window| window == bare);
    match at {
        Some(at) if own? == bare => Ok((full[..at].to_vec(), full[at + bare.len()..].to_vec())),
        _ => Err("its post-processor changes the tokens of the text".into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A BERT tokenizer over a handful of words, with the pipeline of the real ones.
    pub(crate) fn bert_tokenizer() -> tokenizers::Tokenizer {
        let letters = ('a'..='z').chain('0'..='9');
        let mut vocab: Vec<String> =
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from).to_vec();
        vocab.extend(letters.flat_map(|c| [c.to_string(), format!("##{c}")]));
        vocab.extend(
            ["the", "cat", "##s", "日", "本", "[", "]", ".", ",", "한", "ᄒ", "##ᅡ", "¿"]
                .map(String::from),
        );
        vocab.sort();
        vocab.dedup();
        let ids: serde_json::Map<String, serde_json::Value> =
            vocab.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
        let added: Vec<serde_json::Value> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            .iter()
            .map(|token| {
                serde_json::json!({"id": ids[*token], "content": token, "special": true,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
            })
            .collect();
        let special =
            |token: &str| serde_json::json!({"id": token, "ids": [ids[token]], "tokens": [token]});
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": {"type": "BertNormalizer", "clean_text": true,
                "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")}},
            "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": ids},
        });
        tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap()
    }

    fn assert_pieces_change_nothing(tokenizer: &tokenizers::Tokenizer, text: &str) {
        let whole = tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec();
        let pieces = Pieces::for_tokenizer(tokenizer).unwrap();
        for target in [1, 2, 3, 7, 20, 100] {
            let mut joined = Vec::new();
            let mut reader = pieces.read(text);
            let mut go_on = || ControlFlow::Continue(());
            let mut ask = Ask::new(&mut go_on);
            while let Some(piece) = reader.next_piece(target, &mut ask).unwrap() {
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
            let pieces = Pieces::for_tokenizer(&tokenizer).unwrap();
            let mut reader = pieces.read(&text);
            let mut joined = Vec::new();
            let mut go_on = || ControlFlow::Continue(());
            let mut ask = Ask::new(&mut go_on);
            while let Some(piece) = reader.next_piece(3000, &mut ask).unwrap() {
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
        assert!(Pieces::for_tokenizer(&tokenizer).is_none());
    }
}
