//! Connections on both legs: kept, shared, bounded, and used in order.

use std::time::Duration;

use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Rule, Script, Turn};
use mock_upstream::{Exchange, Mock};
use serde_json::json;

use crate::connection::{CODEX, TURN, begin_turn, head, request, turn, user};
use crate::http2::Http2;
use crate::rig::{LIMIT, Proxy, Setting};

fn ask(proxy: &Proxy, text: &str) -> String {
    let body = user(text);
    head(proxy, "POST", TURN, CODEX, body.len()) + &body
}

fn upstream_connections(mock: &Mock) -> Vec<u64> {
    mock.journal().responses().iter().map(|exchange| exchange.connection).collect()
}

#[tokio::test]
async fn requests_of_one_client_connection_share_one_upstream_connection() {
    let (mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let mut client = proxy.connect().await;
    for _ in 0..5 {
        client.send(ask(&proxy, "hi")).await;
        assert_eq!(client.response().await.said(), "Hello from the mock.");
    }
    let connections = upstream_connections(&mock);
    assert_eq!(connections, [connections[0]; 5]);
}

#[tokio::test]
async fn clients_of_one_thread_share_upstream_connections() {
    let (mock, proxy) = Setting::new(&["one"], Script::default()).set("PRODEX_WORKERS", "1").start().await;
    for _ in 0..3 {
        assert_eq!(turn(&proxy, "", &user("hi")).await.status(), 200);
    }
    let connections = upstream_connections(&mock);
    assert_eq!(connections, [connections[0]; 3]);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let rules = [
        Rule::new(Turn::text("one")).user_text("1").pacing(Pacing::gap(Duration::from_millis(20))),
        Rule::new(Turn::text("two")).user_text("2"),
        Rule::new(Turn::text("three")).user_text("3"),
    ];
    let (mock, proxy) = Setting::new(&["one"], Script::rules(rules)).start().await;
    let mut client = proxy.connect().await;
    client.send(["1", "2", "3"].map(|text| ask(&proxy, text)).concat()).await;
    let mut said = Vec::new();
    for _ in 0..3 {
        said.push(client.response().await.said());
    }
    assert_eq!(said, ["one", "two", "three"]);
    assert_eq!(mock.journal().responses().len(), 3);
}

#[tokio::test]
async fn a_client_that_wants_to_close_is_told_that_it_is_so() {
    let (_mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let mut client = begin_turn(&proxy, "Connection: x, Close\r\n", &user("hi")).await;
    let response = client.response().await;
    assert_eq!(
        (response.said().as_str(), response.field("connection")),
        ("Hello from the mock.", Some("close"))
    );
    assert_eq!(client.read_to_end().await, (Vec::new(), None));
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let (_mock, proxy) =
        Setting::new(&["one"], Script::default()).set("PRODEX_KEEP_ALIVE", "100ms").start().await;
    let mut unused = proxy.connect().await;
    let mut used = begin_turn(&proxy, "", &user("hi")).await;
    assert_eq!(used.response().await.status(), 200);
    assert_eq!(used.read_to_end().await, (Vec::new(), None));
    assert_eq!(unused.read_to_end().await, (Vec::new(), None));
}

#[tokio::test]
async fn a_request_that_does_not_come_to_its_end_is_given_up() {
    let setting = Setting::new(&["one"], Script::default()).set("PRODEX_REQUEST_TIMEOUT", "100ms");
    let (mock, proxy) = setting.start().await;
    let whole = ask(&proxy, "hi");
    let in_body = whole.len() - 10;
    for part in [&whole[..1], &whole[..60], &whole[..in_body]] {
        let mut client = proxy.connect().await;
        client.send(part).await;
        assert_eq!(client.response().await.status(), 408, "{part}");
    }
    assert!(mock.journal().exchanges().is_empty());
    let log = proxy.stop().await;
    let told = log.events("request_refused").map(|line| (&line.fields["status"], &line.fields["reason"]));
    let of = |what| (json!(408), json!(format!("the request's {what} did not arrive in time")));
    let told: Vec<_> = told.map(|(status, reason)| (status.clone(), reason.clone())).collect();
    assert_eq!(told, [of("head"), of("head"), of("body")], "the log says which leg was silent");
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let setting = Setting::new(&["one"], Script::default()).set("PRODEX_MAX_REQUEST_BODY", "1KiB");
    let (mock, proxy) = setting.start().await;
    assert_eq!(request(&proxy, "POST", TURN, "", &[b' '; 1024]).await.status(), 200);
    assert_eq!(request(&proxy, "POST", TURN, "", &[b' '; 1025]).await.status(), 413);
    let mut client = proxy.connect().await;
    let head = head(&proxy, "POST", TURN, "transfer-encoding: chunked\r\n", 0);
    client.send(head.replace("content-length: 0\r\n", "")).await;
    client.send(format!("401\r\n{}\r\n0\r\n\r\n", "x".repeat(1025))).await;
    assert_eq!(client.response().await.status(), 413);
    assert_eq!(mock.journal().responses().len(), 1);
    let log = proxy.stop().await;
    let told: Vec<_> = log.events("request_refused").map(|line| line.fields["status"].clone()).collect();
    assert_eq!(told, [413, 413]);
}

#[tokio::test]
async fn a_body_on_its_way_counts_as_in_flight() {
    let setting = Setting::new(&["one"], Script::default())
        .set("PRODEX_MAX_ACTIVE", "2")
        .set("PRODEX_ADMISSION_WAIT", "0s");
    let (mock, proxy) = setting.start().await;
    let mut first = proxy.connect().await;
    let body = user("hi");
    let fields = format!("{CODEX}expect: 100-continue\r\n");
    first.send(head(&proxy, "POST", TURN, &fields, body.len())).await;
    first.read_through("\r\n\r\n").await;
    assert_eq!(turn(&proxy, "", &body).await.status(), 503, "memory is set aside for one body");
    first.send(&body).await;
    assert_eq!(first.response().await.status(), 200);
    drop(first);
    assert_eq!(mock.journal().responses().len(), 1);
}

#[tokio::test]
async fn one_request_too_many_is_refused_over_http2_as_well() {
    let rule = Rule::new(Turn::text("a b")).pacing(Pacing::gap(Duration::from_secs(3600)));
    let setting = Setting::new(&["one"], Script::rules([rule]))
        .set("PRODEX_MAX_ACTIVE", "2")
        .set("PRODEX_ADMISSION_WAIT", "0s");
    let (mock, proxy) = setting.argument("--tls").start().await;
    let target = format!("{}{TURN}", proxy.prefix());
    let (mut one, mut two) = (Http2::open(&proxy).await, Http2::open(&proxy).await);
    let asked = |all: &[Exchange]| all.iter().any(|exchange| exchange.target == TURN);
    let fields = [("user-agent", "codex_exec/0.169.0")];
    let mut first = Box::pin(one.send("POST", &target, &fields, user("hi")));
    tokio::select! {
        _ = &mut first => panic!("the first turn does not end"),
        all = mock.journal().wait_for("the first turn", LIMIT, asked) => drop(all.unwrap()),
    }
    let refused = two.send("POST", &target, &fields, user("hi")).await.unwrap();
    assert_eq!(refused.status().as_u16(), 503);
    drop(first);
    drop((one, two));
    let log = proxy.stop().await;
    assert_eq!(log.events("runtime_proxy_active_limit_reached").count(), 1);
}

#[tokio::test]
async fn one_request_too_many_is_refused_with_a_time_to_come_back() {
    let rule = Rule::new(Turn::text("a b")).pacing(Pacing::gap(Duration::from_secs(3600)));
    let setting = Setting::new(&["one"], Script::rules([rule]))
        .set("PRODEX_MAX_ACTIVE", "2")
        .set("PRODEX_ADMISSION_WAIT", "0s");
    let (mock, proxy) = setting.start().await;
    let first = begin_turn(&proxy, "", &user("hi")).await;
    let asked = |all: &[Exchange]| all.iter().any(|exchange| exchange.target == TURN);
    mock.journal().wait_for("the first turn", LIMIT, asked).await.unwrap();
    let refused = turn(&proxy, "", &user("hi")).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.json()["error"]["type"], "service_unavailable");
    assert!(refused.field("retry-after").is_some() && refused.text().contains("max_active"));
    drop(first);
    let gone = |all: &[Exchange]| all.iter().any(Exchange::client_gone);
    mock.journal().wait_for("the first to be gone", LIMIT, gone).await.unwrap();
    mock.set_rules(Vec::new()).unwrap();
    assert_eq!(turn(&proxy, "", &user("hi")).await.status(), 200);
}
