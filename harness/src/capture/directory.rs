//! A directory of recordings, one file per exchange, joined into one stream of records in time order.
//!
//! Every file is read through before the first record is given out, to learn when each was made. So the
//! memory needed grows with the number of records and not with their size. Recordings of several runs may
//! lie in one directory: their times then count from the first run's beginning, and the ids and
//! connections of the later ones are moved behind those of the earlier.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use wire::json::Value;

use super::normal::time;
use super::{CaptureError, Options, Place, RawRecord, Reader};

/// Where a record lies, and when it was made.
#[derive(Debug)]
struct Entry {
    /// Milliseconds since 1970.
    at: f64,
    file: usize,
    line: u64,
    /// Of the beginning of its line.
    offset: u64,
    length: usize,
    run: usize,
}

/// What is known of a run.
#[derive(Debug)]
struct Run {
    /// Milliseconds since 1970.
    began: f64,
    last_id: u64,
    last_connection: u64,
    /// What is added to ids, connections and times.
    ids: u64,
    connections: u64,
    times: f64,
}

/// The records of a directory.
#[derive(Debug)]
pub struct Directory {
    files: Vec<Arc<Path>>,
    runs: Vec<Run>,
    entries: std::vec::IntoIter<Entry>,
    open: Option<(usize, File)>,
    torn: u64,
}

/// Joins the recordings of a directory: every file in it whose name ends in `.jsonl`.
///
/// # Errors
/// When the directory or a file cannot be read, there is no recording in it, or a record is bad. The last
/// line of a file whose recorder was killed may be half a record; it is left out.
pub fn directory(path: &Path) -> Result<Directory, CaptureError> {
    let open = |source| CaptureError::Open { path: path.to_owned(), source };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(open)? {
        let file = entry.map_err(open)?.path();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(file);
        }
    }
    if files.is_empty() {
        let problem = "it is a directory without a file that ends in .jsonl".to_owned();
        let advice = "name the directory that was given to --record".to_owned();
        return Err(CaptureError::Format { path: path.to_owned(), problem, advice });
    }
    files.sort();
    let files: Vec<Arc<Path>> = files.into_iter().map(Into::into).collect();
    let mut index = Index::default();
    for (number, file) in files.iter().enumerate() {
        index.file(number, file)?;
    }
    let Index { mut entries, runs, torn, .. } = index;
    let runs = place_runs(runs);
    entries.sort_by(|one, other| one.at.total_cmp(&other.at));
    Ok(Directory { files, runs, entries: entries.into_iter(), open: None, torn })
}

#[derive(Debug, Default)]
struct Index {
    entries: Vec<Entry>,
    runs: Vec<Run>,
    /// Runs by the name that their recorder gave them.
    names: HashMap<String, usize>,
    torn: u64,
}

impl Index {
    fn file(&mut self, number: usize, path: &Arc<Path>) -> Result<(), CaptureError> {
        let options = Options { format: Some(super::Format::JsonLines), ..Options::default() };
        let mut lines = Lines::open(path, options)?;
        let mut run = None;
        while let Some(read) = lines.next() {
            let (offset, record) = match read {
                Ok(read) => read,
                Err(error) if error.is_of_one_record() && lines.is_at_torn_end() => {
                    self.torn += 1;
                    break;
                }
                Err(error) => return Err(error),
            };
            let value = Value::new(&record.bytes);
            let is_meta = value.get("type").and_then(Value::as_str).is_some_and(|kind| kind == "meta");
            let t_ms = value.get("t_ms").and_then(Value::as_f64).unwrap_or(0.0);
            let known = run.is_some();
            let this = match run {
                Some(run) => run,
                None => self.run_of(path, value, t_ms),
            };
            run = Some(this);
            let entry = &mut self.runs[this];
            let number_of =
                |name| value.get(name).and_then(Value::as_i64).and_then(|id| u64::try_from(id).ok());
            entry.last_id = entry.last_id.max(number_of("id").unwrap_or(0));
            entry.last_connection = entry.last_connection.max(number_of("connection").unwrap_or(0));
            let at = entry.began + t_ms;
            // One `meta` says it for the whole run.
            let is_repeated = is_meta && !known && self.entries.iter().any(|entry| entry.run == this);
            if !is_repeated {
                let (line, length) = (record.place.line, record.bytes.len());
                self.entries.push(Entry { at, file: number, line, offset, length, run: this });
            }
        }
        Ok(())
    }

    /// The run that a file with this first record belongs to.
    fn run_of(&mut self, path: &Path, first: Value<'_>, t_ms: f64) -> usize {
        let text = |name| first.get(name).and_then(Value::as_str).map(std::borrow::Cow::into_owned);
        let name = text("run").unwrap_or_else(|| path.display().to_string());
        if let Some(run) = self.names.get(&name) {
            return *run;
        }
        let began = text("began").and_then(|began| time::milliseconds(&began));
        let stamp = || text("ts").and_then(|ts| time::milliseconds(&ts)).map(|ts| ts - t_ms);
        let began = began.or_else(stamp).unwrap_or(0.0);
        let (ids, connections, times) = (0, 0, 0.0);
        self.runs.push(Run { began, last_id: 0, last_connection: 0, ids, connections, times });
        self.names.insert(name, self.runs.len() - 1);
        self.runs.len() - 1
    }
}

