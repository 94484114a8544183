//! Codex CLI without a person: started in each way it can log in, and what it said read as data.
//!
//! Its own program is started, not the wrapper in JavaScript, so that there is one process to watch. The
//! settings keep it off every address but those it is given (`wire-facts` 7); whatever it tries anyway
//! goes to the tripwire.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mock_upstream::Account;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::DriveError;
use crate::process::{Exit, Program, Straggler};
use crate::sandbox::Sandbox;
use crate::tripwire::Tripwire;

mod conversation;
mod output;

pub use conversation::Conversation;
pub use output::{CommandRun, Said};

/// A way to log in and to be pointed at a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The built-in provider with a ChatGPT login over plain HTTP, its two base URLs on two origins.
    ChatgptSplit,
    /// The built-in provider with a ChatGPT login over TLS, both base URLs on one origin.
    ChatgptTls,
    /// The built-in provider with an API key.
    ApiKey,
    /// A provider of the configuration with a key from the environment, over SSE.
    Custom,
    /// A provider of the configuration with the ChatGPT login, over WebSocket and plain HTTP.
    ProviderLogin,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ChatgptSplit, Self::ChatgptTls, Self::ApiKey, Self::Custom, Self::ProviderLogin];

    /// What a table calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChatgptSplit => "chatgpt-split",
            Self::ChatgptTls => "chatgpt-tls",
            Self::ApiKey => "api-key",
            Self::Custom => "custom-sse",
            Self::ProviderLogin => "provider",
        }
    }

    /// Whether turns go over a WebSocket.
    #[must_use]
    pub fn uses_websocket(self) -> bool {
        self != Self::Custom
    }

    /// Whether the endpoint must be reached over TLS.
    #[must_use]
    pub fn needs_tls(self) -> bool {
        self == Self::ChatgptTls
    }
}

/// Where a client finds its backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `chatgpt_base_url`.
    pub chatgpt: String,
    /// `openai_base_url` with a ChatGPT login.
    pub codex: String,
    /// The base URL with an API key, ending in `/v1`.
    pub api: String,
    /// The certificate to be trusted.
    pub ca_cert: Option<PathBuf>,
}

impl Endpoint {
    /// The endpoint of a backend whose paths begin behind `base_url`: over plain HTTP its two base URLs get
    /// two origins, because newer clients refuse one (`wire-facts` 1.1).
    #[must_use]
    pub fn at(base_url: &str, ca_cert: Option<PathBuf>) -> Self {
        let base = base_url.trim_end_matches('/');
        let other = if base.starts_with("http://") {
            base.replacen("//127.0.0.1", "//localhost", 1)
        } else {
            base.to_owned()
        };
        Self {
            chatgpt: format!("{base}/backend-api"),
            codex: format!("{other}/backend-api/codex"),
            api: format!("{base}/v1"),
            ca_cert,
        }
    }

    /// The endpoint that a proxy's ready line names: `base_url`, `codex.{chatgpt,openai}_base_url` and
    /// `ca_cert`. `None` when it names none.
    #[must_use]
    pub fn of_ready(ready: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let ca_cert = ready["ca_cert"].as_str().map(PathBuf::from);
        let mut endpoint = Self::at(ready["base_url"].as_str()?, ca_cert);
        if let Some(chatgpt) = text(&ready["codex"]["chatgpt_base_url"]) {
            endpoint.chatgpt = chatgpt;
        }
        if let Some(codex) = text(&ready["codex"]["openai_base_url"]) {
            endpoint.codex = codex;
        }
        Some(endpoint)
    }
}

/// A program that starts the client itself and points it at a backend, as a proxy's `run` command does.
#[derive(Debug, Clone)]
pub struct Wrapper {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, up to those of the client.
    pub arguments: Vec<OsString>,
    /// What it needs in its environment besides what the client gets.
    pub variables: Vec<(OsString, OsString)>,
}

/// How the client gets to its backend.
#[derive(Debug, Clone)]
pub enum Reach {
    /// It is told the endpoint.
    Endpoint(Endpoint),
    /// It is started by a program that tells it. The program finds the client as `codex` in `PATH`.
    Wrapper(Wrapper),
}

/// A Codex in a place of its own, logged in. Dropping it removes the place.
#[derive(Debug)]
pub struct Codex {
    program: PathBuf,
    mode: Mode,
    reach: Reach,
    sandbox: Sandbox,
    tripwire: Tripwire,
    settings: Vec<String>,
    model: Option<String>,
}

/// What came of one run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended; `None` when its time was up.
    pub exit: Option<Exit>,
    /// What it said.
    pub said: Said,
    /// How long it took.
    pub wall: Duration,
    /// Everything it wrote to stderr.
    pub stderr: String,
    /// What it left behind.
    pub stragglers: Vec<Straggler>,
}

