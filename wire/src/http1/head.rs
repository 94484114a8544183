//! Request and response heads that keep the bytes they were parsed from.

use super::body::{BodyLength, FramingError};

/// Longest head that is read, in bytes. Codex sends 2 to 3 KiB, most of it `x-codex-turn-metadata`.
pub const MAX_HEAD: usize = 64 * 1024;

/// Most field lines that a head may have. Codex sends about 20.
pub const MAX_FIELDS: usize = 128;

/// Why some bytes are not the head of an HTTP/1.1 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// More than [`MAX_HEAD`] bytes without an end of the head.
    #[error("the head is longer than {MAX_HEAD} bytes")]
    TooLong,
    /// More than [`MAX_FIELDS`] field lines.
    #[error("the head has more than {MAX_FIELDS} header fields")]
    TooManyFields,
    /// A line ends in LF alone. Readers that accept it disagree with those that do not about where a
    /// message ends, which is how requests are smuggled.
    #[error("a line of the head ends without CR")]
    BareLineFeed,
    /// Not the grammar of RFC 9112.
    #[error("the head is malformed: {0}")]
    Malformed(&'static str),
    /// Another protocol version than HTTP/1.1.
    #[error("the protocol is not HTTP/1.1")]
    Version,
}

/// A span of the head's bytes; heads are bounded by [`MAX_HEAD`], so 32 bits are plenty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part` lies in `whole`. `part` must be a slice of `whole`.
    fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
        Self { start: to_u32(start), end: to_u32(start + part.len()) }
    }

    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Offsets within a head never exceed [`MAX_HEAD`]; saturating keeps the conversion total.
fn to_u32(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// One field line of a head, as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name in the sender's spelling.
    pub name: &'a str,
    /// The value without the whitespace around it.
    pub value: &'a [u8],
    /// The whole line with its CRLF.
    pub line: &'a [u8],
}

impl Field<'_> {
    /// Whether this field has the given name, in any case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The value as text, if it is visible ASCII (what RFC 9110 asks of new fields).
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.value).ok()
    }
}

#[derive(Debug, Clone, Copy)]
struct FieldSpan {
    /// In the names; the other two are in the bytes.
    name: Span,
    value: Span,
    line: Span,
}

/// The bytes of a head and where its field lines lie.
#[derive(Debug, Clone)]
struct Lines {
    bytes: Box<[u8]>,
    /// The names once more, one behind the other, as the text that the parser has shown them to be.
    names: Box<str>,
    fields: Box<[FieldSpan]>,
}

impl Lines {
    /// Copies the head out of `bytes` (which ends with the empty line) and records the fields' spans.
    fn new(bytes: &[u8], headers: &[httparse::Header<'_>]) -> Self {
        let mut names = String::with_capacity(headers.iter().map(|header| header.name.len()).sum());
        let fields = headers
            .iter()
            .map(|header| {
                let in_names = names.len();
                names.push_str(header.name);
                let name = Span::of(bytes, header.name.as_bytes());
                // An empty value points nowhere in particular, so it is taken to lie behind the colon.
                let value = if header.value.is_empty() {
                    Span { start: name.end + 1, end: name.end + 1 }
                } else {
                    Span::of(bytes, header.value)
                };
                let rest = bytes.get(value.end as usize..).unwrap_or_default();
                let line_end =
                    memchr::memchr(b'\n', rest).map_or(bytes.len(), |at| value.end as usize + at + 1);
                let line = Span { start: name.start, end: to_u32(line_end) };
                FieldSpan { name: Span { start: to_u32(in_names), end: to_u32(names.len()) }, value, line }
            })
            .collect();
        Self { bytes: bytes.into(), names: names.into(), fields }
    }

    fn text(&self, span: Span) -> &str {
        // Only ever called for spans that httparse has checked to be ASCII.
        std::str::from_utf8(&self.bytes[span.range()]).unwrap_or_default()
    }

    /// The value of the first field with this name.
    fn get(&self, name: &str) -> Option<&[u8]> {
        let names = self.names.as_bytes();
        let is_it = |field: &&FieldSpan| names[field.name.range()].eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().find(is_it).map(|field| &self.bytes[field.value.range()])
    }

    fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().map(|field| Field {
            name: &self.names[field.name.range()],
            value: &self.bytes[field.value.range()],
            line: &self.bytes[field.line.range()],
        })
    }
}

