//! One JSON document of any length, taken apart into its records without holding more than one of them.
//!
//! Brackets and strings are followed byte by byte; whether a record is good JSON is checked by whoever
//! takes it. What comes out has no whitespace between its tokens and is otherwise as it was written.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use super::{CaptureError, Format, Place, RawRecord, too_long};

/// A document on its way.
pub(super) struct Document<R> {
    scanner: Scanner<R>,
    format: Format,
    state: State,
    /// What a HAR says of its maker, once that has come.
    creator: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// Within the array of records, before the next one.
    Elements {
        is_first: bool,
        is_har: bool,
        /// How many objects are around the array.
        around: u8,
    },
    Done,
    /// An error from which there is no way on.
    Broken,
}

/// An element of the array of records.
pub(super) struct Element {
    pub(super) record: RawRecord,
    /// Whether it is an entry of a HAR.
    pub(super) is_entry: bool,
}

impl<R: BufRead> Document<R> {
    pub(super) fn new(input: R, path: Arc<Path>, max: usize, format: Format) -> Self {
        let scanner = Scanner { input, path, line: 1, column: 1, max };
        Self { scanner, format, state: State::Start, creator: None }
    }

    /// The `creator` of a HAR, if it came before the entries.
    pub(super) fn creator(&self) -> Option<&[u8]> {
        self.creator.as_deref()
    }

    /// Whether nothing can be read any more.
    pub(super) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// The next record.
    pub(super) fn next_element(&mut self) -> Result<Option<Element>, CaptureError> {
        let before = self.state;
        self.state = State::Broken;
        let (state, element) = match before {
            State::Done | State::Broken => (before, None),
            State::Start => match self.start()? {
                (State::Elements { is_first, is_har, around }, None) => {
                    self.element(is_first, is_har, around)?
                }
                other => other,
            },
            State::Elements { is_first, is_har, around } => self.element(is_first, is_har, around)?,
        };
        self.state = state;
        Ok(element)
    }

    /// Finds the array of records, or takes the one record.
    fn start(&mut self) -> Result<(State, Option<Element>), CaptureError> {
        let place = self.scanner.skip_space()?;
        if self.format == Format::Json && self.scanner.peek()? == Some(b'[') {
            self.scanner.bump()?;
            return Ok((State::Elements { is_first: true, is_har: false, around: 0 }, None));
        }
        self.scanner.expect(b'{', "a JSON document begins with { or [")?;
        let mut one = b"{".to_vec();
        let mut is_first = true;
        let mut is_typed = false;
        while let Some(key) = self.scanner.key(is_first)? {
            is_first = false;
            let next = self.scanner.peek()?;
            if key == b"\"log\"" && next == Some(b'{') && !is_typed {
                return self.enter_log();
            }
            if key == b"\"records\"" && next == Some(b'[') && !is_typed && self.format == Format::Json {
                self.scanner.bump()?;
                return Ok((State::Elements { is_first: true, is_har: false, around: 1 }, None));
            }
            is_typed |= matches!(&key[..], b"\"type\"" | b"\"kind\"" | b"\"record_type\"");
            if one.len() > 1 {
                one.push(b',');
            }
            one.extend_from_slice(&key);
            one.push(b':');
            self.scanner.value(&mut one)?;
        }
        one.push(b'}');
        self.scanner.expect_end()?;
        if self.format == Format::Har {
            return Err(CaptureError::bad(
                &place,
                "there is no `log` in it",
                "a HAR is {\"log\":{\"entries\":[…]}}",
            ));
        }
        let record = RawRecord { place, bytes: one };
        Ok((State::Done, Some(Element { record, is_entry: false })))
    }

    /// Finds the entries of a HAR.
    fn enter_log(&mut self) -> Result<(State, Option<Element>), CaptureError> {
        let place = self.scanner.place();
        self.scanner.bump()?;
        let mut is_first = true;
        while let Some(key) = self.scanner.key(is_first)? {
            is_first = false;
            if key == b"\"entries\"" && self.scanner.peek()? == Some(b'[') {
                self.scanner.bump()?;
                return Ok((State::Elements { is_first: true, is_har: true, around: 2 }, None));
            }
            let mut value = Vec::new();
            self.scanner.value(&mut value)?;
            if key == b"\"creator\"" {
                self.creator = Some(value);
            }
        }
        Err(CaptureError::bad(&place, "its `log` has no `entries`", "a HAR is {\"log\":{\"entries\":[…]}}"))
    }

