//! `prodex serve`: the proxy as a long-lived server.

use std::io::{BufRead as _, ErrorKind, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use wire::route::Api;
use wire::run_event::RunEvent;

use super::profile::first_profile;
use super::terminal::tell;
use super::{Exit, Failure, Home, runtime};
use crate::admin::{Admin, Port, Run, client};
use crate::config::{Config, Overrides, unknown_variables};
use crate::control::{Control, describe};
use crate::guard::Guard;
use crate::launch::{Login, Ready};
use crate::pipeline::Proxy;
use crate::profile::refresh::save_unsaved;
use crate::profile::roster::Roster;
use crate::profile::store::Store;
use crate::profile::{Now, Pool, Profile};
use crate::recording::Recorder;
use crate::secret::Secret;
use crate::server::authority::{Authority, TlsError, client_config};
use crate::server::{Listeners, Server};
use crate::state::{Recovery, State};
use crate::telemetry::RunLog;

mod replace;

/// How long a token that was renewed may take to get to the disk.
const SAVE: Duration = Duration::from_secs(2);

/// Run the proxy as a server until it is told to stop
///
/// Every request must carry the capability of this launch, which the base URLs contain; they are printed
/// when the proxy is ready. SIGTERM drains: no further connection is accepted, those in flight may end.
///
/// Example: prodex serve --print-ready
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) home: Home,
    #[command(flatten)]
    pub(super) options: Options,
    /// Print one line with everything a launcher needs, as JSON behind `prodex-ready `
    #[arg(long)]
    print_ready: bool,
    /// Serve without the capability: everybody on this machine may use the profiles (for a laboratory)
    #[arg(long)]
    no_auth: bool,
    /// Take the place of a running proxy of this home, which then lets its clients go one by one
    ///
    /// The listening sockets, the capability and TLS are taken over: no client notices. Without one that
    /// runs it just starts; of several, name one by its process id.
    #[arg(long, value_name = "PID", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    replace: Option<u32>,
    /// Take the capability from the first line of standard input, and stop when that ends: a launcher
    /// that dies takes the proxy with it
    #[arg(long, hide = true, conflicts_with_all = ["no_auth", "replace"])]
    launched: bool,
}

/// What `serve` and `run` have in common.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Options {
    /// Send everything to this origin instead of the vendors' (for a laboratory)
    #[arg(long, value_name = "URL")]
    pub(super) upstream: Option<String>,
    /// The loopback address to listen on [default: 127.0.0.1:0, a free port]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
    /// Listen with TLS, under a private authority that is made for this home
    #[arg(long)]
    pub(super) tls: bool,
    /// Record what clients send and get in files in this directory, one for each request; they hold the
    /// client's own token, so scrub them before sharing them
    #[arg(long, value_name = "DIR")]
    pub(super) record: Option<PathBuf>,
    /// Use these profiles only, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) only: Vec<String>,
}

impl Options {
    pub(super) fn overrides(&self) -> Overrides {
        let upstream = self.upstream.clone().map(|upstream| ("upstream", upstream));
        let listen = self.listen.clone().map(|listen| ("listen", listen));
        upstream.into_iter().chain(listen).collect()
    }

    /// The recorder, if there is to be one.
    fn recorder(&self, capability: Option<&Secret>) -> Result<Option<Arc<Recorder>>, Failure> {
        let Some(directory) = &self.record else { return Ok(None) };
        let recorder = Recorder::open(directory, capability).map_err(|error| {
            let problem = format!("cannot record in {}: {error}", directory.display());
            Failure::new(Exit::Environment, format!("{problem}; name another directory with --record"))
        })?;
        Ok(Some(recorder))
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::of(Exit::Environment, &error)
    }
}

