//! Raw records as typed ones, whatever the spelling.
//!
//! Our own records are taken as they are. Of foreign ones: a body that is a JSON value is written the way
//! clients send it, without whitespace between tokens; ids, connections and times that are missing are
//! filled in (a response belongs to the oldest request that has none, a connection has one exchange);
//! fields that are not known are kept. A body that was recorded decoded is made to agree with its header
//! fields again (see `body`). Events that are records of their own become one stream per exchange.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value};
use wire::capture::{
    Control, Direction, Entry, ExchangeEnd, Headers, Meta, Payload, Record, Request, Response, SseStream,
    StreamEnd, WebsocketClose, WebsocketMessage,
};

use super::{CaptureError, Place, RawRecord};
use fields::Fields;

pub(in crate::capture) mod body;

mod fields;

mod headers;

mod stream;

pub(in crate::capture) mod time;

pub(in crate::capture) mod url;

/// The types of records, in our spelling. `_` may be `-` and letters may be of any case.
pub const TYPES: [&str; 11] = [
    "request",
    "response",
    "event",
    "sse_stream",
    "websocket_message",
    "websocket_close",
    "client_disconnect",
    "exchange_end",
    "meta",
    "marker",
    "fault",
];

/// A raw record by itself as a typed one. What only other records could say is filled in as for the first
/// record of a capture.
///
/// # Errors
/// When it is no record.
pub fn record(raw: &RawRecord) -> Result<Record, CaptureError> {
    Normaliser::default().record(raw)
}

/// Makes typed records of raw ones, in order.
#[derive(Debug, Default)]
pub struct Normaliser {
    /// Highest id so far.
    last_id: u64,
    /// The numbers of ids that are none.
    names: HashMap<String, u64>,
    /// Exchanges without an id of their own that wait for their response, oldest first.
    open: VecDeque<u64>,
    /// The exchange that the last request began.
    current: u64,
    /// When the capture began, in milliseconds since 1970, by the first record that says so.
    began: Option<f64>,
    last_ms: f64,
}

impl Normaliser {
    /// The next record.
    ///
    /// # Errors
    /// When it is no record.
    pub fn record(&mut self, raw: &RawRecord) -> Result<Record, CaptureError> {
        if let Ok(record) = serde_json::from_slice::<Record>(&raw.bytes) {
            self.note_own(&record);
            return Ok(record);
        }
        super::check(raw)?;
        let mut fields = Fields::new(raw);
        let kind = fields.kind()?;
        let (ts, t_ms) = self.times(&mut fields)?;
        let entry = self.entry(&kind, &mut fields, t_ms)?;
        Ok(Record { ts, t_ms, entry })
    }

    fn entry(&mut self, kind: &str, fields: &mut Fields<'_>, at: f64) -> Result<Entry, CaptureError> {
        Ok(match kind {
            "request" => Entry::Request(self.request(fields)?),
            "response" => Entry::Response(self.response(fields)?),
            "event" => Entry::SseStream(self.event(fields, at)?),
            "sse_stream" => Entry::SseStream(self.sse_stream(fields, at)?),
            "websocket_message" => Entry::WebsocketMessage(self.message(fields)?),
            "websocket_close" => {
                let id = self.id_of_socket(fields)?;
                let direction = fields.direction()?.unwrap_or(Direction::UpstreamToClient);
                let code = fields.number("code")?.unwrap_or(1005);
                let code =
                    u16::try_from(code).map_err(|_| fields.bad("`code` is no close code", "1000 to 4999"))?;
                let reason = fields.text("reason")?.unwrap_or_default();
                Entry::WebsocketClose(WebsocketClose { direction, id, code, reason })
            }
            "client_disconnect" => Entry::ClientDisconnect { id: self.id_of_socket(fields)? },
            "exchange_end" => {
                let id = self.id_of_socket(fields)?;
                let partial = fields.flag("partial")?.unwrap_or(false);
                let (reason, unanswered) = (fields.text("reason")?, fields.stream_end("unanswered")?);
                Entry::ExchangeEnd(ExchangeEnd { id, partial, reason, unanswered })
            }
            "meta" => {
                let (client, version) = (fields.text("client")?, fields.text("version")?);
                let (scenario, recorder) = (fields.text("scenario")?, fields.text("recorder")?);
                Entry::Meta(Meta { client, version, scenario, recorder, rest: fields.rest() })
            }
            "marker" => Entry::Marker { rest: fields.rest() },
            _ => Entry::Fault { rest: fields.rest() },
        })
    }

