//! `--record`: what clients send and get is in files, byte for byte, and nothing of the pool's is.

use std::path::PathBuf;
use std::time::Duration;

use harness::capture::{Options, load};
use mock_upstream::script::{CallName, Http, Reply, Rule, Script, Turn};
use mock_upstream::{Account, Mock};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;
use wire::capture::{Direction, Entry, Exchange, MessageKind, StreamEnd, exchanges};

use crate::connection::{CODEX, Connection, TURN, head, request, turn, user};
use crate::http2::{Http2, collect, data};
use crate::rig::{LIMIT, Proxy, Setting, add_profile, code, mode, prodex, sandbox, until};
use crate::socket::{Socket, create, frame};
use crate::upstream::Upstream;

/// A place for recordings, which the proxy makes itself.
struct Recordings {
    directory: PathBuf,
    _home: TempDir,
}

impl Recordings {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { directory: home.path().join("recordings"), _home: home }
    }

    fn add_to(&self, setting: Setting) -> Setting {
        setting.argument("--record").argument(&self.directory.display().to_string())
    }

    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn text(&self) -> String {
        self.files().iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
    }

    /// The exchanges, in the order in which they began.
    fn exchanges(&self) -> Vec<Exchange> {
        exchanges(&load(&self.directory, Options::default()).unwrap().records).unwrap()
    }

    /// Waits until so many exchanges have ended.
    async fn ended(&self, count: usize) {
        let text = || self.text().matches("\"type\":\"exchange_end\"").count();
        until("the ends of exchanges", || text() >= count).await;
    }

    async fn start(&self, setting: Setting) -> (Mock, Proxy) {
        self.add_to(setting).start().await
    }

    async fn by_hand(&self, arguments: &[&str]) -> (Upstream, Proxy) {
        let upstream = Upstream::start().await;
        let setting = Setting::new(&[], Script::default()).key("key", "sk-of-the-pool");
        let setting = arguments.iter().fold(setting, |setting, argument| setting.argument(argument));
        let proxy = self.add_to(setting).start_at(upstream.url()).await;
        (upstream, proxy)
    }
}

fn one() -> Setting {
    Setting::new(&["one"], Script::rules([Rule::new(Turn::text("hi"))]))
}

