//! A connection of a bulk mock: reads requests where they land, and sends what is rendered, with one write.
//!
//! Reads and writes go through one buffer of the thread. A connection owns memory only for what came in part,
//! and for what the socket did not take.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::counters::Counters;
use super::known::Misplaced;
use super::request::{self, Call, Head, Start};
use super::turn::{Order, Reply};
use super::{Shared, control, known, turn, websocket};
use crate::accounts::Unauthorized;
use crate::connection::{Connection, Gone, Socket};
use crate::content::{Ask, now};
use crate::metrics::count;
use crate::server::{After, once};

/// A socket and what was read of it ahead.
pub(super) struct Wire {
    tcp: TcpStream,
    ahead: Vec<u8>,
}

/// Bytes that one read takes at most.
const READ: usize = 256 * 1024;

/// The most that is read ahead while a reply is sent.
const READ_AHEAD: usize = 64 * 1024;

/// How much of a body is looked at: it says in there what is asked for, and what it says there of other accounts
/// is noticed.
const MAX_SEARCH: usize = 64 * 1024;

/// The longest compressed body; nothing is said of it before it is there.
const MAX_COMPRESSED: u64 = 16 << 20;

/// What a thread's buffer for writes may keep.
const MAX_KEPT: usize = 1 << 20;

