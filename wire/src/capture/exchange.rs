//! The records of a capture put together: a request, what was answered, and how it ended.
//!
//! Whoever replays, compares or plays a capture works on these; the records are only how they are written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Control, Direction, Entry, Headers, Record, Request, StreamEnd};

/// A request and everything that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Its number in the capture.
    pub id: u64,
    /// When it began, in milliseconds since the recording began.
    pub at: f64,
    /// The request as it was received.
    pub request: Request,
    /// What was answered, if anything was.
    pub answer: Option<Answer>,
    /// How the upstream ended it without an answer.
    pub unanswered: Option<StreamEnd>,
    /// What went over the WebSocket, both ways, in order.
    pub messages: Vec<Message>,
    /// When the client went away before the end, in milliseconds since the recording began.
    pub client_gone: Option<f64>,
    /// What of it the recorder did not see; none when it saw everything.
    pub missing: Option<String>,
}

impl Exchange {
    /// Whether the request asks for a WebSocket.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.request.upgrade.is_some()
    }

    /// The body of the request as it came, still encoded.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.request.body.as_ref().map_or(&[], |body| &body.0)
    }
}

/// A response, whole or streamed.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// When its head was sent, in milliseconds since the recording began.
    pub at: f64,
    /// The status.
    pub status: u16,
    /// The header fields, in order.
    pub headers: Headers,
    /// Every byte of the body, still encoded.
    pub body: Vec<u8>,
    /// The writes that the body was sent in: milliseconds since the recording began, and length.
    pub writes: Vec<(f64, u64)>,
    /// How it ended.
    pub end: StreamEnd,
    /// Whether it is a stream of events.
    pub is_stream: bool,
}

/// A message on a WebSocket, a control frame, or its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// When it was sent, in milliseconds since the recording began.
    pub at: f64,
    /// Who sent it.
    pub direction: Direction,
    /// What it is.
    pub kind: MessageKind,
    /// The message put together from its frames; of a close frame, its reason.
    pub payload: Vec<u8>,
    /// The payload lengths of its frames, when there is more than one.
    pub frames: Vec<u64>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
    /// The end, with this code; 1006 when there was no close frame.
    Close(u16),
}

/// Records that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// A record names an exchange that no request began.
    #[error("put record {record} to exchange {id}: no request before it has this id")]
    NoRequest {
        /// The record, from 1.
        record: usize,
        /// The exchange.
        id: u64,
    },
    /// Two requests have one id.
    #[error("put record {record} to exchange {id}: it is a second {what}")]
    Second {
        /// The record, from 1.
        record: usize,
        /// The exchange.
        id: u64,
        /// What there are two of.
        what: &'static str,
    },
}

/// The exchanges of a capture, in the order in which they began.
///
/// # Errors
/// When a record belongs to no exchange, or an exchange has two requests or two responses.
pub fn exchanges(records: &[Record]) -> Result<Vec<Exchange>, ExchangeError> {
    let mut assembly = Assembly::default();
    for (at, record) in records.iter().enumerate() {
        assembly.add(at + 1, record)?;
    }
    Ok(assembly.finish())
}

#[derive(Default)]
struct Assembly {
    order: Vec<u64>,
    exchanges: BTreeMap<u64, Exchange>,
    ended: Vec<u64>,
    /// Whether the recorder says of every exchange that it has ended.
    tells_ends: bool,
}

impl Assembly {
    fn add(&mut self, record: usize, Record { t_ms, entry, .. }: &Record) -> Result<(), ExchangeError> {
        let at = *t_ms;
        match entry {
            Entry::Meta(meta) => self.tells_ends |= meta.recorder.is_some(),
            Entry::Request(request) => return self.begin(record, at, request),
            Entry::Response(response) => {
                let (status, headers) = (response.status, response.headers.clone());
                let body = response.body.clone().unwrap_or_default().0;
                let (writes, end) = (response.writes.clone(), response.end.unwrap_or(StreamEnd::Eof));
                let answer = Answer { at, status, headers, body, writes, end, is_stream: false };
                return self.answer(record, response.id, answer);
            }
            Entry::SseStream(stream) => {
                let (status, headers, body) =
                    (stream.status, stream.headers.clone(), stream.stream.0.clone());
                let (writes, end) = (stream.writes.clone(), stream.end);
                let answer = Answer { at, status, headers, body, writes, end, is_stream: true };
                return self.answer(record, stream.id, answer);
            }
            Entry::WebsocketMessage(message) => {
                let kind = match (message.control, message.binary) {
                    (Some(Control::Ping), _) => MessageKind::Ping,
                    (Some(Control::Pong), _) => MessageKind::Pong,
                    (None, true) => MessageKind::Binary,
                    (None, false) => MessageKind::Text,
                };
                let (direction, payload, frames) =
                    (message.direction, message.message.0.clone(), message.frames.clone());
                let exchange = self.find(record, message.id)?;
                exchange.messages.push(Message { at, direction, kind, payload, frames });
            }
            Entry::WebsocketClose(close) => {
                let (direction, kind) = (close.direction, MessageKind::Close(close.code));
                let payload = close.reason.clone().into_bytes();
                let exchange = self.find(record, close.id)?;
                exchange.messages.push(Message { at, direction, kind, payload, frames: Vec::new() });
            }
            Entry::ClientDisconnect { id } => self.find(record, *id)?.client_gone = Some(at),
            Entry::ExchangeEnd(end) => {
                self.ended.push(end.id);
                let exchange = self.find(record, end.id)?;
                exchange.unanswered = end.unanswered;
                if end.partial {
                    let reason = end.reason.clone();
                    exchange.missing =
                        Some(reason.unwrap_or_else(|| "the recorder does not say what".into()));
                }
            }
            Entry::Marker { .. } | Entry::Fault { .. } => {}
        }
        Ok(())
    }

