//! Connections to upstreams: opened, and kept for the next request by the thread that opened them.
//!
//! A connection is registered with one thread's reactor, so each thread has its own idle ones. Before
//! an idle connection is used it is looked at: one that the upstream has ended, or that has bytes
//! nobody asked for, is not used. Nor is one of before the machine slept: what ended meanwhile was told to
//! nobody, and the first request would wait for an answer that does not come.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::breaker::Hosts;
use crate::clock::Now;
use crate::config::Origin;
use crate::control::Control;
use crate::error::{ConnectStep, Error};
use crate::server::tell_if_out_of_files;
use crate::stream::Stream;

/// Most idle connections per thread and origin.
const MAX_IDLE: usize = 256;

/// Where a connection leads: what of an origin the connection depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    host: Arc<str>,
    port: u16,
    is_tls: bool,
}

impl Peer {
    /// The peer of an origin.
    #[must_use]
    pub fn of(origin: &Origin) -> Self {
        Self { host: Arc::clone(origin.host()), port: origin.port(), is_tls: origin.is_tls() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host) = (if self.is_tls { "https" } else { "http" }, &self.host);
        if host.contains(':') {
            write!(formatter, "{scheme}://[{host}]:{}", self.port)
        } else {
            write!(formatter, "{scheme}://{host}:{}", self.port)
        }
    }
}

/// The upstream connections of one thread.
#[derive(Debug)]
pub struct Connections {
    tls: Arc<rustls::ClientConfig>,
    connect_timeout: Duration,
    dead_timeout: Duration,
    keep_alive: Duration,
    /// Which upstreams can be reached; of all threads together.
    hosts: Arc<Hosts>,
    idle: Mutex<HashMap<Peer, Vec<(Now, Stream)>>>,
}

impl Connections {
    /// No connections yet.
    #[must_use]
    pub fn new(control: &Control) -> Self {
        let Control { config, hosts, tls, .. } = control;
        Self {
            tls: Arc::clone(tls),
            connect_timeout: config.connect_timeout,
            dead_timeout: config.upstream_dead_timeout,
            keep_alive: config.upstream_keep_alive,
            hosts: Arc::clone(hosts),
            idle: Mutex::default(),
        }
    }