thread_local! {
    static READS: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
    static WRITES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Wire {
    /// Reads until `take` has what it wants. It gets all that is there and says how much of it it used.
    pub(super) async fn read<T>(
        &mut self,
        shared: &Shared,
        mut take: impl FnMut(&[u8]) -> (usize, Option<T>),
    ) -> Result<T, Gone> {
        if !self.ahead.is_empty()
            && let Some(taken) = self.take_ahead(&mut take)
        {
            return Ok(taken);
        }
        loop {
            self.tcp.readable().await.map_err(|_| Gone)?;
            if shared.is_frozen() {
                shared.stand_still();
            }
            let taken = READS.with_borrow_mut(|buffer| match self.tcp.try_read(buffer) {
                Ok(0) => Err(Gone),
                Ok(length) if self.ahead.is_empty() => {
                    let (used, taken) = take(&buffer[..length]);
                    self.ahead.extend_from_slice(&buffer[used..length]);
                    Ok(taken)
                }
                Ok(length) => {
                    self.ahead.extend_from_slice(&buffer[..length]);
                    Ok(self.take_ahead(&mut take))
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(_) => Err(Gone),
            })?;
            if let Some(taken) = taken {
                return Ok(taken);
            }
        }
    }

    fn take_ahead<T>(&mut self, take: &mut impl FnMut(&[u8]) -> (usize, Option<T>)) -> Option<T> {
        let (used, taken) = take(&self.ahead);
        if used == self.ahead.len() {
            // An idle connection keeps no buffer.
            self.ahead = Vec::new();
        } else {
            self.ahead.drain(..used);
        }
        taken
    }

    /// Reads so many bytes and forgets them.
    async fn skip(&mut self, shared: &Shared, length: u64) -> Result<(), Gone> {
        let mut left = length;
        if left == 0 {
            return Ok(());
        }
        self.read(shared, |bytes| {
            let used = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            left -= used as u64;
            (used, (left == 0).then_some(()))
        })
        .await
    }

    /// Sends what is rendered, in one write if the socket takes it. Says how long it was.
    pub(super) async fn send(
        &mut self,
        shared: &Shared,
        render: impl FnOnce(&mut Vec<u8>),
    ) -> Result<usize, Gone> {
        if shared.is_frozen() {
            shared.stand_still();
        }
        let (length, rest) = WRITES.with_borrow_mut(|buffer| {
            buffer.clear();
            render(buffer);
            let sent = match self.tcp.try_write(buffer) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(_) => return Err(Gone),
            };
            let rest = if sent == buffer.len() { Vec::new() } else { buffer[sent..].to_vec() };
            let length = buffer.len();
            if buffer.capacity() > MAX_KEPT {
                *buffer = Vec::new();
            }
            Ok((length, rest))
        })?;
        let mut rest = rest.as_slice();
        while !rest.is_empty() {
            self.tcp.writable().await.map_err(|_| Gone)?;
            match self.tcp.try_write(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(length)
    }

    /// Waits, unless the client goes away first.
    pub(super) async fn pause(&mut self, shared: &Shared, until: Instant) -> Result<(), Gone> {
        let sleep = tokio::time::sleep_until(until);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => break,
                readable = self.tcp.readable(), if self.ahead.len() < READ_AHEAD => {
                    readable.map_err(|_| Gone)?;
                    self.look_ahead()?;
                }
            }
        }
        if shared.is_frozen() {
            shared.stand_still();
        }
        Ok(())
    }

    /// Waits until the client goes away.
    pub(super) async fn until_gone(&mut self) {
        while self.tcp.readable().await.is_ok() && self.look_ahead().is_ok() {
            self.ahead.clear();
        }
    }

    /// Closes the connection with RST instead of FIN.
    pub(super) fn reset(self) {
        // If it cannot be set the client sees a FIN, which it tells apart.
        let _ = self.tcp.set_zero_linger();
    }

    fn look_ahead(&mut self) -> Result<(), Gone> {
        READS.with_borrow_mut(|buffer| match self.tcp.try_read(buffer) {
            Ok(0) => Err(Gone),
            Ok(length) => {
                self.ahead.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Gone),
        })
    }
}

/// What comes next on a connection.
enum Next {
    /// A model call, and how much of its body is still to come.
    Turn(Box<Order>, u64),
    /// A WebSocket is opened.
    Upgrade(Arc<known::Known>, String),
    /// A model call that is not played, why not, and how much of its body is still to come.
    Refuse(Refused, u64),
    /// Something that the scripted mock answers.
    Other,
}

/// Why a model call is not played.
enum Refused {
    Unauthorized(Unauthorized),
    /// It does not say what it asks for.
    NoAsk,
    Misplaced(Misplaced),
}

/// Serves a connection to its end.
pub(super) async fn serve(shared: &Shared, tcp: TcpStream) {
    let mut wire = Wire { tcp, ahead: Vec::new() };
    loop {
        let Ok(next) = wire.read(shared, |bytes| next(shared, bytes)).await else { return };
        let kept = match next {
            Next::Turn(order, left) => play(shared, wire, *order, left).await,
            Next::Upgrade(known, accept) => return websocket::serve(shared, wire, known, &accept).await,
            Next::Refuse(refused, left) => refuse(shared, wire, &refused, left).await,
            Next::Other => other(shared, wire).await,
        };
        match kept {
            Some(kept) => wire = kept,
            None => return,
        }
    }
}

async fn play(shared: &Shared, mut wire: Wire, mut order: Order, left: u64) -> Option<Wire> {
    if left > 0 {
        wire.skip(shared, left).await.ok()?;
        order.received = now();
    }
    turn::play(shared, wire, &order).await
}

async fn refuse(shared: &Shared, mut wire: Wire, refused: &Refused, left: u64) -> Option<Wire> {
    wire.skip(shared, left).await.ok()?;
    if !matches!(refused, Refused::Misplaced(_)) {
        count(&shared.counters.bad_requests);
    }
    let (status, body) = match refused {
        Refused::Unauthorized(why) => ("401 Unauthorized", control::unauthorized(why)),
        Refused::NoAsk => ("400 Bad Request", control::NO_ASK.to_owned()),
        Refused::Misplaced(what) => ("400 Bad Request", what.body().to_owned()),
    };
    let render = |out: &mut Vec<u8>| control::render(status, &body, out);
    wire.send(shared, render).await.ok()?;
    Some(wire)
}

/// Has a request answered by the scripted mock, or by what controls this one.
async fn other(shared: &Shared, wire: Wire) -> Option<Wire> {
    let number = shared.connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut connection = Connection::resume(number, Socket::Plain(wire.tcp), &wire.ahead);
    if control::is_next(&wire.ahead) {
        connection = control::answer(shared, connection).await?;
    } else {
        count(&shared.counters.side_requests);
        match once(&shared.server, connection).await {
            After::Keep(kept) => connection = kept,
            After::Closed => return None,
        }
    }
    match connection.into_parts() {
        (Socket::Plain(tcp), ahead) => Some(Wire { tcp, ahead }),
        // A bulk mock has neither TLS nor recordings.
        (Socket::Tls(_) | Socket::Recorded(_), _) => None,
    }
}

/// What the bytes begin with, and how many of them it takes.
fn next(shared: &Shared, bytes: &[u8]) -> (usize, Option<Next>) {
    match request::look(bytes) {
        Start::Partial => (0, None),
        Start::Other => (0, Some(Next::Other)),
        Start::Model(head) => {
            model(shared, &head, bytes).map_or((0, None), |(used, next)| (used, Some(next)))
        }
    }
}

/// A model call, as soon as enough of it is there.
fn model(shared: &Shared, head: &Head<'_>, bytes: &[u8]) -> Option<(usize, Next)> {
    let rest = &bytes[head.length..];
    let have = usize::try_from(head.body).unwrap_or(usize::MAX).min(rest.len());
    let left = head.body - have as u64;
    let used = head.length + have;
    let refused = |why| Some((used, Next::Refuse(why, left)));
    if head.is_zstd && head.body > MAX_COMPRESSED {
        return refused(Refused::NoAsk);
    }
    let known = match known::find(shared, head) {
        Ok(known) => known,
        Err(why) => return refused(Refused::Unauthorized(why)),
    };
    if head.call == Call::Upgrade {
        return Some((used, Next::Upgrade(known, websocket::accept(head.key))));
    }
    // What is another account's may stand anywhere in the input.
    if left > 0 && (head.is_zstd || have < MAX_SEARCH) {
        return None;
    }
    let text = if head.is_zstd { unpacked(&rest[..have]).into() } else { Cow::Borrowed(&rest[..have]) };
    let text = &text[..text.len().min(MAX_SEARCH)];
    let Some(ask) = Ask::find(text) else { return refused(Refused::NoAsk) };
    if let Some(what) = known.misplaced_state(head.turn_state).or_else(|| known.misplaced(text)) {
        count(&known.counts.misplaced);
        return refused(Refused::Misplaced(what));
    }
    let reply = if head.call == Call::Compact { Reply::Unary } else { Reply::Sse };
    let order = Order::new(ask, reply, known, head.closes);
    Some((used, Next::Turn(Box::new(order), left)))
}

/// What can be unpacked of a compressed body, as far as it is looked at.
fn unpacked(body: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let mut text = Vec::new();
    if let Ok(decoder) = zstd::Decoder::new(body) {
        // What is no zstd has no ask either.
        let _ = decoder.take(MAX_SEARCH as u64).read_to_end(&mut text);
    }
    text
}

/// The peak of what is counted as open, as a pair for `Metrics::open`.
pub(super) fn open_turn(counters: &Counters) -> crate::metrics::Open<'_> {
    crate::metrics::Metrics::open(&counters.open_turns, Some(&counters.peak_turns))
}
