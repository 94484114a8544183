//! The faults that clients were measured with, as scenarios of one turn each. Data only.
//!
//! Statuses, broken streams, odd framing, refused upgrades, closed sockets.
//!
//! They are played to a real client so that what it sends and gets can be recorded; how a client takes each
//! of them was measured with Codex 0.140 to 0.169 (November 2026). Retries are switched off, because one
//! request per fault is what a fixture needs.

use mock_upstream::fault::{End, Fault};
use mock_upstream::pacing::{Pacing, WriteSize};
use mock_upstream::script::{Frame, Framing, Http, Reply, Rule, Stream, Transport, When, Write};
use serde_json::{Value, json};

use super::scenario::{Expect, Scenario, Step};
use crate::clients::codex::Mode;

/// A fault and the launch mode that it is played in.
#[derive(Debug, Clone)]
pub struct FaultCase {
    /// What is played.
    pub scenario: Scenario,
    /// How the client is launched.
    pub mode: Mode,
}

/// All faults, those over HTTP first.
#[must_use]
pub fn faults() -> Vec<FaultCase> {
    let http = statuses().into_iter().chain(streams()).chain(framings()).chain(codings());
    let http = http.map(|(name, rule)| case(name, rule, Mode::Custom));
    let websocket = upgrades().into_iter().chain(turns()).chain(warm_ups());
    http.chain(websocket.map(|(name, rule)| case(name, rule, Mode::ProviderLogin))).collect()
}

