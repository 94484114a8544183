//! Handing the listening sockets over to another process, so that no connection is refused in between.
//!
//! The one who takes over asks with an upgrade on the admin socket, and gets one message: what the running proxy
//! listens with, as JSON on a line, and the sockets themselves beside it (`SCM_RIGHTS`). It gets ready and says so;
//! only then the running proxy accepts no more, and says that in turn. Both have the same sockets, so whoever
//! connects meanwhile waits in their queue. If the new one ends before it is ready, nothing has happened.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use wire::http1::ResponseHead;
use wire::run_event::RunEvent;

use super::status::Phase;
use super::{Admin, socket};
use crate::secret::Secret;

/// The version of the message. A proxy that does not know a version refuses, and the running one goes on.
const VERSION: u32 = 1;

/// What the upgrade is called.
pub(super) const PROTOCOL: &str = "prodex-handover";

/// How long the new process may take from the message to its being ready, and the old one for each answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Most sockets: two of the proxy and that of the admin port.
const MAX_SOCKETS: usize = 3;

/// Longest head and message.
const MAX_MESSAGE: usize = 16 * 1024;

const READY: &[u8] = b"ready\n";
const TAKEN: &[u8] = b"taken\n";

/// What the running proxy says beside its sockets.
#[derive(Serialize, Deserialize)]
struct Offer {
    version: u32,
    pid: u32,
    program: String,
    listen: SocketAddr,
    /// How many of the sockets are the proxy's; one more is that of the admin port.
    sockets: usize,
    tls: bool,
    /// None for a proxy that asks for none.
    capability: Option<String>,
}

/// Who takes over, as its request says.
#[derive(Debug, Clone)]
struct Successor {
    pid: u32,
    program: String,
}

/// Answers the request of a process that wants to take over.
pub(super) fn answer(admin: &Arc<Admin>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let refuse = |status, problem: &str| super::server::error(status, problem);
    let is_upgrade = request.headers().get(header::UPGRADE).is_some_and(|value| value == PROTOCOL);
    if !is_upgrade {
        return refuse(StatusCode::UPGRADE_REQUIRED, "a handover is asked for as an upgrade");
    }
    if admin.run.is_launched {
        return refuse(StatusCode::CONFLICT, "it belongs to a `prodex run`, and ends with it");
    }
    if Phase::of(&admin.proxy) != Phase::Serving {
        return refuse(StatusCode::CONFLICT, "it accepts no connections any more");
    }
    if admin.is_handing_over.swap(true, Ordering::Relaxed) {
        return refuse(StatusCode::CONFLICT, "another process is taking over just now");
    }
    let field = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let successor = Successor {
        pid: field("prodex-pid").and_then(|pid| pid.parse().ok()).unwrap_or_default(),
        program: field("prodex-version").unwrap_or_default().chars().take(40).collect(),
    };
    let (admin, upgrade) = (Arc::clone(admin), hyper::upgrade::on(&mut request));
    tokio::spawn(async move {
        let handing = async {
            let upgraded = upgrade.await.map_err(io::Error::other)?;
            let parts = upgraded.downcast::<TokioIo<UnixStream>>();
            let parts = parts.map_err(|_| io::Error::other("it is no Unix socket"))?;
            hand_over(&admin, parts.io.into_inner(), &successor).await
        };
        // Whoever wanted to take over knows why it did not; here nothing has happened.
        let _ = handing.await;
        admin.is_handing_over.store(false, Ordering::Relaxed);
    });
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    answer
}

/// The running proxy's side.
async fn hand_over(admin: &Admin, mut stream: UnixStream, successor: &Successor) -> io::Result<()> {
    let sockets: Vec<_> = admin.run.sockets.iter().filter_map(std::sync::Weak::upgrade).collect();
    let port = admin.run.port.as_ref().and_then(std::sync::Weak::upgrade);
    if sockets.is_empty() {
        return Err(io::ErrorKind::NotConnected.into());
    }
    let offer = Offer {
        version: VERSION,
        pid: std::process::id(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        listen: admin.run.ready.listen,
        sockets: sockets.len(),
        tls: admin.proxy.is_tls,
        capability: admin.proxy.guard.capability().map(|capability| capability.expose().to_owned()),
    };
    let message = serde_json::to_string(&offer).map_err(io::Error::other)? + "\n";
    let all: Vec<BorrowedFd<'_>> = sockets.iter().chain(&port).map(|socket| socket.as_fd()).collect();
    send(&stream, message.as_bytes(), &all).await?;
    let mut answer = [0; READY.len()];
    timed(stream.read_exact(&mut answer)).await?;
    if answer != READY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    admin.proxy.leaving.cancel();
    admin.proxy.control.log.record(&RunEvent::RuntimeProxySuperseded {
        pid: successor.pid,
        version: successor.program.as_str().into(),
        active: admin.proxy.admission.active(),
    });
    timed(stream.write_all(TAKEN)).await
}

/// What was taken over, before the running proxy has let go.
#[derive(Debug)]
pub struct Taken {
    stream: UnixStream,
    /// The process that listens with it until now.
    pub pid: u32,
    /// The version of its program.
    pub program: String,
    /// The listening sockets: the first is that of `listen`.
    pub sockets: Vec<TcpListener>,
    /// The socket of the admin port, if it had one.
    pub port: Option<TcpListener>,
    /// The address.
    pub listen: SocketAddr,
    /// Whether clients come over TLS.
    pub tls: bool,
    /// What clients show; none if nothing is asked for.
    pub capability: Option<Secret>,
}

/// Asks a running proxy for its sockets.
///
/// # Errors
/// When it does not give them, with its reason.
pub async fn take(path: &Path) -> io::Result<Taken> {
    let stream = socket::connect(path)?;
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    if stream.peer_cred()?.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other("it runs as another user"));
    }
    let (pid, version) = (std::process::id(), env!("CARGO_PKG_VERSION"));
    let request = format!(
        "POST /handover HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: {PROTOCOL}\r\n\
         prodex-pid: {pid}\r\nprodex-version: {version}\r\n\r\n"
    );
    timed(stream.write_all(request.as_bytes())).await?;
    let (mut read, mut sockets) = (Vec::new(), Vec::new());
    let end = loop {
        timed(receive(&stream, &mut read, &mut sockets)).await?;
        let head = ResponseHead::parse(&read).map_err(io::Error::other)?;
        let Some((head, end)) = head else { continue };
        if head.status() != 101 {
            return Err(refusal(&read[end..], head.status()));
        }
        break end;
    };
    while !read[end..].ends_with(b"\n") {
        timed(receive(&stream, &mut read, &mut sockets)).await?;
    }
    let offer: Offer = serde_json::from_slice(&read[end..]).map_err(io::Error::other)?;
    accept(offer, sockets, stream)
}

