//! The WebSocket transport, seen by a client of its own implementation.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use mock_upstream::fault::{End, Fault};
use mock_upstream::journal::{HowEnded, Kind, Violation};
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Continuation, Frame, Http, Item, Rule, Script, Transport, Turn, When};
use mock_upstream::{Account, Exchange, Mock};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use wire::capture::Entry;

use crate::client::{CHATGPT, LIMIT, mock, said, user};

struct Socket {
    stream: WebSocketStream<TcpStream>,
}

impl Socket {
    async fn open(mock: &Mock, account: Option<&Account>) -> Result<Self, Error> {
        let tcp = TcpStream::connect(mock.address()).await.unwrap();
        let mut request = format!("ws://{}{CHATGPT}", mock.address()).into_client_request().unwrap();
        let fields = request.headers_mut();
        fields.insert("sec-websocket-extensions", "permessage-deflate".parse().unwrap());
        if let Some(account) = account {
            let token = format!("Bearer {}", account.access_token());
            fields.insert("authorization", token.parse().unwrap());
            fields.insert("chatgpt-account-id", account.id.parse().unwrap());
        }
        let (stream, response) = client_async(request, tcp).await?;
        assert!(!response.headers().contains_key("sec-websocket-extensions"), "no extension is agreed to");
        Ok(Self { stream })
    }

    async fn send(&mut self, message: &Value) {
        self.stream.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Option<Result<Message, Error>> {
        tokio::time::timeout(LIMIT, self.stream.next()).await.expect("a message in time")
    }

    /// A turn and its messages up to the last.
    async fn turn(&mut self, message: &Value) -> Vec<Value> {
        self.send(message).await;
        let mut events = Vec::new();
        loop {
            let Some(Ok(Message::Text(text))) = self.next().await else { panic!("{events:?} is not a turn") };
            let event: Value = serde_json::from_str(&text).unwrap();
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            events.push(event);
            if matches!(&*kind, "response.completed" | "response.failed" | "error") {
                return events;
            }
        }
    }
}

fn create(text: &str) -> Value {
    let mut message = user(text);
    message["type"] = "response.create".into();
    message
}

fn id(events: &[Value]) -> Value {
    events.last().unwrap()["response"]["id"].clone()
}

#[tokio::test]
async fn a_chain_of_turns_is_answered_on_one_socket() {
    let mock = mock(Script::rules([
        Rule::new(Turn::shell("ls")).user_text("run").tool_output(false),
        Rule::new(Turn::text("ran")).user_text("run").tool_output(true),
    ]))
    .await;
    let mut socket = Socket::open(&mock, None).await.unwrap();
    let mut warm_up = create("");
    (warm_up["generate"], warm_up["input"]) = (false.into(), json!([]));
    let warm = socket.turn(&warm_up).await;
    assert_eq!(warm.len(), 2);

    let mut first = create("run it");
    first["previous_response_id"] = id(&warm);
    let events = socket.turn(&first).await;
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[..3], ["codex.rate_limits", "response.metadata", "response.created"]);
    assert!(events[1]["headers"]["x-codex-turn-state"].is_string());
    assert!(events.iter().any(|event| event["item"]["name"] == "exec_command"));

    // Only what is new: the user's text is the chain's.
    let output = json!([{ "type": "function_call_output", "call_id": "c", "output": "x" }]);
    let second = json!({
        "type": "response.create", "model": "m", "previous_response_id": id(&events), "input": output,
        "client_metadata": { "x-codex-turn-state": events[1]["headers"]["x-codex-turn-state"] },
    });
    assert_eq!(said(&socket.turn(&second).await), "ran");

    socket.stream.close(None).await.unwrap();
    let ended = |all: &[Exchange]| all[0].end.is_some();
    let journal = mock.journal().wait_for("the end", LIMIT, ended).await.unwrap();
    let exchange = &journal[0];
    assert!(exchange.is_websocket() && exchange.violations.is_empty());
    assert_eq!(exchange.end.as_ref().unwrap().how, HowEnded::Complete);
    let received: Vec<Value> =
        exchange.received().filter(|m| m.kind == Kind::Text).map(|m| m.json()).collect();
    assert_eq!(received, [warm_up, first, second]);
    assert_eq!(mock.metrics().messages, 3);
}

