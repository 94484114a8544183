//! The command line: one file per command, each with its arguments, whose docs are the help.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{Config, Overrides, process_environment};
use crate::control::describe;
use crate::launch::find_program;
use crate::profile::store::StoreError;

mod completions;

mod first_step;

mod login;

mod man;

mod profile;

mod quota;

mod run;

mod info;

mod serve;

mod status;

mod terminal;

mod why;

mod wording;

/// A proxy for coding agents that pools the accounts you own
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
    Login(login::LogIn),
    Logout(login::LogOut),
    Why(why::Why),
    Quota(quota::ShowQuota),
    Status(status::ShowStatus),
    Info(info::ShowInfo),
    Completions(completions::Completions),
    Man(man::Man),
}

/// The commands by what a person wants, in the order of the help. Those that no line names come last.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Work", &["run", "serve"]),
    ("Accounts", &["profile", "login", "logout", "quota"]),
    ("Look", &["status", "info", "why", "log", "doctor"]),
    ("Set up", &["completions"]),
];

/// The command line as it is parsed and explained.
fn command() -> clap::Command {
    let command = Arguments::command();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}\nOptions: -h, --help; -V, --version. \
         Each command has --help.{{after-help}}",
        groups(&command)
    );
    command.help_template(template)
}

/// The commands in their groups, one line each.
fn groups(command: &clap::Command) -> String {
    let visible = command.get_subcommands().filter(|one| !one.is_hide_set()).map(clap::Command::get_name);
    let mut left: Vec<&str> = visible.collect();
    let mut rows = Vec::new();
    for (at, (title, names)) in GROUPS.into_iter().enumerate() {
        let mut of_group: Vec<&str> = names.iter().copied().filter(|name| left.contains(name)).collect();
        left.retain(|name| !of_group.contains(name));
        if at + 1 == GROUPS.len() {
            of_group.append(&mut left);
        }
        for (line, name) in of_group.into_iter().enumerate() {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let title = if line == 0 { title } else { "" };
            rows.push([title, name, &about.map(ToString::to_string).unwrap_or_default()].map(str::to_owned));
        }
    }
    terminal::columns(&rows)
}

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

    /// The end of a command whose output nobody reads any more.
    fn quiet() -> Self {
        Self::new(Exit::Ok, "")
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
            StoreError::Missing(_)
            | StoreError::Exists(_)
            | StoreError::NotInTrash(_)
            | StoreError::Shared { .. }
            | StoreError::OtherAccount { .. }
            | StoreError::SameAccount { .. }
            | StoreError::NoLogin { .. } => Exit::Failure,
            StoreError::Broken { .. } | StoreError::Credentials { .. } | StoreError::LoggedOut(_) => {
                Exit::NoProfile
            }
            StoreError::Io { .. } | StoreError::Leased(_) => Exit::Environment,
        };
        let failure = Self::of(exit, &error);
        match error {
            // The cause that the system names comes last; what to do depends on it.
            StoreError::Io { .. } | StoreError::Leased(_) => Self {
                message: failure.message + "; `prodex doctor` looks at the home and says more",
                ..failure
            },
            _ => failure,
        }
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        let exit = match &error {
            crate::config::ConfigError::Read { .. } | crate::config::ConfigError::Directory { .. } => {
                Exit::Environment
            }
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
    let parsed = command().try_get_matches().and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe behind `--help` is nobody's failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let result = match arguments.command {
        None => first_step::show(),
        Some(Command::Run(run)) => run.execute(),
        Some(Command::Serve(serve)) => serve.execute(),
        Some(Command::Profile(profiles)) => profiles.execute(),
        Some(Command::Login(login)) => login.execute(),
        Some(Command::Logout(logout)) => logout.execute(),
        Some(Command::Why(why)) => why.execute(),
        Some(Command::Quota(quota)) => quota.execute(),
        Some(Command::Status(status)) => status.execute(),
        Some(Command::Info(info)) => info.execute(),
        Some(Command::Completions(completions)) => completions.execute(command()),
        Some(Command::Man(man)) => man.execute(command()),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                terminal::tell(&failure.message);
            }
            failure.exit.into()
        }
    }
}

