//! The journal as capture records: what `GET /__mock/journal` answers.

use std::time::Duration;

use wire::capture::{
    Control, Direction, Entry, Payload, Record, Request, Response, SseStream, StreamEnd, WebsocketClose,
    WebsocketMessage,
};

use super::{Exchange, HowEnded, Journal, Kind, Message};

impl Journal {
    /// The exchanges with a number above `since` as records, in the order of their times.
    #[must_use]
    pub fn records(&self, since: u64) -> Vec<Record> {
        let now = jiff::Timestamp::now();
        let started = now - jiff::SignedDuration::try_from(self.elapsed()).unwrap_or_default();
        let stamp = |at: Duration| {
            let time = started + jiff::SignedDuration::try_from(at).unwrap_or_default();
            time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
        };
        let exchanges = self.exchanges();
        let mut entries: Vec<(Duration, Entry)> = exchanges
            .into_iter()
            .filter(|exchange| exchange.id > since)
            .flat_map(|exchange| entries_of(&exchange))
            .collect();
        entries.sort_by_key(|(at, _)| *at);
        let record = |(at, entry): (Duration, Entry)| Record { ts: stamp(at), t_ms: milliseconds(at), entry };
        entries.into_iter().map(record).collect()
    }
}

fn milliseconds(at: Duration) -> f64 {
    (at.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

fn entries_of(exchange: &Exchange) -> Vec<(Duration, Entry)> {
    let mut entries = vec![(exchange.at, request(exchange))];
    if let Some(entry) = answer(exchange) {
        entries.push(entry);
    }
    // Behind a close frame the connection only goes: that it did is no second end.
    let closed = exchange.messages.iter().position(|message| matches!(message.kind, Kind::Close(_)));
    let messages = exchange.messages.iter().enumerate();
    let messages = messages.filter(|(at, message)| {
        message.kind != Kind::Close(1006) || closed.is_none_or(|closed| *at <= closed)
    });
    entries.extend(messages.map(|(_, message)| (message.at, frame(exchange.id, message))));
    if let Some(end) = &exchange.end
        && end.how == HowEnded::ClientGone
    {
        entries.push((end.at, Entry::ClientDisconnect { id: exchange.id }));
    }
    entries
}

fn request(exchange: &Exchange) -> Entry {
    let mut rest = serde_json::Map::new();
    let mut note = |key: &str, value: Option<String>| {
        rest.extend(value.map(|value| (key.to_owned(), value.into())));
    };
    note("account", exchange.account.as_deref().map(str::to_owned));
    note("rule", exchange.rule.as_deref().map(str::to_owned));
    if !exchange.violations.is_empty() {
        let violations: Vec<String> = exchange.violations.iter().map(ToString::to_string).collect();
        rest.insert("violations".into(), violations.into());
    }
    let upgrade = exchange.header("upgrade");
    Entry::Request(Request {
        direction: Direction::ClientToUpstream,
        id: exchange.id,
        connection: exchange.connection,
        method: exchange.method.clone(),
        url: exchange.target.clone(),
        http_version: "1.1".into(),
        headers: exchange.headers(),
        head: Some(Payload::from(&exchange.head[..])),
        body: upgrade.is_none().then(|| Payload::from(&exchange.body[..])),
        wire_len: exchange.body.len() as u64,
        writes: Vec::new(),
        upgrade,
        rest,
    })
}

fn answer(exchange: &Exchange) -> Option<(Duration, Entry)> {
    let answer = exchange.answer.as_ref()?;
    let head = wire::http1::ResponseHead::parse(&answer.head).ok().flatten();
    let headers = head.iter().flat_map(|(head, _)| head.fields());
    let headers = headers
        .map(|field| (field.name.to_owned(), String::from_utf8_lossy(field.value).into_owned()))
        .collect();
    let at = answer.at;
    let (direction, id, status) = (Direction::UpstreamToClient, exchange.id, answer.status);
    let rest = serde_json::Map::new();
    let raw = Some(Payload(answer.head.to_vec()));
    let writes = answer.writes.iter().map(|(at, length)| (milliseconds(*at), *length as u64)).collect();
    let end = match exchange.end.as_ref().map(|end| end.how) {
        Some(HowEnded::Complete) => StreamEnd::Eof,
        Some(HowEnded::ClientGone) => StreamEnd::ClientGone,
        Some(HowEnded::Reset) => StreamEnd::Reset,
        Some(HowEnded::Fin) => StreamEnd::Fin,
        // Still running: so far it looks like one that hangs.
        Some(HowEnded::Hang) | None => StreamEnd::Hang,
    };
    if !answer.is_stream {
        let body = (status != 101).then(|| Payload(answer.body.clone()));
        // An upgrade has no body that could end; its socket has its own records.
        let end = (status != 101 && end != StreamEnd::Eof).then_some(end);
        let response = Response { direction, id, status, headers, head: raw, body, writes, end, rest };
        return Some((at, Entry::Response(response)));
    }
    let stream = Payload(answer.body.clone());
    Some((
        at,
        Entry::SseStream(SseStream { direction, id, status, headers, head: raw, stream, writes, end, rest }),
    ))
}

fn frame(id: u64, message: &Message) -> Entry {
    let direction = message.direction;
    if let Kind::Close(code) = message.kind {
        return Entry::WebsocketClose(WebsocketClose { direction, id, code, reason: message.text() });
    }
    let mut rest = serde_json::Map::new();
    let control = match message.kind {
        Kind::Ping => Some(Control::Ping),
        Kind::Pong => Some(Control::Pong),
        Kind::Text | Kind::Binary | Kind::Close(_) => None,
    };
    rest.extend(message.rule.as_deref().map(|rule| ("rule".to_owned(), rule.into())));
    Entry::WebsocketMessage(WebsocketMessage {
        direction,
        id,
        binary: message.kind == Kind::Binary,
        control,
        message: Payload::from(&message.payload[..]),
        frames: message.frames.clone(),
        rest,
    })
}
