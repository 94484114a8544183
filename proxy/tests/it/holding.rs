//! The beginning of a stream is held until it is known that the account serves, and no longer.

use mock_upstream::fault::{End, Fault};
use mock_upstream::script::{Frame, Reply, Rule, Script, Stream, Transport, Turn};
use mock_upstream::{Exchange, Mock};

use crate::connection::{CODEX, Connection, TURN, begin_turn, head, user};
use crate::rig::{Proxy, Setting};
use crate::socket::{Socket, create};
use crate::upstream::Upstream;

const CREATED: &str = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r1\"}}\n\n";

const OUTPUT: &str = "data: {\"type\":\"response.output_item.added\",\"item\":{}}\n\n";

/// A mock that sends these pieces and hangs, and a proxy that holds for as long as it may but for what
/// `settings` say.
async fn hanging(pieces: &[&str], settings: &[(&str, &str)]) -> (Mock, Proxy) {
    let fault = Fault { at: mock_upstream::fault::At::End, end: End::Hang };
    let rule = Rule::new(Stream::texts(pieces.iter().copied())).fault(fault);
    let setting = Setting::new(&["one"], Script::rules([rule]));
    let setting = setting.set("PRODEX_HOLD_CODEX", "5m").set("PRODEX_HOLD_UNKNOWN", "5m");
    settings.iter().fold(setting, |setting, (name, value)| setting.set(name, value)).start().await
}

fn assert_hangs(mock: &Mock) {
    assert!(mock.journal().responses().iter().all(|exchange| exchange.end.is_none()), "it is still hanging");
}

#[tokio::test]
async fn the_first_output_is_never_delayed() {
    let rule = Rule::new(Turn::text("a b")).fault(Fault::after_events(3, End::Hang));
    let setting = Setting::new(&["one"], Script::rules([rule])).set("PRODEX_HOLD_CODEX", "5m");
    let (mock, proxy) = setting.start().await;
    let mut client = begin_turn(&proxy, "", &user("x")).await;
    let seen = client.read_through("\"response.output_item.added\"").await;
    let text = String::from_utf8(seen).unwrap();
    let order = ["HTTP/1.1 200 OK\r\n", "\"response.created\"", "\"response.in_progress\""];
    let places: Vec<usize> = order.iter().map(|part| text.find(part).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    assert_hangs(&mock);
}

#[tokio::test]
async fn anything_that_is_not_known_ends_the_hold() {
    for event in [
        OUTPUT,
        "data: {\"type\":\"keepalive\"}\n\n",
        "data: not json\n\n",
        "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"}}}\n\n",
        "data:\n\n",
        "event: x\r\ndata: [\r\n\r\n",
    ] {
        let (mock, proxy) = hanging(&[": hello\n\n", CREATED, event], &[]).await;
        let mut client = begin_turn(&proxy, "", "{}").await;
        client.read_through(event).await;
        assert_hangs(&mock);
    }
}

#[tokio::test]
async fn a_hold_is_bounded_by_time() {
    let (mock, proxy) = hanging(&[CREATED], &[("PRODEX_HOLD_CODEX", "50ms")]).await;
    let mut client = begin_turn(&proxy, "", "{}").await;
    client.read_through(CREATED).await;
    assert_hangs(&mock);
}

#[tokio::test]
async fn a_client_that_is_not_known_has_a_bound_of_its_own() {
    let (mock, proxy) = hanging(&[CREATED], &[("PRODEX_HOLD_UNKNOWN", "50ms")]).await;
    let mut client = proxy.connect().await;
    client.send(head(&proxy, "POST", TURN, "user-agent: curl/8\r\n", 2) + "{}").await;
    client.read_through(CREATED).await;
    assert_hangs(&mock);
}

#[tokio::test]
async fn a_hold_is_bounded_by_size() {
    let comment = format!(": {}\n\n", "x".repeat(2000));
    let (mock, proxy) = hanging(&[CREATED, &comment], &[("PRODEX_HOLD_BYTES", "1KiB")]).await;
    let mut client = begin_turn(&proxy, "", "{}").await;
    client.read_through(&comment).await;
    assert_hangs(&mock);
}

#[tokio::test]
async fn a_hold_on_a_websocket_is_bounded_by_size_however_it_is_cut() {
    let waiting = format!("{{\"type\":\"response.in_progress\",\"x\":\"{}\"}}", "x".repeat(200));
    let rule = Rule::new(Reply::Frames(vec![Frame::Text(waiting); 10])).transport(Transport::Websocket);
    let rule = rule.fault(Fault { at: mock_upstream::fault::At::End, end: End::Hang });
    let setting = Setting::new(&["one"], Script::rules([rule])).set("PRODEX_HOLD_CODEX", "5m");
    let (mock, proxy) = setting.set("PRODEX_HOLD_BYTES", "1KiB").start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.send(&create("x")).await;
    for _ in 0..10 {
        assert_eq!(socket.event().await["type"], "response.in_progress");
    }
    assert_hangs(&mock);
}

#[tokio::test]
async fn a_head_that_need_not_be_held_goes_on_at_once() {
    let (mock, proxy) = hanging(&[": x\n\n"], &[("PRODEX_HOLD_CODEX", "0s")]).await;
    let mut client = begin_turn(&proxy, "", "{}").await;
    client.read_through(": x\n\n").await;
    assert_hangs(&mock);
}

/// The upstream's and the client's end of a request whose response begins with these bytes.
async fn half_way(begin: &str) -> (Connection, Connection, Proxy) {
    let upstream = Upstream::start().await;
    let setting = Setting::new(&[], Script::default()).key("key", "sk-x").set("PRODEX_HOLD_CODEX", "5m");
    let proxy = setting.start_at(upstream.url()).await;
    let mut client = proxy.connect().await;
    client.send(head(&proxy, "POST", "/v1/responses", CODEX, 2) + "{}").await;
    let (connection, _) = upstream.answer(begin).await;
    (connection, client, proxy)
}

#[tokio::test]
async fn what_is_no_stream_of_events_is_not_held() {
    for begin in [
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{ ",
        "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\n{ ",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: br\r\nContent-Length: 4\r\n\r\n{ ",
    ] {
        let (mut upstream, mut client, _proxy) = half_way(begin).await;
        client.read_through("\r\n\r\n{ ").await;
        upstream.send(" }").await;
        client.read_through(" }").await;
    }
}

#[tokio::test]
async fn events_go_on_one_by_one_as_they_come() {
    let begin = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let (mut upstream, mut client, _proxy) = half_way(&format!("{begin}{CREATED}{OUTPUT}")).await;
    client.read_through(OUTPUT).await;
    for n in 0..50 {
        let event = format!("data: {{\"type\":\"response.output_text.delta\",\"delta\":\"{n}\"}}\n\n");
        for part in [&event[..9], &event[9..]] {
            upstream.send(part).await;
            assert_eq!(client.read_through(part).await, part.as_bytes());
        }
    }
}

#[tokio::test]
async fn a_response_that_ends_while_it_is_held_arrives() {
    let rule = Rule::new(Stream::texts([": only\n\n", CREATED]));
    let (mock, proxy) = Setting::new(&["one"], Script::rules([rule])).start().await;
    let response = begin_turn(&proxy, "", "{}").await.response().await;
    assert_eq!(response.text(), format!(": only\n\n{CREATED}"));
    let ended = |all: &[Exchange]| all.last().is_some_and(|exchange| exchange.end.is_some());
    assert!(ended(&mock.journal().responses()));
}