/// A runtime on this thread.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| {
        let advice = "see how many files may be open with `ulimit -n`, and try again";
        Failure::new(Exit::Environment, format!("cannot start: {error}; {advice}"))
    })
}

/// Finds the Codex program.
fn require_program(config: &Config) -> Result<PathBuf, Failure> {
    let found = find_program(&config.codex, process_environment("PATH").as_deref());
    found.ok_or_else(|| {
        let advice = "install it with `npm install -g @openai/codex`, or say where it is with --codex";
        Failure::new(Exit::Environment, format!("{} is not installed; {advice}", config.codex.display()))
    })
}

/// The code that a shell would give for this end.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xFF).unwrap_or(1)
}

/// A panic's text could hold what was being worked on; where it happened is enough to find it.
fn hide_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        terminal::tell(format_args!("internal error at {place}; please report it"));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigError;
    use crate::profile::credentials::CredentialsError;
    use crate::profile::refresh::RefreshError;
    use crate::profile::scopes::ScopeError;

    /// Every kind of error that a command can end with, as a person reads it.
    fn errors() -> Vec<String> {
        let path = || PathBuf::from("/h/x");
        let io = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let name = || "a".to_owned();
        let bad = |source| StoreError::Credentials { path: path(), source };
        let store = [
            StoreError::Name(name()),
            StoreError::Missing(name()),
            StoreError::Exists(name()),
            StoreError::LoggedOut(name()),
            StoreError::NotInTrash(name()),
            StoreError::Shared { name: name(), path: path() },
            StoreError::OtherAccount { name: name() },
            StoreError::SameAccount { profile: name() },
            StoreError::Leased(name()),
            StoreError::Io { action: "read", path: path(), source: io() },
            StoreError::Broken { path: path(), problem: "line 1: odd".to_owned() },
            StoreError::NoLogin { path: path(), problem: "there is nothing of that name" },
            bad(CredentialsError::Syntax("line 1, column 2".to_owned())),
            bad(CredentialsError::Empty),
            bad(CredentialsError::Missing("access token")),
            bad(CredentialsError::Unprintable("access token")),
        ];
        let settings = [
            ConfigError::Read { path: path(), source: io() },
            ConfigError::Directory { path: path() },
            ConfigError::NotUtf8 { name: "PRODEX_CODEX" },
            ConfigError::NoHome,
        ];
        let scopes = [
            ScopeError::Broken { path: path(), line: 1, problem: "odd".to_owned() },
            ScopeError::Missing { directory: "/w".to_owned(), profile: name() },
            ScopeError::Directory { path: path(), source: io() },
        ];
        let renewals =
            [RefreshError::NotRenewable, RefreshError::Rejected("code".to_owned()), RefreshError::Foreign];
        let store = store.into_iter().map(|error| Failure::from(error).message);
        let settings = settings.into_iter().map(|error| Failure::from(error).message);
        let scopes = scopes.into_iter().map(|error| Failure::from(error).message);
        store.chain(settings).chain(scopes).chain(renewals.iter().map(ToString::to_string)).collect()
    }

    #[test]
    fn every_error_says_what_to_do_next() {
        let errors = errors();
        // A command in backquotes, a flag, or something else to do behind a semicolon or colon.
        let says = |error: &String| {
            error.contains('`') || error.contains("--") || error.contains("; ") || error.contains(": use")
        };
        for error in &errors {
            assert!(says(error), "{error}");
        }
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn the_command_line_is_consistent_and_its_help_fits_a_screen() {
        command().debug_assert();
        let help = command().term_width(80).render_help().to_string();
        assert!(help.lines().count() <= 24 && help.lines().all(|line| line.chars().count() <= 80), "{help}");
        let (long, short) =
            (command().term_width(80).render_long_help(), command().term_width(80).render_help());
        assert_eq!(long.to_string(), short.to_string());
        for one in command().get_subcommands().filter(|one| !one.is_hide_set()) {
            let name = one.get_name();
            assert!(GROUPS.iter().any(|(_, names)| names.contains(&name)), "{name} has a place in the help");
        }
        insta::assert_snapshot!(help);
    }
}
