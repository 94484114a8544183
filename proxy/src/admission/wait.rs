//! Waiting for a place: for how long, when it is told, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use wire::run_event::RunEvent;

use super::gate::{Ask, Entry, Gate, Permit, Place, Reason};
use super::{Refused, Subject};
use crate::metrics::Metrics;
use crate::telemetry::RunLog;

/// From when on a wait is worth a line of the log.
const NOTICE: Duration = Duration::from_millis(250);

/// For how long a request may wait, and who is told.
#[derive(Debug, Clone, Copy)]
pub struct Patience<'a> {
    /// How long at most.
    pub limit: Duration,
    /// The run log.
    pub log: &'a RunLog,
    /// Where it is counted that there was no place.
    pub metrics: &'a Metrics,
}

/// Takes a place in flight, or waits for one. A request that is dropped meanwhile leaves the queue at once.
///
/// # Errors
/// When there is no place within the time, or none in the queue; this is logged.
pub async fn enter(
    gate: &Arc<Gate>,
    ask: Ask,
    subject: &Subject,
    patience: Patience<'_>,
) -> Result<Permit, Refused> {
    let waiter = Waiter { gate, ask, subject, patience, started: Instant::now() };
    let entry = gate.enter(ask);
    if !matches!(entry, Ok(Entry::Admitted(_))) {
        waiter.record_saturation();
    }
    let mut place = match entry {
        Ok(Entry::Admitted(permit)) => return Ok(permit),
        Ok(Entry::Waits(place)) => place,
        Err(reason) => return Err(waiter.refuse(reason)),
    };
    let NotYet = match waiter.wait(&mut place, patience.limit.min(NOTICE)).await {
        Ok(admitted) => return admitted.map_err(|reason| waiter.refuse(reason)),
        Err(not_yet) => not_yet,
    };
    let rest = patience.limit.saturating_sub(NOTICE);
    if rest.is_zero() {
        return place.give_up().map_err(|reason| waiter.refuse(reason));
    }
    waiter.record_start(&place);
    let admitted = match waiter.wait(&mut place, rest).await {
        Ok(admitted) => admitted,
        Err(NotYet) => place.give_up(),
    };
    waiter.record_end(admitted.as_ref().err().copied());
    admitted.map_err(|reason| waiter.refuse(reason))
}

/// The time is over and nothing has happened.
struct NotYet;

/// A request that waits.
struct Waiter<'a> {
    gate: &'a Arc<Gate>,
    ask: Ask,
    subject: &'a Subject,
    patience: Patience<'a>,
    started: Instant,
}

impl Waiter<'_> {
    async fn wait(&self, place: &mut Place, limit: Duration) -> Result<Result<Permit, Reason>, NotYet> {
        timeout(limit, place.admitted()).await.map_err(|_| NotYet)
    }

    fn lane(&self) -> &'static str {
        match self.subject {
            Subject::Lane(lane) => lane.name(),
            Subject::Profile(_) => "profile",
            Subject::Sockets => "sockets",
        }
    }

    fn profile(&self) -> Option<wire::run_event::Text<'_>> {
        match self.subject {
            Subject::Profile(name) => Some((&**name).into()),
            Subject::Lane(_) | Subject::Sockets => None,
        }
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Says so when it is a profile that has no room.
    fn record_saturation(&self) {
        if let Some(profile) = self.profile() {
            let (request, active, limit) = (self.ask.request, self.gate.active(), self.gate.limit());
            let log = self.patience.log;
            log.record(&RunEvent::ProfileInflightSaturated { request, profile, active, limit });
        }
    }

    fn record_start(&self, place: &Place) {
        self.patience.log.record(&RunEvent::RuntimeProxyAdmissionWaitStarted {
            request: self.ask.request,
            lane: self.lane().into(),
            profile: self.profile(),
            position: place.position(),
            waiting: self.gate.waiting().0,
        });
    }

    fn record_end(&self, refused: Option<Reason>) {
        let (request, lane, profile, ms) = (self.ask.request, self.lane().into(), self.profile(), self.ms());
        self.patience.log.record(&match refused {
            None => RunEvent::RuntimeProxyAdmissionWaitRecovered { request, lane, profile, ms },
            Some(_) => RunEvent::RuntimeProxyAdmissionWaitExhausted { request, lane, profile, ms },
        });
    }

    /// Makes the refusal, and logs which limit it comes from.
    fn refuse(&self, reason: Reason) -> Refused {
        self.patience.metrics.not_admitted(self.subject, reason);
        let (active, limit) = match reason {
            Reason::Active => (self.gate.active(), self.gate.limit()),
            Reason::Lane => self.gate.lane(self.ask.lane),
            Reason::Queue | Reason::Displaced | Reason::Pressure => self.gate.waiting(),
        };
        let (request, lane) = (self.ask.request, self.lane().into());
        let event = match reason {
            // A profile without room has been told when it had none.
            Reason::Active | Reason::Lane if self.profile().is_some() => None,
            Reason::Active => Some(RunEvent::RuntimeProxyActiveLimitReached { request, lane, active, limit }),
            Reason::Lane => Some(RunEvent::RuntimeProxyLaneLimitReached { request, lane, active, limit }),
            Reason::Pressure => Some(RunEvent::CompactPressureShed { request, waiting: active }),
            Reason::Queue | Reason::Displaced => {
                let (waiting, displaced) = (active, reason == Reason::Displaced);
                Some(RunEvent::RuntimeProxyQueueOverloaded { request, lane, waiting, limit, displaced })
            }
        };
        event.inspect(|event| self.patience.log.record(event));
        let waited = if reason == Reason::Pressure { Duration::ZERO } else { self.started.elapsed() };
        Refused { subject: self.subject.clone(), reason, active, limit, waited: round(waited) }
    }
}

/// Less than a moment is no wait.
fn round(waited: Duration) -> Duration {
    if waited < NOTICE { Duration::ZERO } else { waited }
}
