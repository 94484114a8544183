//! An upstream that breaks off is asked again before commit, and afterwards the client sees a cut.

use std::io::ErrorKind;

use mock_upstream::Mock;
use mock_upstream::fault::{At, End, Fault};
use mock_upstream::script::{Framing, Rule, Script, Stream, Turn};

use crate::connection::{Connection, Response, begin_turn, head, turn, user};
use crate::rig::{Proxy, Setting, asked};
use crate::socket::{Socket, create};
use crate::upstream::Upstream;

const CREATED: &str = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r1\"}}\n\n";

const OUTPUT: &str = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n";

async fn start(rules: impl IntoIterator<Item = Rule>) -> (Mock, Proxy) {
    Setting::new(&["one"], Script::rules(rules)).start().await
}

#[tokio::test]
async fn a_cut_is_seen_as_a_cut() {
    for (framing, end) in [
        (Framing::Chunked, End::Fin),
        (Framing::Chunked, End::Reset),
        (Framing::Length, End::Fin),
        (Framing::Length, End::Reset),
        (Framing::Length, End::Short),
        (Framing::Close, End::Reset),
    ] {
        let what = format!("{framing:?}, {end:?}");
        let stream = Stream { framing, ..Stream::texts([CREATED, OUTPUT, "data: never\n\n"]) };
        let fault = Fault { at: At::Events(2), end: end.clone() };
        let (mock, proxy) = start([Rule::new(stream).fault(fault)]).await;
        let mut client = begin_turn(&proxy, "", "{}").await;
        let (bytes, error) = client.read_to_end().await;
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("\r\n\r\n") && text.contains(CREATED), "{what}: {text}");
        assert!(!text.contains("never") && !text.ends_with("0\r\n\r\n"), "{what}: {text}");
        if framing == Framing::Close {
            assert_eq!(error, Some(ErrorKind::ConnectionReset), "{what}");
        } else if end != End::Reset {
            // What had come before the end is there in full.
            assert!(text.contains(OUTPUT), "{what}: {text}");
        }
        assert_eq!(asked(&mock).len(), 1, "{what}: nothing is asked again");
        let log = proxy.stop().await;
        let outcome = &log.events("stream_complete").next().unwrap().fields["outcome"];
        assert_eq!(outcome, "upstream_cut", "{what}");
    }
}

#[tokio::test]
async fn a_cut_within_a_chunk_is_seen_as_a_cut() {
    let stream = Stream::texts([CREATED, OUTPUT, OUTPUT]);
    let fault = Fault::after_bytes(CREATED.len() + OUTPUT.len() + 9, End::Fin);
    let (_mock, proxy) = start([Rule::new(stream).fault(fault)]).await;
    let (bytes, _) = begin_turn(&proxy, "", "{}").await.read_to_end().await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.ends_with(&format!("\r\n{}", &OUTPUT[..9])), "{text}");
}

#[tokio::test]
async fn a_cut_before_anything_is_committed_is_invisible() {
    for fault in [
        Fault::before_head(End::Fin),
        Fault::before_head(End::Reset),
        Fault::after_events(1, End::Fin),
        Fault::after_events(2, End::Reset),
    ] {
        for times in [1, 2] {
            let broken = Rule::new(Turn::text("x")).fault(fault.clone()).times(times);
            let (mock, proxy) = start([broken, Rule::new(Turn::text("served"))]).await;
            let response = turn(&proxy, "", &user("x")).await;
            assert_eq!((response.status(), response.said().as_str()), (200, "served"), "{fault:?}");
            assert_eq!(response.text().matches("response.created").count(), 2, "once as name, once as type");
            let bodies: Vec<_> = mock.journal().responses().into_iter().map(|turn| turn.body).collect();
            assert_eq!(bodies, vec![user("x"); bodies.len()]);
            assert_eq!(bodies.len() as u64, times + 1);
        }
    }
}

#[tokio::test]
async fn an_upstream_that_always_breaks_is_asked_three_times_and_named() {
    let broken = Rule::new(Turn::text("x")).fault(Fault::before_head(End::Reset));
    let (mock, proxy) = start([broken]).await;
    let response = turn(&proxy, "", &user("x")).await;
    assert_eq!((response.status(), asked(&mock).len()), (503, 3));
    assert_eq!(response.json()["error"]["code"], "service_unavailable");
    assert!(response.field("retry-after").is_some() && response.text().contains(mock.base_url()));
    // It says nothing about the account.
    mock.set_rules(Vec::new()).unwrap();
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_named() {
    let free = harness::sandbox::free_port().unwrap();
    let url = format!("http://127.0.0.1:{free}");
    let proxy = Setting::new(&["one"], Script::default()).start_at(&url).await;
    let response = turn(&proxy, "", "{}").await;
    assert_eq!(response.status(), 503);
    assert!(response.field("retry-after").is_some());
    let message = response.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("prodex: ") && message.contains(&url), "{message}");
    let log = proxy.stop().await;
    // At once, then as often as the breaker lets one try while a turn waits.
    let attempts = log.events("upstream_connect_error").count();
    assert!((4..=7).contains(&attempts), "{attempts}");
    let backoff = log.events("profile_transport_backoff").next().unwrap();
    assert_eq!((&backoff.fields["origin"], &backoff.fields["ms"]), (&url.into(), &500.into()));
}

