//! `prodex quota`: what is left of each account's quota, who says so, and when it comes back.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::serve::{no_profiles, open_state};
use super::terminal::{print, progress, redraw};
use super::{Exit, Failure, Home, runtime};
use crate::config::process_environment;
use crate::control::Control;
use crate::profile::backend::Problem;
use crate::profile::quota::probe::{self, Usage};
use crate::profile::quota::{Measured, Quota};
use crate::profile::refresh::RefreshError;
use crate::profile::store::Store;
use crate::profile::{Kind, Now, Profile};
use crate::server::authority::client_config;
use crate::telemetry::RunLog;

mod table;

/// The version of the JSON: a change that a reader could stumble over raises it.
const JSON_VERSION: u32 = 1;

/// How many profiles are asked about at a time.
const AT_ONCE: usize = 4;

/// Show what is left of each account's quota
///
/// The backend is asked about each ChatGPT login. Where it cannot be, what was last known is
/// shown, marked with `*`. LEFT is what is left of a window; EVIDENCE says who stated it and how
/// long ago: the usage endpoint, a response to a request, or a refusal, which counts most. What is
/// not known is `?`.
///
/// Exit codes: 0 all were asked, 1 some could not be, 2 usage or settings, 3 environment,
/// 4 no profile, 130 interrupted, which is how --watch ends.
///
/// Example: prodex quota
/// Example: prodex quota --profile work --watch 60
/// Example: prodex quota --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ShowQuota {
    /// Show only this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Show limits of single models, too, and profiles without a quota
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Ask again every so many seconds, until Ctrl-C
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "60",
        value_parser = clap::value_parser!(u64).range(5..=86_400)
    )]
    watch: Option<u64>,
    #[command(flatten)]
    home: Home,
}

/// A profile in the list.
#[derive(Debug)]
struct Entry {
    name: String,
    /// None when its files cannot be used.
    kind: Option<Kind>,
    plan: Option<String>,
    quota: Quota,
    asked: Asked,
}

/// A profile to show; for one whose files cannot be used, why.
struct Loaded {
    name: String,
    profile: Result<Arc<Profile>, String>,
}

/// What came of asking the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// It answered.
    Answered(Usage),
    /// It did not; what is the matter, and what to do.
    Failed(String),
    /// There is nothing to ask: an API key has no windows.
    Not,
}

impl ShowQuota {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let config = self.home.config(&Vec::new())?;
        // Before anything is made in the home.
        let store = Store::new(&config.home);
        match &self.profile {
            Some(name) => drop(store.read(name)?),
            None if store.names()?.is_empty() => return Err(no_profiles(&config)),
            None => {}
        }
        let runtime = runtime()?;
        let tls = Arc::new(client_config(config.upstream_ca.as_deref())?);
        let handle = runtime.handle().clone();
        let log = Arc::new(RunLog::none());
        let state = open_state(&config, &log, true)?;
        let control = Arc::new(Control::new(config, state, log, tls, handle));
        runtime.block_on(async {
            let result = tokio::select! {
                result = self.rounds(&control) => result,
                _ = tokio::signal::ctrl_c() => Ok(Exit::Client(130)),
            };
            // A renewal that has begun comes to its end: its answer holds the only good token.
            control.tasks.end(control.config.control_timeout).await;
            control.state.close();
            result
        })
    }

    /// Shows once, or again and again.
    #[expect(clippy::disallowed_methods, reason = "the pause that the person asked for")]
    async fn rounds(&self, control: &Arc<Control>) -> Result<Exit, Failure> {
        let profiles = self.load(control)?;
        loop {
            let entries = ask_all(control, &profiles).await;
            let has_failed = entries.iter().any(|entry| matches!(entry.asked, Asked::Failed(_)));
            self.print(&entries)?;
            let Some(seconds) = self.watch else {
                return Ok(if has_failed { Exit::Failure } else { Exit::Ok });
            };
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            // A proxy beside this may have met a refusal meanwhile.
            control.state.reread().await;
            for profile in profiles.iter().filter_map(|loaded| loaded.profile.as_ref().ok()) {
                profile.recall(&control.state);
            }
        }
    }

    /// The profiles to show.
    fn load(&self, control: &Control) -> Result<Vec<Loaded>, Failure> {
        let store = &control.store;
        let names = match &self.profile {
            Some(name) => vec![store.read(name)?.name],
            None => store.names()?,
        };
        let load = |name: String| {
            let profile = store.read(&name).map(|stored| {
                let profile = Profile::new(&stored.name, stored.credentials);
                profile.recall(&control.state);
                Arc::new(profile)
            });
            Loaded { name, profile: profile.map_err(|error| Failure::from(error).message) }
        };
        let is_shown = |loaded: &Loaded| match &loaded.profile {
            Ok(profile) => self.all || self.profile.is_some() || profile.kind == Kind::Chatgpt,
            Err(_) => true,
        };
        Ok(names.into_iter().map(load).filter(is_shown).collect())
    }

    fn print(&self, entries: &[Entry]) -> Result<(), Failure> {
        let now = Now::read();
        if self.json {
            return print(report(entries, self.all, now));
        }
        let is_plain = process_environment("NO_COLOR").is_some_and(|value| !value.is_empty());
        let table = table::render(entries, self.all, std::io::stdout().is_terminal() && !is_plain, now);
        if self.watch.is_some() { redraw(table) } else { print(table) }
    }
}

