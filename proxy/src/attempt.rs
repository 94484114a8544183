//! One try to have a request answered: by one profile, at one upstream.

use std::sync::Arc;

use crate::config::Origin;
use crate::profile::credentials::Credentials;
use crate::profile::origin::Routing;

pub mod connection;

pub mod breaker;

pub mod headers;

pub mod http;

pub mod websocket;

/// As whom, and where, a request is tried.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The selected profile's credentials.
    pub credentials: Arc<Credentials>,
    /// The server.
    pub origin: Origin,
    /// The value of `x-openai-account-routing-override`, if the account has one.
    pub routing: Option<String>,
    /// Whether the profile may see the turn state that the request carries.
    pub sees_turn_state: bool,
}

impl Identity {
    /// The identity of an account whose traffic goes as `routing` says, or else to `common`.
    #[must_use]
    pub fn new(
        credentials: Arc<Credentials>,
        routing: Routing,
        common: &Origin,
        sees_turn_state: bool,
    ) -> Self {
        let origin = routing.origin.unwrap_or_else(|| common.clone());
        Self { credentials, origin, routing: routing.routing, sees_turn_state }
    }
}
