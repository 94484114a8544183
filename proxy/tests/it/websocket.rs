//! Messages of a WebSocket arrive as they were sent, in both directions.

use mock_upstream::fault::{At, End, Fault};
use mock_upstream::journal::Kind;
use mock_upstream::script::{Frame, Rule, Script, Transport, Turn};
use mock_upstream::{Exchange, Mock};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::connection::{CODEX, Connection, TURN};
use crate::rig::{LIMIT, Proxy, Setting};
use crate::socket::{Socket, create, create_behind, frame, response_id, said};
use crate::upstream::Upstream;

/// The key and its answer of RFC 6455 §1.3.
const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const MORE: u8 = 0;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const MASK: Option<[u8; 4]> = Some([7, 0, 200, 93]);

/// A WebSocket between a client and an upstream that are both written by hand.
struct ByHand {
    client: Connection,
    upstream: Connection,
    /// The head of the upgrade as the upstream got it, and that of its answer as the client got it.
    heads: (String, String),
    _proxy: Proxy,
}

async fn by_hand(settings: &[(&str, &str)]) -> ByHand {
    let listener = Upstream::start().await;
    let setting = Setting::new(&[], Script::default()).key("key", "sk-x").set("PRODEX_HOLD_CODEX", "5m");
    let setting = settings.iter().fold(setting, |setting, (name, value)| setting.set(name, value));
    let proxy = setting.start_at(listener.url()).await;
    let mut client = proxy.connect().await;
    let fields = format!(
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {}\r\nAuthorization: Bearer own\r\nX-Dup: 1\r\n{CODEX}x-dup: 2\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\nSession-Id: s\r\n",
        KEY.0
    );
    client.send(crate::connection::head(&proxy, "GET", "/v1/responses", &fields, 0)).await;
    let (mut upstream, request) = listener.accept().await;
    let accept = derive_accept_key(request.field("sec-websocket-key").unwrap().as_bytes());
    upstream
        .send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX-Codex-Turn-State: ts\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nX-Dup: 1\r\nx-dup: 2\r\nSet-Cookie: c\r\n\r\n"
        ))
        .await;
    let answer = client.read_through("\r\n\r\n").await;
    ByHand { client, upstream, heads: (request.head, String::from_utf8(answer).unwrap()), _proxy: proxy }
}

#[tokio::test]
async fn an_upgrade_arrives_with_the_account_and_a_key_of_its_own() {
    let ByHand { heads: (request, answer), _proxy: proxy, .. } = by_hand(&[]).await;
    let line = |head: &str, name: &str| {
        head.split("\r\n").find(|line| line.to_lowercase().starts_with(name)).unwrap_or_default().to_owned()
    };
    let key = line(&request, "sec-websocket-key");
    let host = line(&request, "host");
    let expected = format!(
        "GET /v1/responses HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         {key}\r\nAuthorization: Bearer sk-x\r\nX-Dup: 1\r\n{CODEX}x-dup: 2\r\nSession-Id: s\r\n{host}\r\n\r\n"
    );
    assert_eq!(request, expected);
    assert!(!key.contains(KEY.0), "{key}");
    let mut lines: Vec<&str> = answer.trim_end().split("\r\n").collect();
    assert_eq!(lines.remove(0), "HTTP/1.1 101 Switching Protocols");
    lines.sort_unstable();
    let accept = format!("sec-websocket-accept: {}", KEY.1);
    let expected = [
        "X-Codex-Turn-State: ts",
        "X-Dup: 1",
        "connection: Upgrade",
        &accept,
        "upgrade: websocket",
        "x-dup: 2",
    ];
    assert_eq!(lines, expected);
    drop(proxy);
}

#[tokio::test]
async fn frames_arrive_as_they_were_written() {
    let ByHand { mut client, mut upstream, _proxy, .. } = by_hand(&[]).await;
    let long = "\u{e9}".repeat(40_000);
    let frames = |mask| {
        [
            frame(true, TEXT, mask, "{ \"type\" : \"pretty\",\n\t\"x\": \"\u{1F600}\" }".as_bytes()),
            frame(false, TEXT, mask, &long.as_bytes()[..9]),
            frame(true, PING, mask, b"between"),
            frame(false, MORE, mask, b""),
            frame(true, PONG, mask, b""),
            frame(true, MORE, mask, &long.as_bytes()[9..]),
            frame(true, BINARY, mask, &[0, 255, 7]),
            frame(true, TEXT, mask, b""),
            frame(true, BINARY, mask, &vec![3; 70_000]),
            frame(true, PING, mask, &[9; 125]),
            frame(true, TEXT, mask, &[b'x'; 126]),
        ]
        .concat()
    };
    let (sent, answered) = (frames(MASK), frames(None));
    for part in [1, 1000, usize::MAX] {
        pass(&mut client, &mut upstream, &sent, part).await;
        pass(&mut upstream, &mut client, &answered, part).await;
    }
}

