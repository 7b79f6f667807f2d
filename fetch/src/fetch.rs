//! `gte-model fetch`: the pinned files, all of them, into one directory.

use std::path::Path;

use crate::failure::Failure;
use crate::hub::Hub;
use crate::place::{self, Place};
use crate::published::{Published, PublishedFile};
use crate::watch::{Ended, Limits, Pulse, watch};

/// How a download is done.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub limits: Limits,
    /// How often a file is asked for before a passing trouble counts.
    pub attempts: u32,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The directory was complete; nothing was asked of the network.
    WasThere,
    Installed,
}

/// Puts the model at `revision` into `dir`.
pub fn fetch(
    published: &Published,
    revision: &str,
    dir: &Path,
    manner: Manner,
) -> Result<Fetched, Failure> {
    if place::is_complete(dir, &published.files) {
        return Ok(Fetched::WasThere);
    }
    let place = Place::open(dir)?;
    // Another process may have finished while this one waited for the place.
    if place::is_complete(dir, &published.files) {
        return Ok(Fetched::WasThere);
    }

    let hub = Hub::open(published, revision, manner.attempts)?;
    let explain = hub.explain();
    let pulse = Pulse::new();
    let files = published.files.clone();
    let work = {
        let pulse = pulse.clone();
        move || {
            let with_path = |file: PublishedFile| hub.file(&file, &pulse).map(|path| (file, path));
            files.into_iter().map(with_path).collect::<Result<Vec<_>, _>>()
        }
    };
    let sources = match watch(manner.limits, &pulse, work) {
        Ended::Done(sources) => sources?,
        Ended::Panicked => return Err(explain.not_understood()),
        Ended::Silent => {
            let started = pulse.content_seen();
            let limit = if started { manner.limits.stall } else { manner.limits.contact };
            return Err(pulse.trouble().unwrap_or_else(|| explain.silent(started, limit)));
        }
    };
    place.install(&sources)?;
    Ok(Fetched::Installed)
}
