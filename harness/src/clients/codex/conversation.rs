//! Several turns in one process: Codex as the server of its own protocol, which editors use.
//!
//! `codex app-server` takes JSON-RPC messages on its standard input, a line each, and answers on its standard
//! output. The shapes are those that `codex app-server generate-json-schema` of 0.149.1 and 0.169.0 writes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Codex, Reach};
use crate::clients::DriveError;
use crate::process::{Dialog, Program, Running, Stopped};

/// A process of Codex with one thread.
#[derive(Debug)]
pub struct Conversation {
    running: Running,
    dialog: Dialog,
    thread: String,
    asked: u64,
    limit: Duration,
}

impl Codex {
    /// Starts a process that stays between its turns. Each of its answers may take as long as `limit`.
    ///
    /// # Errors
    /// When the client cannot be run, or does not begin a thread.
    pub async fn converse(&self, limit: Duration) -> Result<Conversation, DriveError> {
        let (path, before) = match &self.reach {
            Reach::Endpoint(_) => (&self.program, &[][..]),
            Reach::Wrapper(wrapper) => (&wrapper.program, &wrapper.arguments[..]),
        };
        let program = Program::new(path)
            .args(before.iter().cloned())
            .args(["app-server"])
            .args(self.settings())
            .envs(self.sandbox.environment())
            .directory(self.sandbox.work());
        let (running, dialog) = program.start_dialog()?;
        let mut begun = Conversation { running, dialog, thread: String::new(), asked: 0, limit };
        let client = json!({ "name": "laboratory", "title": "laboratory", "version": "0.0.0" });
        begun.request("initialize", &json!({ "clientInfo": client })).await?;
        begun.dialog.say(&json!({ "method": "initialized" }).to_string()).await?;
        let start = json!({ "approvalPolicy": "never", "sandbox": "danger-full-access" });
        let started = begun.request("thread/start", &start).await?;
        let thread = started["thread"]["id"].as_str();
        begun.thread = thread.ok_or_else(|| odd(&format!("no thread in {started}")))?.to_owned();
        Ok(begun)
    }
}

impl Conversation {
    /// One turn more: the last message of the assistant, or the error that ended it.
    ///
    /// # Errors
    /// When the client breaks off, or takes too long.
    pub async fn ask(&mut self, prompt: &str) -> Result<Result<String, String>, DriveError> {
        let input = json!([{ "type": "text", "text": prompt }]);
        let turn = json!({ "threadId": self.thread, "input": input });
        self.request("turn/start", &turn).await?;
        let mut text = String::new();
        loop {
            let message = self.hear().await?;
            let told = &message["params"];
            match message["method"].as_str().unwrap_or_default() {
                "item/completed" if told["item"]["type"] == "agentMessage" => {
                    text = told["item"]["text"].as_str().unwrap_or_default().to_owned();
                }
                "turn/completed" if told["turn"]["status"] == "completed" => return Ok(Ok(text)),
                "turn/completed" => return Ok(Err(told["turn"].to_string())),
                _ => {}
            }
        }
    }

    /// Ends the process.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn end(self) -> Result<Stopped, DriveError> {
        drop(self.dialog);
        Ok(self.running.stop(self.limit).await?)
    }

    /// Asks for something, and waits for the answer.
    async fn request(&mut self, method: &str, params: &Value) -> Result<Value, DriveError> {
        self.asked += 1;
        let id = self.asked;
        self.dialog.say(&json!({ "id": id, "method": method, "params": params }).to_string()).await?;
        loop {
            let mut message = self.hear().await?;
            if message["id"] == id && message["method"].is_null() {
                return match message["error"].is_null() {
                    true => Ok(message["result"].take()),
                    false => Err(odd(&format!("{method}: {}", message["error"])).into()),
                };
            }
        }
    }

    async fn hear(&mut self) -> Result<Value, DriveError> {
        let line = tokio::time::timeout(self.limit, self.dialog.hear()).await;
        let line = line.map_err(|_| odd("it says nothing for too long"))??;
        let line = line.ok_or_else(|| odd(&format!("it broke off: {}", self.running.stderr())))?;
        Ok(serde_json::from_str(&line).unwrap_or_default())
    }
}

fn odd(what: &str) -> std::io::Error {
    std::io::Error::other(what.to_owned())
}