/// Sends bytes, the first of them in parts of this size, which must arrive at the other end.
async fn pass(from: &mut Connection, to: &mut Connection, bytes: &[u8], part: usize) {
    let (first, rest) = bytes.split_at(300);
    let sending = async {
        for part in first.chunks(part).chain([rest]) {
            from.send(part).await;
        }
    };
    let ((), came) = tokio::join!(sending, to.read_exactly(bytes.len()));
    assert!(came == bytes, "in parts of {part}");
}

#[tokio::test]
async fn a_turn_arrives_frame_for_frame() {
    let ByHand { mut client, mut upstream, _proxy, .. } = by_hand(&[]).await;
    let text = create("in fragments").to_string();
    for turn in 0..3 {
        let (one, two) = text.as_bytes().split_at(10 + turn);
        let asked = [frame(false, TEXT, MASK, one), frame(true, MORE, MASK, two)].concat();
        client.send(&asked).await;
        assert_eq!(upstream.read_exactly(asked.len()).await, asked);
        let answer = [
            frame(true, TEXT, None, b"{\"type\":\"codex.rate_limits\"}"),
            frame(false, TEXT, None, b"{\"type\":\"response.cre"),
            frame(true, MORE, None, b"ated\",\"response\":{\"id\":\"r\"}}"),
            frame(true, TEXT, None, b"no json"),
            frame(true, TEXT, None, b"{\"type\":\"response.completed\",\"response\":{\"id\":\"r\"}}"),
        ]
        .concat();
        upstream.send(&answer).await;
        assert_eq!(client.read_exactly(answer.len()).await, answer);
    }
}

#[tokio::test]
async fn control_frames_do_not_wait_with_a_held_turn() {
    let ByHand { mut client, mut upstream, _proxy, .. } = by_hand(&[]).await;
    let asked = frame(true, TEXT, MASK, create("x").to_string().as_bytes());
    client.send(&asked).await;
    upstream.read_exactly(asked.len()).await;
    let held = frame(true, TEXT, None, b"{\"type\":\"response.created\",\"response\":{\"id\":\"r\"}}");
    let ping = frame(true, PING, None, b"are you there");
    upstream.send([&held[..], &ping].concat()).await;
    assert_eq!(client.read_exactly(ping.len()).await, ping);
    let pong = [frame(true, PONG, MASK, b"are you there"), frame(true, PING, MASK, b"and you")].concat();
    client.send(&pong).await;
    assert_eq!(upstream.read_exactly(pong.len()).await, pong);
    let output = frame(true, TEXT, None, b"{\"type\":\"response.output_item.added\"}");
    upstream.send(&output).await;
    assert_eq!(client.read_exactly(held.len() + output.len()).await, [held, output].concat());
}

#[tokio::test]
async fn a_hold_is_bounded_by_time_and_by_size() {
    let held = frame(true, TEXT, None, b"{\"type\":\"response.created\",\"response\":{\"id\":\"r\"}}");
    let long = frame(
        true,
        TEXT,
        None,
        format!("{{\"type\":\"response.queued\",\"x\":\"{}\"}}", "x".repeat(3000)).as_bytes(),
    );
    for (name, value, answer) in [("PRODEX_HOLD_CODEX", "50ms", held), ("PRODEX_HOLD_BYTES", "1KiB", long)] {
        let ByHand { mut client, mut upstream, _proxy, .. } = by_hand(&[(name, value)]).await;
        let asked = frame(true, TEXT, MASK, create("x").to_string().as_bytes());
        client.send(&asked).await;
        upstream.read_exactly(asked.len()).await;
        upstream.send(&answer).await;
        assert_eq!(client.read_exactly(answer.len()).await, answer, "{name}");
    }
}

