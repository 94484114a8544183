//! Our proxy as the laboratory starts any: by its program, its `serve` contract and its exit code.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::clients::codex::{Endpoint, Wrapper};
use harness::compat::Check;
use harness::mock::{Account, Mock};
use harness::process::{Exit, Program, Running};
use harness::run_log::RunLog;
use harness::sandbox::Sandbox;

/// How long the proxy may take for anything.
const LIMIT: Duration = Duration::from_secs(30);

/// What a run log of a laboratory run never holds: each would be an attempt to go elsewhere, or something
/// about the mock that the proxy did not understand.
const TROUBLE: [&str; 5] = [
    "upstream_connect_error",
    "upstream_connect_dns_error",
    "upstream_connect_timeout",
    "upstream_tls_handshake_error",
    "compat_warning",
];

/// The proxy's home within that of its sandbox.
const FOLDER: &str = "prodex";

/// A home with a profile for each account, twice: its login and its API key.
#[derive(Debug)]
pub(crate) struct Home {
    program: std::path::PathBuf,
    sandbox: Sandbox,
}

impl Home {
    /// Makes the home, each profile with the name of its account.
    pub(crate) async fn make(program: &Path, accounts: &[Account]) -> Result<Self> {
        Self::named(program, accounts.iter().map(|account| account.id.as_str()), accounts).await
    }

    /// Makes the home with the commands that a person would use.
    pub(crate) async fn named(
        program: &Path,
        names: impl IntoIterator<Item = &str>,
        accounts: &[Account],
    ) -> Result<Self> {
        let home = Self::empty(program)?;
        for (name, account) in names.into_iter().zip(accounts) {
            home.add(name, &account.auth_json()).await?;
            if let Some(key) = &account.api_key {
                let file = serde_json::json!({"auth_mode": "apikey", "OPENAI_API_KEY": key});
                home.add(&format!("{name}-key"), &file).await?;
            }
        }
        Ok(home)
    }

    fn empty(program: &Path) -> Result<Self> {
        let mut sandbox = Sandbox::new("proxy")?;
        sandbox.set("PRODEX_HOME", sandbox.home().join(FOLDER));
        sandbox.set("PRODEX_RUNTIME_LOG_DIR", sandbox.logs());
        Ok(Self { program: program.to_owned(), sandbox })
    }

    /// Another home with the same profiles: what a proxy of the one learns, those of the other do not know.
    pub(crate) fn copy(&self) -> Result<Self> {
        let copy = Self::empty(&self.program)?;
        let (from, to) = (self.sandbox.home().join(FOLDER), copy.sandbox.home().join(FOLDER));
        copy_folder(&from, &to).with_context(|| format!("failed to copy {}", from.display()))?;
        Ok(copy)
    }

    async fn add(&self, name: &str, auth: &serde_json::Value) -> Result<()> {
        let file = self.sandbox.root().join(format!("{name}.json"));
        std::fs::write(&file, auth.to_string())
            .with_context(|| format!("failed to write {}", file.display()))?;
        let arguments = ["profile", "add", name, "--from"].map(OsString::from);
        let finished = self.program().args(arguments).args([file.as_os_str()]).run(LIMIT).await?;
        if finished.exit.and_then(Exit::code) != Some(0) {
            bail!("failed to add profile {name}: {}", finished.stderr.trim());
        }
        Ok(())
    }

    fn program(&self) -> Program {
        Program::new(&self.program).envs(self.sandbox.environment())
    }

    /// Starts the proxy in front of an upstream.
    pub(crate) async fn serve(&self, upstream: &str, tls: bool) -> Result<Serving> {
        let mut program = self.program().args(["serve", "--print-ready", "--upstream", upstream]);
        if tls {
            program = program.args(["--tls"]);
        }
        let (running, ready) = program.start_ready("prodex-ready ", LIMIT).await?;
        let endpoint = Endpoint::of_ready(&ready).context("the ready line names no address")?;
        let base_url = ready["base_url"].as_str().context("the ready line names no base_url")?.to_owned();
        Ok(Serving { running, base_url, endpoint })
    }

    /// How a client is started by `prodex run` in front of a mock.
    pub(crate) fn wrapper(&self, mock: &Mock, tls: bool) -> Wrapper {
        let mut arguments: Vec<OsString> = vec!["run".into(), "--upstream".into(), mock.base_url().into()];
        if tls {
            arguments.push("--tls".into());
        }
        arguments.push("--".into());
        let ours = ["PRODEX_HOME", "PRODEX_RUNTIME_LOG_DIR"];
        let variables = self.sandbox.environment();
        let variables =
            variables.into_iter().filter(|(name, _)| ours.iter().any(|ours| name == ours)).collect();
        Wrapper { program: self.program.clone(), arguments, variables }
    }

    /// What a shell does that kills the proxies of this home. Their sockets have the names of their processes.
    pub(crate) fn kill(&self) -> String {
        let sockets = self.sandbox.home().join(FOLDER).join("run");
        format!("for s in {}/*.sock; do kill -9 \"$(basename \"$s\" .sock)\"; done", sockets.display())
    }

    /// Whether the proxy met only what it knows. Looks at the newest run log of this home.
    pub(crate) fn check_log(&self) -> Check {
        let what = "the run log tells of no trouble with the upstream".to_owned();
        let trouble = match RunLog::latest(&self.sandbox.logs()) {
            Ok(log) => {
                let lines = log.lines.iter().filter(|line| TROUBLE.contains(&line.event.as_str()));
                lines.map(|line| format!("{} {:?}", line.event, line.fields)).collect::<Vec<_>>().join("; ")
            }
            Err(error) => error.to_string(),
        };
        Check { what, ok: trouble.is_empty(), seen: trouble }
    }
}

/// Copies a folder with all that is in it, for its owner's eyes only.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if entry.is_dir() {
            copy_folder(&entry, &to)?;
        } else {
            std::fs::copy(&entry, &to)?;
        }
    }
    Ok(())
}

/// A proxy that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    running: Running,
    pub(crate) base_url: String,
    pub(crate) endpoint: Endpoint,
}

impl Serving {
    /// Asks the proxy to end, and says how it did.
    pub(crate) async fn stop(self) -> Result<Check> {
        let stopped = self.running.stop(LIMIT).await?;
        let is_clean =
            stopped.exit.and_then(Exit::code) == Some(0) && !stopped.killed && stopped.stragglers.is_empty();
        let seen = if is_clean { String::new() } else { format!("{stopped:?}") };
        Ok(Check { what: "the proxy drains and leaves nothing behind".to_owned(), ok: is_clean, seen })
    }
}
