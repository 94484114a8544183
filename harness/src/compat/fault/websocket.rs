//! Faults on a WebSocket: refused upgrades, odd and broken turns, and those of the warm-up.

use mock_upstream::fault::{End, Fault};
use mock_upstream::script::{Frame, Http, Reply, Rule, Transport, When};
use serde_json::{Value, json};

use super::Named;
use super::events::{
    added, completed, created, delta, done, error, failed, failures, incomplete, long, refusal, usage_limit,
    whole,
};

/// All of them.
pub(super) fn faults() -> impl Iterator<Item = Named> {
    upgrades().into_iter().chain(turns()).chain(warm_ups())
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
        ("upgrade-429-generic", refused(error(429, &refusal("rate_limit_exceeded", "Slow down.")))),
        ("upgrade-200", detail(200)),
        ("upgrade-302", refused(Http::json(302, json!({})).header("location", "/elsewhere"))),
        ("upgrade-500", detail(500)),
        ("upgrade-503", detail(503)),
        (
            "upgrade-503-overloaded",
            refused(error(503, &refusal("server_is_overloaded", "Our servers are currently overloaded."))),
        ),
        ("upgrade-reset", refused(Http::status(500)).fault(Fault::before_head(End::Reset))),
        ("upgrade-hang", refused(Http::status(500)).fault(Fault::before_head(End::Hang))),
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
    let usage = || usage_limit(&json!({ "resets_in_seconds": 3600 }));
    // An error message with fields of its own, as they would be in the head of a response.
    let error_with = |fields: Value, error: Value| {
        let mut message = json!({ "type": "error", "error": error });
        if let (Value::Object(message), Value::Object(fields)) = (&mut message, fields) {
            message.extend(fields);
        }
        message
    };
    let unknown = || refusal("previous_response_not_found", "Previous response not found.");
    let quota = json!({ "x-codex-plan-type": "plus", "x-codex-primary-used-percent": "100",
        "x-codex-primary-window-minutes": "300", "x-codex-promo-message": "Wait for it." });
    let rate = || refusal("rate_limit_exceeded", "Slow down.");
    let kept_alive = |beat: Frame, rest: &[Value]| {
        let beats = std::iter::repeat_n([Frame::PauseMs(500), beat], 5).flatten();
        frames(say(&[created()]).into_iter().chain(beats).chain(say(rest)).collect())
    };
    let long_text = |bytes| delta(&long(bytes)).to_string();
    let long_message = |frame: Frame| {
        let before = say(&[created(), added()]).into_iter().chain([frame]);
        frames(before.chain(say(&[done(), completed()])).collect())
    };
    let texts: Vec<String> = whole().iter().map(Value::to_string).collect();
    let thirds = |text: &str| {
        let third = text.len() / 3;
        vec![text[..third].to_owned(), text[third..2 * third].to_owned(), text[2 * third..].to_owned()]
    };
    let mut list: Vec<Named> = failures()
        .into_iter()
        .zip(WEBSOCKET_FAILURES)
        .map(|((_, error), name)| (name, frames(say(&[created(), failed(&error)]))))
        .collect();
    list.extend([
        ("ws-error-400", wrapped(400, refusal("invalid_request_error", "Invalid input."))),
        (
            "ws-error-400-previous-response",
            wrapped(400, refusal("previous_response_not_found", "Previous response not found.")),
        ),
        ("ws-error-401", wrapped(401, refusal("unauthorized", "Unauthorized."))),
        ("ws-error-403", wrapped(403, refusal("forbidden", "Forbidden."))),
        ("ws-error-429-usage", wrapped(429, usage())),
        (
            "ws-error-429-usage-headers",
            frames(say(&[error_with(json!({ "status": 429, "headers": quota }), usage())])),
        ),
        (
            "ws-error-429-usage-status-code",
            frames(say(&[error_with(json!({ "status_code": 429 }), usage())])),
        ),
        ("ws-error-429-generic", wrapped(429, rate())),
        (
            "ws-error-429-retry-after",
            frames(say(&[error_with(json!({ "status": 429, "headers": { "retry-after": "1" } }), rate())])),
        ),
        ("ws-error-500", wrapped(500, server_error.clone())),
        ("ws-error-503", wrapped(503, refusal("unavailable", "Service Unavailable"))),
        ("ws-error-503-overloaded", wrapped(503, refusal("server_is_overloaded", "Overloaded."))),
        (
            "ws-error-connection-limit",
            wrapped(400, refusal("websocket_connection_limit_reached", "Reconnect.")),
        ),
        (
            "ws-error-without-status",
            frames(say(&[json!({ "type": "error", "error": usage_limit(&json!({})) })])),
        ),
        ("ws-error-after-created", frames(say(&[created(), error_with(json!({ "status": 429 }), usage())]))),
        ("ws-error-previous-response-without-status", frames(say(&[error_with(json!({}), unknown())]))),
        ("ws-failed-previous-response", frames(say(&[created(), failed(&unknown())]))),
        ("ws-previous-response-once", wrapped(400, unknown()).times(1)),
        (
            "ws-connection-limit-once",
            wrapped(400, refusal("websocket_connection_limit_reached", "Reconnect.")).times(1),
        ),
        ("ws-close-once", close(&[], 1011).times(1)),
        ("ws-reset-once", cut(&[], End::Reset).times(1)),
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
        ("ws-fin-before", cut(&[], End::Fin)),
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
        ("ws-idle-keepalive-messages", kept_alive(Frame::Text(KEEPALIVE.into()), &whole()[1..])),
        ("ws-idle-keepalive-pings", kept_alive(Frame::Ping("are you there".into()), &[])),
        ("ws-message-40MB", long_message(Frame::Text(long_text(40 << 20)))),
        ("ws-message-20MB-fragmented", long_message(Frame::Fragments(thirds(&long_text(20 << 20))))),
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
        ("ws-warm-up-ignored", frames(Vec::new())),
        ("ws-warm-up-no-created", frames(say(&[completed()]))),
        ("ws-warm-up-with-text", frames(say(&whole()))),
        ("ws-warm-up-reset", frames(say(&[created()])).fault(Fault::after_events(1, End::Reset))),
    ]
}

/// A message that says only that there will be more.
const KEEPALIVE: &str = r#"{"type":"keepalive"}"#;

/// What the failures are called on a WebSocket, in the order of [`failures`].
const WEBSOCKET_FAILURES: [&str; 14] = [
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