/// Puts the runs one behind the other.
fn place_runs(mut runs: Vec<Run>) -> Vec<Run> {
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by(|one, other| runs[*one].began.total_cmp(&runs[*other].began));
    let (mut ids, mut connections, mut first) = (0_u64, 0_u64, None);
    for at in order {
        let run = &mut runs[at];
        let began = *first.get_or_insert(run.began);
        (run.ids, run.connections, run.times) = (ids, connections, run.began - began);
        ids = ids.saturating_add(run.last_id);
        connections = connections.saturating_add(run.last_connection);
    }
    runs
}

impl Directory {
    /// How many files end in half a record.
    #[must_use]
    pub fn torn(&self) -> u64 {
        self.torn
    }

    fn read(&mut self, entry: &Entry) -> Result<RawRecord, CaptureError> {
        let path = &self.files[entry.file];
        let place = Place { path: Arc::clone(path), line: entry.line, column: 1 };
        let failed = |source| CaptureError::Read { place: place.clone(), source };
        if self.open.as_ref().is_none_or(|(file, _)| *file != entry.file) {
            self.open = Some((entry.file, File::open(path).map_err(failed)?));
        }
        let mut bytes = vec![0; entry.length];
        if let Some((_, file)) = &mut self.open {
            file.seek(SeekFrom::Start(entry.offset)).map_err(failed)?;
            file.read_exact(&mut bytes).map_err(failed)?;
        }
        self.runs[entry.run].shift(&mut bytes);
        Ok(RawRecord { place, bytes })
    }
}

impl Iterator for Directory {
    type Item = Result<RawRecord, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(self.read(&entry))
    }
}

impl Run {
    /// Moves ids, connections and times of a record; the first run's stay.
    fn shift(&self, bytes: &mut Vec<u8>) {
        let add = |by: u64| {
            move |raw: &[u8]| {
                let number: u64 = serde_json::from_slice(raw).ok()?;
                Some(number.saturating_add(by).to_string())
            }
        };
        if self.ids > 0 {
            replace(bytes, "id", add(self.ids));
        }
        if self.connections > 0 {
            replace(bytes, "connection", add(self.connections));
        }
        if self.times > 0.0 {
            let later = |time: f64| ((time + self.times) * 1000.0).round() / 1000.0;
            replace(bytes, "t_ms", |raw| {
                serde_json::from_slice::<f64>(raw).ok().map(|time| Json::from(later(time)).to_string())
            });
            replace(bytes, "writes", |raw| {
                let mut writes: Vec<(f64, u64)> = serde_json::from_slice(raw).ok()?;
                writes.iter_mut().for_each(|(time, _)| *time = later(*time));
                serde_json::to_string(&writes).ok()
            });
        }
    }
}

/// Replaces the value of a member in the text of a record, and nothing else.
fn replace(bytes: &mut Vec<u8>, name: &str, change: impl FnOnce(&[u8]) -> Option<String>) {
    let Some(raw) = Value::new(bytes).get(name).map(Value::raw) else { return };
    let start = (raw.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
    let (end, changed) = (start + raw.len(), change(raw));
    if let Some(changed) = changed.filter(|_| end <= bytes.len()) {
        bytes.splice(start..end, changed.into_bytes());
    }
}

/// The records of a file with the offsets of their lines.
struct Lines {
    reader: Reader,
    offsets: Vec<u64>,
    ends_whole: bool,
    count: u64,
}

impl Lines {
    fn open(path: &Arc<Path>, options: Options) -> Result<Self, CaptureError> {
        let (offsets, ends_whole) =
            line_offsets(path).map_err(|source| CaptureError::Open { path: path.to_path_buf(), source })?;
        Ok(Self { reader: Reader::open(path, options)?, offsets, ends_whole, count: 0 })
    }

    fn next(&mut self) -> Option<Result<(u64, RawRecord), CaptureError>> {
        let read = self.reader.next()?;
        let line = match &read {
            Ok(record) => record.place.line,
            Err(CaptureError::Bad { place, .. }) => place.line,
            Err(_) => self.count,
        };
        self.count = line;
        let offset = usize::try_from(line).ok().and_then(|line| self.offsets.get(line.checked_sub(1)?));
        let offset = offset.copied().unwrap_or(0);
        Some(read.map(|record| (offset, record)))
    }

    /// Whether the last line has no end, and it was the last that was read.
    fn is_at_torn_end(&self) -> bool {
        !self.ends_whole && self.count == self.offsets.len() as u64
    }
}

/// Where each line of a file begins, and whether the last one has an end.
fn line_offsets(path: &Path) -> std::io::Result<(Vec<u64>, bool)> {
    use std::io::BufRead as _;
    let mut input = std::io::BufReader::with_capacity(1 << 20, File::open(path)?);
    let (mut offsets, mut at, mut is_start) = (Vec::new(), 0_u64, true);
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok((offsets, is_start));
        }
        if is_start {
            offsets.push(at);
        }
        let taken = buffer.iter().position(|byte| *byte == b'\n').map_or(buffer.len(), |end| end + 1);
        is_start = buffer[taken - 1] == b'\n';
        input.consume(taken);
        at += taken as u64;
    }
}
