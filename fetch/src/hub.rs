//! Downloads a model's files from the hub, through hf-hub and its cache.
//!
//! hf-hub 0.5.0 leaves this to its caller: HF_TOKEN, timeouts (see `watch`), retries, the check of
//! sizes and hashes, and a partial file that cannot be resumed.

use std::cell::Cell;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

use crate::content::{self, Content};
use crate::explain::Explain;
use crate::failure::Failure;
use crate::meter::{Meter, WrongSize};
use crate::published::{Published, PublishedFile};
use crate::trouble::{self, Trouble};
use crate::watch::Activity;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Pause before the second attempt; doubled for each further attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A repository of the hub at one revision.
pub struct Hub {
    anonymous: Api,
    /// The same API with the user's token, if there is a token.
    with_token: Option<Api>,
    cache: Cache,
    repo: Repo,
    attempts: u32,
    explain: Explain,
}

/// A finished download.
struct Downloaded {
    path: PathBuf,
    /// The download continued a partial file of an earlier attempt.
    resumed: bool,
}

enum AttemptError {
    Failed(Trouble),
    WrongSize(WrongSize),
}

impl Hub {
    /// Reads HF_ENDPOINT, HF_HOME and HF_TOKEN; sends no request.
    pub fn open(published: &Published, revision: &str, attempts: u32) -> Result<Hub, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        // hf-hub reads HF_HOME itself, but treats an empty value as the working directory.
        let cache = match variable("HF_HOME") {
            Some(_) => Cache::from_env(),
            None => Cache::default(),
        };
        // hf-hub reads the token file only.
        let from_variable = variable("HF_TOKEN").map(|token| token.trim().to_owned());
        let token = from_variable.or_else(|| cache.token());

