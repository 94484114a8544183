//! The way of a request, in one screen: select a profile, attempt, judge, and rotate only before commit.
//!
//! `server` brings a request that passed `guard`; what is accepted here is sent by `relay`. WebSockets
//! are opened here too; their turns are told in `relay::websocket`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wire::responses::{RequestView, TURN_STATE};
use wire::route::{Api, Call};
use wire::run_event::{CircuitOf, RunEvent};

use crate::accounting::Account;
use crate::accounting::recent::Recent;
use crate::admission::{Admission, Permit};
use crate::attempt::connection::{Connections, Peer};
use crate::attempt::{Identity, http, websocket};
use crate::commit::refusal::Refusal;
use crate::commit::{self, Committed, Judged};
use crate::control::Control;
use crate::error::Error;
use crate::exchange::{Exchange, Ties, contents, readable};
use crate::guard::Guard;
use crate::metrics::Ending;
use crate::profile::{Credentials, InFlight, Now, Pool, Profile, origin, refresh};
use crate::recording::Recorder;
use crate::reply::Reply;
use crate::selection::trace::Trace;
use crate::selection::{Choice, Limits, NoChoice, Owner, Reason, Snapshot, State, Wanted, affinity, choose};
use crate::state::{Ticket, Tie};

pub mod gone;

mod admit;

mod report;

pub mod tries;

mod upkeep;

use gone::Gone;
use tries::Probe;
pub use tries::Tries;
use upkeep::Upkeep;

/// What all requests of a run share.
#[derive(Debug)]
pub struct Proxy {
    /// The control path, with settings and log.
    pub control: Arc<Control>,
    /// Who may speak.
    pub guard: Guard,
    /// The profiles.
    pub profiles: Pool,
    /// Responses that their owner has just said to be gone.
    pub gone: Gone,
    /// How many requests may be in flight.
    pub admission: Admission,
    /// Whether clients come over TLS.
    pub is_tls: bool,
    /// Cancelled when the proxy drains.
    pub draining: CancellationToken,
    /// Cancelled when no further connection is accepted: because it drains, or because another process has
    /// taken its place. Then those who are connected are served on, and let go one by one.
    pub leaving: CancellationToken,
    /// Who served the last turns.
    pub recent: Recent,
    /// Records what clients send and get, if that is asked for.
    pub recorder: Option<Arc<Recorder>>,
    requests: AtomicU64,
    /// Which snapshots the log has.
    trace: Trace,
    upkeep: Upkeep,
}

/// What a request gets.
#[derive(Debug)]
pub enum Answer {
    /// A reply of the proxy's own.
    Local(Reply),
    /// The response of an upstream.
    Upstream(Box<Committed>),
}

/// What an upgrade gets.
#[derive(Debug)]
pub enum Upgraded {
    /// A reply of the proxy's own.
    Local(Reply),
    /// The response of an upstream that is no agreement.
    Upstream(Box<Committed>),
    /// A WebSocket to a profile's upstream.
    Opened(websocket::Opened, Arc<Profile>),
}

impl Proxy {
    /// A proxy that has served nothing yet.
    #[must_use]
    pub fn new(control: Arc<Control>, guard: Guard, profiles: Pool, is_tls: bool) -> Self {
        let admission = Admission::new(&control.config);
        let draining = CancellationToken::new();
        let leaving = draining.child_token();
        Self {
            control,
            guard,
            profiles,
            gone: Gone::default(),
            admission,
            is_tls,
            draining,
            leaving,
            recent: Recent::default(),
            recorder: None,
            requests: AtomicU64::new(0),
            trace: Trace::default(),
            upkeep: Upkeep::default(),
        }
    }

