//! Sessions of Claude Code and Gemini CLI that are worth recording: what a mock says, what they are asked.
//!
//! The mock knows nothing of their protocols: what it answers stands here as bytes. The shapes are those of
//! `wire-facts` 3 and 4 (measured with Claude Code 2.1.197 and Gemini CLI 0.61.0 in November 2026).

use std::path::Path;
use std::time::Duration;

use mock_upstream::Script;
use mock_upstream::fault::{End, Fault};
use mock_upstream::script::{CallName, Http, Reply, Rule, Stream, When};
use serde_json::{Value, json};

use crate::clients::claude::{Claude, Login};
use crate::clients::gemini::Gemini;
use crate::clients::{DriveError, Kind};

/// A conversation with one of these clients.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whose it is.
    pub kind: Kind,
    /// Its name.
    pub name: &'static str,
    /// How the client is logged in.
    pub mode: &'static str,
    /// What the mock is told.
    rules: Vec<Rule>,
    /// What the client is asked; all but the first continue the conversation.
    prompts: Vec<&'static str>,
}

impl Session {
    /// What the mock is told.
    #[must_use]
    pub fn script(&self) -> Script {
        Script::rules(self.rules.clone())
    }

    /// Lets a client go through it.
    ///
    /// # Errors
    /// When the client cannot be run. That it fails is what some sessions are for.
    pub async fn play(&self, program: &Path, base_url: &str, limit: Duration) -> Result<(), DriveError> {
        match self.kind {
            Kind::Gemini => {
                let gemini = Gemini::new(program, base_url, CREDENTIAL).await?;
                for (at, prompt) in self.prompts.iter().enumerate() {
                    gemini.ask(prompt, at > 0, limit).await?;
                }
            }
            Kind::Claude | Kind::Codex => {
                let login = if self.mode == OAUTH { Login::OAuth } else { Login::Key };
                let claude = Claude::new(program, base_url, login, CREDENTIAL).await?;
                let mut session: Option<String> = None;
                for prompt in &self.prompts {
                    let finished = claude.ask(prompt, session.as_deref(), limit).await?;
                    let said: Value = serde_json::from_str(finished.stdout.trim()).unwrap_or_default();
                    session = said["session_id"].as_str().map(str::to_owned);
                }
            }
        }
        Ok(())
    }
}

/// What they show to the mock, which does not look.
const CREDENTIAL: &str = "laboratory-credential-0001";

const OAUTH: &str = "oauth";
const KEY: &str = "api-key";

/// The sessions of a client; none for Codex, whose scenarios and faults are richer.
#[must_use]
pub fn sessions(kind: Kind) -> Vec<Session> {
    match kind {
        Kind::Codex => Vec::new(),
        Kind::Claude => claude(),
        Kind::Gemini => gemini(),
    }
}

fn rule(target: &str, body: Option<&str>, reply: impl Into<Reply>) -> Rule {
    let when = When {
        call: CallName::Unknown,
        target: Some(target.into()),
        body: body.map(str::to_owned),
        ..When::default()
    };
    Rule::new(reply).when(when)
}

// Claude Code.

fn claude() -> Vec<Session> {
    let session = |name, mode, rules: Vec<Rule>, prompts: &[&'static str]| {
        // The request for a title comes at any time and has no tools.
        let title = rule("/v1/messages", Some("\"tools\":[]"), claude_text("A title"));
        let ping = rule("/", None, Http::status(200));
        let rules = [title].into_iter().chain(rules).chain([ping]).collect();
        Session { kind: Kind::Claude, name, mode, rules, prompts: prompts.to_vec() }
    };
    let main = |reply: Reply| rule("/v1/messages", None, reply);
    let answer = || main(claude_text("An answer.").into());
    let call = || main(claude_tool("echo mark-$((40+2))").into()).times(1);
    let refused = |status: u16, kind: &str| {
        let body = json!({ "type": "error", "error": { "type": kind, "message": "No." } });
        main(Http::json(status, body).header("request-id", "req_lab_9").into())
    };
    let unified = |http: Http| {
        http.header("anthropic-ratelimit-unified-status", "rejected")
            .header("anthropic-ratelimit-unified-reset", "1795170000")
            .header("anthropic-ratelimit-unified-representative-claim", "five_hour")
            .header("retry-after", "3600")
    };
    let limited = || {
        let body = json!({ "type": "error", "error": { "type": "rate_limit_error", "message": "No." } });
        main(unified(Http::json(429, body)).into())
    };
    let cut =
        |at: usize, end: End| main(claude_text("An answer.").into()).fault(Fault::after_events(at, end));
    let error = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Busy." } });
    let broken = Stream::texts([claude_event(&claude_start()), claude_event(&error)]);
    vec![
        session("simple", KEY, vec![answer()], &["a question"]),
        session("simple", OAUTH, vec![answer()], &["a question"]),
        session("tool", KEY, vec![call(), answer()], &["a command"]),
        session("tool", OAUTH, vec![call(), answer()], &["a command"]),
        session("resume", KEY, vec![answer()], &["the first turn", "the second turn"]),
        session("status-400", KEY, vec![refused(400, "invalid_request_error")], &["a question"]),
        session("status-401", KEY, vec![refused(401, "authentication_error")], &["a question"]),
        session("status-429-unified", OAUTH, vec![limited()], &["a question"]),
        session("status-500", KEY, vec![refused(500, "api_error")], &["a question"]),
        session("status-529", KEY, vec![refused(529, "overloaded_error")], &["a question"]),
        session("reset-after-start", KEY, vec![cut(1, End::Reset).times(1), answer()], &["a question"]),
        session("fin-after-delta", KEY, vec![cut(3, End::Fin).times(1), answer()], &["a question"]),
        session("error-event", KEY, vec![main(broken.into()).times(1), answer()], &["a question"]),
    ]
}

