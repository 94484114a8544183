//! What the proxy does to the bytes of a stream on their way: framing and tap, for one event and for a full read.
//!
//! Sockets are not in it: their price is the system's, and `cargo xtask load` measures the whole.

use std::hint::black_box;
use std::time::Instant;

use prodex::accounting::{Account, Tap};
use prodex::metrics::{Client, Route, Series, Transport};
use prodex::profile::{Credentials, Pool, Profile};
use prodex::secret::Secret;
use wire::http1::{BodyLength, ResponseHead};

use super::{proxy, runtime};
use crate::case::{Amount, Case, Prepared};

pub(super) const CASES: &[Case] = &[
    Case { name: "relay/one-event", prepare: || relay(1) },
    Case { name: "relay/64-kib-of-events", prepare: || relay(READ / event().len()) },
];

/// The head of a response with the fields that the backend sends.
pub(super) const RESPONSE: &str = "HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 12:00:00 GMT\r\n\
    content-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\
    x-codex-turn-state: 0123456789abcdef0123456789abcdef\r\nx-codex-primary-used-percent: 12.5\r\n\
    x-codex-primary-window-minutes: 300\r\nx-codex-primary-reset-at: 1794000000\r\n\
    x-request-id: 0123456789abcdef\r\ncf-ray: 0123456789abcdef-FRA\r\n\r\n";

/// How much one read of the proxy takes at most.
const READ: usize = 64 * 1024;

/// An event of about 200 bytes in a chunk of its own, as the backend writes it.
fn event() -> Vec<u8> {
    let delta = "x".repeat(80);
    let data = format!(
        "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\
         \"item_id\":\"msg_1\",\"output_index\":0,\"delta\":\"{delta}\"}}\n\n"
    );
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

fn relay(events: usize) -> Prepared {
    let (head, _) = ResponseHead::parse(RESPONSE.as_bytes()).expect("it is a head").expect("it is whole");
    let key = Profile::new("key", Credentials::OpenAiKey(Secret::new("sk-test")));
    let proxy = proxy(Pool::new(vec![key], None), runtime());
    let profile = proxy.profiles.get("key").expect("it is there");
    let series = Series { route: Route::Responses, transport: Transport::Http1, client: Client::Codex };
    let mut account = Account::open(&proxy, 1, series, Instant::now(), profile.enter());
    let (mut tap, mut decoder) = (Tap::new(&head), BodyLength::Chunked.decoder());
    let bytes = event().repeat(events);
    Prepared::new(Amount::Bytes(bytes.len() as u64), move || {
        let look = |payload: &[u8]| tap.look(payload, |event| account.event(event));
        let decoded = decoder.decode(black_box(&bytes), look).expect("the framing is right");
        assert_eq!(decoded.consumed, bytes.len());
    })
}
