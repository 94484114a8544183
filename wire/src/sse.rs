//! Server-sent events as bytes: the WHATWG EventSource algorithm, exactly, and its inverse.
//!
//! The standard decodes the stream as UTF-8 and then splits it into lines. All of its syntax is ASCII and
//! ASCII bytes end any broken UTF-8 sequence, so splitting first and decoding last gives the same events;
//! that way nothing is decoded that nobody reads, and an event that lies within one piece of input is
//! handed out without a copy. Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::borrow::Cow;

mod encode;

pub use encode::{EncodeError, encode_comment, encode_event};

/// The default bound on what a decoder keeps: longer lines and events are errors.
///
/// Codex takes a `data:` line of 8 MB (wire facts, 2.3), so an honest stream may hold one that long.
pub const DEFAULT_LIMIT: usize = 16 * 1024 * 1024;

/// A line, or the data of an event, is longer than the decoder's limit. The stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line or an event of the stream is longer than {limit} bytes")]
pub struct TooLong {
    /// The limit, in bytes.
    pub limit: usize,
}

/// One event, borrowed from the input or from the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The value of the `event` field; empty when there was none, which browsers call `message`.
    pub name: &'a [u8],
    /// The data, lines joined by LF, as the bytes that came.
    pub data: &'a [u8],
    /// The last event id seen on the stream so far.
    pub last_id: &'a [u8],
}

impl<'a> Event<'a> {
    /// The event's type as the standard has it: its name, or `message`.
    #[must_use]
    pub fn kind(&self) -> Cow<'a, str> {
        if self.name.is_empty() { Cow::Borrowed("message") } else { String::from_utf8_lossy(self.name) }
    }

    /// The data as text; invalid UTF-8 becomes U+FFFD, as the standard's decoder does it.
    #[must_use]
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.data)
    }
}

/// Bytes that are borrowed from the current input as long as they lie in it in one piece.
#[derive(Debug, Default)]
struct Part {
    kept: Vec<u8>,
}

impl Part {
    /// Puts `piece` behind what is kept.
    fn keep(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
    }

    /// Forgets the bytes, and the memory too when an unusual event made it large.
    fn clear(&mut self) {
        if self.kept.capacity() > 4096 {
            self.kept = Vec::new();
        } else {
            self.kept.clear();
        }
    }
}

/// Turns pieces of a stream into events.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    failed: bool,
    /// How many bytes of a byte order mark the stream has begun with; `None` behind that point.
    bom: Option<u8>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_return: bool,
    /// The line that the last input ended in.
    line: Part,
    /// The data of the event being read, if it did not fit into one input.
    data: Part,
    /// Whether the event being read has a `data` field, even an empty one.
    has_data: bool,
    /// The name of the event being read, if it came in an earlier input.
    name: Part,
    last_id: Vec<u8>,
    retry: Option<u64>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