    /// The number of a new request.
    #[must_use]
    pub fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What ties a request to a conversation.
    pub async fn ties(&self, exchange: &Exchange) -> Ties {
        if !exchange.routed.call.is_model_call() {
            return Ties::read(&exchange.head, None);
        }
        let limit = self.control.config.max_request_body.bytes();
        let Some(text) = readable(&exchange.head, &exchange.body, limit).await else {
            let ties = Ties { is_opaque: true, ..Ties::read(&exchange.head, None) };
            affinity::recall(&self.control.state, &ties).await;
            return ties;
        };
        let view = RequestView::new(&text);
        let mut ties = Ties::read(&exchange.head, Some(view));
        ties.contents = contents(view, &text).await;
        ties.is_compaction |= exchange.routed.call == Call::Compact;
        affinity::recall(&self.control.state, &ties).await;
        ties
    }

    /// Has a request answered.
    pub async fn answer(
        self: &Arc<Self>,
        connections: &Connections,
        exchange: &Exchange,
        permit: Permit,
    ) -> Answer {
        let answer = self.find_answer(connections, exchange, permit).await;
        match &answer {
            Answer::Local(reply) => exchange.meter.settle(reply.ending),
            Answer::Upstream(_) => exchange.meter.hand_over(),
        }
        answer
    }

    async fn find_answer(
        self: &Arc<Self>,
        connections: &Connections,
        exchange: &Exchange,
        permit: Permit,
    ) -> Answer {
        if exchange.routed.call == Call::AccountsCheck {
            return Answer::Local(crate::workspace::answer(&exchange.head, self.is_tls));
        }
        let mut tries = Tries::new(&self.control, exchange, permit);
        let mut beginning = self.beginning(exchange);
        loop {
            let seat = match self.select(exchange, &mut tries).await {
                // What its session carries is durable before any of its response is the client's.
                Ok(profile) if self.claim(exchange, &profile, &mut beginning).is_none() => continue,
                Ok(profile) => self.take_seat(exchange, profile, &mut tries).await,
                Err(none) => return self.give_up(exchange, tries, &none),
            };
            let seat = match seat {
                Ok(seat) => seat,
                Err(error) => return Answer::Local(Reply::of(&error)),
            };
            let profile = Arc::clone(seat.profile());
            tries.begin(&profile);
            let Some(identity) = self.identity(exchange, &profile).await else {
                tries.refuse(&profile, &Refusal::Auth);
                continue;
            };
            match self.attempt(connections, exchange, seat, &identity).await {
                Ok(Judged::Accepted(committed)) => {
                    return Answer::Upstream(self.commit(exchange, committed, &mut tries));
                }
                Ok(Judged::Refused(Refusal::NotFound, committed)) => {
                    match self.pause_for_owner(exchange.id, &exchange.ties, &profile, &mut tries) {
                        Some(time) => tries::pause(time).await,
                        None => return self.pass(exchange.id, &Refusal::NotFound, committed, tries),
                    }
                }
                // Its owner was asked, or nobody knows whose the item is.
                Ok(Judged::Refused(refusal @ Refusal::Unreadable, committed)) => {
                    return self.pass(exchange.id, &refusal, committed, tries);
                }
                Ok(Judged::Refused(refusal, committed)) => {
                    let (name, used) = (exchange.routed.name(), &identity.credentials);
                    self.refused(exchange.id, name, &profile, used, &refusal, &mut tries).await;
                    tries.keep(&profile, refusal, committed);
                }
                Err(error) => {
                    self.record_failure(exchange.id, &profile, &error);
                    if !tries.may_retry(&error).await {
                        return Answer::Local(Reply::of(&error));
                    }
                }
            }
            if tries.are_spent() {
                return self.give_up(exchange, tries, &NoChoice::AllRefused);
            }
        }
    }

    /// Has an upgrade answered.
    pub async fn upgrade(
        self: &Arc<Self>,
        connections: &Connections,
        exchange: &Exchange,
        tries: &mut Tries,
    ) -> Upgraded {
        let upgraded = self.find_upgrade(connections, exchange, tries).await;
        match &upgraded {
            Upgraded::Local(reply) => exchange.meter.settle(reply.ending),
            Upgraded::Upstream(_) => exchange.meter.hand_over(),
            Upgraded::Opened(..) => exchange.meter.settle(Ending::Complete),
        }
        upgraded
    }

