//! What an upstream sends arrives at the client byte for byte, but for what belongs to the connection.

use mock_upstream::Mock;
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Framing, Http, Item, Rule, Script, Stream, Turn};

use crate::connection::{Response, begin_turn, head, request, turn, user};
use crate::rig::{Proxy, Setting, finished};
use crate::upstream::Upstream;

/// Everything that is legal in an event stream and that nobody expects.
const ODD: &str = "\u{FEFF}: a comment\r\n\r\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r1\"}}\r\r\
    event:x\nid\nretry: 7\ndata:not json\ndata: two \u{1F600} l\u{ed}nes\n\n: tail\n\ndata: {\"type\":\
    \"response.completed\",\"response\":{\"id\":\"r1\"}}\n\ndata: cut";

async fn streaming(stream: Stream) -> (Mock, Proxy) {
    Setting::new(&["one"], Script::rules([Rule::new(stream)])).start().await
}

/// A proxy in front of an upstream written by hand, with an API key.
async fn by_hand() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Setting::new(&[], Script::default()).key("key", "sk-x").start_at(upstream.url()).await;
    (upstream, proxy)
}

/// What a client gets when the upstream answers a request with these bytes.
async fn answered(bytes: impl AsRef<[u8]>) -> Response {
    let (upstream, proxy) = by_hand().await;
    let asking = request(&proxy, "POST", "/v1/responses", "", b"{}");
    let (response, _) = tokio::join!(asking, upstream.answer(bytes));
    response
}

#[tokio::test]
async fn odd_but_legal_streams_arrive_as_they_were_sent() {
    for framing in [Framing::Chunked, Framing::Length, Framing::Close] {
        for size in [1, 7, 4096] {
            let writes: Vec<Vec<u8>> = ODD.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            let chunk = |data: &Vec<u8>| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
            let expected = match framing {
                Framing::Chunked => writes.iter().map(chunk).collect::<Vec<_>>().concat(),
                Framing::Length | Framing::Close => ODD.as_bytes().to_vec(),
            };
            let end: &[u8] = if framing == Framing::Chunked { b"0\r\n\r\n" } else { b"" };
            let (_mock, proxy) = streaming(Stream { framing, ..Stream::bytes(writes) }).await;
            let response = turn(&proxy, "", "{}").await;
            assert_eq!(response.text(), ODD, "{framing:?}, {size} bytes at a time");
            assert_eq!(response.raw, [&expected, end].concat(), "{framing:?}, {size} bytes at a time");
            let log = proxy.stop().await;
            let completed = log.events("stream_complete").next().unwrap();
            assert_eq!(completed.fields["outcome"], "complete");
        }
    }
}

#[tokio::test]
async fn a_turn_arrives_as_the_mock_sent_it() {
    let items = [
        Item::Comment("still here".into()),
        Item::Reasoning("hm".into()),
        Item::Text("a few w\u{f6}rds \u{1F600}".into()),
        Item::Shell("ls".into()),
    ];
    for pacing in [Pacing::default(), Pacing::bytes(1), Pacing::one_write()] {
        let rule = Rule::new(Turn::of(items.clone())).pacing(pacing);
        let (mock, proxy) = Setting::new(&["one"], Script::rules([rule])).start().await;
        let response = turn(&proxy, "", &user("x")).await;
        assert!(response.body == finished(&mock).await.answer.unwrap().body, "{pacing:?}");
    }
}

#[tokio::test]
async fn chunks_and_trailers_arrive_as_they_were_written() {
    let raw = "00A;a=b\r\n: comment\n\r\n1\r\n\n\r\n0;last\r\nX-Trailer: t\r\nx-trailer: u\r\n\r\n";
    let response = answered(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: Chunked\r\n\r\n{raw}"
    ))
    .await;
    assert_eq!(String::from_utf8(response.raw).unwrap(), raw);
    assert_eq!(response.body, b": comment\n\n");
}