    fn request(&mut self, fields: &mut Fields<'_>) -> Result<Request, CaptureError> {
        let id = match self.given_id(fields)? {
            Some(id) => id,
            None => {
                let id = self.next_id();
                self.open.push_back(id);
                id
            }
        };
        self.current = id;
        fields.direction()?;
        let method = fields.text("method")?;
        let url = fields.first_text(&["path_and_query", "path", "url"])?;
        let (Some(method), Some(url)) = (method, url) else {
            return Err(fields.bad(
                "the request has no method, or no path",
                "it needs `method`, and `path_and_query`, `path` or `url`; or is it of another `type`?",
            ));
        };
        let (origin, url) = url::split(&url);
        let connection = fields.number("connection")?.unwrap_or(id);
        let http_version = fields.first_text(&["http_version"])?.unwrap_or_default();
        let mut headers = fields.headers()?;
        let mut body = fields.body(&["body", "payload", "data"])?;
        let head = fields.body(&["head"])?;
        let upgrade = fields.text("upgrade")?.or_else(|| {
            let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
            named.filter(|(_, value)| value.eq_ignore_ascii_case("websocket")).map(|_| "websocket".to_owned())
        });
        let stated = fields.number("wire_len")?;
        let writes = fields.writes()?;
        let mut rest = fields.rest();
        rest.extend(origin.map(|origin| ("origin".to_owned(), Value::from(origin))));
        body::agree(&mut headers, body.as_mut(), &mut rest);
        let wire_len = body.as_ref().map_or(0, |body| body.0.len() as u64);
        if let Some(stated) = stated.filter(|stated| *stated != wire_len) {
            rest.insert("recorded_wire_len".into(), stated.into());
        }
        Ok(Request {
            direction: Direction::ClientToUpstream,
            id,
            connection,
            method: method.to_ascii_uppercase(),
            url,
            http_version: url::version(&http_version),
            headers,
            head,
            body,
            wire_len,
            writes,
            upgrade,
            rest,
        })
    }

    fn response(&mut self, fields: &mut Fields<'_>) -> Result<Response, CaptureError> {
        let id = self.id_of_answer(fields)?;
        fields.direction()?;
        let status = fields.status()?.ok_or_else(|| {
            fields.bad("the response has no status", "it needs `status`, a number from 100 to 999")
        })?;
        let mut headers = fields.headers()?;
        let mut body = fields.body(&["body", "payload", "data"])?;
        let head = fields.body(&["head"])?;
        let (writes, end) = (fields.writes()?, fields.stream_end("end")?);
        let mut rest = fields.rest();
        body::agree(&mut headers, body.as_mut(), &mut rest);
        let direction = Direction::UpstreamToClient;
        Ok(Response { direction, id, status, headers, head, body, writes, end, rest })
    }

    fn event(&mut self, fields: &mut Fields<'_>, at: f64) -> Result<SseStream, CaptureError> {
        let id = self.id_of_answer(fields)?;
        fields.direction()?;
        let status = fields.status()?.unwrap_or(200);
        let headers = fields.headers()?;
        let name = fields.text("event_name")?;
        let data = fields.json(&["body", "payload", "data", "event"]);
        let Some(data) = data else {
            return Err(fields.bad("the event has no data", "it needs `body`, `payload`, `data` or `event`"));
        };
        let mut stream = Vec::new();
        stream::event(name.as_deref(), &data, &mut stream);
        Ok(self.stream_of(id, status, headers, stream, at, fields))
    }

    fn stream_of(
        &self,
        id: u64,
        status: u16,
        headers: Headers,
        stream: Vec<u8>,
        at: f64,
        fields: &mut Fields<'_>,
    ) -> SseStream {
        let writes = if stream.is_empty() { Vec::new() } else { vec![(at, stream.len() as u64)] };
        let (direction, stream, end) = (Direction::UpstreamToClient, Payload(stream), StreamEnd::Eof);
        SseStream { direction, id, status, headers, head: None, stream, writes, end, rest: fields.rest() }
    }

