//! A scripted turn as the events of the Responses protocol.
//!
//! The same events go over SSE and WebSocket; how they are framed is the caller's. Shapes as measured with
//! Codex 0.140 to 0.169 (`wire-facts` 1.7 and 1.8, November 2026).

use serde_json::{Value, json};

use super::request::ShellTool;
use crate::script::{Call, CustomCall, Item, Turn, TurnEnd, Usage};

/// An event, or what else can stand in a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Json(Value),
    Comment(String),
}

/// What a turn is rendered with.
pub(crate) struct Context<'a> {
    pub(crate) response_id: &'a str,
    pub(crate) model: &'a str,
    pub(crate) created_at: u64,
    pub(crate) shell: ShellTool,
    /// Makes `encrypted_content` that only this account can use.
    pub(crate) encrypt: &'a dyn Fn(usize) -> String,
}

/// The events of a turn, from `response.created` to the end.
pub(crate) fn render(turn: &Turn, context: &Context<'_>) -> Vec<Event> {
    let mut out = Out { context, events: Vec::new(), sequence: 0, index: 0 };
    out.push(json!({ "type": "response.created", "response": out.response("in_progress") }));
    out.push(json!({ "type": "response.in_progress", "response": out.response("in_progress") }));
    for item in &turn.output {
        out.item(item);
    }
    out.end(turn);
    out.events
}

/// The events that answer a warm-up: a response with nothing in it.
pub(crate) fn warm_up(context: &Context<'_>) -> Vec<Event> {
    let mut out = Out { context, events: Vec::new(), sequence: 0, index: 0 };
    out.push(json!({ "type": "response.created", "response": out.response("in_progress") }));
    out.end(&Turn::default());
    out.events
}

struct Out<'a> {
    context: &'a Context<'a>,
    events: Vec<Event>,
    sequence: u64,
    index: usize,
}

