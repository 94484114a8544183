//! `prodex profile`: the accounts that are pooled.

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::{Exit, Failure, Home};
use crate::config::{Config, process_environment};
use crate::profile::credentials::{Credentials, Kind};
use crate::profile::import::{Found, Outcome, find, find_bindings, import};
use crate::profile::store::{Store, Stored};
use crate::secret::Secret;
use crate::state;

/// Manage the accounts that are pooled
///
/// Example: prodex profile import
#[derive(Debug, clap::Args)]
pub(super) struct Profiles {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Add),
    List(List),
    Use(Use),
    Import(Import),
    Remove(Remove),
}

/// Add a profile from an auth.json, or with an API key
///
/// Example: prodex profile add work --from ~/.codex/auth.json
#[derive(Debug, clap::Args)]
struct Add {
    /// The name of the new profile
    name: String,
    /// The auth.json to copy [default: that of Codex, in $CODEX_HOME or ~/.codex]
    #[arg(long, value_name = "FILE", conflicts_with = "api_key_stdin")]
    from: Option<PathBuf>,
    /// Read an OpenAI API key from standard input
    #[arg(long)]
    api_key_stdin: bool,
    #[command(flatten)]
    home: Home,
}

/// Show the profiles
///
/// Example: prodex profile list --json
#[derive(Debug, clap::Args)]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: Home,
}

/// Choose the profile that fresh conversations start with
///
/// Example: prodex profile use work
#[derive(Debug, clap::Args)]
struct Use {
    /// The profile
    name: String,
    #[command(flatten)]
    home: Home,
}

/// Take over logins that are on this machine
///
/// Looks in the given places: an auth.json, a directory with one, or the home of an older prodex. Without
/// any it looks where Codex has its login, and in prodex's own home. A newer login of an account that is a
/// profile already takes the place of its old one.
///
/// Example: prodex profile import ~/.codex --dry-run
#[derive(Debug, clap::Args)]
struct Import {
    /// Where to look
    places: Vec<PathBuf>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: Home,
}

/// Move a profile to the trash, where it stays for 30 days
///
/// Example: prodex profile remove work
#[derive(Debug, clap::Args)]
struct Remove {
    /// The profile
    name: String,
    #[command(flatten)]
    home: Home,
}

impl Profiles {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Add(add) => add.execute(),
            Command::List(list) => list.execute(),
            Command::Use(chosen) => chosen.execute(),
            Command::Import(import) => import.execute(),
            Command::Remove(remove) => remove.execute(),
        }
    }
}

fn store(home: &Home) -> Result<Store, Failure> {
    Ok(Store::new(&home.config(&Vec::new())?.home))
}

/// Where Codex keeps its login.
pub(super) fn codex_home() -> Option<PathBuf> {
    let set = |name: &str| process_environment(name).filter(|value| !value.is_empty());
    set("CODEX_HOME").map(PathBuf::from).or_else(|| set("HOME").map(|home| Path::new(&home).join(".codex")))
}

impl Add {
    fn execute(self) -> Result<Exit, Failure> {
        let store = store(&self.home)?;
        let stored = if self.api_key_stdin {
            store.add(&self.name, &Credentials::key_file(&read_key()?), None)?
        } else {
            let path = match self.from {
                Some(path) => path,
                None => codex_home().map(|home| home.join("auth.json")).ok_or_else(|| {
                    Failure::new(
                        Exit::Usage,
                        "there is no home directory; say with --from where the login is",
                    )
                })?,
            };
            let text = std::fs::read_to_string(&path).map_err(|error| {
                let advice = "log in with `codex login`, or say with --from where the login is";
                Failure::new(Exit::Environment, format!("cannot read {}: {error}; {advice}", path.display()))
            })?;
            let path = std::fs::canonicalize(&path).unwrap_or(path);
            store.add(&self.name, &text, Some(&path))?
        };
        println!("added profile {} ({})", stored.name, describe(&stored));
        Ok(Exit::Ok)
    }
}

/// Reads a key from standard input: an argument could be seen by every user of the machine.
fn read_key() -> Result<Secret, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(4096).read_to_string(&mut text);
    read.map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot read a key from standard input: {error}"))
    })?;
    let key = text.trim();
    if key.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no key on standard input"));
    }
    Ok(Secret::new(key))
}

impl List {
    fn execute(self) -> Result<Exit, Failure> {
        let store = store(&self.home)?;
        let current = store.current()?;
        let names = store.names()?;
        let profiles: Vec<(String, Result<Stored, Failure>)> =
            names.into_iter().map(|name| (name.clone(), store.read(&name).map_err(Failure::from))).collect();
        if self.json {
            let rows: Vec<_> =
                profiles.iter().map(|(name, stored)| row(name, stored, current.as_deref())).collect();
            println!("{}", json!({"profiles": rows}));
            return Ok(Exit::Ok);
        }
        if profiles.is_empty() {
            println!("There are no profiles. `prodex profile import` takes over the login that Codex has.");
            return Ok(Exit::Ok);
        }
        let width = profiles.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, stored) in &profiles {
            let mark = if current.as_deref() == Some(name) { '*' } else { ' ' };
            let what = match stored {
                Ok(stored) => describe(stored),
                Err(failure) => format!("cannot be used: {}", failure.message),
            };
            println!("{mark} {name:width$}  {what}");
        }
        Ok(Exit::Ok)
    }
}

