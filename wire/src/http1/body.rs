//! Where the body of an HTTP/1.1 message ends, and what in it is payload (RFC 9112 §6 and §7).

use super::head::Field;

/// Longest chunk-size line, extensions included, in bytes.
const MAX_CHUNK_LINE: u32 = 4096;

/// Longest trailer section, in bytes.
const MAX_TRAILERS: u32 = 16 * 1024;

/// Why the framing of a message cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("both Content-Length and Transfer-Encoding are given")]
    TwoLengths,
    /// `Content-Length` more than once, or as a list.
    #[error("Content-Length is given more than once")]
    DuplicateLength,
    /// A `Content-Length` that is not a number of bytes.
    #[error("Content-Length is not a number")]
    BadLength,
    /// A transfer coding other than `chunked`, or `chunked` not alone.
    #[error("Transfer-Encoding is not exactly \"chunked\"")]
    UnknownCoding,
    /// The chunked framing is broken.
    #[error("the chunked body is malformed: {0}")]
    BadChunk(&'static str),
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// Exactly so many bytes.
    Exact(u64),
    /// Chunks up to the one of size zero.
    Chunked,
    /// All bytes until the sender closes; only responses can say so.
    UntilClose,
}

impl BodyLength {
    /// The length that these field lines give; `UntilClose` when they give none.
    pub(super) fn given_by<'a>(fields: impl Iterator<Item = Field<'a>>) -> Result<Self, FramingError> {
        let mut length = None;
        let mut chunked = false;
        for field in fields {
            if field.is("content-length") {
                if length.is_some() {
                    return Err(FramingError::DuplicateLength);
                }
                length = Some(parse_length(field.value)?);
            } else if field.is("transfer-encoding") {
                if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(FramingError::UnknownCoding);
                }
                chunked = true;
            }
        }
        match (length, chunked) {
            (Some(_), true) => Err(FramingError::TwoLengths),
            (Some(length), false) => Ok(Self::Exact(length)),
            (None, true) => Ok(Self::Chunked),
            (None, false) => Ok(Self::UntilClose),
        }
    }

    /// A decoder for a body of this length.
    #[must_use]
    pub fn decoder(self) -> BodyDecoder {
        match self {
            Self::None | Self::Exact(0) => BodyDecoder::Exact(0),
            Self::Exact(length) => BodyDecoder::Exact(length),
            Self::Chunked => BodyDecoder::Chunked(Chunked::new()),
            Self::UntilClose => BodyDecoder::UntilClose,
        }
    }
}

/// Digits only: `+5`, `5, 5` and `0x5` are what one reader takes and the next does not.
fn parse_length(value: &[u8]) -> Result<u64, FramingError> {
    if value.contains(&b',') {
        return Err(FramingError::DuplicateLength);
    }
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(FramingError::BadLength);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// What a decoder made of some input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// How many bytes of the input belong to this body, framing included.
    pub consumed: usize,
    /// Whether the body ended.
    pub is_done: bool,
}

/// Finds the payload and the end of a body in bytes that arrive in pieces of any size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyDecoder {
    /// So many bytes are left.
    Exact(u64),
    /// Chunked framing.
    Chunked(Chunked),
    /// The sender's close ends the body.
    UntilClose,
}

impl BodyDecoder {
    /// Whether the body has ended; true from the start for a body without bytes.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::Exact(left) => *left == 0,
            Self::Chunked(chunked) => chunked.state == State::Done,
            Self::UntilClose => false,
        }
    }

    /// Whether the sender may end the body by closing its connection.
    #[must_use]
    pub fn may_end_at_close(&self) -> bool {
        self.is_done() || matches!(self, Self::UntilClose)
    }

    /// Takes the next bytes of the message and hands the payload among them to `payload`, in order, in
    /// slices of the input.
    ///
    /// # Errors
    /// When the framing is broken; the decoder must not be used again.
    pub fn decode<'a>(
        &mut self,
        input: &'a [u8],
        mut payload: impl FnMut(&'a [u8]),
    ) -> Result<Decoded, FramingError> {
        match self {
            Self::Exact(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                if take > 0 {
                    payload(&input[..take]);
                }
                *left -= take as u64;
                Ok(Decoded { consumed: take, is_done: *left == 0 })
            }
            Self::Chunked(chunked) => chunked.decode(input, payload),
            Self::UntilClose => {
                if !input.is_empty() {
                    payload(input);
                }
                Ok(Decoded { consumed: input.len(), is_done: false })
            }
        }
    }
}