/// Where the head in `buffer` ends: just behind the empty line, if that has arrived.
fn find_end(buffer: &[u8]) -> Result<Option<usize>, HeadError> {
    let window = &buffer[..buffer.len().min(MAX_HEAD)];
    for at in memchr::memchr_iter(b'\n', window) {
        let line = &window[..=at];
        if line.ends_with(b"\r\n\r\n") {
            return Ok(Some(at + 1));
        }
        // A bare LF would let the head end in a way that is not looked for, so it is found early.
        if !line.ends_with(b"\r\n") {
            return Err(HeadError::BareLineFeed);
        }
    }
    if buffer.len() >= MAX_HEAD { Err(HeadError::TooLong) } else { Ok(None) }
}

fn head_error(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::Malformed("invalid header name"),
        httparse::Error::HeaderValue => HeadError::Malformed("invalid header value"),
        httparse::Error::NewLine => HeadError::Malformed("invalid line end"),
        httparse::Error::Status => HeadError::Malformed("invalid status"),
        httparse::Error::Token => HeadError::Malformed("invalid request line"),
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version => HeadError::Version,
    }
}

/// The head of a request.
#[derive(Debug, Clone)]
pub struct RequestHead {
    lines: Lines,
    method: Span,
    target: Span,
}

impl RequestHead {
    /// Reads a head from the start of `buffer`; `None` until all of it is there. On success also says
    /// how many bytes the head took.
    ///
    /// # Errors
    /// When the bytes cannot become a head that every reader understands the same way.
    pub fn parse(buffer: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let Some(end) = find_end(buffer)? else { return Ok(None) };
        let bytes = &buffer[..end];
        let mut headers = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes).map_err(head_error)? {
            httparse::Status::Complete(length) if length == end => {}
            // httparse skips empty lines before the request line; RFC 9112 §2.2 lets a server ignore one,
            // but a head that does not start with its request line is refused here.
            _ => return Err(HeadError::Malformed("the head does not end where its empty line is")),
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
        else {
            return Err(HeadError::Malformed("invalid request line"));
        };
        if version != 1 {
            return Err(HeadError::Version);
        }
        let method = Span::of(bytes, method.as_bytes());
        if method.start != 0 {
            return Err(HeadError::Malformed("an empty line before the request line"));
        }
        let target = Span::of(bytes, target.as_bytes());
        Ok(Some((Self { lines: Lines::new(bytes, request.headers), method, target }, end)))
    }

    /// The method, in the client's spelling.
    #[must_use]
    pub fn method(&self) -> &str {
        self.lines.text(self.method)
    }

    /// The request target exactly as it was sent.
    #[must_use]
    pub fn target(&self) -> &str {
        // httparse admits UTF-8 in the target; text() falls back to empty for anything else.
        self.lines.text(self.target)
    }

    /// The field lines in the order they came.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.fields()
    }

    /// The value of the first field with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.lines.get(name)
    }

    /// The value of the first field with this name, when it is text.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every byte of the head, with the empty line.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.lines.bytes
    }

    /// How the length of the body that follows is given (RFC 9112 §6.3).
    ///
    /// # Errors
    /// When more than one length is given, in whatever form: that is how requests are smuggled.
    pub fn body_length(&self) -> Result<BodyLength, FramingError> {
        Ok(match BodyLength::given_by(self.fields())? {
            BodyLength::UntilClose => BodyLength::None,
            given => given,
        })
    }
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    lines: Lines,
    status: u16,
    reason: Span,
    minor: u8,
}

impl ResponseHead {
    /// Reads a head from the start of `buffer`; `None` until all of it is there. On success also says
    /// how many bytes the head took. HTTP/1.0 responses are accepted.
    ///
    /// # Errors
    /// When the bytes cannot become a head that every reader understands the same way.
    pub fn parse(buffer: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let Some(end) = find_end(buffer)? else { return Ok(None) };
        let bytes = &buffer[..end];
        let mut headers = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(bytes).map_err(head_error)? {
            httparse::Status::Complete(length) if length == end => {}
            _ => return Err(HeadError::Malformed("the head does not end where its empty line is")),
        }
        let (Some(status), Some(minor)) = (response.code, response.version) else {
            return Err(HeadError::Malformed("invalid status line"));
        };
        let reason = match response.reason {
            Some(reason) if !reason.is_empty() => Span::of(bytes, reason.as_bytes()),
            _ => Span { start: 0, end: 0 },
        };
        Ok(Some((Self { lines: Lines::new(bytes, response.headers), status, reason, minor }, end)))
    }

