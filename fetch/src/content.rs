//! Compares a file with its pinned size and hash.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::published::PublishedFile;

/// Result of the comparison.
#[derive(Debug)]
pub enum Content {
    Pinned,
    /// Another size or another hash; the text says which.
    Differs(String),
}

/// Copies `path` into `out` and hashes it. `between` is called after every block.
pub fn copy_checked(
    path: &Path,
    file: &PublishedFile,
    out: &mut impl Write,
    mut between: impl FnMut(),
) -> io::Result<Content> {
    let mut source = File::open(path)?;
    let size = source.metadata()?.len();
    if size != file.size {
        return Ok(Content::Differs(format!("{size} bytes instead of {}", file.size)));
    }
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        let read = match source.read(&mut block) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(&block[..read]);
        out.write_all(&block[..read])?;
        between();
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(if found == file.sha256 {
        Content::Pinned
    } else {
        Content::Differs(format!("sha256 {found} instead of {}", file.sha256))
    })
}

/// Whether `path` is the pinned file.
pub fn check(path: &Path, file: &PublishedFile, between: impl FnMut()) -> io::Result<Content> {
    copy_checked(path, file, &mut io::sink(), between)
}
