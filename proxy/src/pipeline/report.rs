//! What the pipeline tells: events for the run log, and to a client why nobody can serve it.

use std::sync::Arc;

use wire::route::Api;
use wire::run_event::RunEvent;

use super::{Proxy, milliseconds};
use crate::commit::refusal::Refusal;
use crate::error::{ConnectStep, Error};
use crate::exchange::{Exchange, Ties};
use crate::profile::{Now, Profile};
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
            NoChoice::Owner(owner) => {
                let gone = format!("{owner} is no longer here: add its login under that name again");
                let state = snapshot.get(owner).map(|candidate| describe(owner, candidate.state));
                format!(
                    "this conversation belongs to profile {owner}, and what it holds only that account can read ({})",
                    state.unwrap_or(gone)
                )
            }
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

    /// The error for a request that nobody can serve.
    pub(crate) fn nobody(&self, exchange: &Exchange, none: &NoChoice) -> Error {
        let why = self.explain(exchange, none);
        let NoChoice::Owner(owner) = none else { return Error::NoProfile(why) };
        let now = Now::read();
        let snapshot = Snapshot::take(&self.profiles, exchange.routed.api, now);
        let returns_at = snapshot.get(owner).and_then(|candidate| candidate.state.returns_at());
        let returns_in = returns_at.map(|at| u64::try_from(at.saturating_sub(now.unix)).unwrap_or_default());
        Error::Owned { why, returns_in }
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
        let owner = |tie, id: &Option<String>| self.control.state.owner(tie, id.as_deref()?);
        let from = owner(Tie::Thread, &ties.thread).or_else(|| owner(Tie::Session, &ties.session));
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
