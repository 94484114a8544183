//! Which call a request is, in which lane it runs, and which client makes it.

use std::time::Duration;

use wire::http1::RequestHead;
use wire::route::{Api, Call, NoRoute, Route};

use crate::config::Config;
use crate::error::Error;

/// Requests that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Model turns over HTTP.
    Responses,
    /// Compactions.
    Compact,
    /// WebSockets.
    Websocket,
    /// Everything else.
    Standard,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Responses, Self::Compact, Self::Websocket, Self::Standard];

    /// The lane's name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Compact => "compact",
            Self::Websocket => "websocket",
            Self::Standard => "standard",
        }
    }
}

/// The client at the other end, as far as its behaviour matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// Codex in one of its forms: CLI, TUI, IDE extension.
    Codex,
    /// Any other.
    Unknown,
}

impl Client {
    fn of(head: &RequestHead) -> Self {
        let says = |name: &str| head.get_str(name).is_some_and(|value| value.starts_with("codex"));
        if says("user-agent") || says("originator") { Self::Codex } else { Self::Unknown }
    }

    /// How long this client tolerates that the beginning of a stream is held.
    #[must_use]
    pub fn hold_limit(self, config: &Config) -> Duration {
        match self {
            Self::Codex => config.hold_codex,
            Self::Unknown => config.hold_unknown,
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed {
    /// Whose backend.
    pub api: Api,
    /// Which call.
    pub call: Call,
    /// In which lane.
    pub lane: Lane,
    /// Who asks.
    pub client: Client,
}

impl Routed {
    /// Finds the route of a request that passed the guard.
    ///
    /// # Errors
    /// A refusal, when no known client makes such a request.
    pub fn find(head: &RequestHead, target: &str) -> Result<Self, Error> {
        let method = if head.method() == "HEAD" { "GET" } else { head.method() };
        let Route { api, call } = Route::find(method, target).map_err(|error| match error {
            NoRoute::Path => {
                Error::refused(404, format!("{error} and it is not relayed: {}", shorten(target)))
            }
            NoRoute::Method => Error::refused(405, format!("{error}: {} {}", head.method(), shorten(target))),
        })?;
        let is_upgrade = head.get("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
        let lane = match call {
            Call::Responses if is_upgrade => Lane::Websocket,
            Call::Responses if method == "GET" => {
                return Err(Error::refused(405, "responses are asked for with POST or a WebSocket upgrade"));
            }
            Call::Responses => Lane::Responses,
            Call::Compact => Lane::Compact,
            _ => Lane::Standard,
        };
        Ok(Self { api, call, lane, client: Client::of(head) })
    }

    /// The route's name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        if self.lane == Lane::Websocket { "websocket" } else { self.call.name() }
    }
}

/// The path of a target, as much of it as fits a message.
fn shorten(target: &str) -> &str {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    path.get(..80).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(request: &str) -> Result<Routed, u16> {
        let (head, _) = RequestHead::parse(request.as_bytes()).unwrap().unwrap();
        Routed::find(&head, head.target()).map_err(|error| match error {
            Error::Refused { status, .. } => status,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn upgrades_have_a_lane_of_their_own() {
        let upgrade = "GET /v1/responses HTTP/1.1\r\nUpgrade: WebSocket\r\nOriginator: codex_exec\r\n\r\n";
        let routed = find(upgrade).unwrap();
        assert_eq!(
            (routed.lane, routed.client, routed.name()),
            (Lane::Websocket, Client::Codex, "websocket")
        );
        assert_eq!(find("GET /v1/responses HTTP/1.1\r\n\r\n"), Err(405));
        let post = find("POST /v1/responses HTTP/1.1\r\nUser-Agent: curl\r\n\r\n").unwrap();
        assert_eq!((post.lane, post.client), (Lane::Responses, Client::Unknown));
    }

    #[test]
    fn unknown_paths_are_refused_with_their_name() {
        assert_eq!(find("GET /backend-api/conversations HTTP/1.1\r\n\r\n"), Err(404));
        assert_eq!(find("DELETE /v1/models HTTP/1.1\r\n\r\n"), Err(405));
        assert!(find("HEAD /v1/models HTTP/1.1\r\n\r\n").is_ok());
    }
}