#[tokio::test]
async fn heads_arrive_but_for_what_belongs_to_the_connection() {
    let response = answered(
        "HTTP/1.1 299 Rather  Fine\r\nX-Dup: 1\r\nContent-Type: x/y; odd\r\nx-dup:  2 \r\nDate: now\r\n\
         x-codex-turn-state: ts\r\nOpenAI-Model: m\r\nRetry-After: 7\r\nSet-Cookie: a=b\r\nAlt-Svc: h3\r\n\
         Strict-Transport-Security: max-age=1\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Authenticate: Basic\r\nWWW-Authenticate: Bearer\r\nX-Empty:\r\nX-DUP: 3\r\nServer: s\r\n\
         x-codex-primary-used-percent: 12.5\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\u{1}!",
    )
    .await;
    let expected = "HTTP/1.1 299 Rather  Fine\r\nX-Dup: 1\r\nContent-Type: x/y; odd\r\nx-dup:  2 \r\nDate: now\r\n\
        x-codex-turn-state: ts\r\nOpenAI-Model: m\r\nRetry-After: 7\r\nWWW-Authenticate: Bearer\r\nX-Empty:\r\n\
        X-DUP: 3\r\nServer: s\r\nx-codex-primary-used-percent: 12.5\r\nContent-Encoding: gzip\r\n\
        Content-Length: 3\r\n\r\n";
    assert_eq!(response.head, expected);
    assert_eq!(response.body, b"\x1f\x01!");
}

#[tokio::test]
async fn unknown_statuses_and_types_pass_untouched() {
    for status in [201, 204, 299, 304, 404, 408, 418, 451, 500, 502, 529, 599] {
        let http = Http::text(status, "{\"odd\":").header("content-type", "application/x-unknown");
        let (mock, proxy) = Setting::new(&["one"], Script::rules([Rule::new(http)])).start().await;
        let mut client = begin_turn(&proxy, "", "{}").await;
        let response = match status {
            204 | 304 => client.bare_response().await,
            _ => client.response().await,
        };
        let answer = finished(&mock).await.answer.unwrap();
        assert_eq!(response.head.as_bytes(), answer.head, "{status}");
        assert_eq!(response.body, answer.body, "{status}");
        assert_eq!(mock.journal().responses().len(), 1, "{status} is asked once");
        // The connection goes on behind it, so its end was understood.
        client.send(head(&proxy, "GET", "/backend-api/codex/models", "authorization: x\r\n", 0)).await;
        let next = client.response().await;
        assert_eq!(next.status(), 200, "behind {status}: {}", next.text());
    }
}

#[tokio::test]
async fn a_model_request_is_not_sent_around_the_proxy() {
    let elsewhere = "https://elsewhere.example/responses";
    let answer = |status: u16, location: &str| {
        format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
    };
    for status in [301, 302, 303, 307, 308] {
        let response = answered(answer(status, &format!("{elsewhere}?secret=1"))).await;
        assert_eq!(response.status(), 503, "{status}");
        assert!(response.text().contains(elsewhere) && !response.text().contains("secret"), "{status}");
        assert_eq!(answered(answer(status, "/v1/other")).await.status(), status, "leads back here");
    }
    let (upstream, proxy) = by_hand().await;
    let asking = request(&proxy, "POST", "/v1/alpha/search", "", b"{}");
    let (response, _) = tokio::join!(asking, upstream.answer(answer(307, elsewhere)));
    assert_eq!(response.status(), 503, "what is asked of a model beside the turns stays too");
    // What is no model request may go anywhere.
    let asking = request(&proxy, "GET", "/v1/models", "", b"");
    let (response, _) = tokio::join!(asking, upstream.answer(answer(302, elsewhere)));
    assert_eq!((response.status(), response.field("location")), (302, Some(elsewhere)));
}

