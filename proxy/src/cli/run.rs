//! `prodex run`: Codex behind a proxy of its own.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use super::profile::codex_home;
use super::serve::{Options, load_profiles, random_capability};
use super::{Exit, Failure, Home};
use crate::admin::client::{LaunchInfo, running};
use crate::admin::status::Phase;
use crate::config::{Config, process_environment};
use crate::launch::{CodexUrls, Launch, Login, Ready, find_program};
use crate::profile::Pool;
use crate::supervisor::{Behind, Shared, run_client};
use wire::route::Api;

/// Start Codex behind the proxy
///
/// Codex keeps its own home, history and settings; only its requests go through the proxy, which serves
/// them with the profiles' accounts. Everything behind `--` is for Codex.
///
/// Example: prodex run -- exec "say hi"
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    home: Home,
    #[command(flatten)]
    options: Options,
    /// Start a proxy for this session alone, even if one of this home runs that would do
    #[arg(long)]
    own: bool,
    /// The Codex program [default: codex]
    #[arg(long, value_name = "PROGRAM")]
    codex: Option<String>,
    /// Show what would be started, and start nothing
    #[arg(long)]
    dry_run: bool,
    /// Arguments for Codex
    #[arg(last = true, value_name = "CODEX ARGUMENTS")]
    arguments: Vec<String>,
}

impl Run {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let mut flags = self.options.overrides();
        flags.extend(self.codex.clone().map(|codex| ("codex", codex)));
        let config = self.home.config(&flags)?;
        let login = codex_home().map_or(Login::Chatgpt, |home| Login::of(&home));
        let profiles = load_profiles(&config)?;
        require_profile(&profiles, login)?;
        let program =
            find_program(&config.codex, process_environment("PATH").as_deref()).ok_or_else(|| {
                let advice =
                    "install it with `npm install -g @openai/codex`, or say where it is with --codex";
                Failure::new(
                    Exit::Environment,
                    format!("{} is not installed; {advice}", config.codex.display()),
                )
            })?;
        if self.dry_run {
            self.show(&config, login, &program);
            return Ok(Exit::Ok);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::of(Exit::Environment, &error))?;
        runtime.block_on(self.run(&config, login, &program))
    }

    async fn run(&self, config: &Config, login: Login, program: &std::path::Path) -> Result<Exit, Failure> {
        let own = std::env::current_exe().map_err(|error| Failure::of(Exit::Environment, &error))?;
        let arguments = self.server_arguments(config);
        let (mut server, ready) = match self.shared(config).await {
            Some((shared, ready)) => (Behind::shared(&own, &arguments, shared), ready),
            None => Behind::start(&own, &arguments, config.listen, random_capability()?).await.map_err(
                |error| Failure::new(Exit::Environment, format!("the proxy did not start: {error}")),
            )?,
        };
        let launch = Launch::codex(&ready, login, &self.arguments, &process_environment);
        let status = run_client(program, &launch, &mut server).await;
        if server.restarts() > 0 {
            let log = config.log_directory();
            let (count, log) = (server.restarts(), log.display());
            eprintln!(
                "prodex: the proxy ended {count} time(s) and was started again; its run logs are in {log}"
            );
        }
        server.stop(config.control_timeout).await;
        let status = status.map_err(|error| {
            Failure::new(Exit::Environment, format!("cannot start {}: {error}", program.display()))
        })?;
        Ok(Exit::Client(exit_code(status)))
    }

    /// A proxy of this home that runs anyway and does what one of our own would.
    async fn shared(&self, config: &Config) -> Option<(Shared, Ready)> {
        if self.own || self.options.record.is_some() || self.options.listen.is_some() {
            return None;
        }
        let upstream = config.upstream.as_ref().map(ToString::to_string);
        let does = |launch: &LaunchInfo| {
            launch.state == Phase::Serving
                && !launch.launched
                && !launch.recorded
                && launch.scope.is_none()
                && launch.upstream == upstream
                && launch.ready.ca_cert.is_some() == self.options.tls
        };
        for running in running(&config.home) {
            let Some(launch) = running.launch().ok().filter(does) else { continue };
            if let Ok(Some(shared)) = Shared::watch(&config.home, &running, &launch.ready).await {
                return Some((shared, launch.ready));
            }
        }
        None
    }

    /// The arguments of the proxy. None of them is a secret.
    fn server_arguments(&self, config: &Config) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["serve", "--print-ready", "--launched", "--home"].map(String::from).into();
        arguments.push(config.home.display().to_string());
        if let Some(upstream) = &self.options.upstream {
            arguments.extend(["--upstream".to_owned(), upstream.clone()]);
        }
        if self.options.tls {
            arguments.push("--tls".to_owned());
        }
        if let Some(directory) = &self.options.record {
            arguments.extend(["--record".to_owned(), directory.display().to_string()]);
        }
        arguments
    }

    /// Prints the command line of the client, with placeholders where the proxy's answers would be.
    fn show(&self, config: &Config, login: Login, program: &std::path::Path) {
        let scheme = if self.options.tls { "https" } else { "http" };
        let url = |host: &str, path: &str| format!("{scheme}://{host}:<port>/k/***{path}");
        let host = if self.options.tls { "localhost" } else { "127.0.0.1" };
        let ready = Ready {
            listen: config.listen,
            base_url: url("127.0.0.1", ""),
            codex: CodexUrls {
                chatgpt_base_url: url(host, "/backend-api"),
                openai_base_url: url("localhost", "/backend-api/codex"),
            },
            ca_cert: self.options.tls.then(|| config.home.join("tls").join("authority.pem")),
        };
        let launch = Launch::codex(&ready, login, &self.arguments, &process_environment);
        for (name, value) in &launch.environment {
            println!("{name}={value}");
        }
        let words: Vec<String> = std::iter::once(PathBuf::from(program).display().to_string())
            .chain(launch.arguments)
            .map(|word| quote(&word))
            .collect();
        println!("{}", words.join(" "));
    }
}

/// A word as a shell would need it.
fn quote(word: &str) -> String {
    let is_plain =
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,".contains(c));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The way Codex is logged in decides which profiles can serve it.
fn require_profile(profiles: &Pool, login: Login) -> Result<(), Failure> {
    let (api, has, needs) = match login {
        Login::Chatgpt => (Api::Chatgpt, "uses a ChatGPT login", "chatgpt"),
        Login::ApiKey => (Api::OpenAi, "is logged in with an API key", "openai-key"),
    };
    if !profiles.of(api).is_empty() {
        return Ok(());
    }
    let advice = "add one with `prodex profile add`, or change how Codex is logged in";
    Err(Failure::new(Exit::NoProfile, format!("Codex {has}, and no profile is of kind {needs}; {advice}")))
}

/// The code that a shell would give for this end.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xFF).unwrap_or(1)
}
