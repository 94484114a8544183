//! The files of a recording: one per exchange, for its owner's eyes only.
//!
//! Lines are appended whole. When the disk takes none, the exchange is marked partial as soon as it takes
//! one again; a file without its `exchange_end` is partial by that alone.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wire::capture::{Entry, Meta, Note, Record, Rest};

/// The files of this run.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// What all its files have in their names, and say in their first line.
    run: String,
    began: jiff::Timestamp,
    open: BTreeMap<u64, File>,
    /// How many exchanges have no file, or one that lacks something, because of the disk.
    failed: u64,
}

/// A file whose exchange has not ended.
#[derive(Debug)]
struct File {
    path: PathBuf,
    waiting: Vec<u8>,
    /// How much of it is on the disk.
    length: u64,
    problem: Option<String>,
}

impl Files {
    /// Makes the directory, and writes a file into it that is removed again: what does not work is to be
    /// known before a client has sent anything. Says from when on times count.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Instant)> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
        let run = format!("{now}-{}", std::process::id());
        let probe = directory.join(format!("{run}.probe"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe)?;
        let written = file.write_all(&[b'\n'; 4096]).and_then(|()| file.sync_all());
        std::fs::remove_file(&probe)?;
        written?;
        let (started, began) = clocks();
        let (directory, open) = (directory.to_owned(), BTreeMap::new());
        Ok((Self { directory, run, began, open, failed: 0 }, started))
    }

    /// Puts a record into the file of its exchange.
    pub(super) fn note(&mut self, id: u64, (at, mut entry): Note) {
        if !self.open.contains_key(&id) {
            let file = self.begin(id, at);
            self.open.insert(id, file);
        }
        let Some(file) = self.open.get_mut(&id) else { return };
        let Entry::ExchangeEnd(end) = &mut entry else {
            if file.problem.is_none() {
                line(self.began, at, entry, &mut file.waiting);
            }
            return;
        };
        // What waits is written first, so that the end can say whether it was.
        file.write();
        let problem = file.problem.take();
        if let Some(problem) = &problem {
            end.partial = true;
            end.reason = Some(format!("it could not be written: {problem}"));
        }
        // Where nothing is on the disk, an end by itself would say nothing.
        if problem.is_none() || file.length > 0 {
            line(self.began, at, entry, &mut file.waiting);
            file.write();
        }
        self.failed += u64::from(problem.is_some() || file.problem.is_some());
        self.open.remove(&id);
    }

    /// Puts on the disk what waits for it.
    pub(super) fn write(&mut self) {
        self.open.values_mut().for_each(File::write);
    }

    /// How many exchanges could not be written, or not all of them.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn begin(&self, id: u64, at: f64) -> File {
        let path = self.directory.join(format!("{}-{id:06}.jsonl", self.run));
        let mut rest = Rest::new();
        rest.insert("run".into(), self.run.as_str().into());
        rest.insert("began".into(), self.began.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into());
        rest.insert("leg".into(), "client".into());
        rest.insert("holds".into(), "the client's own credentials; scrub it before sharing it".into());
        let recorder = Some(format!("prodex {}", env!("CARGO_PKG_VERSION")));
        let mut waiting = Vec::new();
        line(self.began, at, Entry::Meta(Meta { recorder, rest, ..Meta::default() }), &mut waiting);
        File { path, waiting, length: 0, problem: None }
    }
}

impl File {
    fn write(&mut self) {
        if self.waiting.is_empty() || self.problem.is_some() {
            return;
        }
        match self.append() {
            Ok(()) => {
                self.length += self.waiting.len() as u64;
                self.waiting = Vec::new();
            }
            Err(error) => {
                self.problem = Some(error.to_string());
                self.waiting = Vec::new();
            }
        }
    }

    /// Nothing is kept open between two records: there may be thousands of exchanges.
    fn append(&self) -> io::Result<()> {
        let is_new = self.length == 0;
        let mut options = OpenOptions::new();
        options.append(true).create_new(is_new).mode(0o600);
        let mut file = options.open(&self.path)?;
        file.write_all(&self.waiting).inspect_err(|_| {
            // Half a line would spoil the next; where even this fails the file is left as it is.
            let _ = file.set_len(self.length);
        })
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

fn line(began: jiff::Timestamp, at: f64, entry: Entry, out: &mut Vec<u8>) {
    let t_ms = (at * 1000.0).round() / 1000.0;
    // Records are plain data: they always serialise.
    let _ = serde_json::to_writer(&mut *out, &Record { ts: stamp(began, at), t_ms, entry });
    out.push(b'\n');
}

fn stamp(began: jiff::Timestamp, at: f64) -> String {
    let at = jiff::SignedDuration::from_micros((at * 1000.0) as i64);
    began.checked_add(at).unwrap_or(began).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
