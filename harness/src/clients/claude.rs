//! Claude Code without a person: one prompt, one answer, pointed at a backend by its environment.
//!
//! Its own program is started, not the wrapper in JavaScript. The settings keep it off every address but
//! the one it is given (`wire-facts` 3 and 7, measured with 2.1.197 in November 2026).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::DriveError;
use crate::process::{Finished, Program};
use crate::sandbox::Sandbox;
use crate::tripwire::Tripwire;

/// How it is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// With an API key.
    Key,
    /// With the token of a subscription.
    OAuth,
}

/// A Claude Code in a place of its own. Dropping it removes the place.
#[derive(Debug)]
pub struct Claude {
    program: PathBuf,
    sandbox: Sandbox,
    tripwire: Tripwire,
    is_brief: bool,
}

impl Claude {
    /// Makes a place for a client that finds its backend at `base_url` and shows `credential` there.
    ///
    /// # Errors
    /// When the place or the tripwire cannot be made.
    pub async fn new(
        program: &Path,
        base_url: &str,
        login: Login,
        credential: &str,
    ) -> Result<Self, DriveError> {
        let mut sandbox = Sandbox::new("claude")?;
        let tripwire = Tripwire::start().await?;
        let place = sandbox.home().join(".claude");
        std::fs::create_dir(&place)?;
        for (name, value) in tripwire.variables() {
            sandbox.set(name, value);
        }
        sandbox.set("CLAUDE_CONFIG_DIR", place);
        sandbox.set("ANTHROPIC_BASE_URL", base_url);
        sandbox.set(
            match login {
                Login::Key => "ANTHROPIC_API_KEY",
                Login::OAuth => "CLAUDE_CODE_OAUTH_TOKEN",
            },
            credential,
        );
        for (name, value) in QUIET {
            sandbox.set(name, value);
        }
        Ok(Self { program: program.to_owned(), sandbox, tripwire, is_brief: false })
    }

    /// Lets it send one tool and a prompt of a sentence in place of its own, which are more than 80 kB.
    pub fn be_brief(&mut self) {
        self.is_brief = true;
    }

    /// Asks once. `session` continues an earlier conversation.
    ///
    /// # Errors
    /// When the client cannot be run. That it fails is an outcome.
    pub async fn ask(
        &self,
        prompt: &str,
        session: Option<&str>,
        limit: Duration,
    ) -> Result<Finished, DriveError> {
        let mut arguments = vec!["-p", prompt, "--output-format", "json", "--dangerously-skip-permissions"];
        if self.is_brief {
            arguments.extend(["--tools", "Bash", "--system-prompt", "Be brief."]);
        }
        arguments.extend(session.into_iter().flat_map(|session| ["--resume", session]));
        let program = Program::new(&self.program)
            .args(arguments)
            .envs(self.sandbox.environment())
            .directory(self.sandbox.work());
        Ok(program.run(limit).await?)
    }

    /// The attempts to reach any other address.
    #[must_use]
    pub fn tripwire_hits(&self) -> Vec<String> {
        self.tripwire.hits()
    }
}

/// What keeps it quiet, quick, and willing to run its tools as root.
const QUIET: [(&str, &str); 4] = [
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("CLAUDE_CODE_MAX_RETRIES", "0"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("IS_SANDBOX", "1"),
];

/// The program in an installed package: `@anthropic-ai/claude-code-<platform>/claude`.
pub(super) fn program_in(place: &Path) -> Option<PathBuf> {
    let packages = std::fs::read_dir(place.join("node_modules/@anthropic-ai")).into_iter().flatten();
    packages
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("claude-code-"))
        .map(|entry| entry.path().join("claude"))
        .find(|path| path.is_file())
}
