//! Error messages about a hub. They contain no token, password or signature.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Failure, Kind};
use crate::published::Published;
use crate::trouble::Trouble;

const NOTHING_INSTALLED: &str = "so the model was not downloaded and no directory was made";

/// The variables in which ureq looks for a proxy, in the order of ureq.
const PROXY_VARIABLES: [&str; 6] =
    ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// Data that the messages about one hub share.
#[derive(Clone, Debug)]
pub struct Explain {
    repo: String,
    revision: String,
    /// Without user name and password.
    endpoint: String,
    cache: PathBuf,
    has_token: bool,
}

impl Explain {
    pub fn new(
        published: &Published,
        revision: &str,
        endpoint: &str,
        cache: &Path,
        has_token: bool,
    ) -> Explain {
        Explain {
            repo: published.repo.clone(),
            revision: revision.to_owned(),
            endpoint: without_credentials(endpoint),
            cache: cache.to_owned(),
            has_token,
        }
    }

    pub fn bad_endpoint(&self) -> Failure {
        Failure::new(
            Kind::Other,
            format!("HF_ENDPOINT is \"{}\", which is not a web address", self.endpoint),
            NOTHING_INSTALLED,
            "set it to an address that starts with https:// or http://, or unset it",
        )
    }

    /// The content is not the pinned one.
    pub fn refused(&self, name: &str, found: &str) -> Failure {
        Failure::new(
            Kind::Refused,
            format!("{name} from {} is not the pinned file: {found}", self.endpoint),
            "so it was refused and deleted, and no directory was made",
            "run the command again to download the file again; if this repeats, the hub, mirror or \
             proxy serves another file: name another hub with HF_ENDPOINT",
        )
    }

    /// No data arrived within `limit`. `started`: some data had arrived before.
    pub fn timed_out(&self, started: bool, limit: Duration) -> Failure {
        let seconds = limit.as_secs_f64();
        if started {
            return self.broke_off(&format!("nothing more came for {seconds} s"));
        }
        self.unreachable(&format!("no answer within {seconds} s"))
    }

    /// hf-hub panicked on an answer.
    pub fn not_understood(&self) -> Failure {
        self.trouble("", Trouble::unexpected_answer(), false)
    }

    /// Why `name` was not downloaded. `started`: some data had arrived before.
    pub fn trouble(&self, name: &str, trouble: Trouble, started: bool) -> Failure {
        match trouble {
            Trouble::Status(status) => self.status(name, status),
            Trouble::Broken(reason) if started => self.broke_off(&reason),
            Trouble::NoHub(reason) | Trouble::Broken(reason) => self.unreachable(&reason),
            Trouble::NotAHub(reason) => Failure::new(
                Kind::Unreachable,
                format!("{} does not answer like a hub: {reason}", self.endpoint),
                NOTHING_INSTALLED,
                format!("a proxy or a sign-in page may be in between; {}", self.network_advice()),
            ),
            Trouble::StalePart => Failure::new(
                Kind::Refused,
                format!("{} refuses to send the rest of {name}", self.endpoint),
                NOTHING_INSTALLED,
                format!("delete {} and run the command again", self.cache.display()),
            ),
            Trouble::Locked => Failure::new(
                Kind::Other,
                format!("another process is downloading {name}"),
                NOTHING_INSTALLED,
                "run the command again when it has finished",
            ),
            Trouble::Disk(reason) => Failure::new(
                Kind::Other,
                format!("could not write to the download cache {}: {reason}", self.cache.display()),
                NOTHING_INSTALLED,
                "free some space or name another cache with HF_HOME, then run the command again",
            ),
        }
    }

    fn status(&self, name: &str, status: u16) -> Failure {
        let Explain { repo, revision, endpoint, .. } = self;
        let asked = format!("for {name} of {repo}");
        match status {
            401 => Failure::new(
                Kind::Other,
                if self.has_token {
                    format!("{endpoint} does not accept the token (HTTP 401) {asked}")
                } else {
                    format!("{endpoint} wants a token (HTTP 401) {asked}")
                },
                NOTHING_INSTALLED,
                "set HF_TOKEN to a token that may read the repository, or name another hub with \
                 HF_ENDPOINT",
            ),
            404 => Failure::new(
                Kind::Other,
                format!("{endpoint} has no {name} of {repo} at {revision} (HTTP 404)"),
                NOTHING_INSTALLED,
                "check HF_ENDPOINT: a mirror may lack this repository or this revision",
            ),
            403 | 407 => Failure::new(
                Kind::Unreachable,
                format!("{endpoint} refuses (HTTP {status}) {asked}"),
                NOTHING_INSTALLED,
                format!("a proxy or firewall may forbid the hub; {}", self.network_advice()),
            ),
            429 => Failure::new(
                Kind::Unreachable,
                format!("{endpoint} has received too many requests (HTTP 429) {asked}"),
                NOTHING_INSTALLED,
                "wait some minutes and run the command again, or set HF_TOKEN: the hub allows more \
                 requests with a token",
            ),
            500.. => Failure::new(
                Kind::Unreachable,
                format!("{endpoint} is out of order (HTTP {status}) {asked}"),
                NOTHING_INSTALLED,
                "run the command again later, or name a mirror with HF_ENDPOINT",
            ),
            _ => Failure::new(
                Kind::Other,
                format!("{endpoint} answers HTTP {status} {asked}"),
                NOTHING_INSTALLED,
                "check HF_ENDPOINT",
            ),
        }
    }

    fn unreachable(&self, reason: &str) -> Failure {
        Failure::new(
            Kind::Unreachable,
            format!("{} cannot be reached: {reason}", self.endpoint),
            NOTHING_INSTALLED,
            self.network_advice(),
        )
    }

    fn broke_off(&self, reason: &str) -> Failure {
        Failure::new(
            Kind::BrokeOff,
            format!("the download from {} broke off: {reason}", self.endpoint),
            "so no directory was made; the downloaded part is kept",
            "run the command again: it goes on where it stopped",
        )
    }

    fn network_advice(&self) -> String {
        let proxy = PROXY_VARIABLES.into_iter().find(|name| std::env::var_os(name).is_some());
        match proxy {
            Some(name) => {
                format!("check the proxy that {name} names, or name a mirror with HF_ENDPOINT")
            }
            None => {
                "check the network, set HTTPS_PROXY if there is a proxy, or name a mirror with \
                     HF_ENDPOINT"
                    .to_owned()
            }
        }
    }
}

/// `https://user:secret@host/x` → `https://host/x`. The query is removed too: it may contain a
/// signature.
fn without_credentials(address: &str) -> String {
    let address = address.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.rsplit('@').next().unwrap_or_default().to_owned();
    };
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}