    /// An idle connection that is still good, the one used last first.
    #[must_use]
    pub fn reuse(&self, peer: &Peer) -> Option<Stream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = idle.get_mut(peer)?;
        let now = Now::read();
        while let Some((since, mut stream)) = streams.pop() {
            if !self.is_recent(since, now) {
                // Those below it are older still.
                streams.clear();
                return None;
            }
            if is_quiet(&mut stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended for the next request.
    pub fn keep(&self, peer: Peer, stream: Stream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = idle.entry(peer).or_default();
        let now = Now::read();
        streams.retain(|(since, _)| self.is_recent(*since, now));
        if streams.len() < MAX_IDLE {
            streams.push((now, stream));
        }
    }

    /// Closes the connections that have been idle for too long. Says whether any are left.
    pub fn sweep(&self) -> bool {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Now::read();
        idle.retain(|_, streams| {
            streams.retain_mut(|(since, stream)| self.is_recent(*since, now) && is_quiet(stream));
            !streams.is_empty()
        });
        !idle.is_empty()
    }

    /// Whether a connection that is idle since then may still be good.
    fn is_recent(&self, since: Now, now: Now) -> bool {
        now.since(since) <= self.keep_alive && !now.has_slept_since(since)
    }

    /// Opens a connection. Where others failed a moment ago, it waits up to `patience` for its turn.
    ///
    /// # Errors
    /// When the peer cannot be reached within the time for connecting, or nobody tries for longer than that.
    pub async fn open(&self, origin: &Origin, patience: Duration) -> Result<Stream, Error> {
        let failed =
            |step, problem, pause| Error::Connect { origin: origin.to_string(), step, problem, pause };
        let pass = self.hosts.enter(&Peer::of(origin), patience).await.map_err(|left| {
            let problem = "it could not be reached several times a moment ago".to_owned();
            failed(ConnectStep::Backoff, problem, Some(left))
        })?;
        let (step, problem) =
            match tokio::time::timeout(self.connect_timeout, self.open_unbounded(origin)).await {
                Ok(Ok(stream)) => {
                    pass.reached();
                    return Ok(stream);
                }
                Ok(Err(failure)) => failure,
                Err(_) => (ConnectStep::Timeout, format!("no connection within {:?}", self.connect_timeout)),
            };
        // The upstream is not to blame for what is missing here.
        let pause = if step == ConnectStep::Files { None } else { pass.failed() };
        Err(failed(step, problem, pause))
    }

    async fn open_unbounded(&self, origin: &Origin) -> Result<Stream, (ConnectStep, String)> {
        let addresses = resolve(origin).await.map_err(|error| (ConnectStep::Resolve, error.to_string()))?;
        let tcp = connect(addresses.into_iter().map(TcpStream::connect)).await?;
        let prepared = tcp.set_nodelay(true).and_then(|()| notice_death(&tcp, self.dead_timeout));
        prepared.map_err(|error| (ConnectStep::Connect, error.to_string()))?;
        if !origin.is_tls() {
            return Ok(Stream::Plain(tcp));
        }
        let tls_error = |error: String| (ConnectStep::Tls, error);
        let name = rustls::pki_types::ServerName::try_from(origin.dial_host().to_owned());
        let name = name.map_err(|error| tls_error(error.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let tls = connector.connect(name, tcp).await.map_err(|error| tls_error(error.to_string()))?;
        Ok(Stream::Opened(Box::new(tls)))
    }
}

/// How many times a silent machine is asked before its connection counts as gone.
const PROBES: u32 = 4;

/// Has the system notice a machine that is gone without a word within about `limit`, while nothing is sent
/// (RFC 1122 §4.2.3.6) and while what is sent is not acknowledged (RFC 5482).
fn notice_death(tcp: &TcpStream, limit: Duration) -> std::io::Result<()> {
    let socket = socket2::SockRef::from(tcp);
    // Half of the time for silence, the other half for questions; the system counts whole seconds.
    let interval = (limit / 2 / PROBES).max(Duration::from_secs(1));
    let keepalive = socket2::TcpKeepalive::new().with_time((limit / 2).max(Duration::from_secs(1)));
    socket.set_tcp_keepalive(&keepalive.with_interval(interval).with_retries(PROBES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(limit))?;
    Ok(())
}

/// How long an address has to answer before the next one is tried beside it (RFC 8305 §8 recommends this).
const HEAD_START: Duration = Duration::from_millis(250);

/// The first connection that is made. Each attempt begins when the one before it has failed, or has not
/// succeeded for a while: an address that swallows everything must not use up the time of the others.
async fn connect<F>(
    mut attempts: impl ExactSizeIterator<Item = F>,
) -> Result<TcpStream, (ConnectStep, String)>
where
    F: Future<Output = std::io::Result<TcpStream>>,
{
    let mut last = (ConnectStep::Resolve, "the name has no address".to_owned());
    let mut begun: Vec<Pin<Box<F>>> = Vec::new();
    loop {
        match attempts.next() {
            Some(attempt) => begun.push(Box::pin(attempt)),
            None if begun.is_empty() => return Err(last),
            None => {}
        }
        let ended = std::future::poll_fn(|context| {
            let ended =
                begun.iter_mut().enumerate().find_map(|(at, attempt)| match attempt.as_mut().poll(context) {
                    Poll::Ready(result) => Some((at, result)),
                    Poll::Pending => None,
                });
            let Some((at, result)) = ended else { return Poll::Pending };
            drop(begun.remove(at));
            Poll::Ready(result)
        });
        let head_start = if attempts.len() > 0 { HEAD_START } else { Duration::MAX };
        match tokio::time::timeout(head_start, ended).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) if tell_if_out_of_files(&error) => {
                return Err((ConnectStep::Files, error.to_string()));
            }
            Ok(Err(error)) => last = (ConnectStep::Connect, error.to_string()),
            Err(_) => {}
        }
    }
}

/// The addresses of an origin's host; one that is an address needs no resolver.
async fn resolve(origin: &Origin) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(address) = origin.dial_host().parse() {
        return Ok(vec![SocketAddr::new(address, origin.port())]);
    }
    Ok(tokio::net::lookup_host((origin.dial_host(), origin.port())).await?.collect())
}

/// Whether the peer has neither ended the connection nor sent anything.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    let mut context = Context::from_waker(Waker::noop());
    matches!(Pin::new(stream).poll_read(&mut context, &mut buffer), Poll::Pending)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;
    use crate::config::Config;
    use crate::server::authority::client_config;
    use crate::telemetry::RunLog;

    #[tokio::test]
    async fn a_machine_that_is_gone_is_noticed_by_the_system() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let config = Config::load(Some(home.path()), &|_| None, &Vec::new()).unwrap();
        let (log, tls) = (RunLog::open(home.path()).unwrap(), client_config(None).unwrap());
        let state = crate::state::State::in_memory();
        let control = Control::new(config, state, Arc::new(log), Arc::new(tls), Handle::current());
        let connections = Connections::new(&control);
        let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let opened = connections.open(&origin, Duration::ZERO).await.unwrap();
        let Stream::Plain(tcp) = opened else { panic!("it is plain") };
        let socket = socket2::SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        let probed = socket.tcp_keepalive_time().unwrap()
            + socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert!((25..=60).contains(&probed.as_secs()), "{probed:?}");
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(60)));
    }

    #[tokio::test]
    async fn an_address_that_swallows_everything_does_not_use_up_the_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).await;
        tokio::time::pause();
        let attempt = async |result: Option<std::io::Result<TcpStream>>| match result {
            Some(result) => result,
            None => std::future::pending().await,
        };
        let refused = || attempt(Some(Err(std::io::ErrorKind::ConnectionRefused.into())));
        let began = tokio::time::Instant::now();
        let attempts = [attempt(None), refused(), attempt(Some(connection))];
        assert!(connect(attempts.into_iter()).await.is_ok());
        assert!(began.elapsed() < 2 * HEAD_START, "the second failed at once, and the third began");
        let none = connect([refused(), refused()].into_iter()).await.unwrap_err();
        assert_eq!(none.0, ConnectStep::Connect);
        let nobody = connect([refused()].into_iter().skip(1)).await.unwrap_err();
        assert_eq!(nobody.0, ConnectStep::Resolve);
    }
}
