//! `prodex profile`: the accounts that are pooled.

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::terminal::{self, print, shown};
use super::{Exit, Failure, Home};
use crate::admin::client::reload;
use crate::config::process_environment;
use crate::profile::credentials::{Credentials, Kind};
use crate::profile::scopes::Scopes;
use crate::profile::store::{About, Store, StoreError, Stored};
use crate::secret::Secret;

mod import;

mod scope;

mod show;

mod standing;

pub(super) use import::{first_profile, logins};

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
    Import(import::Import),
    Add(Add),
    List(List),
    Show(show::Show),
    Use(Use),
    Pause(standing::Pause),
    Resume(standing::Resume),
    Prefer(standing::Prefer),
    Export(Export),
    Remove(Remove),
    Restore(Restore),
    Scope(scope::ScopeOf),
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

/// Write the auth.json of a profile to a new file, for yourself
///
/// The file is a login: whoever has it can use the account. It is made readable for you alone, and a file
/// that is there already is not replaced. A ChatGPT login is good for one renewal: when the profile is
/// renewed here, the copy is worth nothing in an hour or so, and the other way round.
///
/// Example: prodex profile export work ~/work-auth.json
#[derive(Debug, clap::Args)]
struct Export {
    /// The profile
    name: String,
    /// The new file
    file: PathBuf,
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

/// Take back what was removed or logged out in the last 30 days
///
/// Example: prodex profile restore work
#[derive(Debug, clap::Args)]
struct Restore {
    /// The profile
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Show what can be taken back
    #[arg(long, conflicts_with = "name")]
    list: bool,
    /// Print JSON
    #[arg(long, requires = "list")]
    json: bool,
    #[command(flatten)]
    home: Home,
}

impl Profiles {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Import(import) => import.execute(),
            Command::Add(add) => add.execute(),
            Command::List(list) => list.execute(),
            Command::Show(show) => show.execute(),
            Command::Use(chosen) => chosen.execute(),
            Command::Pause(pause) => pause.execute(),
            Command::Resume(resume) => resume.execute(),
            Command::Prefer(prefer) => prefer.execute(),
            Command::Export(export) => export.execute(),
            Command::Remove(remove) => remove.execute(),
            Command::Restore(restore) => restore.execute(),
            Command::Scope(scope) => scope.execute(),
        }
    }
}

pub(super) fn store(home: &Home) -> Result<Store, Failure> {
    Ok(Store::new(&home.config(&Vec::new())?.home))
}

/// Tells the running proxies of the home what is new. One that cannot be told is named: it goes on with
/// what it knows.
pub(super) fn tell_running(home: &Home) -> Result<Exit, Failure> {
    for (running, changed) in reload(&home.config(&Vec::new())?.home) {
        match changed {
            Ok(changes) => {
                for (name, problem) in changes["failed"].as_array().into_iter().flatten().filter_map(failed) {
                    let pid = running.pid;
                    terminal::tell(format_args!(
                        "the proxy with process id {pid} left profile {name}: {problem}"
                    ));
                }
            }
            Err(error) => terminal::tell(format_args!("{error}; start it anew to have it know")),
        }
    }
    Ok(Exit::Ok)
}

/// A profile that a reload left as it was, and why.
fn failed(pair: &serde_json::Value) -> Option<(&str, &str)> {
    Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?))
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
                let advice = "`prodex login` logs in, and --from says where a login is";
                Failure::new(Exit::Environment, format!("cannot read {}: {error}; {advice}", path.display()))
            })?;
            let path = std::fs::canonicalize(&path).unwrap_or(path);
            store.add(&self.name, &text, Some(&path))?
        };
        print(format_args!("added profile {} ({})", stored.name, describe(&stored.credentials)))?;
        tell_running(&self.home)
    }
}

/// Reads a key from standard input: an argument could be seen by every user of the machine.
pub(super) fn read_key() -> Result<Secret, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(4096).read_to_string(&mut text);
    read.map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot read a key from standard input: {error}"))
    })?;
    let key = text.trim();
    if key.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "there is no key on standard input; pass it as in `prodex login NAME --api-key-stdin < FILE`",
        ));
    }
    Ok(Secret::new(key))
}

impl List {
    fn execute(self) -> Result<Exit, Failure> {
        let config = self.home.config(&Vec::new())?;
        let store = Store::new(&config.home);
        let current = store.current()?;
        let names = store.names()?;
        let profiles: Vec<(String, Result<Stored, StoreError>)> =
            names.into_iter().map(|name| (name.clone(), store.read(&name))).collect();
        if self.json {
            let rows: Vec<_> =
                profiles.iter().map(|(name, stored)| row(name, stored, current.as_deref())).collect();
            print(json!({"version": 1, "profiles": rows}))?;
            return Ok(Exit::Ok);
        }
        if profiles.is_empty() {
            print(format_args!("There are no profiles; {}.", first_profile(&config)))?;
            return Ok(Exit::Ok);
        }
        let rows = profiles.iter().map(|(name, stored)| {
            let mark = if current.as_deref() == Some(name) { '*' } else { ' ' };
            let what = match stored {
                Ok(stored) => format!("{}{}", describe(&stored.credentials), said(&stored.about)),
                Err(StoreError::LoggedOut(_)) => {
                    format!("logged out; `prodex login {name}` logs it in again")
                }
                Err(error) => format!("cannot be used: {}", crate::control::describe(error)),
            };
            [format!("{mark} {name}"), what]
        });
        print(terminal::columns(&rows.collect::<Vec<_>>()))?;
        Ok(Exit::Ok)
    }
}