impl Codex {
    /// Makes a place for a client and logs it in as `account`.
    ///
    /// # Errors
    /// When the place or the tripwire cannot be made.
    pub async fn new(
        program: &Path,
        mode: Mode,
        reach: Reach,
        account: &Account,
    ) -> Result<Self, DriveError> {
        let mut sandbox = Sandbox::new("codex")?;
        let tripwire = Tripwire::start().await?;
        let codex_home = sandbox.home().join(".codex");
        std::fs::create_dir(&codex_home)?;
        sandbox.set("CODEX_HOME", &codex_home);
        for (name, value) in tripwire.variables() {
            sandbox.set(name, value);
        }
        // A client in the laboratory never has a reason to refresh its own token.
        sandbox.set("CODEX_REFRESH_TOKEN_URL_OVERRIDE", format!("{}/oauth/token", tripwire.url()));
        if let Some(login) = login(mode, account) {
            std::fs::write(codex_home.join("auth.json"), login.to_string())?;
        }
        if mode == Mode::Custom {
            sandbox.set(KEY_VARIABLE, key(account));
        }
        match &reach {
            Reach::Endpoint(Endpoint { ca_cert: Some(path), .. }) => {
                sandbox.set("CODEX_CA_CERTIFICATE", path);
            }
            Reach::Endpoint(_) => {}
            Reach::Wrapper(wrapper) => {
                sandbox.link(program, "codex")?;
                wrapper.variables.iter().for_each(|(name, value)| sandbox.set(name, value));
            }
        }
        let program = program.to_owned();
        Ok(Self { program, mode, reach, sandbox, tripwire, settings: Vec::new(), model: None })
    }

    /// Tells it another address of its backend, for the runs to come. One with a certificate of its own
    /// needs a new place.
    pub fn move_to(&mut self, endpoint: Endpoint) {
        self.reach = Reach::Endpoint(endpoint);
    }

    /// Adds a setting, as `-c` takes it.
    pub fn set(&mut self, setting: impl Into<String>) {
        self.settings.push(setting.into());
    }

    /// Asks for this model instead of the client's default.
    pub fn set_model(&mut self, model: impl Into<String>) {
        self.model = Some(model.into());
    }

    /// Lets the environment have another variable.
    pub fn set_variable(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.sandbox.set(name, value);
    }

    /// The attempts to reach any other address.
    #[must_use]
    pub fn tripwire_hits(&self) -> Vec<String> {
        self.tripwire.hits()
    }

    /// Its place.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The `auth.json` of its home, as it is now.
    ///
    /// # Errors
    /// When there is none, or it is no JSON.
    pub fn login_file(&self) -> std::io::Result<Value> {
        let text = std::fs::read(self.sandbox.home().join(".codex/auth.json"))?;
        serde_json::from_slice(&text).map_err(std::io::Error::other)
    }

    /// One turn in a new thread.
    ///
    /// # Errors
    /// When the client cannot be run. That it fails is an outcome.
    pub async fn exec(&self, prompt: &str, limit: Duration) -> Result<Outcome, DriveError> {
        self.run(&[prompt], limit).await
    }

    /// One turn more in a thread.
    ///
    /// # Errors
    /// When the client cannot be run. That it fails is an outcome.
    pub async fn resume(&self, thread: &str, prompt: &str, limit: Duration) -> Result<Outcome, DriveError> {
        self.run(&["resume", thread, prompt], limit).await
    }

    async fn run(&self, rest: &[&str], limit: Duration) -> Result<Outcome, DriveError> {
        let (path, before) = match &self.reach {
            Reach::Endpoint(_) => (&self.program, &[][..]),
            Reach::Wrapper(wrapper) => (&wrapper.program, &wrapper.arguments[..]),
        };
        let program = Program::new(path)
            .args(before.iter().cloned())
            .args(self.arguments())
            .args(rest.iter().copied())
            .envs(self.sandbox.environment())
            .directory(self.sandbox.work());
        let finished = program.run(limit).await?;
        Ok(Outcome {
            exit: finished.exit,
            said: Said::read(&finished.stdout),
            wall: finished.wall,
            stderr: finished.stderr,
            stragglers: finished.stragglers,
        })
    }

    /// The arguments up to those that say what to do.
    fn arguments(&self) -> Vec<String> {
        let words = ["exec", "--skip-git-repo-check", "--json", "-s", "danger-full-access"];
        let mut arguments: Vec<String> = words.map(str::to_owned).to_vec();
        if let Some(model) = &self.model {
            arguments.extend(["-m".to_owned(), model.clone()]);
        }
        arguments.extend(self.settings());
        arguments
    }

