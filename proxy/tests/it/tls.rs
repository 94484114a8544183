//! Clients over TLS: HTTP/2, HTTP/1.1 and WebSockets, under an authority that can vouch for nothing else.

use std::io::ErrorKind;
use std::sync::Arc;

use mock_upstream::fault::{At, End, Fault};
use mock_upstream::script::{Framing, Rule, Script, Stream, Turn};
use mock_upstream::{Account, Mock};
use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::connection::{CODEX, Connection, TURN, head, user};
use crate::http2::{Http2, authority, collect, connect, data, trusting};
use crate::rig::{LIMIT, Proxy, Setting, asked, finished, mode};
use crate::socket::{Socket, create, said};
use crate::upstream::Upstream;

const CREATED: &str = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r1\"}}\n\n";

const OUTPUT: &str = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n";

async fn start(script: Script) -> (Mock, Proxy) {
    Setting::new(&["one"], script).argument("--tls").start().await
}

const FIELDS: [(&str, &str); 2] = [("user-agent", "codex_exec/0.169.0"), ("authorization", "Bearer own")];

#[tokio::test]
async fn requests_over_http2_arrive_as_they_were_sent() {
    let (mock, proxy) = start(Script::rules([Rule::new(Turn::text("hi"))])).await;
    let target = format!("{}{TURN}?q=%41", proxy.prefix());
    let mut client = Http2::open(&proxy).await;
    let big: Vec<u8> = (0..4_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let zstd = zstd::encode_all(user("x").as_bytes(), 3).unwrap();
    for (fields, body) in [
        (&[("x-dup", "a"), ("x-dup", "b"), ("cookie", "c=d")][..], user("x").into_bytes()),
        (&[("content-encoding", "zstd")], zstd),
        (&[("content-type", "x/y")], big),
        (&[], Vec::new()),
    ] {
        let fields = [&FIELDS[..], fields].concat();
        let mut response = client.send("POST", &target, &fields, body.clone()).await.unwrap();
        assert_eq!(response.status(), 200);
        collect(response.body_mut()).await.1.unwrap();
        let turn = finished(&mock).await;
        assert!(turn.body == body && turn.target == format!("{TURN}?q=%41"));
        assert_eq!(turn.header("host"), Some(mock.base_url().trim_start_matches("http://").to_owned()));
        assert_eq!(turn.header("content-length"), (!body.is_empty()).then(|| body.len().to_string()));
        let names: Vec<String> = turn.headers().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.iter().filter(|name| *name == "x-dup").count(), fields.len() / 5 * 2, "{names:?}");
        assert!(!names.contains(&"cookie".to_owned()));
    }
    assert_eq!(asked(&mock).len(), 4);
}

#[tokio::test]
async fn responses_over_http2_arrive_as_they_were_sent() {
    let text = ": c\r\n\r\ndata: {\"type\":\"response.created\"}\r\rdata: \u{1F600}\n\ndata: cut".as_bytes();
    for framing in [Framing::Chunked, Framing::Length, Framing::Close] {
        for size in [1, 4096] {
            let stream = Stream { framing, status: 299, ..Stream::bytes(text.chunks(size)) };
            let (_mock, proxy) = start(Script::rules([Rule::new(stream)])).await;
            let mut client = Http2::open(&proxy).await;
            let target = format!("{}{TURN}", proxy.prefix());
            let mut response = client.send("POST", &target, &FIELDS, "{}").await.unwrap();
            let (body, end) = collect(response.body_mut()).await;
            end.unwrap();
            assert_eq!((response.status().as_u16(), body.as_slice()), (299, text), "{framing:?}, {size}");
        }
    }
}

