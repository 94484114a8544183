//! Strangers, web pages, odd targets and ambiguous framing are refused before any upstream is asked.

use mock_upstream::Mock;
use mock_upstream::script::Script;

use crate::connection::{Connection, TURN, head, request};
use crate::http2::{Http2, collect};
use crate::rig::{Proxy, Setting};

async fn start(arguments: &[&str]) -> (Mock, Proxy) {
    let setting = Setting::new(&["one"], Script::default());
    arguments.iter().fold(setting, |setting, argument| setting.argument(argument)).start().await
}

const MODELS: &str = "/backend-api/codex/models";

const HOST: &str = "Host: 127.0.0.1\r\nAuthorization: Bearer own\r\n";

/// Sends these bytes and a good request behind them, and says with which status the first is refused.
/// The second must not be answered: it could be a part of the first.
async fn refused(proxy: &Proxy, bytes: impl AsRef<[u8]>) -> u16 {
    let mut client = proxy.connect().await;
    let good = head(proxy, "GET", MODELS, "authorization: Bearer own\r\n", 0);
    // The proxy may have closed before it has read everything.
    let _ = client.try_send([bytes.as_ref(), good.as_bytes()].concat()).await;
    let (answer, _) = client.read_to_end().await;
    let text = String::from_utf8(answer).unwrap();
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert!(text.contains("connection: close\r\n") && text.contains("\"message\":\"prodex: "), "{text}");
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Holds what is expected against what is answered; nothing of it may reach the upstream.
async fn assert_refused(mock: &Mock, proxy: &Proxy, cases: &[(String, u16)]) {
    let mut wrong = Vec::new();
    for (bytes, expected) in cases {
        let status = refused(proxy, bytes).await;
        if status != *expected {
            wrong.push(format!("{status} instead of {expected}: {:?}", &bytes[..bytes.len().min(300)]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(mock.journal().exchanges().is_empty(), "nothing of it reached the upstream");
}

#[tokio::test]
async fn without_the_capability_nobody_is_served() {
    let (mock, proxy) = start(&[]).await;
    let prefix = proxy.prefix();
    let shorter = &prefix[..prefix.len() - 1];
    let get = |target: String, fields: &str| format!("GET {target} HTTP/1.1\r\n{HOST}{fields}\r\n");
    let cases = [
        get(MODELS.to_owned(), ""),
        get(format!("/k/wrong{MODELS}"), ""),
        get(format!("{shorter}{MODELS}"), ""),
        get(format!("{prefix}x{MODELS}"), ""),
        get(format!("{}{MODELS}", prefix.to_uppercase()), ""),
        get(format!("/K{}{MODELS}", &prefix[2..]), ""),
        get(format!("/k{MODELS}"), ""),
        get(format!("{MODELS}?k={}", &prefix[3..]), ""),
        get(format!("/v1/models{prefix}"), ""),
        get("/v1/models".to_owned(), "x-api-key: wrong\r\n"),
        get("/nothing".to_owned(), ""),
        format!("TRACE / HTTP/1.1\r\n{HOST}\r\n"),
    ];
    assert_refused(&mock, &proxy, &cases.map(|case| (case, 401))).await;
    let log = proxy.stop().await;
    assert_eq!(log.events("request_refused").count(), 12);
}

#[tokio::test]
async fn the_capability_may_be_the_key_of_a_client() {
    let key = format!("sk-{}", "k".repeat(40));
    let script = Script::default().account(mock_upstream::Account::new("one").api_key(&key));
    let (mock, proxy) = Setting::new(&[], script).key("key", &key).start().await;
    let capability = proxy.prefix().split_off("/k/".len());
    for name in ["authorization: bearer ", "X-API-Key: ", "x-goog-api-key: "] {
        let mut client = proxy.connect().await;
        let fields = format!("Host: localhost\r\n{name}{capability}\r\nContent-Length: 2\r\n");
        client.send(format!("POST /v1/responses HTTP/1.1\r\n{fields}\r\n{{}}")).await;
        assert_eq!(client.response().await.status(), 200, "{name}");
    }
    for exchange in mock.journal().exchanges() {
        let sent = String::from_utf8_lossy(&exchange.head).into_owned();
        assert!(!sent.contains(&capability), "it is not for the upstream: {sent}");
    }
    assert_eq!(mock.journal().exchanges().len(), 3);
}

#[tokio::test]
async fn without_a_capability_only_on_request() {
    let (mock, proxy) = start(&["--no-auth"]).await;
    assert_eq!(proxy.prefix(), "");
    assert_eq!(request(&proxy, "POST", TURN, "", b"{}").await.status(), 200);
    let foreign = format!("GET {MODELS} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!((refused(&proxy, foreign).await, mock.journal().responses().len()), (403, 1));
}

#[tokio::test]
async fn foreign_hosts_and_pages_are_refused() {
    let (mock, proxy) = start(&[]).await;
    let get = |fields: &str| format!("GET {}{MODELS} HTTP/1.1\r\n{fields}\r\n", proxy.prefix());
    let mut cases = Vec::new();
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "0.0.0.0",
        "[::2]",
        "",
        "localhost:",
    ] {
        cases.push((get(&format!("Host: {host}\r\n")), 403));
    }
    cases.push((get(""), 400));
    cases.push((get("Host: localhost\r\nHost: localhost\r\n"), 400));
    for field in [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://localhost.evil.example",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: same-origin",
    ] {
        cases.push((get(&format!("{HOST}{field}\r\n")), 403));
    }
    assert_refused(&mock, &proxy, &cases).await;
}

#[tokio::test]
async fn odd_targets_are_refused() {
    let (mock, proxy) = start(&[]).await;
    let prefix = proxy.prefix();
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\n{HOST}\r\n");
    let mut cases: Vec<(String, u16)> = [
        "/backend-api/../etc",
        "/backend-api/%2e%2e/etc",
        "/backend-api/.%2E/etc",
        "/backend-api/./codex/models",
        "/backend-api%2Fcodex/models",
        "/backend-api%5ccodex/models",
        "/backend-api\\codex\\models",
        "/backend-api//codex/models",
        "/backend-api/codex/models/..",
        "/backend-api/codex/models%00",
        "/backend-api/codex/models%252e",
        "/backend-api/codex/models#x",
        "/backend-api/codex/m\u{f6}dels",
    ]
    .iter()
    .map(|path| (get(&format!("{prefix}{path}")), 400))
    .collect();
    cases.push((get(&format!("http://127.0.0.1{prefix}{MODELS}")), 400));
    cases.push((get(&format!("{}{prefix}{MODELS}", mock.base_url())), 400));
    cases.push((get("*"), 400));
    cases.push((get(&format!("/k/..{prefix}{MODELS}")), 400));
    cases.push((format!("CONNECT {} HTTP/1.1\r\n{HOST}\r\n", mock.address()), 400));
    assert_refused(&mock, &proxy, &cases).await;
}

#[tokio::test]
async fn framing_that_can_be_read_in_two_ways_is_refused() {
    let (mock, proxy) = start(&[]).await;
    let post = |fields: &str, body: &str| {
        format!("POST {}{TURN} HTTP/1.1\r\n{HOST}{fields}\r\n{body}", proxy.prefix())
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases = [
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"),
        post("Content-Length: 2\r\ncontent-length: 3\r\n", "{}"),
        post("Content-Length: 2, 2\r\n", "{}"),
        post("Content-Length: +2\r\n", "{}"),
        post("Content-Length: 0x2\r\n", "{}"),
        post("Content-Length: -1\r\n", "{}"),
        post("Content-Length: \r\n", "{}"),
        post("Content-Length: 99999999999999999999\r\n", "{}"),
        post("Content-Length : 2\r\n", "{}"),
        post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: identity\r\n", "{}"),
        post("Transfer-Encoding:\u{b}chunked\r\n", "0\r\n\r\n"),
        post(" Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("X: a\r\n b\r\nContent-Length: 2\r\n", "{}"),
        post("X: a\r\n\tb\r\nContent-Length: 2\r\n", "{}"),
        post("X: a\nContent-Length: 2\r\n", "{}"),
        post("X: a\0b\r\nContent-Length: 2\r\n", "{}"),
        post("X: a\rb\r\nContent-Length: 2\r\n", "{}"),
        post("X\r\nContent-Length: 2\r\n", "{}"),
        post(": x\r\nContent-Length: 2\r\n", "{}"),
        post("X(: x\r\nContent-Length: 2\r\n", "{}"),
        post(chunked, "2\n{}\r\n0\r\n\r\n"),
        post(chunked, "0x2\r\n{}\r\n0\r\n\r\n"),
        post(chunked, "-2\r\n{}\r\n0\r\n\r\n"),
        post(chunked, "2\r\n{}x\r\n0\r\n\r\n"),
        post(chunked, "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        post(chunked, " 2\r\n{}\r\n0\r\n\r\n"),
        post(chunked, "\r\n{}\r\n0\r\n\r\n"),
        post(chunked, "2\r\n{}\r\n0\r\nX\n\r\n"),
    ];
    assert_refused(&mock, &proxy, &cases.map(|case| (case, 400))).await;
}

#[tokio::test]
async fn lines_that_are_no_request_are_refused() {
    let (mock, proxy) = start(&[]).await;
    let target = format!("{}{MODELS}", proxy.prefix());
    let rest = format!("{HOST}\r\n");
    let fields = "X: y\r\n".repeat(130);
    let cases = [
        (format!("GET {target} HTTP/1.1\n{}", rest.replace('\r', "")), 400),
        (format!("\r\nGET {target} HTTP/1.1\r\n{rest}"), 400),
        (format!("GET  {target} HTTP/1.1\r\n{rest}"), 400),
        (format!("GET {target} HTTP/1.1 \r\n{rest}"), 400),
        (format!("GET {target}\r\n{rest}"), 400),
        (format!("GET\t{target} HTTP/1.1\r\n{rest}"), 400),
        (format!("GET {target}\0 HTTP/1.1\r\n{rest}"), 400),
        (format!("G\u{1}T {target} HTTP/1.1\r\n{rest}"), 400),
        (format!("GET {target} HTTP/1.0\r\n{rest}"), 505),
        (format!("GET {target} HTTP/2.0\r\n{rest}"), 505),
        (format!("GET {target} HTTP/1.1\r\n{HOST}{fields}\r\n"), 431),
        (format!("GET {target} HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "y".repeat(70_000)), 431),
        (format!("GET {target}?{} HTTP/1.1\r\n{rest}", "y".repeat(70_000)), 431),
        (format!("TRACE {target} HTTP/1.1\r\n{rest}"), 405),
        (format!("OPTIONS {target} HTTP/1.1\r\n{rest}"), 405),
        (format!("get {target} HTTP/1.1\r\n{rest}"), 405),
        (format!("PUT {target} HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n"), 405),
        (format!("GET {target} HTTP/1.1\r\n{HOST}Expect: cake\r\n\r\n"), 417),
    ];
    assert_refused(&mock, &proxy, &cases).await;
}

#[tokio::test]
async fn what_no_known_client_calls_is_not_relayed() {
    let (mock, proxy) = start(&[]).await;
    let ask = |method: &str, path: &str| head(&proxy, method, path, "", 0);
    let cases = [
        (ask("GET", "/"), 404),
        (ask("GET", ""), 404),
        (ask("GET", "/backend-api/conversations"), 404),
        (ask("GET", "/backend-api/me"), 404),
        (ask("GET", "/backend-api/codex/responses/"), 404),
        (ask("POST", "/v1/files"), 404),
        (ask("GET", "/v1/responses/resp_1"), 404),
        (ask("POST", "/oauth/token"), 404),
        (ask("GET", "/__mock/journal"), 404),
        (ask("GET", "/backend-api/wham/settingsx"), 404),
        (ask("DELETE", "/v1/models"), 405),
        (ask("POST", "/backend-api/codex/models"), 405),
        (ask("GET", TURN), 405),
    ];
    assert_refused(&mock, &proxy, &cases).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_to_its_end_asks_nobody() {
    let (mock, proxy) = start(&[]).await;
    for (fields, body) in [("content-length: 10\r\n", "{}"), ("transfer-encoding: chunked\r\n", "a\r\n{}")] {
        let mut client = proxy.connect().await;
        let head = format!("POST {}{TURN} HTTP/1.1\r\n{HOST}{fields}\r\n{body}", proxy.prefix());
        client.send(head).await;
        client.finish().await;
        assert_eq!(client.read_to_end().await.0, b"");
    }
    assert!(mock.journal().exchanges().is_empty());
}

#[tokio::test]
async fn over_http2_the_same_holds() {
    let (mock, proxy) = start(&["--tls"]).await;
    let target = format!("{}{MODELS}", proxy.prefix());
    let path = |path: &str| format!("{}{path}", proxy.prefix());
    let long = "x".repeat(60_000);
    for (method, target, fields, expected) in [
        ("GET", MODELS.to_owned(), &[][..], 401),
        ("GET", format!("/k/wrong{MODELS}"), &[], 401),
        ("GET", format!("https://evil.example{target}"), &[], 403),
        ("GET", format!("https://localhost{target}"), &[("host", "evil.example")], 400),
        ("GET", target.clone(), &[("origin", "https://evil.example")], 403),
        ("GET", target.clone(), &[("sec-fetch-site", "cross-site")], 403),
        ("GET", path("/backend-api/../etc"), &[], 400),
        ("GET", path("/backend-api/%2e%2e/etc"), &[], 400),
        ("GET", path("/backend-api%2fcodex/models"), &[], 400),
        ("GET", path("/backend-api/conversations"), &[], 404),
        ("TRACE", target.clone(), &[], 405),
        ("POST", path(TURN), &[("content-length", "2"), ("content-length", "3")], 400),
        ("GET", path(TURN), &[("upgrade", "websocket")], 405),
        ("GET", target, &[("x", &*long), ("y", &*long)], 431),
    ] {
        let mut client = Http2::open(&proxy).await;
        match client.send(method, &target, fields, "").await {
            Ok(mut response) => {
                assert_eq!(response.status().as_u16(), expected, "{method} {target}");
                collect(response.body_mut()).await.1.unwrap();
            }
            // A message that HTTP/2 itself does not allow ends its stream.
            Err(error) => assert!(expected == 400 || expected == 431, "{method} {target}: {error}"),
        }
    }
    assert!(mock.journal().exchanges().is_empty());
}

#[tokio::test]
async fn other_protocols_get_no_answer_they_could_use() {
    let (_mock, proxy) = start(&["--tls"]).await;
    let mut plain = Connection::open(proxy.port()).await;
    plain.send(head(&proxy, "GET", MODELS, "", 0)).await;
    let (answer, _) = plain.read_to_end().await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "no plain HTTP on a TLS port");
    let (mock, proxy) = start(&[]).await;
    let mut tls = proxy.connect().await;
    tls.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await;
    assert!(tls.read_to_end().await.0.starts_with(b"HTTP/1.1 400 "));
    assert!(mock.journal().exchanges().is_empty());
}