    /// The settings, each behind a `-c`.
    fn settings(&self) -> Vec<String> {
        let mut settings: Vec<String> = QUIET.iter().map(|setting| (*setting).to_owned()).collect();
        if let Reach::Endpoint(endpoint) = &self.reach {
            settings.extend(provider(self.mode, endpoint));
        }
        settings.extend(self.settings.iter().cloned());
        settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
    }
}

/// What keeps the client off every address but those it is given.
const QUIET: &[&str] = &["features.plugins=false", "features.apps=false", "analytics.enabled=false"];

/// Where the key of a provider of the configuration is found.
const KEY_VARIABLE: &str = "LABORATORY_KEY";

/// The API key of an account; one is made up for an account that has none.
fn key(account: &Account) -> String {
    account.api_key.clone().unwrap_or_else(|| format!("key-of-{}", account.id))
}

fn login(mode: Mode, account: &Account) -> Option<Value> {
    match mode {
        Mode::ChatgptSplit | Mode::ChatgptTls | Mode::ProviderLogin => Some(account.auth_json()),
        Mode::ApiKey => Some(json!({ "auth_mode": "apikey", "OPENAI_API_KEY": key(account) })),
        Mode::Custom => None,
    }
}

/// The settings that point the client at an endpoint.
fn provider(mode: Mode, endpoint: &Endpoint) -> Vec<String> {
    let Endpoint { chatgpt, codex, api, .. } = endpoint;
    let set = |name: &str, value: &str| format!("{name}={}", Value::from(value));
    let lab = |name: &str, value: &str| set(&format!("model_providers.lab.{name}"), value);
    let own = |base_url: &str| {
        let settings = [lab("name", "Laboratory"), lab("base_url", base_url), lab("wire_api", "responses")];
        settings.into_iter().chain([set("model_provider", "lab")])
    };
    match mode {
        Mode::ChatgptSplit | Mode::ChatgptTls => {
            vec![set("chatgpt_base_url", chatgpt), set("openai_base_url", codex)]
        }
        Mode::ApiKey => vec![set("openai_base_url", api)],
        Mode::Custom => own(api).chain([lab("env_key", KEY_VARIABLE)]).collect(),
        Mode::ProviderLogin => {
            let login = "model_providers.lab.requires_openai_auth=true".to_owned();
            let websocket = "model_providers.lab.supports_websockets=true".to_owned();
            own(codex).chain([set("chatgpt_base_url", chatgpt), login, websocket]).collect()
        }
    }
}

/// The program in an installed package: `@openai/codex-<platform>/vendor/<target>/bin/codex`, and without
/// `bin` in older versions.
pub(super) fn program_in(place: &Path) -> Option<PathBuf> {
    let children = |path: PathBuf| {
        let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path())
    };
    children(place.join("node_modules/@openai"))
        .flat_map(|package| children(package.join("vendor")))
        .flat_map(|target| [target.join("bin/codex"), target.join("codex/codex")])
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_two_origins_over_plain_http() {
        let endpoint = Endpoint::at("http://127.0.0.1:80/k/x/", None);
        assert_eq!(endpoint.chatgpt, "http://127.0.0.1:80/k/x/backend-api");
        assert_eq!(endpoint.codex, "http://localhost:80/k/x/backend-api/codex");
        assert_eq!(endpoint.api, "http://127.0.0.1:80/k/x/v1");
        let ready = json!({ "base_url": "https://localhost:1", "ca_cert": "/ca.pem",
            "codex": { "chatgpt_base_url": "a", "openai_base_url": "b" } });
        let endpoint = Endpoint::of_ready(&ready).unwrap();
        assert_eq!(
            (&*endpoint.chatgpt, &*endpoint.codex, &*endpoint.api),
            ("a", "b", "https://localhost:1/v1")
        );
        assert_eq!(endpoint.ca_cert.as_deref(), Some(Path::new("/ca.pem")));
        assert_eq!(Endpoint::of_ready(&json!({})), None);
    }

    #[test]
    fn each_mode_is_told_its_base_urls() {
        let endpoint = Endpoint::at("http://127.0.0.1:1", None);
        let all = Mode::ALL.map(|mode| format!("{}: {}", mode.name(), provider(mode, &endpoint).join(" ")));
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn the_program_is_found_in_old_and_new_packages() {
        for inner in ["bin/codex", "codex/codex"] {
            let place = tempfile::tempdir().unwrap();
            assert_eq!(program_in(place.path()), None);
            let vendor = place.path().join("node_modules/@openai/codex-linux-x64/vendor/x86_64-linux");
            let program = vendor.join(inner);
            std::fs::create_dir_all(program.parent().unwrap()).unwrap();
            std::fs::write(&program, "").unwrap();
            assert_eq!(program_in(place.path()), Some(program));
        }
    }
}