#[tokio::test]
async fn heads_over_http2_arrive_but_for_what_belongs_to_the_connection() {
    let upstream = Upstream::start().await;
    let setting = Setting::new(&[], Script::default()).key("key", "sk-x").argument("--tls");
    let proxy = setting.start_at(upstream.url()).await;
    let mut client = Http2::open(&proxy).await;
    let target = format!("{}/v1/responses", proxy.prefix());
    let answer = "HTTP/1.1 200 OK\r\nX-Dup: 1\r\nx-dup: 2\r\nKeep-Alive: 5\r\nSet-Cookie: a=b\r\nAlt-Svc: h3\r\n\
        X-Codex-Turn-State: ts\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
        2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n";
    let (response, _) = tokio::join!(client.send("POST", &target, &[], "{}"), upstream.answer(answer));
    let mut response = response.unwrap();
    let fields: Vec<(&str, &[u8])> =
        response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(fields, [("x-dup", &b"1"[..]), ("x-dup", b"2"), ("x-codex-turn-state", b"ts")]);
    assert_eq!(collect(response.body_mut()).await.0, b"ok");
}

#[tokio::test]
async fn events_over_http2_go_on_one_by_one() {
    let upstream = Upstream::start().await;
    let setting = Setting::new(&[], Script::default()).key("key", "sk-x").argument("--tls");
    let proxy = setting.start_at(upstream.url()).await;
    let mut client = Http2::open(&proxy).await;
    let target = format!("{}/v1/responses", proxy.prefix());
    let begin = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_owned();
    let answering = upstream.answer(begin + CREATED + OUTPUT);
    let (response, (mut connection, _)) =
        tokio::join!(client.send("POST", &target, &FIELDS, "{}"), answering);
    let mut response = response.unwrap();
    let mut seen = data(response.body_mut()).await.unwrap().unwrap().to_vec();
    while seen.len() < CREATED.len() + OUTPUT.len() {
        seen.extend(data(response.body_mut()).await.unwrap().unwrap());
    }
    assert_eq!(seen, format!("{CREATED}{OUTPUT}").as_bytes());
    for _ in 0..20 {
        connection.send(OUTPUT).await;
        assert_eq!(data(response.body_mut()).await.unwrap().unwrap(), OUTPUT);
    }
    drop(connection);
    let (rest, end) = collect(response.body_mut()).await;
    assert!(rest.is_empty() && end.is_ok(), "the close was the end of the body");
}

#[tokio::test]
async fn a_cut_over_http2_resets_the_stream_and_no_other() {
    for (framing, end) in [
        (Framing::Chunked, End::Fin),
        (Framing::Chunked, End::Reset),
        (Framing::Length, End::Short),
        (Framing::Close, End::Reset),
    ] {
        let stream = Stream { framing, ..Stream::texts([CREATED, OUTPUT, "data: never\n\n"]) };
        let cut = Rule::new(stream).fault(Fault { at: At::Events(2), end }).times(1);
        let (mock, proxy) = start(Script::rules([cut])).await;
        let mut client = Http2::open(&proxy).await;
        let target = format!("{}{TURN}", proxy.prefix());
        // What waits for the socket goes with its stream, the head perhaps among it.
        if let Ok(mut response) = client.send("POST", &target, &FIELDS, "{}").await {
            assert!(collect(response.body_mut()).await.1.is_err(), "{framing:?}: no clean end");
        }
        let mut next = client.send("POST", &target, &FIELDS, user("x")).await.unwrap();
        collect(next.body_mut()).await.1.unwrap();
        assert_eq!(asked(&mock).len(), 2);
    }
}

#[tokio::test]
async fn many_requests_share_a_connection_and_refusals_move() {
    let script = Script::default().account(Account::new("a").turns_left(0));
    let (mock, proxy) = Setting::new(&["a", "b"], script).argument("--tls").start().await;
    let target = format!("{}{TURN}", proxy.prefix());
    let mut client = Http2::open(&proxy).await;
    let mut first = client.send("POST", &target, &FIELDS, user("x")).await.unwrap();
    collect(first.body_mut()).await.1.unwrap();
    let mut responses = Vec::new();
    for _ in 0..30 {
        responses.push(client.send("POST", &target, &FIELDS, user("x")).await.unwrap());
    }
    for response in &mut responses {
        assert_eq!(response.status(), 200);
        let (body, end) = collect(response.body_mut()).await;
        end.unwrap();
        assert!(String::from_utf8(body).unwrap().contains("response.completed"));
    }
    let asked = asked(&mock);
    assert_eq!((&*asked[0], asked.len()), ("a", 32));
    assert!(asked[1..].iter().all(|account| account == "b"), "{asked:?}");
}

