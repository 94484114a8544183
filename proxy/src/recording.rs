//! Recordings for `--record`: what each client sends and gets, byte for byte, as files of capture records.
//!
//! It is the client's leg that is recorded, so no credential of the pool is ever in a file. The client's
//! own token is, and so is all that it says: whoever shares a recording must scrub it first. The
//! capability is left out of paths and starred out elsewhere; within a compressed body it is not looked for.
//!
//! The request path hands copies to bounded memory and never waits; a thread makes records of them. A
//! connection that finds the memory full is recorded no further, and its open exchanges say so. Without
//! `--record` nothing is copied and no connection is looked at. Every exchange over HTTP/1.1 is recorded,
//! those that the guard refuses too, and over HTTP/2 every one that hyper takes for a request.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wire::capture::{Closing, Headers};

use crate::secret::Secret;
use crate::stream::Stream;
use files::Files;

mod conceal;

mod files;

mod writer;

/// How many bytes may wait for the thread that writes.
const MAX_WAITING: usize = 64 * 1024 * 1024;

/// What an event needs beside its bytes.
const OVERHEAD: usize = 128;

/// Records a run.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    started: Instant,
    connections: AtomicU64,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the threads that tell and the one that writes have in common.
#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told when the first event of a burst comes, and at the end.
    changed: Condvar,
    /// Whether what ends from now on is cut off at the end of the drain.
    is_cutting: AtomicBool,
}

/// Events on their way to the disk.
#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
    is_closed: bool,
}

/// Something that happened on a connection, or on a stream of one.
#[derive(Debug)]
struct Event {
    /// Whose.
    key: u64,
    /// When, in milliseconds since the recording began.
    at: f64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The client sent bytes.
    Received(Bytes),
    /// The client was sent bytes.
    Sent(Bytes),
    /// A stream of HTTP/2 begins with a request.
    Begun(Box<Begun>),
    /// The request on a stream is complete.
    Asked,
    /// The response on a stream begins.
    Answered(u16, Headers),
    /// The response on a stream is complete.
    Done,
    /// What follows is not told: there was no room.
    Lost,
    /// It is over.
    Closed(Closing),
}

/// A request over HTTP/2.
#[derive(Debug)]
struct Begun {
    connection: u64,
    method: String,
    target: String,
    headers: Headers,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Events are put in whole, so a panic elsewhere cannot have left half of one.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event. Says whether there was room for it.
    fn push(&self, event: Event, size: usize, must: bool) -> bool {
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return true;
        }
        if !must && waiting.bytes + size > MAX_WAITING {
            return false;
        }
        waiting.bytes += size;
        let is_first = waiting.events.is_empty();
        waiting.events.push_back(event);
        drop(waiting);
        // Only the first event of a burst wakes the writer.
        if is_first {
            self.changed.notify_one();
        }
        true
    }
}

impl Recorder {
    /// Begins a recording in `directory`, which is made if it is missing. `capability` is what must be in
    /// none of its files.
    ///
    /// # Errors
    /// When no file can be written there.
    pub fn open(directory: &Path, capability: Option<&Secret>) -> io::Result<Arc<Self>> {
        let (files, started) = Files::open(directory)?;
        let shared = Arc::new(Shared::default());
        let (of_writer, capability) = (Arc::clone(&shared), capability.cloned());
        let writer = std::thread::Builder::new()
            .name("recording".to_owned())
            .spawn(move || writer::run(&of_writer, files, capability.as_ref()))?;
        let writer = Mutex::new(Some(writer));
        Ok(Arc::new(Self { shared, started, connections: AtomicU64::new(0), writer }))
    }

    /// The number of a new connection.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A client's connection whose bytes are recorded.
    #[must_use]
    pub fn watch(self: &Arc<Self>, stream: Stream) -> Stream {
        let tap = Tap::new(self, self.connection(), Closing::ByServer);
        Stream::Recorded(Box::new(Watched { stream, tap }))
    }

    /// A stream of an HTTP/2 connection, which begins with this request. It has no bytes of a head; what
    /// HTTP/2 says beside the fields is put the way HTTP/1.1 has it.
    #[must_use]
    pub fn begin(self: &Arc<Self>, connection: u64, parts: &http::request::Parts) -> Tap {
        let mut tap = Tap::new(self, self.connection(), Closing::ByClient);
        let host = parts.uri.authority().map(|host| ("host".to_owned(), host.as_str().to_owned()));
        let target = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let headers: Headers = host.into_iter().chain(fields(&parts.headers)).collect();
        let (method, target) = (parts.method.as_str().to_owned(), target.to_owned());
        tap.tell(What::Begun(Box::new(Begun { connection, method, target, headers })), 1024);
        tap
    }

    /// What ends from now on is cut off, because the drain has taken its time.
    pub fn cut_short(&self) {
        self.shared.is_cutting.store(true, Ordering::Relaxed);
    }

