//! Which profile serves a request: a pure function of a snapshot.
//!
//! An owner comes first, always: ranking is not asked while there is one that may serve. Without an owner
//! the current profile is kept while it has room, because its prompt cache is warm, and else the best of
//! those that are ready. Only what an upstream said blocks a profile; estimates merely rank.

use std::sync::Arc;

use crate::state::Tie;
use wire::run_event::CircuitOf;

pub mod affinity;

pub mod snapshot;

pub mod ranking;

pub mod trace;

pub use affinity::Owner;
pub use snapshot::{Candidate, Limits, Snapshot, State};

/// What a request needs.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Which kind of call it is.
    pub route: CircuitOf,
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
    /// It is the best of those that are ready, and all of these serve as many requests as they may: the
    /// request waits for a place there.
    Queue,
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
            Self::Queue => "queue",
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
    /// None may be asked: their credentials are not good, or they are paused or out of scope.
    AllBarred,
}

impl NoChoice {
    /// The reason's name in logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoProfiles => "no_profiles",
            Self::Owner(_) => "owner_cannot_serve",
            Self::AllRefused => "all_refused",
            Self::AllBarred => "all_barred",
        }
    }
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

/// The owner, or that nobody may serve; `None` when the conversation may move and should. That it is busy or
/// full, or cannot be reached for the moment, is no reason to.
fn choose_owner(
    snapshot: &Snapshot,
    wanted: &Wanted<'_>,
    owner: &Owner,
    candidate: Candidate<'_>,
) -> Option<Result<Choice, NoChoice>> {
    let state = candidate.state(wanted.route);
    let can_serve = !is_tried(wanted, &candidate) && !state.is_barred();
    let is_another_ready = || snapshot.candidates().any(|other| is_ready(wanted, &other));
    if can_serve && (state.may_be_asked() || !wanted.may_move || !is_another_ready()) {
        return Some(Ok(Choice::of(&candidate, Reason::Affinity(owner.tie))));
    }
    if wanted.may_move { None } else { Some(Err(NoChoice::Owner(Arc::clone(candidate.name())))) }
}

fn choose_fresh(snapshot: &Snapshot, wanted: &Wanted<'_>) -> Result<Choice, NoChoice> {
    let current = snapshot.here.as_ref().or(snapshot.current.as_ref());
    let current = current.and_then(|name| snapshot.get(name));
    if let Some(current) = current.filter(|current| why_not_kept(snapshot, wanted, current).is_none()) {
        return Ok(Choice::of(&current, Reason::Current));
    }
    let ranked = snapshot.candidates().filter_map(|candidate| {
        let state = candidate.state(wanted.route);
        may_serve(wanted, &candidate, state).then(|| (ranking::rank(&candidate, state), candidate))
    });
    if let Some((_, best)) = ranked.min_by_key(|(rank, _)| *rank) {
        if !best.is_full() {
            return Ok(Choice::of(&best, Reason::Ranked));
        }
        // A WebSocket need not be opened for what waits anyway.
        let here = current.filter(|here| snapshot.here.is_some() && is_ready(wanted, here));
        return Ok(Choice::of(&here.unwrap_or(best), Reason::Queue));
    }
    let untried = snapshot.candidates().filter(|candidate| !is_tried(wanted, candidate));
    let returning =
        untried.filter_map(|candidate| Some((candidate.state(wanted.route).returns_at()?, candidate)));
    let first = returning.min_by_key(|(at, candidate)| (candidate.is_full(), *at));
    match first.filter(|(at, _)| wanted.reset.is_none_or(|reset| *at < reset) || wanted.tried.is_empty()) {
        Some((_, candidate)) => Ok(Choice::of(&candidate, Reason::LastResort)),
        None if snapshot.standings.is_empty() => Err(NoChoice::NoProfiles),
        None if snapshot.candidates().all(|candidate| candidate.state(wanted.route).is_barred()) => {
            Err(NoChoice::AllBarred)
        }
        None => Err(NoChoice::AllRefused),
    }
}

impl Choice {
    fn of(candidate: &Candidate<'_>, reason: Reason) -> Self {
        Self { profile: Arc::clone(candidate.name()), reason }
    }
}

fn is_tried(wanted: &Wanted<'_>, candidate: &Candidate<'_>) -> bool {
    wanted.tried.contains(candidate.name())
}

/// Whether it could serve a fresh request, once there is a place.
fn is_ready(wanted: &Wanted<'_>, candidate: &Candidate<'_>) -> bool {
    may_serve(wanted, candidate, candidate.state(wanted.route))
}

/// The same, for whom its state is known.
fn may_serve(wanted: &Wanted<'_>, candidate: &Candidate<'_>, state: State) -> bool {
    state.may_be_asked() && !is_tried(wanted, candidate)
}

/// The reason that all but nothing is left of a profile's quota.
pub const FLOOR: &str = "quota_critical_floor_before_send";

/// Why a fresh request does not stay with a profile though it is the current one. None while nothing is
/// against it that another profile might do better.
#[must_use]
pub fn why_not_kept(
    snapshot: &Snapshot,
    wanted: &Wanted<'_>,
    current: &Candidate<'_>,
) -> Option<&'static str> {
    let is_reached =
        |other: Candidate<'_>| is_ready(wanted, &other) && !other.is_full() && !other.is_unreachable;
    match current.state(wanted.route) {
        _ if is_tried(wanted, current) => Some("refused"),
        State::Ready if current.is_full() => Some("full"),
        State::Ready if current.is_busy() => Some("busy"),
        State::Ready if current.band().is_below_floor() => Some(FLOOR),
        State::Ready if current.is_unreachable && snapshot.candidates().any(is_reached) => {
            Some("unreachable")
        }
        State::Ready => None,
        state => Some(state.name()),
    }
}

#[cfg(test)]
mod tests;
