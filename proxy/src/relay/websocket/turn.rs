//! The turns of a WebSocket: whose upstream a request goes to, and what becomes of it when that refuses.
//!
//! A request with its full input is sent to another profile's upstream, on a WebSocket that replaces the
//! one in use. One that continues a response by id only its account can answer; the client is told
//! `previous_response_not_found`, on which Codex connects anew and sends its full input (measured with
//! 0.149 and 0.169: the first time without a visible message).

use std::sync::Arc;

use tokio::time::Instant;
use wire::responses::{EventKind, RequestView};
use wire::run_event::{CircuitOf, RunEvent};
use wire::websocket::{FrameHeader, Opcode, apply_mask, encode_text};

use super::assembler::{Assembler, Heard};
use super::{Best, Held, Leg, Request, Socket, Turn, end};
use crate::accounting::{Account, Outcome};
use crate::commit::refusal::Refusal;
use crate::exchange::Ties;
use crate::pipeline::{Tries, Upgrade};
use crate::profile::Profile;
use crate::relay::outbox::Outbox;
use crate::selection::ranking::rank;
use crate::selection::{Candidate, State, affinity};
use crate::state::crash;
use crate::stream::gone;

impl Socket<'_> {
    /// Takes a message of the client: the request of a turn, or anything else, which passes.
    ///
    /// # Errors
    /// With how the WebSocket ends, when it cannot go on.
    pub(super) async fn message(&mut self, raw: Vec<u8>, text: Option<Vec<u8>>) -> Result<(), Outcome> {
        let view = text.as_deref().map(RequestView::new).filter(|view| view.is_create());
        let is_free = matches!(self.turn, Turn::Idle) && self.upstream.frames.is_at_boundary();
        let Some(view) = view.filter(|_| is_free) else {
            self.to_upstream.push(&raw);
            return Ok(());
        };
        let ties = Ties {
            response: view.previous_response_id().map(Into::into),
            turn_state: view.turn_state().map(Into::into),
            session: self.exchange.ties.session.clone().or_else(|| view.session_id().map(Into::into)),
        };
        let may_move = ties.response.is_none() && !view.has_encrypted_content();
        affinity::recall(&self.proxy.control.state, &ties).await;
        let id = self.proxy.next_request();
        let mut tries = Tries::of_turn(&self.proxy.control.config);
        let is_warm_up = view.is_warm_up();
        let mut request = Request { id, raw, ties, may_move };
        self.proxy.look_after(self.exchange.routed.api);
        self.move_to_owner(&request, is_warm_up, &mut tries).await?;
        let profile = Arc::clone(&self.upstream.profile);
        if let Some(turn_state) = &request.ties.turn_state
            && !affinity::may_see_turn_state(&self.proxy.control.state, turn_state, &profile.name)
            && let Some(text) = view.without_turn_state()
        {
            request.raw = mask_text(&text);
        }
        self.to_upstream.push(&request.raw);
        if is_warm_up {
            let mut account =
                Account::open(self.proxy, id, "websocket", Instant::now().into_std(), profile.enter());
            account.commit(101, 1, None);
            self.turn = Turn::Running(Box::new(account));
        } else {
            // The opening of its owner's upstream and the turn on it are one attempt.
            if tries.count() == 0 {
                tries.begin();
            }
            self.hold(request, tries, None);
        }
        Ok(())
    }

    /// Holds the answer to a request that has just been sent to the current upstream.
    fn hold(&mut self, mut request: Request, tries: Tries, best: Option<Best>) {
        if request.ties.response.is_some() {
            // It is never sent again: the client sends its full input instead.
            request.raw = Vec::new();
        }
        let started = Instant::now().into_std();
        let account =
            Account::open(self.proxy, request.id, "websocket", started, self.upstream.profile.enter());
        let hold = self.exchange.routed.client.hold_limit(&self.proxy.control.config);
        let deadline = Instant::now() + hold;
        let frames = Vec::new();
        let held = Held { account, request, frames, frame_start: 0, deadline, tries, best };
        self.turn = Turn::Held(Box::new(held));
    }

    /// Lets the held answer go to the client: the account serves, or nobody does.
    pub(super) fn release(&mut self) {
        let Turn::Held(held) = std::mem::replace(&mut self.turn, Turn::Idle) else { return };
        let Held { mut account, request, frames, tries, .. } = *held;
        let has_failed = matches!(account.terminal(), Some(EventKind::Failed | EventKind::Error));
        if !has_failed {
            let session = request.ties.session.as_deref();
            if let Some(session) = session {
                self.proxy.record_migration(request.id, session, account.profile());
            }
            account.bind_session(session);
        }
        account.commit(101, tries.count(), None);
        account.forwarded(frames.len());
        self.to_client.close_until(account.gate());
        crash::point("turn.release");
        self.to_client.push(&frames);
        self.turn = Turn::Running(Box::new(account));
    }

    /// Brings the request to the upstream that should have it: its owner's, or, when it has none and the
    /// current account is used up, that of one which is ready.
    async fn move_to_owner(
        &mut self,
        request: &Request,
        is_warm_up: bool,
        tries: &mut Tries,
    ) -> Result<(), Outcome> {
        let owner = affinity::owner(&self.proxy.control.state, &request.ties);
        let api = self.exchange.routed.api;
        let mut snapshot = self.proxy.snapshot(api);
        let here = Arc::clone(&self.upstream.profile.name);
        let target = match owner {
            // Only the account that has the response can continue it.
            Some(owner) if request.ties.response.is_some() => owner.profile,
            None if request.ties.response.is_some() || is_warm_up => return Ok(()),
            owner => {
                snapshot.here = Some(Arc::clone(&here));
                let chosen = self.proxy.choose(
                    self.exchange,
                    request.id,
                    snapshot,
                    owner.as_ref(),
                    request.may_move,
                    tries,
                );
                chosen.map_or_else(|_| Arc::clone(&here), |profile| Arc::clone(&profile.name))
            }
        };
        if target == here {
            return Ok(());
        }
        let Some(profile) = self.proxy.profiles.get(&target).map(Arc::clone) else { return Ok(()) };
        if self.replace_upstream(&profile, request.id, tries).await? {
            Ok(())
        } else {
            Err(Outcome::UpstreamCut)
        }
    }

    /// Opens a WebSocket to a profile's upstream in the place of the one in use, for the turn `id`. Says
    /// whether it did; if not, the profile counts as tried.
    ///
    /// # Errors
    /// When the client goes away meanwhile.
    async fn replace_upstream(
        &mut self,
        profile: &Arc<Profile>,
        id: u64,
        tries: &mut Tries,
    ) -> Result<bool, Outcome> {
        while !tries.tried().contains(&profile.name) {
            tries.begin();
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
                    tries.refuse(profile, &Refusal::Auth);
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
        let best = if is_better { Some(Best { refusal, frames, account }) } else { best };
        if let Some(response) = &request.ties.response {
            if self.next_profile(&request, &tries).is_some() {
                self.inject_not_found(id, response);
                return Ok(());
            }
        } else {
            while let Some(next) = self.next_profile(&request, &tries).filter(|_| !tries.are_spent()) {
                if self.replace_upstream(&next, id, &mut tries).await? {
                    self.send_again(request, tries, best);
                    return Ok(());
                }
            }
        }
        self.pass_best(request, tries, best)
    }

    /// Sends a request that was refused to the upstream that has taken the refusing one's place.
    fn send_again(&mut self, mut request: Request, tries: Tries, best: Option<Best>) {
        let here = &self.upstream.profile.name;
        if let Some(turn_state) = &request.ties.turn_state
            && !affinity::may_see_turn_state(&self.proxy.control.state, turn_state, here)
            && let Some(text) = text_of(&request.raw)
            && let Some(text) = RequestView::new(&text).without_turn_state()
        {
            request.raw = mask_text(&text);
        }
        self.to_upstream.push(&request.raw);
        self.hold(request, tries, best);
    }

    /// Lets the client have the best of the refusals.
    fn pass_best(&mut self, request: Request, tries: Tries, best: Option<Best>) -> Result<(), Outcome> {
        // Without one that is for the client it connects anew.
        let Some(Best { frames, account, .. }) = best else { return Err(Outcome::UpstreamCut) };
        let (id, profile) = (request.id, (&**account.profile()).into());
        let passed = RunEvent::UpstreamUsageLimitPassthrough { request: id, profile, status: 101 };
        self.proxy.control.log.record(&passed);
        let deadline = Instant::now();
        let held = Held { account, request, frames, frame_start: 0, deadline, tries, best: None };
        self.turn = Turn::Held(Box::new(held));
        self.release();
        // A refusal is all that there is of its response.
        end(&mut self.turn);
        Ok(())
    }

    /// The profile that could have the held turn next: the one that refused it, if its token was just
    /// renewed, because the conversation is its own, and else the best. For a request that continues a response any that is ready will do: the client sends
    /// its full input first, and then it is decided.
    fn next_profile(&self, request: &Request, tries: &Tries) -> Option<Arc<Profile>> {
        let snapshot = self.proxy.snapshot(self.exchange.routed.api);
        let is_open = |name: &Arc<str>| !tries.tried().contains(name);
        let is_ready = |candidate: &Candidate<'_>| {
            candidate.state(CircuitOf::Websocket) == State::Ready && is_open(candidate.name())
        };
        let here = &self.upstream.profile;
        if request.ties.response.is_none() && !request.may_move {
            return is_open(&here.name).then(|| Arc::clone(here));
        }
        if snapshot.get(&here.name).filter(is_ready).is_some() {
            return Some(Arc::clone(here));
        }
        let ready = snapshot.candidates().filter(is_ready);
        let best = ready.min_by_key(|candidate| rank(candidate, State::Ready))?;
        self.proxy.profiles.get(best.name()).map(Arc::clone)
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
        let mut frame = Vec::new();
        encode_text(&error.to_string(), &mut frame);
        self.to_client.push(&frame);
        self.proxy.control.log.record(&RunEvent::PreviousResponseNotFound {
            request,
            profile: (&*self.upstream.profile.name).into(),
            route: "websocket".into(),
            injected: true,
        });
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
