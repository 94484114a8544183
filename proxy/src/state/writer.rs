//! The thread that writes: what waits when it is free goes to the disk in one commit.
//!
//! A commit begins at once when somebody waits for it, and otherwise a few milliseconds behind the last one,
//! so that a busy proxy makes few of them. While the disk fails nobody waits: what could not be written is
//! kept, within bounds, and tried again. A thread without work sleeps.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use wire::run_event::RunEvent;

use super::change::{Change, ChangeMark};
use super::database::{Batch, Database, Reader, Row, StateError, checkpoint};
use super::memory::{Digest, Memory};
use super::ticket::{Gate, LIMIT, Ticket, Watermark};
use super::{Fact, Facts, Tie, lock};
use crate::notice;
use crate::profile::Now;
use crate::telemetry::RunLog;

/// How long behind the last commit the next one begins that nobody waits for.
const GATHER: Duration = Duration::from_millis(5);

/// How long a fact waits for a commit that is made anyway.
const FACTS: Duration = Duration::from_secs(1);

/// How long after a failure the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How many bindings are kept while the disk fails: as many as there may be in all.
const MAX_BACKLOG: usize = {
    let (mut sum, mut at) = (0, 0);
    while at < Tie::ALL.len() {
        sum += Tie::ALL[at].capacity();
        at += 1;
    }
    sum
};

/// How long the end of a run waits for what is not written yet: longer than a disk takes that fails.
const CLOSE: Duration = Duration::from_secs(5);

/// How often another process's changes are looked for, while there are requests.
const LOOK: Duration = Duration::from_secs(1);

/// How many bindings are written between two looks for those that are too many, and after how long there is one
/// for those that are too old, however few are written.
const PRUNE: usize = 1024;
const PRUNE_AFTER: Duration = Duration::from_secs(3600);

/// How many bindings and facts are written between two checkpoints: two to four MiB of write-ahead log.
const CHECKPOINT: usize = 1000;

/// How many pages the write-ahead log may have before commits wait for a checkpoint: it never begins anew while
/// commits are made beside each.
const LONG_LOG: u64 = 16 * 1024;

/// How many rows wait, or for how long one does, before the log says so.
const MANY: usize = 256;
const LONG: Duration = Duration::from_millis(250);

/// How often at most the log says how the writing goes.
const REPORT: Duration = Duration::from_secs(10);

/// The writer, as requests see it.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    memory: Arc<Memory>,
    reader: Arc<Mutex<Option<Reader>>>,
    /// Look-ups go one after the other, and those that wait for it take no thread.
    reads: Semaphore,
    /// The look-up that was given up last: while the disk does not answer it, no other is begun.
    given_up: Mutex<Option<AbortHandle>>,
    /// What tells when somebody commits.
    change: Option<ChangeMark>,
    path: PathBuf,
    looked: Mutex<Instant>,
    /// The thread, and what is closed when it has ended.
    thread: Mutex<Option<(JoinHandle<()>, Receiver<()>)>>,
}

/// What requests and the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) watermark: Watermark,
    queue: Mutex<Queue>,
    /// Told when there is work, or more hurry than there was.
    changed: Condvar,
    /// Another process has committed since [`Writer::has_news`] was asked.
    has_news: AtomicBool,
    /// The mark of the commit up to which memory was told everything, or [`UNKNOWN`].
    known: AtomicU64,
    log: Arc<RunLog>,
}

/// No mark of a commit.
const UNKNOWN: u64 = u64::MAX;

/// What waits to be written.
#[derive(Debug, Default)]
struct Queue {
    rows: Vec<Row>,
    /// How many bindings found no room.
    given_up: usize,
    facts: HashMap<(Fact, Arc<str>), Arc<str>>,
    /// The number of the commit that all of it goes with, less one.
    commits: u64,
    /// When the oldest of the rows came.
    since: Option<Instant>,
    /// When the oldest of the facts came.
    facts_since: Option<Instant>,
    /// Somebody waits for it.
    is_urgent: bool,
    /// Another process's changes are to be looked for.
    looks: bool,
    /// The disk failed, and is tried again at this time.
    retry: Option<Instant>,
    /// A write does not come to its end.
    is_stuck: bool,
    is_closed: bool,
}

