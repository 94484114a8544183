//! The running mock: accepting connections, reading requests from them, and playing what is answered.
//!
//! What is answered is decided in `chatgpt`. A mock runs on a thread of its own: it keeps serving while a
//! test blocks or pauses its clock, and it is gone, port and all, when it is dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::accounts::{AccountState, Accounts};
use crate::chatgpt::Backend;
use crate::connection::{Connection, Socket};
use crate::journal::{Journal, Limits};
use crate::metrics::{Counts, Metrics, count};
use crate::recording::Recording;
use crate::script::{Rule, Script, ScriptError};
use crate::tls::{self, Authority, TlsError};

mod exchange;
mod play;

pub(crate) use exchange::{After, Recorder, once};
pub(crate) use play::push_field;

/// What a mock is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 for any free one.
    pub listen: SocketAddr,
    /// The authority of its certificate; plain HTTP without one.
    pub tls: Option<Arc<Authority>>,
    /// What it is told.
    pub script: Script,
    /// What jitter and ids are made from.
    pub seed: u64,
    /// How much the journal keeps.
    pub journal: Limits,
    /// Most bytes of a request's body.
    pub max_body: usize,
    /// Where every exchange is recorded, if that is asked for.
    pub record: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            script: Script::default(),
            seed: 0,
            journal: Limits::default(),
            max_body: 64 << 20,
            record: None,
        }
    }
}

impl Config {
    /// A plain mock with this script.
    #[must_use]
    pub fn script(script: Script) -> Self {
        Self { script, ..Self::default() }
    }
}

/// Why a mock does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The script could not be played.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// No TLS.
    #[error("set the mock's TLS up")]
    Tls(#[from] TlsError),
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No recording can be written.
    #[error("record in {}", directory.display())]
    Record {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No thread or no runtime.
    #[error("start the mock's thread")]
    Thread(#[source] std::io::Error),
}

/// A running mock. Dropping it stops it.
pub struct Mock {
    address: SocketAddr,
    base_url: String,
    backend: Arc<Backend>,
    authority: Option<Arc<Authority>>,
    /// Dropped to stop the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Mock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mock").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

impl Mock {
    /// Starts a mock and waits until it listens.
    ///
    /// # Errors
    /// When the script cannot be played or the address cannot be listened on.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.script.check()?;
        let acceptor = config.tls.as_ref().map(|authority| authority.server()).transpose()?;
        let record = config.record.as_deref().map(|directory| {
            let failed = |source| StartError::Record { directory: directory.to_owned(), source };
            Recording::open(directory).map_err(failed)
        });
        let recording = record.transpose()?;
        let listener =
            bind(config.listen).map_err(|source| StartError::Listen { address: config.listen, source })?;
        let address =
            listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
        let base_url = match &config.tls {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        // A client that is told a plain origin refuses it; one that is told an https one and is asked for
        // elsewhere ignores it. So a plain mock names an origin where nothing listens.
        let origin = if config.tls.is_some() { base_url.clone() } else { "https://localhost:9".to_owned() };
        let journal = Journal::new(config.journal);
        let backend = Arc::new(Backend::new(config.script, journal, config.seed, origin));
        let server = Server {
            backend: Arc::clone(&backend),
            tls: acceptor.map(TlsAcceptor::from),
            max_body: config.max_body,
            recording,
        };
        let (stop, stopped) = oneshot::channel();
        let thread = spawn(listener, server, stopped).map_err(StartError::Thread)?;
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self { address, base_url, backend, authority: config.tls, stop, thread })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its origin: `http://127.0.0.1:PORT`, or `https://localhost:PORT`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The certificate that clients must trust, with TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.authority.as_deref().map(Authority::pem)
    }

    /// Everything that came and went.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.backend.journal
    }

    /// What has been counted.
    #[must_use]
    pub fn metrics(&self) -> Counts {
        self.backend.metrics.counts(self.backend.journal.dropped())
    }

    /// Starts another script, accounts included.
    ///
    /// # Errors
    /// When the script cannot be played; the one before stays.
    pub fn set_script(&self, script: Script) -> Result<(), ScriptError> {
        script.check()?;
        self.backend.set_script(script);
        Ok(())
    }

    /// Replaces the rules; accounts and what they own stay.
    ///
    /// # Errors
    /// When a rule cannot be played; those before stay.
    pub fn set_rules(&self, rules: Vec<Rule>) -> Result<(), ScriptError> {
        Script::rules(rules.clone()).check()?;
        self.backend.set_rules(rules);
        Ok(())
    }

    /// An account as it is now.
    #[must_use]
    pub fn account(&self, id: &str) -> Option<AccountState> {
        self.backend.accounts().state(id)
    }

    /// Lets the access tokens of a declared account expire now. Says whether there is such an account.
    pub fn expire(&self, id: &str) -> bool {
        self.change(|accounts| accounts.expire(id))
    }

    /// Sets how many turns a declared account has left; 0 is its limit, `None` no limit. Says whether there
    /// is such an account.
    pub fn set_turns_left(&self, id: &str, turns: Option<u64>) -> bool {
        self.change(|accounts| accounts.set_turns_left(id, turns))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Accounts) -> T) -> T {
        change(&mut self.backend.accounts())
    }

    /// Stops it: open connections are cut and the port is free when this returns.
    pub async fn stop(mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the mock's thread was printed when it happened.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lets this process have as many files open as the system allows it: a thousand streams need more than
/// the usual 1,024. Where that is refused the limit stays.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Most connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// A listener that is not yet anyone's to poll.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn spawn(
    listener: std::net::TcpListener,
    server: Server,
    stopped: oneshot::Receiver<()>,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    std::thread::Builder::new().name("mock-upstream".into()).spawn(move || {
        let recording = server.recording.clone();
        runtime.block_on(async {
            tokio::select! {
                () = server.accept(listener) => {}
                _ = stopped => if let Some(recording) = &recording {
                    recording.stop();
                },
            }
        });
        // The connections go with the runtime, and tell the recording how they ended.
        drop(runtime);
    })
}

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) backend: Arc<Backend>,
    tls: Option<TlsAcceptor>,
    max_body: usize,
    recording: Option<Arc<Recording>>,
}

