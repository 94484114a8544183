//! The answer to one request: the recorded head, writes, pauses and end, or a 404 for what nobody recorded.

use std::time::Duration;

use bytes::BytesMut;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use wire::capture::{Answer, Direction, Exchange, Message, Payload, StreamEnd};
use wire::http1::{BodyLength, RequestHead};

use super::log::{Ask, Entry, now};
use super::pace::Pace;
use super::talk::{Over, Side, is_data, talk};
use super::{Shared, answers_after, cuts_in_chunk, half_closes, pace_of};
use crate::connection::{Connection, Gone, ReadError};

/// Serves a connection to its end.
pub(super) async fn serve(shared: &Shared, mut connection: Connection) {
    while let Ok(Some(head)) = connection.read_head().await {
        let mut ask = Ask {
            connection: connection.id,
            at: now(),
            method: head.method().into(),
            target: head.target().into(),
            headers: fields(&head),
            head: Payload::from(head.as_bytes()),
            ..Ask::default()
        };
        let early = shared.is_early(head.method(), head.target());
        let (mut body, mut reads) = (BytesMut::new(), Vec::new());
        let length = head.body_length();
        let mut reader = Upload { connection: &mut connection, head: &head, limit: shared.config.max_body };
        let read = match length {
            Err(error) => Err(ReadError::Framing(error)),
            Ok(_) if early => Ok(()),
            Ok(length) => reader.read(length, &mut body, &mut reads).await,
        };
        ask.is_whole = read.is_ok() && !early;
        if let Err(ReadError::Gone) = read {
            ask.gone = Some(now());
        }
        let exchange = match read {
            Ok(()) | Err(ReadError::Gone) => shared.take(head.method(), head.target(), &body),
            Err(_) => None,
        };
        ask.exchange = exchange.as_ref().map(|exchange| exchange.id);
        (ask.body, ask.reads) = (Payload(body.to_vec()), reads);
        let entry = shared.book.enter(ask);
        let turn = Turn { shared, head: &head, entry };
        let after = match (read, exchange) {
            (Ok(()), Some(exchange)) => turn.answer(connection, &exchange).await,
            (Ok(()), None) => turn.unexpected(connection).await,
            (Err(_), _) => None,
        };
        shared.book.close(entry);
        match after {
            Some(kept) => connection = kept,
            None => return,
        }
    }
}

fn fields(head: &RequestHead) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    head.fields().map(|field| (field.name.to_owned(), text(field.value))).collect()
}

/// A body being read.
struct Upload<'a> {
    connection: &'a mut Connection,
    head: &'a RequestHead,
    limit: usize,
}

impl Upload<'_> {
    async fn read(
        &mut self,
        length: BodyLength,
        body: &mut BytesMut,
        reads: &mut Vec<(f64, u64)>,
    ) -> Result<(), ReadError> {
        if self.head.get_str("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            let go_on = self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            go_on.map_err(|Gone| ReadError::Gone)?;
        }
        let mut decoder = length.decoder();
        while !decoder.is_done() {
            let before = body.len();
            self.connection.read_payload(&mut decoder, body).await?;
            if body.len() > before {
                reads.push((now(), (body.len() - before) as u64));
            }
            if body.len() > self.limit {
                return Err(ReadError::TooLarge(self.limit));
            }
        }
        Ok(())
    }
}

/// A request being answered.
struct Turn<'a> {
    shared: &'a Shared,
    head: &'a RequestHead,
    entry: Entry,
}

