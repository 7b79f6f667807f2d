//! A prompt before each text, in tokens.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::counted::count_bare;
use super::tokenizer::Tokenizer;
use crate::Error;
use crate::interrupts::Interrupts;

/// What the model reads between the opening special token and the text.
pub(crate) struct Prompt {
    text: String,
    /// Its number of tokens, without the specials.
    tokens: usize,
    /// Its tokens, if they are the same before every text. Otherwise the last ones may depend on
    /// the text, and both are read as one string.
    ids: Option<Vec<u32>>,
    /// The most bytes of prompt and text that the tokenizer reads.
    limit: usize,
}

impl Prompt {
    /// # Errors
    /// Errors of the tokenizer.
    pub fn new(tokenizer: &Tokenizer, text: &str) -> Result<Prompt, Error> {
        let mut go_on = || ControlFlow::Continue(());
        let tokens = count_bare(tokenizer, text, &mut Interrupts::new(&mut go_on))?;
        let ids = match tokenizer.ends_apart(text) {
            true => Some(tokenizer.bare_ids(text)?),
            false => None,
        };
        Ok(Prompt { text: text.to_owned(), tokens, ids, limit: tokenizer.most_bytes() })
    }

    /// Its text; empty if there is no prompt.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its number of tokens alone, without the specials.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether the tokens of prompt and text are always those of the prompt, then those of the
    /// text.
    pub fn is_apart(&self) -> bool {
        self.ids.is_some()
    }

    /// The first tokens of prompt and text, and what is still to be read. A prompt that is not
    /// apart is copied before the text.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::TextTooLong`].
    pub fn before<'t>(&self, text: &'t str) -> Result<(&[u32], Cow<'t, str>), Error> {
        if let Some(ids) = &self.ids {
            return Ok((ids, Cow::Borrowed(text)));
        }
        let bytes = self.text.len() + text.len();
        if bytes > self.limit {
            return Err(Error::TextTooLong { bytes, limit: self.limit });
        }
        let mut joined = String::new();
        joined.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
        joined.push_str(&self.text);
        joined.push_str(text);
        Ok((&[], Cow::Owned(joined)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::test_tokenizer::bert_tokenizer;

    /// Each prompt with each text has the tokens that the library gives for both together.
    #[test]
    fn prompt_and_text_have_the_tokens_of_both_together() {
        let dir = std::env::temp_dir().join(format!("gte-small-prompt-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("tokenizer.json");
        let mut library = bert_tokenizer();
        let added = ["[x y]", "[ [z"]
            .map(|content| tokenizers::AddedToken::from(content, true).normalized(false));
        library.add_special_tokens(added).unwrap();
        library.save(&path, false).unwrap();
        let tokenizer = Tokenizer::from_file(&path, 64).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let texts = [
            "",
            " ",
            "cat",
            " cat",
            "\u{301}cat",
            "\u{e9}",
            "y]cat",
            "s",
            "[z the",
            "CLS]",
            "日本",
            "\u{200d}x",
        ];
        for (prompt, apart) in [
            ("", true),
            ("the: ", true),
            ("the:", true),
            ("日", true),
            ("the", false),
            ("the\u{301}", false),
            // The text may complete an added token.
            ("[x ", false),
            ("the [", false),
            ("[CLS] ", true),
        ] {
            let made = Prompt::new(&tokenizer, prompt).unwrap();
            assert_eq!(made.is_apart(), apart, "{prompt:?}");
            for text in texts {
                let whole = library.encode_fast(format!("{prompt}{text}"), true).unwrap();
                let (first, rest) = made.before(text).unwrap();
                let mut go_on = || ControlFlow::Continue(());
                let found = tokenizer.token_ids_after(first, &rest, &mut go_on).unwrap();
                assert_eq!(found.ids, whole.get_ids(), "{prompt:?} {text:?}");
            }
        }
    }
}