    /// Writes what is waiting and ends the recording. What has not ended is marked partial.
    pub fn close(&self) {
        self.shared.waiting().is_closed = true;
        self.shared.changed.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // A writer that panicked has nothing left to write.
            let _ = writer.join();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.close();
    }
}

/// The header fields as text.
pub(crate) fn fields(headers: &http::HeaderMap) -> impl Iterator<Item = (String, String)> {
    headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    })
}

/// Tells the recorder of one connection, or of one stream.
#[derive(Debug)]
pub struct Tap {
    recorder: Arc<Recorder>,
    key: u64,
    is_lost: bool,
    /// How it ends, unless told otherwise.
    closing: Closing,
    is_settled: bool,
}

impl Tap {
    fn new(recorder: &Arc<Recorder>, key: u64, closing: Closing) -> Self {
        Self { recorder: Arc::clone(recorder), key, is_lost: false, closing, is_settled: false }
    }

    /// The client sent bytes.
    pub fn received(&mut self, bytes: &[u8]) {
        if !self.is_lost {
            self.tell(What::Received(Bytes::copy_from_slice(bytes)), bytes.len());
        }
    }

    /// The client was sent bytes that are shared already.
    pub fn sent(&mut self, bytes: Bytes) {
        let size = bytes.len();
        self.tell(What::Sent(bytes), size);
    }

    /// The client was sent bytes by a write that began at this time.
    fn wrote(&mut self, at: f64, bytes: Bytes) {
        let size = bytes.len();
        self.tell_at(at, What::Sent(bytes), size);
    }

    /// Milliseconds since the recording began, to the microsecond.
    fn now(&self) -> f64 {
        (self.recorder.started.elapsed().as_secs_f64() * 1_000_000.0).round() / 1000.0
    }

    /// The request on a stream is complete.
    pub fn asked(&mut self) {
        self.tell(What::Asked, 0);
    }

    /// The response on a stream begins.
    pub fn answered(&mut self, status: http::StatusCode, headers: &http::HeaderMap) {
        self.tell(What::Answered(status.as_u16(), fields(headers).collect()), 1024);
    }

    /// The response on a stream is complete.
    pub fn done(&mut self) {
        if !self.is_settled {
            self.settle(Closing::ByServer);
            self.tell(What::Done, 0);
        }
    }

    /// Says how the connection ends. What is said first counts.
    pub fn settle(&mut self, closing: Closing) {
        if !std::mem::replace(&mut self.is_settled, true) {
            self.closing = closing;
        }
    }

    fn tell(&mut self, what: What, size: usize) {
        self.tell_at(self.now(), what, size);
    }

    fn tell_at(&mut self, at: f64, what: What, size: usize) {
        if !self.is_lost && !self.push(at, what, size, false) {
            self.is_lost = true;
            self.push(at, What::Lost, 0, true);
        }
    }

    fn push(&self, at: f64, what: What, size: usize, must: bool) -> bool {
        let event = Event { key: self.key, at, what };
        self.recorder.shared.push(event, size + OVERHEAD, must)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let is_cutting = self.recorder.shared.is_cutting.load(Ordering::Relaxed);
        let closing = if is_cutting && !self.is_settled { Closing::Drained } else { self.closing };
        self.push(self.now(), What::Closed(closing), 0, true);
    }
}

/// A connection whose bytes are recorded.
#[derive(Debug)]
pub struct Watched {
    /// The connection.
    pub(crate) stream: Stream,
    tap: Tap,
}

impl Watched {
    /// It is about to be reset.
    pub(crate) fn note_reset(&mut self) {
        self.tap.settle(Closing::Reset);
    }

    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        match &buffer.filled()[before..] {
            [] => self.tap.settle(Closing::ByClient),
            bytes => self.tap.received(bytes),
        }
        Poll::Ready(read)
    }

    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // A client may have read what was written before this thread goes on.
        let at = self.tap.now();
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.note_written(at, &[io::IoSlice::new(bytes)], &written);
        Poll::Ready(written)
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let at = self.tap.now();
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices));
        self.note_written(at, slices, &written);
        Poll::Ready(written)
    }

    fn note_written(&mut self, at: f64, slices: &[io::IoSlice<'_>], written: &io::Result<usize>) {
        let Ok(mut left) = *written else { return self.tap.settle(Closing::ByClient) };
        if left == 0 || self.tap.is_lost {
            return;
        }
        let mut bytes = Vec::with_capacity(left);
        for slice in slices {
            let taken = slice.len().min(left);
            bytes.extend_from_slice(&slice[..taken]);
            left -= taken;
        }
        self.tap.wrote(at, bytes.into());
    }

    pub(crate) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tap.settle(Closing::ByServer);
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
