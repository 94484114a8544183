//! What a client sends arrives at the upstream byte for byte, but for the account and the connection.

use mock_upstream::script::{CallName, Rule, Script, Turn};
use mock_upstream::{Exchange, Mock};

use crate::connection::{TURN, head, request, turn, user};
use crate::rig::{Proxy, Setting};
use crate::upstream::Upstream;

async fn start() -> (Mock, Proxy) {
    Setting::new(&["one"], Script::rules([Rule::new(Turn::text("hi"))])).start().await
}

fn only(mock: &Mock) -> Exchange {
    let [only] = mock.journal().responses().try_into().unwrap();
    only
}

fn head_of(exchange: &Exchange) -> String {
    exchange.head.iter().copied().map(char::from).collect()
}

#[tokio::test]
async fn a_head_arrives_as_it_was_sent_but_for_the_account() {
    let (mock, proxy) = start().await;
    let fields = "Version: 0.169.0\r\nX-Dup: a\r\nx-dup:  b  \r\nAuthorization: Bearer own\r\nX-Empty:\r\n\
        ChatGPT-Account-Id: acct-own\r\nOrigin: http://localhost\r\nCookie: c=d\r\nSession-Id: s1\r\n\
        X-Latin: caf\u{e9}\r\nAccept:text/event-stream\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
        TE: trailers\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: Basic eDp5\r\n\
        Proxy-Connection: keep-alive\r\nX-API-Key: client\r\nOpenAI-Organization: org-client\r\n\
        x-openai-account-routing-override: us\r\nX-DUP: c\r\n";
    let body = "{\"model\" : \"m\",\n \"input\":[], \"n\":1.50}";
    let sent = head(&proxy, "POST", &format!("{TURN}?q=%41&r=/../x"), fields, body.len());
    // Fields are Latin-1, as HTTP has it.
    let mut sent: Vec<u8> = sent.chars().map(|c| u8::try_from(c).unwrap()).collect();
    sent.extend_from_slice(body.as_bytes());
    let mut client = proxy.connect().await;
    client.send(sent).await;
    assert_eq!(client.response().await.status(), 200);
    let auth = proxy.auth("one");
    let token = auth["tokens"]["access_token"].as_str().unwrap();
    let host = mock.base_url().trim_start_matches("http://");
    let expected = format!(
        "POST {TURN}?q=%41&r=/../x HTTP/1.1\r\nVersion: 0.169.0\r\nX-Dup: a\r\nx-dup:  b  \r\n\
         Authorization: Bearer {token}\r\nX-Empty:\r\nChatGPT-Account-Id: one\r\nSession-Id: s1\r\n\
         X-Latin: caf\u{e9}\r\nAccept:text/event-stream\r\nX-DUP: c\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let exchange = only(&mock);
    assert_eq!(head_of(&exchange), expected);
    assert_eq!(exchange.body, body);
    proxy.stop().await;
}

#[tokio::test]
async fn what_an_account_needs_is_added_when_the_client_has_none_of_its_own() {
    let (mock, proxy) = start().await;
    turn(&proxy, "", "{}").await;
    let exchange = only(&mock);
    let auth = proxy.auth("one");
    let token = format!("Bearer {}", auth["tokens"]["access_token"].as_str().unwrap());
    assert_eq!(exchange.header("authorization"), Some(token));
    assert_eq!(exchange.header("chatgpt-account-id").as_deref(), Some("one"));
}

#[tokio::test]
async fn an_api_key_takes_the_place_of_the_clients() {
    let key = format!("sk-{}", "k".repeat(40));
    let account = mock_upstream::Account::new("one").api_key(&key);
    let script = Script::rules([Rule::new(Turn::text("hi"))]).account(account);
    let (mock, proxy) = Setting::new(&["one"], script).key("key", &key).start().await;
    let fields = "Authorization: Bearer sk-client\r\nOpenAI-Project: proj\r\nchatgpt-account-id: x\r\n";
    let response = request(&proxy, "POST", "/v1/responses", fields, b"{}").await;
    assert_eq!(response.status(), 200);
    let exchange = only(&mock);
    assert_eq!(exchange.header("authorization"), Some(format!("Bearer {key}")));
    assert_eq!((exchange.header("openai-project"), exchange.header("chatgpt-account-id")), (None, None));
    assert!(mock.journal().of(CallName::AccountsCheck).is_empty(), "a key has no workspace");
}

#[tokio::test]
async fn every_form_of_body_arrives_as_it_was_sent() {
    let big: Vec<u8> = (0..4_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let zstd = zstd::encode_all(user("compressed").as_bytes(), 3).unwrap();
    let odd = "{\"a\":\"\u{1F600}\\u00e9\" ,\r\n\t\"b\" : [1 , 2.0e1]}\n ";
    for (what, fields, body) in [
        ("odd spacing", "content-type: application/json\r\n", odd.as_bytes()),
        ("zstd", "content-encoding: zstd\r\n", &zstd),
        ("no zstd", "content-encoding: zstd\r\n", b"this is no zstd"),
        ("an unknown coding", "content-encoding: br\r\n", b"\x00\x01\xff"),
        ("empty", "", b""),
        ("4 MiB", "", &big),
    ] {
        let (mock, proxy) = start().await;
        request(&proxy, "POST", TURN, fields, body).await;
        assert!(only(&mock).body == body, "{what}");
    }
}

#[tokio::test]
async fn a_chunked_body_arrives_with_its_payload_and_a_length() {
    let (mock, proxy) = start().await;
    let mut client = proxy.connect().await;
    let body = user("in chunks");
    let (one, two) = body.split_at(50);
    let head = head(&proxy, "POST", TURN, "Transfer-Encoding: chunked\r\n", 0);
    client.send(head.replace("content-length: 0\r\n", "")).await;
    for byte in format!("32;ext=\"1\"\r\n{one}\r\n{:X}\r\n", two.len()).bytes() {
        client.send([byte]).await;
    }
    client.send(format!("{two}\r\n0\r\nX-Trailer: 1\r\n\r\n")).await;
    assert_eq!(client.response().await.said(), "hi");
    let exchange = only(&mock);
    assert_eq!(exchange.body, body.as_bytes());
    assert_eq!(exchange.header("content-length"), Some(body.len().to_string()));
    assert_eq!(exchange.header("transfer-encoding"), None);
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let (mock, proxy) = start().await;
    let mut client = proxy.connect().await;
    let body = user("asked first");
    client.send(head(&proxy, "POST", TURN, "Expect: 100-continue\r\n", body.len())).await;
    assert_eq!(client.read_through("\r\n\r\n").await, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(mock.journal().responses().is_empty());
    client.send(&body).await;
    assert_eq!(client.response().await.said(), "hi");
    let exchange = only(&mock);
    assert_eq!((exchange.body.as_ref(), exchange.header("expect")), (body.as_bytes(), None));
}

#[tokio::test]
async fn a_dribbling_client_is_read_to_the_end() {
    let (mock, proxy) = start().await;
    let mut client = proxy.connect().await;
    let body = user("byte by byte");
    for byte in (head(&proxy, "POST", TURN, "", body.len()) + &body).bytes() {
        client.send([byte]).await;
    }
    assert_eq!(client.response().await.said(), "hi");
    assert_eq!(only(&mock).body, body.as_bytes());
}

#[tokio::test]
async fn side_calls_are_relayed_with_the_account() {
    let (mock, proxy) = start().await;
    let own = "authorization: Bearer own\r\nchatgpt-account-id: own\r\n";
    for (method, path, call) in [
        ("GET", "/backend-api/codex/models?client_version=0.169.0", CallName::Models),
        ("GET", "/backend-api/wham/usage", CallName::Usage),
        ("GET", "/backend-api/wham/settings/user", CallName::Settings),
        ("GET", "/backend-api/ps/plugins/installed?limit=200", CallName::Plugins),
        ("POST", "/backend-api/codex/analytics-events/events", CallName::Analytics),
    ] {
        let response = request(&proxy, method, path, own, b"").await;
        assert_eq!(response.status(), 200, "{path}");
        let [exchange] = mock.journal().of(call).try_into().unwrap();
        assert_eq!(exchange.header("chatgpt-account-id").as_deref(), Some("one"), "{path}");
        assert!(exchange.target.ends_with(path.rsplit('/').next().unwrap()), "{path}");
    }
    // The hosted MCP server is asked without a login, and gets none.
    let initialize = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let response = request(&proxy, "POST", "/backend-api/ps/mcp", "", initialize).await;
    assert_eq!(response.field("mcp-session-id"), Some("mock-session"));
    let [exchange] = mock.journal().of(CallName::Mcp).try_into().unwrap();
    assert_eq!((exchange.header("authorization"), exchange.body.as_ref()), (None, &initialize[..]));
}

#[tokio::test]
async fn a_long_upload_goes_on_behind_what_is_no_answer_and_ends_at_one() {
    let upstream = Upstream::start().await;
    let proxy = Setting::new(&[], Script::default()).key("key", "sk-x").start_at(upstream.url()).await;
    let body = vec![b' '; 20 << 20];
    let ask = || request(&proxy, "POST", "/v1/responses", "", &body);
    let read = async {
        let mut connection = upstream.connection().await;
        // Nothing of the body is read before, so it does not fit into the socket.
        connection.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n").await;
        assert_eq!(connection.request().await.body.len(), body.len());
        connection.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
        connection
    };
    let (response, _connection) = tokio::join!(ask(), read);
    assert_eq!((response.status(), response.text().as_str()), (200, "hi"));
    drop(_connection);
    let refuse = async {
        let mut connection = upstream.connection().await;
        connection
            .send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Too Much\r\ncontent-length: 2\r\n\r\nno")
            .await;
        connection
    };
    let (response, _connection) = tokio::join!(ask(), refuse);
    assert_eq!((response.status(), response.text().as_str()), (413, "no"), "though half of it was sent");
}
