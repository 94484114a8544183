//! Recordings for `--record`: what each client sent and got, byte for byte, one file per exchange.
//!
//! The bytes are those of the sockets, behind TLS; the journal is not asked, so a recording needs none. A
//! thread makes records of them and writes them, so that the disk delays nothing that is paced. Requests to
//! the mock itself, `/__mock/…`, are not recorded. What a script cuts is recorded as cut and not as partial:
//! it was meant.

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wire::capture::{Closing, Entry, Limits, Meta, Note, Record, Rest, Transcript};

use crate::control;

/// Most events and bytes that may wait for the disk.
const MAX_EVENTS: usize = 1 << 16;
const MAX_WAITING: usize = 256 << 20;

/// Most bytes of one exchange.
const LIMITS: Limits = Limits { exchange: 256 << 20, cut_is_missing: false };

/// Records a run of the mock. Dropping it writes the rest.
#[derive(Debug)]
pub(crate) struct Recording {
    sender: Option<SyncSender<Event>>,
    started: Instant,
    waiting: Arc<AtomicUsize>,
    /// Whether the mock is being stopped: what ends now was not meant to.
    is_stopping: AtomicBool,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Event {
    connection: u64,
    at: f64,
    what: What,
}

#[derive(Debug)]
enum What {
    Received(Vec<u8>),
    Sent(Vec<u8>),
    Lost,
    Closed(Closing),
}

impl Recording {
    /// Begins a recording in a directory, which is made if it is missing.
    ///
    /// # Errors
    /// When no file can be written there.
    pub(crate) fn open(directory: &Path) -> io::Result<Arc<Self>> {
        let (files, started) = Files::open(directory)?;
        let (sender, receiver) = sync_channel(MAX_EVENTS);
        let waiting = Arc::new(AtomicUsize::new(0));
        let of_writer = Arc::clone(&waiting);
        let writer = std::thread::Builder::new()
            .name("recording".to_owned())
            .spawn(move || write(&receiver, &of_writer, files))?;
        let (sender, writer) = (Some(sender), Mutex::new(Some(writer)));
        let is_stopping = AtomicBool::new(false);
        Ok(Arc::new(Self { sender, started, waiting, is_stopping, writer }))
    }

    /// What tells it of a connection.
    pub(crate) fn tap(self: &Arc<Self>, connection: u64) -> Tap {
        let recording = Arc::clone(self);
        Tap { recording, connection, is_lost: false, closing: Closing::ByServer, is_settled: false }
    }

    /// What ends from now on is cut off because the mock is stopped.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.sender = None;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // A writer that panicked has nothing left to write.
            let _ = writer.join();
        }
    }
}

/// Tells the recording of one connection.
#[derive(Debug)]
pub(crate) struct Tap {
    recording: Arc<Recording>,
    connection: u64,
    is_lost: bool,
    closing: Closing,
    is_settled: bool,
}

impl Tap {
    /// The client sent bytes; none when it has ended its side.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.settle(Closing::ByClient);
        } else {
            self.tell(self.now(), bytes.len(), || What::Received(bytes.to_vec()));
        }
    }

    /// The client was sent bytes by a write that began at this time, or has gone.
    pub(crate) fn sent(&mut self, at: f64, bytes: &[u8], taken: &io::Result<usize>) {
        match taken {
            Ok(taken) => self.tell(at, *taken, || What::Sent(bytes[..*taken].to_vec())),
            Err(_) => self.settle(Closing::ByClient),
        }
    }

    /// Says how the connection ends. What is said first counts.
    pub(crate) fn settle(&mut self, closing: Closing) {
        if !std::mem::replace(&mut self.is_settled, true) {
            self.closing = closing;
        }
    }

    /// Milliseconds since the recording began, to the microsecond.
    pub(crate) fn now(&self) -> f64 {
        (self.recording.started.elapsed().as_secs_f64() * 1_000_000.0).round() / 1000.0
    }

    fn tell(&mut self, at: f64, size: usize, what: impl FnOnce() -> What) {
        if self.is_lost || size == 0 {
            return;
        }
        let waiting = self.recording.waiting.fetch_add(size, Ordering::Relaxed);
        let has_room = waiting + size <= MAX_WAITING;
        if !(has_room && self.push(at, what(), false)) {
            self.recording.waiting.fetch_sub(size, Ordering::Relaxed);
            self.is_lost = true;
            self.push(at, What::Lost, true);
        }
    }

    fn push(&self, at: f64, what: What, must: bool) -> bool {
        let event = Event { connection: self.connection, at, what };
        let Some(sender) = &self.recording.sender else { return true };
        // That something is lost, or over, must not be lost itself: for that a mock may wait.
        if must { sender.send(event).is_ok() } else { sender.try_send(event).is_ok() }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let is_stopping = self.recording.is_stopping.load(Ordering::Relaxed);
        let closing = if is_stopping && !self.is_settled { Closing::Drained } else { self.closing };
        self.push(self.now(), What::Closed(closing), true);
    }
}