impl Decoder {
    /// A decoder at the start of a stream, which keeps at most `limit` bytes of a line and of an event.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            failed: false,
            bom: Some(0),
            after_return: false,
            line: Part::default(),
            data: Part::default(),
            has_data: false,
            name: Part::default(),
            last_id: Vec::new(),
            retry: None,
        }
    }

    /// The reconnection time in milliseconds that the stream asked for last.
    #[must_use]
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Whether the input so far ends within an event: what has come of it since the last empty line is
    /// dropped if the stream ends here.
    #[must_use]
    pub fn is_mid_event(&self) -> bool {
        self.has_data || !self.line.kept.is_empty() || !self.name.kept.is_empty()
    }

    /// Takes the next piece of the stream and hands over each event that it completes.
    ///
    /// # Errors
    /// When a line or an event is longer than the limit; the decoder gives that error from then on.
    pub fn feed(&mut self, input: &[u8], mut each: impl FnMut(Event<'_>)) -> Result<(), TooLong> {
        if self.failed {
            return Err(TooLong { limit: self.limit });
        }
        let input = match self.bom {
            Some(seen) => self.skip_bom(seen, input),
            None => Some(input),
        };
        let result = match input {
            Some(input) => self.feed_lines(input, &mut each),
            None => Ok(()),
        };
        self.failed = result.is_err();
        result
    }

    /// Drops a byte order mark at the very start, however it is split. `None` while it is undecided. `seen`
    /// bytes of it are known.
    fn skip_bom<'a>(&mut self, seen: u8, input: &'a [u8]) -> Option<&'a [u8]> {
        let seen = usize::from(seen);
        let matching = BOM[seen..].iter().zip(input).take_while(|(mark, byte)| mark == byte).count();
        if seen + matching == BOM.len() {
            self.bom = None;
            return Some(&input[matching..]);
        }
        if matching == input.len() {
            // At most two bytes of the mark have been seen here.
            self.bom = u8::try_from(seen + matching).ok();
            return None;
        }
        // Not a mark after all: what looked like one is the start of the first line.
        self.bom = None;
        self.line.keep(&BOM[..seen]);
        Some(input)
    }

    fn feed_lines(&mut self, mut input: &[u8], each: &mut impl FnMut(Event<'_>)) -> Result<(), TooLong> {
        // Data and name of the current event while they are slices of this input.
        let mut data: Option<&[u8]> = None;
        let mut name: Option<&[u8]> = None;
        if self.after_return && !input.is_empty() {
            self.after_return = false;
            if input[0] == b'\n' {
                input = &input[1..];
            }
        }
        while let Some(end) = line_end(input) {
            let piece = &input[..end];
            if self.line.kept.len() + piece.len() > self.limit {
                return Err(TooLong { limit: self.limit });
            }
            let next = match (input[end], input.get(end + 1)) {
                (b'\r', Some(b'\n')) => end + 2,
                (b'\r', None) => {
                    self.after_return = true;
                    end + 1
                }
                _ => end + 1,
            };
            if self.line.kept.is_empty() {
                self.take_line(piece, &mut data, &mut name, each)?;
            } else {
                // The line began in an earlier input: it is put together, and what it holds is kept.
                let mut line = std::mem::take(&mut self.line);
                line.keep(piece);
                let (mut line_data, mut line_name) = (None, None);
                self.keep_rest(data.take(), name.take());
                let taken = self.take_line(&line.kept, &mut line_data, &mut line_name, each);
                self.keep_rest(line_data, line_name);
                line.clear();
                self.line = line;
                taken?;
            }
            input = &input[next..];
        }
        self.keep_rest(data, name);
        if self.line.kept.len() + input.len() > self.limit {
            return Err(TooLong { limit: self.limit });
        }
        self.line.keep(input);
        Ok(())
    }

    /// Keeps what was borrowed from an input that is about to go.
    fn keep_rest(&mut self, data: Option<&[u8]>, name: Option<&[u8]>) {
        if let Some(data) = data {
            self.data.keep(data);
        }
        if let Some(name) = name {
            self.name.clear();
            self.name.keep(name);
        }
    }

    /// Interprets one line.
    fn take_line<'a>(
        &mut self,
        line: &'a [u8],
        data: &mut Option<&'a [u8]>,
        name: &mut Option<&'a [u8]>,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<(), TooLong> {
        if line.is_empty() {
            self.dispatch(data.take(), name.take(), each);
            return Ok(());
        }
        // Nearly every line is one of these, and the search for its colon would cost more than the rest.
        let (field, value) = if let Some(value) = line.strip_prefix(b"data:") {
            (&b"data"[..], unspaced(value))
        } else if let Some(value) = line.strip_prefix(b"event:") {
            (&b"event"[..], unspaced(value))
        } else {
            match memchr::memchr(b':', line) {
                Some(0) => return Ok(()),
                Some(colon) => (&line[..colon], unspaced(&line[colon + 1..])),
                None => (line, &[][..]),
            }
        };
        match field {
            b"data" => self.take_data(value, data),
            b"event" => {
                self.name.clear();
                *name = Some(value);
                Ok(())
            }
            b"id" => {
                if !value.contains(&0) {
                    value.clone_into(&mut self.last_id);
                }
                Ok(())
            }
            b"retry" => {
                // Digits only; a number too large for the clock is as good as for ever.
                if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
                    let time = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                    self.retry = Some(time.unwrap_or(u64::MAX));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Adds a `data` line to the event. The first one stays a slice of the input.
    fn take_data<'a>(&mut self, value: &'a [u8], data: &mut Option<&'a [u8]>) -> Result<(), TooLong> {
        if self.has_data {
            self.keep_rest(data.take(), None);
            self.data.keep(b"\n");
            if self.data.kept.len() + value.len() > self.limit {
                return Err(TooLong { limit: self.limit });
            }
            self.data.keep(value);
        } else {
            self.has_data = true;
            *data = Some(value);
        }
        Ok(())
    }

    /// The empty line: hands the event over if it has data, and starts the next.
    fn dispatch(&mut self, data: Option<&[u8]>, name: Option<&[u8]>, each: &mut impl FnMut(Event<'_>)) {
        // The standard's data buffer holds a LF per data line, so one empty `data` line is enough.
        if self.has_data {
            let data = data.unwrap_or(&self.data.kept);
            let name = name.unwrap_or(&self.name.kept);
            each(Event { name, data, last_id: &self.last_id });
        }
        self.data.clear();
        self.name.clear();
        self.has_data = false;
    }
}

/// Where the first line of the input ends. Every third line of a stream is empty, and the search that is fast
/// for long ones is slow to begin.
fn line_end(input: &[u8]) -> Option<usize> {
    if matches!(input, [b'\n' | b'\r', ..]) { Some(0) } else { memchr::memchr2(b'\n', b'\r', input) }
}

/// A field's value, without the space that may stand before it.
fn unspaced(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

#[cfg(test)]
mod tests;