#[tokio::test]
async fn a_drain_lets_http2_streams_come_to_their_end() {
    let upstream = Upstream::start().await;
    let setting = Setting::new(&[], Script::default()).key("key", "sk-x").argument("--tls");
    let proxy = setting.start_at(upstream.url()).await;
    let mut client = Http2::open(&proxy).await;
    let target = format!("{}/v1/responses", proxy.prefix());
    let begin = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab";
    let (response, (mut connection, _)) =
        tokio::join!(client.send("POST", &target, &FIELDS, "{}"), upstream.answer(begin));
    let mut response = response.unwrap();
    let mut body = data(response.body_mut()).await.unwrap().unwrap().to_vec();
    proxy.server.signal(Signal::SIGTERM);
    let refused = async { while TcpStream::connect(("127.0.0.1", proxy.port())).await.is_ok() {} };
    tokio::time::timeout(LIMIT, refused).await.unwrap();
    connection.send("cd").await;
    let (rest, end) = collect(response.body_mut()).await;
    end.unwrap();
    body.extend(rest);
    assert_eq!(body, b"abcd");
    proxy.ended().await;
}

#[tokio::test]
async fn http1_over_tls_is_the_same_as_without() {
    let (mock, proxy) = start(Script::rules([Rule::new(Turn::text("hi"))])).await;
    let mut client = Connection::over(connect(&proxy, "http/1.1").await);
    for _ in 0..2 {
        let body = user("x");
        client.send(head(&proxy, "POST", TURN, CODEX, body.len()) + &body).await;
        let response = client.response().await;
        assert_eq!(
            (response.said().as_str(), &response.body),
            ("hi", &finished(&mock).await.answer.unwrap().body)
        );
    }
}

#[tokio::test]
async fn the_end_of_a_body_without_a_length_is_told_from_a_cut() {
    for (end, expected) in [(None, None), (Some(End::Reset), Some(()))] {
        let stream = Stream { framing: Framing::Close, ..Stream::texts([CREATED, OUTPUT, OUTPUT]) };
        let mut rule = Rule::new(stream);
        rule.fault = end.map(|end| Fault { at: At::Events(2), end });
        let (_mock, proxy) = start(Script::rules([rule])).await;
        let mut client = Connection::over(connect(&proxy, "http/1.1").await);
        client.send(head(&proxy, "POST", TURN, CODEX, 2) + "{}").await;
        let (body, error) = client.read_to_end().await;
        assert!(String::from_utf8(body).unwrap().contains(CREATED));
        let is_cut = matches!(error, Some(ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof));
        assert_eq!(is_cut, expected.is_some(), "{error:?}: an orderly end closes TLS as well");
    }
}

#[tokio::test]
async fn websockets_go_over_tls() {
    let (mock, proxy) = start(Script::rules([Rule::new(Turn::text("hi"))])).await;
    let url = format!("ws://localhost:{}{}{TURN}", proxy.port(), proxy.prefix());
    let request = url.into_client_request().unwrap();
    let (stream, _) = client_async(request, connect(&proxy, "http/1.1").await).await.unwrap();
    let mut socket = Socket { stream };
    assert_eq!(said(&socket.turn(&create("x")).await), "hi");
    assert!(mock.journal().responses()[0].is_websocket());
}