type Named = (&'static str, Rule);

fn case(name: &'static str, rule: Rule, mode: Mode) -> FaultCase {
    let settings = vec![
        "model_providers.lab.request_max_retries=0",
        "model_providers.lab.stream_max_retries=0",
        "model_providers.lab.stream_idle_timeout_ms=1500",
    ];
    let step = Step { prompt: "a question", text: "", commands: Vec::new() };
    let scenario = Scenario {
        name,
        rules: vec![rule.named(name)],
        settings,
        model: None,
        steps: vec![step],
        expect: Expect::default(),
    };
    FaultCase { scenario, mode }
}

fn error(status: u16, error: &Value) -> Http {
    Http::json(status, json!({ "error": error }))
}

fn refusal(kind: &str, message: &str) -> Value {
    json!({ "type": kind, "code": kind, "message": message })
}

/// What the backend says when an account is used up (`wire-facts` 1.6).
fn usage_limit(more: &Value) -> Value {
    let mut error = json!({ "type": "usage_limit_reached", "message": "The usage limit has been reached",
        "plan_type": "plus" });
    if let (Value::Object(error), Value::Object(more)) = (&mut error, more) {
        error.extend(more.clone());
    }
    error
}

fn statuses() -> Vec<Named> {
    let detail = |status, detail: &str| Http::json(status, json!({ "detail": detail }));
    let quota = |http: Http| {
        http.header("x-codex-plan-type", "plus")
            .header("x-codex-primary-used-percent", "100")
            .header("x-codex-primary-window-minutes", "300")
            .header("x-codex-primary-reset-after-seconds", "3600")
            .header("x-codex-secondary-used-percent", "40")
            .header("x-codex-secondary-window-minutes", "10080")
    };
    let generic = json!({ "type": "rate_limit_exceeded", "code": "rate_limit_exceeded",
        "message": "Rate limit reached. Please try again in 1.5s." });
    let overloaded = refusal("server_is_overloaded", "Our servers are currently overloaded.");
    let list: Vec<(&'static str, Http)> = vec![
        ("status-400-invalid", error(400, &refusal("invalid_request_error", "Invalid input."))),
        ("status-400-context", error(400, &refusal("context_length_exceeded", "Too long."))),
        ("status-400-model", error(400, &refusal("model_not_found", "The model does not exist."))),
        (
            "status-400-previous-response",
            error(400, &refusal("previous_response_not_found", "Previous response not found.")),
        ),
        ("status-401", detail(401, "Unauthorized")),
        ("status-402", detail(402, "payment required")),
        ("status-403-json", detail(403, "Forbidden")),
        (
            "status-403-html",
            Http::text(403, "<html><body><h1>Blocked</h1></body></html>").header("content-type", "text/html"),
        ),
        ("status-404", detail(404, "Not Found")),
        ("status-408", detail(408, "Request Timeout")),
        ("status-409", detail(409, "Conflict")),
        ("status-413", detail(413, "Payload Too Large")),
        ("status-425", detail(425, "Too Early")),
        ("status-429-usage-resets-at", error(429, &usage_limit(&json!({ "resets_at": 1_795_176_000 })))),
        ("status-429-usage-seconds", error(429, &usage_limit(&json!({ "resets_in_seconds": 3600 })))),
        ("status-429-usage-retry-after", error(429, &usage_limit(&json!({}))).header("retry-after", "3600")),
        ("status-429-usage-headers", quota(error(429, &usage_limit(&json!({}))))),
        (
            "status-429-usage-not-included",
            error(429, &refusal("usage_not_included", "Codex is not included in your plan.")),
        ),
        ("status-429-generic", error(429, &generic)),
        ("status-429-generic-retry-after", error(429, &generic).header("retry-after", "1")),
        (
            "status-429-insufficient-quota",
            error(429, &refusal("insufficient_quota", "You exceeded your current quota.")),
        ),
        ("status-500", detail(500, "Internal Server Error")),
        ("status-502", Http::text(502, "bad gateway").header("content-type", "text/plain")),
        ("status-503", detail(503, "Service Unavailable")),
        ("status-503-overloaded", error(503, &overloaded)),
        ("status-503-slow-down", error(503, &refusal("slow_down", "Slow down."))),
        ("status-503-retry-after", detail(503, "Service Unavailable").header("retry-after", "1")),
        ("status-529", detail(529, "Overloaded")),
        ("status-307", Http::status(307).header("location", "/v1/responses?again")),
    ];
    list.into_iter().map(|(name, http)| (name, Rule::new(http))).collect()
}

/// An event as it goes over SSE.
fn event(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}

const RESPONSE: &str = "resp_fault_1";

fn created() -> Value {
    json!({ "type": "response.created", "response": { "id": RESPONSE, "status": "in_progress" } })
}

fn message(text: &str) -> Value {
    json!({ "type": "message", "id": "msg_fault_1", "role": "assistant",
        "content": [{ "type": "output_text", "text": text }] })
}

fn added() -> Value {
    json!({ "type": "response.output_item.added", "output_index": 0, "item": message("") })
}

fn delta(text: &str) -> Value {
    json!({ "type": "response.output_text.delta", "item_id": "msg_fault_1", "output_index": 0,
        "content_index": 0, "delta": text })
}

fn done() -> Value {
    json!({ "type": "response.output_item.done", "output_index": 0, "item": message("An answer.") })
}

fn completed() -> Value {
    json!({ "type": "response.completed", "response": { "id": RESPONSE, "status": "completed",
        "usage": { "input_tokens": 10, "input_tokens_details": null, "output_tokens": 2,
            "output_tokens_details": null, "total_tokens": 12 } } })
}

fn failed(error: &Value) -> Value {
    json!({ "type": "response.failed", "response": { "id": RESPONSE, "status": "failed", "error": error } })
}

fn incomplete(reason: &str) -> Value {
    json!({ "type": "response.incomplete", "response": { "id": RESPONSE, "status": "incomplete",
        "incomplete_details": { "reason": reason } } })
}

/// A whole and good turn.
fn whole() -> [Value; 5] {
    [created(), added(), delta("An answer."), done(), completed()]
}

fn sse(events: &[Value]) -> Stream {
    Stream::texts(events.iter().map(event))
}

fn failures() -> Vec<(&'static str, Value)> {
    let code = |code: &str, message: &str| json!({ "code": code, "message": message });
    vec![
        ("failed-quota", code("insufficient_quota", "You exceeded your current quota.")),
        ("failed-context", code("context_length_exceeded", "Your input exceeds the context window.")),
        ("failed-overloaded", code("server_is_overloaded", "Our servers are currently overloaded.")),
        ("failed-rate-limit", code("rate_limit_exceeded", "Rate limit reached. Please try again in 1.5s.")),
        ("failed-slow-down", code("slow_down", "Slow down.")),
        ("failed-usage-not-included", code("usage_not_included", "Codex is not included in your plan.")),
        ("failed-cyber-policy", code("cyber_policy", "This request was flagged.")),
        ("failed-bio-policy", code("bio_policy", "This request was flagged.")),
        ("failed-server-error", code("server_error", "The server had an error.")),
        ("failed-usage-limit", code("usage_limit_reached", "The usage limit has been reached")),
        ("failed-invalid-prompt", code("invalid_prompt", "Invalid prompt.")),
        ("failed-flex", code("flex_tier_unavailable", "Flex is not available.")),
        ("failed-credit", code("credit_limit_reached", "No credits are left.")),
        ("failed-without-error", Value::Null),
    ]
}

fn streams() -> Vec<Named> {
    let cut =
        |events: &[Value], end: End| Rule::new(sse(events)).fault(Fault::after_events(events.len(), end));
    let error_event = |error: Value| json!({ "type": "error", "error": error });
    let mut list: Vec<Named> = failures()
        .into_iter()
        .map(|(name, error)| (name, Rule::new(sse(&[created(), failed(&error)]))))
        .collect();
    let server_error = json!({ "code": "server_error", "message": "The server had an error." });
    let typed = |content_type: Option<&str>| {
        let headers = content_type.map(|value| ("content-type".to_owned(), value.to_owned()));
        // A field of no meaning, so that the usual ones are not put in.
        let headers = headers.into_iter().chain([("x-lab".to_owned(), "1".to_owned())]).collect();
        Rule::new(Stream { headers, ..sse(&whole()) })
    };
    let mut bare = completed();
    bare["response"]["usage"].take();
    list.extend([
        ("slow-head", Rule::new(sse(&whole())).pacing(Pacing { head_ms: 2000, ..Pacing::default() })),
        ("content-type-json", typed(Some("application/json"))),
        ("content-type-none", typed(None)),
        ("completed-without-usage", Rule::new(sse(&[created(), added(), done(), bare]))),
        ("deltas-without-done", Rule::new(sse(&[created(), added(), delta("An answer."), completed()]))),
        ("completed-without-eof", cut(&whole(), End::Hang)),
        ("reset-before-head", Rule::new(sse(&whole())).fault(Fault::before_head(End::Reset))),
        ("fin-before-head", Rule::new(sse(&whole())).fault(Fault::before_head(End::Fin))),
        ("reset-after-head", Rule::new(sse(&whole())).fault(Fault::after_bytes(0, End::Reset))),
        ("eof-empty", Rule::new(sse(&[]))),
        ("json-instead-of-stream", Rule::new(Http::json(200, json!({ "id": RESPONSE, "output": [] })))),
        ("reset-after-created", cut(&[created()], End::Reset)),
        ("fin-after-created", cut(&[created()], End::Fin)),
        ("eof-after-created", Rule::new(sse(&[created()]))),
        ("reset-after-delta", cut(&[created(), added(), delta("An")], End::Reset)),
        ("fin-in-an-event", Rule::new(sse(&whole())).fault(Fault::after_bytes(200, End::Fin))),
        ("eof-after-item", Rule::new(sse(&[created(), added(), delta("An answer."), done()]))),
        ("hang-after-delta", cut(&[created(), added(), delta("An")], End::Hang)),
        ("failed-after-delta", Rule::new(sse(&[created(), added(), delta("An"), failed(&server_error)]))),
        ("incomplete-max-tokens", Rule::new(sse(&[created(), incomplete("max_output_tokens")]))),
        ("incomplete-filter", Rule::new(sse(&[created(), incomplete("content_filter")]))),
        ("error-event", Rule::new(sse(&[created(), error_event(server_error.clone())]))),
        ("error-event-first", Rule::new(sse(&[error_event(server_error)]))),
        ("error-event-usage", Rule::new(sse(&[error_event(usage_limit(&json!({})))]))),
        (
            "length-too-long",
            Rule::new(sse(&whole())).fault(Fault { at: mock_upstream::fault::At::End, end: End::Short }),
        ),
    ]);
    list
}

/// Streams that are legal, or nearly so, and look unlike the usual.
fn framings() -> Vec<Named> {
    let text = whole().iter().map(event).collect::<String>();
    let texts = |parts: Vec<String>| Rule::new(Stream::texts(parts));
    let with = |more: &str| {
        let mut parts: Vec<String> = whole().iter().map(event).collect();
        parts.insert(2, more.to_owned());
        parts
    };
    let mut invalid: Vec<Vec<u8>> = whole().iter().map(|one| event(one).into_bytes()).collect();
    invalid.insert(2, b"data: \xFF\xFE\n\n".to_vec());
    let spread = |text: &str| text.replace("data: {", "data: {\ndata: ");
    let split = Stream::texts([
        event(&created()),
        event(&added()),
        event(&delta("Grüße, 世界 🙂")),
        event(&done()),
        event(&completed()),
    ]);
    let pause = |parts: Vec<String>| {
        let mut stream = Stream::texts(parts);
        stream.writes.insert(2, Write::PauseMs(2500));
        Rule::new(stream)
    };
    let events = || whole().iter().map(event).collect::<Vec<String>>();
    let mut comments: Vec<Write> = vec![Write::Text(event(&created()))];
    for _ in 0..5 {
        comments.extend([Write::PauseMs(500), Write::Text(": keepalive\n\n".into())]);
    }
    let keepalive = Stream { writes: comments, ..Stream::texts(Vec::<String>::new()) };
    let length = Stream { framing: Framing::Length, ..sse(&whole()) };
    let close = Stream { framing: Framing::Close, ..sse(&whole()) };
    vec![
        ("lines-crlf", texts(vec![text.replace('\n', "\r\n")])),
        ("lines-cr", texts(vec![text.replace('\n', "\r")])),
        ("byte-order-mark", texts(vec![format!("\u{feff}{text}")])),
        ("no-event-line", texts(whole().iter().map(|one| format!("data: {one}\n\n")).collect())),
        ("no-space", texts(vec![text.replace("data: ", "data:")])),
        ("data-on-several-lines", texts(events().iter().map(|one| spread(one)).collect())),
        ("id-and-retry", texts(events().iter().map(|one| format!("id: 7\nretry: 10\n{one}")).collect())),
        ("comments", texts(with(": a comment\n: another\n\n"))),
        (
            "unknown-events",
            texts(with("event: response.unheard_of\ndata: {\"type\":\"response.unheard_of\"}\n\n")),
        ),
        ("garbage-json", texts(with("data: {not json\n\n"))),
        ("done-marker", texts(events().into_iter().chain(["data: [DONE]\n\n".to_owned()]).collect())),
        ("no-final-blank-line", texts(vec![text.trim_end().to_owned()])),
        ("invalid-utf8", Rule::new(Stream::bytes(invalid))),
        ("byte-by-byte", Rule::new(split).pacing(Pacing { write: WriteSize::Bytes(1), ..Pacing::default() })),
        ("only-completed", Rule::new(sse(&[completed()]))),
        ("no-created", Rule::new(sse(&whole()[1..]))),
        ("two-created", Rule::new(sse(&[created(), created(), added(), done(), completed()]))),
        (
            "old-done-event",
            texts(vec![
                event(&created()),
                event(&done()),
                event(&completed()).replace("response.completed", "response.done"),
            ]),
        ),
        (
            "completed-without-id",
            texts(vec![
                event(&created()),
                "data: {\"type\":\"response.completed\",\"response\":{}}\n\n".to_owned(),
            ]),
        ),
        ("idle-in-the-middle", pause(events())),
        ("keepalive-comments-only", Rule::new(keepalive)),
        ("length-known", Rule::new(length)),
        ("ended-by-close", Rule::new(close)),
        (
            "slow-first-event",
            Rule::new(sse(&whole())).pacing(Pacing { first_event_ms: 2000, ..Pacing::default() }),
        ),
    ]
}

/// A whole turn in three content codings, made with gzip 1.12, zstd 1.5 and node 20's brotli.
fn codings() -> Vec<Named> {
    let coded = |name: &'static str, coding: &str, body: &str| {
        let headers = [("content-type", "text/event-stream"), ("content-encoding", coding)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let writes = vec![Write::Base64(body.to_owned())];
        (name, Rule::new(Stream { headers, writes, ..Stream::texts(Vec::<String>::new()) }))
    };
    vec![
        coded(
            "coding-gzip",
            "gzip",
            "H4sIAAAAAAACA4WOQQrCMBBF9zlFmXUQdDmXKUPnI2KbCc1EkJK7i6hdZFG3730eHw8k52FFyZYKTtMKcWhQceFhI39mEFPvKe6IeKObfjfjZAql1kJAX7Ylzzhs/xZ/6pFqketHpVx9dLsjFeJzJKveETeXeQeX9v72AlEcw2j2AAAA",
        ),
        coded(
            "coding-zstd",
            "zstd",
            "KLUv/ST2ZQMAMkYTEaBvmETN/r5PVwAEjeprX98VAOSci0Mf/2tsQUxT6C3++SrhQrS2cCdfBCDnVq5iOoo1Ni26Tbu83zgY9EgB5Y98puEURkl9BvPQrQcKADQLvWYPPgOE2G3Rwn6x6C5Mf5QrNjX8gagnBhHFVA==",
        ),
        coded(
            "coding-brotli",
            "br",
            "G/UAYAT+becT2j2eFH6TSRIFFe2mc1sn1MYHbLARINhNpqClWKJRPVkxkuyf8QkJiKnn4gjuhk95IcsVQRhEbaFiO8mz7eOi26y1zrAboBxmB0IyhhUjj+HvohGc/0oQzKxmDwc=",
        ),
    ]
}

/// What an upgrade is answered with.
fn upgrades() -> Vec<Named> {
    let refused = |http: Http| Rule::new(http).transport(Transport::Upgrade);
    let detail = |status: u16| refused(Http::json(status, json!({ "detail": "x" })));
    vec![
        ("upgrade-400", detail(400)),
        ("upgrade-401", detail(401)),
        ("upgrade-403", detail(403)),
        ("upgrade-404", detail(404)),
        ("upgrade-426", detail(426)),
        ("upgrade-429-usage", refused(error(429, &usage_limit(&json!({ "resets_in_seconds": 3600 }))))),
        (
            "upgrade-429-retry-after",
            refused(error(429, &refusal("rate_limit_exceeded", "Slow down.")).header("retry-after", "1")),
        ),
        ("upgrade-500", detail(500)),
        ("upgrade-503", detail(503)),
        (
            "upgrade-503-overloaded",
            refused(error(503, &refusal("server_is_overloaded", "Our servers are currently overloaded."))),
        ),
        ("upgrade-reset", refused(Http::status(500)).fault(Fault::before_head(End::Reset))),
        ("upgrade-fin", refused(Http::status(500)).fault(Fault::before_head(End::Fin))),
    ]
}

/// What a turn on a WebSocket is answered with.
fn turns() -> Vec<Named> {
    let on = |rule: Rule| rule.transport(Transport::Websocket);
    let say = |events: &[Value]| -> Vec<Frame> {
        events.iter().map(|event| Frame::Text(event.to_string())).collect()
    };
    let frames = |frames: Vec<Frame>| on(Rule::new(Reply::Frames(frames)));
    let wrapped = |status: u16, error: Value| {
        frames(vec![Frame::Text(json!({ "type": "error", "status": status, "error": error }).to_string())])
    };
    let close = |before: &[Value], code: u16| {
        let mut all = say(before);
        all.push(Frame::Close { code, reason: "bye".into() });
        frames(all)
    };
    let cut = |before: &[Value], end: End| {
        on(Rule::new(Reply::Frames(say(before))).fault(Fault::after_events(before.len(), end)))
    };
    let server_error = json!({ "code": "server_error", "message": "The server had an error." });
    let texts: Vec<String> = whole().iter().map(Value::to_string).collect();
    let thirds = |text: &str| {
        let third = text.len() / 3;
        vec![text[..third].to_owned(), text[third..2 * third].to_owned(), text[2 * third..].to_owned()]
    };
    let mut list: Vec<Named> = failures()
        .into_iter()
        .zip(WEBSOCKET_FAILURES)
        .map(|((_, error), name)| (*name, frames(say(&[created(), failed(&error)]))))
        .collect();
    list.extend([
        ("ws-error-400", wrapped(400, refusal("invalid_request_error", "Invalid input."))),
        (
            "ws-error-400-previous-response",
            wrapped(400, refusal("previous_response_not_found", "Previous response not found.")),
        ),
        ("ws-error-401", wrapped(401, refusal("unauthorized", "Unauthorized."))),
        ("ws-error-403", wrapped(403, refusal("forbidden", "Forbidden."))),
        ("ws-error-429-usage", wrapped(429, usage_limit(&json!({ "resets_in_seconds": 3600 })))),
        ("ws-error-429-generic", wrapped(429, refusal("rate_limit_exceeded", "Slow down."))),
        ("ws-error-500", wrapped(500, server_error.clone())),
        ("ws-error-503-overloaded", wrapped(503, refusal("server_is_overloaded", "Overloaded."))),
        (
            "ws-error-connection-limit",
            wrapped(400, refusal("websocket_connection_limit_reached", "Reconnect.")),
        ),
        (
            "ws-error-without-status",
            frames(say(&[json!({ "type": "error", "error": usage_limit(&json!({})) })])),
        ),
        (
            "ws-error-after-delta",
            frames(say(&[
                created(),
                added(),
                delta("An"),
                json!({ "type": "error", "status": 500, "error": server_error }),
            ])),
        ),
        ("ws-incomplete", frames(say(&[created(), incomplete("max_output_tokens")]))),
        ("ws-close-1000-before", close(&[], 1000)),
        ("ws-close-1001-before", close(&[], 1001)),
        ("ws-close-1008-before", close(&[], 1008)),
        ("ws-close-1011-before", close(&[], 1011)),
        ("ws-close-1012-before", close(&[], 1012)),
        ("ws-close-1013-before", close(&[], 1013)),
        ("ws-close-4001-before", close(&[], 4001)),
        ("ws-close-1011-after-created", close(&[created()], 1011)),
        ("ws-close-1000-after-delta", close(&[created(), added(), delta("An")], 1000)),
        ("ws-reset-before", cut(&[], End::Reset)),
        ("ws-reset-after-delta", cut(&[created(), added(), delta("An")], End::Reset)),
        ("ws-fin-after-created", cut(&[created()], End::Fin)),
        ("ws-binary", frames(vec![Frame::Binary("AP8B".into())])),
        ("ws-fragmented", frames(texts.iter().map(|text| Frame::Fragments(thirds(text))).collect())),
        ("ws-ping", frames([Frame::Ping("are you there".into())].into_iter().chain(say(&whole())).collect())),
        (
            "ws-garbage-json",
            frames([Frame::Text("{not json".into())].into_iter().chain(say(&whole())).collect()),
        ),
        (
            "ws-unknown-event",
            frames(
                [Frame::Text("{\"type\":\"response.unheard_of\"}".into())]
                    .into_iter()
                    .chain(say(&whole()))
                    .collect(),
            ),
        ),
        ("ws-pretty-json", frames(whole().iter().map(|event| Frame::Text(format!("{event:#}"))).collect())),
        ("ws-array", frames([Frame::Text("[1,2]".into())].into_iter().chain(say(&whole())).collect())),
        ("ws-idle", cut(&[created()], End::Hang)),
        (
            "ws-big-message",
            frames(say(&[created(), added(), delta(&"word ".repeat(50_000)), done(), completed()])),
        ),
        ("ws-no-created", frames(say(&whole()[1..]))),
        ("ws-two-completed", frames(say(&[created(), done(), completed(), completed()]))),
    ]);
    list
}

/// What the warm-up of a WebSocket is answered with; the turn behind it is served.
fn warm_ups() -> Vec<Named> {
    let on = |rule: Rule| {
        let rule = rule.transport(Transport::Websocket);
        let when = When { warm_up: true, ..rule.when.clone() };
        rule.when(when)
    };
    let say = |events: &[Value]| -> Vec<Frame> {
        events.iter().map(|event| Frame::Text(event.to_string())).collect()
    };
    let frames = |frames: Vec<Frame>| on(Rule::new(Reply::Frames(frames)));
    let wrapped = |status: u16, error: Value| {
        frames(say(&[json!({ "type": "error", "status": status, "error": error })]))
    };
    let server_error = json!({ "code": "server_error", "message": "The server had an error." });
    let close = |code: u16| frames(vec![Frame::Close { code, reason: "bye".into() }]);
    vec![
        ("ws-warm-up-error-401", wrapped(401, refusal("unauthorized", "Unauthorized."))),
        ("ws-warm-up-error-429", wrapped(429, usage_limit(&json!({ "resets_in_seconds": 3600 })))),
        ("ws-warm-up-error-500", wrapped(500, server_error.clone())),
        ("ws-warm-up-failed", frames(say(&[created(), failed(&server_error)]))),
        ("ws-warm-up-close-1000", close(1000)),
        ("ws-warm-up-close-1011", close(1011)),
        ("ws-warm-up-no-created", frames(say(&[completed()]))),
        ("ws-warm-up-with-text", frames(say(&whole()))),
        ("ws-warm-up-reset", frames(say(&[created()])).fault(Fault::after_events(1, End::Reset))),
    ]
}

/// What the failures are called on a WebSocket, in the order of [`failures`].
const WEBSOCKET_FAILURES: &[&str] = &[
    "ws-failed-quota",
    "ws-failed-context",
    "ws-failed-overloaded",
    "ws-failed-rate-limit",
    "ws-failed-slow-down",
    "ws-failed-usage-not-included",
    "ws-failed-cyber-policy",
    "ws-failed-bio-policy",
    "ws-failed-server-error",
    "ws-failed-usage-limit",
    "ws-failed-invalid-prompt",
    "ws-failed-flex",
    "ws-failed-credit",
    "ws-failed-without-error",
];

#[cfg(test)]
mod tests {
    use super::*;
    use mock_upstream::Script;

    #[test]
    fn every_fault_can_be_played_and_has_a_name_of_its_own() {
        let all = faults();
        for fault in &all {
            Script::rules(fault.scenario.rules.clone())
                .check()
                .unwrap_or_else(|error| panic!("{}: {error}", fault.scenario.name));
        }
        let mut names: Vec<_> = all.iter().map(|fault| fault.scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert_eq!(failures().len(), WEBSOCKET_FAILURES.len());
        assert!(all.len() > 150, "{}", all.len());
    }
}
