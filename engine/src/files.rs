//! The files of a model directory, opened and read with bounds.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Error;

/// Largest JSON file that is read. gte-small's tokenizer.json has 0.7 MB, the largest known BERT
/// tokenizer (multilingual, 250,000 pieces) 17 MB. Half a million tokens in a line each are 32 MB.
const MAX_JSON_BYTES: u64 = 48 << 20;

/// Paths of a model directory.
pub(crate) struct ModelFiles {
    pub config: PathBuf,
    pub sentence_config: PathBuf,
    pub tokenizer: PathBuf,
    pub weights: PathBuf,
}

impl ModelFiles {
    /// Names the files below `dir` and checks that those no model can do without are there, so
    /// that half a model is reported by the file that is missing.
    pub fn locate(dir: &Path) -> Result<ModelFiles, Error> {
        let files = ModelFiles {
            config: dir.join("config.json"),
            sentence_config: dir.join("sentence_bert_config.json"),
            tokenizer: dir.join("tokenizer.json"),
            weights: dir.join("model.safetensors"),
        };
        for path in [&files.weights, &files.tokenizer, &files.config] {
            std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        }
        Ok(files)
    }
}

/// Opens a regular file and tells its size. Anything else is refused: opening a pipe would wait
/// for a writer that never comes.
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
    let (file, size) = open_regular(path)?;
    if size > MAX_JSON_BYTES {
        return Err(Error::corrupt(
            path,
            format_args!("it has {size} bytes, more than the {MAX_JSON_BYTES} that are read"),
        ));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(MAX_JSON_BYTES).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}
