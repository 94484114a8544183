//! An upstream that plays recorded exchanges: what was answered is answered again, write by write.
//!
//! A request is answered with the recorded answer of the exchange it belongs to, with its head, its write
//! sizes, its pauses and its end; every byte received is kept. Whoever plays the client in the same process
//! may tell how much has arrived: the playback then waits for the client behind each write, so that a proxy
//! which gathers a stream is found out by what it holds back and not by a race.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use wire::capture::Exchange;

use crate::connection::{Connection, Socket};
use crate::server::{StartError, bind};
use crate::tls::{self, Authority};

mod answer;

mod hold;

mod log;

mod matching;

mod pace;

mod play;

mod talk;

pub use answer::reason;
pub use hold::{held_beginning, held_messages};
pub use log::{Ask, Heard, Log, now};
pub use matching::path_and_query;
pub use pace::Pace;

pub use talk::{Over, Side, encode, talk};

use log::Book;
use matching::Catalogue;

/// In the rest of a recorded request: the answer begins when so many bytes of the body have been read.
pub const ANSWER_AFTER: &str = "answer_after";

/// In the rest of a recorded request: the longest pause of this exchange in milliseconds, whatever else is set.
pub const MAX_GAP: &str = "max_gap_ms";

/// In the rest of a recorded request, when true: the client ends its sending side behind the request and
/// waits for the answer.
pub const HALF_CLOSE: &str = "half_close";

/// In the rest of a recorded request, when true: the client leaves with a reset instead of a plain close.
pub const LEAVES_WITH_RESET: &str = "leaves_with_reset";

/// In the rest of a recorded request, when true: the answer breaks off within a chunk and not between two.
pub const CUT_IN_CHUNK: &str = "cut_in_chunk";

pub(crate) fn rest_number(exchange: &Exchange, name: &str) -> Option<u64> {
    exchange.request.rest.get(name)?.as_u64()
}

/// The pace of an exchange, which may have a longest pause of its own.
#[must_use]
pub fn pace_of(exchange: &Exchange, pace: Pace) -> Pace {
    rest_number(exchange, MAX_GAP)
        .map_or(pace, |millis| Pace { max_gap: Duration::from_millis(millis), ..pace })
}

/// Whether the client of this exchange ends its sending side behind the request.
#[must_use]
pub fn half_closes(exchange: &Exchange) -> bool {
    is_set(exchange, HALF_CLOSE)
}

/// Whether the client of this exchange leaves with a reset.
#[must_use]
pub fn leaves_with_reset(exchange: &Exchange) -> bool {
    is_set(exchange, LEAVES_WITH_RESET)
}

pub(crate) fn cuts_in_chunk(exchange: &Exchange) -> bool {
    is_set(exchange, CUT_IN_CHUNK)
}

fn is_set(exchange: &Exchange, name: &str) -> bool {
    exchange.request.rest.get(name).and_then(serde_json::Value::as_bool).unwrap_or(false)
}

/// How many bytes of the body are read before the answer begins, where that is not all of it.
#[must_use]
pub fn answers_after(exchange: &Exchange) -> Option<u64> {
    rest_number(exchange, ANSWER_AFTER)
}

/// What a playback is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 for any free one.
    pub listen: SocketAddr,
    /// The authority of its certificate; plain HTTP without one.
    pub tls: Option<Arc<Authority>>,
    /// How many times as fast as recorded.
    pub speed: f64,
    /// Longest pause, whatever was recorded.
    pub max_gap: Duration,
    /// What a proxy may put before a recorded path.
    pub prefix: String,
    /// How long it waits behind each write for the client to have it; not at all without.
    pub meet: Option<Duration>,
    /// Whether a proxy may hold a stream up to its first output, as one does that may still ask another account.
    pub holds_beginning: bool,
    /// How long it waits for a client that has to do something: to leave, to send its next message.
    pub patience: Duration,
    /// Most bytes of a request's body.
    pub max_body: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            speed: 1.0,
            max_gap: Duration::from_millis(20),
            prefix: String::new(),
            meet: Some(Duration::from_millis(500)),
            holds_beginning: false,
            patience: Duration::from_secs(5),
            max_body: 64 << 20,
        }
    }
}