#[tokio::test]
async fn refusals_are_messages_with_a_status() {
    let (a, b) = (Account::new("a").turns_left(1), Account::new("b"));
    let mock = mock(
        Script::default()
            .account(a.clone())
            .account(b.clone())
            .rule(Rule::new(Http::json(503, json!({ "error": { "code": "x" } }))).user_text("break")),
    )
    .await;
    let mut socket = Socket::open(&mock, Some(&a)).await.unwrap();
    let first = socket.turn(&create("1")).await;
    let limit = socket.turn(&create("2")).await.pop().unwrap();
    assert_eq!(
        (limit["status"].as_u64(), limit["error"]["type"].as_str()),
        (Some(429), Some("usage_limit_reached"))
    );
    assert_eq!(limit["headers"]["x-codex-primary-used-percent"], "100");

    let mut other = Socket::open(&mock, Some(&b)).await.unwrap();
    let mut stray = create("3");
    stray["previous_response_id"] = id(&first);
    let refused = other.turn(&stray).await.pop().unwrap();
    assert_eq!(
        (refused["status"].as_u64(), refused["error"]["code"].as_str()),
        (Some(400), Some("previous_response_not_found"))
    );
    let scripted = other.turn(&create("break")).await.pop().unwrap();
    assert_eq!(scripted, json!({ "type": "error", "status": 503, "error": { "code": "x" } }));
    let nonsense = other.turn(&json!({ "type": "other" })).await.pop().unwrap();
    assert_eq!(nonsense["status"], 400);
    let journal = mock.journal().responses();
    assert_eq!(journal[1].violations, [Violation::ForeignResponse { owner: "a".into() }]);
}

#[tokio::test]
async fn a_chain_can_be_tied_to_its_socket() {
    let script = Script { continuation: Continuation::Connection, ..Script::default() };
    let mock = mock(script).await;
    let mut socket = Socket::open(&mock, None).await.unwrap();
    let first = socket.turn(&create("1")).await;
    let mut next = create("2");
    next["previous_response_id"] = id(&first);
    assert_eq!(socket.turn(&next).await.last().unwrap()["type"], "response.completed");
    let mut other = Socket::open(&mock, None).await.unwrap();
    assert_eq!(other.turn(&next).await[0]["error"]["code"], "previous_response_not_found");
    assert!(mock.journal().responses()[1].violations.is_empty(), "it is the account's own");
}

#[tokio::test]
async fn a_handshake_is_refused_to_strangers_and_when_told() {
    let account = Account::new("a");
    let refuse = Rule::new(Http::status(426)).transport(Transport::Upgrade).times(1);
    let mock = mock(Script::default().account(account.clone()).rule(refuse)).await;
    let status = async |account: Option<&Account>| match Socket::open(&mock, account).await {
        Ok(_) => 101,
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(status(None).await, 401);
    assert_eq!(status(Some(&account)).await, 426);
    assert_eq!(status(Some(&account)).await, 101);
}

#[tokio::test]
async fn raw_frames_arrive_as_they_are_written() {
    let frames = vec![
        Frame::Ping("beat".into()),
        Frame::Text("{ \"type\" : \"pretty\" }".into()),
        Frame::Fragments(vec!["frag".into(), "men".into(), "ts".into()]),
        Frame::PauseMs(20),
        Frame::Binary("AAE=".into()),
        Frame::Close { code: 4001, reason: "enough".into() },
    ];
    let mock = mock(Script::rules([Rule::new(frames).transport(Transport::Websocket)])).await;
    let mut socket = Socket::open(&mock, None).await.unwrap();
    socket.send(&create("x")).await;
    let mut messages = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        messages.push(message);
    }
    let close = CloseFrame { code: 4001.into(), reason: "enough".into() };
    assert_eq!(
        messages,
        [
            Message::Ping("beat".into()),
            Message::text("{ \"type\" : \"pretty\" }"),
            Message::text("fragments"),
            Message::binary(vec![0, 1]),
            Message::Close(Some(close)),
        ]
    );
    let ended = |all: &[Exchange]| all[0].end.is_some();
    let journal = mock.journal().wait_for("the end", LIMIT, ended).await.unwrap();
    assert!(journal[0].received().any(|message| message.kind == Kind::Pong && message.payload == "beat"));
    assert!(journal[0].received().any(|message| message.kind == Kind::Close(4001)));
    let fragments = journal[0].sent().find(|message| message.payload == "fragments").unwrap();
    assert_eq!(fragments.frames, [4, 3, 2]);
    let records = mock.journal().records(0);
    let in_frames = records.iter().filter_map(|record| match &record.entry {
        Entry::WebsocketMessage(message) if !message.frames.is_empty() => Some(&message.frames[..]),
        _ => None,
    });
    assert_eq!(in_frames.collect::<Vec<_>>(), [[4, 3, 2]]);
}

