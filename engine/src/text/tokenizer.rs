//! `tokenizer.json` and the token ids of a text.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::models::ModelWrapper;
use tokenizers::{Encoding, PostProcessorWrapper};

use super::ascii::AsciiWords;
use super::char_class::CharClass;
use super::preflight;
use super::segment::{Segmenter, Segments};
use crate::interrupts::Interrupts;
use crate::model::checkpoint::hex;
use crate::model::files::read_json_bytes;
use crate::{Error, memory};

/// The largest text for a tokenizer that can only read a text as a whole.
const WHOLE_TEXT_BYTES: usize = 1 << 20;

/// Bytes of text that are read for each token that is still needed. English has about 4.5 bytes a
/// token, and reading more pieces costs little.
const BYTES_PER_TOKEN: usize = 6;

/// Bytes that the library allocates for a byte of a text. Measured were at most 341, for ASCII
/// punctuation: each word has some vectors and strings of its own, and each byte is a word.
const ENCODING_MEMORY: usize = 400;

/// As [`ENCODING_MEMORY`], for other pipelines than BERT's. Measured were at most 802, for U+FDFA, which
/// NFKC writes as 18 letters: the pieces of a text exist twice while it is divided. Others took 394.
const WHOLE_ENCODING_MEMORY: usize = 1000;

/// Token ids of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIds {
    /// The ids, specials included; at most the model's `max_tokens`.
    pub ids: Vec<u32>,
    /// Whether the text had more tokens than the model reads.
    pub truncated: bool,
}

/// A tokenizer with the model's own limit. The truncation and padding in `tokenizer.json` (128 and
/// 128 in both known models) are switched off.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    segmenter: Option<Segmenter>,
    ascii: Option<AsciiWords>,
    /// Specials before and after the text's own tokens.
    before: Vec<u32>,
    after: Vec<u32>,
    /// The token of a word without tokens: `[UNK]`.
    unknown: Option<u32>,
    max_tokens: usize,
    sha256: String,
}

