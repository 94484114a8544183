//! `--record`: every byte that clients sent and got, in one file per exchange.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use mock_upstream::fault::{End, Fault};
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Framing, Rule, Script, Stream};
use mock_upstream::{Config, Exchange, Mock};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use wire::capture::{Exchange as Recorded, Record, StreamEnd, exchanges};

use crate::client::{CHATGPT, Client, LIMIT, user};

async fn recorded(script: Script, directory: &Path) -> Mock {
    let record = Some(directory.join("recordings"));
    Mock::start(Config { record, ..Config::script(script) }).await.unwrap()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.join("recordings")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The exchanges in the order of their files, once the mock has stopped.
async fn stopped(mock: Mock, directory: &Path) -> Vec<Recorded> {
    mock.stop().await;
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        exchanges(&records).unwrap().remove(0)
    };
    files(directory).into_iter().map(read).collect()
}

fn stream(texts: &[&str]) -> Stream {
    Stream { framing: Framing::Chunked, ..Stream::texts(texts.iter().copied()) }
}

async fn ended(mock: &Mock, count: usize) {
    let ended = |all: &[Exchange]| all.iter().filter(|exchange| exchange.end.is_some()).count() >= count;
    mock.journal().wait_for("the ends", LIMIT, ended).await.unwrap();
}

#[tokio::test]
async fn bytes_and_times_are_those_of_the_client() {
    let home = tempfile::tempdir().unwrap();
    let pacing = Pacing::gap(Duration::from_millis(20));
    let script = Script::rules([Rule::new(stream(&["data: 1\r\n\r\n", "data: 2\n\n"])).pacing(pacing)]);
    let mock = recorded(script, home.path()).await;
    let mut client = Client::connect(mock.address()).await;
    let body = user("x").to_string();
    let head = format!(
        "POST {CHATGPT}?a HTTP/1.1\r\nX-Dup:  1\r\nx-dup: 2\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.send(&head).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.send(&body).await;
    let got = client.response().await;
    let other = client.request("GET", "/__mock/journal", "", b"").await;
    assert_eq!(other.status, 200);
    drop(client);
    let exchanges = stopped(mock, home.path()).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.path().join("recordings")), 0o700);
    assert!(files(home.path()).iter().all(|file| mode(file) == 0o600));
    let [exchange] = &exchanges[..] else { panic!("the mock's own calls are not recorded: {exchanges:?}") };
    assert_eq!(exchange.request.head.as_ref().unwrap().0, head.as_bytes());
    assert_eq!((exchange.body(), exchange.missing.as_deref()), (body.as_bytes(), None));
    assert!(exchange.request.writes[0].0 >= exchange.at);
    let answer = exchange.answer.as_ref().unwrap();
    assert_eq!((answer.body.as_slice(), answer.status, answer.end), (&got.body[..], 200, StreamEnd::Eof));
    let sizes: Vec<u64> = answer.writes.iter().map(|(_, size)| *size).collect();
    assert_eq!(sizes, [11, 9]);
    assert!(answer.writes[1].0 > answer.writes[0].0, "{:?}", answer.writes);
}

#[tokio::test]
async fn a_websocket_is_recorded_with_its_frames() {
    let home = tempfile::tempdir().unwrap();
    let mock = recorded(Script::default(), home.path()).await;
    let tcp = tokio::net::TcpStream::connect(mock.address()).await.unwrap();
    let request = format!("ws://{}{CHATGPT}", mock.address()).into_client_request().unwrap();
    let (mut socket, _) = client_async(request, tcp).await.unwrap();
    let asked = serde_json::json!({"type": "response.create", "input": []}).to_string();
    socket.send(Message::text(asked.clone())).await.unwrap();
    let mut got = Vec::new();
    while !got.last().is_some_and(|text: &String| text.contains("response.completed")) {
        let message = tokio::time::timeout(LIMIT, socket.next()).await.unwrap();
        let Some(Ok(Message::Text(text))) = message else { panic!("{message:?}") };
        got.push(text.to_string());
    }
    socket.close(None).await.unwrap();
    while let Ok(Some(_)) = tokio::time::timeout(LIMIT, socket.next()).await {}
    ended(&mock, 1).await;
    let exchange = stopped(mock, home.path()).await.remove(0);
    assert_eq!(exchange.missing, None);
    let texts: Vec<String> = exchange
        .messages
        .iter()
        .filter(|message| message.kind == wire::capture::MessageKind::Text)
        .map(|message| String::from_utf8(message.payload.clone()).unwrap())
        .collect();
    assert_eq!(texts[0], asked);
    assert_eq!(texts[1..], got);
    let closes = exchange
        .messages
        .iter()
        .filter(|message| matches!(message.kind, wire::capture::MessageKind::Close(_)));
    assert_eq!(closes.count(), 2, "one from each side");
}

