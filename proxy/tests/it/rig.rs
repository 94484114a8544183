//! A mock upstream and a proxy in front of it: three lines of setting for every test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::process::{Program, Running};
use harness::run_log::RunLog;
use harness::sandbox::Sandbox;
use mock_upstream::{Account, Config, Mock, Script};

use crate::client::Client;

/// Longest that anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The built program.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_prodex"))
}

/// A mock with accounts, and a proxy that pools them.
pub(crate) struct Rig {
    pub(crate) mock: Mock,
    pub(crate) server: Running,
    pub(crate) ready: serde_json::Value,
    pub(crate) sandbox: Sandbox,
}

/// What a rig is started with.
pub(crate) struct Setting {
    script: Script,
    profiles: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Setting {
    /// Accounts with these ids, each with a profile of the same name, and this script.
    pub(crate) fn new(profiles: &[&str], script: Script) -> Self {
        let known: Vec<String> = script.accounts.iter().map(|account| account.id.clone()).collect();
        let missing = profiles.iter().filter(|id| !known.iter().any(|known| known == *id));
        let script = missing.fold(script, |script, id| script.account(Account::new(*id)));
        let profiles = profiles.iter().map(|id| (*id).to_owned()).collect();
        Self { script, profiles, arguments: Vec::new(), environment: Vec::new() }
    }

    /// With a further argument for `prodex serve`.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With a setting from the environment.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) async fn start(self) -> Rig {
        let mut sandbox = Sandbox::new("proxy").unwrap();
        sandbox.set("PRODEX_HOME", sandbox.home().join("prodex"));
        sandbox.set("PRODEX_RUNTIME_LOG_DIR", sandbox.logs());
        for (name, value) in &self.environment {
            sandbox.set(name, value);
        }
        for id in &self.profiles {
            let account = self.script.accounts.iter().find(|account| account.id == *id).unwrap();
            add_profile(&sandbox, account).await;
        }
        let mock = Mock::start(Config::script(self.script)).await.unwrap();
        let mut arguments = vec!["serve", "--print-ready", "--upstream", mock.base_url()];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let program = Program::new(program()).args(arguments).envs(sandbox.environment());
        let (server, ready) = program.start_ready("prodex-ready ", LIMIT).await.unwrap();
        Rig { mock, server, ready, sandbox }
    }
}

/// Adds a profile for an account by the command that a person would use.
pub(crate) async fn add_profile(sandbox: &Sandbox, account: &Account) {
    let file = sandbox.root().join(format!("{}.json", account.id));
    std::fs::write(&file, account.auth_json().to_string()).unwrap();
    let finished =
        prodex(sandbox, &["profile", "add", &account.id, "--from", &file.display().to_string()]).await;
    assert_eq!(finished.exit.and_then(harness::process::Exit::code), Some(0), "{}", finished.stderr);
}

/// Runs the program to its end.
pub(crate) async fn prodex(sandbox: &Sandbox, arguments: &[&str]) -> harness::process::Finished {
    let program = Program::new(program()).args(arguments.iter().copied()).envs(sandbox.environment());
    program.run(LIMIT).await.unwrap()
}

impl Rig {
    /// A client's connection to the proxy.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.port()).await
    }

    /// The port that the proxy listens on.
    pub(crate) fn port(&self) -> u16 {
        let base = self.ready["base_url"].as_str().unwrap();
        let authority = base.split("://").nth(1).unwrap().split('/').next().unwrap();
        authority.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// What stands in front of every path: the capability.
    pub(crate) fn prefix(&self) -> String {
        let base = self.ready["base_url"].as_str().unwrap();
        base.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default()
    }

    /// The run log so far.
    pub(crate) fn log(&self) -> RunLog {
        RunLog::latest(Path::new(&self.sandbox.logs())).unwrap()
    }

    /// Ends the proxy and the mock, and returns the run log.
    pub(crate) async fn stop(self) -> RunLog {
        let stopped = self.server.stop(LIMIT).await.unwrap();
        assert!(stopped.stragglers.is_empty() && !stopped.killed, "{stopped:?}");
        let log = RunLog::latest(Path::new(&self.sandbox.logs())).unwrap();
        self.mock.stop().await;
        log
    }
}