/// The state of a chunked body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    /// Bytes of the current chunk still to come, or the chunk size read so far.
    size: u64,
    /// Length of the current size line or of the trailers, against the limits.
    line: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the first digit of a chunk size.
    SizeStart,
    /// In the digits of a chunk size.
    Size,
    /// In a chunk extension, which is skipped.
    Extension,
    /// Behind the CR of a size line.
    SizeLineFeed,
    /// In the chunk's data.
    Data,
    /// Behind the data, at its CR.
    DataReturn,
    /// Behind the CR that ends the data.
    DataLineFeed,
    /// At the start of a trailer line.
    TrailerStart,
    /// In a trailer line.
    Trailer,
    /// Behind the CR of a trailer line.
    TrailerLineFeed,
    /// Behind the CR of the last, empty line.
    EndLineFeed,
    /// The body has ended.
    Done,
}

impl Chunked {
    fn new() -> Self {
        Self { state: State::SizeStart, size: 0, line: 0 }
    }

    fn decode<'a>(
        &mut self,
        input: &'a [u8],
        mut payload: impl FnMut(&'a [u8]),
    ) -> Result<Decoded, FramingError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let take = usize::try_from(self.size).unwrap_or(usize::MAX).min(input.len() - at);
                payload(&input[at..at + take]);
                at += take;
                self.size -= take as u64;
                if self.size == 0 {
                    self.state = State::DataReturn;
                }
            } else if let Some(taken) = self.skip_framing(&input[at..]) {
                at += taken;
            } else {
                self.step(input[at])?;
                at += 1;
            }
        }
        Ok(Decoded { consumed: at, is_done: self.state == State::Done })
    }

    /// Takes the framing between two chunks in one step, when all of it is there in its plain form. Says
    /// how many bytes it was.
    fn skip_framing(&mut self, input: &[u8]) -> Option<usize> {
        let start = match self.state {
            State::SizeStart => 0,
            State::DataReturn if input.starts_with(b"\r\n") => 2,
            _ => return None,
        };
        let (mut size, mut digits) = (0, 0);
        // Up to eight digits: longer sizes are nobody's, and are left to the careful way.
        while let Some(digit) = input.get(start + digits).and_then(|byte| char::from(*byte).to_digit(16)) {
            size = size << 4 | u64::from(digit);
            digits += 1;
            if digits > 8 {
                return None;
            }
        }
        if size == 0 || !input[start + digits..].starts_with(b"\r\n") {
            return None;
        }
        self.size = size;
        self.state = State::Data;
        Some(start + digits + 2)
    }

    /// Takes one byte of framing.
    fn step(&mut self, byte: u8) -> Result<(), FramingError> {
        self.state = match (self.state, byte) {
            (State::SizeStart, _) => {
                self.size = hex_digit(byte)?;
                self.line = 0;
                State::Size
            }
            (State::Size, b';' | b' ' | b'\t') => State::Extension,
            (State::Size | State::Extension, b'\r') => State::SizeLineFeed,
            (State::Size, _) => {
                if self.size >> 56 != 0 {
                    return Err(FramingError::BadChunk("the chunk size is too large"));
                }
                self.size = self.size << 4 | hex_digit(byte)?;
                State::Size
            }
            (State::Extension, b'\n') => return Err(FramingError::BadChunk("a line ends without CR")),
            (State::Extension, _) => self.longer(MAX_CHUNK_LINE, State::Extension)?,
            (State::SizeLineFeed, b'\n') if self.size == 0 => {
                self.line = 0;
                State::TrailerStart
            }
            (State::SizeLineFeed, b'\n') => State::Data,
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLineFeed,
            (State::Trailer, b'\r') => State::TrailerLineFeed,
            (State::TrailerStart | State::Trailer, b'\n') => {
                return Err(FramingError::BadChunk("a line ends without CR"));
            }
            (State::TrailerStart | State::Trailer, _) => self.longer(MAX_TRAILERS, State::Trailer)?,
            (State::TrailerLineFeed, b'\n') => State::TrailerStart,
            (State::EndLineFeed, b'\n') => State::Done,
            (State::DataReturn | State::DataLineFeed, _) => {
                return Err(FramingError::BadChunk("the data is longer than its chunk"));
            }
            (State::SizeLineFeed | State::TrailerLineFeed | State::EndLineFeed, _) => {
                return Err(FramingError::BadChunk("CR without LF"));
            }
            // Data is taken in slices and nothing is taken behind the end.
            (state @ (State::Data | State::Done), _) => state,
        };
        Ok(())
    }

    fn longer(&mut self, limit: u32, next: State) -> Result<State, FramingError> {
        self.line += 1;
        if self.line > limit { Err(FramingError::BadChunk("a line is too long")) } else { Ok(next) }
    }
}

fn hex_digit(byte: u8) -> Result<u64, FramingError> {
    char::from(byte)
        .to_digit(16)
        .map(u64::from)
        .ok_or(FramingError::BadChunk("the chunk size is not a hexadecimal number"))
}

