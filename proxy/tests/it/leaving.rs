//! A client that goes away takes its request with it, at every stage and over every transport.

use std::time::Duration;

use mock_upstream::fault::{At, End, Fault};
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Http, Item, Rule, Script, Stream, Transport, Turn, Write};
use mock_upstream::{Account, Exchange, Mock};

use crate::connection::{TURN, begin_turn, head, user};
use crate::http2::{Http2, data};
use crate::rig::{LIMIT, Proxy, Setting};
use crate::socket::{Socket, create};
use crate::upstream::Upstream;

const CREATED: &str = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r1\"}}\n\n";

const OUTPUT: &str = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n";

/// Where a request is when its client leaves: before the head, held, or on its way.
fn stages() -> [(&'static str, Rule); 3] {
    let hang = |stream: Stream, at| Rule::new(stream).fault(Fault { at, end: End::Hang });
    [
        ("before the head", hang(Stream::texts([CREATED]), At::BeforeHead)),
        ("held", hang(Stream::texts([CREATED]), At::End)),
        ("on its way", hang(Stream::texts([CREATED, OUTPUT]), At::End)),
    ]
}

async fn start(rule: Rule, arguments: &[&str]) -> (Mock, Proxy) {
    let setting = Setting::new(&["one"], Script::rules([rule])).set("PRODEX_HOLD_CODEX", "5m");
    arguments.iter().fold(setting, |setting, argument| setting.argument(argument)).start().await
}

/// The upstream's end of the one turn there is.
async fn arrived(mock: &Mock, is_head_sent: bool) {
    let arrived = |all: &[Exchange]| {
        all.iter().any(|turn| turn.target == TURN && (turn.answer.is_some() || !is_head_sent))
    };
    mock.journal().wait_for("the turn", LIMIT, arrived).await.unwrap();
}

/// Does what makes the client leave, and says how long the upstream was not told.
async fn leaves(mock: &Mock, leave: impl FnOnce()) -> Duration {
    let left = mock.journal().elapsed();
    leave();
    let ended = |all: &[Exchange]| all.iter().any(|turn| turn.target == TURN && turn.end.is_some());
    let all = mock.journal().wait_for("the upstream to be told", LIMIT, ended).await.unwrap();
    let turn = all.iter().find(|turn| turn.target == TURN).unwrap();
    turn.end.as_ref().unwrap().at.saturating_sub(left)
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn over_http1() {
    for (stage, rule) in stages() {
        for by_reset in [false, true] {
            let (mock, proxy) = start(rule.clone(), &[]).await;
            let mut client = begin_turn(&proxy, "", &user("x")).await;
            arrived(&mock, stage != "before the head").await;
            if stage == "on its way" {
                client.read_through(OUTPUT).await;
            }
            let took = leaves(&mock, || if by_reset { client.reset() } else { drop(client) }).await;
            assert!(took < SECOND, "{stage}, by reset: {by_reset}: {took:?}");
            let log = proxy.stop().await;
            let outcome = log.events("stream_complete").next().map(|line| line.fields["outcome"].clone());
            assert_eq!(outcome, (stage == "on its way").then(|| "client_gone".into()), "{stage}");
        }
    }
}

#[tokio::test]
async fn over_http2_by_its_stream_or_its_connection() {
    for (stage, rule) in stages() {
        for by_stream in [false, true] {
            let (mock, proxy) = start(rule.clone(), &["--tls"]).await;
            let target = format!("{}{TURN}", proxy.prefix());
            let mut client = Http2::open(&proxy).await;
            let end = client.end();
            let fields = [("user-agent", "codex_exec/0.169.0")];
            let mut response = Box::pin(client.send("POST", &target, &fields, "{}"));
            let took = if stage == "on its way" {
                let mut response = response.await.unwrap();
                assert!(data(response.body_mut()).await.unwrap().unwrap().ends_with(OUTPUT.as_bytes()));
                leaves(&mock, || if by_stream { drop(response) } else { end() }).await
            } else {
                tokio::select! {
                    response = &mut response => panic!("{response:?} came too early"),
                    () = arrived(&mock, stage == "held") => {}
                }
                leaves(&mock, || if by_stream { drop(response) } else { end() }).await
            };
            assert!(took < SECOND, "{stage}, by stream: {by_stream}: {took:?}");
            proxy.stop().await;
        }
    }
}

#[tokio::test]
async fn over_a_websocket() {
    let slow = Pacing::gap(Duration::from_secs(3600));
    let held = Rule::new(Turn::text("x")).pacing(slow);
    let output = Item::Event(serde_json::json!({ "type": "other" }));
    let running = Rule::new(Turn::of([output])).fault(Fault { at: At::Events(5), end: End::Hang });
    for (stage, rule) in [("held", held), ("on its way", running)] {
        let (mock, proxy) = start(rule, &[]).await;
        let mut socket = Socket::open(&proxy, &[]).await.unwrap();
        socket.send(&create("x")).await;
        if stage == "on its way" {
            while socket.event().await["type"] != "other" {}
        } else {
            let asked = |all: &[Exchange]| all.iter().any(|turn| turn.received().next().is_some());
            mock.journal().wait_for("the request", LIMIT, asked).await.unwrap();
        }
        let took = leaves(&mock, || socket.vanish()).await;
        assert!(took < SECOND, "{stage}: {took:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn from_an_idle_websocket() {
    let (mock, proxy) = start(Rule::new(Turn::text("x")), &[]).await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.turn(&create("x")).await;
    let took = leaves(&mock, || socket.vanish()).await;
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test]
async fn from_an_upgrade_that_is_not_answered() {
    let rule = Rule::new(Http::status(426)).transport(Transport::Upgrade);
    let (mock, proxy) = start(rule.fault(Fault::before_head(End::Hang)), &[]).await;
    let mut opening = Box::pin(Socket::open(&proxy, &[]));
    tokio::select! {
        _ = &mut opening => panic!("the upgrade was answered"),
        () = arrived(&mock, false) => {}
    }
    let took = leaves(&mock, || drop(opening)).await;
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up() {
    let rule = Rule::new(Stream::texts(vec![format!("data: {}\n\n", "x".repeat(1 << 20)); 64]));
    let setting = Setting::new(&["one"], Script::rules([rule])).set("PRODEX_WRITE_TIMEOUT", "300ms");
    let (mock, proxy) = setting.start().await;
    let mut client = begin_turn(&proxy, "", "{}").await;
    client.read().await.unwrap();
    let gone = |all: &[Exchange]| all.iter().any(Exchange::client_gone);
    mock.journal().wait_for("the upstream to be told", LIMIT, gone).await.unwrap();
    let log = proxy.stop().await;
    let ended = &log.events("stream_complete").next().unwrap().fields;
    assert_eq!((&ended["outcome"], &ended["leg"]), (&"slow_client".into(), &"client".into()));
}

#[tokio::test]
async fn a_client_that_stops_reading_later_is_given_up() {
    let mut stream = Stream::texts([OUTPUT]);
    stream.writes.push(Write::PauseMs(900));
    stream.writes.extend(vec![Write::Text(format!("data: {}\n\n", "x".repeat(1 << 20))); 64]);
    let setting = Setting::new(&["one"], Script::rules([Rule::new(stream)]));
    let (mock, proxy) = setting.set("PRODEX_WRITE_TIMEOUT", "300ms").start().await;
    let mut client = begin_turn(&proxy, "", "{}").await;
    client.read_through(OUTPUT).await;
    let gone = |all: &[Exchange]| all.iter().any(Exchange::client_gone);
    mock.journal().wait_for("the upstream to be told", LIMIT, gone).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_while_its_turn_moves_is_noticed() {
    let hanging = Rule::new(Http::status(426)).transport(Transport::Upgrade).account("b");
    let hanging = hanging.fault(Fault::before_head(End::Hang));
    let script = Script::rules([hanging]).account(Account::new("a").turns_left(0));
    let (mock, proxy) = Setting::new(&["a", "b"], script).start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.send(&create("x")).await;
    let moving =
        |all: &[Exchange]| all.iter().any(|turn| turn.account.as_deref() == Some("b") && turn.target == TURN);
    mock.journal().wait_for("the second upgrade", LIMIT, moving).await.unwrap();
    socket.vanish();
    let told = |all: &[Exchange]| {
        all.iter()
            .any(|turn| turn.account.as_deref() == Some("b") && turn.target == TURN && turn.end.is_some())
    };
    mock.journal().wait_for("the upstream to be told", LIMIT, told).await.unwrap();
}

#[tokio::test]
async fn while_its_request_is_on_its_way_up() {
    let upstream = Upstream::start().await;
    let proxy = Setting::new(&[], Script::default()).key("key", "sk-x").start_at(upstream.url()).await;
    let mut client = proxy.connect().await;
    let body = vec![b'x'; 16 << 20];
    client.send([head(&proxy, "POST", "/v1/responses", "", body.len()).as_bytes(), &body].concat()).await;
    let mut connection = upstream.connection().await;
    connection.read_through("\r\n\r\n").await;
    drop(client);
    let log = proxy.stop().await;
    assert_eq!(log.events("drain_finished").next().unwrap().fields["aborted"], 0, "nothing was in flight");
    assert!(connection.read_to_end().await.0.len() < body.len());
}
