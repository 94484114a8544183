//! The command line: one file per command, each with its arguments, whose docs are the help.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, Overrides, process_environment};
use crate::control::describe;
use crate::profile::store::StoreError;

mod completions;

mod profile;

mod quota;

mod run;

mod info;

mod serve;

mod status;

mod why;

mod wording;

/// A proxy for coding agents that pools the accounts you own.
///
/// It keeps each conversation with the account that owns it, and moves to another account only before a
/// response is committed.
#[derive(Debug, Parser)]
#[command(name = "prodex", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failure, 2 usage or settings, 3 environment (a port, a file,
or a program), 4 no usable profile, 130 interrupted. `run` exits with the code
of the client.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Serve(serve::Serve),
    Profile(profile::Profiles),
    Why(why::Why),
    Quota(quota::ShowQuota),
    Status(status::ShowStatus),
    Info(info::ShowInfo),
    Completions(completions::Completions),
}

/// What a person reads who runs the program for the first time.
const FIRST_STEP: &str = "\
prodex pools the accounts you own behind one local proxy for Codex.

  1. prodex profile import      take over the login that Codex has on this machine
  2. prodex profile list        see what there is
  3. prodex run -- exec \"hi\"    start Codex behind the proxy

`prodex --help` shows all commands.";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Ok,
    /// It could not be done.
    Failure,
    /// The command line or a setting is wrong.
    Usage,
    /// A port, a file or a program is not as it is needed.
    Environment,
    /// There is no profile, or none that could be used.
    NoProfile,
    /// The client's own code.
    Client(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Environment => 3,
            Exit::NoProfile => 4,
            Exit::Client(code) => code,
        })
    }
}

/// A command that failed: what the person reads, and the exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// A failure with the causes of an error behind it.
    fn of(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(exit, describe(error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::Name(_) => Exit::Usage,
            StoreError::Missing(_) | StoreError::Exists(_) => Exit::Failure,
            StoreError::Broken { .. } | StoreError::Credentials { .. } => Exit::NoProfile,
            StoreError::Io { .. } | StoreError::Leased(_) => Exit::Environment,
        };
        Self::of(exit, &error)
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        let exit = match &error {
            crate::config::ConfigError::Read { .. } => Exit::Environment,
            _ => Exit::Usage,
        };
        Self::of(exit, &error)
    }
}

/// The home, which every command may be given.
#[derive(Debug, Clone, Default, clap::Args)]
struct Home {
    /// Where profiles, state and settings live [default: $PRODEX_HOME, or ~/.prodex]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

impl Home {
    fn config(&self, flags: &Overrides) -> Result<Config, Failure> {
        Ok(Config::load(self.home.as_deref(), &process_environment, flags)?)
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    hide_panics();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe behind `--help` is nobody's failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let result = match arguments.command {
        None => {
            println!("{FIRST_STEP}");
            Ok(Exit::Ok)
        }
        Some(Command::Run(run)) => run.execute(),
        Some(Command::Serve(serve)) => serve.execute(),
        Some(Command::Profile(profiles)) => profiles.execute(),
        Some(Command::Why(why)) => why.execute(),
        Some(Command::Quota(quota)) => quota.execute(),
        Some(Command::Status(status)) => status.execute(),
        Some(Command::Info(info)) => info.execute(),
        Some(Command::Completions(completions)) => completions.execute(Arguments::command()),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("prodex: {}", failure.message);
            failure.exit.into()
        }
    }
}

/// A panic's text could hold what was being worked on; where it happened is enough to find it.
fn hide_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        eprintln!("prodex: internal error at {place}; please report it");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_its_help_fits_a_screen() {
        Arguments::command().debug_assert();
        let help = Arguments::command().term_width(80).render_help().to_string();
        assert!(help.lines().count() <= 24, "{help}");
        insta::assert_snapshot!(help);
    }
}