#[tokio::test]
async fn an_upstream_that_does_not_begin_in_time_is_named_and_asked_once() {
    let hanging = Rule::new(Turn::text("x")).fault(Fault::before_head(End::Hang));
    let setting = Setting::new(&["one"], Script::rules([hanging])).set("PRODEX_RESPONSE_TIMEOUT", "300ms");
    let (mock, proxy) = setting.start().await;
    let response = turn(&proxy, "", &user("x")).await;
    assert_eq!((response.status(), asked(&mock).len()), (503, 1));
    assert!(response.text().contains(mock.base_url()), "{}", response.text());
}

#[tokio::test]
async fn a_connection_that_ends_when_it_is_used_again_is_replaced() {
    let upstream = Upstream::start().await;
    let proxy = Setting::new(&[], Script::default()).key("key", "sk-x").start_at(upstream.url()).await;
    let mut client = proxy.connect().await;
    let ask = head(&proxy, "POST", "/v1/responses", "", 2) + "{}";
    let answer = |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    client.send(&ask).await;
    let (mut kept, _) = upstream.answer(answer("one")).await;
    assert_eq!(client.response().await.text(), "one");
    // Ended while it was idle: it is not even tried.
    drop(kept);
    client.send(&ask).await;
    (kept, _) = upstream.answer(answer("two")).await;
    assert_eq!(client.response().await.text(), "two");
    // Ended at the very moment that it is used.
    client.send(&ask).await;
    assert_eq!(kept.request().await.body, b"{}");
    drop(kept);
    let (_kept, request) = upstream.answer(answer("three")).await;
    assert_eq!((client.response().await.text().as_str(), request.body.as_slice()), ("three", &b"{}"[..]));
    let log = proxy.stop().await;
    assert_eq!(log.events("stream_read_error").count(), 0, "that is nobody's failure");
}

/// What the client of a call gets while nobody asks the upstream again.
async fn asked_once(upstream: &Upstream, client: &mut Connection) -> Response {
    tokio::select! {
        _ = upstream.connection() => panic!("the upstream is asked again"),
        response = client.response() => response,
    }
}

#[tokio::test]
async fn what_may_have_had_an_effect_is_not_sent_again() {
    let upstream = Upstream::start().await;
    let proxy = Setting::new(&["one"], Script::default()).start_at(upstream.url()).await;
    let mut client = proxy.connect().await;
    let call = head(&proxy, "POST", "/backend-api/ps/mcp", "", 2) + "{}";
    // On a new connection, and on one that was used before.
    client.send(&call).await;
    drop(upstream.accept().await);
    assert_eq!(asked_once(&upstream, &mut client).await.status(), 503);
    client.send(&call).await;
    let (mut kept, _) = upstream.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 200);
    client.send(&call).await;
    kept.request().await;
    kept.send("HTTP/1.1 20").await;
    drop(kept);
    assert_eq!(asked_once(&upstream, &mut client).await.status(), 503);
    // What only reads is.
    client.send(head(&proxy, "GET", "/backend-api/wham/usage", "", 0)).await;
    drop(upstream.accept().await);
    upstream.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 200);
}

#[tokio::test]
async fn a_cut_websocket_turn_is_seen_as_a_cut() {
    for end in [End::Fin, End::Reset] {
        let cut = Rule::new(Turn::text("a b")).fault(Fault::after_events(6, end.clone()));
        let (mock, proxy) = start([cut]).await;
        let mut socket = Socket::open(&proxy, &[]).await.unwrap();
        socket.send(&create("x")).await;
        let (messages, error) = socket.rest().await;
        let texts: Vec<&str> = messages.iter().map(|message| message.to_text().unwrap()).collect();
        assert!(error.is_some(), "{end:?}: no clean end behind {texts:?}");
        assert!(!texts.iter().any(|text| text.contains("response.completed")), "{texts:?}");
        if end == End::Fin {
            assert_eq!(texts.len(), 6, "{texts:?}");
        }
        assert!(messages.iter().all(tokio_tungstenite::tungstenite::Message::is_text));
        assert_eq!(mock.journal().responses().len(), 1);
    }
}

#[tokio::test]
async fn an_upstream_that_falls_silent_is_cut() {
    let stream = Stream::texts([CREATED, OUTPUT]);
    let silent = Rule::new(stream).fault(Fault { at: At::End, end: End::Hang });
    let setting = Setting::new(&["one"], Script::rules([silent])).set("PRODEX_STREAM_IDLE_TIMEOUT", "300ms");
    let (_mock, proxy) = setting.start().await;
    let (bytes, _) = begin_turn(&proxy, "", "{}").await.read_to_end().await;
    assert!(String::from_utf8(bytes).unwrap().ends_with(&format!("{OUTPUT}\r\n")));
    let log = proxy.stop().await;
    let ended = &log.events("stream_complete").next().unwrap().fields;
    assert_eq!((&ended["outcome"], &ended["leg"]), (&"idle".into(), &"upstream".into()));
}

#[tokio::test]
async fn a_websocket_turn_that_falls_silent_is_cut() {
    let silent = Rule::new(Turn::text("a")).fault(Fault::after_events(5, End::Hang));
    let setting = Setting::new(&["one"], Script::rules([silent])).set("PRODEX_STREAM_IDLE_TIMEOUT", "300ms");
    let (_mock, proxy) = setting.start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.send(&create("x")).await;
    let (messages, _) = socket.rest().await;
    assert_eq!(messages.len(), 5);
}