/// Makes records of what is told, until nobody can tell any more.
fn write(events: &Receiver<Event>, waiting: &AtomicUsize, mut files: Files) {
    let (mut transcripts, mut ids, mut notes) = (HashMap::new(), 0, Vec::new());
    for Event { connection, at, what } in events {
        let transcript = transcripts.entry(connection).or_insert_with(|| Transcript::new(connection, LIMITS));
        match what {
            What::Received(bytes) => {
                waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                transcript.received(at, &bytes, &mut ids, &mut notes);
            }
            What::Sent(bytes) => {
                waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                transcript.sent(at, &bytes, &mut ids, &mut notes);
            }
            What::Lost => transcript.lose(at, "the recorder could not keep up with the traffic", &mut notes),
            What::Closed(closing) => {
                transcript.close(at, closing, &mut ids, &mut notes);
                transcripts.remove(&connection);
            }
        }
        notes.drain(..).for_each(|note| files.note(note));
    }
    if files.failed > 0 {
        let directory = files.directory.display();
        eprintln!("mock-upstream: {} exchanges could not be recorded in {directory}", files.failed);
    }
}

/// The files of this run.
struct Files {
    directory: PathBuf,
    run: String,
    began: jiff::Timestamp,
    /// Exchanges that have a file.
    open: HashSet<u64>,
    /// Exchanges that are not recorded: the mock's own, and those that the disk did not take. A file that
    /// has no end is partial by that.
    left_out: HashSet<u64>,
    failed: u64,
}

impl Files {
    fn open(directory: &Path) -> io::Result<(Self, Instant)> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
        let run = format!("{now}-{}", std::process::id());
        let probe = directory.join(format!("{run}.probe"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe)?;
        let written = file.write_all(&[b'\n'; 4096]).and_then(|()| file.sync_all());
        std::fs::remove_file(&probe)?;
        written?;
        let (open, left_out) = (HashSet::new(), HashSet::new());
        let (started, began) = clocks();
        Ok((Self { directory: directory.to_owned(), run, began, open, left_out, failed: 0 }, started))
    }

    fn note(&mut self, (at, entry): Note) {
        let (id, is_end) = match &entry {
            Entry::Request(request) => {
                if request.url.starts_with(control::PREFIX) {
                    self.left_out.insert(request.id);
                }
                (request.id, false)
            }
            Entry::Response(response) => (response.id, false),
            Entry::SseStream(stream) => (stream.id, false),
            Entry::WebsocketMessage(message) => (message.id, false),
            Entry::WebsocketClose(close) => (close.id, false),
            Entry::ClientDisconnect { id } => (*id, false),
            Entry::ExchangeEnd(end) => (end.id, true),
            Entry::Meta(_) | Entry::Marker { .. } | Entry::Fault { .. } => return,
        };
        if !self.left_out.contains(&id) && self.append(id, at, entry).is_err() {
            self.failed += 1;
            self.left_out.insert(id);
        }
        if is_end {
            self.open.remove(&id);
            self.left_out.remove(&id);
        }
    }

    fn append(&mut self, id: u64, at: f64, entry: Entry) -> io::Result<()> {
        let path = self.directory.join(format!("{}-{id:06}.jsonl", self.run));
        let is_new = self.open.insert(id);
        let mut lines = Vec::new();
        if is_new {
            let mut rest = Rest::new();
            rest.insert("run".into(), self.run.as_str().into());
            rest.insert("began".into(), self.began.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into());
            let recorder = Some(format!("mock-upstream {}", env!("CARGO_PKG_VERSION")));
            self.line(at, Entry::Meta(Meta { recorder, rest, ..Meta::default() }), &mut lines);
        }
        self.line(at, entry, &mut lines);
        let mut options = OpenOptions::new();
        options.append(true).create_new(is_new).mode(0o600).open(path)?.write_all(&lines)
    }

    fn line(&self, at: f64, entry: Entry, out: &mut Vec<u8>) {
        let t_ms = (at * 1000.0).round() / 1000.0;
        // Records are plain data: they always serialise.
        let _ = serde_json::to_writer(&mut *out, &Record { ts: self.stamp(at), t_ms, entry });
        out.push(b'\n');
    }

    fn stamp(&self, at: f64) -> String {
        let at = jiff::SignedDuration::from_micros((at * 1000.0) as i64);
        self.began.checked_add(at).unwrap_or(self.began).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    }
}

/// The same moment by both clocks: recordings of several runs are put in order by it.
fn clocks() -> (Instant, jiff::Timestamp) {
    let mut best: Option<(Duration, Instant, jiff::Timestamp)> = None;
    for _ in 0..8 {
        let (before, now) = (Instant::now(), jiff::Timestamp::now());
        let between = before.elapsed();
        if best.as_ref().is_none_or(|(least, ..)| between < *least) {
            best = Some((between, before, now));
        }
    }
    best.map_or_else(|| (Instant::now(), jiff::Timestamp::now()), |(_, started, began)| (started, began))
}
