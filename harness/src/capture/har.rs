//! The entries of an HTTP archive (HAR 1.2) as records, in the dialects of browsers, mitmproxy and Charles.
//!
//! An exporter sees bodies decoded (see `normal::body`) and heads as fields, so these captures hold no raw
//! bytes and no sizes of writes. What a member is not used for is kept under `har`. The URL becomes the request target; its
//! origin is kept as `origin`. A status of 0 means that the exporter saw no response.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use wire::capture::{
    Control, Direction, Entry, ExchangeEnd, Headers, Meta, Payload, Record, Request, Response, Rest,
    SseStream, StreamEnd, WebsocketClose, WebsocketMessage,
};

use super::normal::{body, time, url};
use super::{CaptureError, RawRecord};

/// What is known from the entries before.
#[derive(Debug, Default)]
pub(super) struct Conversion {
    entries: u64,
    /// When the first entry began, in milliseconds since 1970.
    began: Option<f64>,
    /// Connections by the names that the exporter gives them.
    connections: HashMap<String, u64>,
}

impl Conversion {
    /// The records of an entry.
    pub(super) fn entry(
        &mut self,
        raw: &RawRecord,
        creator: Option<&[u8]>,
    ) -> Result<Vec<RawRecord>, CaptureError> {
        super::check(raw)?;
        let bad = |problem: String| {
            CaptureError::bad(&raw.place, problem, "see the HAR 1.2 specification, \"entries\"")
        };
        // It was checked to be JSON.
        let mut entry: Map<String, Value> = serde_json::from_slice(&raw.bytes).unwrap_or_default();
        let started = string(&mut entry, "startedDateTime")
            .ok_or_else(|| bad("the entry has no `startedDateTime`".to_owned()))?;
        let started =
            time::milliseconds(&started).ok_or_else(|| bad("`startedDateTime` is no time".to_owned()))?;
        let mut records = Vec::new();
        let began = *self.began.get_or_insert(started);
        if self.entries == 0 {
            records.push((started, Entry::Meta(meta(creator))));
        }
        self.entries += 1;
        let mut entry = HarEntry { id: self.entries, started, members: entry, records: &mut records };
        let connection = entry.connection(&mut self.connections);
        entry.convert(connection).map_err(bad)?;
        let raw = |(at, entry): (f64, Entry)| {
            let record = Record { ts: time::text(at), t_ms: round(at - began), entry };
            // Records are plain data: they always serialise.
            let bytes = serde_json::to_vec(&record).unwrap_or_default();
            RawRecord { place: raw.place.clone(), bytes }
        };
        Ok(records.into_iter().map(raw).collect())
    }
}

/// Microseconds are as fine as any exporter is.
fn round(milliseconds: f64) -> f64 {
    (milliseconds * 1000.0).round() / 1000.0
}

fn meta(creator: Option<&[u8]>) -> Meta {
    let mut rest = Rest::new();
    rest.insert("source".into(), "har".into());
    if let Some(creator) = creator.and_then(|creator| serde_json::from_slice::<Value>(creator).ok()) {
        rest.insert("creator".into(), creator);
    }
    Meta { rest, ..Meta::default() }
}

struct HarEntry<'a> {
    id: u64,
    /// Milliseconds since 1970.
    started: f64,
    members: Map<String, Value>,
    records: &'a mut Vec<(f64, Entry)>,
}

