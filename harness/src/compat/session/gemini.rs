//! Sessions of Gemini CLI: turns that go well, and every fault that it was measured with.
//!
//! The client asks once; its own retries begin behind five seconds and are switched off, but where a session is
//! about what they recover from.

use mock_upstream::fault::{End, Fault};
use mock_upstream::script::{Http, Reply, Rule, Stream};
use serde_json::{Value, json};

use super::{KEY, Session, coded, rule};
use crate::clients::Kind;

/// All of them.
pub(super) fn sessions() -> Vec<Session> {
    let whole = |name, rules, prompts: &[&'static str]| Session {
        is_whole: true,
        prompts: prompts.to_vec(),
        ..session(name, rules)
    };
    let cut = |end: End| answer().fault(Fault::after_events(1, end)).times(1);
    let turns = vec![
        whole("simple", vec![answer()], &["a question"]),
        whole("tool", vec![call().times(1), answer()], &["a command"]),
        whole("resume", vec![answer()], &["the first turn", "the second turn"]),
        whole("status-400", vec![refused(400, "INVALID_ARGUMENT", "No.")], &["a question"]),
        whole("status-403", vec![refused(403, "PERMISSION_DENIED", "No.")], &["a question"]),
        whole("status-429", vec![refused(429, "RESOURCE_EXHAUSTED", "No.")], &["a question"]),
        whole("status-503", vec![refused(503, "UNAVAILABLE", "No.")], &["a question"]),
        whole("reset-after-chunk", vec![cut(End::Reset), answer()], &["a question"]),
        whole("fin-after-chunk", vec![cut(End::Fin), answer()], &["a question"]),
    ];
    let fault = |(name, rule)| session(name, vec![rule]);
    // One request more shows that the client recovers.
    let once = |(name, rule): Named| Session { attempts: 2, ..session(name, vec![rule.times(1), answer()]) };
    let faults = statuses().into_iter().chain(limits()).chain(streams()).chain(framings()).map(fault);
    turns.into_iter().chain(faults).chain(recoveries().into_iter().map(once)).collect()
}

type Named = (&'static str, Rule);

fn session(name: &'static str, rules: Vec<Rule>) -> Session {
    let prompts = vec!["a question"];
    Session { kind: Kind::Gemini, name, mode: KEY, rules, prompts, is_whole: false, attempts: 1 }
}

fn main(reply: impl Into<Reply>) -> Rule {
    rule(":streamGenerateContent", None, reply)
}

fn text(text: &str) -> Value {
    json!([{ "text": text }])
}

fn answer() -> Rule {
    main(whole())
}

fn whole() -> Stream {
    stream(&[(text("An "), None), (text("answer."), Some("STOP"))])
}

fn call() -> Rule {
    let parts = json!([{ "functionCall": { "name": "run_shell_command",
        "args": { "command": "echo mark-$((40+2))", "description": "print" }, "id": "fc_lab_1" },
        "thoughtSignature": "c2lnbmF0dXJlLW9mLXRob3VnaHQ=" }]);
    main(stream(&[(parts, None), (text(""), Some("STOP"))]))
}

fn refused(code: u16, status: &str, message: &str) -> Rule {
    main(error(code, status, message, &json!([])))
}

fn error(code: u16, status: &str, message: &str, details: &Value) -> Http {
    let mut error = json!({ "error": { "code": code, "message": message, "status": status } });
    if details.as_array().is_some_and(|details| !details.is_empty()) {
        error["error"]["details"] = details.clone();
    }
    Http::json(code, error)
}

fn statuses() -> Vec<Named> {
    vec![
        (
            "status-400-key",
            refused(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
        ),
        ("status-401", refused(401, "UNAUTHENTICATED", "no auth")),
        ("status-404", refused(404, "NOT_FOUND", "model not found")),
        ("status-499", refused(499, "CANCELLED", "No.")),
        ("status-500", refused(500, "INTERNAL", "No.")),
        ("status-502", main(Http::text(502, "bad").header("content-type", "text/plain"))),
        ("status-504", refused(504, "DEADLINE_EXCEEDED", "No.")),
    ]
}

fn retry_info(seconds: u32) -> Value {
    json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{seconds}s") })
}

fn reason(reason: &str) -> Value {
    json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason,
        "domain": "cloudcode-pa.googleapis.com" })
}