#[tokio::test]
async fn compressed_streams_pass_and_are_not_read() {
    let headers = [("content-type", "text/event-stream"), ("content-encoding", "gzip")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let bytes = [&b"\x1f\x8b\x08\x00"[..], b"data: {\"type\":\"response.failed\"}\n\n", &[0, 255, 254]];
    let (_mock, proxy) = streaming(Stream { headers, ..Stream::bytes(bytes) }).await;
    let response = turn(&proxy, "", "{}").await;
    assert_eq!((response.field("content-encoding"), &response.body), (Some("gzip"), &bytes.concat()));
}

#[tokio::test]
async fn huge_bodies_arrive_whole() {
    let data: Vec<u8> = (0..20_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for framing in [Framing::Chunked, Framing::Length] {
        let parts = data.chunks(1 << 20);
        let (_mock, proxy) = streaming(Stream { framing, ..Stream::bytes(parts) }).await;
        let response = turn(&proxy, "", "{}").await;
        assert!(response.body == data, "{framing:?}: {} bytes came", response.body.len());
    }
}

#[tokio::test]
async fn a_huge_event_arrives_whole() {
    let text = "x".repeat(8 << 20);
    let (mock, proxy) =
        Setting::new(&["one"], Script::rules([Rule::new(Turn::text(text.clone()))])).start().await;
    let response = turn(&proxy, "", &user("x")).await;
    assert!(response.said() == text);
    assert!(response.body == finished(&mock).await.answer.unwrap().body);
}

#[tokio::test]
async fn an_old_upstream_is_answered_for_with_the_version_of_this_hop() {
    let response = answered("HTTP/1.0 200 Fine\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(response.head, "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(response.text(), "ok");
}

#[tokio::test]
async fn informational_responses_are_not_the_response() {
    let response = answered(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    assert_eq!(response.head, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
}

#[tokio::test]
async fn what_is_no_response_never_reaches_the_client() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let (upstream, proxy) = by_hand().await;
        let asking = request(&proxy, "POST", "/v1/responses", "", b"{}");
        let answering = async {
            loop {
                upstream.answer(bytes).await;
            }
        };
        let response = tokio::select! {
            response = asking => response,
            () = answering => unreachable!("it never ends"),
        };
        assert_eq!(response.status(), 503, "{bytes}: {}", response.head);
        assert!(response.text().contains(upstream.url()), "{}", response.text());
        assert!(response.field("retry-after").is_some());
    }
}

#[tokio::test]
async fn bytes_behind_a_response_answer_nothing() {
    let (upstream, proxy) = by_hand().await;
    let mut client = proxy.connect().await;
    let ask = head(&proxy, "POST", "/v1/responses", "", 2) + "{}";
    client.send(&ask).await;
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let first = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (first, _kept) = tokio::join!(client.response(), upstream.answer(first.to_owned() + smuggled));
    assert_eq!(first.text(), "ok");
    client.send(&ask).await;
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
    let (second, _kept) = tokio::join!(client.response(), upstream.answer(second));
    assert_eq!(second.text(), "good");
}

#[tokio::test]
async fn an_answer_before_the_request_is_read_arrives() {
    let (upstream, proxy) = by_hand().await;
    let body = vec![b'x'; 16 << 20];
    let asking = request(&proxy, "POST", "/v1/responses", "", &body);
    let refusing = async {
        let mut connection = upstream.connection().await;
        connection.read_through("\r\n\r\n").await;
        connection.send("HTTP/1.1 413 Too Much\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig").await;
        connection
    };
    // Also when the upstream neither reads on nor closes.
    let (response, _open) = tokio::join!(asking, refusing);
    assert_eq!((response.status(), response.text().as_str()), (413, "big"));
}

#[tokio::test]
async fn a_head_request_gets_the_head_alone() {
    let (upstream, proxy) = by_hand().await;
    let mut client = proxy.connect().await;
    for answer in ["Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n", ""] {
        client.send(head(&proxy, "HEAD", "/v1/models", "", 0)).await;
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}\r\n");
        let (response, (_open, request)) = tokio::join!(client.bare_response(), upstream.answer(&answer));
        assert!(request.head.starts_with("HEAD /v1/models HTTP/1.1\r\n"));
        assert_eq!(response.head, answer);
    }
}

#[tokio::test]
async fn a_refused_head_request_gets_no_body() {
    let upstream = Upstream::start().await;
    let proxy = Setting::new(&[], Script::default()).key("key", "sk-x").start_at(upstream.url()).await;
    // Replies of the proxy's own have no body either.
    for path in ["/v1/nothing", "/backend-api/wham/accounts/check"] {
        let mut client = proxy.connect().await;
        let fields = "chatgpt-account-id: a\r\nconnection: close\r\n";
        client.send(head(&proxy, "HEAD", path, fields, 0)).await;
        client.bare_response().await;
        assert_eq!(client.read_to_end().await, (Vec::new(), None), "{path}");
    }
}

#[tokio::test]
async fn protocols_are_switched_for_nobody_who_did_not_ask() {
    let upstream = Upstream::start().await;
    let proxy = Setting::new(&[], Script::default()).key("key", "sk-x").start_at(upstream.url()).await;
    let mut client = proxy.connect().await;
    client.send(head(&proxy, "POST", "/v1/responses", "", 2) + "{}").await;
    let answering = async {
        loop {
            upstream
                .answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
                .await;
        }
    };
    let response = tokio::select! {
        response = client.response() => response,
        () = answering => unreachable!("it never ends"),
    };
    assert_eq!(response.status(), 503);
}