    async fn find_upgrade(
        self: &Arc<Self>,
        connections: &Connections,
        exchange: &Exchange,
        tries: &mut Tries,
    ) -> Upgraded {
        let mut beginning = self.beginning(exchange);
        loop {
            let profile = match self.select(exchange, tries).await {
                Ok(profile) => profile,
                Err(none) => return self.give_up_upgrade(exchange, tries, &none),
            };
            let Some(bound) = self.claim(exchange, &profile, &mut beginning) else { continue };
            tries.begin(&profile);
            match self.attempt_upgrade(connections, exchange, &profile).await {
                Ok(Upgrade::Opened(opened)) => {
                    self.bind_upgrade(&opened, bound, &profile).await;
                    return Upgraded::Opened(opened, profile);
                }
                Ok(Upgrade::Parked) => tries.refuse(&profile, &Refusal::Auth),
                Ok(Upgrade::Refused(refusal, used, committed)) => {
                    let name = exchange.routed.name();
                    self.refused(exchange.id, name, &profile, &used, &refusal, tries).await;
                    tries.keep(&profile, refusal, committed);
                }
                Ok(Upgrade::NoWebsocket(status)) => {
                    let message = format!("the upstream answered the upgrade with {status}");
                    return Upgraded::Local(Reply::upgrade_required(&message));
                }
                Err(error) => {
                    self.record_failure(exchange.id, &profile, &error);
                    if !tries.may_retry(&error).await {
                        return Upgraded::Local(Reply::upgrade_required(&error.to_string()));
                    }
                }
            }
            if tries.are_spent() {
                return self.give_up_upgrade(exchange, tries, &NoChoice::AllRefused);
            }
        }
    }

    /// Whether a request begins a conversation: nobody owns it.
    fn beginning(&self, exchange: &Exchange) -> Option<Beginning> {
        let is_conversation = exchange.routed.call.is_model_call();
        let is_unowned = || affinity::owner(&self.control.state, &exchange.ties).is_none();
        (is_conversation && is_unowned()).then(Beginning::default)
    }

    /// Binds a conversation that begins as soon as a profile is selected, before any turn has told whose it is:
    /// another request of it, or another socket, that comes meanwhile must not go to a stranger. None when such
    /// a one was faster: then its profile is the one to be selected.
    fn claim(
        &self,
        exchange: &Exchange,
        profile: &Profile,
        beginning: &mut Option<Beginning>,
    ) -> Option<Ticket> {
        let Some(Beginning { claimed }) = beginning else { return Some(Ticket::DURABLE) };
        let ticket = affinity::claim(&self.control.state, &exchange.ties, &profile.name, claimed.as_ref());
        match ticket {
            Some(_) => *claimed = Some(Arc::clone(&profile.name)),
            None => *beginning = None,
        }
        ticket
    }

    /// Binds what the head of an agreement to an upgrade tells the client, who is let know once that and what
    /// was `bound` before are durable.
    async fn bind_upgrade(&self, opened: &websocket::Opened, bound: Ticket, profile: &Profile) {
        let state = &self.control.state;
        let turn_state = opened.head.get_str(TURN_STATE);
        let turn_state = turn_state.map(|turn_state| state.bind(Tie::TurnState, turn_state, &profile.name));
        if let Some(mut gate) = state.gate(bound.max(turn_state.unwrap_or(Ticket::DURABLE))) {
            std::future::poll_fn(|context| gate.poll_open(context)).await;
        }
    }

    /// Selects the profile for the next attempt.
    ///
    /// # Errors
    /// When there is none that could be tried.
    pub async fn select(&self, exchange: &Exchange, tries: &mut Tries) -> Result<Arc<Profile>, NoChoice> {
        tries.end_probe();
        let owner = affinity::owner(&self.control.state, &exchange.ties);
        self.look_for_logins(exchange.routed.api, owner.as_ref()).await;
        self.look_after(exchange.routed.api);
        let snapshot = self.snapshot(exchange.routed.api);
        // Of an upgrade nothing is known but its head; each turn on it is looked at when it comes.
        let may_move = affinity::may_move(&exchange.ties, owner.as_ref());
        self.choose(exchange, exchange.id, snapshot, owner.as_ref(), may_move, tries)
    }

