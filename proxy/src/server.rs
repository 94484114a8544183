//! Listening: addresses, threads, accepting, and the drain.
//!
//! Each thread has a runtime of its own, and a connection stays on the thread that it was given to, with
//! the upstream connections it uses: no byte of a stream changes threads. The first thread accepts and
//! gives each connection to the thread that has the fewest.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::run_event::RunEvent;

use crate::attempt::connection::Connections;
use crate::metrics::Metrics;
use crate::notice;
use crate::pipeline::Proxy;
use crate::stream::Stream;

pub mod authority;

mod connection;

mod http2;

/// How many connections may wait for a thread.
const QUEUE: usize = 1024;

/// Most threads of a worker for what blocks: names that are resolved, long bodies that are decompressed,
/// conversations that only the database knows. A burst of them waits its turn.
const MAX_BLOCKING: usize = 8;

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(15);

/// How often another port is tried when the other loopback address has it taken.
const PORT_TRIES: usize = 16;

/// The listening sockets.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<Arc<TcpListener>>,
    /// The address that was asked for, with the port that was got.
    pub address: SocketAddr,
}

impl Listeners {
    /// Listens on a loopback address and on the other one with the same port. The name `localhost` may
    /// mean either, and what is sent to it holds credentials: nobody else must be able to listen there.
    ///
    /// # Errors
    /// When the port is taken, on either, or there are too many open files.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let other: IpAddr =
            if address.is_ipv4() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let mut tries = 0;
        loop {
            let first = TcpListener::bind(address).await?;
            let bound = first.local_addr()?;
            tries += 1;
            match TcpListener::bind((other, bound.port())).await {
                Ok(second) => return Ok(Self::new(vec![first, second], bound)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    if address.port() != 0 || tries == PORT_TRIES {
                        return Err(error);
                    }
                }
                // Nobody can listen there.
                Err(error) if is_missing(&error) => {
                    return Ok(Self::new(vec![first], bound));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn new(sockets: Vec<TcpListener>, address: SocketAddr) -> Self {
        Self { sockets: sockets.into_iter().map(Arc::new).collect(), address }
    }

    /// The sockets of a proxy whose place is taken.
    ///
    /// # Errors
    /// When the operating system does not let them be waited for.
    pub fn take(sockets: Vec<std::net::TcpListener>, address: SocketAddr) -> io::Result<Self> {
        let take = |socket: std::net::TcpListener| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        };
        Ok(Self::new(sockets.into_iter().map(take).collect::<io::Result<_>>()?, address))
    }

    /// The sockets, for as long as they are there.
    #[must_use]
    pub fn sockets(&self) -> Vec<Weak<TcpListener>> {
        self.sockets.iter().map(Arc::downgrade).collect()
    }
}

/// Whether the machine does not have the address that was to be bound, or nothing of its kind.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

/// What the connections of one thread share.
struct Worker {
    proxy: Arc<Proxy>,
    connections: Arc<Connections>,
    tls: Option<tokio_rustls::TlsAcceptor>,
    tasks: TaskTracker,
    load: Arc<AtomicUsize>,
}

impl Worker {
    fn new(proxy: &Arc<Proxy>, tls: Option<tokio_rustls::TlsAcceptor>, load: Arc<AtomicUsize>) -> Arc<Self> {
        let connections = Connections::new(&proxy.control);
        let (proxy, connections) = (Arc::clone(proxy), Arc::new(connections));
        Arc::new(Self { proxy, connections, tls, tasks: TaskTracker::new(), load })
    }

    /// Serves a connection in a task of its own.
    fn serve(self: &Arc<Self>, tcp: TcpStream) {
        let worker = Arc::clone(self);
        // Counted by whoever gave the connection to this thread.
        let load = Load(Arc::clone(&self.load));
        let open = Open::new(&self.proxy);
        self.tasks.spawn(async move {
            let (_load, _open) = (load, open);
            worker.accept(tcp).await;
        });
    }

    async fn accept(self: &Arc<Self>, tcp: TcpStream) {
        // A response is written in pieces that belong together: waiting for more would delay each event.
        if tcp.set_nodelay(true).is_err() {
            return;
        }
        let Some(acceptor) = &self.tls else {
            return connection::serve(self, self.recorded(Stream::Plain(tcp))).await;
        };
        let limit = self.proxy.control.config.request_timeout;
        let tls = tokio::select! {
            tls = tokio::time::timeout(limit, acceptor.accept(tcp)) => tls,
            () = self.proxy.draining.cancelled() => return,
        };
        let Ok(Ok(tls)) = tls else { return };
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            http2::serve(self, tls).await;
        } else {
            connection::serve(self, self.recorded(Stream::Accepted(Box::new(tls)))).await;
        }
    }

    /// The connection, watched by the recorder if there is one.
    fn recorded(&self, stream: Stream) -> Stream {
        match &self.proxy.recorder {
            Some(recorder) => recorder.watch(stream),
            None => stream,
        }
    }

    /// Closes idle upstream connections from time to time.
    async fn sweep(self: Arc<Self>) {
        let mut interval = tokio::time::interval(SWEEP);
        loop {
            interval.tick().await;
            self.connections.sweep();
        }
    }
}

/// A connection that counts for its thread.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection, counted from its beginning to its end.
struct Open(Arc<Metrics>);

impl Open {
    fn new(proxy: &Proxy) -> Self {
        let metrics = Arc::clone(&proxy.control.metrics);
        metrics.connections.fetch_add(1, Ordering::Relaxed);
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A thread other than the first.
struct Remote {
    sender: mpsc::Sender<std::net::TcpStream>,
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Remote {
    fn start(
        number: usize,
        proxy: &Arc<Proxy>,
        tls: Option<&tokio_rustls::TlsAcceptor>,
        abort: &CancellationToken,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let load = Arc::new(AtomicUsize::new(0));
        let (proxy, tls, abort) = (Arc::clone(proxy), tls.cloned(), abort.clone());
        let worker_load = Arc::clone(&load);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING)
            .build()?;
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            runtime.block_on(async {
                let worker = Worker::new(&proxy, tls, worker_load);
                serve_remote(&worker, receiver, &abort).await;
            });
            // Nothing runs here that must come to its end: an address that is being looked up need not.
            runtime.shutdown_background();
        })?;
        Ok(Self { sender, load, thread })
    }
}

/// Serves the connections that a thread is given, until there are no more to come and all have ended.
async fn serve_remote(
    worker: &Arc<Worker>,
    mut receiver: mpsc::Receiver<std::net::TcpStream>,
    abort: &CancellationToken,
) {
    let sweep = tokio::spawn(Arc::clone(worker).sweep());
    while let Some(tcp) = receiver.recv().await {
        match TcpStream::from_std(tcp) {
            Ok(tcp) => worker.serve(tcp),
            Err(_) => drop(Load(Arc::clone(&worker.load))),
        }
    }
    finish(worker, abort).await;
    sweep.abort();
}

/// Waits until all connections have ended, or the drain is cut short.
async fn finish(worker: &Worker, abort: &CancellationToken) {
    worker.tasks.close();
    tokio::select! {
        () = worker.tasks.wait() => {}
        () = abort.cancelled() => {}
    }
}

/// Serves until the proxy drains, and then until all requests have ended or the time for that is over.
/// Says how many requests were cut off.
///
/// # Errors
/// When a thread cannot be started.
pub async fn run(
    proxy: &Arc<Proxy>,
    listeners: Listeners,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> io::Result<usize> {
    Ok(Server::start(proxy, listeners, tls)?.run().await)
}

/// A server whose threads are there and which accepts nothing yet.
pub struct Server {
    proxy: Arc<Proxy>,
    listeners: Listeners,
    local: Arc<Worker>,
    remotes: Vec<Remote>,
    abort: CancellationToken,
}

impl Server {
    /// Starts the threads.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(
        proxy: &Arc<Proxy>,
        listeners: Listeners,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> io::Result<Self> {
        let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
        let abort = CancellationToken::new();
        let local = Worker::new(proxy, acceptor.clone(), Arc::default());
        let remotes = (1..proxy.control.config.worker_count())
            .map(|number| Remote::start(number, proxy, acceptor.as_ref(), &abort))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self { proxy: Arc::clone(proxy), listeners, local, remotes, abort })
    }

    /// Serves until the proxy drains, and then until all requests have ended or the time for that is over.
    /// Says how many requests were cut off. A proxy whose place is taken serves until all connections have
    /// ended, however long that takes.
    pub async fn run(self) -> usize {
        let Self { proxy, listeners, local, remotes, abort } = self;
        let sweep = tokio::spawn(Arc::clone(&local).sweep());
        let accepting = listeners.sockets.into_iter().map(|listener| accept(&local, &remotes, listener));
        tokio::select! {
            () = futures_join(accepting) => {}
            () = proxy.leaving.cancelled() => {}
        }
        let log = &proxy.control.log;
        let mut threads = Vec::new();
        for Remote { sender, thread, .. } in remotes {
            // Without senders a thread knows that no connection comes any more.
            drop(sender);
            threads.push(thread);
        }
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let all = async {
            finish(&local, &abort).await;
            // A thread that panicked has nothing in flight any more.
            let _ = joined.await;
        };
        let mut all = std::pin::pin!(all);
        let has_ended = tokio::select! {
            biased;
            () = proxy.draining.cancelled() => false,
            () = &mut all => true,
        };
        let started = Instant::now();
        log.record(&RunEvent::DrainStarted { active: proxy.admission.active() });
        let mut aborted = 0;
        if !has_ended && tokio::time::timeout(proxy.control.config.drain_timeout, &mut all).await.is_err() {
            aborted = proxy.admission.active();
            if let Some(recorder) = &proxy.recorder {
                recorder.cut_short();
            }
            abort.cancel();
            all.await;
        }
        sweep.abort();
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        log.record(&RunEvent::DrainFinished { aborted, ms });
        aborted
    }
}

/// Waits for all of a few futures.
async fn futures_join(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Accepts connections and gives each to the thread that has the fewest.
async fn accept(local: &Arc<Worker>, remotes: &[Remote], listener: Arc<TcpListener>) {
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                back_off(&error).await;
                continue;
            }
        };
        let least = remotes.iter().min_by_key(|remote| remote.load.load(Ordering::Relaxed));
        let here = local.load.load(Ordering::Relaxed);
        match least.filter(|remote| remote.load.load(Ordering::Relaxed) < here) {
            Some(remote) => hand_over(local, remote, tcp),
            None => {
                local.load.fetch_add(1, Ordering::Relaxed);
                local.serve(tcp);
            }
        }
    }
}

