//! The public part of a profile: `profile.toml`, with what its person says of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wire::run_event::Standing;

use super::{LoggedOut, StoreError};

/// The public part of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// When it was added, RFC 3339.
    pub added: String,
    /// The file that its credentials were copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// Whose login it had, if it is logged out: only the same account may come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged_out: Option<LoggedOut>,
    /// Whether its person has paused it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Until when it is paused, RFC 3339; without it, until it is resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<String>,
    /// Why it is paused, in its person's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<String>,
    /// Whether its person prefers it to others that are as good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preferred: bool,
}

/// That a profile is paused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pause {
    /// Until when, in seconds since the epoch; without it, until it is resumed.
    pub until: Option<i64>,
    /// Why, in its person's words.
    pub reason: Option<String>,
}

impl About {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let about: Self = toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
            format!("line {}: {}", before.matches('\n').count() + 1, error.message())
        })?;
        let until = about.paused_until.as_deref();
        if let Some(until) = until.filter(|until| until.parse::<jiff::Timestamp>().is_err()) {
            return Err(format!("paused_until = {until:?} is no time such as 2026-01-31T18:00:00Z"));
        }
        if !about.paused && (until.is_some() || about.paused_reason.is_some()) {
            return Err("paused_until and paused_reason need paused = true".to_owned());
        }
        Ok(about)
    }

    pub(super) fn to_text(&self, path: &Path) -> Result<String, StoreError> {
        let broken = |error: toml::ser::Error| {
            let (path, problem) = (path.to_owned(), error.to_string());
            StoreError::Broken { path, problem }
        };
        toml::to_string(self).map_err(broken)
    }

    /// The pause, if there is one that is not over.
    #[must_use]
    pub fn pause(&self, now: jiff::Timestamp) -> Option<Pause> {
        let until = self.paused_until.as_deref().and_then(|until| until.parse::<jiff::Timestamp>().ok());
        let is_paused = self.paused && until.is_none_or(|until| until > now);
        let until = until.map(jiff::Timestamp::as_second);
        is_paused.then(|| Pause { until, reason: self.paused_reason.clone() })
    }

    /// Says what selection may know of it.
    pub fn describe(&self, standing: &mut Standing) {
        let until = |until: &str| until.parse().ok().map(jiff::Timestamp::as_second);
        standing.is_paused = self.paused;
        standing.paused_until = self.paused_until.as_deref().and_then(until);
        standing.is_preferred = self.preferred;
    }
}

/// A time as it stands in the file.
pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_makes_no_sense_is_told() {
        for (text, part) in [
            ("paused = true\npaused_until = 'soon'", "is no time such as"),
            ("paused_reason = 'x'", "need paused = true"),
        ] {
            let problem = About::parse(&format!("added = 'x'\n{text}")).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