fn row(name: &str, stored: &Result<Stored, StoreError>, current: Option<&str>) -> serde_json::Value {
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
                "paused": stored.about.pause(jiff::Timestamp::now()).is_some(),
                "preferred": stored.about.preferred,
                "added": stored.about.added,
                "source": stored.about.source,
            })
        }
        Err(error) => json!({
            "name": name,
            "current": is_current,
            "logged_out": matches!(error, StoreError::LoggedOut(_)),
            "error": crate::control::describe(error),
        }),
    }
}

/// What its person says of a profile, in a few words.
fn said(about: &About) -> String {
    let mut said = String::new();
    if about.preferred {
        said += ", preferred";
    }
    if let Some(pause) = about.pause(jiff::Timestamp::now()) {
        let until = pause.until.map(|until| format!(" until {}", terminal::at(until))).unwrap_or_default();
        let reason = pause.reason.map(|reason| format!(" ({})", shown(&reason))).unwrap_or_default();
        said += &format!(", paused{until}{reason}");
    }
    said
}

/// An account in a few words.
fn describe(credentials: &Credentials) -> String {
    let Some(login) = credentials.login() else { return credentials.kind().name().to_owned() };
    let email = login.email.as_deref().map_or_else(|| format!("account {}", shown(&login.account_id)), shown);
    let plan = login.plan.as_deref().map(|plan| format!(", {}", shown(plan))).unwrap_or_default();
    format!("{} {email}{plan}", Kind::Chatgpt.name())
}

impl Use {
    fn execute(self) -> Result<Exit, Failure> {
        store(&self.home)?.set_current(&self.name)?;
        print(format_args!("fresh conversations start with profile {}", self.name))?;
        tell_running(&self.home)
    }
}

impl Export {
    fn execute(self) -> Result<Exit, Failure> {
        let exported = store(&self.home)?.export(&self.name, &self.file);
        exported.map_err(|error| match &error {
            StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
                let problem = format!("{} is there already, and is not replaced", self.file.display());
                Failure::new(Exit::Failure, format!("{problem}; name a file that is not there yet"))
            }
            _ => Failure::from(error),
        })?;
        print(format_args!("wrote the login of profile {} to {}", self.name, self.file.display()))?;
        terminal::tell(
            "whoever has this file can use the account; delete it when it has served. Do not use it beside \
             this profile: the first of the two that renews it ends the other's",
        );
        Ok(Exit::Ok)
    }
}

impl Remove {
    fn execute(self) -> Result<Exit, Failure> {
        let config = self.home.config(&Vec::new())?;
        let trash = Store::new(&config.home).remove(&self.name)?;
        let name = &self.name;
        print(format_args!(
            "removed profile {name}; for 30 days `prodex profile restore {name}` brings it back from {}",
            trash.display()
        ))?;
        for scope in Scopes::read(&config.home)?.of_profile(name) {
            terminal::tell(format_args!(
                "{scope} is tied to it: what runs there is refused until it is back, or `prodex profile scope \
                 {scope} --only NAMES` names others"
            ));
        }
        tell_running(&self.home)
    }
}

impl Restore {
    fn execute(self) -> Result<Exit, Failure> {
        let store = store(&self.home)?;
        let Some(name) = &self.name else {
            print(self.list(&store)?)?;
            return Ok(Exit::Ok);
        };
        let trashed = store.restore(name)?;
        let what = if trashed.is_login { "the login of profile" } else { "profile" };
        print(format_args!("{what} {name} is back"))?;
        tell_running(&self.home)
    }

    fn list(&self, store: &Store) -> Result<String, Failure> {
        let trash = store.trash()?;
        if self.json {
            let rows = trash.iter().map(|one| {
                json!({
                    "name": one.name,
                    "what": if one.is_login { "login" } else { "profile" },
                    "removed_at": one.at.as_second(),
                    "until": one.until().as_second(),
                    "path": one.path,
                })
            });
            return Ok(json!({"version": 1, "trash": rows.collect::<Vec<_>>()}).to_string());
        }
        if trash.is_empty() {
            return Ok("The trash is empty. `prodex profile remove` puts profiles there.".to_owned());
        }
        let rows = trash.iter().map(|one| {
            let what = if one.is_login { "login" } else { "profile" };
            [what.to_owned(), one.name.clone(), format!("until {}", terminal::at(one.until().as_second()))]
        });
        Ok(terminal::columns(&rows.collect::<Vec<_>>()))
    }
}