impl Tokenizer {
    /// Loads `tokenizer.json`. `max_tokens` includes the specials.
    pub fn from_file(path: &Path, max_tokens: usize) -> Result<Tokenizer, Error> {
        let bytes = read_json_bytes(path)?;
        let _hold = memory::hold(preflight::check(path, &bytes)?)?;
        let sha256 = hex(&Sha256::digest(&bytes));
        // The library panics on some files: a template with a token that the file does not have, a
        // BPE prefix that is longer than a merge.
        let (inner, (before, after), segmenter, ascii) = catch_unwind(|| {
            let mut inner =
                tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| Error::corrupt(path, e))?;
            inner.with_padding(None);
            inner.with_truncation(None).map_err(|e| Error::corrupt(path, e))?;
            let specials =
                specials(&mut inner).map_err(|reason| Error::unsupported(path, reason))?;
            let segmenter = Segmenter::for_tokenizer(&inner);
            let ascii = segmenter
                .as_ref()
                .and_then(|segmenter| AsciiWords::for_tokenizer(&inner, segmenter));
            Ok::<_, Error>((inner, specials, segmenter, ascii))
        })
        .unwrap_or_else(|_| Err(Error::corrupt(path, "the tokenizers library can't read it")))?;
        if before.is_empty() && after.is_empty() {
            return Err(Error::unsupported(
                path,
                "it adds no special token, so an empty text would have no token",
            ));
        }
        if before.len() + after.len() >= max_tokens {
            return Err(Error::unsupported(
                path,
                format_args!(
                    "it adds {} tokens to each text, and the model reads at most {max_tokens}",
                    before.len() + after.len()
                ),
            ));
        }
        let unknown = unknown(&inner);
        Ok(Tokenizer { inner, segmenter, ascii, before, after, unknown, max_tokens, sha256 })
    }

    /// Token ids of `text`, truncated to the model's limit as Hugging Face's library does: the
    /// first tokens and the closing special. Of a huge text only the start is read. As in the
    /// reference, `[CLS]` in a text is the special token, and so are the others.
    pub fn token_ids(&self, text: &str) -> Result<TokenIds, Error> {
        self.token_ids_after(&[], text, &mut || ControlFlow::Continue(()))
    }

    /// As [`Tokenizer::token_ids`], with the tokens of a prompt before those of the text. `go_on`
    /// is called before the text is read and every few milliseconds.
    pub(crate) fn token_ids_after(
        &self,
        prompt: &[u32],
        text: &str,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<TokenIds, Error> {
        let most = self.max_tokens - self.after.len();
        let mut ids = self.before.clone();
        ids.extend_from_slice(prompt);
        let missing = (most + 1).saturating_sub(ids.len());
        self.read_tokens(text, missing, &mut ids, &mut Interrupts::new(go_on))?;
        let truncated = ids.len() > most;
        ids.truncate(most);
        ids.extend_from_slice(&self.after);
        Ok(TokenIds { ids, truncated })
    }

    /// The segments of a text; `None` if this tokenizer can only read a text as a whole.
    pub(crate) fn segments<'t>(&'t self, text: &'t str) -> Option<Segments<'t>> {
        self.segmenter.as_ref().map(|segmenter| segmenter.segments(text))
    }

    /// Whether the tokens of a text are the tokens of its segments, one after another. Otherwise
    /// the sum of the segments' tokens is an estimate.
    pub(crate) fn is_additive(&self) -> bool {
        self.segmenter.is_some()
    }

    /// Whether the tokens of `text` are the same, whatever follows it.
    pub(crate) fn ends_apart(&self, text: &str) -> bool {
        match &self.segmenter {
            Some(segmenter) => segmenter.ends_apart(text),
            None => text.is_empty(),
        }
    }

    /// A word of more characters than this is one unknown token. `None` if this tokenizer can only
    /// read a text as a whole.
    pub(crate) fn max_word_chars(&self) -> Option<usize> {
        self.segmenter.as_ref().map(Segmenter::max_word_chars)
    }

    /// Whether a character belongs to the one before it: it makes no token and ends no word.
    pub(crate) fn removes(&self, c: char) -> bool {
        let segmenter = self.segmenter.as_ref();
        segmenter.is_some_and(|segmenter| segmenter.classes().of(c) == CharClass::Removed)
    }

    /// The tokens of a short text, without the specials and without a limit.
    pub(crate) fn bare_ids(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::new();
        let mut go_on = || ControlFlow::Continue(());
        self.read_tokens(text, text.len() + 1, &mut ids, &mut Interrupts::new(&mut go_on))?;
        Ok(ids)
    }

    /// The token of a word that has no tokens of the vocabulary.
    pub(crate) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The most bytes of a text that it reads.
    pub(crate) fn most_bytes(&self) -> usize {
        if self.segmenter.is_some() { usize::MAX } else { WHOLE_TEXT_BYTES }
    }

    /// Number of special tokens around each text.
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

    /// Appends at least `count` tokens of the text, or all of them.
    fn read_tokens(
        &self,
        text: &str,
        count: usize,
        ids: &mut Vec<u32>,
        interrupts: &mut Interrupts,
    ) -> Result<(), Error> {
        interrupts.check()?;
        let Some(segmenter) = &self.segmenter else {
            let encoding = self.encode_whole(text)?;
            memory::make_room(ids, encoding.len())?;
            ids.extend_from_slice(encoding.get_ids());
            return Ok(());
        };
        let goal = ids.len() + count;
        let mut segments = segmenter.segments(text);
        while ids.len() < goal {
            let target = ((goal - ids.len()) * BYTES_PER_TOKEN).clamp(256, 1 << 14);
            let Some(piece) = segments.next_piece(target, interrupts)? else {
                break;
            };
            interrupts.count_encoding(piece.len())?;
            self.encode(&piece, ids)?;
        }
        Ok(())
    }

    /// Tokenizes a text as a whole. The result has the places of the tokens.
    pub(crate) fn encode_whole(&self, text: &str) -> Result<Encoding, Error> {
        if text.len() > WHOLE_TEXT_BYTES {
            return Err(Error::TextTooLong { bytes: text.len(), limit: WHOLE_TEXT_BYTES });
        }
        let _hold = self.hold_for(text)?;
        caught(|| self.inner.encode(text, false))
    }

    /// Appends the tokens of a piece of a text.
    pub(crate) fn encode(&self, piece: &str, ids: &mut Vec<u32>) -> Result<(), Error> {
        let library = |part: &str, ids: &mut Vec<u32>| {
            let _hold = self.hold_for(part)?;
            ids.extend_from_slice(caught(|| self.inner.encode_fast(part, false))?.get_ids());
            Ok(())
        };
        match (&self.ascii, &self.segmenter) {
            (Some(ascii), Some(segmenter)) => {
                ascii.read(&self.inner, segmenter, piece, ids, library)
            }
            _ => library(piece, ids),
        }
    }

    /// Memory for the tokens of a text in the library.
    fn hold_for(&self, text: &str) -> Result<memory::Hold, Error> {
        let each = if self.segmenter.is_some() { ENCODING_MEMORY } else { WHOLE_ENCODING_MEMORY };
        memory::hold(text.len().saturating_mul(each))
    }
}

fn caught(encode: impl FnOnce() -> tokenizers::Result<Encoding>) -> Result<Encoding, Error> {
    catch_unwind(AssertUnwindSafe(encode))
        .map_err(|_| Error::internal("the tokenizer panicked"))?
        .map_err(Error::internal)
}

/// The token of a word without tokens, if the tokenizer has one.
fn unknown(tokenizer: &tokenizers::Tokenizer) -> Option<u32> {
    let token = match tokenizer.get_model() {
        ModelWrapper::WordPiece(model) => model.unk_token.as_str(),
        ModelWrapper::WordLevel(model) => model.unk_token.as_str(),
        ModelWrapper::BPE(model) => model.unk_token.as_deref()?,
        // The library does not say. It is the name in SentencePiece's models.
        ModelWrapper::Unigram(_) => "<unk>",
    };
    tokenizer.token_to_id(token)
}

/// The ids that the post-processor puts before and after the tokens of a text.
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
        return Err("it has no token for the letter a".into());
    }
    let at = full.windows(bare.len()).position(|window| window == bare);
    match at {
        Some(at) if own? == bare => Ok((full[..at].to_vec(), full[at + bare.len()..].to_vec())),
        _ => Err("its post-processor changes the tokens of the text".into()),
    }
}