        let explain = Explain::new(published, revision, &endpoint, cache.path(), token.is_some());
        if !(endpoint.starts_with("https://") || endpoint.starts_with("http://")) {
            return Err(explain.bad_endpoint());
        }
        let api = |token: Option<String>| {
            ApiBuilder::from_cache(cache.clone())
                .with_endpoint(endpoint.clone())
                .with_token(token)
                .build()
                .map_err(|e| explain.trouble("", trouble::read(&e), false))
        };
        Ok(Hub {
            anonymous: api(None)?,
            with_token: token.map(|token| api(Some(token))).transpose()?,
            cache: cache.clone(),
            repo: Repo::with_revision(published.repo.clone(), RepoType::Model, revision.to_owned()),
            attempts,
            explain,
        })
    }

    /// The messages about this hub, for when a timeout or a panic ends the download.
    pub fn explain(&self) -> Explain {
        self.explain.clone()
    }

    /// The path of the pinned file in hf-hub's cache. Downloads the file if it is not there.
    pub fn file(&self, file: &PublishedFile, activity: &Activity) -> Result<PathBuf, Failure> {
        if let Some(path) = self.cached(&file.name) {
            match self.check(&path, file, activity)? {
                Content::Pinned => return Ok(path),
                Content::Differs(_) => self.delete_cached(&path)?,
            }
        }
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        // A partial file that cannot be resumed, or resumes to the wrong content, is deleted once.
        let mut part_may_be_stale = true;
        loop {
            match self.attempt(file, activity) {
                Ok(Downloaded { path, resumed }) => match self.check(&path, file, activity)? {
                    Content::Pinned => return Ok(path),
                    Content::Differs(found) => {
                        self.delete_cached(&path)?;
                        if !(resumed && part_may_be_stale) {
                            return Err(self.explain.refused(&file.name, &found));
                        }
                        part_may_be_stale = false;
                    }
                },
                Err(AttemptError::WrongSize(WrongSize { announced })) => {
                    self.delete_part(&file.name)?;
                    let found = format!("{announced} bytes instead of {}", file.size);
                    return Err(self.explain.refused(&file.name, &found));
                }
                Err(AttemptError::Failed(Trouble::StalePart)) if part_may_be_stale => {
                    self.delete_part(&file.name)?;
                    part_may_be_stale = false;
                }
                Err(AttemptError::Failed(trouble)) => {
                    let temporary = match &trouble {
                        Trouble::Broken(_) => true,
                        Trouble::Status(status) => *status == 429 || *status >= 500,
                        _ => false,
                    };
                    let failure = self.explain.trouble(&file.name, trouble, activity.data_seen());
                    if !temporary || attempt >= self.attempts {
                        return Err(failure);
                    }
                    activity.set_trouble(Some(failure));
                    thread::sleep(pause);
                    pause *= 2;
                    attempt += 1;
                }
            }
        }
    }

    /// The first request has no token: gte-small is public, and hf-hub 0.5.0 would send the token
    /// also to the host that the hub redirects large files to.
    fn attempt(
        &self,
        file: &PublishedFile,
        activity: &Activity,
    ) -> Result<Downloaded, AttemptError> {
        match (self.attempt_with(&self.anonymous, file, activity), &self.with_token) {
            (Err(AttemptError::Failed(Trouble::Status(401 | 403 | 404 | 429))), Some(api)) => {
                self.attempt_with(api, file, activity)
            }
            (result, _) => result,
        }
    }

    fn attempt_with(
        &self,
        api: &Api,
        file: &PublishedFile,
        activity: &Activity,
    ) -> Result<Downloaded, AttemptError> {
        let resumed_from = Cell::new(0);
        let meter = Meter::new(file, activity, &resumed_from);
        let repo = api.repo(self.repo.clone());
        let download = || repo.download_with_progress(&file.name, meter);
        match panic::catch_unwind(AssertUnwindSafe(download)) {
            Ok(Ok(path)) => Ok(Downloaded { path, resumed: resumed_from.get() > 0 }),
            Ok(Err(error)) => Err(AttemptError::Failed(trouble::read(&error))),
            Err(thrown) => Err(match thrown.downcast::<WrongSize>() {
                Ok(wrong_size) => AttemptError::WrongSize(*wrong_size),
                // hf-hub panics on a redirect without an address, for example.
                Err(_) => AttemptError::Failed(Trouble::unexpected_answer()),
            }),
        }
    }

    /// The file in the cache. hf-hub writes a ref file for the revision, but other tools may not.
    /// So this looks also in the snapshot that is named after the commit.
    fn cached(&self, name: &str) -> Option<PathBuf> {
        let cache = self.cache.repo(self.repo.clone());
        let by_commit = cache.pointer_path(self.repo.revision()).join(name);
        cache.get(name).or_else(|| by_commit.exists().then_some(by_commit))
    }

    fn check(
        &self,
        path: &Path,
        file: &PublishedFile,
        activity: &Activity,
    ) -> Result<Content, Failure> {
        content::check(path, file, || activity.restart())
            .map_err(|e| Failure::local("read", path, &e))
    }

    /// Deletes a cached file and its link in the snapshot; the next attempt downloads it again.
    fn delete_cached(&self, pointer: &Path) -> Result<(), Failure> {
        // The snapshot has a link to the content. The path of the cache may contain a link too.
        if let (Ok(blob), Ok(cache)) =
            (fs::canonicalize(pointer), fs::canonicalize(self.cache.path()))
            && blob.starts_with(cache)
        {
            remove(&blob)?;
        }
        remove(pointer)
    }

    /// Deletes the partial file that hf-hub keeps for resuming. Its name is the ETag, so the hub is
    /// asked for it.
    fn delete_part(&self, name: &str) -> Result<(), Failure> {
        let url = self.anonymous.repo(self.repo.clone()).url(name);
        let ask = |api: &Api| panic::catch_unwind(AssertUnwindSafe(|| api.metadata(&url)));
        let answers = [Some(&self.anonymous), self.with_token.as_ref()];
        for api in answers.into_iter().flatten() {
            if let Ok(Ok(metadata)) = ask(api) {
                let blob = self.cache.repo(self.repo.clone()).blob_path(metadata.etag());
                return remove(&blob.with_extension("part"));
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::local("delete", path, &e))
        }
        _ => Ok(()),
    }
}