impl Queue {
    fn ticket(&self) -> Ticket {
        Ticket(self.commits + 1)
    }

    /// When there is something to do, if there is anything.
    fn due(&self, last: Instant) -> Option<Instant> {
        if self.is_closed || self.looks {
            return Some(last);
        }
        if self.rows.is_empty() && self.facts.is_empty() {
            return None;
        }
        if self.retry.is_some() {
            return self.retry;
        }
        if self.is_urgent {
            return Some(last);
        }
        let facts = self.facts_since.filter(|_| self.rows.is_empty()).map(|since| since + FACTS);
        Some(facts.unwrap_or(last + GATHER))
    }

    /// Nobody waits for anything any more, so that it can be given up or be kept for later.
    fn is_free(&self) -> bool {
        self.is_closed || self.is_stuck || self.retry.is_some()
    }
}

impl Shared {
    /// The disk does not answer: nobody waits for it until it does.
    pub(super) fn give_up(&self, ticket: Ticket) {
        let mut queue = lock(&self.queue);
        if self.watermark.has_passed(ticket) {
            return;
        }
        let was_stuck = std::mem::replace(&mut queue.is_stuck, true);
        let (waits, backlog) = (queue.ticket(), queue.rows.len());
        drop(queue);
        self.watermark.settle(waits);
        if !was_stuck {
            let error = "a write has not come to its end".into();
            let lag_ms = milliseconds(LIMIT);
            self.log.record(&RunEvent::StateSaveError { cause: "stuck".into(), error, backlog, lag_ms });
        }
    }

    /// Memory was told all that was committed up to this mark.
    fn know(&self, change: Option<Change>) {
        self.known.store(change.map_or(UNKNOWN, u64::from), Ordering::Release);
    }

    /// Somebody waits for the commit with this number.
    pub(super) fn hurry(&self, ticket: Ticket) {
        let mut queue = lock(&self.queue);
        if queue.ticket() == ticket && !queue.is_urgent {
            queue.is_urgent = true;
            drop(queue);
            self.changed.notify_one();
        }
    }
}

impl Writer {
    /// Starts the thread. `seen` is the place of the last binding that `memory` knows.
    pub(super) fn start(
        database: Database,
        seen: i64,
        memory: Arc<Memory>,
        log: Arc<RunLog>,
    ) -> Result<Self, StateError> {
        let path = database.path().to_owned();
        let change = ChangeMark::open(&path).ok();
        let shared = Arc::new(Shared {
            watermark: Watermark::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            has_news: AtomicBool::new(false),
            known: AtomicU64::new(UNKNOWN),
            log,
        });
        let thread = Thread {
            shared: Arc::clone(&shared),
            memory: Arc::clone(&memory),
            database,
            seen,
            since_prune: PRUNE,
            pruned: None,
            since_checkpoint: 0,
            checkpoint: None,
            cause: None,
            report: Report::default(),
        };
        let (ending, ended) = sync_channel(1);
        let run = move || {
            // Dropped when the database is closed, or by a panic.
            let _ending = ending;
            thread.run();
        };
        let spawned = std::thread::Builder::new().name("state".to_owned()).spawn(run);
        let thread = spawned.map_err(|source| StateError::File { path: path.clone(), source })?;
        Ok(Self {
            shared,
            memory,
            reader: Arc::default(),
            reads: Semaphore::new(1),
            given_up: Mutex::default(),
            change,
            path,
            looked: Mutex::new(Instant::now()),
            thread: Mutex::new(Some((thread, ended))),
        })
    }

