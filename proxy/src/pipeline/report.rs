//! What the pipeline tells: events for the run log, and to a client why nobody can serve it.

use std::sync::Arc;
use std::time::Instant;

use wire::route::Api;
use wire::run_event::{CircuitOf, RunEvent};

use super::{Proxy, Tries, milliseconds};
use crate::commit::refusal::Refusal;
use crate::error::{ConnectStep, Error};
use crate::exchange::{Exchange, Ties};
use crate::profile::quota::Length;
use crate::profile::{Now, Profile};
use crate::route::Lane;
use crate::selection::{
    Candidate, Choice, FLOOR, NoChoice, Reason, Snapshot, State, Wanted, trace, why_not_kept,
};
use crate::state::{Digest, Tie};

impl Proxy {
    /// Says why no profile can serve: each with what is against it and when it comes back.
    pub(super) fn explain(&self, exchange: &Exchange, none: &NoChoice) -> String {
        let snapshot = self.snapshot(exchange.routed.api);
        let route = CircuitOf::route(exchange.routed.name());
        if snapshot.standings.is_empty() {
            let kind = match exchange.routed.api {
                Api::Chatgpt => "a ChatGPT login",
                Api::OpenAi => "an OpenAI API key",
            };
            return format!("there is no profile with {kind}; add one with `prodex profile add` or `import`");
        }
        let describe = |candidate: Candidate<'_>| {
            let name = candidate.name();
            match candidate.state(route) {
                State::Ready if candidate.is_full() => {
                    format!("{name} serves {} requests", candidate.in_flight)
                }
                State::Ready | State::HalfOpen | State::Probing => format!("{name} refused"),
                State::Exhausted(until) => format!("{name} is used up until {}", time(until)),
                State::Backoff(until) => format!("{name} refused and is left out until {}", time(until)),
                State::Parked => {
                    let profile = self.profiles.get(name);
                    let why = profile.and_then(|profile| profile.health().parked().map(str::to_owned));
                    format!("{name}: {}", why.unwrap_or_default())
                }
                State::Paused => match candidate.standing.paused_until {
                    Some(until) => format!("{name} is paused until {}", time(until)),
                    None => format!("{name} is paused; `prodex profile resume {name}` ends that"),
                },
                State::OutOfScope => format!("{name} may not be used here"),
            }
        };
        let all = snapshot.candidates().map(describe).collect::<Vec<_>>().join("; ");
        match none {
            NoChoice::Owner(owner) => {
                let gone = format!("{owner} is no longer here: add its login under that name again");
                let state = snapshot.get(owner).map(describe).unwrap_or(gone);
                format!(
                    "this conversation belongs to profile {owner}, and what it holds only that account can read ({state})"
                )
            }
            _ => format!("no profile can serve this request ({all})"),
        }
    }

    /// Logs which profile was chosen from what, and which owner or current one was left out for it.
    pub(super) fn record_choice(
        &self,
        exchange: &Exchange,
        request: u64,
        snapshot: &Snapshot,
        wanted: &Wanted<'_>,
        result: &Result<Choice, NoChoice>,
    ) {
        let log = &self.control.log;
        let number = self.trace.write(log, exchange.routed.api, snapshot);
        let basis = trace::basis(number, snapshot, wanted, result);
        let route = exchange.routed.name().into();
        let choice = match result {
            Ok(choice) => choice,
            Err(none) => {
                let reason = none.name().into();
                return log.record(&RunEvent::SelectionNone { request, route, reason, basis });
            }
        };
        let profile = (&*choice.profile).into();
        if let Some(owner) = wanted.owner.filter(|owner| owner.profile != choice.profile) {
            let state = snapshot.get(&owner.profile).map(|candidate| candidate.state(wanted.route));
            let (profile, affinity) = ((&*owner.profile).into(), owner.tie.name().into());
            let reason = state.map_or("gone", State::name).into();
            log.record(&RunEvent::SelectionSkipAffinity { request, profile, affinity, reason });
        } else if matches!(choice.reason, Reason::Ranked | Reason::Queue | Reason::LastResort)
            && wanted.tried.is_empty()
        {
            self.record_skipped_current(exchange, request, snapshot, wanted, choice);
        }
        log.record(&match choice.reason {
            Reason::Affinity(tie) => {
                let affinity = tie.name().into();
                RunEvent::SelectionKeepAffinity { request, route, profile, affinity, basis }
            }
            Reason::Current => RunEvent::SelectionKeepCurrent { request, route, profile, basis },
            reason => {
                let (reason, candidates) = (reason.name().into(), snapshot.standings.len());
                RunEvent::SelectionPick { request, route, profile, reason, candidates, basis }
            }
        });
    }

    /// Says why a fresh request does not stay with the profile that served last, or that its WebSocket leads to.
    /// That this one has refused this very request is told already.
    fn record_skipped_current(
        &self,
        exchange: &Exchange,
        request: u64,
        snapshot: &Snapshot,
        wanted: &Wanted<'_>,
        choice: &Choice,
    ) {
        let current = snapshot.here.as_ref().or(snapshot.current.as_ref());
        let current = current.filter(|current| **current != choice.profile);
        let Some(current) = current.and_then(|name| snapshot.get(name)) else { return };
        let Some(reason) = why_not_kept(snapshot, wanted, &current) else { return };
        let (log, profile) = (&self.control.log, || (&**current.name()).into());
        let Some(window) = current.tightest().filter(|_| reason == FLOOR) else {
            let (profile, reason) = (profile(), reason.into());
            return log.record(&RunEvent::SelectionSkipCurrent { request, profile, reason });
        };
        let band = || current.band().name().into();
        log.record(&RunEvent::QuotaCriticalFloorBeforeSend {
            request,
            route: exchange.routed.name().into(),
            profile: profile(),
            reason: band(),
            window: window.seconds.map(|seconds| Length::Seconds(seconds).label().into()),
            remaining: window.remaining,
            source: window.source.name().into(),
            age_s: u64::try_from(snapshot.at.saturating_sub(window.observed_at)).unwrap_or_default(),
        });
        log.record(&if exchange.routed.lane == Lane::Websocket {
            RunEvent::WebsocketPreSendSkip { request, profile: profile(), reason: band() }
        } else {
            RunEvent::ResponsesPreSendSkip { request, profile: profile(), reason: band() }
        });
    }

    /// Remembers a refusal, so that the next request does not meet it too.
    pub fn note_refusal(&self, request: u64, route: &str, profile: &Profile, refusal: &Refusal) {
        let (now, log) = (Now::read(), &self.control.log);
        let name = &*profile.name;
        let route = CircuitOf::route(route);
        match refusal {
            Refusal::Quota { code, resets_at } => {
                let until = profile.quota().exhaust(*resets_at, now);
                let (profile, code) = (name.into(), code.as_str().into());
                log.record(&RunEvent::ProfileQuotaQuarantine { request, profile, code, until });
            }
            Refusal::Auth => {
                let until = profile.health().refuse(CircuitOf::Credentials, now);
                let (profile, reason) = (name.into(), "auth".into());
                log.record(&RunEvent::ProfileRetryBackoff { request, profile, reason, until });
            }
            Refusal::Account { code } => {
                let mut health = profile.health();
                let until = health.refuse(route, now);
                let serves = health.serves_other(route, now.instant);
                drop(health);
                let (of, code) = (route.name(), code.as_str().into());
                let (route, profile) = (of.into(), name.into());
                log.record(&RunEvent::ProfileCircuitOpen { request, profile, route, code, until });
                if let Some(serves) = serves {
                    let (profile, route, serves) = (name.into(), of.into(), serves.name().into());
                    log.record(&RunEvent::ProfileBadPairing { request, profile, route, serves });
                }
            }
            // Says nothing about the account.
            Refusal::Overload | Refusal::NotFound | Refusal::Unreadable => {}
        }
        // A killed proxy does not forget who refused.
        profile.keep(&self.control.state);
    }

    /// Takes note that a profile served a call that began at `started`.
    pub fn note_success(&self, request: u64, route: &str, profile: &Profile, started: Instant) {
        let mut closed = profile.health().serve(CircuitOf::route(route), started).peekable();
        if closed.peek().is_some() {
            profile.keep(&self.control.state);
        }
        for of in closed {
            let (profile, route) = ((&*profile.name).into(), of.name().into());
            let state = "closed".into();
            self.control.log.record(&RunEvent::ProfileHealth { request, profile, route, state });
        }
    }

    /// The error for a request that nobody can serve.
    pub(crate) fn nobody(&self, exchange: &Exchange, none: &NoChoice) -> Error {
        let why = self.explain(exchange, none);
        let NoChoice::Owner(owner) = none else { return Error::NoProfile(why) };
        let snapshot = self.snapshot(exchange.routed.api);
        let route = CircuitOf::route(exchange.routed.name());
        let state = snapshot.get(owner).map(|candidate| candidate.state(route));
        Error::Owned { why, retry_in: state.and_then(|state| retry_in(state, snapshot.at)) }
    }

    /// Says what became of a compaction, or of what follows one.
    pub(crate) fn record_compaction(&self, request: u64, ties: &Ties, profile: &str) {
        if ties.is_compaction {
            self.control.log.record(&RunEvent::CompactCommittedOwner { request, profile: profile.into() });
        }
        if ties.has_compaction {
            self.control.log.record(&RunEvent::CompactFollowupOwner { request, profile: profile.into() });
        }
    }

    /// Says so when a compaction, or what follows one, is held by an owner that does not serve it.
    pub(crate) fn record_blocked_compaction(&self, request: u64, ties: &Ties, owner: &str) {
        if ties.is_compaction || ties.has_compaction {
            let profile = owner.into();
            self.control.log.record(&RunEvent::CompactFreshFallbackBlocked { request, profile });
        }
    }

    /// Says so when a request ends because there may be no more attempts, or none so late.
    pub(crate) fn record_budget(&self, request: u64, tries: &Tries) {
        if tries.are_over_budget() {
            let (attempts, ms) = (tries.count(), milliseconds(tries.age()));
            self.control.log.record(&RunEvent::PrecommitBudgetExhausted { request, attempts, ms });
        }
    }

    /// Logs a refusal that goes to the client, because no other profile may serve.
    pub(crate) fn record_passed(&self, request: u64, profile: &str, refusal: &Refusal, status: u16) {
        let stale = |reason: &'static str| RunEvent::StaleContinuation {
            request,
            profile: profile.into(),
            reason: reason.into(),
        };
        self.control.log.record(&match refusal {
            Refusal::NotFound => stale("previous_response_not_found"),
            Refusal::Unreadable => stale("invalid_encrypted_content"),
            _ => RunEvent::UpstreamUsageLimitPassthrough { request, profile: profile.into(), status },
        });
    }

    /// Says so when a conversation moves to another account.
    pub(crate) fn record_migration(&self, request: u64, ties: &Ties, to: &Arc<str>) {
        let owner = |tie, id: Option<Digest>| self.control.state.owner_of(tie, &id?);
        let from = owner(Tie::Thread, ties.thread).or_else(|| owner(Tie::Session, ties.session));
        if let Some(from) = from.filter(|from| from != to) {
            let (from, to) = ((&*from).into(), (&**to).into());
            self.control.log.record(&RunEvent::ContinuationMigrated { request, from, to });
        }
    }

    /// Logs an attempt that got no response.
    pub(crate) fn record_failure(&self, request: u64, profile: &Profile, error: &Error) {
        let log = &self.control.log;
        if let Error::Connect { origin, pause: Some(pause), .. } = error {
            let (profile, origin, ms) = ((&*profile.name).into(), origin.into(), milliseconds(*pause));
            log.record(&RunEvent::ProfileTransportBackoff { request, profile, origin, ms });
        }
        let profile = (&*profile.name).into();
        let text = error.to_string().into();
        log.record(&match error {
            // Nothing was tried.
            Error::Connect { step: ConnectStep::Backoff, .. } => return,
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

/// Longest pause that a client is asked for, in seconds. Codex 0.169 obeys any, up to 30 times, and says nothing.
const LONGEST_RETRY: u64 = 30;

/// In how many seconds it makes sense to ask an owner in this state again, if that is known. A backoff may end
/// before its time. A quota does not, so waiting for a reset that is far would only hide the message, which names
/// it: there the client is to come to its end soon.
fn retry_in(state: State, now: i64) -> Option<u64> {
    let seconds = u64::try_from(state.returns_at()?.saturating_sub(now)).unwrap_or_default();
    match state {
        State::Exhausted(_) => Some(seconds).filter(|seconds| *seconds <= LONGEST_RETRY),
        _ => Some(seconds.min(LONGEST_RETRY)),
    }
}

/// A time for people.
fn time(unix: i64) -> String {
    let time = jiff::Timestamp::from_second(unix).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_to_wait_in_silence() {
        let cases = [
            (State::Backoff(1010), Some(10)),
            (State::Backoff(1960), Some(30)),
            (State::Exhausted(1020), Some(20)),
            (State::Exhausted(9000), None),
            (State::Probing, Some(0)),
            (State::Parked, None),
        ];
        for (state, expected) in cases {
            assert_eq!(retry_in(state, 1000), expected, "{state:?}");
        }
    }
}
