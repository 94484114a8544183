//! What is known of an account's quota: its windows, each with its evidence, and until when it is used up.
//!
//! Windows are told apart by the limit they belong to and by their length, never by names. Each holds one
//! reading, which says who stated it and when. Nothing here is an estimate: what is not known, or no longer,
//! is unknown, and neither shown nor ranked as a number.
//!
//! Which of two readings of a window counts:
//!
//! - one of a window that has started anew since does not, whoever stated it
//! - of equal sources the newer, and a source of higher rank before one of lower rank
//! - but within a window use only grows: a newer reading that says that more is used counts, whoever states
//!   it, and so does any newer one after [`STALE`], since another client may have been given a reset
//! - a refusal holds until its reset, whatever else is read; only a request that began later and succeeded
//!   shows that it is past
//!
//! Resets are seconds since the epoch. Something is past, or old, when either clock says so: one may have been
//! set, the other stands still while the machine sleeps.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wire::limits::{Limit, Window};
use wire::run_event::{QuotaWindow, Standing};

use super::Now;

pub mod history;

pub mod record;

pub mod probe;

pub use history::{Estimate, History};
pub use record::Record;

/// How long an account counts as used up when the refusal does not say when it comes back.
const UNKNOWN_RESET: i64 = 5 * 60;

/// Longest time that a reset is believed to be away: the longest known window is a week.
const LONGEST_RESET: i64 = 32 * 24 * 3600;

/// How old a reading is that gives way to a newer one of lower rank even if that says that less is used.
pub const STALE: Duration = Duration::from_secs(5 * 60);

/// By how many percentage points more is used when a reading of lower rank says so: the usage endpoint rounds
/// to whole ones.
const ROUNDING: f64 = 1.0;

/// How long a reading counts that says neither when its window resets nor how long that is.
const UNKNOWN_LENGTH: i64 = 3600;

/// Most windows that are kept of one account. Two to six have been seen.
const MAX_WINDOWS: usize = 32;

/// Which window of an account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The limit: none for the account's own, else the id of one of single models or features.
    pub limit: Option<Box<str>>,
    /// Its length.
    pub length: Length,
}

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Length {
    /// So many seconds.
    Seconds(u64),
    /// Not stated: the first, second, … of those without a length that were stated together.
    Unknown(u8),
}

impl Length {
    /// The length as people write it: `5h`, `7d`, `90m`; `?` when it is not known.
    #[must_use]
    pub fn label(self) -> String {
        let Self::Seconds(seconds) = self else { return "?".to_owned() };
        let units = [(24 * 3600, "d"), (3600, "h"), (60, "m")];
        let unit = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
        let (unit, name) = unit.unwrap_or((1, "s"));
        format!("{}{name}", seconds / unit)
    }

    /// The seconds, if they are known.
    #[must_use]
    pub fn seconds(self) -> Option<u64> {
        match self {
            Self::Seconds(seconds) => Some(seconds),
            Self::Unknown(_) => None,
        }
    }
}

/// Who stated something about a quota, in the order of their ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The usage endpoint.
    Usage,
    /// A response to a model call: its headers, or a `codex.rate_limits` event.
    Response,
    /// A refusal.
    Refusal,
}

impl Source {
    /// The source's name in logs and lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Response => "response",
            Self::Refusal => "refusal",
        }
    }
}

impl From<Source> for wire::run_event::Source {
    fn from(source: Source) -> Self {
        match source {
            Source::Usage => Self::Usage,
            Source::Response => Self::Response,
            Source::Refusal => Self::Refusal,
        }
    }
}

/// When something was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// In seconds since the epoch.
    pub unix: i64,
    /// By the monotonic clock; none for what an earlier run observed.
    instant: Option<Instant>,
}

impl Observed {
    fn at(now: Now) -> Self {
        Self { unix: now.unix, instant: Some(now.instant) }
    }

    /// How long ago it was.
    #[must_use]
    pub fn age(self, now: Now) -> Duration {
        match self.instant {
            Some(instant) => now.since(Now { instant, unix: self.unix }),
            None => Duration::from_secs(now.unix.saturating_sub(self.unix).try_into().unwrap_or_default()),
        }
    }