fn claude_event(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}

fn claude_start() -> Value {
    json!({ "type": "message_start", "message": { "id": "msg_lab_1", "type": "message", "role": "assistant",
        "model": "claude-opus-4-8", "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": { "input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": 1, "service_tier": "standard" } } })
}

fn claude_stream(block: &Value, deltas: &[Value], stop: &str) -> Stream {
    let mut events = vec![claude_start()];
    events.push(json!({ "type": "content_block_start", "index": 0, "content_block": block }));
    events.push(json!({ "type": "ping" }));
    let delta = |delta: &Value| json!({ "type": "content_block_delta", "index": 0, "delta": delta });
    events.extend(deltas.iter().map(delta));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": stop, "stop_sequence": null },
        "usage": { "output_tokens": 4 } }));
    events.push(json!({ "type": "message_stop" }));
    let mut stream = Stream::texts(events.iter().map(claude_event));
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

fn claude_text(text: &str) -> Stream {
    let delta = json!({ "type": "text_delta", "text": text });
    claude_stream(&json!({ "type": "text", "text": "" }), &[delta], "end_turn")
}

fn claude_tool(command: &str) -> Stream {
    let block = json!({ "type": "tool_use", "id": "toolu_lab_1", "name": "Bash", "input": {} });
    let input = json!({ "command": command, "description": "print" }).to_string();
    let (first, second) = input.split_at(input.len() / 2);
    let delta = |part: &str| json!({ "type": "input_json_delta", "partial_json": part });
    claude_stream(&block, &[delta(""), delta(first), delta(second)], "tool_use")
}

// Gemini CLI.

fn gemini() -> Vec<Session> {
    let session = |name, rules: Vec<Rule>, prompts: &[&'static str]| Session {
        kind: Kind::Gemini,
        name,
        mode: KEY,
        rules,
        prompts: prompts.to_vec(),
    };
    let main = |reply: Reply| rule(":streamGenerateContent", None, reply);
    let text = |text: &str| json!([{ "text": text }]);
    let answer = || main(gemini_stream(&[(text("An "), None), (text("answer."), Some("STOP"))]).into());
    let call = || {
        let parts = json!([{ "functionCall": { "name": "run_shell_command",
            "args": { "command": "echo mark-$((40+2))", "description": "print" }, "id": "fc_lab_1" },
            "thoughtSignature": "c2lnbmF0dXJlLW9mLXRob3VnaHQ=" }]);
        main(gemini_stream(&[(parts, None), (text(""), Some("STOP"))]).into()).times(1)
    };
    let refused = |code: u16, status: &str| {
        let error = json!({ "error": { "code": code, "message": "No.", "status": status } });
        main(Http::json(code, error).into())
    };
    let cut = |end: End| answer().fault(Fault::after_events(1, end)).times(1);
    vec![
        session("simple", vec![answer()], &["a question"]),
        session("tool", vec![call(), answer()], &["a command"]),
        session("resume", vec![answer()], &["the first turn", "the second turn"]),
        session("status-400", vec![refused(400, "INVALID_ARGUMENT")], &["a question"]),
        session("status-403", vec![refused(403, "PERMISSION_DENIED")], &["a question"]),
        session("status-429", vec![refused(429, "RESOURCE_EXHAUSTED")], &["a question"]),
        session("status-503", vec![refused(503, "UNAVAILABLE")], &["a question"]),
        session("reset-after-chunk", vec![cut(End::Reset), answer()], &["a question"]),
        session("fin-after-chunk", vec![cut(End::Fin), answer()], &["a question"]),
    ]
}

fn gemini_stream(chunks: &[(Value, Option<&str>)]) -> Stream {
    let chunk = |(parts, finish): &(Value, Option<&str>)| {
        let mut candidate = json!({ "content": { "role": "model", "parts": parts }, "index": 0 });
        if let Some(finish) = finish {
            candidate["finishReason"] = (*finish).into();
        }
        let event = json!({ "candidates": [candidate], "usageMetadata": { "promptTokenCount": 3,
            "candidatesTokenCount": 4, "totalTokenCount": 7 }, "modelVersion": "gemini-2.5-flash",
            "responseId": "lab_resp_1" });
        format!("data: {event}\r\n\r\n")
    };
    let mut stream = Stream::texts(chunks.iter().map(chunk));
    let headers =
        [("content-type", "text/event-stream"), ("server-timing", "gfet4t7; dur=5"), ("vary", "Origin")];
    stream.headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    stream
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_can_be_played_and_has_a_name_of_its_own() {
        for kind in Kind::ALL {
            let all = sessions(kind);
            for session in &all {
                session.script().check().unwrap();
                assert_eq!(session.kind, kind);
            }
            let mut names: Vec<_> = all.iter().map(|session| (session.mode, session.name)).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all.len());
        }
    }
}
