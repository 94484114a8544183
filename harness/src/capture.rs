//! Recorded traffic, read from whatever people have: JSON lines, JSON, HAR, text of a stream of events.
//!
//! [`Reader`] gives raw records: a line of a JSON lines file as it stands, byte for byte, anything else
//! written as such a line. [`normal`] makes typed records of them. Whoever edits a capture works on the
//! first, whoever looks at it on the second. Nothing is guessed silently: what could be two things is an
//! error that says what to do.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod format;

mod json;

mod har;

pub mod normal;

pub mod packed;

mod directory;

pub use directory::{Directory, directory};
pub use format::Format;

/// Longest record, in bytes, unless told otherwise. A response is one record, and so is a HAR entry.
pub const MAX_RECORD: usize = 256 << 20;

/// How a capture is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What the file is; found by its name and content without it.
    pub format: Option<Format>,
    /// Whether bad records are counted and left out, instead of being an error.
    pub skip_bad: bool,
    /// Longest record, in bytes.
    pub max_record: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { format: None, skip_bad: false, max_record: MAX_RECORD }
    }
}

impl Options {
    /// As by default, but bad records are counted and left out.
    #[must_use]
    pub fn skip_bad() -> Self {
        Self { skip_bad: true, ..Self::default() }
    }
}

/// Where in a file something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// The line, from 1.
    pub line: u64,
    /// The column, in bytes from 1.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// A record as it was found, or as a line of JSON where the file is no JSON lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Where it begins.
    pub place: Place,
    /// The line without its LF. A CR before that is still there.
    pub bytes: Vec<u8>,
}

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened.
    #[error("open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Reading broke off.
    #[error("read on at {place}")]
    Read {
        /// Where.
        place: Place,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not clear what the file is.
    #[error("tell what {path} is: {problem}; {advice}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What does not go together.
        problem: String,
        /// What to do.
        advice: String,
    },
    /// A record is not as it should be.
    #[error("read {place}: {problem}; {advice}")]
    Bad {
        /// Where.
        place: Place,
        /// What is wrong.
        problem: String,
        /// What would be right.
        advice: String,
    },
}

impl CaptureError {
    pub(crate) fn bad(place: &Place, problem: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self::Bad { place: place.clone(), problem: problem.to_string(), advice: advice.to_string() }
    }

    /// Whether it is about one record, and the next one can still be read.
    #[must_use]
    pub fn is_of_one_record(&self) -> bool {
        matches!(self, Self::Bad { .. })
    }
}

/// Reads the raw records of a capture, one after the other.
///
/// JSON lines, JSON and HAR of any length are read in bounded memory: one record at a time. The text of a
/// stream of events is one record.
pub struct Reader {
    format: Format,
    options: Options,
    path: Arc<Path>,
    source: Source,
    /// Records of a HAR entry that have not been given out.
    waiting: VecDeque<RawRecord>,
    skipped: u64,
    is_over: bool,
}

enum Source {
    Lines { input: Input, line: u64 },
    Document(Box<json::Document<Input>>, har::Conversion),
    Text(Input),
}

