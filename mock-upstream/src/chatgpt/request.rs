//! What the mock reads of a model request: the fields that rules match and that its own state is about.
//!
//! The body is looked at in place and kept by nobody. A request on a WebSocket carries only what is new;
//! what an earlier request of the conversation said is added by the caller from what was issued to it.

use wire::json::Value;
use wire::responses::RequestView;

/// The shell tool that a request offers, which differs by client version and by model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShellTool {
    /// A function `exec_command` with `{"cmd"}`.
    ExecCommand,
    /// A function `shell_command` with `{"command"}`.
    ShellCommand,
    /// A function `shell` with `{"command": [argv]}`.
    Shell,
    /// The built-in `local_shell` tool.
    LocalShell,
    /// A free-text tool `exec` in the namespace `functions` that takes a script; models of the
    /// responses-lite kind have it and no other.
    Code,
}

/// A model request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ModelRequest {
    pub(crate) model: String,
    pub(crate) is_warm_up: bool,
    pub(crate) previous: Option<String>,
    /// The turn state that travels in the body, as it does on a WebSocket.
    pub(crate) turn_state: Option<String>,
    /// The text of the last user message.
    pub(crate) user_text: Option<String>,
    /// Whether the output of a tool comes behind the last user message.
    pub(crate) has_tool_output: bool,
    pub(crate) last_item: Option<String>,
    pub(crate) shell: Option<ShellTool>,
    pub(crate) encrypted: Vec<String>,
}

impl ModelRequest {
    /// Reads the JSON text of a request; of a text that is none, nothing.
    pub(crate) fn read(text: &[u8]) -> Self {
        let body = Value::new(text);
        let view = RequestView::new(text);
        let mut request = Self {
            model: view.model().unwrap_or_default().into_owned(),
            is_warm_up: view.is_warm_up(),
            previous: view.previous_response_id().map(Into::into),
            turn_state: view.turn_state().map(Into::into),
            shell: body.get("tools").and_then(|tools| offered(tools, None)),
            ..Self::default()
        };
        for item in body.get("input").into_iter().flat_map(Value::elements) {
            request.read_item(item);
        }
        request
    }

    fn read_item(&mut self, item: Value<'_>) {
        // Every item has a type but the plain messages of other clients.
        let kind = item.get("type").and_then(Value::as_str).unwrap_or("message".into());
        let role = item.get("role").and_then(Value::as_str);
        if kind == "message" && role.as_deref() == Some("user") {
            self.user_text = item.get("content").map(text_of);
            self.has_tool_output = false;
        }
        self.has_tool_output |= kind.ends_with("_output");
        if kind == "additional_tools" {
            let tools = item.get("tools").and_then(|tools| offered(tools, None));
            self.shell = tools.or(self.shell);
        }
        let encrypted = item.get("encrypted_content").and_then(Value::as_str);
        self.encrypted.extend(encrypted.map(Into::into));
        self.last_item = Some(kind.into_owned());
    }

    /// Whether the client asks for a compaction on the ordinary route.
    pub(crate) fn is_compaction(&self) -> bool {
        self.last_item.as_deref() == Some("compaction_trigger")
    }
}

/// The text of a message's content, whichever way it is written.
fn text_of(content: Value<'_>) -> String {
    if let Some(text) = content.as_str() {
        return text.into_owned();
    }
    let texts = content.elements().filter_map(|part| part.get("text").and_then(Value::as_str));
    texts.collect::<Vec<_>>().join("\n")
}

/// The shell tool among these tools, those of namespaces included.
fn offered(tools: Value<'_>, namespace: Option<&str>) -> Option<ShellTool> {
    tools.elements().find_map(|tool| {
        let text = |key: &str| tool.get(key).and_then(Value::as_str);
        let (kind, name) = (text("type").unwrap_or_default(), text("name").unwrap_or_default());
        match (&*kind, &*name) {
            ("namespace", name) => tool.get("tools").and_then(|tools| offered(tools, Some(name))),
            ("function", "exec_command") => Some(ShellTool::ExecCommand),
            ("function", "shell_command") => Some(ShellTool::ShellCommand),
            ("function", "shell") => Some(ShellTool::Shell),
            ("local_shell", _) => Some(ShellTool::LocalShell),
            ("custom", "exec") if namespace == Some("functions") => Some(ShellTool::Code),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_turn_with_its_history_is_read() {
        let request = ModelRequest::read(
            br#"{"model":"m","input":[
              {"type":"message","role":"developer","content":[{"type":"input_text","text":"rules"}]},
              {"type":"message","role":"user","content":[{"type":"input_text","text":"one"}]},
              {"type":"function_call_output","call_id":"c","output":"x"},
              {"type":"reasoning","encrypted_content":"E1","summary":[]},
              {"type":"message","role":"user","content":[{"text":"two"},{"text":"three"}]},
              {"type":"custom_tool_call_output","call_id":"c","output":[]}],
              "tools":[{"type":"web_search"},{"type":"function","name":"exec_command"}]}"#,
        );
        assert_eq!(request.user_text.as_deref(), Some("two\nthree"));
        assert_eq!(request.encrypted, ["E1"]);
        assert_eq!(request.shell, Some(ShellTool::ExecCommand));
        assert_eq!(request.last_item.as_deref(), Some("custom_tool_call_output"));
        assert!(request.has_tool_output && !request.is_warm_up && !request.is_compaction());
    }

    #[test]
    fn what_only_a_websocket_has_is_read() {
        let request = ModelRequest::read(
            br#"{"type":"response.create","generate":false,"previous_response_id":"r1",
              "client_metadata":{"x-codex-turn-state":"ts"},
              "input":[{"type":"additional_tools","tools":[{"type":"namespace","name":"functions",
                "tools":[{"type":"custom","name":"exec"}]}]},{"type":"compaction_trigger"}]}"#,
        );
        assert!(request.is_warm_up && request.is_compaction());
        assert_eq!(request.previous.as_deref(), Some("r1"));
        assert_eq!(request.turn_state.as_deref(), Some("ts"));
        assert_eq!(request.shell, Some(ShellTool::Code));
        assert_eq!(request.user_text, None);
    }

    #[test]
    fn nothing_is_read_of_what_is_no_request() {
        for text in ["", "[]", "null", "{\"input\":\"hello\"}", "{\"input\":[1,null,{}]}"] {
            let request = ModelRequest::read(text.as_bytes());
            assert_eq!((request.previous, request.user_text), (None, None), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..400) {
            let _ = ModelRequest::read(&bytes);
            let text = br#"{"model":"m","input":[{"type":"message","role":"user","content":[{"text":"x"}]},
                {"type":"additional_tools","tools":[{"type":"namespace","tools":[{}]}]}],"generate":false}"#;
            let _ = ModelRequest::read(&text[..cut.min(text.len())]);
        }
    }
}