impl Out<'_> {
    fn push(&mut self, mut event: Value) {
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        self.events.push(Event::Json(event));
    }

    fn response(&self, status: &str) -> Value {
        let Context { response_id, model, created_at, .. } = self.context;
        json!({
            "id": response_id, "object": "response", "created_at": created_at, "status": status,
            "model": model, "output": [],
        })
    }

    /// An id for the item being put out.
    fn id(&self, prefix: &str) -> String {
        format!("{prefix}_{}_{}", self.context.response_id, self.index)
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Text(text) => self.message(text, &words(text)),
            Item::Deltas { text, bytes } => self.message(text, &deltas(text, *bytes)),
            Item::Shell(command) => self.shell(command),
            Item::Call(call) => self.call(call),
            Item::CustomCall(call) => self.custom_call(call),
            Item::Reasoning(summary) => self.reasoning(summary),
            Item::Compaction {} => self.compaction(),
            Item::Raw(item) => self.whole(item, item),
            // These are no output and take no index.
            Item::Event(event) => return self.events.push(Event::Json(event.clone())),
            Item::Comment(text) => return self.events.push(Event::Comment(text.clone())),
        }
        self.index += 1;
    }

    /// An item of which only beginning and end are told.
    fn whole(&mut self, begun: &Value, done: &Value) {
        self.added(begun);
        self.done(done);
    }

    fn added(&mut self, item: &Value) {
        self.push(json!({ "type": "response.output_item.added", "output_index": self.index, "item": item }));
    }

    fn done(&mut self, item: &Value) {
        self.push(json!({ "type": "response.output_item.done", "output_index": self.index, "item": item }));
    }

    fn message(&mut self, text: &str, deltas: &[&str]) {
        let (id, index) = (self.id("msg"), self.index);
        let message = |status: &str, content: Value| {
            json!({
                "type": "message", "id": id, "role": "assistant", "status": status, "content": content,
            })
        };
        let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [] });
        let event = |kind: &str, key: &str, value: Value| {
            let mut event = json!({
                "type": format!("response.{kind}"), "item_id": id, "output_index": index, "content_index": 0,
            });
            event[key] = value;
            event
        };
        self.added(&message("in_progress", json!([])));
        self.push(event("content_part.added", "part", part("")));
        for delta in deltas {
            self.push(event("output_text.delta", "delta", (*delta).into()));
        }
        self.push(event("output_text.done", "text", text.into()));
        self.push(event("content_part.done", "part", part(text)));
        self.done(&message("completed", json!([part(text)])));
    }

    fn shell(&mut self, command: &str) {
        let function = |name: &str, arguments: Value| {
            Item::Call(Call { name: name.into(), arguments, call_id: None, namespace: None })
        };
        let call = match self.context.shell {
            ShellTool::ExecCommand => function("exec_command", json!({ "cmd": command })),
            ShellTool::ShellCommand => function("shell_command", json!({ "command": command })),
            ShellTool::Shell => function("shell", json!({ "command": ["sh", "-c", command] })),
            ShellTool::LocalShell => return self.local_shell(command),
            ShellTool::Code => {
                let command = Value::from(command);
                Item::CustomCall(CustomCall {
                    name: "exec".into(),
                    input: format!("const r = await tools.exec_command({{cmd: {command}}}); text(r.output);"),
                    call_id: None,
                    namespace: Some("functions".into()),
                })
            }
        };
        match &call {
            Item::CustomCall(call) => self.custom_call(call),
            Item::Call(call) => self.call(call),
            _ => {}
        }
    }

    fn local_shell(&mut self, command: &str) {
        let item = |status: &str| {
            json!({
                "type": "local_shell_call", "id": self.id("lsh"), "call_id": self.id("call"), "status": status,
                "action": { "type": "exec", "command": ["sh", "-c", command] },
            })
        };
        let (begun, done) = (item("in_progress"), item("completed"));
        self.whole(&begun, &done);
    }

    fn call(&mut self, call: &Call) {
        let arguments = call.arguments.to_string();
        let id = self.id("fc");
        let call_id = call.call_id.clone().unwrap_or_else(|| self.id("call"));
        let item = |status: &str, arguments: &str| {
            let mut item = json!({
                "type": "function_call", "id": id, "call_id": call_id, "name": call.name,
                "arguments": arguments, "status": status,
            });
            add_namespace(&mut item, call.namespace.as_deref());
            item
        };
        self.input(&id, "function_call_arguments", "arguments", &arguments, &item);
    }

    fn custom_call(&mut self, call: &CustomCall) {
        let id = self.id("ctc");
        let call_id = call.call_id.clone().unwrap_or_else(|| self.id("call"));
        let item = |status: &str, input: &str| {
            let mut item = json!({
                "type": "custom_tool_call", "id": id, "call_id": call_id, "name": call.name, "input": input,
                "status": status,
            });
            add_namespace(&mut item, call.namespace.as_deref());
            item
        };
        self.input(&id, "custom_tool_call_input", "input", &call.input, &item);
    }

    /// The events of a call, whose input is told in one delta.
    fn input(&mut self, id: &str, kind: &str, key: &str, input: &str, item: &dyn Fn(&str, &str) -> Value) {
        let index = self.index;
        self.added(&item("in_progress", ""));
        self.push(json!({
            "type": format!("response.{kind}.delta"), "item_id": id, "output_index": index, "delta": input,
        }));
        let mut done =
            json!({ "type": format!("response.{kind}.done"), "item_id": id, "output_index": index });
        done[key] = input.into();
        self.push(done);
        self.done(&item("completed", input));
    }

    fn reasoning(&mut self, summary: &str) {
        let (id, index) = (self.id("rs"), self.index);
        let encrypted = (self.context.encrypt)(index);
        let part = json!({ "type": "summary_text", "text": summary });
        self.added(&json!({
            "type": "reasoning", "id": id, "summary": [], "encrypted_content": encrypted,
        }));
        self.push(json!({
            "type": "response.reasoning_summary_text.delta", "item_id": id, "output_index": index,
            "summary_index": 0, "delta": summary,
        }));
        self.push(json!({
            "type": "response.reasoning_summary_text.done", "item_id": id, "output_index": index,
            "summary_index": 0, "text": summary,
        }));
        self.done(&json!({
            "type": "reasoning", "id": id, "summary": [part], "encrypted_content": encrypted,
        }));
    }

    fn compaction(&mut self) {
        let encrypted = (self.context.encrypt)(self.index);
        let item = json!({ "type": "compaction", "id": self.id("cmp"), "encrypted_content": encrypted });
        self.done(&item);
    }

    fn end(&mut self, turn: &Turn) {
        let (kind, key, value) = match &turn.end {
            TurnEnd::Completed => ("completed", "usage", usage(turn.usage)),
            TurnEnd::Failed { code, message } => {
                ("failed", "error", json!({ "code": code, "message": message }))
            }
            TurnEnd::Incomplete(reason) => ("incomplete", "incomplete_details", json!({ "reason": reason })),
            TurnEnd::Open => return,
        };
        let mut response = self.response(kind);
        response[key] = value;
        self.push(json!({ "type": format!("response.{kind}"), "response": response }));
    }
}