impl Serve {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let config = self.home.config(&self.options.overrides())?;
        for told in unknown_variables() {
            tell(told);
        }
        raise_file_limit();
        let profiles = load_profiles(&config, &self.options.only)?;
        let log = open_log(&config)?;
        let result = self.start(config, profiles, &log);
        match &result {
            Ok(_) => log.close(),
            // It never served, and said so on standard error: what is to be looked at is the log of who does.
            Err(_) => log.abandon(),
        }
        result
    }

    fn start(self, config: Config, profiles: Pool, log: &Arc<RunLog>) -> Result<Exit, Failure> {
        let upstream_tls = Arc::new(client_config(config.upstream_ca.as_deref())?);
        let runtime = runtime()?;
        let handle = runtime.handle().clone();
        let state = open_state(&config, log, !self.launched)?;
        for profile in profiles.profiles() {
            profile.recall(&state);
        }
        if state.is_read_only() {
            tell(ends_of_logins(&profiles));
        }
        let control = Arc::new(Control::new(config, state, Arc::clone(log), upstream_tls, handle));
        let result = runtime.block_on(self.serve(control, profiles));
        // What must come to its end has; a read of standard input need not. With the tasks go the connections
        // that were cut off, and with the last of them the recorder.
        runtime.shutdown_background();
        result
    }

    async fn serve(self, control: Arc<Control>, profiles: Pool) -> Result<Exit, Failure> {
        let taken = match self.replace {
            Some(pid) => self.take_over(&control.config, pid).await?,
            None => None,
        };
        let is_tls = taken.as_ref().map_or(self.options.tls, |taken| taken.tls);
        let authority = is_tls.then(|| Authority::open(&control.config.home)).transpose()?;
        let capability = match (&taken, self.no_auth, self.launched) {
            (Some(taken), _, _) => taken.capability.clone(),
            (None, true, _) => None,
            (None, _, true) => Some(read_capability()?),
            _ => Some(random_capability()?),
        };
        let recorder = self.options.recorder(capability.as_ref())?;
        let (listeners, confirm, port) = match taken {
            Some(taken) => {
                let listen = taken.listen;
                let (confirm, sockets, port) = taken.confirm();
                let environment = |error: std::io::Error| Failure::of(Exit::Environment, &error);
                (Listeners::take(sockets, listen).map_err(environment)?, Some(confirm), port)
            }
            None => (self.bind(&control.config).await?, None, None),
        };
        let tls = authority.as_ref().map(Authority::server_config).transpose()?.map(Arc::new);
        let certificate = authority.as_ref().map(|authority| &*authority.certificate);
        let ready = Ready::new(listeners.address, certificate, capability.as_ref());
        let port = open_port(&control.config, port).await?;
        let started = Now::read();
        let count = profiles.profiles().len();
        let mut proxy = Proxy::new(control, Guard::new(capability), profiles, tls.is_some());
        proxy.recorder = recorder;
        let proxy = Arc::new(proxy);
        proxy.control.log.record(&RunEvent::RuntimeProxyStarted {
            version: env!("CARGO_PKG_VERSION").into(),
            listen: listeners.address.to_string().into(),
            tls: tls.is_some(),
            profiles: count,
            workers: proxy.control.config.worker_count(),
        });
        // From the ready line on a launcher may end the proxy.
        match signals() {
            Ok(signals) => drop(tokio::spawn(drain_on_signal(Arc::clone(&proxy), signals))),
            Err(_) => tell("signals cannot be received; stop the proxy with SIGKILL"),
        }
        #[cfg(feature = "otlp")]
        let exporter = crate::trace::Exporter::start(&proxy.control);
        let sockets = listeners.sockets();
        let server = Server::start(&proxy, listeners, tls);
        let server = server.map_err(|error| Failure::of(Exit::Environment, &error))?;
        if let Some(confirm) = confirm {
            confirm.ready().await.map_err(|error| {
                let problem = format!("the running proxy did not let go, and goes on: {error}");
                Failure::new(Exit::Environment, problem)
            })?;
        }
        let run_facts = Run {
            ready: ready.clone(),
            is_launched: self.launched,
            started,
            sockets,
            port: port.as_ref().map(Port::socket),
        };
        let admin = Admin::new(Arc::clone(&proxy), run_facts).serve(port, |error| {
            tell(format_args!("no command will find this proxy, there is no socket for it: {error}"));
        });
        self.announce(&proxy, &ready);
        if self.launched {
            tokio::spawn(drain_on_stdin(Arc::clone(&proxy)));
        }
        let aborted = server.run().await;
        #[cfg(feature = "otlp")]
        if let Some(exporter) = exporter {
            exporter.end(SAVE).await;
        }
        // A renewed token that is not written yet would be lost.
        proxy.control.tasks.end(proxy.control.config.control_timeout + SAVE).await;
        let saving = async {
            for profile in proxy.profiles.profiles() {
                save_unsaved(&proxy.control, &profile).await;
            }
        };
        // A disk that is still full was told of when it was.
        let _ = tokio::time::timeout(SAVE, saving).await;
        for profile in proxy.profiles.profiles() {
            profile.keep(&proxy.control.state);
        }
        proxy.control.state.close();
        drop(admin);
        if aborted > 0 {
            tell(format_args!("{aborted} requests were cut off at the end of the drain"));
        }
        Ok(Exit::Ok)
    }

    async fn bind(&self, config: &Config) -> Result<Listeners, Failure> {
        let listen = config.listen;
        Listeners::bind(listen).await.map_err(|error| {
            let mut advice =
                "stop what listens there, or choose another with --listen (port 0 takes a free one)"
                    .to_owned();
            if client::running(&config.home).iter().any(|one| one.listens_at(listen)) {
                advice = "a proxy of this home does; `prodex serve --replace` takes its place".to_owned();
            }
            Failure::new(Exit::Environment, format!("cannot listen on {listen}: {error}; {advice}"))
        })
    }

    /// Says where the proxy is: to a launcher on standard output, to a person on standard error.
    fn announce(&self, proxy: &Proxy, ready: &Ready) {
        let log = proxy.control.log.path();
        if self.print_ready {
            let ready = json!({
                "pid": std::process::id(),
                "listen": ready.listen.to_string(),
                "base_url": ready.base_url,
                "codex": ready.codex,
                "anthropic_base_url": null,
                "gemini_base_url": null,
                "ca_cert": ready.ca_cert,
                "log": log,
            });
            let mut out = std::io::stdout().lock();
            // Whoever asked for the line and does not read it has not started anything that matters.
            let _ = writeln!(out, "prodex-ready {ready}").and_then(|()| out.flush());
            return;
        }
        let all = proxy.profiles.profiles().len();
        let some = proxy.profiles.scope().map(|only| format!("{} of ", only.len())).unwrap_or_default();
        let mut text = format!("serving {some}{all} profile(s); stop with Ctrl-C");
        for (api, login) in [(Api::Chatgpt, Login::Chatgpt), (Api::OpenAi, Login::ApiKey)] {
            if !proxy.profiles.of(api).is_empty() {
                let settings = ready.codex_settings(api, Some(login));
                let settings: Vec<String> = settings.iter().map(|one| format!("-c '{one}'")).collect();
                text += &format!("\n  codex {}", settings.join(" "));
            }
        }
        if let Some(certificate) = &ready.ca_cert {
            text += &format!("\n  with CODEX_CA_CERTIFICATE={}", certificate.display());
        }
        if let Some(log) = log {
            text += &format!("\n  run log: {}", log.display());
        }
        tell(text);
    }
}

