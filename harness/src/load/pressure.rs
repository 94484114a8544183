//! Admission pressure: what a proxy refused or made wait for want of room, told by its run log.
//!
//! A log is read from the byte at which it ended when the watch began, also when it is rotated meanwhile:
//! files are known by their inode, so a renamed one is not read again. All events of one request are one
//! cause, whatever parts of the log they stand in, and a refusal that the driver saw and that has its event in
//! the log is one.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wire::run_event::RawLine;

use super::result::Pressure;
use crate::run_log::POINTER;

/// The events that tell of it: those of our run log, and those of others that share its vocabulary.
pub const EVENTS: [&str; 9] = [
    "runtime_proxy_queue_overloaded",
    "runtime_proxy_active_limit_reached",
    "runtime_proxy_lane_limit_reached",
    "runtime_proxy_overload_backoff",
    "runtime_proxy_admission_wait_exhausted",
    "runtime_proxy_queue_wait_exhausted",
    "compact_pressure_shed",
    "profile_inflight_saturated",
    "precommit_budget_exhausted",
];

/// Most requests that are told apart; beyond, each event counts.
const MOST: usize = 1 << 20;

/// For how long nothing must have come before a log counts as written to its end: several times as long as
/// our proxy gathers lines before it writes them.
const QUIET: Duration = Duration::from_millis(200);

/// How long a log that does not become quiet is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A watch on the run logs of a directory.
#[derive(Debug)]
pub struct Watch {
    directory: PathBuf,
    /// How far each file has been read, by device and inode.
    read: BTreeMap<(u64, u64), u64>,
    events: BTreeMap<&'static str, u64>,
    /// The logs, by what all parts of one are called, each with a number.
    logs: BTreeMap<String, u64>,
    /// The requests that an event names, with the number of their log: each process has one, and numbers its
    /// requests by itself.
    requests: HashSet<(u64, u64)>,
    /// Events that name no request, and those beyond what is told apart.
    others: u64,
    unreadable: u64,
    saw_a_file: bool,
}

impl Watch {
    /// Begins: what stands in the directory's logs now is not of this run.
    #[must_use]
    pub fn begin(directory: &Path) -> Self {
        let mut watch = Self::of_new(directory);
        for (path, id) in watch.files() {
            let length = std::fs::metadata(&path).map_or(0, |file| file.len());
            watch.read.insert(id, length);
        }
        watch
    }

    /// Begins for a program that is started for this run: all that it writes is of the run.
    #[must_use]
    pub fn of_new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            read: BTreeMap::new(),
            events: BTreeMap::new(),
            logs: BTreeMap::new(),
            requests: HashSet::new(),
            others: 0,
            unreadable: 0,
            saw_a_file: false,
        }
    }

    /// Reads what has been written since; says whether that was anything. To be called now and then, so that nothing
    /// is lost to a rotation that deletes.
    pub fn read(&mut self) -> bool {
        let files = self.files();
        // The inode of a file that is gone may be another's tomorrow.
        self.read.retain(|id, _| files.iter().any(|(_, there)| there == id));
        let mut is_new = false;
        for (path, id) in files {
            self.saw_a_file = true;
            // A file that is gone again was read before, or never held anything of ours for long.
            is_new |= self.read_file(&path, id).unwrap_or(false);
        }
        is_new
    }

    /// What was found, with the refusals that the driver saw. A log is written a little after what it tells of:
    /// it is read until nothing has come for a while.
    #[must_use]
    pub async fn finish(mut self, refusals: u64) -> Pressure {
        let begun = Instant::now();
        let mut quiet_since = begun;
        loop {
            if self.read() {
                quiet_since = Instant::now();
            }
            if !self.saw_a_file || quiet_since.elapsed() >= QUIET || begun.elapsed() >= LONGEST_WAIT {
                break;
            }
            tokio::time::sleep(QUIET / 10).await;
        }
        let told = self.requests.len() as u64 + self.others;
        Pressure {
            causes: told.max(refusals),
            refusals,
            events: self.events.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            log_read: self.saw_a_file,
            unreadable: self.unreadable,
        }
    }

    /// The logs: those of the directory, and the one that the pointer names, wherever it is.
    fn files(&self) -> Vec<(PathBuf, (u64, u64))> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_log(path)).collect();
        if let Ok(pointed) = std::fs::read_to_string(self.directory.join(POINTER)) {
            paths.push(self.directory.join(pointed.trim()));
        }
        let mut files = Vec::new();
        for path in paths {
            let Ok(file) = std::fs::metadata(&path) else { continue };
            let id = (file.dev(), file.ino());
            if file.is_file() && files.iter().all(|(_, other)| *other != id) {
                files.push((path, id));
            }
        }
        files
    }

    fn read_file(&mut self, path: &Path, id: (u64, u64)) -> std::io::Result<bool> {
        let mut at = self.read.get(&id).copied().unwrap_or(0);
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        if length < at {
            // It was cut off and begun anew.
            at = 0;
        }
        file.seek(SeekFrom::Start(at))?;
        let log = self.log(path);
        let begun_at = at;
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            // A line that is still being written is read the next time.
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            at += read as u64;
            self.line(&line, log);
        }
        self.read.insert(id, at);
        Ok(at > begun_at)
    }

    /// The number of the log that a file is a part of: their names begin with the same, up to the first dot.
    fn log(&mut self, path: &Path) -> u64 {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.split('.').next().unwrap_or_default();
        let next = self.logs.len() as u64;
        *self.logs.entry(name.to_owned()).or_insert(next)
    }

    fn line(&mut self, line: &[u8], log: u64) {
        if line.trim_ascii().is_empty() {
            return;
        }
        // Most lines are about something else; what they say is not parsed.
        if !EVENTS.iter().any(|name| memchr::memmem::find(line, name.as_bytes()).is_some()) {
            self.unreadable += u64::from(!line.starts_with(b"{"));
            return;
        }
        let Ok(event) = serde_json::from_slice::<RawLine>(line) else {
            self.unreadable += 1;
            return;
        };
        let Some(name) = EVENTS.into_iter().find(|name| *name == event.event) else { return };
        *self.events.entry(name).or_default() += 1;
        match event.fields.get("request").and_then(serde_json::Value::as_u64) {
            Some(request) if self.requests.len() < MOST => {
                self.requests.insert((log, request));
            }
            _ => self.others += 1,
        }
    }
}