    /// Whether a time that was said then has come, by either clock.
    fn has_come(self, unix: i64, now: Now) -> bool {
        let was_away = u64::try_from(unix.saturating_sub(self.unix)).unwrap_or_default();
        let is_past = |instant: Instant| now.instant.saturating_duration_since(instant).as_secs() >= was_away;
        now.unix >= unix || self.instant.is_some_and(is_past)
    }
}

/// Whether a time that was said then has come, though the wall clock says that it is still away.
fn is_held_back(observed: Observed, unix: i64, now: Now) -> bool {
    unix.saturating_sub(now.unix) > ROUNDED && observed.has_come(unix, now)
}

/// By how many seconds the clocks may differ without one having been set.
const ROUNDED: i64 = 3;

/// How much of a window is used, with its evidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// In percent; may exceed 100.
    pub used_percent: f64,
    /// When the window starts anew, in seconds since the epoch.
    pub resets_at: Option<i64>,
    /// Who stated it.
    pub source: Source,
    /// When.
    pub observed: Observed,
}

impl Reading {
    /// How much is left, in percent.
    #[must_use]
    pub fn remaining(&self) -> f64 {
        (100.0 - self.used_percent).clamp(0.0, 100.0)
    }

    /// Whether the window is still the one that was read. Afterwards nothing is known of it.
    #[must_use]
    pub fn is_current(&self, length: Length, now: Now) -> bool {
        !self.observed.has_come(self.ends_at(length), now)
    }

    /// When the window that was read ends at the latest, in seconds since the epoch.
    fn ends_at(&self, length: Length) -> i64 {
        let end = self.resets_at.unwrap_or_else(|| {
            let length = length.seconds().and_then(|seconds| i64::try_from(seconds).ok());
            self.observed.unix.saturating_add(length.unwrap_or(UNKNOWN_LENGTH))
        });
        end.min(self.observed.unix.saturating_add(LONGEST_RESET))
    }

    /// Whether a newer reading of the same window counts instead of this one.
    fn yields_to(&self, new: &Self, length: Length, now: Now) -> bool {
        if (self.observed, self.source) == (new.observed, new.source) {
            // Two windows of one length, stated together: the tighter one counts.
            return new.used_percent > self.used_percent;
        }
        !self.is_current(length, now)
            || new.source >= self.source
            || self.source < Source::Refusal
                && (new.used_percent >= self.used_percent + ROUNDING || self.observed.age(now) > STALE)
    }
}

/// How much of a window is left, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Band {
    /// More than 15 %.
    Ready,
    /// Nothing is known.
    Unknown,
    /// At most 15 %.
    Thin,
    /// At most 5 %.
    Critical,
    /// Nothing.
    Exhausted,
}

impl Band {
    /// The band of a remaining percentage.
    #[must_use]
    pub fn of(remaining: Option<f64>) -> Self {
        match remaining {
            None => Self::Unknown,
            Some(remaining) if remaining <= 0.0 => Self::Exhausted,
            Some(remaining) if remaining <= 5.0 => Self::Critical,
            Some(remaining) if remaining <= 15.0 => Self::Thin,
            Some(_) => Self::Ready,
        }
    }

    /// Whether so little is left that a fresh request is better sent to another.
    #[must_use]
    pub fn is_below_floor(self) -> bool {
        matches!(self, Self::Critical | Self::Exhausted)
    }

    /// The band's name in logs and lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unknown => "unknown",
            Self::Thin => "thin",
            Self::Critical => "critical",
            Self::Exhausted => "exhausted",
        }
    }
}

/// One window of an account as it is now.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Which.
    pub key: Key,
    /// The reading that counts.
    pub reading: Reading,
    /// How it came to that.
    pub history: History,
}

impl Measured {
    /// How much is left, in percent; none once the window has started anew.
    #[must_use]
    pub fn remaining(&self, now: Now) -> Option<f64> {
        self.reading.is_current(self.key.length, now).then(|| self.reading.remaining())
    }

    fn is_held_back(&self, now: Now) -> bool {
        is_held_back(self.reading.observed, self.reading.ends_at(self.key.length), now)
    }

    /// The window's band.
    #[must_use]
    pub fn band(&self, now: Now) -> Band {
        Band::of(self.remaining(now))
    }

    /// When it will be used up if it goes on like that, should that be before it starts anew.
    #[must_use]
    pub fn estimate(&self, now: Now) -> Option<Estimate> {
        let estimate = self.remaining(now).and_then(|_| self.history.estimate())?;
        (self.reading.resets_at.is_none_or(|reset| estimate.runs_out_at < reset)).then_some(estimate)
    }
}

