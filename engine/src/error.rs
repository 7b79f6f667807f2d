//! What can go wrong, each case with the file and the fact.

use std::path::{Path, PathBuf};

/// An error of loading a model or of running it.
///
/// The text names the file without its directory, because a directory of the server is not for
/// everybody's eyes; [`Error::path`] has the whole path for those who may see it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file the model needs is not there.
    #[error("model file \"{}\" does not exist", file_name(path))]
    MissingFile {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// A file is there and could not be read.
    #[error("could not read model file \"{}\": {source}", file_name(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file was read and its content makes no sense.
    #[error("model file \"{}\" is broken: {reason}", file_name(path))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is well-formed but describes a model this engine does not run.
    #[error("model file \"{}\" is not supported: {reason}", file_name(path))]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it asks for and what there is.
        reason: String,
    },
    /// A text too large for a tokenizer that can only read a text as a whole.
    #[error(
        "text of {bytes} bytes is too long for this model's tokenizer, which reads at most {limit} bytes"
    )]
    TextTooLong {
        /// Size of the text.
        bytes: usize,
        /// The most that is read.
        limit: usize,
    },
    /// A single character that has more tokens than a chunk may have.
    #[error("a chunk of {limit} tokens has no room for a character of {tokens}")]
    CharacterTooLong {
        /// Tokens of the character, specials included.
        tokens: usize,
        /// Tokens a chunk may have.
        limit: usize,
    },
    /// A precision or kernels that this CPU can't run.
    #[error("{wanted} is not available on this CPU, which has {available}")]
    NoKernels {
        /// What was asked for.
        wanted: String,
        /// Names of the kernels there are.
        available: String,
    },
    /// The system gives no memory for the weights.
    #[error("out of memory: {bytes} bytes for the weights of the model")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// The caller's callback said to stop.
    #[error("interrupted")]
    Interrupted,
    /// The model ran and failed, which no input should bring about.
    #[error("the embedding model failed: {0}")]
    Internal(String),
}

impl Error {
    /// The file the error is about, with its directory.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::MissingFile { path }
            | Error::Io { path, .. }
            | Error::Corrupt { path, .. }
            | Error::Unsupported { path, .. } => Some(path),
            Error::TextTooLong { .. }
            | Error::CharacterTooLong { .. }
            | Error::NoKernels { .. }
            | Error::OutOfMemory { .. }
            | Error::Interrupted
            | Error::Internal(_) => None,
        }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl std::fmt::Display) -> Error {
        Error::Corrupt { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn unsupported(path: &Path, reason: impl std::fmt::Display) -> Error {
        Error::Unsupported { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Error {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::MissingFile { path: path.to_owned() }
        } else {
            Error::Io { path: path.to_owned(), source }
        }
    }

    pub(crate) fn internal(error: impl std::fmt::Display) -> Error {
        Error::Internal(error.to_string())
    }
}

fn file_name(path: &Path) -> std::path::Display<'_> {
    Path::new(path.file_name().unwrap_or(path.as_os_str())).display()
}