impl Turn<'_> {
    fn note(&self, change: impl FnOnce(&mut Ask)) {
        self.shared.book.change(self.entry, change);
    }

    async fn unexpected(&self, mut connection: Connection) -> Option<Connection> {
        let reply =
            b"HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\nnot recorded\n";
        connection.write(reply).await.ok()?;
        self.note(|ask| ask.head_sent = Some(now()));
        Some(connection)
    }

    async fn answer(&self, mut connection: Connection, exchange: &Exchange) -> Option<Connection> {
        connection.ignores_end(half_closes(exchange));
        let Some(answer) = &exchange.answer else {
            return self.hang(connection).await;
        };
        if exchange.is_upgrade() && answer.status == 101 {
            return self.websocket(connection, exchange, answer).await;
        }
        let ending = self.play(&mut connection, exchange, answer).await;
        if !matches!(ending, Ok(Ending::Hang)) {
            self.note(|ask| ask.ended = Some(now()));
        }
        match ending {
            Err(Gone) => {
                self.note(|ask| ask.gone = Some(now()));
                None
            }
            Ok(Ending::Keep) => Some(connection),
            Ok(Ending::Close) => {
                connection.close().await;
                None
            }
            Ok(Ending::Reset) => {
                // A reset overtakes what is under way: what was sent is to arrive before it.
                let sent = answer.body.len() as u64 + 1;
                if let Some(limit) = self.shared.config.meet {
                    self.shared.book.until_arrived(exchange.id, sent, limit).await;
                }
                connection.reset();
                None
            }
            Ok(Ending::Hang) => self.hang(connection).await,
        }
    }

    /// Keeps the connection open until the other side goes away, and no longer than the patience lasts.
    async fn hang(&self, mut connection: Connection) -> Option<Connection> {
        let gone = tokio::time::timeout(self.shared.config.patience, connection.until_gone()).await;
        if gone.is_ok() {
            self.note(|ask| ask.gone = Some(now()));
        }
        None
    }

    async fn play(
        &self,
        connection: &mut Connection,
        exchange: &Exchange,
        answer: &Answer,
    ) -> Result<Ending, Gone> {
        if let Some(bytes) = answers_after(exchange) {
            self.read_up_to(connection, bytes).await?;
        }
        let pace = self.pace(exchange);
        connection.pause(pace.gap(exchange.at, answer.at)).await?;
        let framing = Framing::of(self.head, exchange, answer);
        connection.write(&head_of(answer, framing, None)).await?;
        self.note(|ask| ask.head_sent = Some(now()));
        let mut meeting = Meeting::new(self.shared, exchange, answer);
        meeting.meet(0).await;
        let body = if framing == Framing::None { &[][..] } else { &answer.body[..] };
        let mut last = answer.at;
        let mut sent = 0;
        for (at, length) in writes(answer, body.len()) {
            connection.pause(pace.gap(last, at)).await?;
            last = at;
            let piece = &body[sent..sent + length];
            sent += length;
            let mut framed = framing.frame(piece);
            if sent == body.len() && framing == Framing::Chunked && cuts_in_chunk(exchange) {
                framed = [format!("{:x}\r\n", piece.len() + 16).as_bytes(), piece].concat();
            }
            connection.write(&framed).await?;
            self.note(|ask| ask.writes.push((now(), length as u64)));
            meeting.meet(sent as u64).await;
        }
        let ending = Ending::of(self.head, answer, framing);
        if answer.end == StreamEnd::Eof && framing == Framing::Chunked {
            connection.write(b"0\r\n\r\n").await?;
        }
        if answers_after(exchange).is_some() {
            // What is still coming is taken, so that no reset overtakes the answer.
            let whole = self.read_up_to(connection, u64::MAX).await;
            return whole.map(|()| Ending::Close);
        }
        Ok(ending)
    }

    fn pace(&self, exchange: &Exchange) -> Pace {
        let config = &self.shared.config;
        pace_of(exchange, Pace { speed: config.speed, max_gap: config.max_gap })
    }

    /// Reads the body up to so many bytes, or to its end.
    async fn read_up_to(&self, connection: &mut Connection, most: u64) -> Result<(), Gone> {
        let (mut seen, mut already) = (0, BytesMut::new());
        self.note(|ask| {
            seen = ask.body.0.len() as u64;
            already.extend_from_slice(&ask.body.0);
        });
        let BodyLength::Exact(total) = self.head.body_length().unwrap_or(BodyLength::None) else {
            return Ok(());
        };
        let mut decoder = BodyLength::Exact(total - seen.min(total)).decoder();
        while !decoder.is_done() && seen < most {
            let mut piece = BytesMut::new();
            connection.read_payload(&mut decoder, &mut piece).await.map_err(|_| Gone)?;
            seen += piece.len() as u64;
            self.note(|ask| {
                ask.reads.push((now(), piece.len() as u64));
                ask.body.0.extend_from_slice(&piece);
                ask.is_whole = decoder.is_done();
            });
        }
        Ok(())
    }

    async fn websocket(
        &self,
        mut connection: Connection,
        exchange: &Exchange,
        answer: &Answer,
    ) -> Option<Connection> {
        let pace = self.pace(exchange);
        let gap = pace.gap(exchange.at, answer.at);
        let key = self.head.get("sec-websocket-key").unwrap_or_default();
        let head = head_of(answer, Framing::None, Some(&derive_accept_key(key)));
        let shaken = async {
            connection.pause(gap).await?;
            connection.write(&head).await
        };
        if shaken.await.is_err() {
            self.note(|ask| ask.gone = Some(now()));
            return None;
        }
        self.note(|ask| ask.head_sent = Some(now()));
        let patience = self.shared.config.patience;
        let side = Side { direction: Direction::UpstreamToClient, pace, patience };
        let (socket, ahead) = connection.into_parts();
        let config = &self.shared.config;
        let held = if config.holds_beginning { held_messages(&exchange.messages) } else { Vec::new() };
        let (limit, held) = (config.meet, &held);
        let meet = |count: u64| async move {
            if let Some(limit) = limit.filter(|_| !held.contains(&count)) {
                self.shared.book.until_arrived(exchange.id, count + 1, limit).await;
            }
        };
        let note = |heard| self.note(|ask| ask.messages.push(heard));
        let (over, socket) = talk(socket, &ahead, &exchange.messages, side, note, meet).await;
        if over == Over::Gone {
            self.note(|ask| ask.gone = Some(now()));
        }
        if answer.end == StreamEnd::Reset {
            socket.reset();
        }
        None
    }
}

