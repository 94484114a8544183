//! The mock as a fast upstream for load: replies are rendered once per shape, copied, filled in and sent.
//!
//! What a reply consists of is `content`'s; a request brings it along. Model calls are read and answered here,
//! with two system calls for a unary exchange and one per write for a stream, without a journal and without
//! state but counters. Everything else is answered by the backend of the scripted mock, accounts and tokens
//! included, because a proxy asks for it once in a while. A request that names no account of the script is
//! refused in either way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::chatgpt::Backend;
use crate::journal::{Journal, Limits};
use crate::metrics::{Metrics, count};
use crate::script::Script;
use crate::server::{Server, StartError, bind};

mod connection;
mod control;
mod counters;
mod known;
mod reply;
mod request;
mod turn;
mod websocket;

pub use counters::{AccountCounts, BulkCounts};

use counters::Counters;

/// What a bulk mock is started with.
#[derive(Debug, Clone)]
pub struct BulkConfig {
    /// Where it listens; port 0 for any free one.
    pub listen: SocketAddr,
    /// The accounts that exist, and what calls beside the model's are answered with. Rules for model calls
    /// are of no effect.
    pub script: Script,
    /// What jitter is made from.
    pub seed: u64,
    /// How many threads serve.
    pub threads: usize,
}

impl Default for BulkConfig {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { listen, script: Script::default(), seed: 0, threads: 1 }
    }
}

/// Longest that the mock lets itself be frozen.
pub const LONGEST_FREEZE: Duration = Duration::from_secs(60);

/// A running bulk mock. Dropping it stops it: open connections are cut.
pub struct Bulk {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped to stop the threads.
    stop: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Bulk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bulk").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Bulk {
    /// Starts a bulk mock; it listens when this returns.
    ///
    /// # Errors
    /// When the script cannot be played, the address cannot be listened on, or there is no thread.
    pub fn start(config: BulkConfig) -> Result<Self, StartError> {
        config.script.check()?;
        let failed = |source| StartError::Listen { address: config.listen, source };
        // A socket is bound within a runtime, and whoever calls this need not have one.
        let runtime = runtime().map_err(StartError::Thread)?;
        let bound = {
            let _entered = runtime.enter();
            bind(config.listen).map_err(failed)
        };
        // Not dropped: the caller may be within a runtime of its own, where that would panic.
        runtime.shutdown_background();
        let listener = bound?;
        let address = listener.local_addr().map_err(failed)?;
        // As of the scripted mock: a plain mock names an origin where nothing listens.
        let origin = "https://localhost:9".to_owned();
        let backend = Backend::new(config.script, Journal::new(Limits::OFF), config.seed, origin);
        let shared = Arc::new(Shared {
            server: Server::plain(Arc::new(backend)),
            seed: config.seed,
            counters: Counters::default(),
            connections: AtomicU64::new(1),
            started: Instant::now(),
            frozen_until: AtomicU64::new(0),
        });
        let mut bulk = Self { address, shared, stop: Vec::new(), threads: Vec::new() };
        for number in 0..config.threads.max(1) {
            bulk.spawn(number, listener.try_clone().map_err(failed)?).map_err(StartError::Thread)?;
        }
        Ok(bulk)
    }

    fn spawn(&mut self, number: usize, listener: std::net::TcpListener) -> std::io::Result<()> {
        let runtime = runtime()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let shared = Arc::clone(&self.shared);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("bulk-{number}")).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(shared, listener) => {}
                    _ = stopped => {}
                }
            });
        })?;
        self.stop.push(stop);
        self.threads.push(thread);
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its origin: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has been counted.
    #[must_use]
    pub fn metrics(&self) -> BulkCounts {
        self.shared.counters.counts()
    }

    /// Lets the whole mock stand still from now on, as a machine does that swaps: nothing is accepted, read or
    /// sent meanwhile. At most [`LONGEST_FREEZE`].
    pub fn freeze(&self, length: Duration) {
        self.shared.freeze(length);
    }

    /// Stops it: open connections are cut and the port is free when this returns.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.stop.clear();
        self.shared.frozen_until.store(0, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A panic of a thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// What all connections share.
struct Shared {
    /// Answers what is no model call.
    server: Server,
    seed: u64,
    counters: Counters,
    /// Numbers the connections.
    connections: AtomicU64,
    started: Instant,
    /// Nanoseconds since `started`; 0 when nothing is frozen.
    frozen_until: AtomicU64,
}

impl Shared {
    fn backend(&self) -> &Backend {
        &self.server.backend
    }

    fn freeze(&self, length: Duration) {
        let until = self.started.elapsed() + length.min(LONGEST_FREEZE);
        self.frozen_until.store(nanoseconds(until), Ordering::Relaxed);
    }

    /// Blocks this thread, and with it all its connections, while the mock is frozen. Everything that a thread
    /// does begins here; that it is no `await` is the point.
    fn stand_still(&self) {
        loop {
            let until = self.frozen_until.load(Ordering::Relaxed);
            let now = nanoseconds(self.started.elapsed());
            if until <= now {
                return;
            }
            std::thread::park_timeout(Duration::from_nanos(until - now));
        }
    }

    /// Whether the mock is frozen, at the price of one load.
    fn is_frozen(&self) -> bool {
        self.frozen_until.load(Ordering::Relaxed) != 0
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// In 584 years it overflows.
fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// Serves connections until it is dropped, which cuts them all.
async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let tcp = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => tcp,
                // Out of descriptors, most likely: those in use must end first.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        if shared.is_frozen() {
            shared.stand_still();
        }
        if tcp.set_nodelay(true).is_err() {
            continue;
        }
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let counters = &shared.counters;
            count(&counters.connections);
            let _open = Metrics::open(&counters.open_connections, None);
            connection::serve(&shared, tcp).await;
        });
    }
}
