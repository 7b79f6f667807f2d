//! Errors of the engine.

use std::path::{Path, PathBuf};

use crate::model::files::POOLING;

/// An error of loading a model or of running it.
///
/// The text has the name of the file without its directory, because not every user may see the
/// directories of a server. [`Error::path`] has the whole path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the model does not exist.
    #[error("model file \"{}\" does not exist", file_name(path))]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A file exists and could not be read.
    #[error("could not read model file \"{}\": {source}", file_name(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file was read and its content is wrong.
    #[error("model file \"{}\" is broken: {reason}", file_name(path))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is well-formed but describes a model that the engine does not run.
    #[error("model file \"{}\" is not supported: {reason}", file_name(path))]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What the file has and what the engine supports.
        reason: String,
    },
    /// A text is too long for its tokenizer: for one that can only read a text as a whole, or with
    /// a word that is too long.
    #[error(
        "text of {bytes} bytes is too long for this model's tokenizer, which reads at most {limit} bytes"
    )]
    TextTooLong {
        /// Size of the text or the word.
        bytes: usize,
        /// Largest size that is read.
        limit: usize,
    },
    /// A single character has more tokens than a chunk may have.
    #[error("a chunk of {limit} tokens has no room for a character of {tokens}")]
    CharacterTooLong {
        /// Number of tokens of the character, specials included.
        tokens: usize,
        /// Most tokens of a chunk.
        limit: usize,
    },
    /// This CPU can't run the precision or the kernels.
    #[error("{wanted} is not available on this CPU, which has {available}")]
    NoKernels {
        /// The precision or the kernels of the options.
        wanted: String,
        /// Names of the kernels that this CPU can run.
        available: String,
    },
    /// The system has no memory for the weights, for the hidden states of a text, or for the
    /// reserve.
    #[error("out of memory: the system refused {bytes} bytes")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// The system starts no thread for stock candle.
    #[error("could not start a thread: {reason}")]
    NoThread {
        /// What the operating system says.
        reason: String,
    },
    /// The caller's callback stopped the work.
    #[error("interrupted")]
    Interrupted,
    /// The engine failed. No input should cause this.
    #[error("the embedding model failed: {0}")]
    Internal(String),
}

impl Error {
    /// The file that caused the error, with its directory.
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
            | Error::NoThread { .. }
            | Error::Interrupted
            | Error::Internal(_) => None,
        }
    }

    /// The directory of the model whose file caused the error.
    pub fn directory(&self) -> Option<&Path> {
        let path = self.path()?;
        let depth = if path.ends_with(POOLING) { 2 } else { 1 };
        path.ancestors().nth(depth)
    }

    pub(crate) fn corrupt(path: &Path, reason: impl std::fmt::Display) -> Error {
        Error::Corrupt { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn unsupported(path: &Path, reason: impl std::fmt::Display) -> Error {
        Error::Unsupported { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Error {
        match source.kind() {
            std::io::ErrorKind::NotFound => Error::MissingFile { path: path.to_owned() },
            std::io::ErrorKind::OutOfMemory => Error::OutOfMemory { bytes: 0 },
            _ => Error::Io { path: path.to_owned(), source },
        }
    }

    pub(crate) fn internal(error: impl std::fmt::Display) -> Error {
        Error::Internal(error.to_string())
    }

    /// Of the errors of several threads, keeps the cause: the first that is not an interrupt, which
    /// is what a thread gives that stopped because another one failed.
    pub(crate) fn keep_cause(failure: &mut Option<Error>, error: Error) {
        if matches!(failure, None | Some(Error::Interrupted)) {
            *failure = Some(error);
        }
    }
}

/// The name in the directory of the model.
fn file_name(path: &Path) -> std::path::Display<'_> {
    let name = match path.ends_with(POOLING) {
        true => Path::new(POOLING),
        false => Path::new(path.file_name().unwrap_or(path.as_os_str())),
    };
    name.display()
}