    /// What is known of the profiles of an API now.
    pub(crate) fn snapshot(&self, api: Api) -> Snapshot {
        let mut snapshot = Snapshot::take(&self.profiles, api, Now::read());
        let config = &self.control.config;
        snapshot.limits = Limits { soft: config.soft_limit(), hard: config.profile_hard_limit };
        let hosts = &self.control.hosts;
        if hosts.is_any_failing() {
            let is_open = |profile: &&Arc<Profile>| {
                let origin = profile.origin.known().unwrap_or_else(|| self.control.origin(api).clone());
                hosts.is_open(&Peer::of(&origin))
            };
            let members = self.profiles.of(api);
            let unreachable = members.iter().filter(is_open);
            snapshot.unreachable = unreachable.map(|profile| Arc::clone(&profile.name)).collect();
        }
        snapshot
    }

    /// Takes a place among the requests of the selected profile. Others may have filled it since the snapshot
    /// was taken; then another look is worth it, unless it is the owner or nobody else has room either.
    async fn take_seat(
        &self,
        exchange: &Exchange,
        profile: Arc<Profile>,
        tries: &mut Tries,
    ) -> Result<InFlight, Error> {
        if let Some(seat) = profile.try_enter() {
            return Ok(seat);
        }
        let is_owners = affinity::owner(&self.control.state, &exchange.ties)
            .is_some_and(|owner| owner.profile == profile.name);
        let limit = self.control.config.profile_hard_limit;
        let others = self.profiles.of(exchange.routed.api);
        if is_owners || !others.iter().any(|other| other.in_flight() < limit) {
            return self.seat(exchange.id, &exchange.ties, &profile).await;
        }
        let profile = self.select(exchange, tries).await.unwrap_or(profile);
        self.seat(exchange.id, &exchange.ties, &profile).await
    }

    /// Chooses from a snapshot and logs the choice. If the request is the one that tries the profile, `tries`
    /// say so from then on; what they tried before must have ended before the snapshot was taken.
    pub(crate) fn choose(
        &self,
        exchange: &Exchange,
        request: u64,
        mut snapshot: Snapshot,
        owner: Option<&Owner>,
        may_move: bool,
        tries: &mut Tries,
    ) -> Result<Arc<Profile>, NoChoice> {
        let route = CircuitOf::route(exchange.routed.name());
        let wanted = Wanted { route, owner, may_move, tried: tries.tried(), reset: tries.earliest_reset() };
        // Each turn is lost to another request that tries a profile, or to the removal of one; there are not
        // more of these than profiles.
        let mut turns = snapshot.standings.len();
        loop {
            let result = choose(&snapshot, &wanted);
            let profile = result.as_ref().ok().and_then(|choice| self.profiles.get(&choice.profile));
            let mut probe = None;
            let is_outdated = match (&result, &profile) {
                (Ok(_), None) => true,
                (Ok(choice), Some(profile)) if turns > 0 && needs_probe(&snapshot, route, choice) => {
                    probe = self.probe(route, request, profile);
                    // Another request was faster to try it: that is in the next snapshot.
                    probe.is_none()
                }
                _ => false,
            };
            if is_outdated && turns > 0 {
                turns -= 1;
                snapshot = Snapshot { here: snapshot.here, ..self.snapshot(exchange.routed.api) };
                continue;
            }
            let chosen = result.as_ref().ok().map(|choice| &choice.profile);
            if !tries.repeats(chosen) {
                self.record_choice(exchange, request, &snapshot, &wanted, &result);
                tries.note(chosen);
            }
            tries.begin_probe(probe);
            return result.and_then(|_| profile.ok_or(NoChoice::NoProfiles));
        }
    }