impl HarEntry<'_> {
    /// The number of the entry's connection. One of its own where the exporter does not say.
    fn connection(&self, known: &mut HashMap<String, u64>) -> u64 {
        let next = known.len() as u64 + 1;
        let name = match self.members.get("connection") {
            Some(Value::String(name)) if !name.is_empty() && name != "0" => name.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => format!("of entry {}", self.id),
        };
        *known.entry(name).or_insert(next)
    }

    fn convert(&mut self, connection: u64) -> Result<(), String> {
        let mut request = object(&mut self.members, "request").ok_or("the entry has no `request`")?;
        let mut response = object(&mut self.members, "response").unwrap_or_default();
        let timings = Timings::of(&self.members);
        let messages = ["_webSocketMessages", "webSocketMessages"]
            .iter()
            .find_map(|name| self.members.remove(*name))
            .and_then(|messages| if let Value::Array(messages) = messages { Some(messages) } else { None });
        let status = response.remove("status").and_then(|status| status.as_u64()).unwrap_or(0);
        let status = u16::try_from(status).unwrap_or(0);
        let kind = self.members.get("_resourceType").and_then(Value::as_str);
        let request_version = version(&mut request);
        let (mut headers, pseudo) = headers(&mut request)?;
        let names_websocket = headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("upgrade") && value.eq_ignore_ascii_case("websocket")
        });
        let is_websocket = messages.is_some() || kind == Some("websocket") || names_websocket;
        let full = string(&mut request, "url").ok_or("the request has no `url`")?;
        let (origin, target) = url::split(&full);
        let method = string(&mut request, "method").ok_or("the request has no `method`")?;
        let mut body = request_body(&mut request)?.filter(|_| !is_websocket);
        let size = request.remove("bodySize").and_then(|size| size.as_u64());
        request.remove("headersSize");
        let mut rest = Rest::new();
        rest.extend(origin.map(|origin| ("origin".to_owned(), Value::from(origin))));
        if !pseudo.is_empty() {
            rest.insert("pseudo_headers".into(), pseudo.into_iter().collect());
        }
        body::agree(&mut headers, body.as_mut(), &mut rest);
        let length = body.as_ref().map_or(0, |body| body.0.len() as u64);
        if let Some(size) = size.filter(|size| *size != length) {
            rest.insert("body_size".into(), size.into());
        }
        let mut kept = std::mem::take(&mut self.members);
        kept.insert("request".into(), request.into());
        let (response_version, content) = (response.remove("httpVersion"), object(&mut response, "content"));
        let answer = self.answer(status, &mut response, content, &timings)?;
        if response_version.is_some() && !response.is_empty() {
            response.extend(response_version.map(|version| ("httpVersion".to_owned(), version)));
        }
        kept.insert("response".into(), response.into());
        kept.retain(|_, value| !matches!(value, Value::Object(members) if members.is_empty()));
        if !kept.is_empty() {
            rest.insert("har".into(), kept.into());
        }
        self.push(
            self.started,
            Entry::Request(Request {
                direction: Direction::ClientToUpstream,
                id: self.id,
                connection,
                method: method.to_ascii_uppercase(),
                url: target,
                http_version: request_version,
                headers,
                head: None,
                body,
                wire_len: length,
                writes: Vec::new(),
                upgrade: is_websocket.then(|| "websocket".to_owned()),
                rest,
            }),
        );
        match answer {
            Some(answer) => self.push(self.started + timings.head, answer),
            None => {
                let reason = Some("the exporter saw no response".to_owned());
                let end = ExchangeEnd { id: self.id, partial: true, reason, unanswered: None };
                self.push(self.started + timings.end, Entry::ExchangeEnd(end));
            }
        }
        for message in messages.into_iter().flatten() {
            self.message(message)?;
        }
        Ok(())
    }

    fn push(&mut self, at: f64, entry: Entry) {
        self.records.push((at, entry));
    }

    /// The response; none if the exporter saw none.
    fn answer(
        &self,
        status: u16,
        response: &mut Map<String, Value>,
        content: Option<Map<String, Value>>,
        timings: &Timings,
    ) -> Result<Option<Entry>, String> {
        if status == 0 {
            return Ok(None);
        }
        let (mut headers, _) = headers(response)?;
        for size in ["headersSize", "bodySize"] {
            response.remove(size);
        }
        let mut content = content.unwrap_or_default();
        let mut body = text_of(&mut content)?;
        let kind = string(&mut content, "mimeType").unwrap_or_default();
        content.remove("size");
        if !content.is_empty() {
            response.insert("content".into(), content.into());
        }
        let declared = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let declared = declared.map_or(&kind, |(_, value)| value);
        let is_stream = declared.to_ascii_lowercase().starts_with("text/event-stream");
        let mut rest = Rest::new();
        body::agree(&mut headers, body.as_mut(), &mut rest);
        let (direction, id, head) = (Direction::UpstreamToClient, self.id, None);
        if is_stream && status != 101 {
            let stream = body.unwrap_or_default();
            let writes = vec![(round(timings.end), stream.0.len() as u64)];
            let writes = if stream.0.is_empty() { Vec::new() } else { writes };
            let end = StreamEnd::Eof;
            let stream = SseStream { direction, id, status, headers, head, stream, writes, end, rest };
            return Ok(Some(Entry::SseStream(stream)));
        }
        let body = body.filter(|_| status != 101);
        let (writes, end) = (Vec::new(), None);
        let response = Response { direction, id, status, headers, head, body, writes, end, rest };
        Ok(Some(Entry::Response(response)))
    }

    fn message(&mut self, message: Value) -> Result<(), String> {
        let Value::Object(mut message) = message else {
            return Err("a message of the WebSocket is no object".to_owned());
        };
        let direction = match string(&mut message, "type").as_deref() {
            Some("send" | "request" | "sent") => Direction::ClientToUpstream,
            Some("receive" | "response" | "received") => Direction::UpstreamToClient,
            other => {
                let other = other.unwrap_or("nothing").to_owned();
                return Err(format!(
                    "a message of the WebSocket is of type {other:?}, not `send` or `receive`"
                ));
            }
        };
        // Seconds since 1970; some exporters write an ISO time.
        let at = match message.remove("time") {
            Some(Value::Number(time)) => time.as_f64().map(|seconds| seconds * 1000.0),
            Some(Value::String(time)) => time::milliseconds(&time),
            _ => None,
        };
        let at = at.unwrap_or(self.started);
        let opcode = message.remove("opcode").and_then(|opcode| opcode.as_u64()).unwrap_or(1);
        let data = string(&mut message, "data").unwrap_or_default();
        let id = self.id;
        if opcode == 8 {
            let close = WebsocketClose { direction, id, code: 1005, reason: data };
            self.push(at, Entry::WebsocketClose(close));
            return Ok(());
        }
        let is_binary = opcode != 1;
        let payload = match STANDARD.decode(&data) {
            Ok(bytes) if is_binary => Payload(bytes),
            _ => Payload(data.into_bytes()),
        };
        let control = match opcode {
            9 => Some(Control::Ping),
            10 => Some(Control::Pong),
            _ => None,
        };
        let binary = opcode == 2;
        let frames = Vec::new();
        let message =
            WebsocketMessage { direction, id, binary, control, message: payload, frames, rest: message };
        self.push(at, Entry::WebsocketMessage(message));
        Ok(())
    }
}

