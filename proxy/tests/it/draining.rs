//! A proxy that is told to end lets what is in flight come to its end, and nothing else.

use std::time::Duration;

use harness::process::Exit;
use mock_upstream::Exchange;
use mock_upstream::fault::{End, Fault};
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Rule, Script, Turn};
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::connection::{Connection, TURN, begin_turn, head, turn, user};
use crate::rig::{LIMIT, Proxy, Setting};
use crate::socket::{Socket, create, said};
use crate::upstream::Upstream;

const BEGIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 60\r\n\r\n";

const OUTPUT: &str = "data: {\"type\":\"response.output_text.delta\"}\n\n";

/// Waits until the proxy takes no further connection.
async fn closed(proxy: &Proxy) {
    let refused = async { while TcpStream::connect(("127.0.0.1", proxy.port())).await.is_ok() {} };
    tokio::time::timeout(LIMIT, refused).await.expect("no further connection in time");
}

/// A request that is in flight, and its end at the upstream.
async fn in_flight(upstream: &Upstream, proxy: &Proxy) -> (Connection, Connection) {
    let mut client = proxy.connect().await;
    client.send(head(proxy, "POST", "/v1/responses", "", 2) + "{}").await;
    let (connection, _) = upstream.accept().await;
    (client, connection)
}

async fn by_hand() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Setting::new(&[], Script::default()).key("key", "sk-x").start_at(upstream.url()).await;
    (upstream, proxy)
}

#[tokio::test]
async fn what_is_in_flight_comes_to_its_end() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let (upstream, mut proxy) = by_hand().await;
        let (mut early, mut early_upstream) = in_flight(&upstream, &proxy).await;
        let (mut late, mut late_upstream) = in_flight(&upstream, &proxy).await;
        early_upstream.send(format!("{BEGIN}{OUTPUT}")).await;
        early.read_through(OUTPUT).await;
        proxy.server.signal(signal);
        closed(&proxy).await;
        let rest = "x".repeat(60 - OUTPUT.len());
        early_upstream.send(&rest).await;
        assert_eq!(early.read_to_end().await, (rest.clone().into_bytes(), None), "{signal}");
        late_upstream.send(format!("{BEGIN}{OUTPUT}{rest}")).await;
        let response = late.response().await;
        assert_eq!(response.text(), format!("{OUTPUT}{rest}"), "{signal}");
        assert_eq!(proxy.server.wait(LIMIT).await.unwrap(), Some(Exit::Code(0)), "{signal}");
        let log = proxy.log();
        assert_eq!(log.events("drain_started").next().unwrap().fields["active"], 2);
        assert_eq!(log.events("drain_finished").next().unwrap().fields["aborted"], 0);
        let outcomes = log.events("stream_complete").filter(|line| line.fields["outcome"] == "complete");
        assert_eq!(outcomes.count(), 2);
    }
}

#[tokio::test]
async fn what_takes_too_long_is_cut() {
    let endless = Rule::new(Turn::text("a")).fault(Fault::after_events(4, End::Hang));
    let setting = Setting::new(&["one"], Script::rules([endless])).set("PRODEX_DRAIN_TIMEOUT", "300ms");
    let (_mock, mut proxy) = setting.start().await;
    let mut client = begin_turn(&proxy, "", &user("x")).await;
    client.read_through("output_item.added\"").await;
    proxy.server.signal(Signal::SIGTERM);
    let (rest, _) = client.read_to_end().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut is no clean end");
    assert_eq!(proxy.server.wait(LIMIT).await.unwrap(), Some(Exit::Code(0)));
    assert_eq!(proxy.log().events("drain_finished").next().unwrap().fields["aborted"], 1);
    assert!(proxy.server.stderr().contains("1 requests were cut off"), "{}", proxy.server.stderr());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let endless = Rule::new(Turn::text("a")).fault(Fault::before_head(End::Hang));
    let (mock, mut proxy) = Setting::new(&["one"], Script::rules([endless])).start().await;
    let _client = begin_turn(&proxy, "", &user("x")).await;
    let asked = |all: &[Exchange]| all.iter().any(|exchange| exchange.target == TURN);
    mock.journal().wait_for("the turn", LIMIT, asked).await.unwrap();
    proxy.server.signal(Signal::SIGTERM);
    closed(&proxy).await;
    proxy.server.signal(Signal::SIGTERM);
    assert_eq!(proxy.server.wait(LIMIT).await.unwrap(), Some(Exit::Code(130)));
    assert_eq!(proxy.log().events("drain_started").count(), 1, "the log is complete up to there");
}