#[tokio::test]
async fn what_is_no_frame_ends_the_socket() {
    for (bytes, code) in [
        (frame(true, 3, MASK, b"x"), 1002_u16),
        (vec![0xC1, 0x80, 0, 0, 0, 0], 1002),
        (frame(true, MORE, MASK, b"x"), 1002),
        (frame(false, PING, MASK, b"x"), 1002),
        (frame(true, TEXT, MASK, &vec![b'x'; 300_000]), 1009),
    ] {
        let ByHand { mut client, mut upstream, _proxy, .. } =
            by_hand(&[("PRODEX_MAX_REQUEST_BODY", "2KiB")]).await;
        client.send(&bytes).await;
        let (closed, _) = client.read_to_end().await;
        assert_eq!((closed[0], closed[2..4].to_vec()), (0x80 | CLOSE, code.to_be_bytes().to_vec()));
        let (forwarded, _) = upstream.read_to_end().await;
        assert!(forwarded.is_empty(), "nothing of it is passed on");
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_read_between_turns_is_given_up() {
    let ByHand { mut client, upstream, _proxy, .. } =
        by_hand(&[("PRODEX_STREAM_IDLE_TIMEOUT", "300ms")]).await;
    client.send(frame(true, BINARY, MASK, &vec![0; 16 << 20])).await;
    assert_eq!(client.read_to_end().await.0, b"");
    drop(upstream);
}

#[tokio::test]
async fn a_client_that_still_sends_learns_why_its_socket_is_closed() {
    let settings = [("PRODEX_MAX_REQUEST_BODY", "1KiB")];
    for _ in 0..5 {
        let ByHand { mut client, upstream, _proxy, .. } = by_hand(&settings).await;
        client.send(frame(true, TEXT, MASK, &vec![b' '; 900_000])).await;
        let (bytes, error) = client.read_to_end().await;
        assert_eq!(
            (bytes.get(..4), error),
            (Some(&[0x88, bytes[1], 3, 0xF1][..]), None),
            "1009, and no reset"
        );
        drop(upstream);
    }
}

async fn start(rules: impl IntoIterator<Item = Rule>) -> (Mock, Proxy) {
    Setting::new(&["one"], Script::rules(rules)).start().await
}

#[tokio::test]
async fn several_turns_go_over_one_socket() {
    let (mock, proxy) = start([]).await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    let mut warm_up = create("");
    warm_up["generate"] = false.into();
    let mut events = socket.turn(&warm_up).await;
    let mut sent = vec![warm_up];
    for n in 0..4 {
        let message = create_behind(&format!("turn {n}"), &response_id(&events));
        events = socket.turn(&message).await;
        assert_eq!(said(&events), "Hello from the mock.");
        sent.push(message);
    }
    let [exchange] = mock.journal().responses().try_into().unwrap();
    let received: Vec<_> = exchange.received().map(mock_upstream::journal::Message::json).collect();
    assert_eq!(received, sent);
    assert_eq!(exchange.header("sec-websocket-extensions"), None);
    assert!(exchange.violations.is_empty());
    drop(socket);
    let log = proxy.stop().await;
    assert_eq!(log.events("profile_commit").count(), 5);
    assert!(log.events("stream_complete").all(|line| line.fields["outcome"] == "complete"));
}

#[tokio::test]
async fn the_first_output_is_never_delayed() {
    let (_mock, proxy) =
        start([Rule::new(Turn::text("a")).fault(Fault { at: At::Events(5), end: End::Hang })]).await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.send(&create("x")).await;
    let mut kinds = Vec::new();
    for _ in 0..5 {
        kinds.push(socket.event().await["type"].as_str().unwrap().to_owned());
    }
    let expected = ["codex.rate_limits", "response.metadata", "response.created", "response.in_progress"];
    assert_eq!((&kinds[..4], &*kinds[4]), (&expected.map(str::to_owned)[..], "response.output_item.added"));
}

#[tokio::test]
async fn messages_of_20_mb_arrive_whole() {
    let text = "0123456789".repeat(2 << 20);
    let big = format!("{{\"type\":\"response.output_item.added\",\"x\":\"{text}\"}}");
    let frames = vec![Frame::Text(big.clone()), Frame::Binary("AAE=".into())];
    let (mock, proxy) = start([Rule::new(frames).transport(Transport::Websocket)]).await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    let asked = create(&text);
    socket.send(&asked).await;
    let Some(Ok(Message::Text(came))) = socket.next().await else { panic!("no text") };
    assert!(came.as_str() == big);
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(vec![0, 1]));
    let [exchange] = mock.journal().responses().try_into().unwrap();
    assert!(exchange.received().next().unwrap().payload == asked.to_string());
}

#[tokio::test]
async fn the_upstream_closes_with_its_code_and_reason() {
    let close = Frame::Close { code: 4001, reason: "enough \u{e9}".into() };
    let (mock, proxy) = start([Rule::new(vec![close]).transport(Transport::Websocket)]).await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.put(Message::text(create("x").to_string())).await;
    let (messages, error) = socket.rest().await;
    let frame = CloseFrame { code: 4001.into(), reason: "enough \u{e9}".into() };
    assert!(error.is_none(), "{error:?}");
    assert_eq!(messages, [Message::Close(Some(frame))]);
    let answered =
        |all: &[Exchange]| all.iter().any(|turn| turn.received().any(|m| m.kind == Kind::Close(4001)));
    mock.journal().wait_for("the client's answer", LIMIT, answered).await.unwrap();
}

#[tokio::test]
async fn the_client_closes_with_its_code_and_reason() {
    for (sent, kind, reason) in [
        (
            Some(CloseFrame { code: 4000.into(), reason: "bye \u{e9}".into() }),
            Kind::Close(4000),
            "bye \u{e9}",
        ),
        (None, Kind::Close(1005), ""),
    ] {
        let (mock, proxy) = start([]).await;
        let mut socket = Socket::open(&proxy, &[]).await.unwrap();
        socket.turn(&create("x")).await;
        socket.put(Message::Close(sent)).await;
        let (messages, error) = socket.rest().await;
        assert!(error.is_none(), "the upstream's answer comes through: {error:?}");
        assert!(matches!(&messages[..], [Message::Close(_)]), "{messages:?}");
        let closed = |all: &[Exchange]| all.iter().any(|turn| turn.end.is_some() && turn.target == TURN);
        mock.journal().wait_for("the end", LIMIT, closed).await.unwrap();
        let last = mock.journal().responses()[0].received().last().unwrap().clone();
        assert_eq!((last.kind, last.text().as_str()), (kind, reason));
    }
}

#[tokio::test]
async fn other_messages_pass_in_both_directions() {
    let frames = vec![
        Frame::Ping("beat".into()),
        Frame::Text("[1, 2]".into()),
        Frame::Fragments(vec!["frag".into(), "men".into(), "ts".into()]),
        Frame::Text("{\"type\":\"response.completed\",\"response\":{\"id\":\"r\"}}".into()),
    ];
    let (mock, proxy) = start([Rule::new(frames).transport(Transport::Websocket)]).await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.put(Message::text("no json")).await;
    assert_eq!(socket.event().await["status"], 400, "the mock's own answer to what is no request");
    socket.put(Message::binary(vec![1, 2, 255])).await;
    assert_eq!(socket.event().await["status"], 400);
    socket.send(&create("x")).await;
    let mut texts = Vec::new();
    while texts.len() < 4 {
        texts.push(socket.next().await.unwrap().unwrap());
    }
    let completed = "{\"type\":\"response.completed\",\"response\":{\"id\":\"r\"}}";
    let expected = [
        Message::Ping("beat".into()),
        Message::text("[1, 2]"),
        Message::text("fragments"),
        Message::text(completed),
    ];
    assert_eq!(texts, expected);
    let [exchange] = mock.journal().responses().try_into().unwrap();
    let kinds: Vec<Kind> =
        exchange.received().map(|message| message.kind).filter(|kind| *kind != Kind::Pong).collect();
    assert_eq!(kinds, [Kind::Text, Kind::Binary, Kind::Text]);
    assert_eq!(exchange.received().nth(1).unwrap().payload.as_ref(), [1, 2, 255]);
}

#[tokio::test]
async fn a_malformed_upgrade_is_refused_before_any_upstream_is_asked() {
    let (mock, proxy) = start([]).await;
    let good = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY.0),
    ];
    for (name, value) in
        [("Connection", "close"), ("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Key", "short")]
    {
        let field = |(field, good): &(&str, &str)| {
            format!("{field}: {}\r\n", if *field == name { value } else { good })
        };
        let fields: String = good.iter().map(field).collect();
        let response = crate::connection::request(&proxy, "GET", TURN, &fields, b"").await;
        assert_eq!(response.status(), 400, "{name}: {value}");
    }
    assert!(mock.journal().exchanges().is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_mask_is_refused() {
    let (mock, proxy) = Setting::new(&["a"], Script::default()).start().await;
    let socket = Socket::open(&proxy, &[]).await.unwrap();
    let mut client = Connection::over(socket.stream.into_inner());
    client.send(frame(true, 1, None, b"clients mask what they send")).await;
    let (closed, _) = client.read_to_end().await;
    assert_eq!((closed[0], &closed[2..4]), (0x88, &1002_u16.to_be_bytes()[..]));
    assert!(mock.journal().responses()[0].received().all(|message| message.kind != Kind::Text));
}

#[tokio::test]
async fn an_upgrade_is_a_get_without_a_body() {
    let (mock, proxy) = start([]).await;
    let fields = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
        KEY.0
    );
    let post = crate::connection::request(&proxy, "POST", TURN, &fields, b"{}").await;
    assert_eq!(post.status(), 400, "{}", post.head);
    let get = crate::connection::request(&proxy, "GET", TURN, &(fields + "content-length: 5\r\n"), b"").await;
    assert_eq!(get.status(), 400, "{}", get.head);
    assert!(mock.journal().exchanges().is_empty());
}