/// Whether a client that trusts the authority accepts a certificate that it signs for this name.
async fn is_trusted(proxy: &Proxy, name: &'static str) -> bool {
    let directory = proxy.home().join("tls");
    let key = std::fs::read_to_string(directory.join("authority.key")).unwrap();
    let pem = std::fs::read_to_string(directory.join("authority.pem")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&pem, rcgen::KeyPair::from_pem(&key).unwrap()).unwrap();
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let private = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let config = config.unwrap().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let serving = async { acceptor.accept(listener.accept().await.unwrap().0).await.map(drop) };
    let connector = TlsConnector::from(Arc::new(trusting(authority(proxy), "http/1.1")));
    let asking = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        connector.connect(ServerName::try_from(name).unwrap(), tcp).await
    };
    let (_, asked) = tokio::join!(serving, asking);
    match asked {
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains("NameConstraintViolation"), "{error}");
            false
        }
    }
}

#[tokio::test]
async fn the_authority_can_vouch_for_this_machine_alone() {
    let (_mock, proxy) = start(Script::default()).await;
    assert!(is_trusted(&proxy, "localhost").await && is_trusted(&proxy, "127.0.0.1").await);
    for name in ["example.com", "localhost.example.com", "chatgpt.com", "10.0.0.1", "127.0.0.2"] {
        assert!(!is_trusted(&proxy, name).await, "{name}");
    }
    let directory = proxy.home().join("tls");
    assert_eq!((mode(&directory), mode(&directory.join("authority.key"))), (0o700, 0o600));
}

#[tokio::test]
async fn the_authority_is_made_once_and_each_start_has_a_certificate_of_its_own() {
    let (_mock, proxy) = start(Script::default()).await;
    let another = proxy.another().await;
    assert_eq!(authority(&proxy), authority(&another));
    let mut leaves = Vec::new();
    for proxy in [&proxy, &another] {
        for name in ["localhost", "127.0.0.1"] {
            let connector = TlsConnector::from(Arc::new(trusting(authority(proxy), "h2")));
            let tcp = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
            let tls = connector.connect(ServerName::try_from(name).unwrap(), tcp).await.unwrap();
            leaves.push(tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned());
        }
    }
    assert!(leaves[0] == leaves[1] && leaves[2] == leaves[3] && leaves[0] != leaves[2]);
}

#[tokio::test]
async fn an_upstream_with_tls_is_trusted_by_its_authority_alone() {
    let ca = Arc::new(mock_upstream::tls::Authority::generate().unwrap());
    let script = Script::default().account(Account::new("one"));
    let config =
        mock_upstream::Config { tls: Some(Arc::clone(&ca)), ..mock_upstream::Config::script(script) };
    let mock = Mock::start(config).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    std::fs::write(&path, ca.pem()).unwrap();
    assert!(CertificateDer::from_pem_file(&path).is_ok());
    let setting = || Setting::new(&["one"], Script::default());
    let proxy =
        setting().set("PRODEX_UPSTREAM_CA", &path.display().to_string()).start_at(mock.base_url()).await;
    for _ in 0..2 {
        assert_eq!(crate::connection::turn(&proxy, "", &user("x")).await.said(), "Hello from the mock.");
    }
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    assert_eq!(said(&socket.turn(&create("x")).await), "Hello from the mock.");
    let stranger = setting().start_at(mock.base_url()).await;
    let response = crate::connection::turn(&stranger, "", &user("x")).await;
    assert_eq!(response.status(), 503);
    assert!(response.text().contains(mock.base_url()) && response.text().contains("certificate"));
    assert_eq!(stranger.stop().await.events("upstream_tls_handshake_error").count(), 3);
}

#[tokio::test]
async fn a_drain_with_tls_does_not_wait_for_connections_that_ask_for_nothing() {
    let (_mock, proxy) = Setting::new(&["one"], Script::default()).argument("--tls").start().await;
    // One before its handshake, and one behind it.
    let mut silent = proxy.connect().await;
    let mut client = Http2::open(&proxy).await;
    let target = format!("{}{TURN}", proxy.prefix());
    let mut response = client.send("POST", &target, &[], "{}").await.unwrap();
    collect(response.body_mut()).await.1.unwrap();
    proxy.server.signal(Signal::SIGTERM);
    proxy.ended().await;
    assert!(silent.read_to_end().await.0.is_empty());
}
