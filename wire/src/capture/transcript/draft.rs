//! An exchange that is being written down: what is known of it so far, and what can be told already.

use super::Note;
use crate::capture::{
    Direction, Entry, ExchangeEnd, Headers, Payload, Request, Response, Rest, SseStream, StreamEnd,
    WebsocketClose,
};
use crate::http1::{RequestHead, ResponseHead};

/// How much is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of bodies of one exchange, and of one message of a WebSocket.
    pub exchange: usize,
    /// Whether a response that the server cuts off is one of which something is missing. Who plays a cut
    /// knows that it was meant; who passes a response on does not.
    pub cut_is_missing: bool,
}

/// How a connection, or a stream of one, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The client ended it, or broke it off.
    ByClient,
    /// The server ended it.
    ByServer,
    /// The server reset it.
    Reset,
    /// The server had stopped in the middle, and then the client ended it.
    Hung,
    /// The server was told to end and did not wait any longer.
    Drained,
    /// It is not known: the recorder has lost track.
    Unknown,
}

/// An exchange that is being written down.
#[derive(Debug)]
pub struct Draft {
    began: f64,
    request: Request,
    has_request_ended: bool,
    is_request_told: bool,
    answer: Option<Answer>,
    is_answer_told: bool,
    limits: Limits,
    /// Bytes of bodies so far.
    taken: usize,
    /// Bytes of the request's body, and of the response's, since the last time that was told.
    asked: u64,
    answered: u64,
    missing: Option<String>,
    is_socket: bool,
    /// Whether a close frame was seen, either way.
    is_closed: bool,
}

#[derive(Debug)]
struct Answer {
    at: f64,
    status: u16,
    headers: Headers,
    head: Option<Payload>,
    body: Vec<u8>,
    writes: Vec<(f64, u64)>,
    is_stream: bool,
    has_ended: bool,
    end: StreamEnd,
}

impl Draft {
    /// An exchange that begins.
    #[must_use]
    pub fn new(id: u64, connection: u64, began: f64, limits: Limits) -> Self {
        let request = Request {
            direction: Direction::ClientToUpstream,
            id,
            connection,
            method: String::new(),
            url: String::new(),
            http_version: "1.1".to_owned(),
            headers: Headers::new(),
            head: None,
            body: None,
            wire_len: 0,
            writes: Vec::new(),
            upgrade: None,
            rest: Rest::new(),
        };
        Self {
            began,
            request,
            has_request_ended: false,
            is_request_told: false,
            answer: None,
            is_answer_told: false,
            limits,
            taken: 0,
            asked: 0,
            answered: 0,
            missing: None,
            is_socket: false,
            is_closed: false,
        }
    }