impl Server {
    /// A server without TLS and recordings, for connections that somebody else accepts.
    pub(crate) fn plain(backend: Arc<Backend>) -> Self {
        Self { backend, tls: None, max_body: Config::default().max_body, recording: None }
    }

    /// Serves connections until it is dropped, which cuts them all.
    async fn accept(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        for id in 1.. {
            let tcp = loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((tcp, _)) => break tcp,
                        // Out of descriptors, most likely: those in use must end first.
                        Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                    },
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                }
            };
            let server = self.clone();
            connections.spawn(async move {
                let metrics = &server.backend.metrics;
                count(&metrics.connections);
                let _open = Metrics::open(&metrics.open_connections, None);
                if let Some(socket) = server.secure(tcp).await {
                    let socket = server.recorded(id, socket);
                    exchange::serve(&server, Connection::new(id, socket)).await;
                }
            });
        }
    }

    fn recorded(&self, connection: u64, socket: Socket) -> Socket {
        match &self.recording {
            Some(recording) => Socket::Recorded(Box::new((socket, recording.tap(connection)))),
            None => socket,
        }
    }

    async fn secure(&self, tcp: TcpStream) -> Option<Socket> {
        tcp.set_nodelay(true).ok()?;
        let Some(tls) = &self.tls else { return Some(Socket::Plain(tcp)) };
        let handshake = tokio::time::timeout(tls::HANDSHAKE, tls.accept(tcp)).await;
        match handshake {
            Ok(Ok(stream)) => Some(Socket::Tls(Box::new(stream))),
            Ok(Err(_)) | Err(_) => {
                self.backend.metrics.bad_requests.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}
