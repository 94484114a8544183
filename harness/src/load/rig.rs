//! The processes of a run: the bulk mock, a proxy in front of it, the driver as a program of its own.
//!
//! Each lives in a place of its own that is gone with it, whatever happens. The proxy is driven as a person
//! drives it: profiles are added by its command, and its ready line says where it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mock_upstream::{Account, content};
use nix::sys::signal::Signal;

use super::driver::{Measured, Progress};
use super::plan::{Plan, Target};
use crate::process::{Exit, ProcessError, Program, Running};
use crate::run_log;
use crate::sandbox::Sandbox;

/// How long a program may take to be ready.
const READY: Duration = Duration::from_secs(20);

/// How long a program may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);

/// Why there are no processes to measure.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// A program did not do what it was started for.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file or directory of the run.
    #[error("{what}")]
    File {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The proxy did not take a profile.
    #[error("add the profile {profile} with `{program} profile add`: {stderr}")]
    Profile {
        /// Which.
        profile: String,
        /// The proxy's program.
        program: PathBuf,
        /// What it said.
        stderr: String,
    },
    /// A program's ready line says something else than agreed.
    #[error("find {what} in a ready line")]
    Ready {
        /// What is missing.
        what: &'static str,
    },
    /// The driver ended without a result.
    #[error("read what the driver measured: {problem}; its last words: {stderr}")]
    Result {
        /// What is wrong with it.
        problem: String,
        /// What the driver said.
        stderr: String,
    },
}

/// Something that was started for a run, and where it is.
#[derive(Debug)]
pub struct Started {
    running: Running,
    /// Its base URL.
    pub base_url: String,
    /// Where it writes its run logs, if it does.
    pub logs: PathBuf,
    // Removed when it goes.
    _sandbox: Sandbox,
}

impl Started {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(self) -> Result<(), RigError> {
        self.running.stop(GRACE).await?;
        Ok(())
    }
}

/// The accounts that a bulk mock and the profiles of a proxy in front of it have in common.
#[must_use]
pub fn accounts(number: usize) -> Vec<Account> {
    (0..number).map(|number| Account::new(content::account_name(number))).collect()
}

/// Starts a bulk mock that knows so many accounts.
///
/// # Errors
/// When it does not start.
pub async fn start_mock(program: &Path, number: usize, threads: usize) -> Result<Started, RigError> {
    let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    start_mock_at(program, number, threads, anywhere).await
}

/// The same, at an address that somebody forwards to.
///
/// # Errors
/// When it does not start.
pub async fn start_mock_at(
    program: &Path,
    number: usize,
    threads: usize,
    listen: std::net::SocketAddr,
) -> Result<Started, RigError> {
    let sandbox = sandbox("load-mock")?;
    let script = sandbox.work().join("accounts.json");
    let text = serde_json::json!({ "account": accounts(number) }).to_string();
    std::fs::write(&script, text).map_err(file("write the mock's accounts"))?;
    let words = ["--bulk".to_owned(), "--threads".into(), threads.to_string(), "--print-ready".into()];
    let program = Program::new(program).args(words).args(["--listen".to_owned(), listen.to_string()]);
    let program = program.args(["--script".into(), script.into_os_string()]);
    let program = program.envs(sandbox.environment()).directory(sandbox.work());
    let (running, ready) = program.start_ready("mock-upstream-ready ", READY).await?;
    Ok(Started { running, base_url: text_of(&ready, "base_url")?, logs: sandbox.logs(), _sandbox: sandbox })
}

