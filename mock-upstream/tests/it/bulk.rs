//! The bulk mock: every reply that can be asked for, its accounts, its controls, and many streams at once.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use mock_upstream::bulk::{Bulk, BulkConfig};
use mock_upstream::content::{self, Ask, Content, Fault, LineEnd, NONCE, Shape, Template, Values};
use mock_upstream::{Account, Script};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{CHATGPT, Client, LIMIT, as_account};

pub(crate) const SHAPE: Shape =
    Shape { events: 20, bytes: 40, line_end: LineEnd::CrLf, in_one_write: false, content: Content::Answer };
const COMPACT: &str = "/backend-api/codex/responses/compact";

pub(crate) fn bulk(script: Script) -> Bulk {
    Bulk::start(BulkConfig { script, ..BulkConfig::default() }).unwrap()
}

fn ask(fault: Fault) -> Ask {
    Ask { fault, rate: 1_000_000, ..Ask::new(SHAPE, [b'a'; NONCE]) }
}

pub(crate) fn body(ask: &Ask) -> Vec<u8> {
    json!({ "model": "load", "instructions": ask.text(), "input": [] }).to_string().into_bytes()
}

/// The reply to `ask`, with the times that were told.
fn expected(template: &Template, account: &[u8], seen: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let values = Values {
        nonce: [b'a'; NONCE],
        account: content::account_field(account),
        received: [0; content::TIME],
    };
    template.render(0, template.ends.len(), &values, &[0; content::TIME], &mut out);
    for hole in &template.holes {
        if matches!(hole.field, content::Field::Sent | content::Field::Received) {
            let place = hole.at..hole.at + content::TIME;
            let time = content::time_of(seen.get(place.clone()).unwrap_or_default()).unwrap();
            assert!(time > 0 && time <= content::now(), "{time}");
            out[place.clone()].copy_from_slice(&seen[place]);
        }
    }
    out
}

#[tokio::test]
async fn a_reply_is_what_was_asked_for_to_the_byte() {
    let mock = bulk(Script::default());
    let mut client = Client::connect(mock.address()).await;
    for line_end in [LineEnd::Lf, LineEnd::CrLf] {
        for in_one_write in [false, true] {
            let shape = Shape { line_end, in_one_write, ..SHAPE };
            let body = body(&Ask::new(shape, [b'a'; NONCE]));
            let reply = client.request("POST", CHATGPT, "ChatGPT-Account-Id: someone\r\n", &body).await;
            assert_eq!(reply.status, 200);
            assert_eq!(reply.body, expected(&Template::sse(shape), b"someone", &reply.body));
            assert_eq!(reply.header("x-codex-turn-state"), Some("load-turn-someone........."));
        }
    }
    let compact = client.request("POST", COMPACT, "", &body(&ask(Fault::None))).await;
    assert_eq!(compact.body, expected(&Template::unary(SHAPE.bytes), b"anonymous", &compact.body));
    let counts = mock.metrics();
    assert_eq!((counts.all.streams, counts.all.unary, counts.all.events), (4, 1, 4 * 22));
    assert_eq!((counts.connections, counts.accounts["someone"].streams), (1, 4));
    assert_eq!(counts.bad_requests, 0);
}

#[tokio::test]
async fn a_body_may_be_long_compressed_and_come_in_pieces() {
    let mock = bulk(Script::default());
    let mut text = body(&ask(Fault::None));
    text.resize(2 << 20, b' ');
    let mut client = Client::connect(mock.address()).await;
    assert_eq!(client.request("POST", CHATGPT, "", &text).await.events().len(), 22);
    let packed = zstd::encode_all(&body(&ask(Fault::None))[..], 1).unwrap();
    let reply = client.request("POST", CHATGPT, "content-encoding: zstd\r\n", &packed).await;
    assert_eq!(reply.events().len(), 22);
    let body = body(&ask(Fault::None));
    let head = format!("POST {CHATGPT} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    for piece in [head.as_bytes(), &body, head.as_bytes(), &body].concat().chunks(97) {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        assert_eq!(client.response().await.events().len(), 22);
    }
}