    fn begin(&mut self, record: usize, at: f64, request: &Request) -> Result<(), ExchangeError> {
        let id = request.id;
        let exchange = Exchange {
            id,
            at,
            request: request.clone(),
            answer: None,
            unanswered: None,
            messages: Vec::new(),
            client_gone: None,
            missing: None,
        };
        if self.exchanges.insert(id, exchange).is_some() {
            return Err(ExchangeError::Second { record, id, what: "request" });
        }
        self.order.push(id);
        Ok(())
    }

    fn answer(&mut self, record: usize, id: u64, answer: Answer) -> Result<(), ExchangeError> {
        match self.find(record, id)?.answer.replace(answer) {
            Some(_) => Err(ExchangeError::Second { record, id, what: "response" }),
            None => Ok(()),
        }
    }

    fn find(&mut self, record: usize, id: u64) -> Result<&mut Exchange, ExchangeError> {
        self.exchanges.get_mut(&id).ok_or(ExchangeError::NoRequest { record, id })
    }

    fn finish(mut self) -> Vec<Exchange> {
        for exchange in self.exchanges.values_mut() {
            let has_ended = !self.tells_ends || self.ended.contains(&exchange.id);
            let missing = match &exchange.answer {
                _ if !has_ended => Some("the recording stopped before its end"),
                None if exchange.client_gone.is_none() && exchange.unanswered.is_none() => {
                    Some("nothing was answered")
                }
                _ => None,
            };
            if exchange.missing.is_none() {
                exchange.missing = missing.map(str::to_owned);
            }
        }
        let exchanges = &mut self.exchanges;
        self.order.iter().filter_map(|id| exchanges.remove(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(lines: &[&str]) -> Vec<Record> {
        let line = |(at, line): (usize, &&str)| {
            let line = format!(r#"{{"ts":"t","t_ms":{at},{line}}}"#);
            serde_json::from_str(&line).unwrap()
        };
        lines.iter().enumerate().map(line).collect()
    }

    fn request(id: u64) -> String {
        format!(
            r#""type":"request","direction":"client_to_upstream","id":{id},"connection":1,"method":"GET",
            "url":"/","http_version":"1.1","headers":[],"wire_len":0"#
        )
    }

    fn response(id: u64) -> String {
        format!(r#""type":"response","direction":"upstream_to_client","id":{id},"status":200,"headers":[]"#)
    }

    #[test]
    fn what_belongs_together_is_put_together_in_the_order_of_the_requests() {
        let message = r#""type":"websocket_message","direction":"client_to_upstream","id":2,"binary":false,"message":"m""#;
        let lines =
            [request(2), request(1), response(1), response(2), message.to_owned(), message.to_owned()];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let exchanges = exchanges(&records(&lines)).unwrap();
        let seen: Vec<_> = exchanges
            .iter()
            .map(|exchange| (exchange.id, exchange.answer.is_some(), exchange.messages.len()))
            .collect();
        assert_eq!(seen, [(2, true, 2), (1, true, 0)]);
        assert!(exchanges.iter().all(|exchange| exchange.missing.is_none()));
    }

    #[test]
    fn a_capture_of_a_recorder_is_whole_only_where_the_recorder_says_so() {
        let meta = r#""type":"meta","recorder":"mock-upstream 0.1.0""#;
        let end = r#""type":"exchange_end","id":1"#;
        let partial = r#""type":"exchange_end","id":3,"partial":true,"reason":"no room on the disk""#;
        let lines = [
            meta.into(),
            request(1),
            response(1),
            end.into(),
            request(2),
            response(2),
            request(3),
            partial.into(),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let missing: Vec<_> =
            exchanges(&records(&lines)).unwrap().into_iter().map(|exchange| exchange.missing).collect();
        let stopped = Some("the recording stopped before its end".to_owned());
        assert_eq!(missing, [None, stopped, Some("no room on the disk".to_owned())]);
    }

    #[test]
    fn records_that_belong_nowhere_are_named() {
        let (request, response) = (request(1), response(7));
        assert_eq!(
            exchanges(&records(&[&request, &response])),
            Err(ExchangeError::NoRequest { record: 2, id: 7 })
        );
        assert_eq!(
            exchanges(&records(&[&request, &request])),
            Err(ExchangeError::Second { record: 2, id: 1, what: "request" })
        );
    }
}
