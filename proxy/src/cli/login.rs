//! `prodex login` and `prodex logout`: an account of its own for a profile, and its parting.

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::profile::{read_key, store, tell_running};
use super::terminal::{print, shown, tell};
use super::{Exit, Failure, Home, exit_code, require_program, runtime};
use crate::config::Config;
use crate::profile::credentials::{Credentials, Kind};
use crate::profile::import::{free_name, suggest_name};
use crate::profile::store::{self as files, LoggedIn, Store, StoreError, is_name};
use crate::secret::Secret;
use crate::supervisor::run_alone;

/// What the home of a login that is under way begins with, and when one is left from a crash.
const STAGING: &str = ".login-";
const STAGING_AGE: Duration = Duration::from_secs(3600);

/// Log in an account, with Codex's own login
///
/// Codex asks for the account in a home of its own, so the login that you use without prodex stays as it is.
/// What comes of it is a new profile, or renews the one that has the account. Everything behind `--` is for
/// `codex login`.
///
/// Example: prodex login work
/// Example: prodex login work -- --device-auth
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct LogIn {
    /// The profile, new or there already [default: as the account's address begins]
    name: Option<String>,
    /// Read an OpenAI API key from standard input instead
    #[arg(long, requires = "name", conflicts_with = "arguments")]
    api_key_stdin: bool,
    /// The Codex program [default: codex]
    #[arg(long, value_name = "PROGRAM")]
    codex: Option<String>,
    /// Arguments for `codex login`
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
    #[command(flatten)]
    home: Home,
}

/// Take the login of a profile away; the profile stays
///
/// The login is kept in the trash for 30 days. The vendor is not told: a session there ends in its own
/// settings.
///
/// Example: prodex logout work
#[derive(Debug, clap::Args)]
pub(super) struct LogOut {
    /// The profile
    name: String,
    #[command(flatten)]
    home: Home,
}

impl LogIn {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let flags = self.codex.clone().map(|codex| ("codex", codex)).into_iter().collect();
        let config = self.home.config(&flags)?;
        let store = Store::new(&config.home);
        if let Some(name) = self.name.as_ref().filter(|name| !is_name(name)) {
            return Err(StoreError::Name(name.clone()).into());
        }
        let asks_codex = !self.api_key_stdin && self.arguments.is_empty();
        if let Some(name) = self.name.as_ref().filter(|name| asks_codex && is_key(&store, name)) {
            let advice = format!("give it another with `prodex login {name} --api-key-stdin < FILE`");
            return Err(Failure::new(Exit::Usage, format!("profile {name} has an API key; {advice}")));
        }
        let auth = if self.api_key_stdin {
            Ok(Secret::new(Credentials::key_file(&read_key()?)))
        } else {
            self.ask_codex(&config)?
        };
        match auth {
            Ok(auth) => self.take_over(&store, &auth),
            Err(exit) => Ok(exit),
        }
    }

    /// Lets Codex log in, in a home of its own that is gone afterwards. The text of its `auth.json`, or how
    /// the command ends without one.
    fn ask_codex(&self, config: &Config) -> Result<Result<Secret, Exit>, Failure> {
        let program = require_program(config)?;
        let staging = Staging::new(&config.home)?;
        let mut arguments = vec!["login".to_owned()];
        arguments.extend(self.arguments.iter().cloned());
        let running = run_alone(&program, &arguments, ("CODEX_HOME", &staging.path));
        let status = runtime()?.block_on(running).map_err(|error| {
            let problem = format!("cannot start {}: {error}", program.display());
            Failure::new(Exit::Environment, format!("{problem}; say with --codex which program it is"))
        })?;
        let path = staging.path.join("auth.json");
        match (exit_code(status), std::fs::read_to_string(&path)) {
            (0, Ok(text)) => Ok(Ok(Secret::new(text))),
            (0, Err(error)) => {
                let problem = format!("Codex left no login behind ({error}), and nothing was changed");
                let advice =
                    "try `prodex login` again, or `prodex profile import FILE` with an auth.json of yours";
                Err(Failure::new(Exit::Failure, format!("{problem}; {advice}")))
            }
            (130 | 129 | 143, _) => Ok(Err(Exit::Client(130))),
            (code, _) => {
                let problem = format!("`codex login` ended with code {code}, and nothing was changed");
                Err(Failure::new(Exit::Failure, format!("{problem}; try `prodex login` again")))
            }
        }
    }

    fn take_over(&self, store: &Store, auth: &Secret) -> Result<Exit, Failure> {
        let credentials = Credentials::parse(auth.expose())
            .map_err(|source| StoreError::Credentials { path: PathBuf::from("the new login"), source })?;
        let owner = store.account_profile(&credentials)?;
        let name = match (&self.name, owner) {
            (Some(name), Some(owner)) if *name != owner && !store.names()?.contains(name) => {
                tell(format_args!("this account is profile {owner} already, which is renewed"));
                owner
            }
            (Some(name), _) => name.clone(),
            (None, Some(owner)) => owner,
            (None, None) => free_name(&suggested(&credentials), &store.names()?),
        };
        let done = match store.log_in(&name, auth.expose())? {
            LoggedIn::Added => "is there now",
            LoggedIn::Renewed => "is logged in again",
        };
        if store.current()?.is_none() {
            store.set_current(&name)?;
        }
        let email = credentials.login().and_then(|login| login.email.as_deref());
        let account = email.map(|email| format!(" ({})", shown(email))).unwrap_or_default();
        print(format_args!(
            "profile {name} {done}{account}\nNext: `prodex run` starts Codex behind the proxy."
        ))?;
        tell_running(&self.home)
    }
}