#[tokio::test]
async fn a_socket_breaks_as_it_is_told() {
    for (end, how) in [
        (End::Reset, HowEnded::Reset),
        (End::Fin, HowEnded::Fin),
        (End::Eof, HowEnded::Complete),
        (End::Close { code: 1011, reason: "x".into() }, HowEnded::Complete),
    ] {
        let rule = Rule::new(Turn::text("a b")).fault(Fault::after_events(4, end.clone()));
        let mock = mock(Script::rules([rule])).await;
        let mut socket = Socket::open(&mock, None).await.unwrap();
        socket.send(&create("x")).await;
        let mut texts = 0;
        let last = loop {
            match socket.next().await {
                Some(Ok(Message::Text(_))) => texts += 1,
                last => break last,
            }
        };
        assert_eq!(texts, 4, "{end:?}");
        match (&end, last) {
            (End::Eof, Some(Ok(Message::Close(Some(frame))))) => assert_eq!(u16::from(frame.code), 1000),
            (End::Close { .. }, Some(Ok(Message::Close(Some(frame))))) => {
                assert_eq!(u16::from(frame.code), 1011);
            }
            (End::Reset, Some(Err(Error::Io(error)))) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
            (End::Fin, Some(Err(Error::Protocol(_)))) => {}
            (end, last) => panic!("{end:?} became {last:?}"),
        }
        let _ = socket.next().await;
        let ended = |all: &[Exchange]| all[0].end.is_some();
        let journal = mock.journal().wait_for("the end", LIMIT, ended).await.unwrap();
        assert_eq!(journal[0].end.as_ref().unwrap().how, how);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed_between_messages() {
    let rule = Rule::new(Turn::text("a b")).pacing(Pacing::gap(Duration::from_secs(3600)));
    let mock = mock(Script::rules([rule])).await;
    let mut socket = Socket::open(&mock, None).await.unwrap();
    socket.send(&create("x")).await;
    socket.next().await.unwrap().unwrap();
    drop(socket);
    let gone = |all: &[Exchange]| all[0].client_gone();
    mock.journal().wait_for("the client to be gone", Duration::from_secs(1), gone).await.unwrap();
}

#[tokio::test]
async fn a_warm_up_answers_as_told_only_when_told() {
    let when = When { warm_up: true, ..When::default() };
    let mock = mock(Script::rules([
        Rule::new(Turn::of([Item::Text("warm".into())])).when(when),
        Rule::new(Turn::text("turn")),
    ]))
    .await;
    let mut socket = Socket::open(&mock, None).await.unwrap();
    let mut warm_up = create("x");
    warm_up["generate"] = false.into();
    assert_eq!(said(&socket.turn(&warm_up).await), "warm");
    assert_eq!(said(&socket.turn(&create("x")).await), "turn");
}
