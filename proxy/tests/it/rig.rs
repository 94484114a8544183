//! A mock upstream and a proxy in front of it: three lines of setting for every test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use harness::process::{Exit, Finished, Program, Running};
use harness::run_log::RunLog;
use harness::sandbox::Sandbox;
use mock_upstream::script::CallName;
use mock_upstream::{Account, Config, Exchange, Mock, Script};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::connection::Connection;

/// Longest that anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The built program.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_prodex"))
}

/// What a mock and a proxy are started with.
pub(crate) struct Setting {
    script: Script,
    /// Names and the text of each one's `auth.json`.
    profiles: Vec<(String, String)>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Setting {
    /// Accounts with these ids, each with a profile of the same name, and this script.
    pub(crate) fn new(profiles: &[&str], mut script: Script) -> Self {
        for id in profiles {
            if script.accounts.iter().all(|account| account.id != *id) {
                script = script.account(Account::new(*id));
            }
        }
        let find = |id: &&str| script.accounts.iter().find(|account| account.id == **id).unwrap();
        let auth = |id: &&str| ((*id).to_owned(), find(id).auth_json().to_string());
        let profiles = profiles.iter().map(auth).collect();
        Self { script, profiles, arguments: Vec::new(), environment: Vec::new() }
    }

    /// With a profile that has an API key.
    pub(crate) fn key(self, name: &str, key: &str) -> Self {
        self.profile(name, &json!({ "auth_mode": "apikey", "OPENAI_API_KEY": key }))
    }

    /// With a profile that has this `auth.json`.
    pub(crate) fn profile(mut self, name: &str, auth: &Value) -> Self {
        self.profiles.push((name.to_owned(), auth.to_string()));
        self
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

    /// Starts the mock, and the proxy in front of it.
    pub(crate) async fn start(mut self) -> (Mock, Proxy) {
        let mock = Mock::start(Config::script(std::mem::take(&mut self.script))).await.unwrap();
        let proxy = self.start_at(mock.base_url()).await;
        (mock, proxy)
    }

    /// Starts only the proxy, in front of what listens at `upstream`.
    pub(crate) async fn start_at(self, upstream: &str) -> Proxy {
        let mut sandbox = sandbox();
        for (name, value) in &self.environment {
            sandbox.set(name, value);
        }
        for (name, auth) in &self.profiles {
            add_profile(&sandbox, name, auth).await;
        }
        let mut arguments = vec!["--upstream".to_owned(), upstream.to_owned()];
        arguments.extend(self.arguments);
        Proxy::start(Arc::new(sandbox), arguments).await
    }
}

/// Starts a mock with this script, and a proxy that pools accounts with these ids.
pub(crate) async fn start(profiles: &[&str], script: Script) -> (Mock, Proxy) {
    Setting::new(profiles, script).start().await
}

/// A place for a proxy to live in.
pub(crate) fn sandbox() -> Sandbox {
    let mut sandbox = Sandbox::new("proxy").unwrap();
    sandbox.set("PRODEX_HOME", sandbox.home().join("prodex"));
    sandbox.set("PRODEX_RUNTIME_LOG_DIR", sandbox.logs());
    // What the upstream is asked is the test's business alone. Those of `quota` set it.
    sandbox.set("PRODEX_QUOTA_REFRESH", "0s");
    sandbox
}

/// Adds a profile by the command that a person would use.
pub(crate) async fn add_profile(sandbox: &Sandbox, name: &str, auth: &str) {
    let file = sandbox.root().join(format!("{name}.json"));
    std::fs::write(&file, auth).unwrap();
    let added = prodex(sandbox, &["profile", "add", name, "--from", &file.display().to_string()]).await;
    assert_eq!(code(&added), Some(0), "{}", added.stderr);
}

/// Runs the program to its end.
pub(crate) async fn prodex(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    let program = Program::new(program()).args(arguments.iter().copied()).envs(sandbox.environment());
    program.directory(sandbox.work()).run(LIMIT).await.unwrap()
}

/// The program behind a shell script that changes disks for it alone: in namespaces of its own, where it may
/// mount what it likes. Fails where this machine does not let us: nothing was tried then.
pub(crate) fn behind(sandbox: &Sandbox, script: &str) -> Program {
    let can = |flags: &str| {
        let tried = std::process::Command::new("unshare").args([flags, "true"]).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let flags = ["-m", "-Urm"].into_iter().find(|flags| can(flags)).expect(
        "this machine lets nobody have a mount namespace, which disks of their own need: be root, or see \
         kernel.apparmor_restrict_unprivileged_userns and user.max_user_namespaces",
    );
    let (script, own) = (format!("set -e; {script}; exec \"$@\""), program().display().to_string());
    let program = Program::new("unshare").args([flags, "sh", "-c", &script, "sh", &own]);
    program.envs(sandbox.environment()).directory(sandbox.work())
}

/// The exit code, if the program ended by itself.
pub(crate) fn code(finished: &Finished) -> Option<i32> {
    finished.exit.and_then(Exit::code)
}

/// Permission bits of a file or directory.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Waits until something holds that nobody tells about.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, holds).await.unwrap_or_else(|_| panic!("{what} within {LIMIT:?}"));
}

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) server: Running,
    pub(crate) ready: Value,
    pub(crate) sandbox: Arc<Sandbox>,
    arguments: Vec<String>,
}