/// That an account is used up, because a refusal said so.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Which window; none when the refusal does not say.
    pub window: Option<Key>,
    /// Until when, in seconds since the epoch.
    pub until: i64,
    /// How long ago it was said.
    pub age: Duration,
}

/// The quota of one account.
#[derive(Debug, Default, Clone)]
pub struct Quota {
    /// In the order of their keys: the account's own limit first, shorter windows first.
    windows: Vec<Measured>,
    exhausted: Option<Exhausted>,
    /// When the last refusal came that a success showed to be past, in seconds since the epoch.
    lifted: Option<i64>,
    plan: Option<Box<str>>,
}

/// That an account is used up, and when it said so.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Exhausted {
    observed: Observed,
    until: i64,
}

impl Quota {
    /// Says what selection may know of it: the refusal, and the windows of the account's own limit.
    pub fn describe(&self, standing: &mut Standing) {
        standing.exhausted_until = self.exhausted.map(|exhausted| exhausted.until);
        let window = |window: &Measured| QuotaWindow {
            seconds: window.key.length.seconds(),
            remaining: window.reading.remaining(),
            resets_at: Some(window.reading.ends_at(window.key.length)),
            source: window.reading.source.into(),
            observed_at: window.reading.observed.unix,
        };
        standing.windows.clear();
        standing.windows.extend(self.own().map(window));
    }

    /// Takes the windows of the limits that somebody stated. They do not lift what a refusal said.
    pub fn observe(&mut self, limits: &[Limit], source: Source, now: Now) {
        for limit in limits {
            self.observe_limit(limit, source, now);
        }
    }

    /// Takes the windows of the account's own limit.
    pub fn observe_own(&mut self, windows: Vec<Window>, source: Source, now: Now) {
        self.observe_limit(&Limit { id: None, windows }, source, now);
    }

    fn observe_limit(&mut self, limit: &Limit, source: Source, now: Now) {
        if limit.windows.is_empty() {
            return;
        }
        let mut unnamed = 0..=u8::MAX;
        let stated: Vec<(Length, Reading)> = limit
            .windows
            .iter()
            .map(|window| {
                let length = match window.length.map(|length| length.as_secs()) {
                    Some(seconds) if seconds > 0 => Length::Seconds(seconds),
                    _ => Length::Unknown(unnamed.next().unwrap_or_default()),
                };
                // A refusal speaks of the windows that are full; of the others it is a response like any.
                let is_full = window.used_percent >= 100.0;
                let source = if is_full { source } else { source.min(Source::Response) };
                let (resets_at, observed) = (window.resets_at, Observed::at(now));
                (length, Reading { used_percent: window.used_percent, resets_at, source, observed })
            })
            .collect();
        // A window that is not stated any more is one that the account no longer has.
        self.windows.retain(|held| {
            held.key.limit != limit.id
                || held.reading.source > source
                || stated.iter().any(|(length, _)| *length == held.key.length)
        });
        for (length, reading) in stated {
            self.take(Key { limit: limit.id.clone(), length }, reading, now);
        }
    }

    fn take(&mut self, key: Key, reading: Reading, now: Now) {
        match self.windows.binary_search_by(|held| held.key.cmp(&key)) {
            Ok(at) => {
                let held = &mut self.windows[at];
                if held.reading.yields_to(&reading, key.length, now) {
                    held.history.note(&held.reading, &reading);
                    held.reading = reading;
                }
            }
            Err(at) if self.windows.len() < MAX_WINDOWS => {
                let history = History::new(&reading);
                self.windows.insert(at, Measured { key, reading, history });
            }
            Err(_) => {}
        }
    }

    /// Takes the plan that the backend states.
    pub fn set_plan(&mut self, plan: &str) {
        self.plan = Some(plan.chars().filter(|c| !c.is_control()).take(40).collect());
    }

    /// The plan, if the backend has stated it.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }

    /// Takes a refusal: the account is used up until `resets_at`. Says until when it is left out.
    pub fn exhaust(&mut self, resets_at: Option<i64>, now: Now) -> i64 {
        let until = resets_at.filter(|at| *at > now.unix).unwrap_or(now.unix + UNKNOWN_RESET);
        let until = until.min(now.unix + LONGEST_RESET);
        self.exhausted = Some(Exhausted { observed: Observed::at(now), until });
        until
    }