#[tokio::test]
async fn every_fault_looks_as_it_is_called() {
    let mock = bulk(Script::default());
    for (fault, status) in [(Fault::Unavailable, 503), (Fault::RateLimited, 429), (Fault::UsageLimit, 429)] {
        for target in [CHATGPT, COMPACT] {
            let mut client = Client::connect(mock.address()).await;
            let reply = client.request("POST", target, "", &body(&ask(fault))).await;
            assert_eq!(reply.status, status);
            assert!(reply.text().contains(content::ASKED_FOR));
        }
    }
    let stream = async |fault| {
        let mut client = Client::connect(mock.address()).await;
        client.request("POST", CHATGPT, "", &body(&ask(fault))).await
    };
    for (fault, code) in [(Fault::Failed, "server_error"), (Fault::InsufficientQuota, "insufficient_quota")] {
        let events = stream(fault).await.events();
        assert_eq!((events.len(), &events[0]["type"]), (2, &json!("response.created")));
        assert_eq!(events[1]["response"]["error"]["code"], code);
    }
    let whole = stream(Fault::None).await.body;
    let wrong = stream(Fault::WrongByte).await.body;
    let right = expected(&Template::sse(SHAPE), b"anonymous", &wrong);
    assert_eq!(wrong.iter().zip(&right).filter(|(a, b)| a != b).count(), 1);
    assert_eq!(wrong.len(), whole.len());
    assert_eq!(stream(Fault::NoTerminal).await.events().len(), 21);
    let double = stream(Fault::Double).await.events();
    assert_eq!((double.len(), &double[21]["type"]), (23, &double[22]["type"]));
    assert_eq!(mock.metrics().all.faults, 6 + 2 + 3);
}

#[tokio::test]
async fn a_reply_is_cut_reset_or_falls_silent_after_half() {
    let mock = bulk(Script::default());
    let sent = |ask: Ask| {
        let body = body(&ask);
        let head = format!("POST {CHATGPT} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body].concat()
    };
    for (fault, kind) in [(Fault::Cut, None), (Fault::Reset, Some(std::io::ErrorKind::ConnectionReset))] {
        let mut client = Client::connect(mock.address()).await;
        // Slow enough for each event to be read before the reset throws away what was not.
        client.send(sent(Ask { gap: Duration::from_millis(2), ..ask(fault) })).await;
        let (bytes, end) = client.read_to_end().await;
        assert_eq!(end, kind);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches("event: ").count(), 11, "{text}");
        assert!(!text.ends_with("0\r\n\r\n"));
    }
    let mut client = Client::connect(mock.address()).await;
    client.send(sent(ask(Fault::Silence))).await;
    let mut text = Vec::new();
    while text.windows(7).filter(|window| window == b"event: ").count() < 11 {
        text.extend(client.read().await.unwrap());
    }
    assert_eq!(mock.metrics().open_turns, 1);
    assert!(tokio::time::timeout(Duration::from_millis(50), client.read()).await.is_err());
}

#[tokio::test]
async fn who_is_not_let_in_gets_no_reply_and_side_calls_are_answered() {
    let accounts = [Account::new("one"), Account::new("two").expired()];
    let [one, two] = accounts.clone();
    let mock = bulk(accounts.into_iter().fold(Script::default(), Script::account));
    let mut client = Client::connect(mock.address()).await;
    let body = body(&ask(Fault::None));
    assert_eq!(client.request("POST", CHATGPT, "", &body).await.status, 401);
    let expired = client.request("POST", CHATGPT, &as_account(&two), &body).await;
    assert_eq!(expired.json()["error"]["code"], "token_expired");
    let refresh = json!({ "grant_type": "refresh_token", "refresh_token": two.refresh_token() });
    let grant = client.request("POST", "/oauth/token", "", refresh.to_string().as_bytes()).await.json();
    let token = grant["access_token"].as_str().unwrap();
    let fields = crate::client::bearer(token, "two");
    assert_eq!(client.request("POST", CHATGPT, &fields, &body).await.events().len(), 22);
    assert_eq!(client.request("POST", CHATGPT, &as_account(&one), &body).await.status, 200);
    let mismatch = crate::client::bearer(&one.access_token(), "two");
    assert_eq!(client.request("POST", CHATGPT, &mismatch, &body).await.status, 401);
    let usage = client.request("GET", "/backend-api/wham/usage", &as_account(&one), b"").await;
    assert_eq!(usage.json()["plan_type"], "plus");
    let models = "/backend-api/codex/models?client_version=1";
    assert_eq!(client.request("GET", models, &as_account(&one), b"").await.status, 200);
    let counts = mock.metrics();
    assert_eq!((counts.side_requests, counts.bad_requests), (3, 3));
}

