//! What is known of a quota as it is kept between runs: one JSON object, with a version.
//!
//! Whoever reads one may meet anything: what is not possible is left out, and a record of another version
//! is none.

use serde::{Deserialize, Serialize};

use super::{
    Exhausted, History, Key, LONGEST_RESET, Length, MAX_WINDOWS, Measured, Observed, Quota, Reading, Source,
};
use crate::profile::Now;

/// The version of the shape below.
const VERSION: u32 = 1;

/// A quota to be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exhausted: Option<Refused>,
    /// When the last refusal came that a success showed to be past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lifted_at: Option<i64>,
    #[serde(default)]
    windows: Vec<WindowRecord>,
}

/// Until when an account is used up, and when it said so.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Refused {
    observed_at: i64,
    until: i64,
}

/// A window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct WindowRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<Box<str>>,
    /// Its length; none when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seconds: Option<u64>,
    /// Which of those without a length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<u8>,
    used_percent: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resets_at: Option<i64>,
    source: Source,
    observed_at: i64,
    /// Time and remaining percentage, oldest first.
    #[serde(default)]
    history: Vec<(i64, f64)>,
}

impl Record {
    /// What two processes know of one account, each for itself.
    #[must_use]
    pub fn merge(self, other: Self, now: Now) -> Self {
        let mut merged = Quota::from_record(self, now);
        merged.merge(Quota::from_record(other, now), now);
        merged.to_record()
    }
}

impl Quota {
    /// What should be kept of it.
    #[must_use]
    pub fn to_record(&self) -> Record {
        let window = |held: &Measured| WindowRecord {
            limit: held.key.limit.clone(),
            seconds: held.key.length.seconds(),
            index: match held.key.length {
                Length::Seconds(_) => None,
                Length::Unknown(index) => Some(index),
            },
            used_percent: held.reading.used_percent,
            resets_at: held.reading.resets_at,
            source: held.reading.source,
            observed_at: held.reading.observed.unix,
            history: held.history.samples().collect(),
        };
        Record {
            version: VERSION,
            plan: self.plan.as_deref().map(str::to_owned),
            exhausted: self
                .exhausted
                .map(|exhausted| Refused { observed_at: exhausted.observed.unix, until: exhausted.until }),
            lifted_at: self.lifted,
            windows: self.windows.iter().map(window).collect(),
        }
    }

    /// What a record still says now. Nothing when its version is another.
    #[must_use]
    pub fn from_record(record: Record, now: Now) -> Self {
        let mut quota = Self::default();
        if record.version != VERSION {
            return quota;
        }
        // A clock that was wrong must not make a reading newer than all that follow.
        let observed = |unix: i64| Observed { unix: unix.min(now.unix), instant: None };
        if let Some(plan) = &record.plan {
            quota.set_plan(plan);
        }
        quota.exhausted = record.exhausted.map(|refused| {
            // One of the future was made by a clock that was ahead; how long it was to hold is right.
            let ahead = refused.observed_at.saturating_sub(now.unix).max(0);
            let until = refused.until.saturating_sub(ahead).min(now.unix.saturating_add(LONGEST_RESET));
            Exhausted { observed: observed(refused.observed_at), until }
        });
        quota.lifted = record.lifted_at.map(|at| at.min(now.unix));
        for window in record.windows.into_iter().take(MAX_WINDOWS) {
            let length = match (window.seconds, window.index) {
                (Some(seconds), _) if seconds > 0 => Length::Seconds(seconds),
                (_, index) => Length::Unknown(index.unwrap_or_default()),
            };
            let reading = Reading {
                used_percent: window.used_percent,
                resets_at: window.resets_at,
                source: window.source,
                observed: observed(window.observed_at),
            };
            if !reading.used_percent.is_finite() || !reading.is_current(length, now) {
                continue;
            }
            let key = Key { limit: window.limit, length };
            if let Err(at) = quota.windows.binary_search_by(|held| held.key.cmp(&key)) {
                let history = History::of(window.history, now.unix);
                quota.windows.insert(at, Measured { key, reading, history });
            }
        }
        quota
    }

    /// This with what the record of another process adds to it; none if that is nothing. What is learnt so was
    /// observed when it says, and came here now: no request that began before can lift it.
    #[must_use]
    pub fn learnt(&self, theirs: Record, now: Now) -> Option<Self> {
        let mut learnt = Self::from_record(self.to_record(), now);
        let before = learnt.to_record();
        learnt.merge(Self::from_record(theirs, now), now);
        if learnt.to_record() == before {
            return None;
        }
        let came = |observed: Observed| Observed { instant: Some(now.instant), ..observed };
        for window in &mut learnt.windows {
            let is_same = |ours: &&Measured| {
                let at = |reading: &Reading| Reading { observed: came(reading.observed), ..*reading };
                ours.key == window.key && at(&ours.reading) == at(&window.reading)
            };
            match self.windows.iter().find(is_same) {
                Some(ours) => *window = ours.clone(),
                None => window.reading.observed = came(window.reading.observed),
            }
        }
        let at = |exhausted: Exhausted| Exhausted { observed: came(exhausted.observed), ..exhausted };
        let is_ours = learnt.exhausted.map(at) == self.exhausted.map(at);
        learnt.exhausted = if is_ours { self.exhausted } else { learnt.exhausted.map(at) };
        Some(learnt)
    }

    /// Adds what another process knows, as if one had learnt all of it in the order of time. Both come from
    /// records, so that their times are comparable.
    fn merge(&mut self, other: Self, now: Now) {
        self.lifted = self.lifted.max(other.lifted);
        let lifted = self.lifted;
        let is_past = |observed: Observed| lifted.is_some_and(|lifted| observed.unix <= lifted);
        let refusals = [self.exhausted, other.exhausted].into_iter().flatten();
        let refusals = refusals.filter(|exhausted| !is_past(exhausted.observed));
        self.exhausted = refusals.max_by_key(|exhausted| (exhausted.observed.unix, exhausted.until));
        self.plan = self.plan.take().or(other.plan);
        let (ours, theirs) = (std::mem::take(&mut self.windows), other.windows);
        // Stated by nobody any more since the other one was asked.
        let is_gone = |held: &Measured, beside: &[Measured]| {
            let newer = |it: &Measured| {
                it.key.limit == held.key.limit
                    && it.reading.source >= held.reading.source
                    && it.reading.observed.unix > held.reading.observed.unix
            };
            beside.iter().all(|it| it.key != held.key) && beside.iter().any(newer)
        };
        for (held, beside) in [(&ours, &theirs), (&theirs, &ours)] {
            for window in held.iter().filter(|window| !is_gone(window, beside)) {
                if window.reading.source != Source::Refusal || !is_past(window.reading.observed) {
                    self.add(window.clone(), now);
                }
            }
        }
    }

    fn add(&mut self, window: Measured, now: Now) {
        match self.windows.binary_search_by(|held| held.key.cmp(&window.key)) {
            Ok(at) => {
                let order = |window: &Measured| (window.reading.observed.unix, window.reading.source);
                let held = &mut self.windows[at];
                let is_newer = order(&window) >= order(held);
                let (old, new) = if is_newer { (&*held, &window) } else { (&window, &*held) };
                let then = Now { unix: new.reading.observed.unix, ..now };
                if old.reading.yields_to(&new.reading, window.key.length, then) == is_newer {
                    *held = window;
                }
            }
            Err(at) if self.windows.len() < MAX_WINDOWS => self.windows.insert(at, window),
            Err(_) => {}
        }
    }
}
