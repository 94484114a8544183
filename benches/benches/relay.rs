//! What the proxy does to bytes on their way: framing and tap over a stream of events, and heads rewritten.
//!
//! Sockets are not in it: their price is the system's, and `cargo xtask load` measures the whole.

#![allow(missing_docs, reason = "criterion's macros make a function without any")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prodex::accounting::{Account, Tap};
use prodex::attempt::Identity;
use prodex::attempt::headers::{self, Form};
use prodex::config::{Config, Origin};
use prodex::control::Control;
use prodex::exchange::{Exchange, Ties};
use prodex::guard::Guard;
use prodex::metrics::{Client, Meter, Route, Series, Transport};
use prodex::pipeline::Proxy;
use prodex::profile::origin::Routing;
use prodex::profile::{Credentials, Pool, Profile};
use prodex::route::Routed;
use prodex::secret::Secret;
use prodex::server::authority;
use prodex::state::State;
use prodex::telemetry::RunLog;
use wire::http1::{BodyLength, RequestHead, ResponseHead};

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

/// The head of its response, with the fields that the backend sends.
const RESPONSE: &str = "HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 12:00:00 GMT\r\n\
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

fn proxy(runtime: &tokio::runtime::Runtime) -> Arc<Proxy> {
    let nowhere = std::path::Path::new("/nonexistent");
    let config = Config::load(Some(nowhere), &|_| None, &Vec::new()).expect("the defaults are right");
    let tls = Arc::new(authority::client_config(None).expect("the roots are built in"));
    let (state, log) = (State::in_memory(), Arc::new(RunLog::none()));
    let control = Control::new(config, state, log, tls, runtime.handle().clone());
    let key = Profile::new("key", Credentials::OpenAiKey(Secret::new("sk-test")));
    let pool = Pool::new(vec![key], None);
    Arc::new(Proxy::new(Arc::new(control), Guard::new(None), pool, false))
}

fn tap(criterion: &mut Criterion, proxy: &Arc<Proxy>) {
    let (head, _) = ResponseHead::parse(RESPONSE.as_bytes()).expect("it is a head").expect("it is whole");
    let profile = proxy.profiles.get("key").expect("it is there");
    let mut group = criterion.benchmark_group("relay");
    let event = event();
    for (name, bytes) in
        [("one event", event.clone()), ("64 KiB of events", event.repeat(READ / event.len()))]
    {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            let series =
                Series { route: Route::Responses, transport: Transport::Http1, client: Client::Codex };
            let mut account = Account::open(proxy, 1, series, Instant::now(), profile.enter());
            let (mut tap, mut decoder) = (Tap::new(&head), BodyLength::Chunked.decoder());
            bencher.iter(|| {
                let look = |payload: &[u8]| tap.look(payload, |event| account.event(event));
                let decoded = decoder.decode(black_box(&bytes), look).expect("the framing is right");
                assert_eq!(decoded.consumed, bytes.len());
            });
        });
    }
    group.finish();
}

fn heads(criterion: &mut Criterion, proxy: &Proxy) {
    let (head, _) = RequestHead::parse(REQUEST.as_bytes()).expect("it is a head").expect("it is whole");
    let target = head.target().to_owned();
    let routed = Routed::find(&head, &target).expect("it is a route");
    let exchange = Exchange {
        id: 1,
        started: Instant::now(),
        routed,
        meter: Meter::new(&Arc::default(), Series::of(routed, Transport::Http1)),
        ties: Ties::read(&head, None),
        head,
        target,
        body: bytes::Bytes::from(vec![0; 24_000]),
        stripped: tokio::sync::OnceCell::new(),
    };
    let origin = Origin::parse("https://api.openai.com").expect("it is an origin");
    let credentials = proxy.profiles.get("key").expect("it is there").credentials();
    let identity = Identity::new(credentials, Routing::default(), &origin, true);
    let mut group = criterion.benchmark_group("heads");
    group.bench_function("request", |bencher| {
        bencher.iter(|| headers::request(black_box(&exchange), &identity, Form::Http));
    });
    let (head, _) = ResponseHead::parse(RESPONSE.as_bytes()).expect("it is a head").expect("it is whole");
    group.bench_function("response", |bencher| {
        bencher.iter(|| headers::response(black_box(&head), BodyLength::Chunked, true));
    });
    group.finish();
}

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let proxy = proxy(&runtime.expect("there is a runtime"));
    tap(criterion, &proxy);
    heads(criterion, &proxy);
}

criterion_group!(relay, bench);
criterion_main!(relay);
