//! What `codex exec --json` says, read as data.
//!
//! One JSON object a line; kinds and fields that are not known here are left alone, so that a newer client
//! is still understood as far as it says the same things.

use serde_json::Value;

/// A command that the client ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRun {
    /// What was run, as the client puts it.
    pub command: String,
    /// What it printed.
    pub output: String,
    /// Its exit code.
    pub exit_code: Option<i64>,
}

/// What a client said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The id of the thread.
    pub thread: Option<String>,
    /// The messages of the assistant.
    pub messages: Vec<String>,
    /// The reasoning summaries.
    pub reasoning: Vec<String>,
    /// The commands that were run.
    pub commands: Vec<CommandRun>,
    /// The errors, those that it recovered from among them.
    pub errors: Vec<String>,
    /// Whether the turn was completed.
    pub completed: bool,
    /// The input tokens that the turn reports.
    pub input_tokens: Option<i64>,
    /// Lines that are no JSON.
    pub skipped: usize,
}

impl Said {
    /// Reads what was written to stdout.
    #[must_use]
    pub fn read(stdout: &str) -> Self {
        let mut said = Self::default();
        for line in stdout.lines().filter(|line| !line.trim().is_empty()) {
            match serde_json::from_str::<Value>(line) {
                Ok(event) => said.take(&event),
                Err(_) => said.skipped += 1,
            }
        }
        said
    }

    /// The last message of the assistant.
    #[must_use]
    pub fn final_text(&self) -> Option<&str> {
        self.messages.last().map(String::as_str)
    }

    fn take(&mut self, event: &Value) {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match event["type"].as_str().unwrap_or_default() {
            "thread.started" => self.thread = text(&event["thread_id"]),
            "item.completed" => self.take_item(&event["item"]),
            "turn.completed" => {
                self.completed = true;
                self.input_tokens = event["usage"]["input_tokens"].as_i64();
            }
            "error" => self.errors.extend(text(&event["message"])),
            "turn.failed" => self.errors.extend(text(&event["error"]["message"])),
            _ => {}
        }
    }

    fn take_item(&mut self, item: &Value) {
        let text = |key: &str| item[key].as_str().map(str::to_owned);
        match item["type"].as_str().unwrap_or_default() {
            "agent_message" => self.messages.extend(text("text")),
            "reasoning" => self.reasoning.extend(text("text")),
            "error" => self.errors.extend(text("message")),
            "command_execution" => self.commands.push(CommandRun {
                command: text("command").unwrap_or_default(),
                output: text("aggregated_output").unwrap_or_default(),
                exit_code: item["exit_code"].as_i64(),
            }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_turn_is_read() {
        let said = Said::read(
            r#"{"type":"thread.started","thread_id":"t1"}
            {"type":"turn.started"}
            not json
            {"type":"error","message":"Reconnecting... 1/5"}
            {"type":"item.completed","item":{"type":"reasoning","text":"hm"}}
            {"type":"item.completed","item":{"type":"command_execution","command":"ls","aggregated_output":"a\n","exit_code":0}}
            {"type":"item.completed","item":{"type":"agent_message","text":"one"}}
            {"type":"item.completed","item":{"type":"agent_message","text":"two"}}
            {"type":"turn.completed","usage":{"input_tokens":12,"output_tokens":2}}"#,
        );
        assert_eq!(said.final_text(), Some("two"));
        assert_eq!(said.thread.as_deref(), Some("t1"));
        assert_eq!(
            said.commands,
            [CommandRun { command: "ls".into(), output: "a\n".into(), exit_code: Some(0) }]
        );
        assert_eq!((said.errors.len(), said.skipped, said.completed), (1, 1, true));
        assert_eq!((said.input_tokens, said.reasoning.len()), (Some(12), 1));
    }

    #[test]
    fn a_failed_turn_says_why() {
        let said = Said::read(r#"{"type":"turn.failed","error":{"message":"limit"}}"#);
        assert_eq!((said.completed, said.errors), (false, vec!["limit".into()]));
    }

    proptest! {
        #[test]
        fn anything_can_be_read(text in "(?s).{0,200}", event in "[a-z.]{0,20}") {
            let _ = Said::read(&text);
            let _ = Said::read(&format!("{{\"type\":\"{event}\",\"item\":[]}}\n[]\nnull\n{text}"));
        }
    }
}
