//! The manifest of a published model: its repository, and the size and hash of each file.

use std::path::Path;

use serde::Deserialize;

use crate::failure::{Failure, Kind};

const GTE_SMALL: &str = include_str!("gte-small.json");

/// A model on the hub, pinned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// `owner/name`.
    pub repo: String,
    /// A commit of the repository.
    pub revision: String,
    pub files: Vec<PublishedFile>,
    /// Published cosines of the model; empty if nobody measured them.
    #[serde(default)]
    pub cosines: Vec<PublishedCosine>,
}

/// A file of a model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFile {
    pub name: String,
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// The cosine of two texts under the model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedCosine {
    pub texts: [String; 2],
    pub cosine: f64,
}

impl Published {
    /// Reads the manifest in `path`; without a path, that of gte-small.
    pub fn read(path: Option<&Path>) -> Result<Published, Failure> {
        let text = match path {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|e| Failure::local("read", path, &e))?
            }
            None => GTE_SMALL.to_owned(),
        };
        let published: Published =
            serde_json::from_str(&text).map_err(|e| bad_manifest(&e.to_string()))?;
        published.check()?;
        Ok(published)
    }

    /// The sha256 of the weights; it identifies the model.
    pub fn weights_sha256(&self) -> Option<&str> {
        self.files.iter().find(|f| f.name == "model.safetensors").map(|f| f.sha256.as_str())
    }

    /// Names become parts of paths and addresses. A name that could change the rest of one is
    /// refused.
    fn check(&self) -> Result<(), Failure> {
        if self.files.is_empty() {
            return Err(bad_manifest("it lists no files"));
        }
        let mut repo = self.repo.split('/');
        if !(self.repo.split('/').count() <= 2 && repo.all(is_plain)) {
            return Err(bad_manifest("repo is not of the form owner/name"));
        }
        check_revision(&self.revision)?;
        for file in &self.files {
            // 1_Pooling/config.json is in a directory.
            if !(file.name.split('/').count() <= 2 && file.name.split('/').all(is_plain)) {
                return Err(bad_manifest(
                    "a file's name is not of the form name or directory/name",
                ));
            }
            let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            if !(file.sha256.len() == 64 && file.sha256.bytes().all(hex)) {
                return Err(bad_manifest("a sha256 is not 64 lower-case hex digits"));
            }
        }
        Ok(())
    }
}

/// Refuses a revision that could change the rest of an address or of a path in the cache.
pub fn check_revision(revision: &str) -> Result<(), Failure> {
    if revision.split('/').all(is_plain) {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Other,
        "the revision is not a commit, branch or tag of the hub",
        "so nothing was downloaded",
        "omit --revision to get the pinned revision",
    ))
}

fn is_plain(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
}

fn bad_manifest(reason: &str) -> Failure {
    Failure::new(
        Kind::Other,
        format!("the manifest cannot be used: {reason}"),
        "so nothing was downloaded",
        "give it the keys repo, revision and files, each file with name, size and sha256",
    )
}