/// A running playback. Dropping it stops it.
#[derive(Debug)]
pub struct Playback {
    address: SocketAddr,
    base_url: String,
    shared: Arc<Shared>,
    /// Dropped to stop the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What every connection needs.
#[derive(Debug)]
struct Shared {
    config: Config,
    catalogue: Mutex<Catalogue>,
    book: Book,
}

impl Shared {
    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, method: &str, target: &str, body: &[u8]) -> Option<Exchange> {
        self.catalogue().take(method, self.target(target), body)
    }

    fn is_early(&self, method: &str, target: &str) -> bool {
        self.catalogue().is_early(method, self.target(target))
    }

    fn target<'a>(&self, target: &'a str) -> &'a str {
        target.strip_prefix(&*self.config.prefix).unwrap_or(target)
    }
}

impl Playback {
    /// Starts a playback of these exchanges and waits until it listens.
    ///
    /// # Errors
    /// When the address cannot be listened on, or TLS cannot be set up.
    pub async fn start(exchanges: Vec<Exchange>, config: Config) -> Result<Self, StartError> {
        let acceptor = config.tls.as_ref().map(|authority| authority.server()).transpose()?;
        let failed = |source| StartError::Listen { address: config.listen, source };
        let listener = bind(config.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let base_url = match &config.tls {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        let catalogue = Mutex::new(Catalogue::new(exchanges));
        let shared = Arc::new(Shared { config, catalogue, book: Book::new() });
        let (stop, stopped) = oneshot::channel();
        let tls = acceptor.map(TlsAcceptor::from);
        let thread = spawn(listener, Arc::clone(&shared), tls, stopped).map_err(StartError::Thread)?;
        Ok(Self { address, base_url, shared, stop: Some(stop), thread: Some(thread) })
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
        self.shared.config.tls.as_deref().map(Authority::pem)
    }

    /// What it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Plays other exchanges from now on, and forgets what it has received.
    pub fn load(&self, exchanges: Vec<Exchange>) {
        *self.catalogue() = Catalogue::new(exchanges);
        self.shared.book.clear();
    }

    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.shared.catalogue()
    }

    /// Everything received so far.
    #[must_use]
    pub fn log(&self) -> Log {
        self.shared.book.log()
    }

    /// Waits until this exchange has been asked for. Says whether it was.
    pub async fn asked(&self, exchange: u64, limit: Duration) -> bool {
        self.shared.book.until(limit, |log, _| log.of(exchange).next().is_some()).await
    }

    /// Waits until nothing is being answered. Says whether it came to that.
    pub async fn settled(&self, limit: Duration) -> bool {
        self.shared.book.until(limit, |_, open| open == 0).await
    }

    /// To be told by whoever plays the client: the head of an exchange's answer has arrived, and so many
    /// bytes or messages behind it.
    pub fn arrived(&self, exchange: u64, count: u64) {
        self.shared.book.arrived(exchange, count.saturating_add(1));
    }

    /// To be told by whoever plays the client: this exchange begins. Once one is told, all must be.
    pub fn begun(&self, exchange: u64) {
        self.catalogue().begin(exchange);
    }

    /// To be told by whoever plays the client: nothing more of this exchange is waited for.
    pub fn left(&self, exchange: u64) {
        self.catalogue().end(exchange);
        self.shared.book.arrived(exchange, u64::MAX);
    }

    /// Stops it, and gives out what it has received: connections are cut and the port is free.
    pub async fn stop(mut self) -> Log {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.log()
    }
}

impl Drop for Playback {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A thread of its own: it keeps answering while a test blocks or pauses its clock.
fn spawn(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    stopped: oneshot::Receiver<()>,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    std::thread::Builder::new().name("playback".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = accept(listener, shared, tls) => {}
                _ = stopped => {}
            }
        });
    })
}

/// Serves connections until it is dropped, which cuts them all.
async fn accept(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
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
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        connections.spawn(async move {
            if let Some(socket) = secure(tcp, tls).await {
                play::serve(&shared, Connection::new(id, socket)).await;
            }
        });
    }
}

async fn secure(tcp: TcpStream, acceptor: Option<TlsAcceptor>) -> Option<Socket> {
    tcp.set_nodelay(true).ok()?;
    let Some(acceptor) = acceptor else { return Some(Socket::Plain(tcp)) };
    let handshake = tokio::time::timeout(tls::HANDSHAKE, acceptor.accept(tcp)).await;
    Some(Socket::Tls(Box::new(handshake.ok()?.ok()?)))
}

#[cfg(test)]
mod tests;