impl Proxy {
    pub(crate) async fn start(sandbox: Arc<Sandbox>, arguments: Vec<String>) -> Self {
        let program = Program::new(program()).args(["serve", "--print-ready"]).args(arguments.clone());
        let program = program.envs(sandbox.environment());
        let (server, ready) = program.start_ready("prodex-ready ", LIMIT).await.unwrap();
        Self { server, ready, sandbox, arguments }
    }

    /// A proxy whose disks a shell script has changed, for it alone.
    pub(crate) async fn start_behind(sandbox: Arc<Sandbox>, script: &str, arguments: Vec<String>) -> Self {
        let program = behind(&sandbox, script).args(["serve", "--print-ready"]).args(arguments.clone());
        let (server, ready) = program.start_ready("prodex-ready ", LIMIT).await.unwrap();
        Self { server, ready, sandbox, arguments }
    }

    /// A proxy with so many open files at most.
    pub(crate) async fn start_with_files(sandbox: Arc<Sandbox>, files: u32, arguments: Vec<String>) -> Self {
        let script = format!("ulimit -n {files}; exec \"$@\"");
        let own = program().display().to_string();
        let program = Program::new("sh").args(["-c", &script, "sh", &own, "serve", "--print-ready"]);
        let program = program.args(arguments.clone()).envs(sandbox.environment());
        let (server, ready) = program.start_ready("prodex-ready ", LIMIT).await.unwrap();
        Self { server, ready, sandbox, arguments }
    }

    /// Another proxy of the same home, started the same way.
    pub(crate) async fn another(&self) -> Self {
        Self::start(Arc::clone(&self.sandbox), self.arguments.clone()).await
    }

    /// The same proxy, after its end.
    pub(crate) async fn restarted(self) -> Self {
        let (sandbox, arguments) = (Arc::clone(&self.sandbox), self.arguments.clone());
        self.stop().await;
        Self::start(sandbox, arguments).await
    }

    /// How another proxy of the same home is started, with a further variable.
    pub(crate) fn another_with(&self, name: &str, value: &str) -> Program {
        let program = Program::new(program()).args(["serve", "--print-ready"]).args(self.arguments.clone());
        program.envs(self.sandbox.environment()).envs([(name, value)])
    }

    /// Another proxy of the same home, with a further variable and further arguments.
    pub(crate) async fn another_that(&self, name: &str, value: &str, arguments: &[&str]) -> Self {
        let program = self.another_with(name, value).args(arguments.iter().copied());
        let started = program.start_ready("prodex-ready ", LIMIT).await;
        let (server, ready) = started.unwrap();
        Self { server, ready, sandbox: Arc::clone(&self.sandbox), arguments: self.arguments.clone() }
    }

    /// A client's connection to the proxy.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.port()).await
    }

    /// Where it sends everything.
    pub(crate) fn upstream(&self) -> &str {
        &self.arguments[1]
    }

    /// A URL of the ready line's.
    pub(crate) fn base_url(&self) -> &str {
        self.ready["base_url"].as_str().unwrap()
    }

    /// The port that the proxy listens on.
    pub(crate) fn port(&self) -> u16 {
        let authority = self.base_url().split('/').nth(2).unwrap();
        authority.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// What stands in front of every path: the capability.
    pub(crate) fn prefix(&self) -> String {
        self.base_url().splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default()
    }

    /// The home of the profiles.
    pub(crate) fn home(&self) -> PathBuf {
        self.sandbox.home().join("prodex")
    }

    /// What a profile's `auth.json` says now.
    pub(crate) fn auth(&self, profile: &str) -> Value {
        let path = self.home().join("profiles").join(profile).join("auth.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// The run log so far.
    pub(crate) fn log(&self) -> RunLog {
        RunLog::read(Path::new(self.ready["log"].as_str().unwrap())).unwrap()
    }

    /// Ends the proxy, and returns its run log.
    pub(crate) async fn stop(self) -> RunLog {
        self.server.signal(Signal::SIGTERM);
        self.ended().await
    }

    /// Waits for the end of a proxy that was told to end, and returns its run log.
    pub(crate) async fn ended(mut self) -> RunLog {
        let exit = self.server.wait(LIMIT).await.unwrap();
        let stopped = self.server.stop(LIMIT).await.unwrap();
        assert_eq!(exit, Some(Exit::Code(0)), "{}", stopped.stderr);
        assert!(stopped.stragglers.is_empty(), "{stopped:?}");
        assert!(!stopped.stderr.contains("internal error"), "{}", stopped.stderr);
        RunLog::read(Path::new(self.ready["log"].as_str().unwrap())).unwrap()
    }
}

/// The accounts that were asked for a model's turn, in order.
pub(crate) fn asked(mock: &Mock) -> Vec<String> {
    let account = |exchange: Exchange| exchange.account.as_deref().unwrap_or("-").to_owned();
    mock.journal().responses().into_iter().map(account).collect()
}

/// The last turn that the mock was asked for, once it has ended: what was sent is entered behind the fact.
pub(crate) async fn finished(mock: &Mock) -> Exchange {
    let turns = |all: &[Exchange]| -> Option<Exchange> {
        let last = all.iter().rfind(|exchange| exchange.call == CallName::Responses)?;
        last.end.is_some().then(|| last.clone())
    };
    let all = mock.journal().wait_for("an ended turn", LIMIT, |all| turns(all).is_some()).await.unwrap();
    turns(&all).unwrap()
}