fn row(name: &str, stored: &Result<Stored, Failure>, current: Option<&str>) -> serde_json::Value {
    let is_current = current == Some(name);
    match stored {
        Ok(stored) => {
            let login = stored.credentials.login();
            json!({
                "name": name,
                "current": is_current,
                "kind": stored.credentials.kind().name(),
                "account_id": login.map(|login| &login.account_id),
                "email": login.and_then(|login| login.email.as_ref()),
                "plan": login.and_then(|login| login.plan.as_ref()),
                "added": stored.about.added,
                "source": stored.about.source,
            })
        }
        Err(failure) => json!({"name": name, "current": is_current, "error": failure.message}),
    }
}

/// A profile in a few words. Claims of a token are anybody's text: control characters are not shown.
fn describe(stored: &Stored) -> String {
    let kind = stored.credentials.kind();
    let Some(login) = stored.credentials.login() else { return kind.name().to_owned() };
    let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(60).collect::<String>();
    let email = login.email.as_deref().map_or_else(|| format!("account {}", shown(&login.account_id)), shown);
    let plan = login.plan.as_deref().map(|plan| format!(", {}", shown(plan))).unwrap_or_default();
    format!("{} {email}{plan}", Kind::Chatgpt.name())
}

impl Use {
    fn execute(self) -> Result<Exit, Failure> {
        store(&self.home)?.set_current(&self.name)?;
        println!("fresh conversations start with profile {}", self.name);
        Ok(Exit::Ok)
    }
}

impl Import {
    fn execute(self) -> Result<Exit, Failure> {
        let config = self.home.config(&Vec::new())?;
        let store = Store::new(&config.home);
        let mut found = Vec::new();
        if self.places.is_empty() {
            let own = [codex_home(), Some(config.home.clone())];
            for place in own.into_iter().flatten() {
                // Where nothing is there is nothing to take over; the summary says so.
                found.extend(find(&place).unwrap_or_default());
            }
        } else {
            for place in &self.places {
                found.extend(find(place)?);
            }
        }
        let outcomes = import(&store, &found, self.dry_run)?;
        let bindings = self.import_bindings(&config, &outcomes)?;
        if self.json {
            let rows: Vec<_> = outcomes
                .iter()
                .map(|(found, outcome)| json!({"name": found.name, "path": found.path, "result": result(outcome)}))
                .collect();
            println!("{}", json!({"dry_run": self.dry_run, "found": rows, "bindings": bindings}));
        } else {
            self.print(&outcomes, bindings);
        }
        let added = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Added));
        let chosen = added.clone().find(|(found, _)| found.is_current).or_else(|| added.clone().next());
        if let Some((found, _)) =
            chosen.filter(|_| !self.dry_run && store.current().is_ok_and(|current| current.is_none()))
        {
            store.set_current(&found.name)?;
        }
        let has_failed = outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
        Ok(if outcomes.is_empty() || has_failed { Exit::Failure } else { Exit::Ok })
    }

    /// Takes over which account owns which conversation, from the places that say so. Says how many.
    fn import_bindings(&self, config: &Config, outcomes: &[(Found, Outcome)]) -> Result<usize, Failure> {
        let own = [config.home.clone()];
        let places = if self.places.is_empty() { &own[..] } else { &self.places[..] };
        let mut bindings = Vec::new();
        for place in places {
            bindings.extend(find_bindings(place, outcomes)?);
        }
        if bindings.is_empty() || self.dry_run {
            return Ok(bindings.len());
        }
        let imported = state::import(&config.state_directory(), config.state_sync, bindings);
        imported.map_err(|error| Failure::of(Exit::Environment, &error))
    }

    fn print(&self, outcomes: &[(Found, Outcome)], bindings: usize) {
        if outcomes.is_empty() {
            println!("Nothing was found. Log in with `codex login`, or say where the login is.");
        }
        let verb = if self.dry_run { "would add" } else { "added" };
        let renew = if self.dry_run { "would renew" } else { "renewed" };
        for (found, outcome) in outcomes {
            let path = found.path.display();
            match outcome {
                Outcome::Added => println!("{verb} profile {} from {path}", found.name),
                Outcome::Renewed { profile } => {
                    println!("{renew} the login of profile {profile} from {path}");
                }
                Outcome::Known { profile } => {
                    println!("left {path}: its account is profile {profile} already");
                }
                Outcome::Failed(error) => println!("left {path}: {}", crate::control::describe(error)),
            }
        }
        if bindings > 0 {
            let verb = if self.dry_run { "would take over" } else { "took over" };
            println!("{verb} which profile owns which conversation: {bindings} ids");
        }
    }
}

fn result(outcome: &Outcome) -> serde_json::Value {
    match outcome {
        Outcome::Added => json!("added"),
        Outcome::Renewed { profile } => json!({"renewed": profile}),
        Outcome::Known { profile } => json!({"known": profile}),
        Outcome::Failed(error) => json!({"failed": crate::control::describe(error)}),
    }
}

impl Remove {
    fn execute(self) -> Result<Exit, Failure> {
        let trash = store(&self.home)?.remove(&self.name)?;
        println!("removed profile {}; until 30 days from now it is in {}", self.name, trash.display());
        Ok(Exit::Ok)
    }
}