fn add_namespace(item: &mut Value, namespace: Option<&str>) {
    if let Some(namespace) = namespace {
        item["namespace"] = namespace.into();
    }
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": { "cached_tokens": usage.cached },
        "output_tokens": usage.output,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.total.unwrap_or(usage.input + usage.output),
    })
}

/// The words of a text, each with the space behind it.
fn words(text: &str) -> Vec<&str> {
    text.split_inclusive(' ').collect()
}

/// Pieces of at least `bytes` bytes, cut between characters.
fn deltas(text: &str, bytes: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = (bytes.max(1)..rest.len()).find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(end);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(turn: &Turn, shell: ShellTool) -> String {
        let encrypt = |index: usize| format!("ENC{index}");
        let context = Context { response_id: "resp_1", model: "m", created_at: 7, shell, encrypt: &encrypt };
        let line = |event: &Event| match event {
            Event::Json(event) => event.to_string(),
            Event::Comment(text) => format!(": {text}"),
        };
        render(turn, &context).iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_turn_becomes_events() {
        let turn = Turn::of([
            Item::Reasoning("hm".into()),
            Item::Comment("still here".into()),
            Item::Text("two words".into()),
        ]);
        insta::assert_snapshot!(lines(&turn, ShellTool::ExecCommand));
    }

    #[test]
    fn a_command_is_run_with_the_tool_that_is_offered() {
        let all = [
            ShellTool::ExecCommand,
            ShellTool::ShellCommand,
            ShellTool::Shell,
            ShellTool::LocalShell,
            ShellTool::Code,
        ];
        let done = all.map(|shell| {
            let lines = lines(&Turn::shell("echo \"hi\""), shell);
            lines.lines().find(|line| line.contains("output_item.done")).unwrap().to_owned()
        });
        insta::assert_snapshot!(done.join("\n"));
    }

    #[test]
    fn turns_end_in_all_ways() {
        let failed = TurnEnd::Failed { code: "server_error".into(), message: "x".into() };
        let ends = [failed, TurnEnd::Incomplete("max_output_tokens".into()), TurnEnd::Completed];
        let last = ends.map(|end| {
            let lines = lines(&Turn::of([Item::Compaction {}]).ending(end), ShellTool::Shell);
            lines.lines().last().unwrap().to_owned()
        });
        insta::assert_snapshot!(last.join("\n"));
        assert_eq!(lines(&Turn::default().ending(TurnEnd::Open), ShellTool::Shell).lines().count(), 2);
    }

    proptest! {
        #[test]
        fn deltas_are_the_text(text in "\\PC{0,60}", bytes in 0_usize..20) {
            let pieces = deltas(&text, bytes);
            prop_assert_eq!(&pieces.concat(), &text);
            let all_but_last = pieces.len().saturating_sub(1);
            prop_assert!(pieces[..all_but_last].iter().all(|piece| piece.len() >= bytes.max(1)));
        }
    }
}
