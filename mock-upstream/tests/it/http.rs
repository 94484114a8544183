//! HTTP/1.1 as the mock speaks it.

use mock_upstream::script::{Http, Rule, Script, Stream, Transport, Turn};
use serde_json::json;

use crate::client::{CHATGPT, Client, LIMIT, mock, request, turn, user};

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let mock = mock(Script::default()).await;
    let mut client = Client::connect(mock.address()).await;
    for _ in 0..3 {
        let response = client.request("POST", "/v1/responses", "", user("hi").to_string().as_bytes()).await;
        assert_eq!(response.said(), "Hello from the mock.");
    }
    // Two requests at once are answered in order.
    let one = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n";
    let two = "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send(format!("{one}{two}")).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(client.response().await.status, 404);
    let connections: Vec<u64> = mock.journal().exchanges().iter().map(|e| e.connection).collect();
    assert_eq!(connections, [1; 5]);
    assert_eq!(mock.metrics().connections, 1);
}

#[tokio::test]
async fn every_form_of_body_is_read() {
    let mock = mock(Script::rules([Rule::new(Turn::text("seen")).user_text("find me")])).await;
    let text = user("please find me").to_string();
    let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
    let response = request(&mock, "POST", CHATGPT, "Content-Encoding: zstd\r\n", &zstd).await;
    assert_eq!(response.said(), "seen");

    let mut client = Client::connect(mock.address()).await;
    let (start, end) = text.split_at(100);
    client
        .send(format!(
            "POST {CHATGPT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{start}\r\n"
        ))
        .await;
    client.send(format!("{:x};ext=1\r\n{end}\r\n0\r\n\r\n", end.len())).await;
    assert_eq!(client.response().await.said(), "seen");

    let expects = format!("POST {CHATGPT} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ");
    client.send(format!("{expects}{}\r\n\r\n", text.len())).await;
    assert_eq!(client.read().await.unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send(&text).await;
    assert_eq!(client.response().await.said(), "seen");

    let journal = mock.journal().responses();
    assert_eq!(journal[0].body, zstd, "the body is kept as it came");
    assert!(journal.iter().all(|exchange| exchange.decoded_body().unwrap() == text.as_bytes()));
}

#[tokio::test]
async fn the_head_is_kept_byte_for_byte() {
    let mock = mock(Script::default()).await;
    let mut client = Client::connect(mock.address()).await;
    let head = "GET /v1/models?client_version=1 HTTP/1.1\r\nhOsT:x\r\nX-Two:  a \r\nx-two: b\r\n\r\n";
    client.send(head).await;
    client.response().await;
    let journal = mock.journal().exchanges();
    assert_eq!(journal[0].head, head);
    let fields = [("hOsT", "x"), ("X-Two", "a"), ("x-two", "b")].map(|(n, v)| (n.into(), v.into()));
    assert_eq!(journal[0].headers(), fields);
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_closed() {
    let mock = mock(Script::default()).await;
    let too_large = format!("POST /v1/responses HTTP/1.1\r\nContent-Length: {}\r\n\r\n", 65_u64 << 20);
    for (bytes, status) in [
        ("GET / HTTP/1.0\r\n\r\n", "400"),
        ("nonsense\r\n\r\n", "400"),
        ("GET / HTTP/1.1\nHost: x\n\n", "400"),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "400"),
        (too_large.as_str(), "413"),
    ] {
        let mut client = Client::connect(mock.address()).await;
        client.send(bytes).await;
        let (reply, error) = client.read_to_end().await;
        let reply = String::from_utf8(reply).unwrap();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")) && error.is_none(), "{bytes:?}: {reply:?}");
    }
    assert_eq!(mock.metrics().bad_requests, 6);
    assert!(mock.journal().exchanges().is_empty());
    let response = request(&mock, "POST", CHATGPT, "Content-Encoding: zstd\r\n", b"not zstd").await;
    assert_eq!(response.status, 400);
}

#[tokio::test]
async fn a_scripted_response_is_sent_as_it_is_written() {
    let http = Http::text(418, "tea").header("X-Odd-Case", "yes").header("x-odd-case", "again");
    let mock = mock(Script::rules([
        Rule::new(http).user_text("tea"),
        Rule::new(Http::json(402, json!({ "detail": "pay" }))).user_text("json"),
        Rule::new(Http::status(204)).user_text("none"),
    ]))
    .await;
    let mut client = Client::connect(mock.address()).await;
    let body = user("tea").to_string();
    client
        .send(format!(
            "POST {CHATGPT} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    let (reply, _) = client.read_to_end().await;
    let expected = "HTTP/1.1 418 \r\nX-Odd-Case: yes\r\nx-odd-case: again\r\ncontent-length: 3\r\nconnection: close\r\n\r\ntea";
    assert_eq!(String::from_utf8(reply).unwrap(), expected);
    let response = turn(&mock, "", &user("json")).await;
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!((response.status, response.text()), (402, r#"{"detail":"pay"}"#.into()));
    let response = turn(&mock, "", &user("none")).await;
    assert_eq!((response.status, response.header("content-length")), (204, None));
}

#[tokio::test]
async fn a_scripted_stream_is_sent_byte_for_byte() {
    let parts: [&[u8]; 4] = [b"\xEF\xBB\xBF: note\r\n\r\n", b"data: \xE2\x82", b"\xAC\r\n\r\n", b"\xFF\r"];
    let mock = mock(Script::rules([Rule::new(Stream::bytes(parts))])).await;
    let response = turn(&mock, "", &user("x")).await;
    assert_eq!(response.body, parts.concat());
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    let journal = mock.journal().wait_for("an end", LIMIT, |all| all.iter().all(|e| e.end.is_some())).await;
    let answer = journal.unwrap()[0].answer.clone().unwrap();
    assert_eq!(answer.body, parts.concat());
    let lengths: Vec<usize> = answer.writes.iter().map(|(_, length)| *length).collect();
    assert_eq!(lengths, parts.map(<[u8]>::len));
}

#[tokio::test]
async fn a_get_without_an_upgrade_is_nothing() {
    let rule = Rule::new(Http::status(500)).transport(Transport::Upgrade);
    let mock = mock(Script::rules([rule])).await;
    assert_eq!(request(&mock, "GET", CHATGPT, "", b"").await.status, 404);
}
