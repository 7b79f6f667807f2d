//! The error of a command: the fact, its consequence, and what to do.

use std::fmt;
use std::path::Path;

/// Kinds of failure that a caller handles differently; each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another source would not help: the disk, the arguments, a missing token.
    Other,
    /// No hub answered, or the hub cannot serve now. The caller may use another model.
    Unreachable,
    /// The downloaded content is not the pinned content.
    Refused,
    /// The download was interrupted; the same command resumes it.
    BrokeOff,
}

/// A failed command.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: Kind,
    fact: String,
    consequence: String,
    action: String,
}

impl Failure {
    pub fn new(
        kind: Kind,
        fact: impl Into<String>,
        consequence: impl Into<String>,
        action: impl Into<String>,
    ) -> Failure {
        Failure { kind, fact: fact.into(), consequence: consequence.into(), action: action.into() }
    }

    /// A local file or directory that could not be used.
    pub fn local(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
        let action = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "free some space there (a model takes up to 100 MB), then run the command again"
            }
            _ => "make it usable by this user or name another path, then run the command again",
        };
        Failure::new(
            Kind::Other,
            format!("could not {doing} {}: {error}", path.display()),
            "so no model was put in place",
            action,
        )
    }

    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Other => 1,
            Kind::Unreachable => 3,
            Kind::Refused => 4,
            Kind::BrokeOff => 5,
        }
    }
}

impl fmt::Display for Failure {
    /// Three lines: a caller can quote the first one, the fact, alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  {}\n  {}", self.fact, self.consequence, self.action)
    }
}
