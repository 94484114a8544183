//! Heads rewritten, as Codex and its backend send them: whose account a request is for, and what is the connection's.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use prodex::attempt::Identity;
use prodex::attempt::headers::{self, Form};
use prodex::config::Origin;
use prodex::exchange::{Exchange, Ties};
use prodex::metrics::{Meter, Series, Transport};
use prodex::profile::origin::Routing;
use prodex::profile::{Credentials, Profile};
use prodex::route::Routed;
use prodex::secret::Secret;
use tokio::sync::OnceCell;
use wire::http1::{BodyLength, RequestHead, ResponseHead};

use super::relay::RESPONSE;
use crate::case::{Amount, Case, Prepared};

pub(super) const CASES: &[Case] =
    &[Case { name: "heads/request", prepare: request }, Case { name: "heads/response", prepare: response }];

/// The request of a turn as Codex 0.169 sends it, with its fields in their order.
const REQUEST: &str = "POST /v1/responses HTTP/1.1\r\n\
    version: 0.169.0\r\nx-codex-beta-features: unified_exec\r\n\
    x-codex-window-id: 019a0000-0000-7000-8000-000000000001:0\r\n\
    x-codex-turn-metadata: {\"session_id\":\"019a0000-0000-7000-8000-000000000001\",\"request_kind\":\"turn\"}\r\n\
    x-codex-routing-hint: model=gpt-5.5\r\nx-client-request-id: 019a0000-0000-7000-8000-000000000001\r\n\
    session-id: 019a0000-0000-7000-8000-000000000001\r\nthread-id: 019a0000-0000-7000-8000-000000000001\r\n\
    accept: text/event-stream\r\ncontent-encoding: zstd\r\ncontent-type: application/json\r\n\
    authorization: Bearer of-the-client\r\nchatgpt-account-id: of-the-client\r\noriginator: codex_exec\r\n\
    user-agent: codex_exec/0.169.0 (Linux; x86_64) (codex_exec; 0.169.0)\r\nhost: 127.0.0.1:4000\r\n\
    content-length: 24000\r\n\r\n";

fn request() -> Prepared {
    let (head, _) = RequestHead::parse(REQUEST.as_bytes()).expect("it is a head").expect("it is whole");
    let target = head.target().to_owned();
    let routed = Routed::find(&head, &target).expect("it is a route");
    let exchange = Exchange {
        id: 1,
        started: Instant::now(),
        routed,
        meter: Meter::new(&std::sync::Arc::default(), Series::of(routed, Transport::Http1)),
        ties: Ties::read(&head, None),
        head,
        target,
        body: Bytes::from(vec![0; 24_000]),
        stripped: OnceCell::new(),
    };
    let origin = Origin::parse("https://api.openai.com").expect("it is an origin");
    let key = Profile::new("key", Credentials::OpenAiKey(Secret::new("sk-test")));
    let identity = Identity::new(key.credentials(), Routing::default(), &origin, true);
    Prepared::new(Amount::One, move || headers::request(black_box(&exchange), &identity, Form::Http))
}

fn response() -> Prepared {
    let (head, _) = ResponseHead::parse(RESPONSE.as_bytes()).expect("it is a head").expect("it is whole");
    Prepared::new(Amount::One, move || headers::response(black_box(&head), BodyLength::Chunked, true))
}
