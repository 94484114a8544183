//! Faults over HTTP: statuses, broken streams, odd framing, content codings.

use mock_upstream::fault::{At, End, Fault};
use mock_upstream::pacing::{Pacing, WriteSize};
use mock_upstream::script::{Framing, Http, Rule, Stream, Write};
use serde_json::{Value, json};

use super::Named;
use super::events::{
    RESPONSE, added, completed, created, delta, done, error, event, failed, failures, incomplete, long,
    message, refusal, usage_limit, whole,
};

/// All of them.
pub(super) fn faults() -> impl Iterator<Item = Named> {
    statuses().into_iter().chain(streams()).chain(framings()).chain(codings())
}

fn sse(events: &[Value]) -> Stream {
    Stream::texts(events.iter().map(event))
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
    let mut output = completed();
    output["response"]["output"] = json!([message("An answer.")]);
    list.extend([
        ("slow-head", Rule::new(sse(&whole())).pacing(Pacing { head_ms: 2000, ..Pacing::default() })),
        ("content-type-json", typed(Some("application/json"))),
        ("content-type-none", typed(None)),
        ("completed-without-usage", Rule::new(sse(&[created(), added(), done(), bare]))),
        ("deltas-without-done", Rule::new(sse(&[created(), added(), delta("An answer."), completed()]))),
        ("completed-with-output-only", Rule::new(sse(&[created(), output]))),
        ("done-without-added", Rule::new(sse(&[created(), done(), completed()]))),
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
        ("length-too-long", Rule::new(sse(&whole())).fault(Fault { at: At::End, end: End::Short })),
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
    let mut alive: Vec<Write> = vec![Write::Text(event(&created()))];
    for _ in 0..5 {
        alive.extend([Write::PauseMs(500), Write::Text(event(&json!({ "type": "keepalive" })))]);
    }
    alive.extend(whole()[1..].iter().map(|one| Write::Text(event(one))));
    let kept_alive = Stream { writes: alive, ..Stream::texts(Vec::<String>::new()) };
    // Cut behind the first byte of a character of two, of three and of four.
    let wide = event(&delta("é字🙂")).into_bytes();
    let (mut within, mut from) = (Vec::new(), 0);
    for (at, _) in wide.iter().enumerate().filter(|(_, byte)| **byte >= 0xC0) {
        within.push(wide[std::mem::replace(&mut from, at + 1)..=at].to_vec());
    }
    within.push(wide[from..].to_vec());
    let bytes = |one: Value| event(&one).into_bytes();
    let within = [bytes(created()), bytes(added())].into_iter().chain(within);
    let within = Stream::bytes(within.chain([bytes(done()), bytes(completed())]));
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
        ("keepalive-events", Rule::new(kept_alive)),
        ("cut-within-characters", Rule::new(within)),
        ("long-line-8MB", Rule::new(sse(&[created(), added(), delta(&long(8 << 20)), done(), completed()]))),
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
