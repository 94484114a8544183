//! `prodex` alone: what there is on this machine, and the one command to go on with.
//!
//! It never fails: whatever cannot be read is said, and is then what to see to first.

use std::path::PathBuf;

use super::profile::{codex_home, logins};
use super::terminal::{print, short};
use super::{Exit, Failure, Home};
use crate::admin::client::running;
use crate::config::{Config, process_environment};
use crate::control::describe;
use crate::launch::find_program;
use crate::profile::import::keeps_logins_elsewhere;
use crate::profile::store::{Store, StoreError};

/// What was found on this machine.
#[derive(Debug, Default)]
struct Machine {
    /// What is wrong with the settings or the home.
    problem: Option<String>,
    /// Profiles that can be used.
    profiles: Vec<String>,
    /// Profiles that cannot, and what to do about each.
    unusable: Vec<String>,
    /// Logins that could be taken over.
    logins: Vec<PathBuf>,
    /// Whether Codex keeps its login where it is not read.
    is_in_keyring: bool,
    /// Whether the Codex program was found.
    has_client: bool,
    /// The process ids of running proxies.
    running: Vec<u32>,
}

/// Says what there is, and what to do next.
///
/// # Errors
/// When the text cannot be written.
pub(super) fn show() -> Result<Exit, Failure> {
    print(Machine::look().text())?;
    Ok(Exit::Ok)
}

impl Machine {
    fn look() -> Self {
        let mut machine = Self::default();
        match Home::default().config(&Vec::new()) {
            Ok(config) => machine.look_into(&config),
            Err(failure) => machine.problem = Some(failure.message),
        }
        machine
    }

    fn look_into(&mut self, config: &Config) {
        let store = Store::new(&config.home);
        match store.names() {
            Ok(names) => names.iter().for_each(|name| match store.read(name) {
                Ok(_) => self.profiles.push(name.clone()),
                Err(error @ StoreError::LoggedOut(_)) => self.unusable.push(error.to_string()),
                Err(error) => self.unusable.push(format!("profile {name}: {}", describe(&error))),
            }),
            Err(error) => self.problem = Some(describe(&error)),
        }
        self.logins = logins(config);
        self.is_in_keyring = codex_home().is_some_and(|home| keeps_logins_elsewhere(&home));
        self.running = running(&config.home).into_iter().map(|running| running.pid).collect();
        self.has_client = find_program(&config.codex, process_environment("PATH").as_deref()).is_some();
    }

    fn text(&self) -> String {
        let (found, steps) = match (&self.problem, self.profiles.len()) {
            (Some(problem), _) => (problem.clone(), vec![("prodex --help", "show all commands")]),
            (None, 0) => self.without_profiles(),
            (None, _) => self.with_profiles(),
        };
        let mut text =
            format!("prodex pools the accounts you own behind one local proxy for Codex.\n\n{found}\n\n");
        let width = steps.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
        for (command, what) in steps {
            text += &format!("  {command:width$}   {what}\n");
        }
        if !self.has_client && self.problem.is_none() {
            text += "\nCodex is not installed here: `npm install -g @openai/codex`\n";
        }
        text + "\n`prodex --help` shows all commands.\n"
    }

    fn without_profiles(&self) -> (String, Vec<(&'static str, &'static str)>) {
        if let Some(first) = self.unusable.first() {
            let steps = vec![("prodex profile list", "see what is wrong with each")];
            return (format!("No profile can be used:\n{first}"), steps);
        }
        let run = ("prodex run", "then: Codex behind the proxy");
        match self.logins.as_slice() {
            [] if self.is_in_keyring => {
                let found = "There are no profiles yet. Codex keeps its login in the keyring of the system.";
                (found.to_owned(), vec![("prodex login", "log in an account"), run])
            }
            [] => {
                let found = "There are no profiles yet, and no login of Codex was found on this machine.";
                (found.to_owned(), vec![("prodex login", "log in an account"), run])
            }
            [login] => {
                let found = format!("There are no profiles yet. There is a login: {}", short(login));
                (found, vec![("prodex profile import", "take it over"), run])
            }
            [first, more @ ..] => {
                let found = format!(
                    "There are no profiles yet. There are {} logins: {} and {} more",
                    more.len() + 1,
                    short(first),
                    more.len()
                );
                (found, vec![("prodex profile import", "see them, and take them over"), run])
            }
        }
    }

    fn with_profiles(&self) -> (String, Vec<(&'static str, &'static str)>) {
        let mut found = match self.profiles.as_slice() {
            [only] => format!("There is one profile: {only}."),
            some => format!("There are {} profiles: {}.", some.len(), listed(some)),
        };
        for problem in &self.unusable {
            found += &format!("\nOne cannot be used:\n{problem}");
        }
        if let Some(pid) = self.running.first() {
            found += &format!("\nA proxy runs, with process id {pid}.");
        }
        let mut steps =
            vec![("prodex run", "Codex behind the proxy"), ("prodex quota", "what is left of each account")];
        if self.profiles.len() == 1 {
            steps.push(("prodex login", "add another account"));
        }
        (found, steps)
    }
}

/// The first few of some names.
fn listed(names: &[String]) -> String {
    match names {
        [one, two, three, _, _, ..] => format!("{one}, {two}, {three} and {} more", names.len() - 3),
        some => some.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_a_next_command() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<PathBuf>>();
        let installed = || Machine { has_client: true, ..Machine::default() };
        let machines = [
            Machine::default(),
            Machine { is_in_keyring: true, ..installed() },
            Machine { logins: paths(&["/h/.codex/auth.json"]), ..installed() },
            Machine { logins: paths(&["/h/.codex/auth.json", "/b", "/c"]), ..installed() },
            Machine {
                unusable: names(&["profile \"a\" has no login; `prodex login a` logs it in again"]),
                ..installed()
            },
            Machine { profiles: names(&["a"]), ..installed() },
            Machine { profiles: names(&["a", "b"]), running: vec![7], ..installed() },
            Machine {
                profiles: names(&["a", "b", "c", "d", "e"]),
                unusable: names(&["profile x: gone"]),
                ..installed()
            },
            Machine { problem: Some("/h/prodex.toml:1: unknown setting `x`".to_owned()), ..installed() },
        ];
        let texts: Vec<String> = machines.iter().map(Machine::text).collect();
        for text in &texts {
            assert!(
                text.contains("  prodex ") && text.lines().all(|line| line.chars().count() <= 80),
                "{text}"
            );
        }
        insta::assert_snapshot!(texts.join("----\n"));
    }
}
