//! `prodex profile show`: everything about one profile, and no secret.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use wire::run_event::Standing;

use super::super::serve::open_state;
use super::super::terminal::{at, print, short, shown};
use super::super::wording::{duration, percent};
use super::super::{Exit, Failure, Home};
use crate::admin::client::{Running, running};
use crate::admin::status::Status;
use crate::profile::credentials::{Credentials, Login};
use crate::profile::quota::Length;
use crate::profile::refresh::rejection;
use crate::profile::scopes::Scopes;
use crate::profile::store::{About, Store, StoreError};
use crate::profile::{Now, Profile};
use crate::telemetry::RunLog;

/// The version of the JSON: a change that a reader could stumble over raises it.
const JSON_VERSION: u32 = 1;

/// Show everything about one profile
///
/// Nothing of it is a secret. What is left of its quota is what was known last; `prodex quota` asks anew.
///
/// Example: prodex profile show work --json
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The profile
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: Home,
}

/// What is known of a profile.
struct Known {
    name: String,
    about: About,
    /// Why its credentials cannot be used, if they cannot.
    credentials: Result<Credentials, StoreError>,
    is_current: bool,
    /// With which code its renewal was rejected.
    rejected: Option<String>,
    standing: Standing,
    plan: Option<String>,
    /// The directories that are tied to it, with others or alone.
    scopes: Vec<String>,
    path: PathBuf,
    /// The running proxies that have it, with how many requests it serves in each.
    used_by: Vec<(u32, usize)>,
}

impl Show {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let config = self.home.config(&Vec::new())?;
        let store = Store::new(&config.home);
        let about = store.read_about(&self.name)?;
        let credentials = store.read(&self.name).map(|stored| stored.credentials);
        let mut standing = Standing::new(self.name.as_str().into());
        let (mut rejected, mut plan) = (None, None);
        if let Ok(credentials) = &credentials {
            // A lease that another process has for long says nothing about a rejection.
            rejected = rejection(&store, &self.name, credentials).unwrap_or_default();
            let state = open_state(&config, &Arc::new(RunLog::none()), true)?;
            let profile = Profile::new(&self.name, credentials.clone());
            profile.recall(&state);
            profile.quota().describe(&mut standing);
            profile.health().describe(&mut standing);
            plan = profile.quota().plan().map(str::to_owned);
            state.close();
        }
        let known = Known {
            about,
            is_current: store.current()?.as_deref() == Some(&*self.name),
            rejected,
            standing,
            plan,
            scopes: Scopes::read(&config.home)?.of_profile(&self.name),
            path: config.home.join("profiles").join(&self.name),
            used_by: used_by(&config.home, &self.name),
            credentials,
            name: self.name,
        };
        let now = Now::read();
        if self.json {
            print(known.report(now))?;
        } else {
            print(known.text(now))?;
        }
        Ok(Exit::Ok)
    }
}

/// The running proxies that may use a profile. One that does not answer is named by `prodex status`.
fn used_by(home: &Path, name: &str) -> Vec<(u32, usize)> {
    let in_flight = |running: &Running| {
        let status: Status = running.get_json("/status").ok()?;
        let profile = status.profiles.into_iter().find(|profile| profile.name == name)?;
        (profile.state != "out_of_scope").then_some(profile.in_flight)
    };
    running(home).iter().filter_map(|running| Some((running.pid, in_flight(running)?))).collect()
}

impl Known {
    fn login(&self) -> Option<&Login> {
        self.credentials.as_ref().ok().and_then(Credentials::login)
    }

    fn plan(&self) -> Option<&str> {
        self.plan.as_deref().or_else(|| self.login()?.plan.as_deref())
    }

