//! Sessions of Claude Code: turns that go well, and every fault that it was measured with.
//!
//! The client does not ask again by itself, but for one request without a stream where the stream was no good.

use mock_upstream::fault::{End, Fault};
use mock_upstream::script::{Http, Reply, Rule, Stream};
use serde_json::{Value, json};

use super::{KEY, OAUTH, Session, coded, rule};
use crate::clients::Kind;

/// All of them.
pub(super) fn sessions() -> Vec<Session> {
    let whole = |name, mode, rules, prompts: &[&'static str]| Session {
        is_whole: true,
        ..session(name, mode, rules, prompts)
    };
    let call = || main(tool("echo mark-$((40+2))")).times(1);
    let first = |reply: Rule| vec![reply.times(1), answer()];
    let turns = vec![
        whole("simple", KEY, vec![answer()], &["a question"]),
        whole("simple", OAUTH, vec![answer()], &["a question"]),
        whole("tool", KEY, vec![call(), answer()], &["a command"]),
        whole("tool", OAUTH, vec![call(), answer()], &["a command"]),
        whole("resume", KEY, vec![answer()], &["the first turn", "the second turn"]),
        whole("status-400", KEY, vec![refused(400, "invalid_request_error", "No.")], &["a question"]),
        whole("status-401", KEY, vec![refused(401, "authentication_error", "No.")], &["a question"]),
        whole("status-500", KEY, vec![refused(500, "api_error", "No.")], &["a question"]),
        whole("status-529", KEY, vec![refused(529, "overloaded_error", "No.")], &["a question"]),
        whole("status-429-unified", OAUTH, vec![limited(true)], &["a question"]),
        whole("reset-after-start", KEY, first(cut(1, End::Reset)), &["a question"]),
        whole("fin-after-delta", KEY, first(cut(3, End::Fin)), &["a question"]),
        whole("error-event", KEY, first(broken(&[start(), overloaded()])), &["a question"]),
    ];
    let fault = |mode| move |(name, rule)| session(name, mode, vec![rule], &["a question"]);
    let of_key = statuses().into_iter().chain(streams()).chain(framings()).map(fault(KEY));
    turns.into_iter().chain(of_key).chain(of_subscription().into_iter().map(fault(OAUTH))).collect()
}

