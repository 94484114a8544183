//! `prodex run`: Codex behind a proxy of its own.

use std::path::{Path, PathBuf};

use wire::route::Api;

use super::profile::codex_home;
use super::serve::{Options, load_profiles, random_capability};
use super::terminal::{is_interactive, print, tell};
use super::{Exit, Failure, Home, exit_code, require_program, runtime};
use crate::admin::client::{LaunchInfo, running};
use crate::admin::status::Phase;
use crate::config::{Config, process_environment};
use crate::launch::{CodexUrls, Launch, Login, Ready};
use crate::profile::Pool;
use crate::profile::scopes::Scopes;
use crate::profile::store::Store;
use crate::supervisor::{Behind, Shared, run_client};

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
    pub(super) fn execute(mut self) -> Result<Exit, Failure> {
        let mut flags = self.options.overrides();
        flags.extend(self.codex.clone().map(|codex| ("codex", codex)));
        let config = self.home.config(&flags)?;
        self.options.only = self.allowed(&config)?;
        let profiles = load_profiles(&config, &self.options.only)?;
        let login = codex_home().and_then(|home| Login::of(&home));
        let api = api(login, &profiles)?;
        let program = require_program(&config)?;
        let launch = |ready: &Ready| Launch::codex(ready, api, login, &self.arguments, &process_environment);
        if self.dry_run {
            print(self.shown(&config, launch, &program))?;
            return Ok(Exit::Ok);
        }
        let stays = !self.arguments.iter().any(|argument| argument == "exec" || argument == "e");
        if login.is_none() && stays && is_interactive() {
            tell_of_login(api);
        }
        runtime()?.block_on(self.run(&config, launch, &program))
    }

    async fn run(
        &self,
        config: &Config,
        launch: impl Fn(&Ready) -> Launch,
        program: &Path,
    ) -> Result<Exit, Failure> {
        let own = std::env::current_exe().map_err(|error| Failure::of(Exit::Environment, &error))?;
        let arguments = self.server_arguments(config);
        let (mut server, ready) = match self.shared(config).await {
            Some((shared, ready)) => (Behind::shared(&own, &arguments, shared), ready),
            None => Behind::start(&own, &arguments, config.listen, random_capability()?).await.map_err(
                |error| Failure::new(Exit::Environment, format!("the proxy did not start: {error}")),
            )?,
        };
        let status = run_client(program, &launch(&ready), &mut server).await;
        if server.restarts() > 0 {
            let log = config.log_directory();
            let (count, log) = (server.restarts(), log.display());
            tell(format_args!(
                "the proxy ended {count} time(s) and was started again; its run logs are in {log}"
            ));
        }
        server.stop(config.control_timeout).await;
        let status = status.map_err(|error| {
            Failure::new(Exit::Environment, format!("cannot start {}: {error}", program.display()))
        })?;
        Ok(Exit::Client(exit_code(status)))
    }

    /// The profiles that may serve where Codex works; all, if it names none. Whatever cannot be found out is
    /// an error: a directory that is tied to profiles is served by no others.
    fn allowed(&self, config: &Config) -> Result<Vec<String>, Failure> {
        let scopes = Scopes::read(&config.home)?;
        let directory = working_directory(&self.arguments);
        let Some(scope) = scopes.of(&directory)? else { return Ok(self.options.only.clone()) };
        scope.check(&Store::new(&config.home))?;
        if let Some(foreign) = self.options.only.iter().find(|name| !scope.profiles.contains(name)) {
            let directory = scope.directory.display();
            let problem = format!("profile {foreign:?} may not serve here: {directory} is tied to others");
            let advice = "`prodex profile scope` shows to which";
            return Err(Failure::new(Exit::NoProfile, format!("{problem}; {advice}")));
        }
        let only = if self.options.only.is_empty() { &scope.profiles } else { &self.options.only };
        Ok(only.clone())
    }

    /// A proxy of this home that runs anyway and does what one of our own would.
    async fn shared(&self, config: &Config) -> Option<(Shared, Ready)> {
        // Where not every profile may serve, a proxy of all profiles does not do.
        let has_scope = !self.options.only.is_empty();
        if self.own || has_scope || self.options.record.is_some() || self.options.listen.is_some() {
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
        if !self.options.only.is_empty() {
            arguments.extend(["--only".to_owned(), self.options.only.join(",")]);
        }
        if let Some(directory) = &self.options.record {
            arguments.extend(["--record".to_owned(), directory.display().to_string()]);
        }
        arguments
    }

    /// The command line of the client, with placeholders where the proxy's answers would be.
    fn shown(&self, config: &Config, launch: impl Fn(&Ready) -> Launch, program: &Path) -> String {
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
        let launch = launch(&ready);
        let variables: String =
            launch.environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let words: Vec<String> = std::iter::once(program.display().to_string())
            .chain(launch.arguments)
            .map(|word| quote(&word))
            .collect();
        format!("{variables}{}\n", words.join(" "))
    }
}

/// Where Codex works: where it is told to with `-C`, else here.
fn working_directory(arguments: &[String]) -> PathBuf {
    let mut directory = PathBuf::from(".");
    let mut arguments = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == "-C" || argument == "--cd" {
            directory = arguments.next().map_or(directory, PathBuf::from);
        } else if let Some(given) = argument.strip_prefix("--cd=").or_else(|| argument.strip_prefix("-C")) {
            directory = PathBuf::from(given);
        }
    }
    directory
}

/// A word as a shell would need it.
fn quote(word: &str) -> String {
    let is_plain =
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,".contains(c));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The API that Codex asks: the way it is logged in decides that, and so which profiles can serve it. One that is
/// not logged in at all is sent to whichever there are profiles for.
fn api(login: Option<Login>, profiles: &Pool) -> Result<Api, Failure> {
    let is_allowed = |name: &str| profiles.scope().is_none_or(|scope| scope.iter().any(|one| one == name));
    let is_served = |api: Api| profiles.of(api).iter().any(|profile| is_allowed(&profile.name));
    let Some(login) = login else {
        return Ok(if is_served(Api::Chatgpt) { Api::Chatgpt } else { Api::OpenAi });
    };
    if is_served(login.api()) {
        return Ok(login.api());
    }
    let (has, needs, adds) = match login {
        Login::Chatgpt => ("uses a ChatGPT login", "chatgpt", "prodex login NAME"),
        Login::ApiKey => ("is logged in with an API key", "openai-key", "prodex login NAME --api-key-stdin"),
    };
    if let Some(scope) = profiles.scope() {
        let problem = format!("Codex {has}, and only {} may serve, none of kind {needs}", scope.join(", "));
        return Err(Failure::new(Exit::NoProfile, format!("{problem}; see `prodex profile scope`")));
    }
    let advice = format!("add one with `{adds}`, or change how Codex is logged in");
    Err(Failure::new(Exit::NoProfile, format!("Codex {has}, and no profile is of kind {needs}; {advice}")))
}

/// Says what will be asked of the person, and why it makes no difference: at a terminal Codex begins with its own
/// login, whoever serves its requests (seen with 0.169).
fn tell_of_login(api: Api) {
    let how = match api {
        Api::Chatgpt => "with ChatGPT",
        Api::OpenAi => "another way, with an API key",
    };
    tell(format_args!(
        "Codex has no login of its own and asks for one first: sign in {how}, once; the profiles serve its \
         requests all the same (`prodex run -- exec \"...\"` needs none)"
    ));
}
