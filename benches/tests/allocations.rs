//! How often the proxy allocates: not once per event while it relays, and so often for each guarded case.
//!
//! A counting allocator counts for a whole binary, so this one has nothing else in it. It counts by
//! thread: while it relays, the proxy runs on one of its own, and what its client and its upstream allocate does not matter.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use prodex::config::Config;
use prodex::control::Control;
use prodex::guard::Guard;
use prodex::pipeline::Proxy;
use prodex::profile::{Credentials, Pool, Profile};
use prodex::secret::Secret;
use prodex::server::{Listeners, authority, run};
use prodex::state::State;
use prodex::telemetry::RunLog;

/// Events of the shorter run; the longer one has ten times as many.
const FEW: usize = 100;

/// How much more the longer run may allocate: less than once for every hundred events.
const SLACK: u64 = 9;

const EVENT: &str =
    r#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"delta":"word "}"#;

const COMPLETED: &str = r#"{"type":"response.completed","response":{"id":"resp_1","usage":null}}"#;

/// Runs the proxy on a thread of its own for as long as `talk` talks to it, and says how often that thread
/// allocated.
fn allocations(home: &Path, talk: impl FnOnce(SocketAddr, &TcpListener)) -> u64 {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let origin = format!("http://{}", upstream.local_addr().expect("it is bound"));
    let settings = vec![("upstream", origin), ("workers", "1".to_owned())];
    let config = Config::load(Some(home), &|_| None, &settings).expect("the settings are right");
    let (sender, receiver) = sync_channel(1);
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("there is a runtime");
        let counted = allocation_counter::measure(|| {
            runtime.block_on(async {
                let tls = Arc::new(authority::client_config(None).expect("the roots are built in"));
                let handle = tokio::runtime::Handle::current();
                let key =
                    Profile::new("key", Credentials::OpenAiKey(Secret::new("sk-test"))).limited(&config);
                let (state, log) = (State::in_memory(), Arc::new(RunLog::none()));
                let control = Control::new(config.clone(), state, log, tls, handle);
                let pool = Pool::new(vec![key], None);
                let proxy = Arc::new(Proxy::new(Arc::new(control), Guard::new(None), pool, false));
                let listeners = Listeners::bind(config.listen).await.expect("there is a port");
                sender.send((listeners.address, Arc::clone(&proxy))).expect("the test waits");
                assert_eq!(run(&proxy, listeners, None).await.expect("it serves"), 0);
            });
        });
        counted.count_total
    });
    let (address, proxy) = receiver.recv().expect("the proxy listens");
    talk(address, &upstream);
    proxy.draining.cancel();
    serving.join().expect("the proxy ends")
}

/// Reads up to the end of what is looked for.
fn read_through(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut byte = [0];
    while !all.ends_with(end) {
        stream.read_exact(&mut byte).expect("the other side goes on");
        all.push(byte[0]);
    }
    all
}

/// Has a request of these lines reach the upstream. Both ends of it, and its head.
fn connect(proxy: SocketAddr, upstream: &TcpListener, request: &str) -> (TcpStream, TcpStream, String) {
    let mut client = TcpStream::connect(proxy).expect("the proxy listens");
    client.write_all(request.as_bytes()).expect("the proxy reads");
    let (mut server, _) = upstream.accept().expect("the proxy asks");
    server.set_nodelay(true).expect("it is a socket");
    let head = read_through(&mut server, b"\r\n\r\n");
    (client, server, String::from_utf8(head).expect("it is text"))
}

/// Sends each event alone, and the next one when the client has got it.
fn pass(client: &mut TcpStream, server: &mut TcpStream, event: &[u8], count: usize) {
    let mut got = vec![0; event.len()];
    for _ in 0..count {
        server.write_all(event).expect("the proxy reads");
        client.read_exact(&mut got).expect("the proxy goes on");
        assert_eq!(got, event);
    }
}

