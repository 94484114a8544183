//! Sessions of Claude Code and Gemini CLI that are worth recording: what a mock says, what they are asked.
//!
//! The mock knows nothing of their protocols: what it answers stands here as bytes. The shapes are those of
//! `wire-facts` 3 and 4 (measured with Claude Code 2.1.197 and Gemini CLI 0.61.0 in November 2026).

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use mock_upstream::Script;
use mock_upstream::script::{CallName, Reply, Rule, When};
use serde_json::Value;

use crate::clients::claude::{Claude, Login};
use crate::clients::gemini::Gemini;
use crate::clients::{DriveError, Kind};

mod claude;
mod gemini;

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
    /// Whether the client sends its prompts and tools whole. They are nine tenths of a recording and the same in
    /// each.
    is_whole: bool,
    /// How often the client asks in all. Only the recovery behind a fault needs more than once.
    attempts: u32,
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
                let mut gemini = Gemini::new(program, base_url, CREDENTIAL, self.attempts).await?;
                if !self.is_whole {
                    gemini.be_brief()?;
                }
                for (at, prompt) in self.prompts.iter().enumerate() {
                    gemini.ask(prompt, at > 0, limit).await?;
                }
            }
            Kind::Claude | Kind::Codex => {
                let login = if self.mode == OAUTH { Login::OAuth } else { Login::Key };
                let mut claude = Claude::new(program, base_url, login, CREDENTIAL).await?;
                if !self.is_whole {
                    claude.be_brief();
                }
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
        Kind::Claude => claude::sessions(),
        Kind::Gemini => gemini::sessions(),
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

/// A text in a content coding. Brotli has no encoder here; it gets a block that is not compressed (RFC 7932 §9.2).
fn coded(coding: &str, text: &str) -> Vec<u8> {
    const IN_MEMORY: &str = "compressing from memory into memory does not fail";
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).expect(IN_MEMORY)
        }
        "zstd" => zstd::encode_all(text.as_bytes(), 0).expect(IN_MEMORY),
        _ => brotli(text.as_bytes()),
    }
}

/// At most 64 KiB in one block.
fn brotli(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).saturating_sub(1) & 0xFFFF;
    // From the lowest bit: WBITS 0 (16), ISLAST 0, MNIBBLES 00 (4), MLEN - 1 in 16 bits, ISUNCOMPRESSED 1.
    let bits = length << 4 | 1 << 20;
    // Behind the block: ISLAST 1, ISLASTEMPTY 1.
    [&bits.to_le_bytes()[..3], text, &[0b11]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_brotli_is_what_others_read() {
        // node 20 reads it as `data: hello` and an empty line.
        assert_eq!(coded("br", "data: hello\n\n"), b"\xC0\x00\x10data: hello\n\n\x03");
    }

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
