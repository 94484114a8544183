//! A playback over a socket written by hand: bytes, writes, ends, and what is kept of what came.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::capture::{Answer, Direction, Exchange, Payload, Request, Rest, StreamEnd};

use super::{Config, Playback};

const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn exchange(id: u64, method: &str, url: &str, body: &[u8]) -> Exchange {
    let request = Request {
        direction: Direction::ClientToUpstream,
        id,
        connection: 1,
        method: method.into(),
        url: url.into(),
        http_version: "1.1".into(),
        headers: Vec::new(),
        head: None,
        body: Some(Payload(body.to_vec())),
        wire_len: body.len() as u64,
        writes: Vec::new(),
        upgrade: None,
        rest: Rest::new(),
    };
    let messages = Vec::new();
    Exchange {
        id,
        at: 0.0,
        request,
        answer: None,
        messages,
        client_gone: None,
        unanswered: None,
        missing: None,
    }
}

fn answer(headers: &[(&str, &str)], writes: &[&str], end: StreamEnd) -> Answer {
    Answer {
        at: 0.0,
        status: 200,
        headers: headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        body: writes.concat().into_bytes(),
        writes: writes.iter().map(|write| (0.0, write.len() as u64)).collect(),
        end,
        is_stream: false,
    }
}

async fn play(exchange: Exchange, request: &str) -> (String, super::Log) {
    let config = Config { meet: None, ..Config::default() };
    let playback = Playback::start(vec![exchange], config).await.unwrap();
    let mut client = TcpStream::connect(playback.address()).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    tokio::time::timeout(LIMIT, client.read_to_end(&mut seen)).await.unwrap().unwrap();
    (String::from_utf8(seen).unwrap(), playback.stop().await)
}

#[tokio::test]
async fn what_was_recorded_is_written_with_its_spelling_duplicates_and_pieces() {
    let headers = [("Set-Cookie", "a"), ("x-Y", "1"), ("Set-Cookie", "b"), ("Transfer-Encoding", "chunked")];
    let mut recorded = exchange(7, "POST", "/a?b", b"hi");
    recorded.answer = Some(answer(&headers, &["one", "longer"], StreamEnd::Eof));
    let request = "POST /a?b HTTP/1.1\r\nHoSt: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let (seen, log) = play(recorded, request).await;
    insta::assert_snapshot!(seen.replace("\r\n", "|\n"), @r"
    HTTP/1.1 200 OK|
    Set-Cookie: a|
    x-Y: 1|
    Set-Cookie: b|
    Transfer-Encoding: chunked|
    |
    3|
    one|
    6|
    longer|
    0|
    |
    ");
    let ask = &log.asks[0];
    assert_eq!((ask.exchange, ask.is_whole, &ask.body.0[..]), (Some(7), true, &b"hi"[..]));
    assert!(request.as_bytes().starts_with(&ask.head.0));
    assert_eq!(ask.writes.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [3, 6]);
}

#[tokio::test]
async fn a_cut_is_played_as_a_cut() {
    let mut recorded = exchange(1, "GET", "/", b"");
    recorded.answer = Some(answer(&[("content-length", "9")], &["one"], StreamEnd::Fin));
    let (seen, log) = play(recorded, "GET / HTTP/1.1\r\n\r\n").await;
    assert!(seen.ends_with("\r\n\r\none"), "{seen}");
    assert!(log.asks[0].ended.is_some());
}

#[tokio::test]
async fn what_nobody_recorded_is_answered_404_and_kept() {
    let request = "GET /other HTTP/1.1\r\n\r\nGET /gone HTTP/1.1\r\nConnection: close\r\n\r\n";
    let playback = Playback::start(vec![exchange(1, "GET", "/", b"")], Config::default()).await.unwrap();
    let mut client = TcpStream::connect(playback.address()).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut seen = [0; 24];
    tokio::time::timeout(LIMIT, client.read_exact(&mut seen)).await.unwrap().unwrap();
    assert_eq!(&seen, b"HTTP/1.1 404 Not Found\r\n");
    drop(client);
    assert!(playback.shared.book.until(LIMIT, |log, open| open == 0 && !log.asks.is_empty()).await);
    let log = playback.stop().await;
    assert_eq!(log.unexpected().next().unwrap().target, "/other");
}