/// When things happened, in milliseconds behind the beginning of the entry.
struct Timings {
    /// The head of the response was there.
    head: f64,
    /// All of it was there.
    end: f64,
}

impl Timings {
    /// A phase that did not happen is -1, and `ssl` is a part of `connect`.
    fn of(entry: &Map<String, Value>) -> Self {
        let timings = entry.get("timings");
        let phase = |name: &str| {
            let value = timings.and_then(|timings| timings.get(name)).and_then(Value::as_f64);
            value.filter(|value| *value > 0.0)
        };
        let phases = ["blocked", "dns", "connect", "send", "wait"].into_iter().filter_map(phase);
        let head: f64 = phases.sum();
        let total = entry.get("time").and_then(Value::as_f64).filter(|time| *time > 0.0);
        let end = total.unwrap_or(head + phase("receive").unwrap_or(0.0));
        Self { head: if head > end { end } else { head }, end: end.max(head) }
    }
}

fn object(members: &mut Map<String, Value>, name: &str) -> Option<Map<String, Value>> {
    match members.remove(name) {
        Some(Value::Object(object)) => Some(object),
        _ => None,
    }
}

fn string(members: &mut Map<String, Value>, name: &str) -> Option<String> {
    match members.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn version(message: &mut Map<String, Value>) -> String {
    url::version(&string(message, "httpVersion").unwrap_or_default())
}

/// The fields, and apart from them those that Chrome makes of HTTP/2's pseudo-header fields.
fn headers(message: &mut Map<String, Value>) -> Result<(Headers, Vec<(String, Value)>), String> {
    let fields = match message.remove("headers") {
        Some(Value::Array(fields)) => fields,
        None | Some(Value::Null) => Vec::new(),
        Some(_) => return Err("its `headers` are no array".to_owned()),
    };
    let (mut headers, mut pseudo) = (Headers::new(), Vec::new());
    for field in fields {
        let Value::Object(mut field) = field else { return Err("a header is no object".to_owned()) };
        let name = string(&mut field, "name").ok_or("a header has no `name`")?;
        let value = string(&mut field, "value").unwrap_or_default();
        if name.starts_with(':') {
            pseudo.push((name, value.into()));
        } else {
            headers.push((name, value));
        }
    }
    Ok((headers, pseudo))
}

/// `text`, decoded where it says `base64`.
fn text_of(content: &mut Map<String, Value>) -> Result<Option<Payload>, String> {
    let Some(text) = string(content, "text") else { return Ok(None) };
    match string(content, "encoding").filter(|encoding| !encoding.is_empty()).as_deref() {
        None => Ok(Some(Payload(text.into_bytes()))),
        Some("base64") => match STANDARD.decode(text.trim_ascii()) {
            Ok(bytes) => Ok(Some(Payload(bytes))),
            Err(error) => Err(format!("a `text` with the encoding base64 is none: {error}")),
        },
        Some(other) => Err(format!("a `text` has the encoding {other:?}, which is not known")),
    }
}

/// The body of a request: its text, or the form that it was made from.
fn request_body(request: &mut Map<String, Value>) -> Result<Option<Payload>, String> {
    let Some(mut data) = object(request, "postData") else { return Ok(None) };
    if let Some(text) = text_of(&mut data)?.filter(|text| !text.0.is_empty()) {
        return Ok(Some(text));
    }
    let Some(Value::Array(parameters)) = data.get("params") else { return Ok(None) };
    let text = |parameter: &Value, name: &str| {
        parameter.get(name).and_then(Value::as_str).map(url::encode_form).unwrap_or_default()
    };
    let pairs = parameters.iter().map(|one| format!("{}={}", text(one, "name"), text(one, "value")));
    let form = pairs.collect::<Vec<_>>().join("&");
    Ok((!form.is_empty()).then(|| Payload(form.into_bytes())))
}

#[cfg(test)]
mod tests;