/// Lets the process have as many open files as it may: a stream takes two, and the usual limit of 1,024
/// would refuse the 500th.
fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Without it the proxy serves as many as the limit allows.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Takes the capability that a launcher has made up, so that a proxy in the place of one that crashed
/// answers to the same.
fn read_capability() -> Result<Secret, Failure> {
    let mut line = String::new();
    let problem =
        |problem: &str| Failure::new(Exit::Usage, format!("no capability on standard input: {problem}"));
    let read = std::io::stdin().lock().take(1024).read_line(&mut line);
    read.map_err(|error| problem(&error.to_string()))?;
    let capability = line.trim_end();
    let is_good = capability.len() >= 32 && capability.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_good {
        Ok(Secret::new(capability))
    } else {
        Err(problem("it needs at least 32 letters and digits"))
    }
}

/// A capability that nobody can guess.
pub(super) fn random_capability() -> Result<Secret, Failure> {
    Secret::random()
        .map_err(|error| Failure::new(Exit::Environment, format!("there is no randomness: {error}")))
}

/// Listens on the port for scrapers, if there is to be one.
async fn open_port(config: &Config, taken: Option<std::net::TcpListener>) -> Result<Option<Port>, Failure> {
    let Some(address) = config.admin_listen else { return Ok(None) };
    let is_same = |taken: &std::net::TcpListener| {
        let is_at =
            |at: std::net::SocketAddr| at == address || (address.port() == 0 && at.ip() == address.ip());
        taken.local_addr().is_ok_and(is_at)
    };
    let port = match taken.filter(is_same) {
        Some(taken) => Port::take(&config.home, taken),
        None => Port::open(&config.home, address).await,
    };
    let port = port.map_err(|error| {
        let advice = "choose another with admin_listen, or PRODEX_ADMIN_LISTEN";
        Failure::new(Exit::Environment, format!("no admin port at {address}: {error}; {advice}"))
    })?;
    if let Ok(address) = port.address() {
        let token = crate::admin::token::path(&config.home);
        tell(format_args!("metrics at http://{address}/metrics for the token in {}", token.display()));
    }
    Ok(Some(port))
}

/// Opens the state, and says what was found behind a run that was killed, if it `tells`: a client may
/// have the terminal, and the run log says so in any case.
pub(super) fn open_state(config: &Config, log: &Arc<RunLog>, tells: bool) -> Result<State, Failure> {
    let directory = config.state_directory();
    let (state, recovery) = match State::open(&directory, config.state_sync, log) {
        Err(error) if error.is_read_only() => {
            tell(format_args!(
                "{} is on a disk that cannot be written; what is known is used, and what is learnt of \
                 conversations and quotas is forgotten at the end: mount it anew, or name another home with --home",
                config.home.display()
            ));
            let state = State::read_only(&directory);
            return state.map_err(|error| Failure::of(Exit::Environment, &error));
        }
        opened => opened.map_err(|error| Failure::of(Exit::Environment, &error))?,
    };
    if recovery.frames > 0 && tells {
        let Recovery { frames, bindings, pruned } = recovery;
        tell(format_args!(
            "the state of a run that was killed is recovered: {frames} pages of its log, {bindings} bindings in \
             all, {pruned} too old"
        ));
    }
    Ok(state)
}