fn chunk(data: &str) -> Vec<u8> {
    let event = format!("event: response\ndata: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

/// A text message in a frame of a server (RFC 6455 §5.2).
fn frame(data: &str) -> Vec<u8> {
    let length = u8::try_from(data.len()).ok().filter(|length| *length < 126).expect("it is short");
    [&[0x81, length][..], data.as_bytes()].concat()
}

/// A stream of so many events over HTTP/1.1.
fn stream(home: &Path, count: usize) -> u64 {
    allocations(home, |proxy, upstream| {
        let request = "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}";
        let (mut client, mut server, _) = connect(proxy, upstream, request);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        server.write_all(head.as_bytes()).expect("the proxy reads");
        server.write_all(&chunk(EVENT)).expect("the proxy reads");
        read_through(&mut client, &chunk(EVENT));
        pass(&mut client, &mut server, &chunk(EVENT), count);
        server.write_all(&[&chunk(COMPLETED)[..], b"0\r\n\r\n"].concat()).expect("the proxy reads");
        read_through(&mut client, b"\r\n0\r\n\r\n");
    })
}

/// A turn of so many events on a WebSocket.
fn turn(home: &Path, count: usize) -> u64 {
    allocations(home, |proxy, upstream| {
        let request = "GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\n\
                       upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let (mut client, mut server, head) = connect(proxy, upstream, request);
        let key = head.lines().find(|line| line.to_lowercase().starts_with("sec-websocket-key"));
        let key = key.and_then(|line| line.split(": ").nth(1)).expect("the upgrade has a key");
        let accept = prodex::attempt::websocket::accept_key(key);
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: {accept}\r\n\r\n"
        );
        server.write_all(head.as_bytes()).expect("the proxy reads");
        read_through(&mut client, b"\r\n\r\n");
        let create = br#"{"type":"response.create","input":[]}"#;
        let length = u8::try_from(create.len()).expect("it is short");
        // A mask of zeroes is one.
        client
            .write_all(&[&[0x81, 0x80 | length, 0, 0, 0, 0], &create[..]].concat())
            .expect("the proxy reads");
        read_through(&mut server, br#""input":[]}"#);
        pass(&mut client, &mut server, &frame(EVENT), count);
        pass(&mut client, &mut server, &frame(COMPLETED), 1);
    })
}

/// Holds a short run against one of ten times its length.
fn assert_none_per_event(relay: fn(&Path, usize) -> u64) {
    let home = tempfile::tempdir().expect("there is a temporary directory");
    // The first run fills what is kept: buffers of the thread, tables of the process.
    relay(home.path(), FEW);
    let (few, many) = (relay(home.path(), FEW), relay(home.path(), 10 * FEW));
    println!("{few} allocations with {FEW} events, {many} with {}", 10 * FEW);
    assert!(few > 0, "the counter counts");
    assert!(many <= few + SLACK, "{} more for {} more events", many - few, 9 * FEW);
}

#[test]
fn no_event_of_a_stream_is_an_allocation() {
    assert_none_per_event(stream);
}

#[test]
fn no_event_of_a_turn_on_a_websocket_is_an_allocation() {
    assert_none_per_event(turn);
}

/// How often one run of each guarded case of the proxy allocates, once what is kept is there.
const OF_A_CASE: &[(&str, u64)] = &[
    ("sse/one-write", 0),
    ("sse/writes-of-1024", 5),
    ("sse/writes-of-16", 8),
    ("relay/one-event", 0),
    ("relay/64-kib-of-events", 0),
    ("heads/request", 2),
    ("heads/response", 5),
    ("select/by-rank", 1),
    ("select/owner", 1),
    ("select/keep-current", 1),
    ("select/whole-request", 1),
    ("select/publish-windows", 6),
    ("lineage/request-without", 0),
    ("lineage/request-with-100", 2),
    ("lineage/short-request-with-one", 2),
    ("lineage/delta", 0),
    ("lineage/reasoning-of-2-kib", 0),
];

#[test]
fn each_case_allocates_exactly_as_often_as_is_stated() {
    let is_of_the_proxy = |name: &str| !name.starts_with("scrub/") && !name.starts_with("shards/");
    let cases = benches::cases::all().into_iter().filter(|case| is_of_the_proxy(case.name));
    let counted: Vec<_> = cases
        .map(|case| {
            let mut prepared = (case.prepare)();
            (prepared.run)();
            (case.name, allocation_counter::measure(|| (prepared.run)()).count_total)
        })
        .collect();
    assert_eq!(counted, OF_A_CASE);
}
