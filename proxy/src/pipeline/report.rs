//! What the pipeline tells: events for the run log, and to a client why nobody can serve it.

use std::sync::Arc;

use wire::route::Api;
use wire::run_event::RunEvent;

use super::{Proxy, milliseconds};
use crate::error::{ConnectStep, Error};
use crate::exchange::Exchange;
use crate::profile::{Now, Profile};
use crate::route::Lane;
use crate::selection::{Choice, NoChoice, Owner, Reason, Snapshot, State};
use crate::state::Tie;

impl Proxy {
    /// Says why no profile can serve: each with what is against it and when it comes back.
    pub(super) fn explain(&self, exchange: &Exchange, none: &NoChoice) -> String {
        let snapshot = Snapshot::take(&self.profiles, exchange.routed.api, Now::read());
        if snapshot.candidates.is_empty() {
            let kind = match exchange.routed.api {
                Api::Chatgpt => "a ChatGPT login",
                Api::OpenAi => "an OpenAI API key",
            };
            return format!("there is no profile with {kind}; add one with `prodex profile add` or `import`");
        }
        let describe = |name: &str, state: State| match state {
            State::Ready => format!("{name} refused"),
            State::Exhausted(until) => format!("{name} is used up until {}", time(until)),
            State::Backoff(until) => format!("{name} refused and is left out until {}", time(until)),
            State::Parked => {
                let profile = self.profiles.get(name);
                let why = profile.and_then(|profile| profile.health().parked().map(str::to_owned));
                format!("{name}: {}", why.unwrap_or_default())
            }
        };
        let all: Vec<String> =
            snapshot.candidates.iter().map(|candidate| describe(&candidate.name, candidate.state)).collect();
        match none {
            NoChoice::Owner(owner) => format!(
                "this conversation belongs to profile {owner}, and what it holds only that account can read ({})",
                all.join("; ")
            ),
            _ => format!("no profile can serve this request ({})", all.join("; ")),
        }
    }

    /// Logs which profile was chosen, and which owner was left out for it.
    pub(super) fn record_choice(
        &self,
        exchange: &Exchange,
        request: u64,
        snapshot: &Snapshot,
        owner: Option<&Owner>,
        choice: &Choice,
    ) {
        let route = exchange.routed.name().into();
        let profile = (&*choice.profile).into();
        let candidates = snapshot.candidates.len();
        let log = &self.control.log;
        if let Some(owner) = owner.filter(|owner| owner.profile != choice.profile) {
            let reason = snapshot.get(&owner.profile).map_or("gone", |candidate| candidate.state.name());
            log.record(&RunEvent::SelectionSkipAffinity {
                request,
                profile: (&*owner.profile).into(),
                affinity: owner.tie.name().into(),
                reason: reason.into(),
            });
        }
        log.record(&match choice.reason {
            Reason::Affinity(tie) => {
                RunEvent::SelectionKeepAffinity { request, route, profile, affinity: tie.name().into() }
            }
            Reason::Current => RunEvent::SelectionKeepCurrent { request, route, profile },
            reason => {
                let reason = reason.name().into();
                RunEvent::SelectionPick { request, route, profile, reason, candidates }
            }
        });
    }

    /// Says so when a fresh request leaves the profile that served last because there is all but nothing
    /// left of its quota.
    pub(super) fn record_floor(
        &self,
        exchange: &Exchange,
        request: u64,
        snapshot: &Snapshot,
        choice: &Choice,
    ) {
        let left = snapshot.current.as_deref().filter(|current| *current != &*choice.profile);
        let Some(profile) = left.and_then(|left| self.profiles.get(left)) else { return };
        let Some(floor) = profile.quota().floor(Now::read()) else { return };
        let (name, reason) = (|| (&*profile.name).into(), || floor.band.name().into());
        self.control.log.record(&RunEvent::QuotaCriticalFloorBeforeSend {
            request,
            route: exchange.routed.name().into(),
            profile: name(),
            reason: reason(),
            window: floor.window.as_ref().map(|window| window.length.label().into()),
            remaining: floor.remaining,
            source: floor.source.name().into(),
            age_s: floor.age.as_secs(),
        });
        self.control.log.record(&if exchange.routed.lane == Lane::Websocket {
            RunEvent::WebsocketPreSendSkip { request, profile: name(), reason: reason() }
        } else {
            RunEvent::ResponsesPreSendSkip { request, profile: name(), reason: reason() }
        });
    }

    /// Says so when a conversation moves to another account.
    pub(crate) fn record_migration(&self, request: u64, session: &str, to: &Arc<str>) {
        let from = self.bindings.owner(Tie::Session, session);
        if let Some(from) = from.filter(|from| from != to) {
            let (from, to) = ((&*from).into(), (&**to).into());
            self.control.log.record(&RunEvent::ContinuationMigrated { request, from, to });
        }
    }

    /// Logs an attempt that got no response.
    pub(crate) fn record_failure(&self, request: u64, profile: &Profile, error: &Error) {
        let profile = (&*profile.name).into();
        let text = error.to_string().into();
        self.control.log.record(&match error {
            Error::Connect { step: ConnectStep::Resolve, .. } => {
                RunEvent::UpstreamConnectDnsError { request, profile, error: text }
            }
            Error::Connect { step: ConnectStep::Tls, .. } => {
                RunEvent::UpstreamTlsHandshakeError { request, profile, error: text }
            }
            Error::Connect { step: ConnectStep::Timeout, .. } => RunEvent::UpstreamConnectTimeout {
                request,
                profile,
                ms: milliseconds(self.control.config.connect_timeout),
            },
            Error::Connect { .. } => RunEvent::UpstreamConnectError { request, profile, error: text },
            _ => RunEvent::StreamReadError { request, profile, error: text },
        });
    }
}

/// A time for people.
fn time(unix: i64) -> String {
    let time = jiff::Timestamp::from_second(unix).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