/// Opens the run log. On a disk that cannot be written there is none; anything else that is wrong can be put right.
fn open_log(config: &Config) -> Result<Arc<RunLog>, Failure> {
    let directory = config.log_directory();
    let problem = |error| format!("cannot write a run log in {}: {error}", directory.display());
    match RunLog::within(&directory, config.log_limits()) {
        Ok(log) => Ok(Arc::new(log)),
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            let advice = "there is none; set log_dir, or PRODEX_RUNTIME_LOG_DIR, to have one";
            tell(format_args!("{}; {advice}", problem(error)));
            Ok(Arc::new(RunLog::none()))
        }
        Err(error) => {
            let advice = "see to it that it can be written, or set log_dir, or PRODEX_RUNTIME_LOG_DIR";
            Err(Failure::new(Exit::Environment, format!("{}; {advice}", problem(error))))
        }
    }
}

/// Until when each login is good that cannot be renewed, because its disk cannot be written: an exchange would
/// spend a token whose successor nobody could keep.
fn ends_of_logins(profiles: &Pool) -> String {
    let describe = |profile: &Arc<Profile>| {
        let credentials = profile.credentials();
        let login = credentials.login()?;
        let end = login.expires_at.and_then(|at| jiff::Timestamp::from_second(at).ok());
        let end = end.map(|end| end.strftime("until %Y-%m-%d %H:%M UTC").to_string());
        Some(format!("{} {}", profile.name, end.as_deref().unwrap_or("for an unknown time")))
    };
    let ends: Vec<String> = profiles.profiles().iter().filter_map(describe).collect();
    match ends.as_slice() {
        [] => "no login has to be renewed".to_owned(),
        ends => format!("no login can be renewed meanwhile; each is good as it is: {}", ends.join(", ")),
    }
}

/// There is nothing to serve with.
pub(super) fn no_profiles(config: &Config) -> Failure {
    let (home, advice) = (config.home.display(), first_profile(config));
    Failure::new(Exit::NoProfile, format!("there are no profiles in {home}; {advice}"))
}

/// Reads the profiles, of which `only` names those that may be used, if it names any. One that cannot be
/// used is named and left out; without any there is nothing to serve.
pub(super) fn load_profiles(config: &Config, only: &[String]) -> Result<Pool, Failure> {
    let store = Store::new(&config.home);
    let names = store.names()?;
    if let Some(missing) = only.iter().find(|name| !names.contains(name)) {
        let advice = "`prodex profile list` shows those there are";
        let problem = format!("only {} may be used, and there is no profile {missing:?}", only.join(", "));
        return Err(Failure::new(Exit::NoProfile, format!("{problem}; {advice}")));
    }
    let mut roster = Roster::read(&store)?;
    let is_meant = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    roster.broken.retain(|(name, _)| is_meant(name));
    let failures: Vec<_> = roster.broken.iter().map(|(_, error)| describe(error)).collect();
    if roster.profiles.is_empty() && failures.is_empty() {
        return Err(no_profiles(config));
    }
    if !roster.profiles.iter().any(|stored| is_meant(&stored.name)) {
        return Err(Failure::new(
            Exit::NoProfile,
            format!("no profile can be used: {}", failures.join("; ")),
        ));
    }
    for failure in failures {
        tell(format_args!("a profile is left out: {failure}"));
    }
    Ok(roster.pool(config, (!only.is_empty()).then(|| only.into())))
}

/// The signals that end the proxy, instead of their killing it.
fn signals() -> std::io::Result<[Signal; 3]> {
    let [terminate, interrupt, hangup] =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    Ok([terminate?, interrupt?, hangup?])
}

/// Drains at the first signal and exits at the second.
async fn drain_on_signal(proxy: Arc<Proxy>, [mut terminate, mut interrupt, mut hangup]: [Signal; 3]) {
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        if proxy.draining.is_cancelled() {
            proxy.control.log.close();
            if let Some(recorder) = &proxy.recorder {
                recorder.close();
            }
            std::process::exit(130);
        }
        proxy.draining.cancel();
    }
}

/// Drains when standard input ends.
async fn drain_on_stdin(proxy: Arc<Proxy>) {
    let mut input = tokio::io::stdin();
    let mut bytes = [0; 64];
    while !matches!(input.read(&mut bytes).await, Ok(0) | Err(_)) {}
    proxy.draining.cancel();
}