/// Starts a proxy with profiles for so many of the mock's accounts, in front of `upstream`. Its run logs go to
/// `logs`, or to a place of its own.
///
/// # Errors
/// When it does not take the profiles, or does not start.
pub async fn start_proxy(
    program: &Path,
    upstream: &str,
    number: usize,
    logs: Option<&Path>,
    settings: &[(String, String)],
) -> Result<Started, RigError> {
    let mut sandbox = sandbox("load-proxy")?;
    // It is started elsewhere, where a path as a person types it leads nowhere.
    let program = &std::path::absolute(program).map_err(file("find the proxy's program"))?;
    let logs = logs.map_or_else(|| sandbox.logs(), Path::to_owned);
    sandbox.set("PRODEX_HOME", sandbox.home().join("prodex"));
    sandbox.set(run_log::DIRECTORY_VARIABLE, &logs);
    for (name, value) in settings {
        sandbox.set(name, value);
    }
    for account in accounts(number) {
        let path = sandbox.root().join("auth.json");
        write_private(&path, &account.auth_json().to_string()).map_err(file("write a login"))?;
        let words =
            ["profile".into(), "add".into(), account.id.clone().into(), "--from".into(), path.clone().into()];
        let add: [std::ffi::OsString; 5] = words;
        let add = Program::new(program).args(add).envs(sandbox.environment()).directory(sandbox.work());
        let added = add.run(READY).await?;
        if added.exit != Some(Exit::Code(0)) {
            let (program, stderr) = (program.to_owned(), added.stderr);
            return Err(RigError::Profile { profile: account.id, program, stderr });
        }
        std::fs::remove_file(&path).map_err(file("remove a login"))?;
    }
    let program = Program::new(program).args(["serve", "--print-ready", "--upstream", upstream]);
    let program = program.envs(sandbox.environment()).directory(sandbox.work());
    let (running, ready) = program.start_ready("prodex-ready ", READY).await?;
    Ok(Started { running, base_url: text_of(&ready, "base_url")?, logs, _sandbox: sandbox })
}

/// Drives a plan with the driver's program. `watch` is called several times a second with how far the run is, and may
/// say why it is to end now; a driver that then does not end is killed.
///
/// # Errors
/// When the driver does not start, or leaves no result.
pub async fn drive(
    program: &Path,
    plan: &Plan,
    mut watch: impl FnMut(Option<&Progress>) -> Option<String>,
) -> Result<Measured, RigError> {
    let sandbox = sandbox("load-driver")?;
    let place = |name: &str| sandbox.work().join(name);
    let text = serde_json::to_string(plan).unwrap_or_default();
    write_private(&place("plan.json"), &text).map_err(file("write the plan"))?;
    let words = ["plan.json", "progress.json", "result.json"];
    let program = Program::new(program).args(words).envs(sandbox.environment()).directory(sandbox.work());
    let mut running = program.start()?;
    let mut why: Option<String> = None;
    let mut killed_at = None;
    loop {
        if running.wait(Duration::from_millis(200)).await?.is_some() {
            break;
        }
        let progress = std::fs::read(place("progress.json")).ok();
        let progress: Option<Progress> = progress.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let wish = watch(progress.as_ref());
        if let (None, Some(wish)) = (&why, wish) {
            why = Some(wish);
            running.signal(Signal::SIGTERM);
            killed_at = Some(std::time::Instant::now() + GRACE);
        }
        if killed_at.is_some_and(|at| std::time::Instant::now() > at) {
            running.signal(Signal::SIGKILL);
        }
    }
    let stopped = running.stop(GRACE).await?;
    let result = |problem: String| RigError::Result { problem, stderr: stopped.stderr.clone() };
    let bytes = std::fs::read(place("result.json")).map_err(|error| result(error.to_string()))?;
    let mut measured: Measured = serde_json::from_slice(&bytes).map_err(|error| result(error.to_string()))?;
    measured.cut_short = why.or(measured.cut_short);
    Ok(measured)
}

/// The target that a bulk mock is by itself.
///
/// # Errors
/// When its URL is none.
pub fn mock_target(name: &str, mock: &Started) -> Result<Target, String> {
    let account = accounts(1).remove(0);
    Ok(Target::of_url(name, &mock.base_url)?.with_account(&account))
}

fn sandbox(label: &str) -> Result<Sandbox, RigError> {
    Sandbox::new(label).map_err(file("make a place for a program"))
}

fn file(what: &'static str) -> impl Fn(std::io::Error) -> RigError {
    move |source| RigError::File { what, source }
}

fn text_of(ready: &serde_json::Value, what: &'static str) -> Result<String, RigError> {
    ready[what].as_str().map(str::to_owned).ok_or(RigError::Ready { what })
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