#[tokio::test]
async fn connections_that_ask_for_nothing_are_closed() {
    let (_mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let mut unused = proxy.connect().await;
    let mut used = begin_turn(&proxy, "", &user("x")).await;
    assert_eq!(used.response().await.status(), 200);
    let mut begun = proxy.connect().await;
    begun.send("POST /").await;
    proxy.server.signal(Signal::SIGTERM);
    assert_eq!(used.read_to_end().await, (Vec::new(), None));
    assert_eq!(unused.read_to_end().await, (Vec::new(), None));
    closed(&proxy).await;
    let rest = head(&proxy, "POST", TURN, "", 2).split_off("POST /".len());
    begun.send(rest + "{}").await;
    let response = begun.response().await;
    assert_eq!((response.status(), response.field("connection")), (503, Some("close")));
    assert!(response.field("retry-after").is_some() && response.text().contains("shutting down"));
    proxy.ended().await;
}

#[tokio::test]
async fn an_unused_websocket_is_closed() {
    let (_mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    proxy.server.signal(Signal::SIGTERM);
    let (messages, error) = socket.rest().await;
    assert!(matches!(&messages[..], [Message::Close(Some(frame))] if u16::from(frame.code) == 1001));
    assert!(error.is_none(), "{error:?}");
    proxy.ended().await;
}

#[tokio::test]
async fn another_proxy_may_take_its_place_on_the_same_port() {
    let (mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let port = proxy.port();
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let sandbox = std::sync::Arc::clone(&proxy.sandbox);
    let arguments = ["--upstream", mock.base_url(), "--listen", &format!("127.0.0.1:{port}")];
    let arguments = arguments.map(str::to_owned).to_vec();
    proxy.stop().await;
    let next = Proxy::start(sandbox, arguments).await;
    assert_eq!((next.port(), turn(&next, "", &user("x")).await.status()), (port, 200));
}

#[tokio::test]
async fn a_websocket_whose_turn_ends_within_the_drain_is_closed() {
    let slow = Pacing::gap(Duration::from_millis(40));
    let rules = [Rule::new(Turn::text("a b")).pacing(slow)];
    let (_mock, proxy) = Setting::new(&["one"], Script::rules(rules)).start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.send(&create("slow")).await;
    let mut events = vec![socket.event().await];
    proxy.server.signal(Signal::SIGTERM);
    events.extend(socket.events().await);
    assert_eq!(said(&events), "a b", "a turn comes to its end");
    let (messages, _) = socket.rest().await;
    assert!(matches!(&messages[..], [Message::Close(Some(frame))] if u16::from(frame.code) == 1001));
    proxy.ended().await;
}

#[tokio::test]
async fn an_idle_websocket_is_closed() {
    let (_mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.turn(&create("x")).await;
    proxy.server.signal(Signal::SIGTERM);
    let (messages, error) = socket.rest().await;
    assert!(matches!(&messages[..], [Message::Close(Some(frame))] if u16::from(frame.code) == 1001));
    assert!(error.is_none(), "{error:?}");
    proxy.ended().await;
}

#[tokio::test]
async fn a_proxy_can_be_told_to_end_from_its_ready_line_on() {
    for _ in 0..3 {
        let (_mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
        let log = proxy.stop().await;
        assert_eq!(log.events("drain_finished").count(), 1);
    }
}