/// Reads until the first event is there.
async fn read_through_one(client: &mut Client) {
    let mut all = String::new();
    while !all.contains("one") {
        all += &String::from_utf8(client.read().await.unwrap()).unwrap();
    }
}

#[tokio::test]
async fn what_a_script_breaks_is_recorded_as_broken() {
    for (end, expected) in
        [(End::Reset, StreamEnd::Reset), (End::Fin, StreamEnd::Fin), (End::Hang, StreamEnd::Hang)]
    {
        let home = tempfile::tempdir().unwrap();
        let rule = Rule::new(stream(&["one\n\n", "two\n\n"])).fault(Fault::after_events(1, end));
        let mock = recorded(Script::rules([rule]), home.path()).await;
        let mut client = Client::connect(mock.address()).await;
        let body = user("x").to_string();
        client.send(format!("POST {CHATGPT} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        if expected == StreamEnd::Hang {
            read_through_one(&mut client).await;
        } else {
            client.read_to_end().await;
        }
        drop(client);
        ended(&mock, 1).await;
        let exchange = stopped(mock, home.path()).await.remove(0);
        let answer = exchange.answer.unwrap();
        assert_eq!((answer.end, answer.body.as_slice(), exchange.missing), (expected, &b"one\n\n"[..], None));
    }
}

#[tokio::test]
async fn an_exchange_without_an_answer_says_how_it_ended() {
    for (end, expected) in [(End::Reset, StreamEnd::Reset), (End::Fin, StreamEnd::Fin)] {
        let home = tempfile::tempdir().unwrap();
        let rule = Rule::new(stream(&["one\n\n"])).fault(Fault::before_head(end));
        let mock = recorded(Script::rules([rule]), home.path()).await;
        let mut client = Client::connect(mock.address()).await;
        let body = user("x").to_string();
        client.send(format!("POST {CHATGPT} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        client.read_to_end().await;
        drop(client);
        ended(&mock, 1).await;
        let exchange = stopped(mock, home.path()).await.remove(0);
        assert_eq!((exchange.unanswered, exchange.missing), (Some(expected), None));
    }
}

#[tokio::test]
async fn what_is_not_seen_to_its_end_is_partial() {
    let home = tempfile::tempdir().unwrap();
    let pacing = Pacing::gap(Duration::from_secs(60));
    let rule = Rule::new(stream(&["one\n\n", "two\n\n"])).pacing(pacing);
    let mock = recorded(Script::rules([rule]), home.path()).await;
    let mut client = Client::connect(mock.address()).await;
    let body = user("x").to_string();
    client.send(format!("POST {CHATGPT} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    read_through_one(&mut client).await;
    let exchange = stopped(mock, home.path()).await.remove(0);
    assert_eq!(exchange.missing.as_deref(), Some("the program was told to end and did not wait any longer"));
    assert_eq!(exchange.answer.unwrap().body, b"one\n\n");
}

#[tokio::test]
async fn a_place_that_takes_no_recording_is_said() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let started = Mock::start(Config { record: Some(file), ..Config::default() }).await;
    assert!(started.unwrap_err().to_string().starts_with("record in "));
}