/// Why it refuses, as it says.
fn refusal(body: &[u8], status: u16) -> io::Error {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match (status, body["error"].as_str()) {
        (404, _) => {
            io::Error::other("its version knows no handover; stop it, and start this one without --replace")
        }
        (_, Some(problem)) => io::Error::other(problem.to_owned()),
        (status, None) => io::Error::other(format!("it answered {status}")),
    }
}

/// Holds what was offered against what came with it.
fn accept(offer: Offer, sockets: Vec<OwnedFd>, stream: UnixStream) -> io::Result<Taken> {
    let wrong = |problem: &str| Err(io::Error::other(problem.to_owned()));
    if offer.version != VERSION {
        return wrong("its version hands over in another way; stop it, and start this one without --replace");
    }
    let mut sockets: Vec<TcpListener> = sockets.into_iter().map(TcpListener::from).collect();
    if offer.sockets == 0 || sockets.len() < offer.sockets || sockets.len() > offer.sockets + 1 {
        return wrong("it did not hand over the sockets that it speaks of");
    }
    let port = (sockets.len() > offer.sockets).then(|| sockets.remove(offer.sockets));
    for socket in &sockets {
        let address = socket.local_addr()?;
        if !address.ip().is_loopback() || address.port() != offer.listen.port() {
            return wrong("it handed over a socket of another address");
        }
    }
    if sockets[0].local_addr()? != offer.listen {
        return wrong("it handed over a socket of another address");
    }
    let Offer { pid, program, listen, tls, capability, .. } = offer;
    let capability = capability.map(Secret::new);
    Ok(Taken { stream, pid, program, sockets, port, listen, tls, capability })
}

/// The way back to the running proxy, which is told when this one is ready.
#[derive(Debug)]
pub struct Confirm {
    stream: UnixStream,
    pid: u32,
}

impl Taken {
    /// Splits off the way back.
    #[must_use]
    pub fn confirm(self) -> (Confirm, Vec<TcpListener>, Option<TcpListener>) {
        (Confirm { stream: self.stream, pid: self.pid }, self.sockets, self.port)
    }
}

impl Confirm {
    /// Says that this process is ready, and waits until the running proxy accepts no more.
    ///
    /// # Errors
    /// When it goes on: then this one must not accept either.
    pub async fn ready(mut self) -> io::Result<()> {
        let mut answer = [0; TAKEN.len()];
        let told = async {
            timed(self.stream.write_all(READY)).await?;
            timed(self.stream.read_exact(&mut answer)).await
        };
        match told.await {
            Ok(_) if answer == TAKEN => Ok(()),
            // It has died; nobody else has its sockets.
            _ if socket::is_gone(self.pid) => Ok(()),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) => Err(error),
        }
    }
}

async fn timed<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Sends a message that fits the socket's buffer, and file descriptors with its first byte.
async fn send(stream: &UnixStream, message: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let sent = stream.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(io::Error::other("too many sockets"));
        }
        Ok(sendmsg(stream, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?)
    });
    if timed(sent).await? == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives what is there, and the file descriptors that came with it.
async fn receive(stream: &UnixStream, read: &mut Vec<u8>, sockets: &mut Vec<OwnedFd>) -> io::Result<()> {
    let (count, received) = stream
        .async_io(Interest::READABLE, || {
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let buffers = &mut [IoSliceMut::new(&mut bytes)];
            let count = recvmsg(stream, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
            let rights = ancillary.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(rights) => Some(rights),
                _ => None,
            });
            let received: Vec<OwnedFd> = rights.flatten().collect();
            read.extend_from_slice(&bytes[..count]);
            Ok((count, received))
        })
        .await?;
    sockets.extend(received);
    if count == 0 || read.len() > MAX_MESSAGE {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
