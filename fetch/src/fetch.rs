//! `gte-model fetch`: downloads all pinned files into one directory.

use std::path::Path;

use crate::failure::Failure;
use crate::hub::Hub;
use crate::place::{self, Destination};
use crate::published::{Published, PublishedFile};
use crate::watch::{Activity, Ended, Timeouts, watch};

/// Timeouts and retries of a download.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub timeouts: Timeouts,
    /// How many times a file is requested before a temporary error is reported.
    pub attempts: u32,
}

/// Result of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The directory was complete; no request was sent.
    AlreadyComplete,
    Installed,
}

/// Puts the model at `revision` into `dir`.
pub fn fetch(
    published: &Published,
    revision: &str,
    dir: &Path,
    policy: Policy,
) -> Result<Fetched, Failure> {
    if place::is_complete(dir, &published.files) {
        return Ok(Fetched::AlreadyComplete);
    }
    let destination = Destination::open(dir)?;
    // Another process may have finished while this one waited for the lock.
    if place::is_complete(dir, &published.files) {
        return Ok(Fetched::AlreadyComplete);
    }

    let hub = Hub::open(published, revision, policy.attempts)?;
    let explain = hub.explain();
    let activity = Activity::new();
    let files = published.files.clone();
    let work = {
        let activity = activity.clone();
        move || {
            let with_path =
                |file: PublishedFile| hub.file(&file, &activity).map(|path| (file, path));
            files.into_iter().map(with_path).collect::<Result<Vec<_>, _>>()
        }
    };
    let sources = match watch(policy.timeouts, &activity, work) {
        Ended::Done(sources) => sources?,
        Ended::Panicked => return Err(explain.not_understood()),
        Ended::TimedOut => {
            let started = activity.data_seen();
            let limit = if started { policy.timeouts.stall } else { policy.timeouts.connect };
            return Err(activity.trouble().unwrap_or_else(|| explain.timed_out(started, limit)));
        }
    };
    destination.install(&sources)?;
    Ok(Fetched::Installed)
}
