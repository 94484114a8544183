//! Spans at a collector: what a request was, who was tried, and nothing that is nobody's business.
//!
//! Only with the feature: `cargo nextest run -p prodex --features otlp traces`.

use mock_upstream::Account;
use mock_upstream::script::{Http, Rule, Script};
use serde_json::{Value, json};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::connection::{turn, user};
use crate::rig::{Setting, finished, until};
use crate::socket::{Socket, create};

/// A collector that answers so.
async fn collector(status: u16) -> MockServer {
    let server = MockServer::start().await;
    let mock =
        Mock::given(method("POST")).and(path("/v1/traces")).and(header("content-type", "application/json"));
    mock.respond_with(ResponseTemplate::new(status).set_body_json(json!({}))).mount(&server).await;
    server
}

/// The spans that a collector has got.
async fn spans(collector: &MockServer) -> Vec<Value> {
    let requests = collector.received_requests().await.unwrap();
    let bodies = requests.iter().map(|request| serde_json::from_slice::<Value>(&request.body).unwrap());
    bodies
        .flat_map(|body| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone())
        .collect()
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let all = span["attributes"].as_array().unwrap();
    let found = all.iter().find(|attribute| attribute["key"] == key);
    found.and_then(|attribute| attribute["value"].as_object()?.values().next()).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn a_request_has_a_span_with_one_for_each_attempt() {
    let collector = collector(200).await;
    let used_up = Http::json(429, json!({ "error": { "type": "usage_limit_reached" } }));
    let script = Script::rules([Rule::new(used_up).account("a")]);
    let setting = Setting::new(&["a", "b"], script).set("PRODEX_OTLP_ENDPOINT", &collector.uri());
    let (mock, proxy) = setting.start().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let fields = format!("session-id: private-session\r\nTraceparent: {parent}\r\n");
    assert_eq!(turn(&proxy, &fields, &user("a secret of mine")).await.status(), 200);
    assert_eq!(finished(&mock).await.header("traceparent").as_deref(), Some(parent), "it passes as it came");
    let mut socket = Socket::open(&proxy, &[("session-id", "private-session")]).await.unwrap();
    socket.turn(&create("x")).await;
    drop(socket);
    let capability = proxy.prefix();
    proxy.stop().await;
    let spans = spans(&collector).await;
    let text = serde_json::to_string(&spans).unwrap();
    let token = Account::new("a").access_token();
    for secret in ["private-session", "a secret of mine", &token, &capability, "resp_", "0af7651916cd43dd"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let request = spans.iter().find(|span| span["name"] == "POST responses").unwrap();
    assert_eq!((&request["kind"], &request["status"]["code"]), (&json!(2), &json!(0)));
    let expected = [
        ("http.request.method", json!("POST")),
        ("http.response.status_code", json!("200")),
        ("prodex.attempts", json!("2")),
        ("prodex.profile", json!("b")),
        ("prodex.outcome", json!("complete")),
        ("gen_ai.usage.output_tokens", json!("2")),
    ];
    for (key, value) in expected {
        assert_eq!(attribute(request, key), &value, "{key}: {request}");
    }
    let mut attempts: Vec<&Value> =
        spans.iter().filter(|span| span["parentSpanId"] == request["spanId"]).collect();
    attempts.sort_by_key(|span| span["startTimeUnixNano"].to_string());
    let [refused, served] = attempts[..] else { panic!("{attempts:#?}") };
    assert_eq!((&refused["traceId"], &served["traceId"]), (&request["traceId"], &request["traceId"]));
    assert_eq!(
        (attribute(refused, "prodex.profile"), attribute(refused, "error.type")),
        (&json!("a"), &json!("quota"))
    );
    assert_eq!(
        (attribute(served, "prodex.profile"), attribute(served, "prodex.outcome")),
        (&json!("b"), &json!("served"))
    );
    assert!(attribute(served, "prodex.ttfb_ms").as_f64().is_some_and(|ttfb| ttfb > 0.0), "{served}");
    let turns = spans.iter().filter(|span| attribute(span, "network.protocol.name") == "websocket");
    let outcomes: Vec<&Value> = turns.map(|span| attribute(span, "prodex.outcome")).collect();
    assert_eq!(outcomes, ["complete"]);
    for span in &spans {
        let nanoseconds = |key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
        assert!(nanoseconds("startTimeUnixNano") <= nanoseconds("endTimeUnixNano"));
        assert_eq!(
            (span["traceId"].as_str().unwrap().len(), span["spanId"].as_str().unwrap().len()),
            (32, 16)
        );
    }
}

#[tokio::test]
async fn a_collector_that_does_not_take_spans_costs_no_request_and_is_told() {
    let collector = collector(503).await;
    for endpoint in [collector.uri(), "http://127.0.0.1:9".to_owned()] {
        let setting = Setting::new(&["a"], Script::default()).set("PRODEX_OTLP_ENDPOINT", &endpoint);
        let (_mock, proxy) = setting.start().await;
        for _ in 0..20 {
            assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
        }
        until("it is told", || proxy.log().events("spans_dropped").count() > 0).await;
        let log = proxy.stop().await;
        let lost: u64 = log.events("spans_dropped").map(|line| line.fields["spans"].as_u64().unwrap()).sum();
        assert!(lost >= 40, "{lost}: a span for each request and its attempt");
    }
}
