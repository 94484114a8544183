//! Reading a script from text, and refusing one that could not be played.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Frame, Reply, Rule, Script, Transport, Write};

/// Why a text is not a script.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file cannot be read.
    #[error("read the script {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, or not the TOML of a script; the text names line and key.
    #[error("parse the script as TOML: {0}")]
    Toml(Box<toml::de::Error>),
    /// Not JSON, or not the JSON of a script; the text names line and column.
    #[error("parse the script as JSON: {0}")]
    Json(serde_json::Error),
    /// A rule that could not be played.
    #[error("use rule {rule}: {problem}")]
    Rule {
        /// The rule's name, or its number counted from 1.
        rule: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Accounts that cannot exist together.
    #[error("use account {account}: {problem}")]
    Account {
        /// The account's id.
        account: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Script {
    /// Reads a script from TOML.
    ///
    /// # Errors
    /// When the text is not one.
    pub fn from_toml(text: &str) -> Result<Self, ScriptError> {
        let script: Self = toml::from_str(text).map_err(|error| ScriptError::Toml(Box::new(error)))?;
        script.check()?;
        Ok(script)
    }

    /// Reads a script from JSON.
    ///
    /// # Errors
    /// When the text is not one.
    pub fn from_json(text: &[u8]) -> Result<Self, ScriptError> {
        let script: Self = serde_json::from_slice(text).map_err(ScriptError::Json)?;
        script.check()?;
        Ok(script)
    }

    /// Reads a file: JSON if its name ends so, else TOML.
    ///
    /// # Errors
    /// When the file cannot be read or is not a script.
    pub fn from_file(path: &Path) -> Result<Self, ScriptError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScriptError::Read { path: path.to_owned(), source })?;
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if is_json { Self::from_json(text.as_bytes()) } else { Self::from_toml(&text) }
    }

    /// Refuses what has the shape of a script and could not be played.
    ///
    /// # Errors
    /// When a rule contradicts itself or two accounts share a credential.
    pub fn check(&self) -> Result<(), ScriptError> {
        for (at, rule) in self.rules.iter().enumerate() {
            if let Some(problem) = rule_problem(rule) {
                let rule = rule.name.clone().unwrap_or_else(|| format!("{}", at + 1));
                return Err(ScriptError::Rule { rule, problem });
            }
        }
        for (at, account) in self.accounts.iter().enumerate() {
            let earlier = &self.accounts[..at];
            let problem = if earlier.iter().any(|other| other.id == account.id) {
                "another account has the same id"
            } else if earlier.iter().any(|other| other.shares_credential_with(account)) {
                "another account has the same credential"
            } else {
                continue;
            };
            return Err(ScriptError::Account { account: account.id.clone(), problem });
        }
        Ok(())
    }
}

fn rule_problem(rule: &Rule) -> Option<&'static str> {
    let on_socket = rule.when.transport == Some(Transport::Websocket);
    match &rule.reply {
        Reply::Frames(frames) => {
            if !on_socket {
                return Some("frames can only be sent with when.transport = \"websocket\"");
            }
            frames.iter().find_map(frame_problem)
        }
        Reply::Stream(stream) => {
            if on_socket {
                return Some("a stream cannot be sent on a WebSocket; use frames");
            }
            if stream.writes.iter().any(|write| matches!(write, Write::Base64(text) if !is_base64(text))) {
                return Some("a write is not base64");
            }
            head_problem(stream.status, &stream.headers)
        }
        Reply::Http(http) => {
            if http.body.is_some() && http.json.is_some() {
                return Some("a response has either body or json");
            }
            head_problem(http.status, &http.headers)
        }
        Reply::Turn(turn) => {
            if rule.when.transport == Some(Transport::Upgrade) {
                return Some("a handshake cannot be answered with a turn");
            }
            head_problem(200, &turn.headers)
        }
        Reply::Default => None,
    }
}

fn frame_problem(frame: &Frame) -> Option<&'static str> {
    match frame {
        Frame::Binary(text) if !is_base64(text) => Some("a binary frame is not base64"),
        Frame::Ping(text) if text.len() > 125 => Some("a ping holds at most 125 bytes"),
        Frame::Close { reason, .. } if reason.len() > 123 => Some("a close reason holds at most 123 bytes"),
        Frame::Fragments(parts) if parts.is_empty() => Some("a message has at least one fragment"),
        _ => None,
    }
}