    /// The right to ask a profile that is half open, unless another request has it.
    fn probe(&self, route: CircuitOf, request: u64, profile: &Arc<Profile>) -> Option<Probe> {
        if !profile.health().probe(route, request, Now::read()) {
            return None;
        }
        let (name, route) = ((&*profile.name).into(), route.name().into());
        self.control.log.record(&RunEvent::ProfileCircuitHalfOpenProbe { request, profile: name, route });
        Some(Probe::new(profile, request))
    }

    /// Tries the profile that has a place for the request.
    async fn attempt(
        self: &Arc<Self>,
        connections: &Connections,
        exchange: &Exchange,
        seat: InFlight,
        identity: &Identity,
    ) -> Result<Judged, Error> {
        let config = &self.control.config;
        let is_model_call = exchange.routed.call.is_model_call();
        let limit = if is_model_call { config.response_timeout } else { config.side_response_timeout };
        if !identity.sees_turn_state {
            exchange.strip_turn_state(config.max_request_body.bytes()).await;
        }
        let response = http::send(connections, exchange, identity, limit).await?;
        let account = self.open_account(exchange, seat);
        commit::judge(self, exchange, account, response).await
    }

    fn open_account(self: &Arc<Self>, exchange: &Exchange, seat: InFlight) -> Account {
        Account::open(self, exchange.id, exchange.meter.series, exchange.started, seat)
    }

    pub(crate) async fn attempt_upgrade(
        self: &Arc<Self>,
        connections: &Connections,
        exchange: &Exchange,
        profile: &Arc<Profile>,
    ) -> Result<Upgrade, Error> {
        let Some(identity) = self.identity(exchange, profile).await else { return Ok(Upgrade::Parked) };
        let limit = self.control.config.response_timeout;
        match websocket::open(connections, exchange, &identity, limit).await? {
            websocket::Answer::Opened(opened) => Ok(Upgrade::Opened(opened)),
            websocket::Answer::Refused(response) => {
                let status = response.head.status();
                let account = self.open_account(exchange, profile.enter());
                match commit::judge(self, exchange, account, *response).await? {
                    Judged::Refused(refusal, committed) => {
                        Ok(Upgrade::Refused(refusal, identity.credentials, committed))
                    }
                    Judged::Accepted(_) => Ok(Upgrade::NoWebsocket(status)),
                }
            }
        }
    }

    /// As whom and where a profile's attempt is made. None for a profile whose login is no longer good.
    async fn identity(self: &Arc<Self>, exchange: &Exchange, profile: &Arc<Profile>) -> Option<Identity> {
        let credentials = profile.credentials();
        if profile.has_expired(&credentials, Now::read()) {
            // Should it fail for now, the upstream's own word decides what becomes of the profile.
            let _ = refresh::renew(&self.control, profile, &credentials).await;
        }
        let routing = if exchange.routed.call.is_model_call() {
            origin::of(&self.control, profile).await
        } else {
            origin::Routing::default()
        };
        if profile.health().parked().is_some() {
            return None;
        }
        let credentials = profile.credentials();
        let state = &self.control.state;
        let sees_turn_state = affinity::may_see_turn_state(state, &exchange.ties, &profile.name);
        let common = self.control.origin(exchange.routed.api);
        Some(Identity::new(credentials, routing, common, sees_turn_state))
    }

    /// Draws the consequences of a refusal, before the next profile is selected. A refused token is
    /// renewed once, and then its profile is tried again. `used` are the credentials that were refused;
    /// meanwhile there may be newer ones.
    pub(crate) async fn refused(
        self: &Arc<Self>,
        request: u64,
        route: &str,
        profile: &Arc<Profile>,
        used: &Arc<Credentials>,
        refusal: &Refusal,
        tries: &mut Tries,
    ) {
        if *refusal == Refusal::Auth
            && tries.may_renew(profile)
            && refresh::renew(&self.control, profile, used).await.is_ok()
        {
            return;
        }
        self.note_refusal(request, route, profile, refusal);
        tries.refuse(profile, refusal);
    }