fn assert_monotonic(writes: &[(f64, u64)]) {
    assert!(writes.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{writes:?}");
    assert!(writes.iter().all(|(_, length)| *length > 0), "{writes:?}");
}

fn sum(writes: &[(f64, u64)]) -> u64 {
    writes.iter().map(|(_, length)| length).sum()
}

#[tokio::test]
async fn bytes_are_recorded_as_they_came_and_went() {
    let recordings = Recordings::new();
    let (upstream, proxy) = recordings.by_hand(&[]).await;
    let mut client = proxy.connect().await;
    let body = zstd::encode_all(&b"{\"input\":[]}"[..], 3).unwrap();
    let fields =
        format!("X-Dup:  1\r\n{CODEX}x-dup: 2\r\nAuthorization: Bearer own\r\nContent-Encoding: zstd\r\n");
    let asked = head(&proxy, "POST", "/v1/responses?q=%41", &fields, body.len());
    let capability = proxy.prefix();
    client.send(&asked).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    client.send(&body).await;
    let (mut behind, request) = upstream.accept().await;
    assert_eq!(request.body, body);
    let output = "data: {\"type\":\"response.output_text.delta\"}\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    behind
        .send(format!("HTTP/1.1 200 Fine\r\nX-A: b\r\nContent-Type: text/event-stream\r\nx-a:c\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk(output)))
        .await;
    let mut got = client.read_through(output).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    behind.send(chunk(": ping\n\n") + "0\r\n\r\n").await;
    got.extend(client.read_through("0\r\n\r\n").await);
    proxy.stop_of(&recordings, 1).await;
    let files = recordings.files();
    assert_eq!((files.len(), mode(&files[0]), mode(&recordings.directory)), (1, 0o600, 0o700));
    let records = load(&recordings.directory, Options::default()).unwrap().records;
    let Entry::Meta(meta) = &records[0].entry else { panic!("{records:?}") };
    assert_eq!(meta.recorder.as_deref(), Some(concat!("prodex ", env!("CARGO_PKG_VERSION"))));
    let Entry::SseStream(stream) = &records[2].entry else { panic!("{records:?}") };
    let split = got.len() - (chunk(output) + &chunk(": ping\n\n") + "0\r\n\r\n").len();
    assert_eq!(stream.head.as_ref().unwrap().0, &got[..split], "the head as the client got it");
    let exchange = recordings.exchanges().remove(0);
    assert_eq!(exchange.missing, None);
    assert_eq!(exchange.request.head.as_ref().unwrap().0, asked.replacen(&capability, "", 1).into_bytes());
    assert_eq!((exchange.request.url.as_str(), exchange.body()), ("/v1/responses?q=%41", &body[..]));
    assert_eq!(exchange.request.wire_len, sum(&exchange.request.writes));
    let answer = exchange.answer.unwrap();
    assert_eq!(answer.body, format!("{output}: ping\n\n").into_bytes());
    assert_eq!((answer.status, answer.end, answer.is_stream), (200, StreamEnd::Eof, true));
    assert_eq!(answer.writes.len(), 2, "{:?}", answer.writes);
    assert_eq!(sum(&answer.writes), answer.body.len() as u64);
    assert_monotonic(&answer.writes);
    assert!(answer.writes[1].0 - answer.writes[0].0 >= 25.0, "{:?}", answer.writes);
    assert!(exchange.at <= exchange.request.writes[0].0 && exchange.request.writes[0].0 <= answer.at);
}

#[tokio::test]
async fn each_exchange_has_a_file_and_refused_ones_have_one_too() {
    let recordings = Recordings::new();
    let (_mock, proxy) = recordings.start(one()).await;
    let mut client = proxy.connect().await;
    for (method, path) in [("POST", TURN), ("GET", "/backend-api/wham/accounts/check"), ("GET", "/nowhere")] {
        let body = if method == "POST" { user("x") } else { String::new() };
        client.send(head(&proxy, method, path, CODEX, body.len()) + &body).await;
        client.response().await;
    }
    for odd in [
        "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /k/of-another-launch/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let mut client = proxy.connect().await;
        client.send(odd).await;
        client.response().await;
    }
    proxy.stop_of(&recordings, 6).await;
    let exchanges = recordings.exchanges();
    let mut seen: Vec<_> = exchanges
        .iter()
        .map(|exchange| (exchange.answer.as_ref().unwrap().status, exchange.request.url.clone()))
        .collect();
    seen[3..].sort();
    let expected = [
        (200, TURN),
        (400, "/backend-api/wham/accounts/check"),
        (404, "/nowhere"),
        (400, ""),
        (401, "/v1/models"),
        (401, "/v1/models"),
    ];
    assert_eq!(seen, expected.map(|(status, url)| (status, url.to_owned())));
    assert!(exchanges.iter().all(|exchange| exchange.missing.is_none()), "{exchanges:?}");
    assert_eq!(recordings.files().len(), 6);
    assert!(!recordings.text().contains("of-another-launch"));
    assert!(recordings.text().contains("nonsense"), "what cannot be read is there");
}

#[tokio::test]
async fn a_websocket_is_recorded_message_by_message() {
    let recordings = Recordings::new();
    let (_mock, proxy) = recordings.start(one()).await;
    let mut socket = Socket::of_session(&proxy).await;
    let asked = create("x").to_string();
    let mut got = Vec::new();
    let mask = Some([1, 2, 3, 4]);
    let (first, second) = asked.as_bytes().split_at(20);
    let frames = [frame(false, 1, mask, first), frame(true, 9, mask, b"beat"), frame(true, 0, mask, second)];
    tokio::io::AsyncWriteExt::write_all(socket.stream.get_mut(), &frames.concat()).await.unwrap();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => got.push(text.to_string()),
            other => assert!(matches!(other, Message::Pong(_)), "{other:?}"),
        }
        if got.last().is_some_and(|text| text.contains("\"response.completed\"")) {
            break;
        }
    }
    socket.stream.close(None).await.unwrap();
    socket.rest().await;
    proxy.stop_of(&recordings, 1).await;
    let exchange = recordings.exchanges().remove(0);
    assert_eq!((exchange.missing.as_deref(), exchange.answer.as_ref().unwrap().status), (None, 101));
    let of = |direction, kind| {
        let all = exchange
            .messages
            .iter()
            .filter(move |message| (message.direction, message.kind) == (direction, kind));
        all.map(|message| String::from_utf8(message.payload.clone()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of(Direction::ClientToUpstream, MessageKind::Text), std::slice::from_ref(&asked));
    assert_eq!(of(Direction::UpstreamToClient, MessageKind::Text), got);
    assert_eq!(of(Direction::ClientToUpstream, MessageKind::Ping), ["beat"]);
    let frames =
        &exchange.messages.iter().find(|message| message.payload == asked.as_bytes()).unwrap().frames;
    assert_eq!(frames, &[20, asked.len() as u64 - 20]);
    let times: Vec<f64> = exchange.messages.iter().map(|message| message.at).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(of(Direction::ClientToUpstream, MessageKind::Close(1005)).len(), 1, "{:?}", exchange.messages);
}

#[tokio::test]
async fn http2_and_tls_are_recorded() {
    let recordings = Recordings::new();
    let (_mock, proxy) = recordings.start(one().argument("--tls")).await;
    let mut client = Http2::open(&proxy).await;
    let target = format!("{}{TURN}?a", proxy.prefix());
    let fields = [
        ("user-agent", "codex_exec/0.169.0"),
        ("authorization", "Bearer own"),
        ("x-dup", "1"),
        ("x-dup", "2"),
    ];
    let mut response = client.send("POST", &target, &fields, user("x")).await.unwrap();
    let (got, end) = collect(response.body_mut()).await;
    end.unwrap();
    let response = client.send("GET", "/v1/models", &[], "").await.unwrap();
    assert_eq!(response.status(), 401);
    drop(response);
    let mut plain = Connection::over(crate::http2::connect(&proxy, "http/1.1").await);
    plain.send(head(&proxy, "POST", TURN, CODEX, user("y").len()) + &user("y")).await;
    let over_tls = plain.response().await;
    recordings.ended(3).await;
    drop(client);
    proxy.stop_of(&recordings, 3).await;
    let exchanges = recordings.exchanges();
    let [turn, refused, tls] = &exchanges[..] else { panic!("{exchanges:?}") };
    assert_eq!((turn.request.http_version.as_str(), turn.request.url.as_str()), ("2", &*format!("{TURN}?a")));
    assert_eq!(turn.body(), user("x").as_bytes());
    assert_eq!(turn.request.headers.iter().filter(|(name, _)| name == "x-dup").count(), 2);
    let answer = turn.answer.as_ref().unwrap();
    assert_eq!((answer.status, answer.is_stream, answer.end), (200, true, StreamEnd::Eof));
    assert_eq!((answer.body.len(), &answer.body), (got.len(), &got));
    assert_monotonic(&answer.writes);
    assert_eq!(refused.answer.as_ref().unwrap().status, 401);
    assert_eq!(
        (tls.request.http_version.as_str(), tls.answer.as_ref().unwrap().body.clone()),
        ("1.1", over_tls.body)
    );
    assert!(exchanges.iter().all(|exchange| exchange.missing.is_none()), "{exchanges:?}");
}

const BEGIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 60\r\n\r\n";

const OUTPUT: &str = "data: {\"type\":\"response.output_text.delta\"}\n\n";

/// A response on its way, and the upstream's end of it.
async fn on_its_way(upstream: &Upstream, proxy: &Proxy) -> (Connection, Connection) {
    let mut client = proxy.connect().await;
    client.send(head(proxy, "POST", "/v1/responses", CODEX, 2) + "{}").await;
    let (behind, _) = upstream.answer(format!("{BEGIN}{OUTPUT}")).await;
    client.read_through(OUTPUT).await;
    (client, behind)
}

#[tokio::test]
async fn what_is_cut_off_is_marked() {
    let recordings = Recordings::new();
    let (upstream, proxy) = recordings.by_hand(&[]).await;
    let (mut cut, behind) = on_its_way(&upstream, &proxy).await;
    drop(behind);
    cut.read_to_end().await;
    recordings.ended(1).await;
    let (left, _behind) = on_its_way(&upstream, &proxy).await;
    drop(left);
    recordings.ended(2).await;
    let mut half = proxy.connect().await;
    half.send(head(&proxy, "POST", "/v1/responses", CODEX, 9) + "half").await;
    half.finish().await;
    half.read_to_end().await;
    proxy.stop_of(&recordings, 3).await;
    let exchanges = recordings.exchanges();
    let seen: Vec<_> = exchanges
        .iter()
        .map(|exchange| {
            (
                exchange.answer.as_ref().map(|answer| answer.end),
                exchange.client_gone.is_some(),
                exchange.missing.as_deref(),
            )
        })
        .collect();
    let incomplete = "the request is not complete: the connection ended within it";
    assert_eq!(
        seen,
        [
            (Some(StreamEnd::Fin), false, Some("the response was cut off")),
            (Some(StreamEnd::ClientGone), true, None),
            (None, true, Some(incomplete)),
        ]
    );
    assert_eq!(exchanges[0].answer.as_ref().unwrap().body, OUTPUT.as_bytes());
    assert_eq!(exchanges[2].body(), b"half");
}

#[tokio::test]
async fn what_is_cut_off_over_http2_is_marked() {
    let recordings = Recordings::new();
    let (upstream, proxy) = recordings.by_hand(&["--tls"]).await;
    let target = format!("{}/v1/responses", proxy.prefix());
    for is_left in [true, false] {
        let mut client = Http2::open(&proxy).await;
        let begun = format!("{BEGIN}{OUTPUT}");
        let asking = client.send("POST", &target, &[("user-agent", "codex_exec/0.169.0")], "{}");
        let (response, (behind, _)) = tokio::join!(asking, upstream.answer(&begun));
        let mut response = response.unwrap();
        assert_eq!(data(response.body_mut()).await.unwrap().unwrap(), OUTPUT);
        if is_left {
            drop((response, client));
            recordings.ended(1).await;
        } else {
            drop(behind);
            assert!(collect(response.body_mut()).await.1.is_err());
        }
    }
    proxy.stop_of(&recordings, 2).await;
    let seen: Vec<_> = recordings
        .exchanges()
        .into_iter()
        .map(|exchange| (exchange.answer.unwrap().end, exchange.client_gone.is_some(), exchange.missing))
        .collect();
    let cut = Some("the response was cut off".to_owned());
    assert_eq!(seen, [(StreamEnd::ClientGone, true, None), (StreamEnd::Reset, false, cut)]);
}

#[tokio::test]
async fn a_drain_completes_files_and_marks_what_it_cuts() {
    let recordings = Recordings::new();
    let upstream = Upstream::start().await;
    let setting = Setting::new(&[], Script::default()).key("key", "sk-x").set("PRODEX_DRAIN_TIMEOUT", "1s");
    let mut proxy = recordings.add_to(setting).start_at(upstream.url()).await;
    let (mut client, mut behind) = on_its_way(&upstream, &proxy).await;
    let (mut never, _behind) = on_its_way(&upstream, &proxy).await;
    proxy.server.signal(Signal::SIGTERM);
    behind.send("x".repeat(60 - OUTPUT.len())).await;
    client.read_to_end().await;
    never.read_to_end().await;
    proxy.server.wait(LIMIT).await.unwrap();
    let mut missing: Vec<_> = recordings.exchanges().into_iter().map(|exchange| exchange.missing).collect();
    missing.sort();
    let drained = "the program was told to end and did not wait any longer";
    assert_eq!(missing, [None, Some(drained.to_owned())]);
}

#[tokio::test]
async fn a_proxy_that_is_killed_leaves_partial_files() {
    let recordings = Recordings::new();
    let (upstream, mut proxy) = recordings.by_hand(&[]).await;
    let (_client, _behind) = on_its_way(&upstream, &proxy).await;
    until("the request to be recorded", || recordings.text().contains("/v1/responses")).await;
    proxy.server.signal(Signal::SIGKILL);
    proxy.server.wait(LIMIT).await.unwrap();
    let exchanges = recordings.exchanges();
    assert_eq!(exchanges[0].missing.as_deref(), Some("the recording stopped before its end"));
}

#[tokio::test]
async fn a_place_that_takes_no_recording_is_said_before_anything_is_served() {
    let sandbox = sandbox();
    add_profile(&sandbox, "one", &Account::new("one").auth_json().to_string()).await;
    let file = sandbox.root().join("file");
    std::fs::write(&file, "").unwrap();
    for place in [file.clone(), file.join("below"), PathBuf::from("/proc/recordings")] {
        let place = place.display().to_string();
        let finished = prodex(&sandbox, &["serve", "--record", &place]).await;
        assert_eq!(code(&finished), Some(3), "{}", finished.stderr);
        assert!(
            finished.stderr.starts_with(&format!("prodex: cannot record in {place}: ")),
            "{}",
            finished.stderr
        );
        assert!(
            finished.stderr.contains("--record") && finished.stderr.lines().count() == 1,
            "{}",
            finished.stderr
        );
    }
}

#[tokio::test]
async fn a_recording_that_fails_later_loses_no_request() {
    let recordings = Recordings::new();
    let (_mock, proxy) = recordings.start(one()).await;
    turn(&proxy, "", &user("x")).await;
    recordings.ended(1).await;
    std::fs::remove_dir_all(&recordings.directory).unwrap();
    for _ in 0..3 {
        assert_eq!(turn(&proxy, "", &user("x")).await.said(), "hi");
    }
    proxy.server.signal(Signal::SIGTERM);
    let mut proxy = proxy;
    proxy.server.wait(LIMIT).await.unwrap();
    let said = "3 exchanges could not be recorded";
    until("what was lost to be said", || proxy.server.stderr().contains(said)).await;
    assert!(recordings.files().is_empty());
}

#[tokio::test]
async fn no_secret_of_the_pool_and_no_capability_is_recorded() {
    let recordings = Recordings::new();
    let account = |id: &str| Account {
        access_token: Some(format!("canary-access-{id}")),
        refresh_token: Some(format!("canary-refresh-{id}")),
        ..Account::new(id)
    };
    let script = Script::rules([
        Rule::new(Http::json(500, json!({"error": {"code": "oops"}}))).user_text("fail").times(1),
        Rule::new(Http::text(418, "x")).call(CallName::Usage),
        Rule::new(Reply::Default),
    ]);
    let script = script.account(account("one").turns_left(0)).account(account("two").expired());
    let setting = Setting::new(&["one", "two"], script).key("key", "sk-canary-key");
    let (_mock, proxy) = recordings.start(setting).await;
    let capability = proxy.prefix().split_off("/k/".len());
    turn(&proxy, "authorization: Bearer own-token\r\n", &user("x")).await;
    turn(&proxy, "", &user(&format!("what is {capability}?"))).await;
    request(&proxy, "POST", "/v1/responses", CODEX, user("x").as_bytes()).await;
    let mut keyed = proxy.connect().await;
    keyed
        .send(format!(
            "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {capability}\r\n\r\n"
        ))
        .await;
    keyed.response().await;
    let mut broken = proxy.connect().await;
    broken.send(format!("GET {}/v1/models HTTP/1.0\r\n\r\n", proxy.prefix())).await;
    broken.read_to_end().await;
    let mut socket = Socket::of_session(&proxy).await;
    socket.turn(&create(&format!("echo {capability}"))).await;
    socket.vanish();
    proxy.stop_of(&recordings, 6).await;
    let text = recordings.text();
    assert!(text.contains("own-token"), "the client's own is there, as the documentation says");
    for secret in ["canary", &capability] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    for exchange in recordings.exchanges() {
        assert!(!exchange.request.url.contains("/k/"), "{}", exchange.request.url);
    }
}

#[tokio::test]
async fn two_runs_share_a_directory() {
    let recordings = Recordings::new();
    let (_mock, proxy) = recordings.start(one()).await;
    let another = proxy.another().await;
    for proxy in [&proxy, &another] {
        turn(proxy, "", &user("x")).await;
    }
    proxy.stop().await;
    another.stop().await;
    let exchanges = recordings.exchanges();
    assert_eq!(exchanges.iter().map(|exchange| exchange.id).collect::<Vec<_>>(), [1, 2]);
}

impl Proxy {
    /// Ends the proxy, when so many exchanges have been written whole.
    async fn stop_of(self, recordings: &Recordings, count: usize) {
        recordings.ended(count).await;
        self.stop().await;
    }
}
