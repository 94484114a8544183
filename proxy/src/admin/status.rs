//! The state of a running proxy, as `GET /status` tells it and `prodex status` shows it.
//!
//! Times are seconds since the epoch, durations milliseconds, unless a name says otherwise. Nothing in it is a
//! secret, and nothing names a conversation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::route::Api;
use wire::run_event::CircuitOf;

use super::Admin;
use crate::accounting::recent::Turn;
use crate::admission::gate::{Gate, View};
use crate::pipeline::Proxy;
use crate::profile::{Now, Profile};
use crate::route::Lane;
use crate::selection::{Candidate, Snapshot, State};

/// The version of the status: a change that a reader could stumble over raises it.
pub const VERSION: u32 = 1;

/// What a proxy is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It takes requests.
    Serving,
    /// Another process has taken its place; it serves those who are connected, and ends when they have.
    Superseded,
    /// It lets those in flight end, and ends.
    Draining,
}

impl Phase {
    /// The phase of this proxy.
    #[must_use]
    pub fn of(proxy: &Proxy) -> Self {
        match (proxy.draining.is_cancelled(), proxy.leaving.is_cancelled()) {
            (true, _) => Self::Draining,
            (false, true) => Self::Superseded,
            (false, false) => Self::Serving,
        }
    }
}

/// The state of a running proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The process.
    pub pid: u32,
    /// The version of the program.
    pub program: String,
    /// What it is doing.
    pub state: Phase,
    /// When it began.
    pub started_at: i64,
    /// How long ago that was, in seconds.
    pub uptime_s: u64,
    /// The address that it listens on.
    pub listen: String,
    /// Whether it listens with TLS.
    pub tls: bool,
    /// Whether clients must show a capability.
    pub auth: bool,
    /// Whether it belongs to a `prodex run`.
    pub launched: bool,
    /// Its run log.
    pub log: Option<PathBuf>,
    /// The only profiles that it may use, if not all.
    pub scope: Option<Vec<String>>,
    /// How many requests and turns are in flight, and how many may be.
    pub in_flight: usize,
    /// Those in flight, by lane.
    pub lanes: Vec<LaneStatus>,
    /// How many WebSockets are open, busy or not.
    pub websockets: usize,
    /// Who waits for a place.
    pub waiting: Waiting,
    /// The profiles, by name.
    pub profiles: Vec<ProfileStatus>,
    /// Who served the last turns, the latest first.
    pub recent: Vec<TurnStatus>,
    /// The upstreams that could not be reached a moment ago, and that nobody tries now.
    pub unreachable: Vec<String>,
}

/// A turn that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnStatus {
    /// Its number in the run log.
    pub request: u64,
    /// When it ended.
    pub at: i64,
    /// What it is called in the run log.
    pub route: String,
    /// Who served it.
    pub profile: String,
    /// How it ended, as in `prodex_requests_total`.
    pub outcome: String,
    /// How long it took.
    pub ms: u64,
    /// How long its client waited for the first byte.
    pub first_byte_ms: u64,
    /// Six digits that the turns of one conversation have in common.
    pub conversation: Option<String>,
}

/// The requests of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Its name.
    pub name: String,
    /// How many are in flight.
    pub in_flight: usize,
    /// How many may be.
    pub limit: usize,
    /// How many wait for a place.
    pub waiting: usize,
}

/// Who waits for a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// How many.
    pub count: usize,
    /// Who has waited longest.
    pub longest: Option<Longest>,
}

/// Who has waited longest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Longest {
    /// The number of the request in the run log.
    pub request: u64,
    /// For a place in which lane, or with which profile: `profile NAME`.
    pub place: String,
    /// How many are admitted before it, if nobody stronger comes.
    pub position: usize,
    /// For how long.
    pub waited_ms: u64,
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Whether it could serve a turn: `ready`, `half_open`, `probing`, `exhausted`, `backoff`, `parked`, `paused`
    /// or `out_of_scope`.
    pub state: String,
    /// Until when that lasts, if it is known.
    pub until: Option<i64>,
    /// Why it is so, if there is more to say.
    pub reason: Option<String>,
    /// Whether fresh conversations start with it.
    pub current: bool,
    /// Whether its person prefers it.
    pub preferred: bool,
    /// How many requests it serves.
    pub in_flight: usize,
    /// How many wait until it serves fewer.
    pub waiting: usize,
    /// The band of its worst window.
    pub band: String,
    /// How much of its tightest window is left, in percent.
    pub remaining_percent: Option<f64>,
    /// The windows of its quota.
    pub windows: Vec<WindowStatus>,
    /// The kinds of calls that it refused a while ago and is not asked for now.
    pub circuits: Vec<CircuitStatus>,
}

/// A window of a quota.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowStatus {
    /// The limit of a model or feature; none for the account's own.
    pub limit: Option<String>,
    /// How long it is, if the backend says so.
    pub seconds: Option<u64>,
    /// How much is left, in percent.
    pub remaining_percent: Option<f64>,
    /// When it starts anew.
    pub resets_at: Option<i64>,
    /// `ready`, `thin`, `critical`, `exhausted` or `unknown`.
    pub band: String,
    /// Who said so: `refusal`, `response` or `usage`.
    pub source: String,
    /// When.
    pub observed_at: i64,
}

/// A circuit that is not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitStatus {
    /// What does not pass.
    pub of: String,
    /// Until when; later one request may try.
    pub until: i64,
}