    fn text(&self, now: Now) -> String {
        let mut text = format!("profile {}\n", self.name);
        let mut line = |key: &str, value: String| text += &format!("  {key:<9} {value}\n");
        match &self.credentials {
            Ok(credentials) => line("kind", credentials.kind().name().to_owned()),
            Err(StoreError::LoggedOut(name)) => {
                line("login", format!("logged out; `prodex login {name}` logs it in again"));
            }
            Err(error) => line("login", format!("cannot be used: {}", crate::control::describe(error))),
        }
        if let Some(login) = self.login() {
            let email = login.email.as_deref().map(|email| format!("{}, ", shown(email))).unwrap_or_default();
            line("account", format!("{email}id {}", shown(&login.account_id)));
            line("plan", self.plan().map_or_else(|| "?".to_owned(), shown));
            line("login", self.login_text(login, now));
        }
        line("added", shown(&self.about.added));
        if let Some(source) = &self.about.source {
            line("from", short(source));
        }
        if self.is_current {
            line("chosen", "fresh conversations start with it".to_owned());
        }
        if let Some(pause) = self.about.pause(jiff::Timestamp::now()) {
            let until = pause.until.map_or_else(|| "it is resumed".to_owned(), at);
            let reason = pause.reason.map(|reason| format!(": {}", shown(&reason))).unwrap_or_default();
            line("paused", format!("until {until}{reason}"));
        }
        if self.about.preferred {
            line("preferred", "to others that are as good".to_owned());
        }
        for window in &self.standing.windows {
            let name =
                window.seconds.map_or_else(|| "?".to_owned(), |seconds| Length::Seconds(seconds).label());
            let resets = window.resets_at.map(|reset| format!(", anew {}", at(reset))).unwrap_or_default();
            let age = duration(now.unix - window.observed_at);
            let source = window.source.name();
            line(
                "quota",
                format!("{} left of {name}{resets} ({source}, {age} ago)", percent(window.remaining)),
            );
        }
        if let Some(until) = self.standing.exhausted_until.filter(|until| *until > now.unix) {
            line("quota", format!("used up until {}", at(until)));
        }
        let open: Vec<_> =
            self.standing.circuits.iter().filter(|open| open.forgotten_at > now.unix).collect();
        for circuit in &open {
            let until = at(circuit.until);
            line("health", format!("{} refused by the account; tried again {until}", circuit.of.name()));
        }
        if open.is_empty() && self.credentials.is_ok() {
            line("health", "nothing is known against it".to_owned());
        }
        for scope in &self.scopes {
            line("scope", format!("may serve {}", short(scope.as_ref())));
        }
        for (pid, in_flight) in &self.used_by {
            line("used by", format!("the proxy with process id {pid}, {in_flight} in flight"));
        }
        line("files", short(&self.path));
        text
    }

    fn login_text(&self, login: &Login, now: Now) -> String {
        let validity = match login.expires_at {
            Some(until) if until <= now.unix => format!("expired {}", at(until)),
            Some(until) => {
                let left = duration(until - now.unix);
                format!("good for {left}, until {}", at(until))
            }
            None => "good until it is refused".to_owned(),
        };
        let name = &self.name;
        match (&self.rejected, &login.refresh_token) {
            (Some(code), _) => {
                format!("{validity}; its renewal was rejected ({code}): `prodex login {name}`")
            }
            (None, Some(_)) => format!("{validity}; renewed by itself"),
            (None, None) => format!("{validity}; cannot be renewed: `prodex login {name}`"),
        }
    }

    fn report(&self, now: Now) -> Value {
        let login = self.login();
        let used_by: Vec<_> =
            self.used_by.iter().map(|(pid, count)| json!({"pid": pid, "in_flight": count})).collect();
        let pause = self.about.pause(jiff::Timestamp::now());
        json!({
            "version": JSON_VERSION,
            "at": now.unix,
            "name": self.name,
            "kind": self.credentials.as_ref().ok().map(|credentials| credentials.kind().name()),
            "error": self.credentials.as_ref().err().map(|error| crate::control::describe(error)),
            "logged_out": matches!(self.credentials, Err(StoreError::LoggedOut(_))),
            "account_id": login.map(|login| &login.account_id),
            "email": login.and_then(|login| login.email.as_ref()),
            "plan": self.plan(),
            "expires_at": login.and_then(|login| login.expires_at),
            "renewable": login.map(|login| login.refresh_token.is_some() && self.rejected.is_none()),
            "renewal_rejected": self.rejected,
            "added": self.about.added,
            "source": self.about.source,
            "current": self.is_current,
            "preferred": self.about.preferred,
            "paused": pause.is_some(),
            "paused_until": pause.as_ref().and_then(|pause| pause.until),
            "paused_reason": pause.and_then(|pause| pause.reason),
            "windows": self.standing.windows,
            "exhausted_until": self.standing.exhausted_until,
            "circuits": self.standing.circuits,
            "scopes": self.scopes,
            "used_by": used_by,
            "path": self.path,
        })
    }
}
