//! `--what-if`: one thing that could have been different when a profile was chosen.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use wire::run_event::{QuotaWindow, Source, Standing};

use super::history::{History, Outcome};
use crate::cli::{Exit, Failure};

/// How long an account that is made to be used up is so.
const HOUR: i64 = 3600;

/// Something that is made different.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WhatIf {
    profile: String,
    change: Change,
}

#[derive(Debug, Clone, PartialEq)]
enum Change {
    Pause,
    Exhausted,
    Remaining(f64),
}

impl FromStr for WhatIf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it is pause=NAME, exhausted=NAME or remaining=NAME:PERCENT".to_owned();
        let (what, of) = text.split_once('=').ok_or_else(wrong)?;
        let (profile, change) = match what {
            "pause" => (of, Change::Pause),
            "exhausted" => (of, Change::Exhausted),
            "remaining" => {
                let (profile, percent) = of.rsplit_once(':').ok_or_else(wrong)?;
                let percent = percent.trim_end_matches('%').parse().ok();
                let percent = percent.filter(|percent: &f64| (0.0..=100.0).contains(percent));
                (profile, Change::Remaining(percent.ok_or("the percentage is a number from 0 to 100")?))
            }
            _ => return Err(wrong()),
        };
        Ok(Self { profile: profile.to_owned(), change })
    }
}

impl fmt::Display for WhatIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profile = &self.profile;
        match self.change {
            Change::Pause => write!(f, "{profile} had been paused"),
            Change::Exhausted => write!(f, "{profile} had been used up"),
            Change::Remaining(percent) => write!(f, "{profile} had had {percent} % left"),
        }
    }
}

impl WhatIf {
    fn apply(&self, standing: &mut Standing, at: i64) {
        match self.change {
            Change::Pause => (standing.is_paused, standing.paused_until) = (true, None),
            Change::Exhausted => standing.exhausted_until = Some(at + HOUR),
            Change::Remaining(remaining) => {
                let (source, observed_at) = (Source::Estimate, at);
                let window = QuotaWindow { seconds: None, remaining, resets_at: None, source, observed_at };
                standing.windows = vec![window];
            }
        }
    }
}

/// What would have been chosen first, if anything had been different.
pub(super) fn ask(history: &History, changes: &[WhatIf]) -> Result<Option<Outcome>, Failure> {
    let Some(decision) = history.decisions.first().filter(|_| !changes.is_empty()) else { return Ok(None) };
    let mut snapshot = decision.snapshot.clone();
    let standings = Arc::make_mut(&mut snapshot.standings);
    for change in changes {
        let Some(standing) = standings.iter_mut().find(|standing| *standing.name == *change.profile) else {
            let names: Vec<&str> = standings.iter().map(|standing| &*standing.name).collect();
            let problem = format!("there was no profile `{}` to choose", change.profile);
            return Err(Failure::new(Exit::Usage, format!("{problem}; there were: {}", names.join(", "))));
        };
        change.apply(Arc::make_mut(standing), snapshot.at);
    }
    Ok(Some(decision.remake(&snapshot)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_or_told_how_it_is_written() {
        let read = |text: &str| text.parse::<WhatIf>().map(|change| change.to_string());
        assert_eq!(read("pause=work"), Ok("work had been paused".to_owned()));
        assert_eq!(read("remaining=a:b:12.5%"), Ok("a:b had had 12.5 % left".to_owned()));
        for text in ["work", "pause", "stop=work", "remaining=work"] {
            assert!(read(text).unwrap_err().starts_with("it is pause=NAME"), "{text}");
        }
        for percent in ["-1", "101", "NaN", "much"] {
            assert!(read(&format!("remaining=work:{percent}")).is_err(), "{percent}");
        }
    }
}