/// The pieces that a body was recorded in; what its writes do not cover comes in a last one.
fn writes(answer: &Answer, length: usize) -> Vec<(f64, usize)> {
    let (mut pieces, mut covered) = (Vec::new(), 0_usize);
    for (at, size) in &answer.writes {
        let size = usize::try_from(*size).unwrap_or(usize::MAX).min(length - covered);
        if size > 0 {
            pieces.push((*at, size));
        }
        covered += size;
    }
    if covered < length {
        pieces.push((pieces.last().map_or(answer.at, |(at, _)| *at), length - covered));
    }
    pieces
}

/// How the body of the answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Length,
    Chunked,
    /// Chunked without a word of it in the record, which was made over HTTP/2.
    AddedChunked,
    Close,
}

impl Framing {
    fn of(head: &RequestHead, exchange: &Exchange, answer: &Answer) -> Self {
        let says = |name: &str| answer.headers.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
        let has_none = head.method() == "HEAD" || matches!(answer.status, 100..=199 | 204 | 304);
        match () {
            () if has_none => Self::None,
            () if says("transfer-encoding") => Self::Chunked,
            () if says("content-length") => Self::Length,
            () if exchange.request.http_version.starts_with('2') => Self::AddedChunked,
            () => Self::Close,
        }
    }

    fn frame(self, piece: &[u8]) -> Vec<u8> {
        match self {
            Self::Chunked | Self::AddedChunked => {
                [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
            }
            Self::None | Self::Length | Self::Close => piece.to_vec(),
        }
    }
}

/// The head of an answer as it was recorded, but for what belongs to this very connection.
fn head_of(answer: &Answer, framing: Framing, accept: Option<&str>) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    for (name, value) in &answer.headers {
        let is = |other: &str| accept.is_some() && name.eq_ignore_ascii_case(other);
        match accept {
            Some(accept) if is("sec-websocket-accept") => push(&mut head, name, accept),
            // Recorded messages are decoded ones: the extension that coded them is not agreed to again.
            _ if is("sec-websocket-extensions") => {}
            _ => push(&mut head, name, value),
        }
    }
    let says = |name: &str| answer.headers.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
    if let Some(accept) = accept {
        for (name, value) in
            [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept)]
        {
            if !says(name) {
                push(&mut head, name, value);
            }
        }
    }
    if framing == Framing::AddedChunked {
        push(&mut head, "transfer-encoding", "chunked");
    }
    head.push_str("\r\n");
    // Values were read as text; bytes beyond ASCII go back as they are.
    head.into_bytes()
}

