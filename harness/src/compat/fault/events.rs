//! What faults are made of: the errors of the backend, and the events of a turn that goes well or does not.

use mock_upstream::script::Http;
use serde_json::{Value, json};

pub(super) fn error(status: u16, error: &Value) -> Http {
    Http::json(status, json!({ "error": error }))
}

pub(super) fn refusal(kind: &str, message: &str) -> Value {
    json!({ "type": kind, "code": kind, "message": message })
}

/// What the backend says when an account is used up (`wire-facts` 1.6).
pub(super) fn usage_limit(more: &Value) -> Value {
    let mut error = json!({ "type": "usage_limit_reached", "message": "The usage limit has been reached",
        "plan_type": "plus" });
    if let (Value::Object(error), Value::Object(more)) = (&mut error, more) {
        error.extend(more.clone());
    }
    error
}

/// An event as it goes over SSE.
pub(super) fn event(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}

pub(super) const RESPONSE: &str = "resp_fault_1";

pub(super) fn created() -> Value {
    json!({ "type": "response.created", "response": { "id": RESPONSE, "status": "in_progress" } })
}

pub(super) fn message(text: &str) -> Value {
    json!({ "type": "message", "id": "msg_fault_1", "role": "assistant",
        "content": [{ "type": "output_text", "text": text }] })
}

pub(super) fn added() -> Value {
    json!({ "type": "response.output_item.added", "output_index": 0, "item": message("") })
}

pub(super) fn delta(text: &str) -> Value {
    json!({ "type": "response.output_text.delta", "item_id": "msg_fault_1", "output_index": 0,
        "content_index": 0, "delta": text })
}

pub(super) fn done() -> Value {
    json!({ "type": "response.output_item.done", "output_index": 0, "item": message("An answer.") })
}

pub(super) fn completed() -> Value {
    json!({ "type": "response.completed", "response": { "id": RESPONSE, "status": "completed",
        "usage": { "input_tokens": 10, "input_tokens_details": null, "output_tokens": 2,
            "output_tokens_details": null, "total_tokens": 12 } } })
}

pub(super) fn failed(error: &Value) -> Value {
    json!({ "type": "response.failed", "response": { "id": RESPONSE, "status": "failed", "error": error } })
}

pub(super) fn incomplete(reason: &str) -> Value {
    json!({ "type": "response.incomplete", "response": { "id": RESPONSE, "status": "incomplete",
        "incomplete_details": { "reason": reason } } })
}

/// A whole and good turn.
pub(super) fn whole() -> [Value; 5] {
    [created(), added(), delta("An answer."), done(), completed()]
}

pub(super) fn failures() -> [(&'static str, Value); 14] {
    let code = |code: &str, message: &str| json!({ "code": code, "message": message });
    [
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
        ("failed-flex", code("flex_unavailable", "Flex is not available.")),
        ("failed-credit", code("credit_balance_exhausted", "No credits are left.")),
        ("failed-without-error", Value::Null),
    ]
}

/// A text of so many bytes.
pub(super) fn long(bytes: usize) -> String {
    "word ".repeat(bytes / 5)
}