    /// The status code, 100 to 999.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase; empty when there is none.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.lines.text(self.reason)
    }

    /// Whether this is the head of an HTTP/1.1 response (and not of an HTTP/1.0 one).
    #[must_use]
    pub fn is_http11(&self) -> bool {
        self.minor == 1
    }

    /// The field lines in the order they came.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.fields()
    }

    /// The value of the first field with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.lines.get(name)
    }

    /// The value of the first field with this name, when it is text.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every byte of the head, with the empty line.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.lines.bytes
    }

    /// How the length of the body that follows is given (RFC 9112 §6.3). `to_head` says whether the
    /// request was a `HEAD`, whose response never has a body.
    ///
    /// # Errors
    /// When more than one length is given, in whatever form.
    pub fn body_length(&self, to_head: bool) -> Result<BodyLength, FramingError> {
        if to_head || self.status < 200 || self.status == 204 || self.status == 304 {
            return Ok(BodyLength::None);
        }
        BodyLength::given_by(self.fields())
    }

    /// Whether the sender keeps the connection open after this response (RFC 9112 §9.3).
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        let says = |token: &str| {
            self.fields()
                .filter(|field| field.is("connection"))
                .filter_map(|field| field.text().map(str::to_owned))
                .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
        };
        if self.is_http11() { !says("close") } else { says("keep-alive") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(text: &str) -> RequestHead {
        let (head, length) = RequestHead::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(length, text.len());
        head
    }

    #[test]
    fn a_head_keeps_order_case_and_duplicates() {
        let text = "POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-One:1\r\nx-one:   2  \r\nEmpty:\r\n\r\n";
        let head = request(text);
        assert_eq!(head.method(), "POST");
        assert_eq!(head.target(), "/a?b=c");
        let fields: Vec<_> = head.fields().map(|f| (f.name, f.value)).collect();
        let expected: Vec<(&str, &[u8])> =
            vec![("Host", b"x"), ("X-One", b"1"), ("x-one", b"2"), ("Empty", b"")];
        assert_eq!(fields, expected);
        let lines: Vec<u8> = head.fields().flat_map(|f| f.line.to_vec()).collect();
        assert_eq!(format!("POST /a?b=c HTTP/1.1\r\n{}\r\n", String::from_utf8(lines).unwrap()), text);
    }

    #[test]
    fn a_head_is_taken_only_when_it_is_complete() {
        let text = "GET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
        for end in 0..text.len() - 4 {
            assert!(RequestHead::parse(&text.as_bytes()[..end]).unwrap().is_none(), "at {end}");
        }
        assert_eq!(RequestHead::parse(text.as_bytes()).unwrap().unwrap().1, text.len() - 4);
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        let refused = [
            ("GET / HTTP/1.1\nHost: x\r\n\r\n", HeadError::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: x\n\r\n\r\n", HeadError::BareLineFeed),
            ("GET / HTTP/1.0\r\nHost: x\r\n\r\n", HeadError::Version),
            ("\r\nGET / HTTP/1.1\r\n\r\n", HeadError::Malformed("an empty line before the request line")),
        ];
        for (text, error) in refused {
            assert_eq!(RequestHead::parse(text.as_bytes()).unwrap_err(), error, "{text:?}");
        }
        for text in [
            "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
        ] {
            assert!(RequestHead::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_limit() {
        let mut text = b"GET / HTTP/1.1\r\nA: ".to_vec();
        text.resize(MAX_HEAD - 1, b'a');
        assert!(RequestHead::parse(&text).unwrap().is_none());
        text.push(b'a');
        assert_eq!(RequestHead::parse(&text).unwrap_err(), HeadError::TooLong);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(RequestHead::parse(many.as_bytes()).unwrap_err(), HeadError::TooManyFields);
    }

    #[test]
    fn a_response_says_whether_its_connection_stays() {
        let keeps = |text: &str| ResponseHead::parse(text.as_bytes()).unwrap().unwrap().0.keeps_alive();
        assert!(keeps("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 200 OK\r\n\r\n"));
        assert!(keeps("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n"));
        let (head, _) = ResponseHead::parse(b"HTTP/1.1 529 \r\nA:b\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status(), head.reason()), (529, ""));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = RequestHead::parse(&bytes);
            let _ = ResponseHead::parse(&bytes);
        }

        #[test]
        fn fields_come_back_as_written(
            fields in prop::collection::vec(("[A-Za-z][A-Za-z0-9-]{0,20}", "[!-~]([ -~]{0,30}[!-~])?"), 0..20),
        ) {
            let mut text = String::from("GET /x HTTP/1.1\r\n");
            for (name, value) in &fields {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            text.push_str("\r\n");
            let (head, length) = RequestHead::parse(text.as_bytes()).unwrap().unwrap();
            prop_assert_eq!(length, text.len());
            let read: Vec<(String, String)> = head
                .fields()
                .map(|f| (f.name.to_owned(), String::from_utf8(f.value.to_vec()).unwrap()))
                .collect();
            prop_assert_eq!(read, fields);
        }
    }
}