    fn sse_stream(&mut self, fields: &mut Fields<'_>, at: f64) -> Result<SseStream, CaptureError> {
        let id = self.id_of_answer(fields)?;
        fields.direction()?;
        let status = fields.status()?.unwrap_or(200);
        let headers = fields.headers()?;
        let head = fields.body(&["head"])?;
        let end = fields.stream_end("end")?.unwrap_or(StreamEnd::Eof);
        let given = fields.writes()?;
        let stream = match fields.raw("events") {
            Some(events) => stream::of_events(&events, at),
            None => {
                fields.raw_of(&["stream", "text", "body", "data"]).and_then(|raw| stream::of_pieces(&raw, at))
            }
        };
        let Some((stream, writes)) = stream else {
            return Err(fields.bad(
                "the stream has no events and no text",
                "it needs `stream`, `text`, `body` or `data`, a string or an array of strings, or `events`",
            ));
        };
        let writes = if given.is_empty() { writes } else { given };
        let (direction, stream, rest) = (Direction::UpstreamToClient, Payload(stream), fields.rest());
        Ok(SseStream { direction, id, status, headers, head, stream, writes, end, rest })
    }

    fn message(&mut self, fields: &mut Fields<'_>) -> Result<WebsocketMessage, CaptureError> {
        let id = self.id_of_socket(fields)?;
        let direction = fields.direction()?.ok_or_else(|| {
            fields.bad(
                "the message has no direction",
                "it needs `direction`: client_to_upstream or upstream_to_client",
            )
        })?;
        let message = fields.body(&["message", "payload", "data"])?.ok_or_else(|| {
            fields.bad("the message holds nothing", "it needs `message`, `payload` or `data`")
        })?;
        let binary = fields.flag("binary")?.unwrap_or(false);
        let control = match fields.text("control")?.as_deref() {
            None => None,
            Some("ping") => Some(Control::Ping),
            Some("pong") => Some(Control::Pong),
            Some(_) => {
                return Err(fields.bad("`control` is neither ping nor pong", "leave it out for a message"));
            }
        };
        let frames = fields.numbers("frames")?;
        Ok(WebsocketMessage { direction, id, binary, control, message, frames, rest: fields.rest() })
    }

    /// The id that a record has, as a number.
    fn given_id(&mut self, fields: &mut Fields<'_>) -> Result<Option<u64>, CaptureError> {
        let id = match fields.take("id") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(name)) => {
                let known = self.names.get(&name).copied();
                let id = known.unwrap_or_else(|| self.next_id());
                fields.keep("id_text", name.clone().into());
                self.names.insert(name, id);
                Some(id)
            }
            Some(_) => None,
        };
        let id = id
            .ok_or_else(|| fields.bad("`id` is no number and no text", "records of one exchange share it"))?;
        self.last_id = self.last_id.max(id);
        Ok(Some(id))
    }

    fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }

    /// The exchange that a response belongs to: without an id, the oldest that has none.
    fn id_of_answer(&mut self, fields: &mut Fields<'_>) -> Result<u64, CaptureError> {
        let given = self.given_id(fields)?;
        Ok(given.or_else(|| self.open.pop_front()).unwrap_or_else(|| self.current_or_new()))
    }

    /// The exchange that a message belongs to: without an id, the last one that began.
    fn id_of_socket(&mut self, fields: &mut Fields<'_>) -> Result<u64, CaptureError> {
        Ok(self.given_id(fields)?.unwrap_or_else(|| self.current_or_new()))
    }

    fn current_or_new(&mut self) -> u64 {
        if self.current == 0 {
            self.current = self.next_id();
        }
        self.current
    }

    /// When a record was made: what it does not say follows from the records before.
    fn times(&mut self, fields: &mut Fields<'_>) -> Result<(String, f64), CaptureError> {
        let ts = fields.text("ts")?;
        let t_ms = match fields.take("t_ms") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_f64().filter(|time| time.is_finite()).ok_or_else(|| {
                fields.bad("`t_ms` is no number", "it is milliseconds since the recording began")
            })?),
        };
        let stamp =
            match &ts {
                None => None,
                Some(ts) => Some(time::milliseconds(ts).ok_or_else(|| {
                    fields.bad("`ts` is no time", "it is RFC 3339: 2026-11-20T05:56:40.692Z")
                })?),
            };
        let t_ms = match (t_ms, stamp, self.began) {
            (Some(t_ms), ..) => t_ms,
            (None, Some(stamp), Some(began)) => stamp - began,
            (None, Some(_), None) => 0.0,
            (None, None, _) => self.last_ms,
        };
        self.last_ms = t_ms;
        if let Some(stamp) = stamp {
            self.began.get_or_insert(stamp - t_ms);
        }
        let ts = ts.unwrap_or_else(|| time::text(self.began.unwrap_or(0.0) + t_ms));
        Ok((ts, t_ms))
    }

    fn note_own(&mut self, record: &Record) {
        let id = id_of(&record.entry).unwrap_or(0);
        self.last_id = self.last_id.max(id);
        self.last_ms = record.t_ms;
        if let Entry::Request(request) = &record.entry {
            self.current = request.id;
        }
    }
}

