//! The spans of a request, with the names of OpenTelemetry's conventions for HTTP where it has one.

use std::time::Instant;

use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::exchange::Exchange;
use crate::profile::Profile;

/// What spans are told apart by from those of libraries, which go nowhere.
pub(super) const TARGET: &str = "prodex::trace";

/// The span of a request, and that of the attempt that is under way.
#[derive(Debug)]
pub struct Request {
    span: Span,
    attempt: Span,
    method: &'static str,
    begun: Option<Instant>,
    /// The tokens that the response took, in and out.
    usage: Option<(i64, i64)>,
}

impl Default for Request {
    fn default() -> Self {
        Self::none()
    }
}

impl Request {
    /// Of which nothing is told.
    pub(crate) fn none() -> Self {
        Self { span: Span::none(), attempt: Span::none(), method: "", begun: None, usage: None }
    }

    /// A request over HTTP, or the upgrade to a WebSocket.
    pub(crate) fn begin(exchange: &Exchange) -> Self {
        Self::new(exchange, "http")
    }

    /// A turn on a WebSocket that was opened with this upgrade.
    pub(crate) fn begin_turn(upgrade: &Exchange) -> Self {
        Self::new(upgrade, "websocket")
    }

    fn new(exchange: &Exchange, protocol: &'static str) -> Self {
        let method = match exchange.head.method() {
            "GET" => "GET",
            "POST" => "POST",
            "HEAD" => "HEAD",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            _ => "_OTHER",
        };
        let span = info_span!(
            target: TARGET,
            parent: None,
            "request",
            http.request.method = method,
            http.route = exchange.routed.name(),
            http.request.body.size = exchange.body.len() as u64,
            http.response.status_code = Empty,
            http.response.body.size = Empty,
            network.protocol.name = protocol,
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            error.r#type = Empty,
            prodex.request = exchange.id,
            prodex.lane = exchange.routed.lane.name(),
            prodex.profile = Empty,
            prodex.attempts = Empty,
            prodex.outcome = "not_served",
        );
        Self { span, attempt: Span::none(), method, begun: None, usage: None }
    }

    /// A profile is tried.
    pub(crate) fn begin_attempt(&mut self, profile: &Profile) {
        if self.span.is_disabled() {
            return;
        }
        let origin = profile.origin.known();
        self.attempt = info_span!(
            target: TARGET,
            parent: &self.span,
            "attempt",
            http.request.method = self.method,
            http.response.status_code = Empty,
            server.address = origin.as_ref().map(|origin| origin.dial_host().to_owned()),
            server.port = origin.as_ref().map(|origin| u64::from(origin.port())),
            error.r#type = Empty,
            prodex.profile = &*profile.name,
            prodex.outcome = "abandoned",
            prodex.ttfb_ms = Empty,
        );
        self.span.record("prodex.profile", &*profile.name);
        self.begun = Some(Instant::now());
    }

    /// It did not serve, and this is why.
    pub(crate) fn end_attempt(&mut self, why: &'static str) {
        self.attempt.record("prodex.outcome", "refused");
        self.attempt.record("error.type", why);
        self.attempt = Span::none();
    }

    /// Its response is the client's. `early` has what was told of the response before.
    pub(crate) fn commit(&mut self, status: u16, attempts: u32, early: &Self) {
        self.usage = early.usage;
        let outcome = if status < 400 { "served" } else { "refused" };
        let ttfb = self.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64() * 1000.0);
        self.attempt.record("prodex.outcome", outcome);
        self.attempt.record("prodex.ttfb_ms", ttfb);
        self.span.record("prodex.attempts", u64::from(attempts));
        for span in [&self.span, &self.attempt] {
            span.record("http.response.status_code", u64::from(status));
            if status >= 400 {
                span.record("error.type", status.to_string());
            }
        }
    }

    /// What the response took.
    pub(crate) fn usage(&mut self, input: i64, output: i64) {
        self.usage = Some((input, output));
    }

    /// The response has ended.
    pub(crate) fn end(&mut self, outcome: &'static str, bytes: u64) {
        if let Some((input, output)) = self.usage {
            self.span.record("gen_ai.usage.input_tokens", input);
            self.span.record("gen_ai.usage.output_tokens", output);
        }
        self.span.record("prodex.outcome", outcome);
        self.span.record("http.response.body.size", bytes);
        if outcome != "complete" {
            self.span.record("error.type", outcome);
        }
    }
}
