//! The turns of a WebSocket: whose upstream a request goes to, and what becomes of it when that refuses.
//!
//! A request with its full input is sent to another profile's upstream, on a WebSocket that replaces the
//! one in use. One that continues a response by id only its account can answer; the client is told
//! `previous_response_not_found`, on which Codex connects anew and sends its full input (measured with
//! 0.149 and 0.169: the first time without a visible message).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use wire::responses::{EventKind, RequestView};
use wire::run_event::{CircuitOf, RunEvent};
use wire::websocket::{FrameHeader, Opcode, apply_mask, encode_text};

use super::assembler::{Assembler, Heard};
use super::{Best, Held, Leg, Request, Socket, Turn, end};
use crate::accounting::{Account, Outcome};
use crate::commit::refusal::Refusal;
use crate::error::Error;
use crate::exchange::{Ties, contents};
use crate::metrics::{Ending, Meter, Series};
use crate::pipeline::{Tries, Upgrade, tries};
use crate::profile::{InFlight, Now, Profile};
use crate::relay::outbox::Outbox;
use crate::reply::Reply;
use crate::selection::{NoChoice, Owner, affinity};
use crate::state::crash;
use crate::stream::gone;

impl Socket<'_> {
    /// Takes a message of the client: the request of a turn, or anything else, which passes.
    ///
    /// # Errors
    /// With how the WebSocket ends, when it cannot go on.
    pub(super) async fn message(&mut self, raw: Vec<u8>, text: Option<Vec<u8>>) -> Result<(), Outcome> {
        let text = Bytes::from(text.unwrap_or_default());
        let view = Some(RequestView::new(&text)).filter(|view| view.is_create());
        let is_free = matches!(self.turn, Turn::Idle) && self.upstream.frames.is_at_boundary();
        let Some(view) = view.filter(|_| is_free) else {
            self.to_upstream.push(&raw);
            return Ok(());
        };
        let mut ties = Ties::of_message(&self.exchange.ties, view);
        let is_warm_up = view.is_warm_up();
        let continues = view.previous_response_id().filter(|id| !id.is_empty()).map(Cow::into_owned);
        ties.contents = contents(view, &text).await;
        affinity::recall(&self.proxy.control.state, &ties).await;
        // A request without a response to continue has all of the conversation with it.
        self.is_sealed = !ties.contents.is_empty() || (self.is_sealed && ties.response.is_some());
        let may_move = affinity::may_move(&ties, affinity::owner(&self.proxy.control.state, &ties).as_ref());
        let id = self.proxy.next_request();
        let proxy = self.proxy;
        let meter = Meter::new(&proxy.control.metrics, Series::of_turn(self.exchange.routed));
        let Some(permit) = self.unless_gone(&meter, proxy.admit_turn(id, &ties)).await? else {
            return Ok(());
        };
        let mut tries = Tries::of_turn(&proxy.control, self.exchange, permit);
        let mut request = Request { id, raw, ties, continues, may_move, meter };
        self.proxy.look_after(self.exchange.routed.api);
        if !self.move_to_owner(&request, is_warm_up, &mut tries).await? {
            return Ok(());
        }
        let profile = Arc::clone(&self.upstream.profile);
        let seat = self.unless_gone(&request.meter, proxy.seat(id, &request.ties, &profile)).await?;
        let Some(seat) = seat else { return Ok(()) };
        self.strip_turn_state(&mut request, |_| Some(text));
        self.upstream.alive = Now::read();
        self.to_upstream.push(&request.raw);
        // The opening of its owner's upstream and the turn on it are one attempt.
        if tries.count() == 0 {
            tries.begin(&profile);
        }
        if is_warm_up {
            let started = Instant::now().into_std();
            let mut account = Account::open(self.proxy, id, request.meter.series, started, seat);
            request.meter.hand_over();
            account.commit(101, &mut tries);
            self.turn = Turn::Running(Box::new(account));
        } else {
            self.hold(request, seat, tries, None);
        }
        Ok(())
    }

    /// What a turn waits for, while the client is watched. `None` when there is no place for the turn, which
    /// the client is told.
    ///
    /// # Errors
    /// When the client goes away meanwhile.
    async fn unless_gone<T>(
        &mut self,
        meter: &Meter,
        place: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, Outcome> {
        let place = tokio::select! {
            biased;
            place = place => place,
            () = gone(&mut self.client, &mut self.input) => return Err(Outcome::ClientGone),
        };
        match place {
            Ok(place) => Ok(Some(place)),
            Err(error) => {
                meter.settle((&error).into());
                self.say(&Reply::of(&error).message());
                Ok(None)
            }
        }
    }

    /// Takes out of a request the turn state that its new account may not see. `text` gives what the
    /// request says, from its frames.
    fn strip_turn_state(&self, request: &mut Request, text: impl FnOnce(&[u8]) -> Option<Bytes>) {
        let here = &self.upstream.profile.name;
        if request.ties.turn_state_in_body.is_some()
            && !affinity::may_see_turn_state(&self.proxy.control.state, &request.ties, here)
            && let Some(text) = text(&request.raw)
            && let Some(text) = RequestView::new(&text).without_turn_state()
        {
            request.raw = mask_text(&text);
        }
    }

    /// Holds the answer to a request that has just been sent to the current upstream.
    fn hold(&mut self, request: Request, seat: InFlight, tries: Tries, best: Option<Best>) {
        let started = Instant::now().into_std();
        let account = Account::open(self.proxy, request.id, request.meter.series, started, seat);
        let hold = self.exchange.routed.client.hold_limit(&self.proxy.control.config);
        let deadline = Instant::now() + hold;
        let frames = Vec::new();
        let held = Held { account, request, frames, frame_start: 0, deadline, tries, best };
        self.turn = Turn::Held(Box::new(held));
    }

    /// Lets the held answer go to the client: the account serves, or nobody does.
    pub(super) fn release(&mut self) {
        let Turn::Held(held) = std::mem::replace(&mut self.turn, Turn::Idle) else { return };
        let Held { mut account, request, frames, mut tries, .. } = *held;
        let has_failed = matches!(account.terminal(), Some(EventKind::Failed | EventKind::Error));
        if !has_failed {
            self.proxy.record_migration(request.id, &request.ties, account.profile());
            self.proxy.record_compaction(request.id, &request.ties, account.profile());
            account.bind_conversation(&request.ties);
        }
        account.commit(101, &mut tries);
        request.meter.hand_over();
        account.forwarded(frames.len());
        self.to_client.close_until(account.gate());
        crash::point("turn.release");
        self.to_client.push(&frames);
        self.turn = Turn::Running(Box::new(account));
    }

    /// Brings the request to the upstream that should have it: its owner's, or, when it has none and the
    /// current account is used up, that of one which is ready. Says whether it may be sent; if not, the
    /// client has been told why.
    async fn move_to_owner(
        &mut self,
        request: &Request,
        is_warm_up: bool,
        tries: &mut Tries,
    ) -> Result<bool, Outcome> {
        loop {
            let target = match self.target(request, is_warm_up, tries) {
                Ok(Some(target)) => target,
                Ok(None) => return Ok(true),
                Err(none) => {
                    self.refuse(request, &none);
                    return Ok(false);
                }
            };
            if self.replace_upstream(&target, request.id, tries).await? {
                return Ok(true);
            }
            let cannot_wait = !request.may_move && target.health().parked().is_none();
            if cannot_wait || self.upstream.has_slept() && tries.are_spent() {
                // Its owner cannot be reached, which may be over when the client is back.
                request.meter.settle(Ending::Unreachable);
                return Err(Outcome::UpstreamCut);
            }
            if request.may_move && tries.are_spent() {
                // Whatever the upstream that is open says is worth more than what could be said here.
                return Ok(true);
            }
        }
    }

    /// To whose upstream a request is to be brought; none if it may go where the socket leads. An upstream of
    /// before the machine slept is opened anew: it has most likely ended.
    ///
    /// # Errors
    /// When only its owner could serve it, and cannot.
    fn target(
        &self,
        request: &Request,
        is_warm_up: bool,
        tries: &mut Tries,
    ) -> Result<Option<Arc<Profile>>, NoChoice> {
        let owner = affinity::owner(&self.proxy.control.state, &request.ties);
        let here = &self.upstream.profile;
        let is_gone = self.upstream.has_slept();
        let stay =
            |tries: &Tries| Some(Arc::clone(here)).filter(|_| is_gone && !tries.tried().contains(&here.name));
        if owner.is_none() && (request.ties.response.is_some() || is_warm_up) {
            return Ok(stay(tries));
        }
        match self.choose(request, owner.as_ref(), tries) {
            Ok(profile) => Ok(Some(profile).filter(|profile| is_gone || profile.name != here.name)),
            Err(none @ NoChoice::Owner(_)) => Err(none),
            // Whatever the upstream that is open says is worth more than what could be said here.
            Err(_) => Ok(stay(tries)),
        }
    }

    /// Selects the profile for the next attempt, from where the socket leads.
    fn choose(
        &self,
        request: &Request,
        owner: Option<&Owner>,
        tries: &mut Tries,
    ) -> Result<Arc<Profile>, NoChoice> {
        tries.end_probe();
        let mut snapshot = self.proxy.snapshot(self.exchange.routed.api);
        snapshot.here = Some(Arc::clone(&self.upstream.profile.name));
        self.proxy.choose(self.exchange, request.id, snapshot, owner, request.may_move, tries)
    }

    /// The owner of a request cannot serve it, and nobody else could. A response that is continued the
    /// client can do without, unless what it would send instead is the owner's as well.
    fn refuse(&mut self, request: &Request, none: &NoChoice) {
        if let Some(response) = &request.continues
            && !self.is_sealed
        {
            request.meter.settle(Ending::SentAnew);
            return self.inject_not_found(request.id, response);
        }
        if let NoChoice::Owner(owner) = none {
            self.proxy.record_blocked_compaction(request.id, &request.ties, owner);
        }
        let reply = Reply::of(&self.proxy.nobody(self.exchange, none));
        request.meter.settle(reply.ending);
        let (status, reason) = (reply.status, "the owner of the conversation cannot serve".into());
        self.proxy.control.log.record(&RunEvent::RequestRefused { request: request.id, status, reason });
        self.say(&reply.message());
    }

    /// Opens a WebSocket to a profile's upstream in the place of the one in use, for the turn `id`. Says
    /// whether it did; if not, the profile counts as tried, unless it could not be reached: then another look
    /// is worth it for as long as the tries are not spent.
    ///
    /// # Errors
    /// When the client goes away meanwhile.
    async fn replace_upstream(
        &mut self,
        profile: &Arc<Profile>,
        id: u64,
        tries: &mut Tries,
    ) -> Result<bool, Outcome> {
        while !tries.tried().contains(&profile.name) && !tries.are_spent() {
            tries.begin(profile);
            let opening = Box::pin(self.proxy.attempt_upgrade(self.connections, self.exchange, profile));
            let upgrade = tokio::select! {
                upgrade = opening => upgrade,
                () = gone(&mut self.client, &mut self.input) => return Err(Outcome::ClientGone),
            };
            match upgrade {
                Ok(Upgrade::Opened(opened)) => {
                    self.upstream = Leg::new(opened, Arc::clone(profile));
                    self.to_upstream = Outbox::default();
                    return Ok(true);
                }
                // One whose token is renewed is not counted as tried, and asked again.
                Ok(Upgrade::Refused(refusal, used, _)) => tokio::select! {
                    () = self.proxy.refused(id, "websocket", profile, &used, &refusal, tries) => {}
                    () = gone(&mut self.client, &mut self.input) => return Err(Outcome::ClientGone),
                },
                Ok(Upgrade::NoWebsocket(_) | Upgrade::Parked) => tries.refuse(profile, &Refusal::Auth),
                Err(error) => {
                    self.proxy.record_failure(id, profile, &error);
                    let may_retry = tokio::select! {
                        may_retry = tries.may_retry(&error) => may_retry,
                        () = gone(&mut self.client, &mut self.input) => return Err(Outcome::ClientGone),
                    };
                    if !may_retry {
                        tries.end();
                    }
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }

    /// The account refuses the held turn: another profile gets it, or the client sends it anew, or the
    /// client gets the best refusal.
    ///
    /// # Errors
    /// With how the WebSocket ends, when it cannot go on.
    pub(super) async fn refused(&mut self, refusal: Refusal) -> Result<(), Outcome> {
        let Turn::Held(mut held) = std::mem::replace(&mut self.turn, Turn::Idle) else { return Ok(()) };
        held.account.forget_failure();
        let profile = Arc::clone(&self.upstream.profile);
        let (id, used) = (held.request.id, Arc::clone(&self.upstream.credentials));
        tokio::select! {
            () = self.proxy.refused(id, "websocket", &profile, &used, &refusal, &mut held.tries) => {}
            () = gone(&mut self.client, &mut self.input) => return Err(Outcome::ClientGone),
        }
        let Held { account, request, frames, mut tries, best, .. } = *held;
        // A 401 of the pool is never the client's: it would renew its own login.
        let is_better = refusal != Refusal::Auth
            && best.as_ref().is_none_or(|best| refusal.worth() < best.refusal.worth());
        let best = if is_better {
            Some(Best { refusal, frames, account })
        } else {
            // With its place among the profile's requests: the same profile may be asked again.
            drop(account);
            best
        };
        // One whose token was just renewed is asked again: the conversation is its own.
        let is_renewed = !tries.tried().contains(&profile.name);
        if let Some(response) = &request.continues {
            // What the client would send instead of a response's id is of no use to another account if it
            // holds what only this one can read.
            if is_renewed || (!self.is_sealed && self.is_anybody_open(&tries)) {
                request.meter.settle(Ending::SentAnew);
                self.inject_not_found(id, response);
                return Ok(());
            }
        } else {
            let mut next = if is_renewed { Some(profile) } else { self.next_profile(&request, &mut tries) };
            while let Some(profile) = next {
                if self.replace_upstream(&profile, id, &mut tries).await? {
                    let seat = self.proxy.seat(id, &request.ties, &profile);
                    let seat = self.unless_gone(&request.meter, seat).await?;
                    if let Some(seat) = seat {
                        self.send_again(request, seat, tries, best);
                    }
                    return Ok(());
                }
                next = self.next_profile(&request, &mut tries);
            }
        }
        self.pass_best(request, tries, best)
    }

    /// The account says that it does not have what the held turn continues. The owner of a response is asked
    /// again; else the client gets to know.
    ///
    /// # Errors
    /// With how the WebSocket ends, when it cannot go on.
    pub(super) async fn lost(&mut self, refusal: Refusal) -> Result<(), Outcome> {
        let Turn::Held(mut held) = std::mem::replace(&mut self.turn, Turn::Idle) else { return Ok(()) };
        held.account.forget_failure();
        let (profile, ties) = (Arc::clone(&self.upstream.profile), &held.request.ties);
        let (id, tries) = (held.request.id, &mut held.tries);
        if refusal == Refusal::NotFound
            && let Some(time) = self.proxy.pause_for_owner(id, ties, &profile, tries)
        {
            tokio::select! {
                () = tries::pause(time) => {}
                () = gone(&mut self.client, &mut self.input) => return Err(Outcome::ClientGone),
            }
            tries.begin(&profile);
            let Held { account, request, tries, best, .. } = *held;
            // With its place among the profile's requests: the same profile is asked again.
            drop(account);
            let seat = self.proxy.seat(id, &request.ties, &profile);
            let seat = self.unless_gone(&request.meter, seat).await?;
            if let Some(seat) = seat {
                self.send_again(request, seat, tries, best);
            }
            return Ok(());
        }
        let Held { account, request, frames, tries, .. } = *held;
        self.pass_best(request, tries, Some(Best { refusal, frames, account }))
    }

    /// Sends a request again, to the upstream that has taken the place of the one before.
    fn send_again(&mut self, mut request: Request, seat: InFlight, tries: Tries, best: Option<Best>) {
        self.strip_turn_state(&mut request, |raw| text_of(raw).map(Bytes::from));
        self.to_upstream.push(&request.raw);
        self.hold(request, seat, tries, best);
    }

    /// Lets the client have the best of the refusals.
    fn pass_best(&mut self, request: Request, tries: Tries, best: Option<Best>) -> Result<(), Outcome> {
        self.proxy.record_budget(request.id, &tries);
        let Some(Best { refusal, frames, account }) = best else {
            if request.may_move {
                // Without one that is for the client it connects anew.
                request.meter.settle(Ending::UpstreamCut);
                return Err(Outcome::UpstreamCut);
            }
            let owner = Arc::clone(&self.upstream.profile.name);
            self.refuse(&request, &NoChoice::Owner(owner));
            return Ok(());
        };
        if !request.may_move {
            self.proxy.record_blocked_compaction(request.id, &request.ties, account.profile());
        }
        self.proxy.record_passed(request.id, account.profile(), &refusal, 101);
        let deadline = Instant::now();
        let held = Held { account, request, frames, frame_start: 0, deadline, tries, best: None };
        self.turn = Turn::Held(Box::new(held));
        self.release();
        // A refusal is all that there is of its response.
        end(&mut self.turn, &mut self.is_sealed);
        Ok(())
    }

    /// The profile that gets the held turn next, if another may have it.
    fn next_profile(&self, request: &Request, tries: &mut Tries) -> Option<Arc<Profile>> {
        if !request.may_move || tries.are_spent() {
            return None;
        }
        let owner = affinity::owner(&self.proxy.control.state, &request.ties);
        self.choose(request, owner.as_ref(), tries).ok()
    }

    /// Whether any profile could have a request that continues a response: the client sends its full input
    /// first, and then it is decided whose it is.
    fn is_anybody_open(&self, tries: &Tries) -> bool {
        let snapshot = self.proxy.snapshot(self.exchange.routed.api);
        snapshot.candidates().any(|candidate| {
            candidate.state(CircuitOf::Websocket).may_be_asked() && !tries.tried().contains(candidate.name())
        })
    }

    /// Tells the client that the response it continues is not there.
    fn inject_not_found(&mut self, request: u64, response: &str) {
        let message = format!("Previous response with id '{response}' not found.");
        let error = serde_json::json!({"type": "error", "status": 400, "error": {
            "type": "invalid_request_error",
            "code": "previous_response_not_found",
            "message": message,
            "param": "previous_response_id",
        }});
        self.say(&error.to_string());
        self.proxy.control.log.record(&RunEvent::PreviousResponseNotFound {
            request,
            profile: (&*self.upstream.profile.name).into(),
            route: "websocket".into(),
            injected: true,
        });
    }

    /// Sends the client a message of our own.
    fn say(&mut self, text: &str) {
        let mut frame = Vec::new();
        encode_text(text, &mut frame);
        self.to_client.push(&frame);
    }
}

/// What a message says, put together from its frames.
fn text_of(raw: &[u8]) -> Option<Vec<u8>> {
    let mut assembler = Assembler::of_client(raw.len());
    let mut rest = raw;
    loop {
        let (taken, heard) = assembler.next(rest).ok()?;
        match heard {
            Some(Heard::Message { text, .. }) => return Some(text.to_vec()),
            Some(_) => rest = &rest[taken..],
            None => return None,
        }
    }
}

/// A text message in one masked frame, as a client sends it. The mask hides nothing here: it keeps
/// intermediaries of another age from misreading frames, and none is on this hop.
fn mask_text(text: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5A, 0xC3, 0x3C, 0xA5];
    let mut frame = Vec::with_capacity(text.len() + 14);
    let header =
        FrameHeader { is_final: true, opcode: Opcode::Text, mask: Some(MASK), length: text.len() as u64 };
    header.encode(&mut frame);
    let start = frame.len();
    frame.extend_from_slice(text);
    apply_mask(MASK, 0, &mut frame[start..]);
    frame
}