    /// Has a binding written.
    pub(super) fn queue(&self, row: Row) -> Ticket {
        let mut queue = lock(&self.shared.queue);
        if queue.is_closed {
            return Ticket::DURABLE;
        }
        if queue.rows.len() >= MAX_BACKLOG {
            // The disk has not answered for very long.
            queue.given_up += 1;
            return Ticket::DURABLE;
        }
        let is_first = queue.rows.is_empty();
        queue.rows.push(row);
        queue.since.get_or_insert_with(Instant::now);
        let ticket = if queue.is_free() { Ticket::DURABLE } else { queue.ticket() };
        drop(queue);
        if is_first {
            self.shared.changed.notify_one();
        }
        ticket
    }

    /// Has a fact written, in the place of an older one that is not written yet.
    pub(super) fn queue_fact(&self, key: (Fact, Arc<str>), value: Arc<str>) {
        let mut queue = lock(&self.shared.queue);
        if queue.is_closed {
            return;
        }
        let is_first = queue.rows.is_empty() && queue.facts.is_empty();
        queue.facts.insert(key, value);
        queue.facts_since.get_or_insert_with(Instant::now);
        drop(queue);
        if is_first {
            self.shared.changed.notify_one();
        }
    }

    /// How much waits to be written.
    pub(super) fn backlog(&self) -> usize {
        let queue = lock(&self.shared.queue);
        queue.rows.len() + queue.facts.len()
    }

    pub(super) fn gate(&self, ticket: Ticket) -> Option<Gate> {
        let shared = &self.shared;
        (!shared.watermark.has_passed(ticket)).then(|| Gate::new(shared, ticket))
    }

    /// Lets the thread look for what other processes have written, if that was some time ago.
    pub(super) fn look(&self) {
        let mut looked = lock(&self.looked);
        if looked.elapsed() < LOOK {
            return;
        }
        *looked = Instant::now();
        drop(looked);
        lock(&self.shared.queue).looks = true;
        self.shared.changed.notify_one();
    }

    /// Whether another process may have written facts since this was asked last.
    pub(super) fn has_news(&self) -> bool {
        self.shared.has_news.swap(false, Ordering::Relaxed)
    }

    /// Whether memory was told all that anybody has committed.
    pub(super) fn is_up_to_date(&self) -> bool {
        let change = self.change.as_ref().and_then(ChangeMark::read);
        change.is_some_and(|change| u64::from(change) == self.shared.known.load(Ordering::Acquire))
    }

    /// Looks bindings up that memory does not have, on a thread that may wait for the disk.
    pub(super) async fn find(&self, ids: Vec<(Tie, Digest)>) {
        let memory = Arc::clone(&self.memory);
        self.read(move |open| {
            for (tie, id) in ids {
                if let Some(row) = open.find(tie, &id)? {
                    memory.learn_missing(row);
                }
            }
            Ok(())
        })
        .await;
    }

    /// The facts as they are on the disk; none if they cannot be read.
    pub(super) async fn read_facts(&self) -> Facts {
        self.read(Reader::facts).await.unwrap_or_default()
    }

