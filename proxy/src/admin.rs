//! What a running proxy tells its owner, and does for them: status, metrics, reload, and what a launcher asks.
//!
//! It speaks HTTP/1.1 on a Unix socket in the home, `run/<pid>.sock`, for this user alone, and, if
//! `admin_listen` says so, on a loopback port for scrapers that show a token. It runs on the main runtime: it
//! costs no thread, and nothing wakes while nobody asks. None of it is on the way of a request.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use tokio::net::TcpListener;

use crate::launch::Ready;
use crate::pipeline::Proxy;
use crate::profile::Now;
use crate::secret::Secret;

pub mod client;

pub mod handover;

mod metrics;

mod server;

pub mod socket;

pub mod status;

pub mod token;

/// What the admin side knows of a run beside the proxy.
#[derive(Debug)]
pub struct Admin {
    proxy: Arc<Proxy>,
    run: Run,
    /// Whether another process is about to take over.
    is_handing_over: AtomicBool,
}

/// How a proxy was started.
#[derive(Clone)]
pub struct Run {
    /// What clients are given. It holds the capability, so it is told to a launcher of the same user alone.
    pub ready: Ready,
    /// Whether it belongs to a `prodex run`, and ends with it.
    pub is_launched: bool,
    /// When it began.
    pub started: Now,
    /// What it listens with, for as long as it does.
    pub sockets: Vec<Weak<TcpListener>>,
    /// The same of the admin port.
    pub port: Option<Weak<TcpListener>>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Run").field("listen", &self.ready.listen).finish_non_exhaustive()
    }
}

/// The admin side of a running proxy; the socket goes with it.
#[derive(Debug)]
pub struct Serving {
    _socket: Option<socket::Bound>,
}

impl Admin {
    /// The admin side of this proxy.
    #[must_use]
    pub fn new(proxy: Arc<Proxy>, run: Run) -> Arc<Self> {
        Arc::new(Self { proxy, run, is_handing_over: AtomicBool::new(false) })
    }

    /// Begins to answer on the home's socket, and on the port if there is one. A home that takes no socket
    /// does not keep the proxy from serving: `problem` is told why nobody will find it.
    pub fn serve(self: &Arc<Self>, port: Option<Port>, problem: impl FnOnce(&io::Error)) -> Serving {
        let bound = socket::bind(&self.proxy.control.config.home).inspect_err(problem).ok();
        let socket = bound.map(|(listener, bound)| {
            tokio::spawn(server::unix(Arc::clone(self), listener));
            bound
        });
        if let Some(Port { listener, token }) = port {
            tokio::spawn(server::tcp(Arc::clone(self), listener, token));
        }
        Serving { _socket: socket }
    }
}

/// A loopback port for scrapers.
#[derive(Debug)]
pub struct Port {
    listener: Arc<TcpListener>,
    token: Secret,
}

impl Port {
    /// Listens at a loopback address, for those who show the home's admin token.
    ///
    /// # Errors
    /// When the port is taken, or the token can be neither read nor made.
    pub async fn open(home: &Path, address: SocketAddr) -> io::Result<Self> {
        let token = token::open(home)?;
        Ok(Self { listener: Arc::new(TcpListener::bind(address).await?), token })
    }

    /// Listens on with the socket of a proxy whose place is taken.
    ///
    /// # Errors
    /// As for one of its own.
    pub fn take(home: &Path, listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: Arc::new(TcpListener::from_std(listener)?), token: token::open(home)? })
    }

    /// Its socket, for as long as it is there.
    #[must_use]
    pub fn socket(&self) -> Weak<TcpListener> {
        Arc::downgrade(&self.listener)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
