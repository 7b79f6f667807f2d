//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::fetch::Policy;
use crate::watch::Timeouts;

pub const USAGE: &str = "\
gte-model fetch --to DIR    download gte-small into DIR; DIR is created complete or not at all
gte-model check DIR         compare the model in DIR with the stock forward pass and with
                            the values published for it

  --manifest FILE           a model other than gte-small (JSON: repo, revision, files, cosines)
  --revision REVISION       request this revision; the pinned hashes still apply
  --connect-timeout SECONDS the hub is unreachable if no data arrives within this time (20)
  --stall-timeout SECONDS   a download stops if no more data arrives within this time (20)
  --attempts N              how many times a file is requested while the hub has a temporary
                            error (4)

HF_ENDPOINT names a mirror, HF_HOME the download cache, HF_TOKEN a token for hubs that need one.
Proxies come from ALL_PROXY, HTTPS_PROXY, HTTP_PROXY and NO_PROXY.

Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 no hub can serve the model,
4 wrong content refused, 5 download interrupted (the next run resumes it).";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Fetch,
    Check,
}

#[derive(Debug)]
pub struct Arguments {
    pub command: Command,
    pub dir: PathBuf,
    pub manifest: Option<PathBuf>,
    pub revision: Option<String>,
    pub policy: Policy,
}

/// Why no command runs.
#[derive(Debug)]
pub enum Stop {
    Help,
    Wrong(String),
}

impl Arguments {
    pub fn read(arguments: impl Iterator<Item = OsString>) -> Result<Arguments, Stop> {
        let mut arguments = arguments.peekable();
        let wrong = |reason: &str| Stop::Wrong(reason.to_owned());
        let command = match arguments.next().as_ref().and_then(|a| a.to_str()) {
            Some("fetch") => Command::Fetch,
            Some("check") => Command::Check,
            Some("-h" | "--help" | "help") => return Err(Stop::Help),
            _ => return Err(wrong("the command must be fetch or check")),
        };
        let (mut dir, mut manifest, mut revision) = (None, None, None);
        let (mut connect, mut stall, mut attempts) = (20.0, 20.0, 4);
        while let Some(argument) = arguments.next() {
            let option = argument.to_str().unwrap_or_default().to_owned();
            let mut value =
                || arguments.next().ok_or_else(|| Stop::Wrong(format!("{option} needs a value")));
            match option.as_str() {
                "-h" | "--help" => return Err(Stop::Help),
                "--to" if command == Command::Fetch => dir = Some(PathBuf::from(value()?)),
                "--manifest" => manifest = Some(PathBuf::from(value()?)),
                "--revision" => revision = Some(text(&option, value()?)?),
                "--connect-timeout" => connect = number(&option, value()?)?,
                "--stall-timeout" => stall = number(&option, value()?)?,
                "--attempts" => attempts = number::<u32>(&option, value()?)?.max(1),
                _ if option.starts_with('-') => {
                    return Err(Stop::Wrong(format!("there is no option {option}")));
                }
                _ if command == Command::Check && dir.is_none() => {
                    dir = Some(PathBuf::from(argument));
                }
                _ => return Err(wrong("there are too many arguments")),
            }
        }
        let dir = dir.filter(|d| !d.as_os_str().is_empty()).ok_or_else(|| match command {
            Command::Fetch => wrong("fetch needs --to DIR"),
            Command::Check => wrong("check needs a directory"),
        })?;
        let timeouts = Timeouts {
            connect: seconds("--connect-timeout", connect)?,
            stall: seconds("--stall-timeout", stall)?,
        };
        Ok(Arguments { command, dir, manifest, revision, policy: Policy { timeouts, attempts } })
    }
}

fn text(option: &str, value: OsString) -> Result<String, Stop> {
    value.into_string().map_err(|_| Stop::Wrong(format!("{option} needs text")))
}

fn number<T: std::str::FromStr>(option: &str, value: OsString) -> Result<T, Stop> {
    let value = text(option, value)?;
    value.parse().map_err(|_| Stop::Wrong(format!("{option} needs a number, not \"{value}\"")))
}

/// A timeout: positive, and at most a day.
fn seconds(option: &str, value: f64) -> Result<Duration, Stop> {
    if value > 0.0 && value <= 86_400.0 {
        return Ok(Duration::from_secs_f64(value));
    }
    Err(Stop::Wrong(format!("{option} needs a number of seconds above 0, at most 86400")))
}