    /// What to do when a profile says that the response which a request continues is not there: its owner
    /// is asked again after a pause. Without one the client is told what the upstream said.
    pub(crate) fn pause_for_owner(
        &self,
        request: u64,
        ties: &Ties,
        profile: &Profile,
        tries: &mut Tries,
    ) -> Option<Duration> {
        let response = ties.response?;
        let owner = self.control.state.owner_of(Tie::Response, &response)?;
        if owner != profile.name {
            return None;
        }
        let profile = || (&*profile.name).into();
        if self.gone.contains(&response, std::time::Instant::now()) {
            let profile = profile();
            self.control.log.record(&RunEvent::PreviousResponseNegativeCache { request, profile });
            return None;
        }
        let pause = tries.owner_pause();
        if pause.is_none() {
            self.gone.insert(response, std::time::Instant::now());
        }
        pause
    }

    /// The response is the client's from here on.
    fn commit(
        &self,
        exchange: &Exchange,
        mut committed: Box<Committed>,
        tries: &mut Tries,
    ) -> Box<Committed> {
        let head = &committed.head;
        let is_success = (200..300).contains(&head.status());
        if is_success && !exchange.routed.call.is_model_call() && exchange.is_authorised() {
            committed.account.serves();
        }
        if is_success && exchange.routed.call.is_model_call() {
            committed.account.observe_head(head);
            self.record_migration(exchange.id, &exchange.ties, committed.account.profile());
            self.record_compaction(exchange.id, &exchange.ties, committed.account.profile());
            committed.account.bind_conversation(&exchange.ties);
        }
        committed.account.commit(head.status(), tries);
        committed
    }

    /// Nobody else can be asked: the client gets the best of the refusals, or a reply of our own.
    fn give_up(&self, exchange: &Exchange, mut tries: Tries, none: &NoChoice) -> Answer {
        self.record_budget(exchange.id, &tries);
        if let NoChoice::Owner(owner) = none {
            self.record_blocked_compaction(exchange.id, &exchange.ties, owner);
        }
        match tries.best() {
            Some((refusal, refused)) => self.pass(exchange.id, &refusal, refused, tries),
            None => Answer::Local(Reply::of(&self.nobody(exchange, none))),
        }
    }

    /// The client gets a refusal as it came.
    fn pass(&self, request: u64, refusal: &Refusal, mut refused: Box<Committed>, mut tries: Tries) -> Answer {
        let status = refused.head.status();
        self.record_passed(request, refused.account.profile(), refusal, status);
        refused.account.commit(status, &mut tries);
        Answer::Upstream(refused)
    }

    fn give_up_upgrade(&self, exchange: &Exchange, tries: &mut Tries, none: &NoChoice) -> Upgraded {
        if tries.is_overloaded() {
            // Codex takes a 503 here for the end; over HTTP it tries again.
            return Upgraded::Local(Reply::upgrade_required("the model has no capacity"));
        }
        let tries = std::mem::replace(tries, Tries::spent());
        match self.give_up(exchange, tries, none) {
            Answer::Local(reply) => Upgraded::Local(reply),
            Answer::Upstream(committed) => Upgraded::Upstream(committed),
        }
    }
}

/// A conversation that a request begins.
#[derive(Debug, Default)]
struct Beginning {
    /// The profile that it was bound to for this request.
    claimed: Option<Arc<str>>,
}

/// What an upstream says to an upgrade, judged.
#[derive(Debug)]
pub(crate) enum Upgrade {
    /// It agrees.
    Opened(websocket::Opened),
    /// The account is refused.
    Refused(Refusal, Arc<Credentials>, Box<Committed>),
    /// It was not asked: the profile's login is known to be no longer good.
    Parked,
    /// It does not speak WebSocket now, with this status.
    NoWebsocket(u16),
}

/// Whether the chosen profile is to be tried by one request at a time.
fn needs_probe(snapshot: &Snapshot, route: CircuitOf, choice: &Choice) -> bool {
    let state = snapshot.get(&choice.profile).map(|candidate| candidate.state(route));
    state == Some(State::HalfOpen) && choice.reason != Reason::LastResort
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
mod tests;
