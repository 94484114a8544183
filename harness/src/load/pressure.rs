//! Admission pressure: what a proxy refused or made wait for want of room, told by its run log.
//!
//! A log is read from the byte at which it ended when the watch began, also when it is rotated meanwhile:
//! files are known by their inode, so a renamed one is not read again. All events of one request are one
//! cause, and a refusal that the driver saw and that has its event in the log is one.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

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

/// A watch on the run logs of a directory.
#[derive(Debug)]
pub struct Watch {
    directory: PathBuf,
    /// How far each file has been read, by device and inode.
    read: BTreeMap<(u64, u64), u64>,
    events: BTreeMap<&'static str, u64>,
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
            requests: HashSet::new(),
            others: 0,
            unreadable: 0,
            saw_a_file: false,
        }
    }

    /// Reads what has been written since. To be called now and then, so that nothing is lost to a rotation that
    /// deletes.
    pub fn read(&mut self) {
        for (path, id) in self.files() {
            self.saw_a_file = true;
            // A file that is gone again was read before, or never held anything of ours for long.
            let _ = self.read_file(&path, id);
        }
    }

    /// What was found, with the refusals that the driver saw.
    #[must_use]
    pub fn finish(mut self, refusals: u64) -> Pressure {
        self.read();
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

    fn read_file(&mut self, path: &Path, id: (u64, u64)) -> std::io::Result<()> {
        let mut at = self.read.get(&id).copied().unwrap_or(0);
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        if length < at {
            // It was cut off and begun anew.
            at = 0;
        }
        file.seek(SeekFrom::Start(at))?;
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
            self.line(&line, id);
        }
        self.read.insert(id, at);
        Ok(())
    }

    fn line(&mut self, line: &[u8], (_, inode): (u64, u64)) {
        if line.trim_ascii().is_empty() {
            return;
        }
        // Most lines are about something else; what they say is not parsed.
        let Some(name) =
            EVENTS.into_iter().find(|name| memchr::memmem::find(line, name.as_bytes()).is_some())
        else {
            self.unreadable += u64::from(!line.starts_with(b"{"));
            return;
        };
        let Ok(event) = serde_json::from_slice::<RawLine>(line) else {
            self.unreadable += 1;
            return;
        };
        if event.event != name {
            return;
        }
        *self.events.entry(name).or_default() += 1;
        match event.fields.get("request").and_then(serde_json::Value::as_u64) {
            // Requests are numbered by each process, and each has a log of its own.
            Some(request) if self.requests.len() < MOST => {
                self.requests.insert((inode, request));
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

    #[test]
    fn each_cause_counts_once_and_only_what_is_of_the_run() {
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
        let pressure = watch.finish(3);
        // Requests 2, 3, 4 and 5; the three refusals that were seen are among them.
        assert_eq!((pressure.causes, pressure.refusals, pressure.unreadable), (4, 3, 1));
        let count =
            |name: &str| pressure.events.iter().find(|(event, _)| event == name).map(|(_, count)| *count);
        assert_eq!(count("runtime_proxy_lane_limit_reached"), Some(3));
    }

    #[test]
    fn refusals_count_without_a_log() {
        let directory = tempfile::tempdir().unwrap();
        let pressure = Watch::begin(directory.path()).finish(7);
        assert_eq!((pressure.causes, pressure.log_read), (7, false));
    }
}