fn is_log(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("prodex-runtime-") && name.contains(".jsonl")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(event: &str, request: u64) -> String {
        format!(r#"{{"timestamp":"t","event":"{event}","fields":{{"request":{request}}}}}"#) + "\n"
    }

    #[tokio::test]
    async fn each_cause_counts_once_and_only_what_is_of_the_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prodex-runtime-1.jsonl");
        std::fs::write(&path, line(EVENTS[2], 1)).unwrap();
        let mut watch = Watch::begin(directory.path());
        let mut file = File::options().append(true).open(&path).unwrap();
        // One request that waited and was then refused, and another.
        let text =
            [line(EVENTS[4], 2), line(EVENTS[2], 2), line("profile_commit", 2), line(EVENTS[2], 3)].concat();
        file.write_all(text.as_bytes()).unwrap();
        // Half a line, which is finished in a file that has another name by then.
        let late = line(EVENTS[0], 4);
        file.write_all(&late.as_bytes()[..20]).unwrap();
        watch.read();
        std::fs::rename(&path, directory.path().join("prodex-runtime-1.jsonl.1")).unwrap();
        file.write_all(&late.as_bytes()[20..]).unwrap();
        std::fs::write(&path, line(EVENTS[2], 5) + "nonsense\n").unwrap();
        std::fs::write(directory.path().join("other.jsonl"), line(EVENTS[2], 6)).unwrap();
        let pressure = watch.finish(3).await;
        // Requests 2, 3, 4 and 5; the three refusals that were seen are among them.
        assert_eq!((pressure.causes, pressure.refusals, pressure.unreadable), (4, 3, 1));
        let count =
            |name: &str| pressure.events.iter().find(|(event, _)| event == name).map(|(_, count)| *count);
        assert_eq!(count("runtime_proxy_lane_limit_reached"), Some(3));
    }

    #[tokio::test]
    async fn a_request_whose_events_stand_in_two_parts_of_the_log_is_one_cause() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let mut watch = Watch::begin(directory.path());
        std::fs::write(place("prodex-runtime-7-1.jsonl"), line(EVENTS[4], 2)).unwrap();
        watch.read();
        std::fs::rename(place("prodex-runtime-7-1.jsonl"), place("prodex-runtime-7-1.000001.jsonl")).unwrap();
        std::fs::write(place("prodex-runtime-7-1.jsonl"), line(EVENTS[2], 2)).unwrap();
        // Another process numbers its requests anew.
        std::fs::write(place("prodex-runtime-8-1.jsonl"), line(EVENTS[2], 2)).unwrap();
        assert_eq!(watch.finish(0).await.causes, 2);
    }

    #[tokio::test]
    async fn an_event_counts_whatever_else_its_line_mentions() {
        let directory = tempfile::tempdir().unwrap();
        let mentions = |event: &str, other: &str| {
            format!(r#"{{"timestamp":"t","event":"{event}","fields":{{"request":1,"why":"{other}"}}}}"#)
                + "\n"
        };
        let text = [mentions(EVENTS[7], EVENTS[0]), mentions("profile_commit", EVENTS[2])].concat();
        let watch = Watch::of_new(directory.path());
        std::fs::write(directory.path().join("prodex-runtime-1.jsonl"), text).unwrap();
        let pressure = watch.finish(0).await;
        assert_eq!((pressure.causes, pressure.events), (1, vec![(EVENTS[7].to_owned(), 1)]));
    }

    #[tokio::test]
    async fn what_a_log_tells_a_little_later_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prodex-runtime-1.jsonl");
        std::fs::write(&path, line("profile_commit", 1)).unwrap();
        let watch = Watch::of_new(directory.path());
        let late = std::thread::spawn(move || {
            let (_never, wait) = std::sync::mpsc::sync_channel::<()>(1);
            let _ = wait.recv_timeout(QUIET / 4);
            File::options()
                .append(true)
                .open(path)
                .unwrap()
                .write_all(line(EVENTS[2], 1).as_bytes())
                .unwrap();
        });
        assert_eq!(watch.finish(0).await.causes, 1);
        late.join().unwrap();
    }

    #[tokio::test]
    async fn refusals_count_without_a_log() {
        let directory = tempfile::tempdir().unwrap();
        let pressure = Watch::begin(directory.path()).finish(7).await;
        assert_eq!((pressure.causes, pressure.log_read), (7, false));
    }
}
