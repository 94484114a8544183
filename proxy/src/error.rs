//! What can go wrong with a request: on whose side, and whether another profile may be tried.
//!
//! That decides the reply and the rotation; nothing matches on text. Replies are made in `reply`.

use std::borrow::Cow;
use std::time::Duration;

use crate::admission::Refused;

/// On whose side something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The request cannot be served as it is.
    Client,
    /// The proxy cannot serve it now.
    Local,
    /// An upstream did not answer as it should.
    Upstream,
}

/// Why a request is not served by an upstream's response.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The request is not one that this proxy takes: its form, its sender or its path.
    #[error("{reason}")]
    Refused {
        /// The status of the reply.
        status: u16,
        /// What is wrong, for the person at the client.
        reason: Cow<'static, str>,
    },
    /// As many requests as allowed are in flight.
    #[error("{0}")]
    Busy(Refused),
    /// There is no profile that could be tried.
    #[error("{0}")]
    NoProfile(String),
    /// The profile that owns the conversation cannot serve, and nobody else can read what it holds.
    #[error("{why}")]
    Owned {
        /// Who owns it, and what is to be done.
        why: String,
        /// In how many seconds it makes sense to ask again, if that is known.
        retry_in: Option<u64>,
    },
    /// The proxy is about to exit.
    #[error("the proxy is shutting down")]
    Draining,
    /// The upstream could not be reached.
    #[error("cannot reach {origin}: {problem}")]
    Connect {
        /// Where to.
        origin: String,
        /// At which step.
        step: ConnectStep,
        /// Why.
        problem: String,
        /// For how long nobody tries again, if this was one failure too many.
        pause: Option<Duration>,
    },
    /// The upstream did not answer in time.
    #[error("{origin} did not answer within {limit:?}")]
    Timeout {
        /// Who.
        origin: String,
        /// The limit.
        limit: Duration,
    },
    /// The upstream sends a model request elsewhere. A client that followed would go around the proxy,
    /// with its own bearer.
    #[error("{origin} redirects to another address, which is not followed: {location}")]
    Redirected {
        /// Who.
        origin: String,
        /// Where to.
        location: String,
    },
    /// The upstream broke off, or sent what is no HTTP response, before anything was committed.
    #[error("{origin} broke off before its response: {problem}")]
    Broken {
        /// Who.
        origin: String,
        /// How.
        problem: String,
    },
}

/// The steps of reaching an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectStep {
    /// Resolving its name.
    Resolve,
    /// Connecting.
    Connect,
    /// Connecting, for which this process, or this machine, has no open file left.
    Files,
    /// Connecting took too long.
    Timeout,
    /// The TLS handshake.
    Tls,
    /// None was made: it could not be reached several times a moment ago.
    Backoff,
}

impl Error {
    /// A refusal of a request.
    pub fn refused(status: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused { status, reason: reason.into() }
    }

    /// On whose side it went wrong.
    #[must_use]
    pub fn side(&self) -> Side {
        match self {
            Self::Refused { .. } => Side::Client,
            Self::Busy(_) | Self::NoProfile(_) | Self::Owned { .. } | Self::Draining => Side::Local,
            Self::Connect { .. } | Self::Timeout { .. } | Self::Redirected { .. } | Self::Broken { .. } => {
                Side::Upstream
            }
        }
    }

    /// Whether it makes sense to try again, with this profile or another. An upstream that broke off may
    /// have done what was asked, which matters unless the request is repeatable.
    #[must_use]
    pub fn may_retry(&self, is_repeatable: bool) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Broken { .. } => is_repeatable,
            _ => false,
        }
    }
}