fn head_problem(status: u16, headers: &[(String, String)]) -> Option<&'static str> {
    if !(200..1000).contains(&status) {
        return Some("the status of a final response is 200 to 999");
    }
    let is_token = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let is_line = |value: &str| !value.contains(['\r', '\n', '\0']);
    let is_sound = headers.iter().all(|(name, value)| is_token(name) && is_line(value));
    if is_sound { None } else { Some("a header field cannot be written as a line") }
}

fn is_base64(text: &str) -> bool {
    STANDARD.decode(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{Item, Turn};

    #[test]
    fn a_script_is_read_from_toml() {
        let script = Script::from_toml(
            r#"
            continuation = "connection"
            [pacing]
            gap_ms = 5

            [[account]]
            id = "acct-a"
            turns_left = 1
            window = [{ seconds = 18000, used_percent = 12.5, resets_in = 60 }]

            [[rule]]
            when = { user_text = "run", has_tool_output = false, transport = "http" }
            reply.turn.output = [{ reasoning = "thinking" }, { shell = "echo hi" }, { compaction = {} }]
            times = 1

            [[rule]]
            reply.http = { status = 429, json = { error = { type = "usage_limit_reached" } } }
            fault = { at = { events = 2 }, end = "reset" }

            [[rule]]
            when.call = "models"
            reply.stream = { writes = [{ text = "x" }, { pause_ms = 3 }, { base64 = "AAE=" }] }
            "#,
        )
        .unwrap();
        assert_eq!(script.rules.len(), 3);
        let turn = Turn::of([
            Item::Reasoning("thinking".into()),
            Item::Shell("echo hi".into()),
            Item::Compaction {},
        ]);
        assert_eq!(script.rules[0].reply, Reply::Turn(turn));
        let json = serde_json::to_vec(&script).unwrap();
        assert_eq!(Script::from_json(&json).unwrap(), script);
    }

    #[test]
    fn mistakes_name_their_place() {
        let toml = |text: &str| Script::from_toml(text).unwrap_err().to_string();
        insta::assert_snapshot!(toml("[[rule]]\nreply.turn = {}\nwhen = { user_txt = \"x\" }"), @r#"
        parse the script as TOML: TOML parse error at line 3, column 10
          |
        3 | when = { user_txt = "x" }
          |          ^^^^^^^^
        unknown field `user_txt`, expected one of `call`, `transport`, `warm_up`, `account`, `user_text`, `has_tool_output`, `last_item`, `model`, `target`, `body`
        "#);
        insta::assert_snapshot!(toml("[[rule]]\nreply.frames = [{ ping = \"\" }]"), @r#"use rule 1: frames can only be sent with when.transport = "websocket""#);
        insta::assert_snapshot!(toml("[[account]]\nid = \"a\"\n[[account]]\nid = \"a\""), @"use account a: another account has the same id");
        let json = Script::from_json(b"{\"rule\": [\n{\"reply\": \"nothing\"}]}").unwrap_err().to_string();
        insta::assert_snapshot!(json, @"parse the script as JSON: unknown variant `nothing`, expected one of `turn`, `http`, `stream`, `frames`, `default` at line 2 column 19");
    }

    #[test]
    fn what_could_not_be_played_is_refused() {
        for (rule, problem) in [
            ("reply.http = { status = 200, body = \"a\", json = 1 }", "either"),
            ("reply.http = { status = 99 }", "status"),
            ("reply.http = { status = 200, headers = [[\"a b\", \"c\"]] }", "line"),
            ("reply.stream = { writes = [{ base64 = \"?\" }] }", "base64"),
            ("when.transport = \"websocket\"\nreply.stream = { writes = [] }", "frames"),
            ("when.transport = \"upgrade\"\nreply.turn = {}", "handshake"),
            ("when.transport = \"websocket\"\nreply.frames = [{ fragments = [] }]", "fragment"),
        ] {
            let error = Script::from_toml(&format!("[[rule]]\n{rule}")).unwrap_err().to_string();
            assert!(error.contains(problem), "{rule}: {error}");
        }
    }
}
