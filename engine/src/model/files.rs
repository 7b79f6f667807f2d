//! The files of a model directory, read with limits on their size.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::de::DeserializeOwned;

use crate::{Error, memory};

/// Largest JSON file that is read. gte-small's tokenizer.json has 0.7 MB, a multilingual BERT
/// tokenizer of 250,000 tokens 17 MB. Half a million tokens, one in each line, are 32 MB.
const MAX_JSON_BYTES: u64 = 48 << 20;

/// Largest configuration that is read. The longest known one has 6 kB.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The file that says how hidden states become a vector. Its name needs the directory: there is
/// another `config.json`.
pub(crate) const POOLING: &str = "1_Pooling/config.json";

/// The files of a model directory that are read. The first three are required.
pub const MODEL_FILES: [&str; 7] = [
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "sentence_bert_config.json",
    "modules.json",
    POOLING,
    "config_sentence_transformers.json",
];

/// Paths of a model directory.
pub(crate) struct ModelFiles {
    pub config: PathBuf,
    pub sentence_config: PathBuf,
    pub tokenizer: PathBuf,
    pub weights: PathBuf,
    pub modules: PathBuf,
    pub pooling: PathBuf,
    pub prompts: PathBuf,
    /// Stamps of these files, taken before any was read.
    stamps: [Option<Stamp>; 7],
}

/// Device, inode, size and modification time: they change when a file is replaced or written to.
type Stamp = (u64, u64, u64, Option<SystemTime>);

impl ModelFiles {
    /// Names the files in `dir`. A required file that does not exist is an error here, before
    /// another file is read.
    pub fn locate(dir: &Path) -> Result<ModelFiles, Error> {
        let mut files = ModelFiles {
            config: dir.join("config.json"),
            sentence_config: dir.join("sentence_bert_config.json"),
            tokenizer: dir.join("tokenizer.json"),
            weights: dir.join("model.safetensors"),
            modules: dir.join("modules.json"),
            pooling: dir.join(POOLING),
            prompts: dir.join("config_sentence_transformers.json"),
            stamps: [None; 7],
        };
        for path in [&files.weights, &files.tokenizer, &files.config] {
            std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        }
        files.stamps = files.paths().map(stamp);
        Ok(files)
    }

    /// Refuses a model whose files were replaced or written to while they were read. Some of the
    /// files could be of another model.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        match self.paths().into_iter().zip(&self.stamps).find(|(path, was)| stamp(path) != **was) {
            None => Ok(()),
            Some((path, _)) => Err(Error::corrupt(path, "it changed while it was being loaded")),
        }
    }

    fn paths(&self) -> [&Path; 7] {
        [
            &self.config,
            &self.sentence_config,
            &self.tokenizer,
            &self.weights,
            &self.modules,
            &self.pooling,
            &self.prompts,
        ]
        .map(PathBuf::as_path)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.modified().ok()))
}

/// Opens a regular file and returns its size, too. Other kinds of files are refused: to open a pipe
/// would wait for a writer.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), Error> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if !metadata.is_file() {
        return Err(Error::corrupt(path, "it is not a regular file"));
    }
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    Ok((file, metadata.len()))
}

/// Reads a JSON file of at most 48 MB.
pub(crate) fn read_json_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    read_bytes(path, MAX_JSON_BYTES)
}

/// Reads a configuration of at most 1 MB that a model need not have.
///
/// # Errors
/// [`Error::Corrupt`] for a file that is too large, no JSON, or of another form; [`Error::Io`].
pub(crate) fn read_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match read_config(path) {
        Ok(config) => Ok(Some(config)),
        Err(Error::MissingFile { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a configuration of at most 1 MB.
///
/// # Errors
/// As [`read_optional`], and [`Error::MissingFile`].
pub(crate) fn read_config<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = read_bytes(path, MAX_CONFIG_BYTES)?;
    let _hold = memory::hold_for_json(bytes.len())?;
    serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(path, e))
}

fn read_bytes(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let (file, size) = open_regular(path)?;
    if size > most {
        return Err(Error::corrupt(path, format_args!("it has {size} bytes, the limit is {most}")));
    }
    let mut bytes = memory::vector(size as usize)?;
    file.take(most).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_written_to_added_or_removed_is_named() {
        let name = format!("gte-small-files-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(dir.join("1_Pooling")).unwrap();
        for file in MODEL_FILES {
            std::fs::write(dir.join(file), "{}").unwrap();
        }
        for file in MODEL_FILES {
            let path = dir.join(file);
            let changes: [&dyn Fn(); 3] = [
                &|| std::fs::write(&path, "longer").unwrap(),
                &|| {
                    std::fs::write(dir.join("new"), "longer").unwrap();
                    std::fs::rename(dir.join("new"), &path).unwrap();
                },
                &|| std::fs::remove_file(&path).unwrap(),
            ];
            for change in changes {
                let files = ModelFiles::locate(&dir).unwrap();
                files.check_unchanged().unwrap();
                change();
                let error = files.check_unchanged().unwrap_err();
                assert_eq!(error.path(), Some(path.as_path()), "{error}");
            }
            std::fs::write(&path, "{}").unwrap();
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