/// The exchange that an entry belongs to.
#[must_use]
pub fn id_of(entry: &Entry) -> Option<u64> {
    match entry {
        Entry::Request(request) => Some(request.id),
        Entry::Response(response) => Some(response.id),
        Entry::SseStream(stream) => Some(stream.id),
        Entry::WebsocketMessage(message) => Some(message.id),
        Entry::WebsocketClose(close) => Some(close.id),
        Entry::ClientDisconnect { id } => Some(*id),
        Entry::ExchangeEnd(end) => Some(end.id),
        Entry::Meta(_) | Entry::Marker { .. } | Entry::Fault { .. } => None,
    }
}

/// Typed records of raw ones. Those of type `event` become one stream per exchange, which comes at the end
/// of its exchange or of the capture.
#[derive(Debug)]
pub struct Records<I> {
    raw: I,
    normaliser: Normaliser,
    skip_bad: bool,
    skipped: u64,
    /// Streams that grow, in the order of their first events.
    streams: Vec<Record>,
    ready: VecDeque<Record>,
}

impl<I: Iterator<Item = Result<RawRecord, CaptureError>>> Records<I> {
    /// Reads on from these raw records. With `skip_bad` those that are no records are counted.
    pub fn new(raw: I, skip_bad: bool) -> Self {
        let (streams, ready) = (Vec::new(), VecDeque::new());
        Self { raw, normaliser: Normaliser::default(), skip_bad, skipped: 0, streams, ready }
    }

    /// How many records have been left out so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn take(&mut self, raw: &RawRecord) -> Result<(), CaptureError> {
        let is_event = is_event(&raw.bytes);
        let record = self.normaliser.record(raw)?;
        let id = id_of(&record.entry);
        if !is_event {
            if matches!(record.entry, Entry::ExchangeEnd(_) | Entry::ClientDisconnect { .. }) {
                self.release(id);
            }
            self.ready.push_back(record);
            return Ok(());
        }
        let Entry::SseStream(event) = record.entry else { return Ok(()) };
        let grown = self.streams.iter_mut().find_map(|known| match &mut known.entry {
            Entry::SseStream(stream) if Some(stream.id) == id => Some(stream),
            _ => None,
        });
        match grown {
            Some(stream) => {
                stream.stream.0.extend_from_slice(&event.stream.0);
                stream.writes.extend(event.writes);
            }
            None => self.streams.push(Record { entry: Entry::SseStream(event), ..record }),
        }
        Ok(())
    }

    /// Gives out the stream of an exchange, or all of them.
    fn release(&mut self, id: Option<u64>) {
        let (done, rest) = std::mem::take(&mut self.streams)
            .into_iter()
            .partition(|record| id.is_none() || id_of(&record.entry) == id);
        self.streams = rest;
        self.ready.extend::<Vec<_>>(done);
    }
}

impl<I: Iterator<Item = Result<RawRecord, CaptureError>>> Iterator for Records<I> {
    type Item = Result<Record, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            let taken = match self.raw.next() {
                Some(Ok(raw)) => self.take(&raw),
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.release(None);
                    return self.ready.pop_front().map(Ok);
                }
            };
            match taken {
                Err(error) if self.skip_bad && error.is_of_one_record() => self.skipped += 1,
                Err(error) => return Some(Err(error)),
                Ok(()) => {}
            }
        }
    }
}

/// Whether a raw record is of type `event`.
fn is_event(bytes: &[u8]) -> bool {
    let record = wire::json::Value::new(bytes);
    let kind = ["type", "kind", "record_type"].into_iter().find_map(|name| record.get(name));
    kind.and_then(wire::json::Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case("event"))
}

/// The name of a type in our spelling, if there is such a type.
fn type_named(text: &str) -> Option<&'static str> {
    let name = text.trim().to_ascii_lowercase().replace('-', "_");
    TYPES.into_iter().find(|known| *known == name)
}

fn bad(place: &Place, problem: &str, advice: &str) -> CaptureError {
    CaptureError::bad(place, problem, advice)
}

/// What is left of a record's fields.
type Members = Map<String, Value>;

#[cfg(test)]
mod tests;
