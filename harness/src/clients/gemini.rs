//! Gemini CLI without a person: one prompt, one answer, pointed at a backend by its environment.
//!
//! Its bundle is run by the `node` in `PATH`. The settings keep it off every address but the one it is
//! given (`wire-facts` 4 and 7, measured with 0.61.0 in November 2026).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::DriveError;
use crate::process::{Finished, Program};
use crate::sandbox::Sandbox;
use crate::tripwire::Tripwire;

/// A Gemini CLI in a place of its own. Dropping it removes the place.
#[derive(Debug)]
pub struct Gemini {
    bundle: PathBuf,
    sandbox: Sandbox,
    tripwire: Tripwire,
    attempts: u32,
}

impl Gemini {
    /// Makes a place for a client that finds its backend at `base_url`, shows `key` there, and asks `attempts`
    /// times in all before it gives up.
    ///
    /// # Errors
    /// When the place or the tripwire cannot be made.
    pub async fn new(bundle: &Path, base_url: &str, key: &str, attempts: u32) -> Result<Self, DriveError> {
        let mut sandbox = Sandbox::new("gemini")?;
        let tripwire = Tripwire::start().await?;
        let place = sandbox.home().join(".gemini");
        std::fs::create_dir(&place)?;
        std::fs::write(place.join("settings.json"), settings(attempts, false).to_string())?;
        for (name, value) in tripwire.variables() {
            sandbox.set(name, value);
        }
        sandbox.set("GOOGLE_GEMINI_BASE_URL", base_url);
        sandbox.set("GEMINI_API_KEY", key);
        sandbox.set("GEMINI_CLI_TRUST_WORKSPACE", "true");
        Ok(Self { bundle: bundle.to_owned(), sandbox, tripwire, attempts })
    }

    /// Lets it send one tool and a prompt of a sentence in place of its own, which are 50 kB.
    ///
    /// # Errors
    /// When its settings cannot be written.
    pub fn be_brief(&mut self) -> std::io::Result<()> {
        let place = self.sandbox.home().join(".gemini");
        std::fs::write(place.join("settings.json"), settings(self.attempts, true).to_string())?;
        let prompt = place.join("system.md");
        std::fs::write(&prompt, "Be brief.\n")?;
        self.sandbox.set("GEMINI_SYSTEM_MD", prompt);
        Ok(())
    }

    /// Asks once. With `resume` the last conversation of this place is continued.
    ///
    /// # Errors
    /// When the client cannot be run. That it fails is an outcome.
    pub async fn ask(&self, prompt: &str, resume: bool, limit: Duration) -> Result<Finished, DriveError> {
        let mut arguments = vec!["-p", prompt, "-m", MODEL, "--output-format", "json"];
        arguments.extend(["--approval-mode", "yolo"]);
        arguments.extend(resume.then_some(["--resume", "latest"]).into_iter().flatten());
        // The sandbox puts a directory of its own in front of `PATH`, so `env` finds what the user would.
        let program = Program::new("/usr/bin/env")
            .args(["node".as_ref(), self.bundle.as_os_str()])
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

/// A model by name spares the request that chooses one.
const MODEL: &str = "gemini-2.5-flash";

/// Without `attempts` it asks ten times, the first time again behind five seconds.
fn settings(attempts: u32, is_brief: bool) -> Value {
    let mut settings = json!({
        "security": { "auth": { "selectedType": "gemini-api-key" } },
        "general": { "disableAutoUpdate": true, "maxAttempts": attempts },
        "privacy": { "usageStatisticsEnabled": false },
        "telemetry": { "enabled": false },
    });
    if is_brief {
        settings["tools"] = json!({ "core": ["list_directory"] });
    }
    settings
}

/// The program in an installed package: `@google/gemini-cli/bundle/gemini.js`.
pub(super) fn program_in(place: &Path) -> Option<PathBuf> {
    let bundle = place.join("node_modules/@google/gemini-cli/bundle/gemini.js");
    bundle.is_file().then_some(bundle)
}