    fn element(
        &mut self,
        is_first: bool,
        is_har: bool,
        around: u8,
    ) -> Result<(State, Option<Element>), CaptureError> {
        self.scanner.skip_space()?;
        if self.scanner.peek()? == Some(b']') {
            self.scanner.bump()?;
            for _ in 0..around {
                // What stands behind the records is not looked at, but it must be there.
                while self.scanner.key(false)?.is_some() {
                    self.scanner.value(&mut Vec::new())?;
                }
            }
            self.scanner.expect_end()?;
            return Ok((State::Done, None));
        }
        if !is_first {
            self.scanner.expect(b',', "records are separated by commas")?;
        }
        let place = self.scanner.skip_space()?;
        let mut bytes = Vec::new();
        self.scanner.value(&mut bytes)?;
        let element = Element { record: RawRecord { place, bytes }, is_entry: is_har };
        Ok((State::Elements { is_first: false, is_har, around }, Some(element)))
    }
}

/// Takes JSON from its beginning to its end.
struct Scanner<R> {
    input: R,
    path: Arc<Path>,
    line: u64,
    column: u64,
    max: usize,
}

impl<R: BufRead> Scanner<R> {
    fn place(&self) -> Place {
        Place { path: Arc::clone(&self.path), line: self.line, column: self.column }
    }

    fn peek(&mut self) -> Result<Option<u8>, CaptureError> {
        match self.input.fill_buf() {
            Ok(buffer) => Ok(buffer.first().copied()),
            Err(source) => Err(CaptureError::Read { place: self.place(), source }),
        }
    }

    fn bump(&mut self) -> Result<Option<u8>, CaptureError> {
        let byte = self.peek()?;
        if byte.is_some() {
            self.input.consume(1);
        }
        match byte {
            Some(b'\n') => (self.line, self.column) = (self.line + 1, 1),
            Some(_) => self.column += 1,
            None => {}
        }
        Ok(byte)
    }

    /// Where the next token begins.
    fn skip_space(&mut self) -> Result<Place, CaptureError> {
        while matches!(self.peek()?, Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.bump()?;
        }
        Ok(self.place())
    }

    fn expect(&mut self, byte: u8, advice: &str) -> Result<(), CaptureError> {
        let place = self.skip_space()?;
        match self.bump()? {
            Some(found) if found == byte => Ok(()),
            found => Err(unexpected(&place, found, advice)),
        }
    }

    fn expect_end(&mut self) -> Result<(), CaptureError> {
        let place = self.skip_space()?;
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(CaptureError::bad(
                &place,
                "something stands behind the end of the JSON document",
                "if the file has a record on each line, rename it to .jsonl, or name the format",
            )),
        }
    }

    /// The next key of an object with its quotes, and the colon behind it. None at the object's end.
    fn key(&mut self, is_first: bool) -> Result<Option<Vec<u8>>, CaptureError> {
        self.skip_space()?;
        if self.peek()? == Some(b'}') {
            self.bump()?;
            return Ok(None);
        }
        if !is_first {
            self.expect(b',', "the members of an object are separated by commas")?;
        }
        let place = self.skip_space()?;
        if self.peek()? != Some(b'"') {
            let found = self.peek()?;
            return Err(unexpected(&place, found, "an object has names in quotes"));
        }
        let mut key = Vec::new();
        self.value(&mut key)?;
        self.expect(b':', "a colon stands behind a name")?;
        self.skip_space()?;
        Ok(Some(key))
    }

    /// Appends the next value without the whitespace between its tokens.
    fn value(&mut self, out: &mut Vec<u8>) -> Result<(), CaptureError> {
        let place = self.skip_space()?;
        let start = out.len();
        let (mut depth, mut is_string, mut is_escaped) = (0_usize, false, false);
        loop {
            let Some(byte) = self.peek()? else {
                if depth == 0 && !is_string && out.len() > start {
                    return Ok(());
                }
                return Err(unexpected(&self.place(), None, "the document is cut off"));
            };
            let is_delimiter = matches!(byte, b',' | b':' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
            if depth == 0 && !is_string && is_delimiter {
                return if out.len() > start {
                    Ok(())
                } else {
                    Err(unexpected(&place, Some(byte), "a value is missing here"))
                };
            }
            self.bump()?;
            if is_string || !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                out.push(byte);
            }
            if out.len() - start > self.max {
                return Err(too_long(&place, self.max));
            }
            if is_string {
                match byte {
                    _ if is_escaped => is_escaped = false,
                    b'\\' => is_escaped = true,
                    b'"' => is_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => is_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            if depth == 0 && !is_string && matches!(byte, b'"' | b'}' | b']') {
                return Ok(());
            }
        }
    }
}

fn unexpected(place: &Place, found: Option<u8>, advice: &str) -> CaptureError {
    match found {
        None => CaptureError::bad(place, "the file ends here", advice),
        Some(byte) => CaptureError::bad(place, format_args!("{:?} stands here", char::from(byte)), advice),
    }
}

/// A JSON text without the whitespace between its tokens: as clients send it. Everything else, the
/// spelling of numbers and strings too, stays.
pub(super) fn compact(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut is_string, mut is_escaped) = (false, false);
    for byte in text.iter().copied() {
        if is_string {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => is_string = false,
                _ => {}
            }
        } else if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            continue;
        } else {
            is_string = byte == b'"';
        }
        out.push(byte);
    }
    out
}
