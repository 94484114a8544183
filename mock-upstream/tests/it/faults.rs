//! Replies that go wrong, as the client sees them.

use std::io::ErrorKind;
use std::time::Duration;

use mock_upstream::fault::{End, Fault};
use mock_upstream::journal::HowEnded;
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Framing, Rule, Script, Stream};
use mock_upstream::{Exchange, Mock};

use crate::client::{CHATGPT, Client, LIMIT, mock, user};

/// A mock whose stream of three writes breaks, and a client that has sent its request.
async fn broken(fault: Fault, framing: Framing) -> (Mock, Client) {
    let stream = Stream { framing, ..Stream::texts(["one\n\n", "two\n\n", "three\n\n"]) };
    let mock = mock(Script::rules([Rule::new(stream).fault(fault)])).await;
    let mut client = Client::connect(mock.address()).await;
    let body = user("x").to_string();
    let request = format!("POST {CHATGPT} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.send(request).await;
    (mock, client)
}

/// What comes behind the head, the error it ends with, and how the journal says it ended.
async fn seen(fault: Fault, framing: Framing) -> (String, Option<ErrorKind>, HowEnded) {
    let (mock, mut client) = broken(fault, framing).await;
    let (bytes, error) = client.read_to_end().await;
    let text = String::from_utf8(bytes).unwrap();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    let ended = |all: &[Exchange]| all[0].end.is_some();
    let journal = mock.journal().wait_for("the end", LIMIT, ended).await.unwrap();
    (body, error, journal[0].end.as_ref().unwrap().how)
}

#[tokio::test]
async fn a_reset_is_a_reset_and_what_came_before_it_arrives() {
    let reset = ErrorKind::ConnectionReset;
    let (body, error, how) = seen(Fault::after_events(2, End::Reset), Framing::Chunked).await;
    assert_eq!((&*body, error, how), ("5\r\none\n\n\r\n5\r\ntwo\n\n\r\n", Some(reset), HowEnded::Reset));
    let (body, error, _) = seen(Fault::before_head(End::Reset), Framing::Chunked).await;
    assert_eq!((&*body, error), ("", Some(reset)));
}

#[tokio::test]
async fn a_close_in_the_middle_leaves_the_framing_open() {
    let (body, error, how) = seen(Fault::after_bytes(7, End::Fin), Framing::Chunked).await;
    assert_eq!((&*body, error, how), ("5\r\none\n\n\r\n3\r\ntw", None, HowEnded::Fin));
    let (body, ..) = seen(Fault::after_bytes(7, End::Fin), Framing::Length).await;
    assert_eq!(body, "one\n\ntw");
    let (body, ..) = seen(Fault::before_head(End::Fin), Framing::Length).await;
    assert_eq!(body, "");
}

#[tokio::test]
async fn a_clean_end_comes_too_early_and_the_connection_lives() {
    let (_mock, mut client) = broken(Fault::after_events(1, End::Eof), Framing::Chunked).await;
    assert_eq!(client.response().await.text(), "one\n\n");
    let next = client.request("GET", "/v1/models", "", b"").await;
    assert_eq!(next.status, 200);
}

#[tokio::test]
async fn a_short_body_promises_more_than_it_has() {
    let (mock, mut client) =
        broken(Fault { at: mock_upstream::fault::At::End, end: End::Short }, Framing::Chunked).await;
    let (bytes, error) = client.read_to_end().await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.contains("content-length: 18\r\n") && text.ends_with("three\n\n") && error.is_none(),
        "{text}"
    );
    drop(mock);
}

#[tokio::test]
async fn a_hang_lasts_until_the_client_goes() {
    for fault in [Fault::before_head(End::Hang), Fault::after_events(1, End::Hang)] {
        let (mock, mut client) = broken(fault.clone(), Framing::Chunked).await;
        if fault.at != mock_upstream::fault::At::BeforeHead {
            client.read().await.unwrap();
        }
        let one = |all: &[Exchange]| all.len() == 1;
        let journal = mock.journal().wait_for("the request", LIMIT, one).await.unwrap();
        assert_eq!(journal[0].end, None);
        drop(client);
        let ended = |all: &[Exchange]| all[0].end.is_some();
        let journal = mock.journal().wait_for("the end", LIMIT, ended).await.unwrap();
        assert_eq!(journal[0].end.as_ref().unwrap().how, HowEnded::Hang);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed_between_events() {
    let stream = Stream::texts(["one\n\n", "never\n\n"]);
    let rule = Rule::new(stream).pacing(Pacing::gap(Duration::from_secs(3600)));
    let mock = mock(Script::rules([rule])).await;
    let mut client = Client::connect(mock.address()).await;
    client.send(format!("POST {CHATGPT} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}")).await;
    client.read().await.unwrap();
    drop(client);
    let gone = |all: &[Exchange]| all.iter().any(Exchange::client_gone);
    mock.journal().wait_for("the client to be gone", Duration::from_secs(1), gone).await.unwrap();
    assert_eq!(mock.metrics().client_gone, 1);
}

#[tokio::test]
async fn a_client_that_stops_reading_and_goes_is_noticed() {
    let big = "x".repeat(1 << 20);
    let mock = mock(Script::rules([Rule::new(Stream::texts(vec![big; 64]))])).await;
    let mut client = Client::connect(mock.address()).await;
    client.send(format!("POST {CHATGPT} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}")).await;
    client.read().await.unwrap();
    let stuck = |all: &[Exchange]| all[0].answer.is_some();
    mock.journal().wait_for("the head", LIMIT, stuck).await.unwrap();
    drop(client);
    let gone = |all: &[Exchange]| all[0].client_gone();
    mock.journal().wait_for("the client to be gone", LIMIT, gone).await.unwrap();
}