    /// Reads on a thread that may wait for the disk. None if that fails, or takes for longer than a commit is
    /// waited for, which the log tells.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> Option<T> {
        let reader = Arc::clone(&self.reader);
        let (path, shared) = (self.path.clone(), Arc::clone(&self.shared));
        let read = move || {
            let mut reader = lock(&reader);
            let found = (|| {
                let open = match reader.take() {
                    Some(open) => open,
                    None => Reader::open(&path)?,
                };
                let found = read(&open)?;
                *reader = Some(open);
                rusqlite::Result::Ok(found)
            })();
            let failed = |error: &rusqlite::Error| {
                let (cause, error) = (cause(error).into(), error.to_string().into());
                shared.log.record(&RunEvent::StateSaveError { cause, error, backlog: 0, lag_ms: 0 });
            };
            found.inspect_err(failed).ok()
        };
        // A request that is dropped meanwhile gives its turn to the next, whose look-up waits for what still runs.
        let _turn = self.reads.acquire().await;
        if lock(&self.given_up).as_ref().is_some_and(|given_up| !given_up.is_finished()) {
            return None;
        }
        let mut reading = tokio::task::spawn_blocking(read);
        if let Ok(found) = tokio::time::timeout(LIMIT, &mut reading).await {
            // One that panicked has found nothing.
            return found.ok().flatten();
        }
        *lock(&self.given_up) = Some(reading.abort_handle());
        let (backlog, lag_ms) = (self.backlog(), milliseconds(LIMIT));
        let (cause, error) = ("stuck".into(), "a look-up has not come to its end".into());
        self.shared.log.record(&RunEvent::StateSaveError { cause, error, backlog, lag_ms });
        None
    }

    /// Writes what waits, and ends the thread. One whose disk does not answer is left behind: it must not
    /// keep the process from its end.
    pub(super) fn close(&self) {
        lock(&self.shared.queue).is_closed = true;
        self.shared.changed.notify_one();
        // One that is in use goes with its look-up, which may wait for the disk too.
        if let Ok(mut reader) = self.reader.try_lock() {
            reader.take();
        }
        let Some((thread, ended)) = lock(&self.thread).take() else { return };
        if ended.recv_timeout(CLOSE) == Err(RecvTimeoutError::Timeout) {
            let (error, backlog) =
                ("the last write has not come to its end".into(), lock(&self.shared.queue).rows.len());
            let lag_ms = milliseconds(CLOSE);
            let stuck = RunEvent::StateSaveError { cause: "stuck".into(), error, backlog, lag_ms };
            return self.shared.log.record(&stuck);
        }
        // One that panicked has settled everything before it ended.
        let _ = thread.join();
    }
}

#[cfg(test)]
impl Writer {
    /// Lets look-ups wait until what is returned is dropped, as a disk that hangs does.
    pub(super) fn hang_reader(&self) -> std::sync::mpsc::SyncSender<()> {
        let reader = Arc::clone(&self.reader);
        let (sender, receiver) = sync_channel(0);
        let (hanging, hangs) = sync_channel(0);
        std::thread::spawn(move || {
            let _held = lock(&reader);
            // Whoever waits for either has ended with the test.
            let _ = hanging.send(());
            let _ = receiver.recv();
        });
        assert!(hangs.recv().is_ok());
        sender
    }

    /// Whether anything was ever looked up on the disk.
    pub(super) fn has_read(&self) -> bool {
        lock(&self.reader).is_some()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread's own.
struct Thread {
    shared: Arc<Shared>,
    memory: Arc<Memory>,
    database: Database,
    /// The place of the last binding that memory knows.
    seen: i64,
    since_prune: usize,
    pruned: Option<Now>,
    since_checkpoint: usize,
    /// The checkpoint beside the commits; in the end, how long the log is.
    checkpoint: Option<JoinHandle<u64>>,
    /// Why the disk failed last, until it does not.
    cause: Option<&'static str>,
    report: Report,
}

/// What is told in the log at times.
#[derive(Debug, Default)]
struct Report {
    last: Option<Instant>,
    last_queued: Option<Instant>,
    rows: usize,
    commits: u64,
    lag: Duration,
}

impl Report {
    /// Tells that much waits, or for long; at times.
    fn queued(&mut self, log: &RunLog, backlog: usize) {
        if self.last_queued.is_none_or(|last| last.elapsed() >= REPORT) {
            self.last_queued = Some(Instant::now());
            log.record(&RunEvent::StateSaveQueued { backlog });
        }
    }
}

/// Whatever ends the thread: nobody waits for it any more.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        lock(&self.0.queue).is_closed = true;
        self.0.watermark.settle(Ticket(u64::MAX));
    }
}

/// What the thread does next.
struct Work {
    batch: Batch,
    ticket: Ticket,
    /// When the oldest of it came.
    since: Option<Instant>,
    looks: bool,
    is_last: bool,
}