fn push(head: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        head.push_str(part);
    }
}

/// How an exchange ends on the connection.
enum Ending {
    Keep,
    Close,
    Reset,
    Hang,
}

impl Ending {
    fn of(head: &RequestHead, answer: &Answer, framing: Framing) -> Self {
        let closes = |name: &str, value: &str| {
            name.eq_ignore_ascii_case("connection") && value.to_ascii_lowercase().contains("close")
        };
        let closes = answer.headers.iter().any(|(name, value)| closes(name, value))
            || head.fields().any(|field| closes(field.name, field.text().unwrap_or_default()));
        match answer.end {
            StreamEnd::Eof if closes || framing == Framing::Close => Self::Close,
            StreamEnd::Eof => Self::Keep,
            StreamEnd::Fin => Self::Close,
            StreamEnd::Reset => Self::Reset,
            StreamEnd::Hang | StreamEnd::ClientGone => Self::Hang,
        }
    }
}

/// The meetings with the client behind each write.
struct Meeting<'a> {
    shared: &'a Shared,
    exchange: u64,
    limit: Option<Duration>,
    /// How many bytes may be held back at the beginning.
    begins: u64,
    missed: u32,
}

/// Missed meetings in a row after which no further one is waited for: it is known by then.
const ENOUGH: u32 = 3;

impl<'a> Meeting<'a> {
    fn new(shared: &'a Shared, exchange: &Exchange, answer: &Answer) -> Self {
        let begins = if shared.config.holds_beginning { held_beginning(answer) } else { 0 };
        // An answer in one piece has nothing that could be held back from the rest of it.
        let limit = shared.config.meet.filter(|_| answer.is_stream || answer.writes.len() > 1);
        Self { shared, exchange: exchange.id, limit, begins, missed: 0 }
    }

    async fn meet(&mut self, bytes: u64) {
        let Some(limit) = self.limit.filter(|_| self.missed < ENOUGH && bytes >= self.begins) else { return };
        let met = self.shared.book.until_arrived(self.exchange, bytes + 1, limit).await;
        self.missed = if met { 0 } else { self.missed + 1 };
    }
}

/// How many bytes of a stream of events a proxy may hold that can still ask another account: those up to the
/// first output. A client has seen nothing of the answer before it.
#[must_use]
pub fn held_beginning(answer: &Answer) -> u64 {
    let is_first = |mark: &&str| memchr::memmem::find(&answer.body, mark.as_bytes());
    let output = FIRST_OUTPUT.iter().filter_map(is_first).min();
    let Some(at) = output.filter(|_| answer.is_stream || answer.status == 200) else { return u64::MAX };
    let behind =
        memchr::memmem::find(&answer.body[at..], b"\n\n").map_or(answer.body.len(), |end| at + end + 2);
    behind as u64
}

/// Which of the upstream's messages, from 1, a proxy may hold that can still ask another account: those of
/// each turn up to the first output.
#[must_use]
pub fn held_messages(messages: &[Message]) -> Vec<u64> {
    let (mut held, mut number, mut has_output) = (Vec::new(), 0, false);
    for message in messages.iter().filter(|message| is_data(message)) {
        if message.direction == Direction::ClientToUpstream {
            has_output = false;
            continue;
        }
        number += 1;
        let is_output = |mark: &&str| memchr::memmem::find(&message.payload, mark.as_bytes()).is_some();
        has_output |= FIRST_OUTPUT.iter().any(is_output);
        if !has_output {
            held.push(number);
        }
    }
    held
}

/// What the first output looks like: of Codex's backend, of Anthropic's, of Google's.
const FIRST_OUTPUT: &[&str] =
    &["response.output_", "response.completed", "content_block_start", "candidates"];

/// The reason phrase of a status.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}
