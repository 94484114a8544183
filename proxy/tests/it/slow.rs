//! A client that does not read holds its upstream back: it costs patience, and no memory.

use std::time::Duration;

use futures_util::StreamExt as _;
use mock_upstream::journal::Limits;
use mock_upstream::script::{Frame, Reply, Rule, Script, Stream, Transport};
use mock_upstream::{Account, Config, Mock};
use tokio_tungstenite::tungstenite::Message;

use crate::connection::{TURN, begin_turn, user};
use crate::http2::{Http2, collect};
use crate::many::status;
use crate::rig::{LIMIT, Proxy, Setting};
use crate::socket::{Socket, create};

/// How much an upstream has to say.
const ALL: usize = 64 << 20;

/// In pieces of so many bytes.
const PIECE: usize = 256 << 10;

/// Most memory, in KiB, that the proxy may take for it. Buffers of sockets are the system's, not its own.
const MOST: usize = 6 * 1024;

fn event() -> String {
    format!("{{\"type\":\"response.output_text.delta\",\"delta\":\"{}\"}}", "x".repeat(PIECE))
}

/// A mock that says it all at once, over HTTP and on WebSockets, and keeps nothing; and a proxy.
async fn talkative(arguments: &[&str]) -> (Mock, Proxy) {
    let frames = Reply::Frames(vec![Frame::Text(event()); ALL / PIECE]);
    let events = Stream::texts(vec![format!("data: {}\n\n", event()); ALL / PIECE]);
    let rules = [Rule::new(frames).transport(Transport::Websocket), Rule::new(events)];
    let script = Script::rules(rules).account(Account::new("one"));
    let mock = Mock::start(Config { journal: Limits::OFF, ..Config::script(script) }).await.unwrap();
    let setting = Setting::new(&["one"], Script::default());
    let setting = arguments.iter().fold(setting, |setting, argument| setting.argument(argument));
    let proxy = setting.start_at(mock.base_url()).await;
    (mock, proxy)
}

/// Waits until the upstream can say no more: all buffers between it and the client are full.
async fn held_back(mock: &Mock) -> u64 {
    let stands_still = async {
        let mut sent = mock.metrics().bytes_sent;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = mock.metrics().bytes_sent;
            if now == sent && now > PIECE as u64 {
                return now;
            }
            sent = now;
        }
    };
    tokio::time::timeout(LIMIT, stands_still).await.expect("the upstream is held back")
}

/// Holds the memory while nobody reads against what there was before.
async fn assert_cheap(mock: &Mock, proxy: &Proxy, before: usize) {
    let sent = held_back(mock).await;
    assert!(sent < ALL as u64 / 2, "{sent} bytes were taken from the upstream for nobody");
    let grown = status(proxy, "VmRSS").saturating_sub(before);
    println!("{grown} KiB of memory while {sent} bytes are on their way");
    assert!(grown < MOST, "{grown} KiB of memory for a client that does not read");
}

#[tokio::test]
async fn over_http1() {
    let (mock, proxy) = talkative(&[]).await;
    let before = status(&proxy, "VmRSS");
    let mut client = begin_turn(&proxy, "", &user("x")).await;
    assert_cheap(&mock, &proxy, before).await;
    assert!(client.response().await.body.len() > ALL, "and all of it arrives");
}

#[tokio::test]
async fn over_http2() {
    let (mock, proxy) = talkative(&["--tls"]).await;
    let mut client = Http2::open(&proxy).await;
    let before = status(&proxy, "VmRSS");
    let target = format!("{}{TURN}", proxy.prefix());
    let mut response = client.send("POST", &target, &[], user("x")).await.unwrap();
    assert_cheap(&mock, &proxy, before).await;
    let (body, end) = collect(response.body_mut()).await;
    assert!(body.len() > ALL && end.is_ok(), "and all of it arrives");
}

#[tokio::test]
async fn on_a_websocket() {
    let (mock, proxy) = talkative(&[]).await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    let before = status(&proxy, "VmRSS");
    socket.send(&create("x")).await;
    assert_cheap(&mock, &proxy, before).await;
    for _ in 0..ALL / PIECE {
        let message = tokio::time::timeout(LIMIT, socket.stream.next()).await.unwrap();
        assert!(matches!(message, Some(Ok(Message::Text(text))) if text.len() > PIECE));
    }
}
