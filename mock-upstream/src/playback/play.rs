//! The answer to one request: the recorded head, writes, pauses and end, or a 404 for what nobody recorded.

use std::time::Duration;

use bytes::BytesMut;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use wire::capture::{Answer, Direction, Exchange, Payload, StreamEnd};
use wire::http1::{BodyLength, RequestHead};

use super::answer::{Ending, Framing, head_of, writes};
use super::hold::{Meeting, held_beginning, held_messages};
use super::log::{Ask, Entry, now};
use super::pace::Pace;
use super::talk::{Over, Side, talk};
use super::{Shared, answers_after, cuts_in_chunk, half_closes, pace_of};
use crate::connection::{Connection, Gone, ReadError};

/// How long bytes may be under way to a client that does not tell when it has them.
const UNDER_WAY: Duration = Duration::from_millis(20);

/// Serves a connection to its end.
pub(super) async fn serve(shared: &Shared, mut connection: Connection) {
    loop {
        let head = match connection.read_head().await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) => return no_request(shared, connection.id, &error),
        };
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
        match &read {
            Ok(()) => {}
            Err(ReadError::Gone) => ask.gone = Some(now()),
            Err(error) => ask.problem = Some(error.to_string()),
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

/// Enters that bytes came which are no request.
fn no_request(shared: &Shared, connection: u64, error: &ReadError) {
    let problem = Some(error.to_string());
    let entry = shared.book.enter(Ask { connection, at: now(), problem, ..Ask::default() });
    shared.book.close(entry);
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
            return self.break_off(connection, exchange.unanswered).await;
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
                let sent = answer.body.len() as u64;
                let is_held = self.shared.config.holds_beginning && sent <= held_beginning(answer);
                let limit = self.shared.config.meet.filter(|_| !is_held).unwrap_or(UNDER_WAY);
                self.shared.book.until_arrived(exchange.id, sent + 1, limit).await;
                connection.reset();
                None
            }
            Ok(Ending::Hang) => self.hang(connection).await,
        }
    }

    /// Ends an exchange that has no answer as it was ended.
    async fn break_off(&self, connection: Connection, how: Option<StreamEnd>) -> Option<Connection> {
        let note = || self.note(|ask| ask.ended = Some(now()));
        match how {
            Some(StreamEnd::Reset) => {
                note();
                connection.reset();
                None
            }
            Some(StreamEnd::Fin | StreamEnd::Eof) => {
                note();
                connection.close().await;
                None
            }
            Some(StreamEnd::Hang | StreamEnd::ClientGone) | None => self.hang(connection).await,
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
        // What a proxy holds back comes from here.
        let side = Side { direction: Direction::UpstreamToClient, pace, patience, holds_beginning: false };
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