/// Asks about all profiles, a few at a time, and says on a terminal how far it is.
async fn ask_all(control: &Arc<Control>, profiles: &[Loaded]) -> Vec<Entry> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    for (at, loaded) in profiles.iter().enumerate() {
        let Some(profile) = loaded.profile.as_ref().ok().filter(|profile| profile.kind == Kind::Chatgpt)
        else {
            continue;
        };
        let (control, profile, permits) = (Arc::clone(control), Arc::clone(profile), Arc::clone(&permits));
        asking.spawn(async move {
            // Closed by nobody.
            let _permit = permits.acquire().await;
            let asked = match probe::ask(&control, &profile).await {
                Ok(usage) => {
                    profile.keep(&control.state);
                    Asked::Answered(usage)
                }
                Err(problem) => Asked::Failed(advice(&problem)),
            };
            (at, asked)
        });
    }
    let count = asking.len();
    let mut asked = vec![Asked::Not; profiles.len()];
    for done in 0..count {
        progress(&format!("asking the backend: {done} of {count}"));
        if let Some(Ok((at, outcome))) = asking.join_next().await {
            asked[at] = outcome;
        }
    }
    progress("");
    profiles.iter().zip(asked).map(|(loaded, asked)| entry(loaded, asked)).collect()
}

fn entry(loaded: &Loaded, asked: Asked) -> Entry {
    let name = loaded.name.clone();
    match &loaded.profile {
        Ok(profile) => {
            let quota = profile.quota().clone();
            let of_login = || profile.credentials().login().and_then(|login| login.plan.clone());
            let plan = quota.plan().map(str::to_owned).or_else(of_login);
            Entry { name, kind: Some(profile.kind), plan, quota, asked }
        }
        Err(problem) => {
            let (quota, asked) = (Quota::default(), Asked::Failed(problem.clone()));
            Entry { name, kind: None, plan: None, quota, asked }
        }
    }
}

/// What is the matter, and what to do about it.
fn advice(problem: &Problem) -> String {
    let advice = match problem {
        // These say it themselves.
        Problem::Login(RefreshError::Rejected(_) | RefreshError::Foreign | RefreshError::NotRenewable) => {
            return problem.to_string();
        }
        Problem::NoLogin | Problem::Unauthorized => "log in again with `prodex login` and its name",
        Problem::Login(RefreshError::Unavailable(_)) | Problem::Unreachable(_) => {
            "check the network, and try again"
        }
        Problem::Status(_) => "try again later",
        Problem::Unusable(_) => "try again later; a newer prodex may know the answer",
    };
    format!("{problem}; {advice}")
}

/// The list as JSON. Times are seconds since the epoch.
fn report(entries: &[Entry], all: bool, now: Now) -> Value {
    let profiles: Vec<Value> = entries.iter().map(|entry| report_of(entry, all, now)).collect();
    json!({ "version": JSON_VERSION, "at": now.unix, "profiles": profiles })
}

fn report_of(entry: &Entry, all: bool, now: Now) -> Value {
    let quota = &entry.quota;
    let windows = quota.windows().iter().filter(|window| all || window.key.limit.is_none());
    let windows: Vec<Value> = windows.map(|window| report_of_window(window, now)).collect();
    let (asked, reached, error) = match &entry.asked {
        Asked::Answered(usage) => ("ok", Some(usage.is_reached), None),
        Asked::Failed(error) => ("failed", None, Some(error)),
        Asked::Not => ("no", None, None),
    };
    json!({
        "name": entry.name,
        "kind": entry.kind.map(Kind::name),
        "plan": entry.plan,
        "asked": asked,
        "error": error,
        "limit_reached": reached,
        "band": quota.band(now).name(),
        "remaining_percent": quota.remaining(now),
        "exhausted_until": quota.exhausted_until(now),
        "windows": windows,
    })
}

fn report_of_window(window: &Measured, now: Now) -> Value {
    let reading = &window.reading;
    let estimate = window.estimate(now);
    let history: Vec<(i64, f64)> = window.history.samples().collect();
    json!({
        "limit": window.key.limit,
        "seconds": window.key.length.seconds(),
        "remaining_percent": window.remaining(now),
        "resets_at": reading.resets_at,
        "source": reading.source.name(),
        "observed_at": reading.observed.unix,
        "band": window.band(now).name(),
        "estimate": estimate.map(|estimate| json!({
            "runs_out_at": estimate.runs_out_at,
            "over_seconds": estimate.over_seconds,
        })),
        "history": history,
    })
}