type Named = (&'static str, Rule);

fn session(name: &'static str, mode: &'static str, rules: Vec<Rule>, prompts: &[&'static str]) -> Session {
    // The request for a title comes at any time and has no tools.
    let title = rule("/v1/messages", Some("\"tools\":[]"), text("A title"));
    let ping = rule("/", None, Http::status(200));
    let rules = [title].into_iter().chain(rules).chain([ping]).collect();
    Session { kind: Kind::Claude, name, mode, rules, prompts: prompts.to_vec(), is_whole: false, attempts: 1 }
}

fn main(reply: impl Into<Reply>) -> Rule {
    rule("/v1/messages", None, reply)
}

fn answer() -> Rule {
    main(text("An answer."))
}

fn error(status: u16, kind: &str, message: &str) -> Http {
    let body = json!({ "type": "error", "error": { "type": kind, "message": message } });
    Http::json(status, body).header("request-id", "req_lab_9")
}

fn refused(status: u16, kind: &str, message: &str) -> Rule {
    main(error(status, kind, message))
}

/// What a subscription that is used up is told, with or without when to come back.
fn limited(says_when: bool) -> Rule {
    let http = error(429, "rate_limit_error", "No.")
        .header("anthropic-ratelimit-unified-status", "rejected")
        .header("anthropic-ratelimit-unified-reset", "1795170000")
        .header("anthropic-ratelimit-unified-representative-claim", "five_hour");
    main(if says_when { http.header("retry-after", "3600") } else { http })
}

fn cut(at: usize, end: End) -> Rule {
    answer().fault(Fault::after_events(at, end))
}

fn broken(events: &[Value]) -> Rule {
    main(Stream::texts(events.iter().map(event)))
}

fn in_stream(kind: &str) -> Value {
    json!({ "type": "error", "error": { "type": kind, "message": "Busy." } })
}

fn overloaded() -> Value {
    in_stream("overloaded_error")
}

fn rate(name: &str, value: &str) -> Rule {
    main(error(429, "rate_limit_error", "No.").header(name, value))
}

fn statuses() -> Vec<Named> {
    vec![
        ("status-400-credit", refused(400, "invalid_request_error", "Your credit balance is too low.")),
        (
            "status-400-too-long",
            refused(400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"),
        ),
        ("status-403", refused(403, "permission_error", "forbidden")),
        ("status-403-revoked", refused(403, "permission_error", "OAuth token has been revoked.")),
        ("status-404", refused(404, "not_found_error", "model not found")),
        ("status-408", refused(408, "timeout_error", "No.")),
        ("status-409", refused(409, "conflict_error", "No.")),
        ("status-413", refused(413, "request_too_large", "No.")),
        ("status-429", refused(429, "rate_limit_error", "This request would exceed your rate limit.")),
        ("status-429-no-retry", rate("x-should-retry", "false")),
        ("status-429-retry-after-2", rate("retry-after", "2")),
        ("status-429-retry-after-3600", rate("retry-after", "3600")),
        ("status-429-unified", limited(true)),
        ("status-429-unified-without-retry-after", limited(false)),
        ("status-502", main(Http::text(502, "bad gateway").header("content-type", "text/plain"))),
        ("status-503", refused(503, "api_error", "No.")),
        (
            "status-529-no-retry",
            main(error(529, "overloaded_error", "No.").header("x-should-retry", "false")),
        ),
    ]
}

/// What the token of a subscription makes different.
fn of_subscription() -> Vec<Named> {
    vec![
        ("status-400-credit", refused(400, "invalid_request_error", "Your credit balance is too low.")),
        ("status-401", refused(401, "authentication_error", "No.")),
        ("status-403", refused(403, "permission_error", "forbidden")),
        ("status-403-revoked", refused(403, "permission_error", "OAuth token has been revoked.")),
        ("status-404", refused(404, "not_found_error", "model not found")),
        ("status-429", refused(429, "rate_limit_error", "This request would exceed your rate limit.")),
        ("status-429-retry-after-2", rate("retry-after", "2")),
        ("status-429-unified-without-retry-after", limited(false)),
        ("status-500", refused(500, "api_error", "No.")),
        ("status-529", refused(529, "overloaded_error", "No.")),
        ("reset-before-head", answer().fault(Fault::before_head(End::Reset))),
    ]
}

fn streams() -> Vec<Named> {
    let whole = events("An answer.");
    let message = json!({ "id": "msg_lab_1", "type": "message", "role": "assistant",
        "model": "claude-opus-4-8", "content": [{ "type": "text", "text": "An answer." }],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": { "input_tokens": 3, "output_tokens": 4 } });
    let stops = |reason: &str| main(told(&turn(&json!({ "type": "text", "text": "" }), &[], reason)));
    vec![
        ("eof-empty", broken(&[])),
        ("eof-after-start", broken(&whole[..1])),
        ("eof-after-delta", broken(&whole[..4])),
        ("eof-after-block-stop", broken(&whole[..5])),
        ("eof-after-message-delta", broken(&whole[..6])),
        ("json-instead-of-stream", main(Http::json(200, message))),
        ("reset-before-head", answer().fault(Fault::before_head(End::Reset))),
        ("fin-before-head", answer().fault(Fault::before_head(End::Fin))),
        ("reset-after-delta", cut(4, End::Reset)),
        ("error-first-overloaded", broken(&[overloaded()])),
        ("error-first-rate-limit", broken(&[in_stream("rate_limit_error")])),
        ("error-after-start", broken(&[start(), in_stream("api_error")])),
        ("error-after-start-overloaded", broken(&[start(), overloaded()])),
        ("error-after-delta-overloaded", broken(&[&whole[..4], &[overloaded()]].concat())),
        ("no-message-start", broken(&whole[1..])),
        ("stop-refusal", stops("refusal")),
        ("stop-max-tokens", stops("max_tokens")),
    ]
}

/// Streams that are legal, or nearly so, and look unlike the usual.
fn framings() -> Vec<Named> {
    let whole: Vec<String> = events("An answer.").iter().map(event).collect();
    let joined = whole.concat();
    let texts = |parts: Vec<String>| main(Stream::texts(parts));
    let with = |more: &str| {
        let mut parts = whole.clone();
        parts.insert(2, more.to_owned());
        texts(parts)
    };
    let in_coding = |coding: &str| {
        let headers = [("content-type", "text/event-stream"), ("content-encoding", coding)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        main(Stream { headers, ..Stream::bytes([coded(coding, &joined)]) })
    };
    let no_ping: Vec<Value> =
        events("An answer.").into_iter().filter(|event| event["type"] != "ping").collect();
    let without_names = joined.lines().filter(|line| !line.starts_with("event:"));
    let without_names = without_names.flat_map(|line| [line, "\n"]).collect::<String>();
    let wide = events("é字🙂").iter().map(event).collect::<String>().into_bytes();
    // Behind the first byte of each character that has several.
    let within = wide.split_inclusive(|byte| *byte >= 0xC0).collect::<Vec<_>>();
    vec![
        ("lines-crlf", texts(vec![joined.replace('\n', "\r\n")])),
        ("no-event-line", texts(vec![without_names])),
        ("comments", with(": a comment\n: another\n\n")),
        ("unknown-events", with("event: unheard_of\ndata: {\"type\":\"unheard_of\"}\n\n")),
        ("garbage-json", with("event: content_block_delta\ndata: {not json\n\n")),
        ("no-ping", broken(&no_ping)),
        ("done-marker", texts(vec![joined.clone() + "data: [DONE]\n\n"])),
        ("cut-within-characters", main(Stream::bytes(within))),
        ("coding-gzip", in_coding("gzip")),
        ("coding-zstd", in_coding("zstd")),
        ("coding-brotli", in_coding("br")),
    ]
}

fn event(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}

fn start() -> Value {
    json!({ "type": "message_start", "message": { "id": "msg_lab_1", "type": "message", "role": "assistant",
        "model": "claude-opus-4-8", "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": { "input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": 1, "service_tier": "standard" } } })
}

fn turn(block: &Value, deltas: &[Value], stop: &str) -> Vec<Value> {
    let mut events = vec![start()];
    events.push(json!({ "type": "content_block_start", "index": 0, "content_block": block }));
    events.push(json!({ "type": "ping" }));
    let delta = |delta: &Value| json!({ "type": "content_block_delta", "index": 0, "delta": delta });
    events.extend(deltas.iter().map(delta));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": stop, "stop_sequence": null },
        "usage": { "output_tokens": 4 } }));
    events.push(json!({ "type": "message_stop" }));
    events
}

/// Events under the head that the backend gives them.
fn told(events: &[Value]) -> Stream {
    let mut stream = Stream::texts(events.iter().map(event));
    let headers = [
        ("content-type", "text/event-stream"),
        ("request-id", "req_lab_1"),
        ("anthropic-organization-id", "6f8e3f5a-9a57-4b5e-8f0e-2b6a54d0c111"),
        ("anthropic-ratelimit-unified-status", "allowed"),
        ("anthropic-ratelimit-unified-5h-utilization", "0.12"),
        ("anthropic-ratelimit-unified-5h-reset", "1795170000"),
    ];
    stream.headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    stream
}

/// The events of a turn that says `text`: start, start of the block, ping, delta, end of the block, and two ends.
fn events(text: &str) -> Vec<Value> {
    let delta = json!({ "type": "text_delta", "text": text });
    turn(&json!({ "type": "text", "text": "" }), &[delta], "end_turn")
}

fn text(text: &str) -> Stream {
    told(&events(text))
}

fn tool(command: &str) -> Stream {
    let block = json!({ "type": "tool_use", "id": "toolu_lab_1", "name": "Bash", "input": {} });
    let input = json!({ "command": command, "description": "print" }).to_string();
    let (first, second) = input.split_at(input.len() / 2);
    let delta = |part: &str| json!({ "type": "input_json_delta", "partial_json": part });
    told(&turn(&block, &[delta(""), delta(first), delta(second)], "tool_use"))
}
