//! Which profile serves a request: a pure function of a snapshot.
//!
//! An owner comes first, always: ranking is not asked while there is one that may serve. Without an owner
//! the current profile is kept while it has room, because its prompt cache is warm, and else the best of
//! those that are ready. Only what an upstream said blocks a profile; estimates merely rank.

use std::sync::Arc;

use crate::profile::{Now, Pool};
use crate::state::Tie;
use wire::route::Api;

pub mod affinity;

pub mod ranking;

pub use affinity::Owner;
use ranking::{Band, band};

/// Whether a profile can serve now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is known against it.
    Ready,
    /// Its account is used up until a time in seconds since the epoch.
    Exhausted(i64),
    /// Its account refused for another reason a while ago; until a time in seconds since the epoch.
    Backoff(i64),
    /// Its credentials are not good.
    Parked,
}

impl State {
    /// When it may serve again, if that is known.
    pub(crate) fn returns_at(self) -> Option<i64> {
        match self {
            Self::Ready => Some(i64::MIN),
            Self::Exhausted(at) | Self::Backoff(at) => Some(at),
            Self::Parked => None,
        }
    }

    /// The state's name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Exhausted(_) => "exhausted",
            Self::Backoff(_) => "backoff",
            Self::Parked => "parked",
        }
    }
}

/// What is known of a profile at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it can serve.
    pub state: State,
    /// How much of its tightest window is left, in percent.
    pub remaining: Option<f64>,
    /// How many requests it serves.
    pub in_flight: usize,
}

/// What is known of all profiles of one API at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The profiles in their order.
    pub candidates: Vec<Candidate>,
    /// The one that fresh requests stay with.
    pub current: Option<Arc<str>>,
}

impl Snapshot {
    /// Takes a snapshot of the profiles of an API.
    #[must_use]
    pub fn take(pool: &Pool, api: Api, now: Now) -> Self {
        let candidates = pool.of(api).map(|profile| {
            let quota = profile.quota();
            let health = profile.health();
            let backoff = health.backoff(now.instant).map(|left| now.unix + seconds(left));
            let state = if health.parked().is_some() {
                State::Parked
            } else if let Some(until) = quota.exhausted_until(now) {
                State::Exhausted(until)
            } else {
                backoff.map_or(State::Ready, State::Backoff)
            };
            let remaining = quota.remaining(now);
            Candidate { name: Arc::clone(&profile.name), state, remaining, in_flight: profile.in_flight() }
        });
        Self { candidates: candidates.collect(), current: pool.current(api) }
    }

    /// What is known of the profile with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| &*candidate.name == name)
    }
}

/// Whole seconds, the begun one included.
fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX - 1).saturating_add(1)
}

/// What a request needs.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The profile that owns its conversation.
    pub owner: Option<&'a Owner>,
    /// Whether another profile than the owner could serve it.
    pub may_move: bool,
    /// The profiles that have refused it already.
    pub tried: &'a [Arc<str>],
    /// The earliest reset among their refusals.
    pub reset: Option<i64>,
}

/// Why a profile was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It owns the conversation.
    Affinity(Tie),
    /// It served last and has room.
    Current,
    /// It is the best of those that are ready.
    Ranked,
    /// None is ready, and it is the first to be so again: its refusal tells the client when.
    LastResort,
}

impl Reason {
    /// The reason's name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Affinity(tie) => tie.name(),
            Self::Current => "current",
            Self::Ranked => "ranked",
            Self::LastResort => "last_resort",
        }
    }
}

/// A chosen profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Its name.
    pub profile: Arc<str>,
    /// Why it was chosen.
    pub reason: Reason,
}

/// Why none was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoChoice {
    /// There is no profile for this API.
    NoProfiles,
    /// The owner cannot serve, and nobody else could.
    Owner(Arc<str>),
    /// All have refused, or would.
    AllRefused,
    /// None has good credentials.
    AllParked,
}

/// Chooses a profile for a request.
///
/// # Errors
/// When there is none that could be tried.
pub fn choose(snapshot: &Snapshot, wanted: &Wanted<'_>) -> Result<Choice, NoChoice> {
    if let Some(owner) = wanted.owner {
        let choice = match snapshot.get(&owner.profile) {
            Some(candidate) => choose_owner(snapshot, wanted, owner, candidate),
            // It was removed: what only it can read stays unread, and all else goes on.
            None if wanted.may_move => None,
            None => Some(Err(NoChoice::Owner(Arc::clone(&owner.profile)))),
        };
        if let Some(choice) = choice {
            return choice;
        }
    }
    choose_fresh(snapshot, wanted)
}

/// The owner, or that nobody may serve; `None` when the conversation may move and should.
fn choose_owner(
    snapshot: &Snapshot,
    wanted: &Wanted<'_>,
    owner: &Owner,
    candidate: &Candidate,
) -> Option<Result<Choice, NoChoice>> {
    let is_tried = is_tried(wanted, candidate);
    let can_serve = !is_tried && candidate.state != State::Parked;
    let is_another_ready = || snapshot.candidates.iter().any(|other| is_ready(wanted, other));
    if can_serve && (candidate.state == State::Ready || !wanted.may_move || !is_another_ready()) {
        let reason = Reason::Affinity(owner.tie);
        return Some(Ok(Choice { profile: Arc::clone(&candidate.name), reason }));
    }
    if wanted.may_move { None } else { Some(Err(NoChoice::Owner(Arc::clone(&candidate.name)))) }
}

fn choose_fresh(snapshot: &Snapshot, wanted: &Wanted<'_>) -> Result<Choice, NoChoice> {
    let choice = |candidate: &Candidate, reason| Choice { profile: Arc::clone(&candidate.name), reason };
    let current = snapshot.current.as_deref().and_then(|name| snapshot.get(name));
    if let Some(current) = current.filter(|current| is_ready(wanted, current) && has_room(current)) {
        return Ok(choice(current, Reason::Current));
    }
    let ready = snapshot.candidates.iter().filter(|candidate| is_ready(wanted, candidate));
    if let Some(best) = ready.min_by_key(|candidate| ranking::rank(candidate)) {
        return Ok(choice(best, Reason::Ranked));
    }
    let untried = snapshot.candidates.iter().filter(|candidate| !is_tried(wanted, candidate));
    let returning = untried.filter_map(|candidate| Some((candidate.state.returns_at()?, candidate)));
    let first = returning.min_by_key(|(at, _)| *at);
    match first.filter(|(at, _)| wanted.reset.is_none_or(|reset| *at < reset) || wanted.tried.is_empty()) {
        Some((_, candidate)) => Ok(choice(candidate, Reason::LastResort)),
        None if snapshot.candidates.is_empty() => Err(NoChoice::NoProfiles),
        None if wanted.tried.is_empty() => Err(NoChoice::AllParked),
        None => Err(NoChoice::AllRefused),
    }
}

fn is_tried(wanted: &Wanted<'_>, candidate: &Candidate) -> bool {
    wanted.tried.contains(&candidate.name)
}

fn is_ready(wanted: &Wanted<'_>, candidate: &Candidate) -> bool {
    candidate.state == State::Ready && !is_tried(wanted, candidate)
}

fn has_room(candidate: &Candidate) -> bool {
    !matches!(band(candidate.remaining), Band::Critical | Band::Exhausted)
}

#[cfg(test)]
mod tests;