    /// Takes the success of a request that began at `started`: what a refusal had said before that is
    /// past. One that came meanwhile is not: the account may well finish what it had begun. Says whether
    /// anything is past now.
    pub fn serve(&mut self, started: Instant) -> bool {
        let is_later = |observed: Observed| observed.instant.is_some_and(|instant| instant > started);
        let windows = self.windows.iter().map(|held| held.reading);
        let windows = windows.filter(|reading| reading.source == Source::Refusal);
        let refusals = windows.map(|reading| reading.observed);
        let refusals = refusals.chain(self.exhausted.map(|exhausted| exhausted.observed));
        let past = refusals.filter(|observed| !is_later(*observed)).map(|observed| observed.unix).max();
        if past.is_none() {
            return false;
        }
        self.lifted = self.lifted.max(past);
        self.exhausted = self.exhausted.filter(|exhausted| is_later(exhausted.observed));
        self.windows.retain(|held| held.reading.source != Source::Refusal || is_later(held.reading.observed));
        true
    }

    /// Whether selection, which knows the wall clock alone, would hold something against the account that is past:
    /// the clock was set back meanwhile.
    #[must_use]
    pub fn is_held_back(&self, now: Now) -> bool {
        let exhausted = self.exhausted.is_some_and(|it| is_held_back(it.observed, it.until, now));
        exhausted || self.windows.iter().any(|window| window.is_held_back(now))
    }

    /// Forgets what is past by the monotonic clock alone.
    pub fn let_go(&mut self, now: Now) {
        self.exhausted = self.exhausted.filter(|it| !is_held_back(it.observed, it.until, now));
        self.windows.retain(|window| !window.is_held_back(now));
    }

    /// Until when the account is used up, if a refusal said so and that time has not come.
    #[must_use]
    pub fn exhausted_until(&self, now: Now) -> Option<i64> {
        self.exhausted.filter(|it| !it.observed.has_come(it.until, now)).map(|exhausted| exhausted.until)
    }

    /// All windows, the account's own first and shorter ones first.
    #[must_use]
    pub fn windows(&self) -> &[Measured] {
        &self.windows
    }

    /// The windows of the account's own limit, which every request counts against. The others are of
    /// single models or features, and say nothing about the next request.
    fn own(&self) -> impl Iterator<Item = &Measured> {
        self.windows.iter().filter(|window| window.key.limit.is_none())
    }

    /// How much of the tightest window is left, in percent; windows that have started anew since they
    /// were stated do not count. None while nothing is known.
    #[must_use]
    pub fn remaining(&self, now: Now) -> Option<f64> {
        self.own().filter_map(|window| window.remaining(now)).reduce(f64::min)
    }

    /// The account's band: that of its worst window.
    #[must_use]
    pub fn band(&self, now: Now) -> Band {
        if self.exhausted_until(now).is_some() {
            return Band::Exhausted;
        }
        self.own().map(|window| window.band(now)).max().unwrap_or(Band::Unknown)
    }

    /// The refusal that holds. The reset that it names and that of its window are computed at different times.
    #[must_use]
    pub fn refused(&self, now: Now) -> Option<Refused> {
        let refused = self.exhausted.filter(|it| !it.observed.has_come(it.until, now))?;
        let is_near = |at: i64| at.abs_diff(refused.until) <= 60;
        let window = self.own().find(|window| window.reading.resets_at.is_some_and(is_near));
        let (window, age) = (window.map(|window| window.key.clone()), refused.observed.age(now));
        Some(Refused { window, until: refused.until, age })
    }

    /// How long ago the newest evidence was observed, of whatever source.
    #[must_use]
    pub fn age(&self, now: Now) -> Option<Duration> {
        let windows = self.own().map(|window| window.reading.observed);
        let refusal = self.exhausted.map(|exhausted| exhausted.observed);
        windows.chain(refusal).map(|observed| observed.age(now)).min()
    }

    /// Whether nobody has stated anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.exhausted.is_none() && self.lifted.is_none()
    }

    /// Whether a window has started anew since it was stated.
    #[must_use]
    pub fn has_reset(&self, now: Now) -> bool {
        self.own().any(|window| window.remaining(now).is_none())
    }
}

#[cfg(test)]
mod tests;
