//! What is known of all profiles of an API at one moment: everything that a choice is made from.

use std::sync::Arc;

use wire::route::Api;
use wire::run_event::{CircuitOf, OpenCircuit, QuotaWindow, Standing};

use crate::profile::board::{Standings, View};
use crate::profile::quota::Band;
use crate::profile::{Now, Pool};

/// Whether a profile can serve calls of a kind now. Times are seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is known against it.
    Ready,
    /// It refused a while ago; one request may try whether it serves again.
    HalfOpen,
    /// A request is trying whether it serves again.
    Probing,
    /// Its account is used up until a time.
    Exhausted(i64),
    /// Its account refused for another reason a while ago; until a time.
    Backoff(i64),
    /// Its credentials are not good.
    Parked,
    /// Its person has paused it.
    Paused,
    /// This run may not use it.
    OutOfScope,
}

impl State {
    /// Whether it may be asked without knowing that it would refuse.
    #[must_use]
    pub fn may_be_asked(self) -> bool {
        matches!(self, Self::Ready | Self::HalfOpen)
    }

    /// Whether it is never asked, whatever happens to the others.
    #[must_use]
    pub fn is_barred(self) -> bool {
        matches!(self, Self::Parked | Self::Paused | Self::OutOfScope)
    }

    /// When it may serve again, if that is known.
    #[must_use]
    pub fn returns_at(self) -> Option<i64> {
        match self {
            Self::Ready | Self::HalfOpen | Self::Probing => Some(i64::MIN),
            Self::Exhausted(at) | Self::Backoff(at) => Some(at),
            Self::Parked | Self::Paused | Self::OutOfScope => None,
        }
    }

    /// The state's name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::HalfOpen => "half_open",
            Self::Probing => "probing",
            Self::Exhausted(_) => "exhausted",
            Self::Backoff(_) => "backoff",
            Self::Parked => "parked",
            Self::Paused => "paused",
            Self::OutOfScope => "out_of_scope",
        }
    }
}

/// How many requests in flight a profile may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From so many on others are better.
    pub soft: usize,
    /// From so many on no fresh request is sent to it while another has room, and its own wait.
    pub hard: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { soft: usize::MAX, hard: usize::MAX }
    }
}

/// What is known of all profiles of one API at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The moment, in seconds since the epoch.
    pub at: i64,
    /// What is known of each, in their order.
    pub standings: Standings,
    /// How many requests each serves; none where there is no number.
    pub in_flight: Vec<usize>,
    /// The one that fresh requests stay with.
    pub current: Option<Arc<str>>,
    /// The one that this request stays with instead: on a WebSocket, the one that it leads to.
    pub here: Option<Arc<str>>,
    /// How many requests each may serve.
    pub limits: Limits,
    /// Those whose upstream cannot be reached now.
    pub unreachable: Vec<Arc<str>>,
}

impl Snapshot {
    /// A snapshot of these profiles, of which none serves a request.
    #[must_use]
    pub fn new(at: i64, standings: Vec<Standing>, current: Option<Arc<str>>) -> Self {
        Self {
            at,
            standings: Arc::new(standings.into_iter().map(Arc::new).collect()),
            in_flight: Vec::new(),
            current,
            here: None,
            limits: Limits::default(),
            unreachable: Vec::new(),
        }
    }

    /// Takes a snapshot of the profiles of an API.
    #[must_use]
    pub fn take(pool: &Pool, api: Api, now: Now) -> Self {
        let View { standings, members, current } = pool.board(api).read();
        let in_flight = members.iter().map(|profile| profile.in_flight()).collect();
        let (limits, unreachable) = (Limits::default(), Vec::new());
        Self { at: now.unix, standings, in_flight, current, here: None, limits, unreachable }
    }

    /// What is known of each profile.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        (0..self.standings.len()).map(|at| self.candidate(at))
    }

    /// What is known of the profile with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Candidate<'_>> {
        let at = self.standings.iter().position(|standing| &*standing.name == name)?;
        Some(self.candidate(at))
    }

    fn candidate(&self, at: usize) -> Candidate<'_> {
        let standing = &*self.standings[at];
        let is_unreachable = !self.unreachable.is_empty() && self.unreachable.contains(&standing.name);
        let in_flight = self.in_flight.get(at).copied().unwrap_or_default();
        Candidate { standing, in_flight, is_unreachable, at: self.at, limits: self.limits }
    }
}

/// What is known of a profile at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate<'a> {
    /// What is known of it for longer.
    pub standing: &'a Standing,
    /// How many requests it serves.
    pub in_flight: usize,
    /// Whether its upstream cannot be reached now.
    pub is_unreachable: bool,
    at: i64,
    limits: Limits,
}

impl<'a> Candidate<'a> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a Arc<str> {
        &self.standing.name
    }

    /// Whether it can serve calls of this kind.
    #[must_use]
    pub fn state(&self, of: CircuitOf) -> State {
        let standing = self.standing;
        let exhausted = standing.exhausted_until.filter(|until| *until > self.at);
        if standing.is_out_of_scope {
            State::OutOfScope
        } else if standing.is_paused_at(self.at) {
            State::Paused
        } else if standing.is_parked {
            State::Parked
        } else if let Some(until) = exhausted {
            State::Exhausted(until)
        } else {
            self.state_of_circuits(of)
        }
    }

    /// The worst of the circuits that calls of this kind pass.
    fn state_of_circuits(&self, of: CircuitOf) -> State {
        let is_passed = |circuit: &&OpenCircuit| circuit.of == of || circuit.of == CircuitOf::Credentials;
        let passed = self.standing.circuits.iter().filter(is_passed);
        let mut worst = State::Ready;
        for circuit in passed.filter(|circuit| circuit.forgotten_at > self.at) {
            // Before it opened only a clock that was set back can be.
            let is_open = circuit.since <= self.at && self.at < circuit.until;
            let is_probing = circuit.probing_until.is_some_and(|until| until > self.at);
            worst = match worst {
                State::Backoff(until) if is_open => State::Backoff(until.max(circuit.until)),
                State::Backoff(until) => State::Backoff(until),
                _ if is_open => State::Backoff(circuit.until),
                _ if is_probing || worst == State::Probing => State::Probing,
                _ => State::HalfOpen,
            };
        }
        worst
    }

    /// How much of its tightest window is left, in percent; windows that have started anew since they were
    /// stated do not count. None while nothing is known.
    #[must_use]
    pub fn remaining(&self) -> Option<f64> {
        self.tightest().map(|window| window.remaining)
    }

    /// The window of which the least is left, among those that have not started anew since.
    #[must_use]
    pub fn tightest(&self) -> Option<&'a QuotaWindow> {
        let windows = self.standing.windows.iter();
        let current = windows.filter(|window| window.resets_at.is_none_or(|at| at > self.at));
        current.reduce(|one, two| if two.remaining < one.remaining { two } else { one })
    }

    /// The band of what is left.
    #[must_use]
    pub fn band(&self) -> Band {
        Band::of(self.remaining())
    }

    /// Whether it serves so many requests that others are better.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight >= self.limits.soft
    }

    /// Whether it serves so many requests that no fresh one is sent to it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.in_flight >= self.limits.hard
    }
}
