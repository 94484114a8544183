//! Who may be in flight: a place among all requests, and one among those of the profile that serves.
//!
//! The first is taken before the body is read, the second before the profile is tried.

use std::sync::Arc;

use wire::http1::RequestHead;
use wire::responses::{TURN_METADATA, is_of_compaction};
use wire::run_event::RunEvent;

use super::Proxy;
use crate::admission::gate::{Ask, Gate};
use crate::admission::{self, Patience, Permit, Rank, Subject};
use crate::error::Error;
use crate::exchange::Ties;
use crate::profile::{InFlight, Profile};
use crate::route::Lane;
use crate::selection::affinity;

impl Proxy {
    /// Admits a request, before its body is read: what is held in memory is bounded by that. Whether it
    /// continues a conversation is therefore told by its head alone.
    ///
    /// # Errors
    /// When there is no place within the time for waiting, which is logged, or the proxy drains.
    pub async fn admit(&self, request: u64, lane: Lane, head: &RequestHead) -> Result<Permit, Error> {
        let (gate, index) = self.admission.gate(lane);
        if let Some(permit) = gate.try_enter(index) {
            return Ok(permit);
        }
        let ties = Ties::read(head, None);
        affinity::recall(&self.control.state, &ties).await;
        // The route of its own is that of older clients; the others say it beside the turn's other data.
        let is_compaction = lane == Lane::Compact || head.get(TURN_METADATA).is_some_and(is_of_compaction);
        let rank = Rank::new(is_compaction, self.continues(&ties));
        Box::pin(self.wait(gate, Ask { request, lane: index, rank }, Subject::Lane(lane))).await
    }

    /// Admits an upgrade to a WebSocket, on which nothing runs yet. Nobody waits for that: a client that is
    /// refused asks over HTTP.
    ///
    /// # Errors
    /// When as many as allowed are open, which is logged.
    pub fn admit_socket(&self, request: u64) -> Result<Permit, Error> {
        self.admission.open_socket().map_err(|refused| {
            let (active, limit) = (refused.active, refused.limit);
            self.control.metrics.not_admitted(&refused.subject, refused.reason);
            let lane = "sockets".into();
            self.control.log.record(&RunEvent::RuntimeProxyLaneLimitReached { request, lane, active, limit });
            Error::Busy(refused)
        })
    }

    /// Admits a turn on a WebSocket.
    ///
    /// # Errors
    /// As for a request.
    pub(crate) async fn admit_turn(&self, request: u64, ties: &Ties) -> Result<Permit, Error> {
        let (gate, index) = self.admission.gate(Lane::Websocket);
        if let Some(permit) = gate.try_enter(index) {
            return Ok(permit);
        }
        let rank = Rank::new(ties.is_compaction, self.continues(ties));
        let ask = Ask { request, lane: index, rank };
        Box::pin(self.wait(gate, ask, Subject::Lane(Lane::Websocket))).await
    }

    /// Takes a place among the requests that a profile serves.
    ///
    /// # Errors
    /// As for a request.
    pub(crate) async fn seat(
        &self,
        request: u64,
        ties: &Ties,
        profile: &Arc<Profile>,
    ) -> Result<InFlight, Error> {
        if let Some(seat) = profile.try_enter() {
            return Ok(seat);
        }
        let ask = Ask { request, lane: 0, rank: Rank::new(ties.is_compaction, self.continues(ties)) };
        let subject = Subject::Profile(Arc::clone(&profile.name));
        let waited = Box::pin(self.wait(&profile.gate, ask, subject)).await;
        waited.map(|permit| profile.admitted(permit))
    }

    async fn wait(&self, gate: &Arc<Gate>, ask: Ask, subject: Subject) -> Result<Permit, Error> {
        let config = &self.control.config;
        let is_side = subject == Subject::Lane(Lane::Standard);
        // Unanswered, a call beside the turns keeps a turn waiting.
        let most = if is_side { config.side_response_timeout } else { config.admission_wait };
        let (log, metrics) = (&self.control.log, &self.control.metrics);
        let patience = Patience { limit: config.admission_wait.min(most), log, metrics };
        tokio::select! {
            entered = admission::enter(gate, ask, &subject, patience) => entered.map_err(Error::Busy),
            () = self.draining.cancelled() => Err(Error::Draining),
        }
    }

    /// Whether a request belongs to a conversation that has begun.
    fn continues(&self, ties: &Ties) -> bool {
        affinity::continues(&self.control.state, ties)
    }
}