    /// The exchange's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.request.id
    }

    /// How many bytes are held.
    #[must_use]
    pub fn held(&self) -> usize {
        let asked = self.request.body.as_ref().map_or(0, |body| body.0.len());
        asked + self.answer.as_ref().map_or(0, |answer| answer.body.len())
    }

    /// The head of an HTTP/1.1 request.
    pub(super) fn request(&mut self, head: &RequestHead) {
        let fields = head.fields().map(|field| (field.name.to_owned(), lossy(field.value))).collect();
        self.request_fields(head.method(), head.target(), "1.1", fields);
        self.request.head = Some(Payload::from(head.as_bytes()));
    }

    /// What a request asks for, where there is no head of bytes.
    pub fn request_fields(&mut self, method: &str, target: &str, version: &str, headers: Headers) {
        let upgrade = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        let is_websocket = |value: &&(String, String)| value.1.eq_ignore_ascii_case("websocket");
        self.request.upgrade = upgrade.filter(is_websocket).map(|(_, value)| value.to_ascii_lowercase());
        (self.request.method, self.request.url) = (method.to_owned(), target.to_owned());
        self.request.http_version = version.to_owned();
        self.request.headers = headers;
        if self.request.upgrade.is_none() {
            self.request.body = Some(Payload::default());
        }
    }

    pub(super) fn is_upgrade(&self) -> bool {
        self.request.upgrade.is_some()
    }

    pub(super) fn is_to_head(&self) -> bool {
        self.request.method == "HEAD"
    }

    /// The request is not one that could be read.
    pub(super) fn malformed(&mut self, problem: &str) {
        self.request.rest.entry("malformed").or_insert_with(|| problem.into());
    }

    /// Bytes of a request that cannot be read: of its head, as long as there is none.
    pub(super) fn ask_unreadable(&mut self, bytes: &[u8], limit: usize) {
        let is_bodied = self.request.head.is_some() && !self.request.method.is_empty();
        let place = if is_bodied { &mut self.request.body } else { &mut self.request.head };
        let kept = &mut place.get_or_insert_default().0;
        let room = limit.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if is_bodied {
            self.asked += bytes.len() as u64;
        }
        if bytes.len() > room {
            self.miss("more was sent than is kept of what cannot be read");
        }
    }

    /// Bytes of the request's body.
    pub fn ask(&mut self, payload: &[u8]) {
        self.request.wire_len += payload.len() as u64;
        let body = &mut self.request.body.get_or_insert_default().0;
        let kept = keep(body, payload, &mut self.taken, self.limits.exchange);
        self.asked += kept as u64;
        self.check_kept(kept, payload);
    }

    /// The bytes since the last time came in one read.
    pub fn asked_at(&mut self, at: f64) {
        if self.asked > 0 {
            self.request.writes.push((at, std::mem::take(&mut self.asked)));
        }
    }

    /// All of the request has come.
    pub fn end_request(&mut self) {
        self.has_request_ended = true;
    }

    /// A response that only says that another comes.
    pub(super) fn interim(&mut self, status: u16) {
        let list = self.request.rest.entry("interim").or_insert_with(|| Vec::<u16>::new().into());
        if let Some(list) = list.as_array_mut() {
            list.push(status.into());
        }
    }

    /// The head of an HTTP/1.1 response.
    pub(super) fn respond(&mut self, at: f64, head: &ResponseHead) {
        let fields = head.fields().map(|field| (field.name.to_owned(), lossy(field.value))).collect();
        self.response_fields(at, head.status(), fields);
        if let Some(answer) = &mut self.answer {
            answer.head = Some(Payload::from(head.as_bytes()));
        }
    }

    /// What a response says, where there is no head of bytes.
    pub fn response_fields(&mut self, at: f64, status: u16, headers: Headers) {
        let kind = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let is_stream = status != 101
            && kind
                .is_some_and(|(_, kind)| kind.trim().to_ascii_lowercase().starts_with("text/event-stream"));
        self.is_socket = status == 101;
        self.answer = Some(Answer {
            at,
            status,
            headers,
            head: None,
            body: Vec::new(),
            writes: Vec::new(),
            is_stream,
            has_ended: false,
            end: StreamEnd::Eof,
        });
    }

    /// Bytes of the response's body.
    pub fn answer(&mut self, payload: &[u8]) {
        let Some(answer) = &mut self.answer else { return };
        let kept = keep(&mut answer.body, payload, &mut self.taken, self.limits.exchange);
        self.answered += kept as u64;
        self.check_kept(kept, payload);
    }

    /// The bytes since the last time went in one write.
    pub fn answered_at(&mut self, at: f64) {
        if let Some(answer) = self.answer.as_mut().filter(|_| self.answered > 0) {
            answer.writes.push((at, std::mem::take(&mut self.answered)));
        }
    }

    /// All of the response has gone.
    pub fn end_answer(&mut self) {
        if let Some(answer) = &mut self.answer {
            answer.has_ended = true;
        }
    }

    fn check_kept(&mut self, kept: usize, payload: &[u8]) {
        if kept < payload.len() {
            let limit = self.limits.exchange;
            self.miss(&format!("its bodies are longer than {limit} bytes, of which the rest is not kept"));
        }
    }

    /// Something of the exchange is not written down.
    pub fn miss(&mut self, reason: &str) {
        self.missing.get_or_insert_with(|| reason.to_owned());
    }

    /// Nothing more of the exchange is kept, and what was kept of its response is given up.
    pub fn give_up(&mut self, reason: &str) {
        self.miss(reason);
        self.limits.exchange = 0;
        if let Some(answer) = &mut self.answer {
            (answer.body, answer.writes) = (Vec::new(), Vec::new());
        }
        if let Some(body) = self.request.body.as_mut().filter(|_| !self.is_request_told) {
            body.0 = Vec::new();
            self.request.writes = Vec::new();
        }
    }

    pub(super) fn note_close(&mut self) {
        self.is_closed = true;
    }

    /// Whether both request and response are over.
    pub(super) fn is_whole(&self) -> bool {
        let has_answer_ended = self.answer.as_ref().is_some_and(|answer| answer.has_ended);
        self.has_request_ended && has_answer_ended && !self.is_socket
    }

    /// Tells what is complete: a request first, and its response behind it.
    pub fn tell(&mut self, notes: &mut Vec<Note>) {
        if self.has_request_ended {
            self.tell_request(notes);
        }
        if self.is_request_told && self.answer.as_ref().is_some_and(|answer| answer.has_ended) {
            self.tell_answer(notes);
        }
    }

    fn tell_request(&mut self, notes: &mut Vec<Note>) {
        if !std::mem::replace(&mut self.is_request_told, true) {
            let mut request = self.request.clone();
            self.request.body = None;
            self.request.head = None;
            if request.upgrade.is_some() && request.body.as_ref().is_some_and(|body| body.0.is_empty()) {
                request.body = None;
            }
            notes.push((self.began, Entry::Request(request)));
        }
    }

    fn tell_answer(&mut self, notes: &mut Vec<Note>) {
        if std::mem::replace(&mut self.is_answer_told, true) {
            return;
        }
        let Some(answer) = &mut self.answer else { return };
        let (direction, id) = (Direction::UpstreamToClient, self.request.id);
        let (at, status, end) = (answer.at, answer.status, answer.end);
        let (headers, head) = (std::mem::take(&mut answer.headers), answer.head.take());
        let (body, writes) = (std::mem::take(&mut answer.body), std::mem::take(&mut answer.writes));
        let rest = Rest::new();
        let entry = if answer.is_stream {
            let stream = Payload(body);
            Entry::SseStream(SseStream { direction, id, status, headers, head, stream, writes, end, rest })
        } else {
            let body = (status != 101).then_some(Payload(body));
            let end = (end != StreamEnd::Eof).then_some(end);
            Entry::Response(Response { direction, id, status, headers, head, body, writes, end, rest })
        };
        notes.push((at, entry));
    }

    /// Tells the rest: nothing more comes.
    pub fn finish(&mut self, at: f64, closing: Closing, notes: &mut Vec<Note>) {
        let id = self.request.id;
        if !self.has_request_ended {
            if !self.request.rest.contains_key("malformed") {
                self.miss("the request is not complete: the connection ended within it");
            }
            self.has_request_ended = true;
        }
        self.tell_request(notes);
        let is_open = self.is_socket || self.answer.as_ref().is_none_or(|answer| !answer.has_ended);
        if let Some(answer) = self.answer.as_mut().filter(|answer| !answer.has_ended) {
            answer.has_ended = true;
            answer.end = match closing {
                Closing::ByClient => StreamEnd::ClientGone,
                Closing::Reset => StreamEnd::Reset,
                Closing::Hung => StreamEnd::Hang,
                Closing::ByServer | Closing::Drained | Closing::Unknown => StreamEnd::Fin,
            };
        }
        self.tell_answer(notes);
        if is_open {
            self.note_cut(closing);
            match (self.is_socket, closing) {
                (true, _) if self.is_closed || closing == Closing::Unknown => {}
                (true, _) => {
                    let direction = if matches!(closing, Closing::ByClient | Closing::Hung) {
                        Direction::ClientToUpstream
                    } else {
                        Direction::UpstreamToClient
                    };
                    let close = WebsocketClose { direction, id, code: 1006, reason: String::new() };
                    notes.push((at, Entry::WebsocketClose(close)));
                }
                (false, Closing::ByClient) => notes.push((at, Entry::ClientDisconnect { id })),
                (false, _) => {}
            }
        }
        let unanswered = match closing {
            _ if self.answer.is_some() => None,
            Closing::Reset => Some(StreamEnd::Reset),
            Closing::Hung => Some(StreamEnd::Hang),
            Closing::ByServer => Some(StreamEnd::Fin),
            Closing::ByClient | Closing::Drained | Closing::Unknown => None,
        };
        let reason = self.missing.take();
        let end = ExchangeEnd { id, partial: reason.is_some(), reason, unanswered };
        notes.push((at, Entry::ExchangeEnd(end)));
    }

    /// The response was not whole: says why, where that means that something is missing.
    fn note_cut(&mut self, closing: Closing) {
        match closing {
            Closing::Drained if !self.is_closed => {
                self.miss("the program was told to end and did not wait any longer");
            }
            Closing::ByServer | Closing::Reset if self.limits.cut_is_missing && !self.is_socket => {
                self.miss(if self.answer.is_some() {
                    "the response was cut off"
                } else {
                    "nothing was answered"
                });
            }
            Closing::Unknown => self.miss("the recorder lost track"),
            _ => {}
        }
    }
}

/// Appends as much as there is room for; says how much.
fn keep(body: &mut Vec<u8>, payload: &[u8], taken: &mut usize, limit: usize) -> usize {
    let room = limit.saturating_sub(*taken).min(payload.len());
    body.extend_from_slice(&payload[..room]);
    *taken += room;
    room
}

fn lossy(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