/// The status of a proxy now.
pub(super) fn take(admin: &Admin) -> Status {
    let (proxy, run, now) = (&*admin.proxy, &admin.run, Now::read());
    let (lanes, waiting) = queue(proxy);
    let mut profiles = Vec::new();
    for api in [Api::Chatgpt, Api::OpenAi] {
        let snapshot = proxy.snapshot(api);
        let members = proxy.profiles.of(api);
        profiles.extend(members.iter().filter_map(|profile| of_profile(profile, &snapshot, now)));
    }
    profiles.sort_by(|one, two| one.name.cmp(&two.name));
    Status {
        version: VERSION,
        pid: std::process::id(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        state: Phase::of(proxy),
        started_at: run.started.unix,
        uptime_s: now.instant.saturating_duration_since(run.started.instant).as_secs(),
        listen: run.ready.listen.to_string(),
        tls: proxy.is_tls,
        auth: proxy.guard.capability().is_some(),
        launched: run.is_launched,
        log: proxy.control.log.path().map(Into::into),
        scope: proxy.profiles.scope().map(<[String]>::to_vec),
        in_flight: proxy.admission.active(),
        lanes,
        websockets: proxy.admission.sockets(),
        waiting,
        profiles,
        recent: proxy.recent.turns().into_iter().map(TurnStatus::from).collect(),
        unreachable: proxy.control.hosts.unreachable(),
    }
}

/// The lanes, and who waits: for a place there, or with a profile.
fn queue(proxy: &Proxy) -> (Vec<LaneStatus>, Waiting) {
    let mut lanes = Vec::new();
    let mut waiting = Waiting::default();
    for lane in Lane::ALL {
        let (gate, index) = proxy.admission.gate(lane);
        let View { lanes: counts, waiting: queue, .. } = gate.view();
        let (in_flight, limit) = counts[index];
        let own = queue.iter().filter(|waiting| waiting.lane == index).count();
        lanes.push(LaneStatus { name: lane.name().to_owned(), in_flight, limit, waiting: own });
        waiting.add(gate, Some(index), lane.name());
    }
    for profile in proxy.profiles.profiles() {
        waiting.add(&profile.gate, None, &format!("profile {}", profile.name));
    }
    (lanes, waiting)
}

impl From<Turn> for TurnStatus {
    fn from(turn: Turn) -> Self {
        let milliseconds = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let digits = |[one, two, three]: [u8; 3]| format!("{one:02x}{two:02x}{three:02x}");
        Self {
            request: turn.request,
            at: turn.at,
            route: turn.route.to_owned(),
            profile: turn.profile.to_string(),
            outcome: turn.ending.name().to_owned(),
            ms: milliseconds(turn.took),
            first_byte_ms: milliseconds(turn.first_byte),
            conversation: turn.conversation.map(digits),
        }
    }
}

impl Waiting {
    /// Adds who waits at a gate, or in one of its lanes.
    fn add(&mut self, gate: &Arc<Gate>, lane: Option<usize>, place: &str) {
        for (position, waiter) in gate.view().waiting.iter().enumerate() {
            if lane.is_some_and(|lane| lane != waiter.lane) {
                continue;
            }
            self.count += 1;
            let waited_ms = u64::try_from(waiter.waited.as_millis()).unwrap_or(u64::MAX);
            if self.longest.as_ref().is_none_or(|longest| longest.waited_ms < waited_ms) {
                let (request, place) = (waiter.request, place.to_owned());
                self.longest = Some(Longest { request, place, position, waited_ms });
            }
        }
    }
}

/// What a snapshot says of a profile; none if it was taken without it.
#[must_use]
pub fn of_profile(profile: &Profile, snapshot: &Snapshot, now: Now) -> Option<ProfileStatus> {
    let is_current = snapshot.current.as_ref() == Some(&profile.name);
    Some(describe(profile, snapshot.get(&profile.name)?, is_current, now))
}

fn describe(profile: &Profile, candidate: Candidate<'_>, is_current: bool, now: Now) -> ProfileStatus {
    let state = candidate.state(CircuitOf::Responses);
    let standing = candidate.standing;
    let parked = profile.health().parked().map(str::to_owned);
    let (until, reason) = match state {
        State::Parked => (None, parked),
        State::Paused => (standing.paused_until, None),
        State::Exhausted(until) | State::Backoff(until) => (Some(until), None),
        State::Ready if candidate.is_unreachable => (None, Some("its upstream cannot be reached".to_owned())),
        State::Ready if candidate.is_full() => {
            (None, Some("it serves as many requests as it may".to_owned()))
        }
        _ => (None, None),
    };
    let quota = profile.quota().clone();
    let windows = quota.windows().iter().map(|window| WindowStatus {
        limit: window.key.limit.as_deref().map(str::to_owned),
        seconds: window.key.length.seconds(),
        remaining_percent: window.remaining(now),
        resets_at: window.reading.resets_at,
        band: window.band(now).name().to_owned(),
        source: window.reading.source.name().to_owned(),
        observed_at: window.reading.observed.unix,
    });
    let circuits = standing.circuits.iter().filter(|circuit| circuit.forgotten_at > now.unix);
    let circuits = circuits.map(|open| CircuitStatus { of: open.of.name().to_owned(), until: open.until });
    ProfileStatus {
        name: profile.name.to_string(),
        kind: profile.kind.name().to_owned(),
        state: state.name().to_owned(),
        until,
        reason,
        current: is_current,
        preferred: standing.is_preferred,
        in_flight: profile.in_flight(),
        waiting: profile.gate.waiting().0,
        band: quota.band(now).name().to_owned(),
        remaining_percent: quota.remaining(now),
        windows: windows.collect(),
        circuits: circuits.collect(),
    }
}
