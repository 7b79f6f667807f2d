//! Downloads the embedding model from the hub, and checks that a model directory gives the right
//! numbers. The server never runs this program: a backend opens no network connection.

mod check;
mod content;
mod explain;
mod failure;
mod fetch;
mod hub;
mod meter;
mod options;
mod place;
mod published;
mod trouble;
mod watch;

use std::process::ExitCode;

use fetch::Fetched;
use options::{Arguments, Command};
use published::Published;

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(options::Stop::Help) => {
            println!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(options::Stop::Wrong(reason)) => {
            eprintln!("error: {reason}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let outcome = match arguments.command {
        Command::Fetch => run_fetch(&arguments),
        Command::Check => run_check(&arguments),
    };
    // Returning from main also ends the thread of a download that hangs.
    outcome.unwrap_or_else(|failure| {
        eprintln!("{failure}");
        ExitCode::from(failure.exit_code())
    })
}

fn run_fetch(arguments: &Arguments) -> Result<ExitCode, failure::Failure> {
    // hf-hub panics on some answers. The panics are caught and reported as failures, so the default
    // message is turned off.
    std::panic::set_hook(Box::new(|_| {}));
    let published = Published::read(arguments.manifest.as_deref())?;
    let revision = arguments.revision.as_deref().unwrap_or(&published.revision);
    published::check_revision(revision)?;
    let fetched = fetch::fetch(&published, revision, &arguments.dir, arguments.policy)?;
    let dir = arguments.dir.display();
    match fetched {
        Fetched::AlreadyComplete => {
            println!("{} is complete in {dir}; nothing to download", published.repo)
        }
        Fetched::Installed => println!("{} is now in {dir}", published.repo),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_check(arguments: &Arguments) -> Result<ExitCode, failure::Failure> {
    let published = Published::read(arguments.manifest.as_deref())?;
    let report = check::check(&arguments.dir, &published)?;
    print!("{report}");
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