#[tokio::test]
async fn what_belongs_to_another_account_is_refused_and_counted() {
    let mock = bulk(Script::default());
    let mut client = Client::connect(mock.address()).await;
    let account = |name: &str| format!("ChatGPT-Account-Id: {name}\r\n");
    let first = client.request("POST", CHATGPT, &account("one"), &body(&ask(Fault::None))).await;
    let state = format!("x-codex-turn-state: {}\r\n", first.header("x-codex-turn-state").unwrap());
    let id = first.events()[0]["response"]["id"].as_str().unwrap().to_owned();
    let compacted = client.request("POST", COMPACT, &account("one"), &body(&ask(Fault::None))).await.json();
    let next = |key: &str, value: Value| {
        let mut body = json!({ "model": "load", "instructions": ask(Fault::None).text() });
        body[key] = value;
        body.to_string().into_bytes()
    };
    let previous = next("previous_response_id", json!(id));
    let sealed = next("input", compacted["output"].clone());
    for body in [&previous, &sealed] {
        assert_eq!(client.request("POST", CHATGPT, &account("one"), body).await.status, 200);
        assert_eq!(client.request("POST", CHATGPT, &account("two"), body).await.status, 400);
    }
    // It is noticed however the body comes.
    let length = sealed.len();
    let head = format!("POST {CHATGPT} HTTP/1.1\r\n{}Content-Length: {length}\r\n\r\n", account("two"));
    for piece in [head.as_bytes(), &sealed].concat().chunks(97) {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await.status, 400);
    let plain = body(&ask(Fault::None));
    let same = client.request("POST", CHATGPT, &(account("one") + &state), &plain).await;
    assert_eq!(same.status, 200);
    let other = client.request("POST", CHATGPT, &(account("two") + &state), &plain).await;
    assert_eq!(other.status, 400);
    assert_eq!(mock.metrics().accounts["two"].misplaced, 4);
    assert_eq!(mock.metrics().accounts["one"].misplaced, 0);
}

#[tokio::test]
async fn a_compaction_on_the_ordinary_route_is_one_sealed_item() {
    let mock = bulk(Script::default());
    let mut client = Client::connect(mock.address()).await;
    for in_one_write in [false, true] {
        let shape = Shape { in_one_write, content: Content::Compaction, ..SHAPE };
        let body = body(&Ask::new(shape, [b'a'; NONCE]));
        let reply = client.request("POST", CHATGPT, "ChatGPT-Account-Id: someone\r\n", &body).await;
        assert_eq!(reply.body, expected(&Template::sse(shape), b"someone", &reply.body));
        let events = reply.events();
        assert_eq!((events.len(), &events[1]["item"]["type"]), (3, &json!("compaction")));
    }
    let counts = mock.metrics().all;
    assert_eq!((counts.streams, counts.compactions, counts.events), (2, 2, 6));
}

#[tokio::test]
async fn a_websocket_is_turns_of_messages() {
    let mock = bulk(Script::default());
    let tcp = TcpStream::connect(mock.address()).await.unwrap();
    let url = format!("ws://{}{CHATGPT}", mock.address());
    let (mut socket, response) = client_async(url, tcp).await.unwrap();
    assert!(response.headers().contains_key("x-codex-turn-state"));
    let template = Template::messages(SHAPE);
    for in_one_write in [false, true] {
        let shape = Shape { in_one_write, ..SHAPE };
        let create =
            json!({ "type": "response.create", "instructions": Ask::new(shape, [b'a'; NONCE]).text() });
        socket.send(Message::text(create.to_string())).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..22 {
            let message = tokio::time::timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap();
            seen.extend_from_slice(message.into_text().unwrap().as_bytes());
        }
        assert_eq!(seen, expected(&template, b"anonymous", &seen));
    }
    for (text, status) in [("{}".to_owned(), 400), (ask(Fault::Unavailable).text(), 503)] {
        socket.send(Message::text(text)).await.unwrap();
        let message = socket.next().await.unwrap().unwrap().into_text().unwrap();
        let error: Value = serde_json::from_str(&message).unwrap();
        assert_eq!((&error["type"], &error["status"]), (&json!("error"), &json!(status)));
    }
    socket.send(Message::Ping("x".into())).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Pong(_)))));
    socket.close(None).await.unwrap();
    assert_eq!(mock.metrics().all.messages, 4);
}

#[tokio::test]
async fn a_frozen_mock_answers_nobody_until_it_goes_on() {
    let mock = bulk(Script::default());
    let mut client = Client::connect(mock.address()).await;
    let frozen = client.request("POST", "/__mock/freeze?ms=300", "", b"").await;
    assert_eq!((frozen.status, &frozen.json()["freezes_ms"]), (200, &json!(300)));
    let begun = Instant::now();
    let mut other = Client::connect(mock.address()).await;
    assert_eq!(other.request("POST", CHATGPT, "", &body(&ask(Fault::None))).await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    for query in ["", "?ms=60001", "?ms=x"] {
        assert_eq!(client.request("POST", &format!("/__mock/freeze{query}"), "", b"").await.status, 400);
    }
    let metrics = client.request("GET", "/__mock/metrics", "", b"").await.json();
    assert_eq!(metrics["all"]["streams"], 1);
    assert_eq!(client.request("GET", "/__mock/journal", "", b"").await.status, 404);
}

#[tokio::test]
async fn requests_that_say_nothing_are_told_so() {
    let mock = bulk(Script::default());
    let mut client = Client::connect(mock.address()).await;
    let reply = client.request("POST", CHATGPT, "", b"{}").await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("no_ask")));
    client.send("nonsense\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
}