type Input = Box<dyn BufRead + Send>;

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.path)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens a file, packed or not.
    ///
    /// # Errors
    /// When it cannot be opened, or it is not clear what it is.
    pub fn open(path: &Path, options: Options) -> Result<Self, CaptureError> {
        let open = |source| CaptureError::Open { path: path.to_owned(), source };
        if path.is_dir() {
            let problem = "it is a directory".to_owned();
            let advice = "name a file in it, or read it as a directory of recordings".to_owned();
            return Err(CaptureError::Format { path: path.to_owned(), problem, advice });
        }
        Self::new(packed::open(path).map_err(open)?, path, options)
    }

    /// Reads from anything, which is not packed; `name` stands in messages, and its extension counts.
    ///
    /// # Errors
    /// When it is not clear what it is.
    pub fn new(
        mut input: impl BufRead + Send + 'static,
        name: &Path,
        options: Options,
    ) -> Result<Self, CaptureError> {
        let path: Arc<Path> = name.into();
        let place = Place { path: Arc::clone(&path), line: 1, column: 1 };
        let mut head = Vec::new();
        let read = input.by_ref().take(format::LOOK).read_to_end(&mut head);
        read.map_err(|source| CaptureError::Read { place, source })?;
        let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&head).to_vec();
        let format = match options.format {
            Some(format) => format,
            None => Format::find(&packed::plain_name(name), &head).map_err(|(problem, advice)| {
                CaptureError::Format { path: name.to_owned(), problem, advice }
            })?,
        };
        let input: Input = Box::new(Cursor::new(head).chain(input));
        let source = match format {
            Format::JsonLines => Source::Lines { input, line: 0 },
            Format::Json | Format::Har => {
                let document = json::Document::new(input, Arc::clone(&path), options.max_record, format);
                Source::Document(Box::new(document), har::Conversion::default())
            }
            Format::Sse => Source::Text(input),
        };
        Ok(Self { format, options, path, source, waiting: VecDeque::new(), skipped: 0, is_over: false })
    }

    /// What the file is.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// How many bad records have been left out so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn step(&mut self) -> Result<Option<RawRecord>, CaptureError> {
        if let Some(record) = self.waiting.pop_front() {
            return Ok(Some(record));
        }
        let max = self.options.max_record;
        match &mut self.source {
            Source::Lines { input, line } => next_line(input, &self.path, line, max),
            Source::Document(document, conversion) => {
                let Some(element) = document.next_element()? else { return Ok(None) };
                if element.is_entry {
                    self.waiting = conversion.entry(&element.record, document.creator())?.into();
                    return Ok(self.waiting.pop_front());
                }
                check(&element.record)?;
                Ok(Some(element.record))
            }
            Source::Text(input) => {
                self.is_over = true;
                whole_text(input, &self.path, max).map(Some)
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<RawRecord, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over || !self.waiting.is_empty() {
            match self.step() {
                Ok(Some(record)) => return Some(Ok(record)),
                Ok(None) => self.is_over = true,
                Err(error) if self.options.skip_bad && error.is_of_one_record() => {
                    self.skipped += 1;
                    self.is_over |= self.has_lost_its_place();
                }
                Err(error) => {
                    self.is_over |= !error.is_of_one_record() || self.has_lost_its_place();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Reader {
    /// Behind a broken bracket of a document nobody knows where the next record begins.
    fn has_lost_its_place(&self) -> bool {
        matches!(&self.source, Source::Document(document, _) if document.is_broken())
    }
}

/// The typed records of a file, all at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The records.
    pub records: Vec<wire::capture::Record>,
    /// How many bad ones were left out.
    pub skipped: u64,
}

/// Reads all records of a file, or of a directory of recordings, as typed ones.
///
/// # Errors
/// When it cannot be read, or a record is bad and bad ones are not left out.
pub fn load(path: &Path, options: Options) -> Result<Loaded, CaptureError> {
    let skip_bad = options.skip_bad;
    let (records, skipped) = if path.is_dir() {
        let mut raw = directory(path)?;
        let mut normal = normal::Records::new(&mut raw, skip_bad);
        let records = normal.by_ref().collect::<Result<Vec<_>, _>>()?;
        let skipped = normal.skipped();
        (records, skipped + raw.torn())
    } else {
        let mut raw = Reader::open(path, options)?;
        let mut normal = normal::Records::new(&mut raw, skip_bad);
        let records = normal.by_ref().collect::<Result<Vec<_>, _>>()?;
        let skipped = normal.skipped();
        (records, skipped + raw.skipped())
    };
    Ok(Loaded { records, skipped })
}

/// The next line that is a record, as it stands.
fn next_line(
    input: &mut Input,
    path: &Arc<Path>,
    line: &mut u64,
    max: usize,
) -> Result<Option<RawRecord>, CaptureError> {
    loop {
        *line += 1;
        let place = Place { path: Arc::clone(path), line: *line, column: 1 };
        let mut bytes = Vec::new();
        let count = input.by_ref().take(max as u64 + 2).read_until(b'\n', &mut bytes);
        let count = count.map_err(|source| CaptureError::Read { place: place.clone(), source })?;
        if count == 0 {
            return Ok(None);
        }
        let ends = bytes.last() == Some(&b'\n');
        if ends {
            bytes.pop();
        } else if bytes.len() > max {
            skip_line(input, &place)?;
        }
        if bytes.len() > max {
            return Err(too_long(&place, max));
        }
        let text = bytes.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let record = RawRecord { place, bytes };
        check(&record)?;
        return Ok(Some(record));
    }
}

fn skip_line(input: &mut Input, place: &Place) -> Result<(), CaptureError> {
    loop {
        let buffer =
            input.fill_buf().map_err(|source| CaptureError::Read { place: place.clone(), source })?;
        if buffer.is_empty() {
            return Ok(());
        }
        match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                input.consume(at + 1);
                return Ok(());
            }
            None => {
                let length = buffer.len();
                input.consume(length);
            }
        }
    }
}

fn too_long(place: &Place, max: usize) -> CaptureError {
    CaptureError::bad(
        place,
        format_args!("the record is longer than {max} bytes"),
        "split it, or raise the limit for a record",
    )
}

/// Whether a record is one JSON object.
fn check(record: &RawRecord) -> Result<(), CaptureError> {
    let place = &record.place;
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&record.bytes) {
        return Err(syntax(place, &error));
    }
    if !record.bytes.trim_ascii_start().starts_with(b"{") {
        let advice = "a record is an object: {\"type\":\"request\",\"method\":…,\"url\":…}";
        return Err(CaptureError::bad(place, "the record is no JSON object", advice));
    }
    Ok(())
}

/// A syntax error with its own place: behind the beginning of its record.
fn syntax(place: &Place, error: &serde_json::Error) -> CaptureError {
    let mut at = place.clone();
    let (line, column) = (error.line() as u64, error.column() as u64);
    if line > 1 {
        (at.line, at.column) = (place.line + line - 1, column);
    } else {
        at.column = place.column + column.saturating_sub(1);
    }
    let text = error.to_string();
    let problem = text.split(" at line ").next().unwrap_or(&text);
    let advice = if error.is_eof() {
        "a record ends on the line it begins on; if the file is one JSON document, name the format json"
    } else {
        "a record is one JSON object on one line"
    };
    CaptureError::bad(&at, format_args!("this is no JSON: {problem}"), advice)
}

/// A text that is one stream of events, as a record.
fn whole_text(input: &mut Input, path: &Arc<Path>, max: usize) -> Result<RawRecord, CaptureError> {
    let place = Place { path: Arc::clone(path), line: 1, column: 1 };
    let mut text = Vec::new();
    let read = input.by_ref().take(max as u64 + 1).read_to_end(&mut text);
    read.map_err(|source| CaptureError::Read { place: place.clone(), source })?;
    if text.len() > max {
        return Err(too_long(&place, max));
    }
    let stream = wire::capture::Payload(text);
    let record = serde_json::json!({"type": "sse_stream", "status": 200,
        "headers": [["content-type", "text/event-stream"]], "stream": stream});
    Ok(RawRecord { place, bytes: record.to_string().into_bytes() })
}

#[cfg(test)]
mod tests;