/// Gives a connection to another thread, or, if that one has too many waiting, serves it here.
fn hand_over(local: &Arc<Worker>, remote: &Remote, tcp: TcpStream) {
    let Ok(tcp) = tcp.into_std() else { return };
    remote.load.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = remote.sender.try_send(tcp) {
        remote.load.fetch_sub(1, Ordering::Relaxed);
        if let Ok(tcp) = TcpStream::from_std(error.into_inner()) {
            local.load.fetch_add(1, Ordering::Relaxed);
            local.serve(tcp);
        }
    }
}

/// Says whether this error is that no further file can be open, and tells the person the first time: what they
/// see otherwise is a client that waits.
pub(crate) fn tell_if_out_of_files(error: &io::Error) -> bool {
    static TOLD: Once = Once::new();
    let is_out =
        [Errno::EMFILE, Errno::ENFILE].iter().any(|errno| error.raw_os_error() == Some(*errno as i32));
    if is_out {
        TOLD.call_once(|| {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            notice::tell(format_args!(
                "{error}: as many connections are open as the limit of {limit} files allows, and further \
                 ones wait; raise it with `ulimit -n`, or LimitNOFILE= of the service"
            ));
        });
    }
    is_out
}

/// Waits a moment when there are too many open files: accepting again at once would only burn the
/// processor, and never accepting again would make clients wait for ever.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no condition to wait for: files are closed elsewhere"
)]
async fn back_off(error: &io::Error) {
    tell_if_out_of_files(error);
    let is_of_one_connection =
        matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
    if !is_of_one_connection {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_is_not_there_may_be_left_out() {
        let missing = [nix::errno::Errno::EADDRNOTAVAIL, nix::errno::Errno::EAFNOSUPPORT];
        let there = [nix::errno::Errno::EMFILE, nix::errno::Errno::EACCES, nix::errno::Errno::EADDRINUSE];
        let is_missing = |errno: nix::errno::Errno| is_missing(&io::Error::from(errno));
        assert!(missing.into_iter().all(is_missing));
        assert!(!there.into_iter().any(is_missing));
    }
}
