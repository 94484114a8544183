//! Replays without a proxy: both sides of a record agree, over plain sockets, TLS and HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harness::diff::{Check, Expect, Finding, judge};
use harness::mock::playback::{Config, Playback};
use harness::mock::tls::Authority;
use harness::replay::probes::{Probe, Settings, all, joined};
use harness::replay::{Http2, Options, Recording, SeenEnd, Target, replay};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use wire::capture::Exchange;

fn probes() -> Vec<Probe> {
    all(&Settings { big: 9 << 20, slow: Duration::from_millis(600), ..Settings::default() })
}

/// What is found when client and upstream of a record talk to each other.
async fn found(exchanges: &[Exchange], config: Config) -> (Recording, Vec<Finding>) {
    let playback = Playback::start(exchanges.to_vec(), config).await.unwrap();
    let ca_pem = playback.ca_pem().map(str::to_owned);
    let target = Target { base_url: playback.base_url().to_owned(), ca_pem };
    let recording = replay(exchanges, &target, &playback, &Options::default()).await.unwrap();
    let findings = judge(exchanges, &recording, &Expect::Transparent);
    (recording, findings)
}

fn names(findings: &[Finding]) -> Vec<(Check, &str)> {
    findings.iter().map(|finding| (finding.check, finding.problem.as_str())).collect()
}

#[tokio::test]
async fn both_sides_of_a_record_agree() {
    let (recording, findings) = found(&joined(&probes()), Config::default()).await;
    assert_eq!(names(&findings), []);
    let text = serde_json::to_string(&recording).unwrap();
    let again: Recording = serde_json::from_str(&text).unwrap();
    assert_eq!(again.client.len(), recording.client.len());
}

#[tokio::test]
async fn both_sides_agree_over_tls() {
    // A reset is not to be seen through TLS before what came in front of it has been decrypted.
    let probes = probes();
    let exchanges = joined(probes.iter().filter(|probe| !probe.name.contains("reset")));
    let authority = Arc::new(Authority::generate().unwrap());
    let (_, findings) = found(&exchanges, Config { tls: Some(authority), ..Config::default() }).await;
    assert_eq!(names(&findings), []);
}

#[tokio::test]
async fn a_fixture_takes_the_place_of_another() {
    let probes = probes();
    let [first, second] = ["stream", "ws-turn"].map(|name| {
        let is_named = |probe: &&Probe| probe.name == name;
        probes.iter().find(is_named).unwrap().exchanges.clone()
    });
    let playback = Playback::start(first.clone(), Config::default()).await.unwrap();
    let target = Target::plain(playback.base_url());
    for exchanges in [&first, &second, &first] {
        playback.load(exchanges.clone());
        let recording = replay(exchanges, &target, &playback, &Options::default()).await.unwrap();
        assert_eq!(names(&judge(exchanges, &recording, &Expect::Transparent)), []);
        assert_eq!(recording.upstream.asks.len(), 1);
    }
}

/// A body of one piece.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn answer(request: http::Request<Incoming>) -> Result<http::Response<Whole>, hyper::Error> {
    let said =
        format!("{} {} {:?}", request.method(), request.uri().path(), request.headers()["x-duplicate"]);
    let response = http::Response::builder().status(203).header("x-seen", said);
    Ok(response.body(Whole(Some(Bytes::from_static(b"all of it")))).unwrap())
}

/// The address of a server that speaks HTTP/2.
async fn serve_http2(authority: &Authority) -> String {
    let mut config = (*authority.server().unwrap()).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/base", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let tls = TokioIo::new(acceptor.accept(tcp).await.unwrap());
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(tls, service_fn(answer)).await
    });
    url
}

#[tokio::test]
async fn a_client_speaks_http2() {
    let authority = Authority::generate().unwrap();
    let probes = probes();
    let stream = probes.iter().find(|probe| probe.name == "stream").unwrap();
    let url = serve_http2(&authority).await;
    let target = Target { base_url: url, ca_pem: Some(authority.pem().to_owned()) };
    let playback = Playback::start(Vec::new(), Config::default()).await.unwrap();
    let options = Options { http2: Http2::Always, ..Options::default() };
    let recording = replay(&stream.exchanges, &target, &playback, &options).await.unwrap();
    let seen = &recording.client[0];
    assert_eq!((seen.http2, seen.status, seen.end), (true, Some(203), SeenEnd::Clean));
    assert_eq!(seen.body.0, b"all of it");
    let said = seen.headers.iter().find(|(name, _)| name == "x-seen").unwrap();
    assert_eq!(said.1, "POST /base/backend-api/codex/responses \"first\"");
}