/// Whether what this profile has, or had until it was logged out, is a key.
fn is_key(store: &Store, name: &str) -> bool {
    let had = || Some(store.read_about(name).ok()?.logged_out?.kind == Kind::OpenAiKey.name());
    match store.read(name) {
        Ok(stored) => stored.credentials.kind() == Kind::OpenAiKey,
        Err(_) => had().unwrap_or_default(),
    }
}

/// A name for an account that has none yet: what stands before the `@`.
fn suggested(credentials: &Credentials) -> String {
    let email = credentials.login().and_then(|login| login.email.as_deref()).unwrap_or_default();
    suggest_name(email.split('@').next().unwrap_or_default())
}

/// The home that Codex logs in to: gone with everything in it when this is dropped.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn new(home: &Path) -> Result<Self, Failure> {
        files::make_directory(home)?;
        files::remove_old(home, STAGING, STAGING_AGE);
        let staging = Self { path: home.join(format!("{STAGING}{}", std::process::id())) };
        // What an earlier process of this number left is nobody's any more.
        let _ = std::fs::remove_dir_all(&staging.path);
        files::make_directory(&staging.path)?;
        // A login in the keyring of the system would not come back to us. The file is Codex's default
        // (openai/codex#5792, October 2025), which an administrator's settings may change.
        files::replace(&staging.path.join("config.toml"), b"cli_auth_credentials_store = \"file\"\n")?;
        Ok(staging)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tell(format_args!("cannot remove {}: {error}; delete it by hand", self.path.display()));
        }
    }
}

impl LogOut {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let store = store(&self.home)?;
        let is_key = is_key(&store, &self.name);
        store.log_out(&self.name)?;
        let name = &self.name;
        print(format_args!(
            "profile {name} is logged out; `prodex login {name}` logs the same account in again, and for 30 days\n\
             `prodex profile restore {name}` brings this login back"
        ))?;
        tell(if is_key {
            "the vendor was not told; the key is good until it is deleted there"
        } else {
            "the vendor was not told; to end the session there, use its own settings (for ChatGPT: Security)"
        });
        tell_running(&self.home)
    }
}
