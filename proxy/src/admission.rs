//! How many requests may be in flight: a permit for each, held to its last byte.
//!
//! Model calls and side routes have gates of their own, which together allow `max_active`: neither can take
//! the other's places. A WebSocket holds a place among the WebSockets while it is open, and one among the
//! model calls only while a turn runs on it. Who finds no room waits, for a bounded time in a bounded queue
//! (`gate`); `wait` is what waiting is for a request: logged, cut by the drain, and told in the refusal.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::route::Lane;

pub mod gate;

mod wait;

use gate::{Gate, Reason};
pub use gate::{Permit, Rank};
pub use wait::{Patience, enter};

/// The gates of a run.
#[derive(Debug)]
pub struct Admission {
    /// Turns over HTTP, compactions, and turns on WebSockets: a lane for each, in this order.
    model: Arc<Gate>,
    /// Everything else.
    side: Arc<Gate>,
    /// Open WebSockets, busy or not. Nobody waits here.
    sockets: Arc<Gate>,
}

impl Admission {
    /// Gates with the limits of these settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let limits = config.lane_limits();
        let model = limits.active - limits.standard;
        let lanes = [limits.responses, limits.compact, limits.websocket].map(|limit| limit.min(model));
        Self {
            model: Gate::new(model, &lanes, config.max_waiting),
            side: Gate::new(limits.standard, &[limits.standard], config.max_waiting),
            sockets: Gate::new(config.max_websockets, &[config.max_websockets], 0),
        }
    }

    /// How many requests and turns are in flight.
    #[must_use]
    pub fn active(&self) -> usize {
        self.model.active() + self.side.active()
    }

    /// How many WebSockets are open, busy or not.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.sockets.active()
    }

    /// The gate that a lane's requests pass, and which of its lanes it is.
    #[must_use]
    pub fn gate(&self, lane: Lane) -> (&Arc<Gate>, usize) {
        match lane {
            Lane::Responses => (&self.model, 0),
            Lane::Compact => (&self.model, 1),
            Lane::Websocket => (&self.model, 2),
            Lane::Standard => (&self.side, 0),
        }
    }

    /// Takes the place of an open WebSocket.
    ///
    /// # Errors
    /// When as many as allowed are open.
    pub fn open_socket(&self) -> Result<Permit, Refused> {
        self.sockets.try_enter(0).ok_or_else(|| {
            let (active, limit) = self.sockets.lane(0);
            let subject = Subject::Sockets;
            Refused { subject, reason: Reason::Active, active, limit, waited: Duration::ZERO }
        })
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// That of a lane, or of the gate that it belongs to.
    Lane(Lane),
    /// That of a profile.
    Profile(Arc<str>),
    /// That of the WebSockets.
    Sockets,
}

/// Why a request is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Whose limit it is.
    pub subject: Subject,
    /// What about it.
    pub reason: Reason,
    /// How many are in flight, or wait, where there is no room.
    pub active: usize,
    /// How many may.
    pub limit: usize,
    /// For how long it has waited.
    pub waited: Duration,
}

impl Refused {
    /// The setting that the limit comes from.
    fn setting(&self) -> &'static str {
        match (&self.subject, self.reason) {
            (_, Reason::Queue | Reason::Displaced | Reason::Pressure) => "max_waiting",
            (Subject::Profile(_), _) => "profile_hard_limit",
            (Subject::Sockets, _) => "max_websockets",
            (Subject::Lane(Lane::Standard), _) => "max_standard",
            (Subject::Lane(_), Reason::Active) => "max_active, less max_standard",
            (Subject::Lane(Lane::Responses), _) => "max_responses",
            (Subject::Lane(Lane::Compact), _) => "max_compact",
            (Subject::Lane(Lane::Websocket), _) => "max_websocket_turns",
        }
    }

    /// The WebSockets are the only ones whose client has another way to ask.
    #[must_use]
    pub fn is_of_sockets(&self) -> bool {
        self.subject == Subject::Sockets
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { active, limit, waited, .. } = self;
        let what = match (&self.subject, self.reason) {
            (Subject::Lane(Lane::Standard), _) => "calls beside the turns",
            (Subject::Lane(_), Reason::Active) => "model calls",
            (Subject::Lane(lane), _) => match lane {
                Lane::Responses => "turns",
                Lane::Compact => "compactions",
                Lane::Websocket => "turns on WebSockets",
                Lane::Standard => "calls beside the turns",
            },
            (Subject::Profile(_), _) => "requests",
            (Subject::Sockets, _) => "WebSockets",
        };
        if let Subject::Profile(name) = &self.subject {
            write!(formatter, "profile {name}: ")?;
        }
        match self.reason {
            Reason::Active | Reason::Lane => {
                write!(formatter, "{active} {what} are in flight, and {limit} may be ({})", self.setting())?;
                if waited.is_zero() {
                    return Ok(());
                }
                write!(formatter, "; none ended within {:.1} s", waited.as_secs_f64())
            }
            Reason::Queue => {
                write!(formatter, "{active} requests wait for a place, and {limit} may ({})", self.setting())
            }
            Reason::Displaced => {
                let setting = self.setting();
                write!(formatter, "a conversation that goes on took its place in the queue ({setting})")
            }
            Reason::Pressure => {
                write!(formatter, "{active} turns wait for a place, and compactions give way to them")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_there_is_no_room_for_and_the_setting() {
        let waited = Duration::from_secs(20);
        let refused =
            |subject, reason, waited| Refused { subject, reason, active: 8, limit: 7, waited }.to_string();
        let texts = [
            refused(Subject::Lane(Lane::Responses), Reason::Active, waited),
            refused(Subject::Lane(Lane::Websocket), Reason::Lane, Duration::ZERO),
            refused(Subject::Lane(Lane::Standard), Reason::Active, Duration::ZERO),
            refused(Subject::Lane(Lane::Compact), Reason::Pressure, Duration::ZERO),
            refused(Subject::Lane(Lane::Responses), Reason::Queue, Duration::ZERO),
            refused(Subject::Lane(Lane::Responses), Reason::Displaced, waited),
            refused(Subject::Profile("work".into()), Reason::Active, waited),
            refused(Subject::Sockets, Reason::Active, Duration::ZERO),
        ];
        insta::assert_snapshot!(texts.join("\n"));
    }
}
