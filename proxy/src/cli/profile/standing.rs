//! `prodex profile pause`, `resume` and `prefer`: what a person says of profiles, and running proxies are told.

use std::time::Duration;

use super::super::terminal::{at, print, shown};
use super::super::{Exit, Failure, Home};
use super::{store, tell_running};
use crate::config::parse_duration;
use crate::profile::store::Pause as Until;

/// Longest reason that is kept.
const MAX_REASON: usize = 200;

/// Serve nothing with a profile until it is resumed
///
/// What it serves now comes to its end. Its tokens are still renewed. Conversations that only it can
/// continue are refused, and told why.
///
/// Example: prodex profile pause work --for 2h --reason "the invoice"
#[derive(Debug, clap::Args)]
pub(super) struct Pause {
    /// The profile
    name: String,
    /// For so long only, such as 30m, 2h or 3d
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Why, for yourself
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    home: Home,
}

/// Let a paused profile serve again
///
/// Example: prodex profile resume work
#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    /// The profile
    name: String,
    #[command(flatten)]
    home: Home,
}

/// Prefer one profile to others that are as good
///
/// It gets fresh conversations while it has room. Conversations stay with who owns them.
///
/// Example: prodex profile prefer work
#[derive(Debug, clap::Args)]
pub(super) struct Prefer {
    /// The profile
    #[arg(required_unless_present = "clear")]
    name: Option<String>,
    /// Prefer none
    #[arg(long, conflicts_with = "name")]
    clear: bool,
    #[command(flatten)]
    home: Home,
}

impl Pause {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let reason = self.reason.map(|reason| shown(reason.trim())).filter(|reason| !reason.is_empty());
        let reason = reason.map(|reason| reason.chars().take(MAX_REASON).collect());
        let now = jiff::Timestamp::now();
        let until =
            self.duration.map(|duration| now.saturating_add(duration).unwrap_or(jiff::Timestamp::MAX));
        let pause = Until { until: until.map(jiff::Timestamp::as_second), reason };
        store(&self.home)?.set_pause(&self.name, Some(&pause))?;
        let name = &self.name;
        let until = match pause.until {
            Some(until) => format!("until {}", at(until)),
            None => format!("until `prodex profile resume {name}`"),
        };
        print(format_args!("profile {name} is paused {until}"))?;
        tell_running(&self.home)
    }
}

impl Resume {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let store = store(&self.home)?;
        let was_paused = store.read_about(&self.name)?.pause(jiff::Timestamp::now()).is_some();
        store.set_pause(&self.name, None)?;
        let said = if was_paused { "serves again" } else { "was not paused" };
        print(format_args!("profile {} {said}", self.name))?;
        tell_running(&self.home)
    }
}

impl Prefer {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        store(&self.home)?.set_preferred(self.name.as_deref())?;
        match &self.name {
            Some(name) => print(format_args!("profile {name} is preferred to others that are as good"))?,
            None => print("no profile is preferred")?,
        }
        tell_running(&self.home)
    }
}