#[cfg(test)]
mod tests {
    use super::super::{RequestHead, ResponseHead};
    use super::*;
    use proptest::prelude::*;

    fn request_length(fields: &str) -> Result<BodyLength, FramingError> {
        let text = format!("POST / HTTP/1.1\r\n{fields}\r\n");
        RequestHead::parse(text.as_bytes()).unwrap().unwrap().0.body_length()
    }

    fn decode(decoder: &mut BodyDecoder, input: &[u8]) -> Result<(Vec<u8>, Decoded), FramingError> {
        let mut payload = Vec::new();
        let decoded = decoder.decode(input, |bytes| payload.extend_from_slice(bytes))?;
        Ok((payload, decoded))
    }

    #[test]
    fn one_length_is_believed_and_two_are_not() {
        assert_eq!(request_length(""), Ok(BodyLength::None));
        assert_eq!(request_length("Content-Length: 12\r\n"), Ok(BodyLength::Exact(12)));
        assert_eq!(request_length("transfer-encoding: Chunked\r\n"), Ok(BodyLength::Chunked));
        for (fields, error) in [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", FramingError::TwoLengths),
            ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", FramingError::TwoLengths),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", FramingError::DuplicateLength),
            ("Content-Length: 1, 1\r\n", FramingError::DuplicateLength),
            ("Content-Length: +1\r\n", FramingError::BadLength),
            ("Content-Length: 0x1\r\n", FramingError::BadLength),
            ("Content-Length:\r\n", FramingError::BadLength),
            ("Content-Length: 99999999999999999999\r\n", FramingError::BadLength),
            ("Transfer-Encoding: gzip, chunked\r\n", FramingError::UnknownCoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", FramingError::UnknownCoding),
            ("Transfer-Encoding: identity\r\n", FramingError::UnknownCoding),
        ] {
            assert_eq!(request_length(fields), Err(error), "{fields:?}");
        }
    }

    #[test]
    fn responses_without_a_body_have_none() {
        let length = |text: &str, to_head| {
            ResponseHead::parse(text.as_bytes()).unwrap().unwrap().0.body_length(to_head)
        };
        assert_eq!(length("HTTP/1.1 204 x\r\n\r\n", false), Ok(BodyLength::None));
        assert_eq!(length("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", false), Ok(BodyLength::None));
        assert_eq!(length("HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\n", true), Ok(BodyLength::None));
        assert_eq!(length("HTTP/1.1 200 x\r\n\r\n", false), Ok(BodyLength::UntilClose));
    }

    #[test]
    fn chunks_with_extensions_and_trailers_are_read() {
        let body = b"5;a=\"b\"\r\nhello\r\n00A\r\n 123456789\r\n0\r\nX-Sum: 1\r\n\r\nnext";
        let mut decoder = BodyLength::Chunked.decoder();
        let (payload, decoded) = decode(&mut decoder, body).unwrap();
        assert_eq!(payload, b"hello 123456789");
        assert_eq!(decoded, Decoded { consumed: body.len() - 4, is_done: true });
        assert!(decoder.is_done() && decoder.may_end_at_close());
    }

    #[test]
    fn broken_chunks_are_errors() {
        for body in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "5\nhello",
            "5\r\nhello!\r\n",
            "5\r\nhello\n",
            "0\r\nA: b\n\r\n",
            "5;x\n",
            "5\rx",
            "fffffffffffffffff\r\n",
            "0\r\n\rx",
        ] {
            assert!(decode(&mut BodyLength::Chunked.decoder(), body.as_bytes()).is_err(), "{body:?}");
        }
        let endless = format!("5;{}", "x".repeat(5000));
        assert!(decode(&mut BodyLength::Chunked.decoder(), endless.as_bytes()).is_err());
    }

    #[test]
    fn a_cut_body_is_not_done() {
        for (length, body) in [(BodyLength::Exact(5), "hell"), (BodyLength::Chunked, "5\r\nhello\r\n0\r\n")] {
            let mut decoder = length.decoder();
            decode(&mut decoder, body.as_bytes()).unwrap();
            assert!(!decoder.may_end_at_close(), "{length:?}");
        }
        assert!(BodyLength::UntilClose.decoder().may_end_at_close());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_payload(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:X}\r\n", chunk.len()).bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let mut decoder = BodyLength::Chunked.decoder();
            let mut payload = Vec::new();
            for pair in cuts.windows(2) {
                let (part, decoded) = decode(&mut decoder, &body[pair[0]..pair[1]]).unwrap();
                prop_assert_eq!(decoded.consumed, pair[1] - pair[0]);
                payload.extend(part);
            }
            prop_assert!(decoder.is_done());
            prop_assert_eq!(payload, chunks.concat());
        }

        #[test]
        fn any_bytes_are_decoded_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&mut BodyLength::Chunked.decoder(), &bytes);
        }
    }
}
