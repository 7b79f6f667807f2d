//! Reads the prompts of `config_sentence_transformers.json`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Error;
use crate::model::files::{ModelFiles, read_optional};

/// Most bytes of a prompt. The longest known one for 384 dimensions has 80.
const MAX_PROMPT_BYTES: usize = 16 << 10;

/// The names of a document's prompt, the first one that exists counts.
const DOCUMENT_NAMES: [&str; 3] = ["document", "passage", "corpus"];

/// What a text is for. Some models are trained with another prompt for each role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A text that is searched.
    Document,
    /// A text that is searched for.
    Query,
}

/// What the model reads before each text, empty for most models.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompts {
    pub document: String,
    pub query: String,
}

#[derive(Default, Deserialize)]
struct PromptsFile {
    prompts: Option<BTreeMap<String, Option<String>>>,
    default_prompt_name: Option<String>,
}

impl Prompts {
    /// Reads the prompts; without a file there are none.
    ///
    /// The rule is the documented one of sentence-transformers' `encode_query` and
    /// `encode_document`: a role without a prompt of its own has none. (Version 6 adds an empty
    /// `document` to the prompts, and so never comes to `passage`.) The default prompt, which its
    /// `encode` takes, is used for both roles if no prompt is for a role.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a prompt that is too long; [`Error::Corrupt`], [`Error::Io`].
    pub fn read(files: &ModelFiles) -> Result<Prompts, Error> {
        let path = &files.prompts;
        let PromptsFile { prompts, default_prompt_name } = read_optional(path)?.unwrap_or_default();
        let prompts = prompts.unwrap_or_default();
        let named = |name: &str| prompts.get(name).map(|text| text.clone().unwrap_or_default());
        let query = named("query");
        let document = DOCUMENT_NAMES.into_iter().find_map(named);
        let default = match &default_prompt_name {
            // sentence-transformers adds these two to the prompts of the file.
            Some(name) if ["query", "document"].contains(&name.as_str()) => named(name),
            Some(name) => Some(named(name).ok_or_else(|| {
                Error::corrupt(path, format_args!("it has no prompt \"{name}\", its default"))
            })?),
            None => None,
        };
        let found = match (query, document) {
            (None, None) => {
                let default = default.unwrap_or_default();
                Prompts { document: default.clone(), query: default }
            }
            (query, document) => {
                Prompts { document: document.unwrap_or_default(), query: query.unwrap_or_default() }
            }
        };
        for prompt in [&found.document, &found.query] {
            if prompt.len() > MAX_PROMPT_BYTES {
                return Err(Error::unsupported(
                    path,
                    format_args!(
                        "a prompt has {} bytes, the limit is {MAX_PROMPT_BYTES}",
                        prompt.len()
                    ),
                ));
            }
            if prompt.contains('\0') {
                return Err(Error::corrupt(path, "a prompt has the character U+0000"));
            }
        }
        Ok(found)
    }

    /// Whether the model has no prompt.
    pub fn are_empty(&self) -> bool {
        self.document.is_empty() && self.query.is_empty()
    }
}