impl Thread {
    fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        let mut last = Instant::now();
        // Memory was told all there is, and from here on what comes.
        self.look();
        loop {
            let work = self.wait(last);
            let is_last = work.is_last;
            if work.looks && self.cause.is_none() {
                self.look();
            }
            if !work.batch.is_empty() {
                self.write(work);
                last = Instant::now();
            }
            if is_last {
                break;
            }
        }
        let lost = lock(&self.shared.queue).rows.len();
        if lost > 0 {
            self.shared.log.record(&RunEvent::StateSaveSkipped { rows: lost, backlog: 0, lag_ms: 0 });
        }
        if let Some(checkpoint) = self.checkpoint.take() {
            // What it did not do the last to close the database does.
            let _ = checkpoint.join();
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self, last: Instant) -> Work {
        let mut queue = lock(&self.shared.queue);
        loop {
            let left = queue.due(last).map(|due| due.saturating_duration_since(Instant::now()));
            let changed = &self.shared.changed;
            queue = match left {
                Some(Duration::ZERO) => break,
                Some(left) => changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
                None => changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let looks = std::mem::take(&mut queue.looks);
        let is_last = queue.is_closed;
        // A look alone does not hurry what waits.
        let is_due = is_last || queue.due(last).is_some_and(|due| due <= Instant::now());
        let mut work = Work { batch: Batch::default(), ticket: queue.ticket(), since: None, looks, is_last };
        if is_due {
            work.batch.rows = std::mem::take(&mut queue.rows);
            work.batch.facts = queue.facts.drain().collect();
            work.since = queue.since.take();
            queue.facts_since = None;
            queue.is_urgent = false;
            queue.commits += 1;
        }
        work
    }

    /// Takes what other processes have written.
    fn look(&mut self) {
        // Read before: what is committed from here on may be missed.
        let change = self.database.change().and_then(ChangeMark::read);
        let has_changed = self.database.has_changed();
        let (memory, watermark) = (&self.memory, &self.shared.watermark);
        let seen = match has_changed {
            Ok(true) => {
                self.shared.has_news.store(true, Ordering::Relaxed);
                self.database.rows_after(self.seen, |row| memory.learn_settled(row, watermark))
            }
            Ok(false) => Ok(self.seen),
            // An error comes again with the next write, which tells it.
            Err(_) => return,
        };
        if let Ok(seen) = seen {
            self.seen = seen;
            self.shared.know(change);
        }
    }

    fn write(&mut self, work: Work) {
        let Work { mut batch, ticket, since, .. } = work;
        let now = Now::read();
        let is_long_ago = self.pruned.is_none_or(|pruned| now.since(pruned) >= PRUNE_AFTER);
        batch.prunes = self.since_prune >= PRUNE || is_long_ago;
        let (memory, shared) = (&self.memory, &self.shared);
        let written =
            self.database.write(&batch, self.seen, |row| memory.learn_settled(row, &shared.watermark));
        let lag = since.map_or(Duration::ZERO, |since| since.elapsed());
        if batch.rows.len() >= MANY || lag >= LONG {
            self.report.queued(&shared.log, batch.rows.len());
        }
        match written {
            Ok(written) => {
                self.seen = written.seen;
                shared.know(written.change);
                let mut queue = lock(&shared.queue);
                queue.retry = None;
                if std::mem::take(&mut queue.is_stuck) {
                    // What gathers now is settled already, so what comes from here on needs another number.
                    queue.commits += 1;
                }
                let (given_up, backlog) = (std::mem::take(&mut queue.given_up), queue.rows.len());
                drop(queue);
                if given_up > 0 {
                    let skipped =
                        RunEvent::StateSaveSkipped { rows: given_up, backlog, lag_ms: milliseconds(lag) };
                    shared.log.record(&skipped);
                }
                shared.watermark.settle(ticket);
                self.since_prune = if written.has_more() {
                    PRUNE
                } else if batch.prunes {
                    self.pruned = Some(now);
                    0
                } else {
                    self.since_prune + batch.rows.len()
                };
                self.report_ok(batch.rows.len() + batch.facts.len(), lag);
                self.since_checkpoint += batch.rows.len() + batch.facts.len();
                self.start_checkpoint();
            }
            Err(error) => self.put_back(batch, &error, lag),
        }
    }

    /// The disk failed: what was to be written is kept, and nobody waits for it.
    fn put_back(&mut self, batch: Batch, error: &rusqlite::Error, lag: Duration) {
        let mut queue = lock(&self.shared.queue);
        let newer = std::mem::replace(&mut queue.rows, batch.rows);
        queue.rows.extend(newer);
        let surplus = queue.rows.len().saturating_sub(MAX_BACKLOG);
        queue.rows.drain(..surplus);
        let surplus = surplus + std::mem::take(&mut queue.given_up);
        for (key, value) in batch.facts {
            queue.facts.entry(key).or_insert(value);
        }
        (queue.retry, queue.is_stuck) = (Some(Instant::now() + RETRY), false);
        queue.since.get_or_insert_with(Instant::now);
        let (ticket, backlog) = (queue.ticket(), queue.rows.len());
        drop(queue);
        self.shared.watermark.settle(ticket);
        let cause = cause(error);
        let lag_ms = milliseconds(lag);
        let before = self.cause.replace(cause);
        // The log may be on the same disk. That a database is locked goes by itself.
        if before.is_none_or(|before| before == "busy") && cause != "busy" {
            let path = self.database.path().display();
            notice::tell(format_args!(
                "the state {path} cannot be written: {error}; requests are served all the same, and what \
                 is learnt is kept in memory until its disk takes it: see that there is room and it can be written"
            ));
        }
        if before != Some(cause) {
            let error = error.to_string().into();
            self.shared.log.record(&RunEvent::StateSaveError { cause: cause.into(), error, backlog, lag_ms });
        }
        if surplus > 0 {
            self.shared.log.record(&RunEvent::StateSaveSkipped { rows: surplus, backlog, lag_ms });
        }
    }

    /// Tells the log at times how the writing goes, and at once that it goes again.
    fn report_ok(&mut self, rows: usize, lag: Duration) {
        let has_recovered = self.cause.take().is_some();
        let report = &mut self.report;
        report.rows += rows;
        report.commits += 1;
        report.lag = report.lag.max(lag);
        if report.last.is_some_and(|last| last.elapsed() < REPORT) && !has_recovered {
            return;
        }
        let next =
            Report { last: Some(Instant::now()), last_queued: report.last_queued, ..Report::default() };
        let Report { rows, commits, lag, .. } = std::mem::replace(report, next);
        let backlog = lock(&self.shared.queue).rows.len();
        self.shared.log.record(&RunEvent::StateSaveOk { rows, commits, backlog, lag_ms: milliseconds(lag) });
    }

    /// Has the write-ahead log copied into the database, on a thread of its own: that waits for the disk,
    /// and commits go on meanwhile.
    fn start_checkpoint(&mut self) {
        if self.since_checkpoint < CHECKPOINT
            || self.checkpoint.as_ref().is_some_and(|thread| !thread.is_finished())
        {
            return;
        }
        self.since_checkpoint = 0;
        let pages = self.checkpoint.take().map_or(0, |thread| thread.join().unwrap_or(0));
        if pages > LONG_LOG {
            // Most of it is copied already, so this does not take long. What fails the next one does again.
            let _ = self.database.checkpoint();
            return;
        }
        let path = self.database.path().to_owned();
        // What it could not do the next one does; a disk that fails is told of by the writer.
        let checkpoint = move || checkpoint(&path).unwrap_or(0);
        // Without a thread now there is one later.
        self.checkpoint = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(checkpoint).ok();
    }
}

/// What kind of failure it is, so that each kind is told once.
fn cause(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "busy",
        Some(ErrorCode::DiskFull) => "full",
        Some(ErrorCode::ReadOnly) => "read_only",
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => "io",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "damaged",
        _ => "other",
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