fn limited(details: &Value) -> Rule {
    main(error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", details))
}

/// Without a time to come back the client gives up.
fn rate_limited() -> Rule {
    limited(&json!([reason("RATE_LIMIT_EXCEEDED"), retry_info(2)]))
}

fn limits() -> Vec<Named> {
    let per_day = json!([{ "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [
        { "quotaId": "GenerateRequestsPerDayPerProjectPerModel", "quotaMetric": "requests" }] }]);
    let capacity = json!([reason("MODEL_CAPACITY_EXHAUSTED")]);
    vec![
        ("status-429-retry-info-2s", limited(&json!([retry_info(2)]))),
        ("status-429-retry-info-600s", limited(&json!([retry_info(600)]))),
        ("status-429-per-day", limited(&per_day)),
        (
            "status-429-model-capacity",
            main(error(429, "RESOURCE_EXHAUSTED", "No capacity available", &capacity)),
        ),
        ("status-429-rate-limit-exceeded", rate_limited()),
        (
            "status-429-retry-after",
            main(error(429, "RESOURCE_EXHAUSTED", "No.", &json!([])).header("retry-after", "2")),
        ),
    ]
}

fn streams() -> Vec<Named> {
    let finished = |reason: &str| main(stream(&[(text("x"), Some(reason))]));
    let blocked = "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\r\n\r\n".to_owned();
    let error = "data: {\"error\":{\"code\":503,\"message\":\"Busy.\",\"status\":\"UNAVAILABLE\"}}\r\n\r\n";
    let begun = || chunk(&text("An "), None);
    vec![
        ("eof-empty", main(stream(&[]))),
        ("eof-without-finish", main(stream(&[(text("An "), None)]))),
        ("reset-before-head", answer().fault(Fault::before_head(End::Reset))),
        ("reset-after-chunk-always", answer().fault(Fault::after_events(1, End::Reset))),
        ("fin-after-chunk-always", answer().fault(Fault::after_events(1, End::Fin))),
        ("error-in-stream", main(Stream::texts([begun(), error.to_owned()]))),
        ("finish-max-tokens", finished("MAX_TOKENS")),
        ("finish-safety", finished("SAFETY")),
        ("finish-malformed-call", finished("MALFORMED_FUNCTION_CALL")),
        ("blocked", main(Stream::texts([blocked]))),
    ]
}

/// Streams that are legal, or nearly so, and look unlike the usual.
fn framings() -> Vec<Named> {
    let joined = chunk(&text("An "), None) + &chunk(&text("answer."), Some("STOP"));
    let texts = |text: String| main(Stream::texts([text]));
    let in_coding = |coding: &str| {
        let headers = [("content-type", "text/event-stream"), ("content-encoding", coding)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        main(Stream { headers, ..Stream::bytes([coded(coding, &joined)]) })
    };
    vec![
        ("lines-lf", texts(joined.replace("\r\n", "\n"))),
        ("lines-cr", texts(joined.replace("\r\n", "\r"))),
        ("no-final-blank-line", texts(joined.trim_end().to_owned())),
        ("comments", texts(format!(": a comment\r\n\r\n{joined}"))),
        ("garbage-json", texts(format!("data: {{not json}}\r\n\r\n{joined}"))),
        ("coding-gzip", in_coding("gzip")),
        ("coding-brotli", in_coding("br")),
    ]
}

/// Faults behind which the next request is answered.
fn recoveries() -> Vec<Named> {
    vec![
        ("status-429-once", refused(429, "RESOURCE_EXHAUSTED", "No.")),
        ("status-429-retry-info-2s-once", limited(&json!([retry_info(2)]))),
        ("status-429-rate-limit-exceeded-once", rate_limited()),
        ("status-503-once", refused(503, "UNAVAILABLE", "No.")),
        ("eof-without-finish-once", main(stream(&[(text("An "), None)]))),
        ("reset-before-head-once", answer().fault(Fault::before_head(End::Reset))),
    ]
}

/// A part of an answer, as it goes over SSE.
fn chunk(parts: &Value, finish: Option<&str>) -> String {
    let mut candidate = json!({ "content": { "role": "model", "parts": parts }, "index": 0 });
    if let Some(finish) = finish {
        candidate["finishReason"] = finish.into();
    }
    let event = json!({ "candidates": [candidate], "usageMetadata": { "promptTokenCount": 3,
        "candidatesTokenCount": 4, "totalTokenCount": 7 }, "modelVersion": "gemini-2.5-flash",
        "responseId": "lab_resp_1" });
    format!("data: {event}\r\n\r\n")
}

fn stream(chunks: &[(Value, Option<&str>)]) -> Stream {
    let mut stream = Stream::texts(chunks.iter().map(|(parts, finish)| chunk(parts, *finish)));
    let headers =
        [("content-type", "text/event-stream"), ("server-timing", "gfet4t7; dur=5"), ("vary", "Origin")];
    stream.headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    stream
}
