//! `prodex status`: what the proxies of a home are doing, on one screen.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wire::route::Api;

use super::profile::first_profile;
use super::serve::open_state;
use super::terminal::{print, redraw};
use super::{Exit, Failure, Home};
use crate::admin::client::{ClientError, running};
use crate::admin::status::{ProfileStatus, Status, of_profile};
use crate::config::Config;
use crate::profile::Now;
use crate::profile::roster::Roster;
use crate::profile::store::Store;
use crate::selection::Snapshot;
use crate::telemetry::RunLog;

mod screen;

/// The version of the JSON: a change that a reader could stumble over raises it.
const JSON_VERSION: u32 = 1;

/// Show what the running proxies are doing
///
/// For each proxy of the home: what is in flight and who waits, the profiles with what is left of
/// their quota, and who served the last turns. Without one, what is known of the profiles.
///
/// Example: prodex status
/// Example: prodex status --watch
/// Example: prodex status --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ShowStatus {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show it again every so many seconds, until Ctrl-C
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    watch: Option<u64>,
    #[command(flatten)]
    home: Home,
}

/// What there is to show.
struct Report {
    /// The proxies that answered.
    running: Vec<Status>,
    /// Why others did not.
    silent: Vec<String>,
    /// The profiles as the state has them, where no proxy runs.
    profiles: Vec<ProfileStatus>,
    /// Profiles whose files cannot be used, and why.
    broken: Vec<(String, String)>,
    /// How to get a first one.
    first_profile: &'static str,
}

impl ShowStatus {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let config = self.home.config(&Vec::new())?;
        loop {
            let report = Report::take(&config)?;
            match (self.json, self.watch) {
                (true, _) => print(report.json())?,
                (false, Some(_)) => redraw(screen::render(&report, Now::read().unix))?,
                (false, None) => print(screen::render(&report, Now::read().unix))?,
            }
            let Some(seconds) = self.watch else { return Ok(Exit::Ok) };
            pause(Duration::from_secs(seconds));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause that the person asked for")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

impl Report {
    fn take(config: &Config) -> Result<Self, Failure> {
        let (mut all, mut silent) = (Vec::new(), Vec::new());
        for proxy in running(&config.home) {
            match proxy.get_json::<Status>("/status") {
                Ok(status) => all.push(status),
                // It has ended since.
                Err(ClientError::Io { .. }) if running(&config.home).iter().all(|one| *one != proxy) => {}
                Err(error) => silent.push(error.to_string()),
            }
        }
        let mut report =
            Self { running: all, silent, profiles: Vec::new(), broken: Vec::new(), first_profile: "" };
        if report.running.is_empty() {
            report.read_state(config)?;
        }
        Ok(report)
    }

    /// What the home says where nobody runs.
    fn read_state(&mut self, config: &Config) -> Result<(), Failure> {
        let mut roster = Roster::read(&Store::new(&config.home))?;
        let broken = std::mem::take(&mut roster.broken).into_iter();
        self.broken = broken.map(|(name, error)| (name, crate::control::describe(&error))).collect();
        if roster.profiles.is_empty() {
            self.first_profile = first_profile(config);
            return Ok(());
        }
        let pool = roster.pool(config, None);
        let state = open_state(config, &Arc::new(RunLog::none()), true)?;
        for profile in pool.profiles() {
            profile.recall(&state);
        }
        state.close();
        let now = Now::read();
        for api in [Api::Chatgpt, Api::OpenAi] {
            let snapshot = Snapshot::take(&pool, api, now);
            self.profiles
                .extend(pool.of(api).iter().filter_map(|profile| of_profile(profile, &snapshot, now)));
        }
        self.profiles.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(())
    }

    fn json(&self) -> String {
        let broken = self.broken.iter().map(|(name, error)| json!({"name": name, "error": error}));
        let report = json!({
            "version": JSON_VERSION,
            "at": Now::read().unix,
            "running": self.running,
            "silent": self.silent,
            "profiles": self.profiles,
            "broken": broken.collect::<Vec<_>>(),
        });
        format!("{report}\n")
    }
}
