//! A request over HTTP/1.1 and its reply, judged while it arrives.

use std::ops::ControlFlow;
use std::time::Duration;

use mock_upstream::content::{ACCOUNT, ASKED_FOR, NONCE, Template};
use wire::http1::{BodyDecoder, BodyLength, MAX_FIELDS};

use super::check::{Check, Verdict, excerpt};
use super::connection::{Buffer, Connection, Lost};
use super::result::Outcome;

/// Most bytes kept of the body of a refusal.
const KEPT: usize = 4 * 1024;

/// Longest head of a response.
const MAX_HEAD: usize = 64 * 1024;

/// What is expected of a reply, and how it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) template: &'a Template,
    pub(crate) nonce: [u8; NONCE],
    /// When it must be over, in nanoseconds of the clock.
    pub(crate) deadline: u64,
    /// How long to wait after each read.
    pub(crate) pause: Duration,
    /// Most bytes read at once.
    pub(crate) room: usize,
    /// Whether the turn state is wanted.
    pub(crate) keeps_state: bool,
}

/// What came of a request. Times are nanoseconds of the clock; zero where something did not happen.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) outcome: Outcome,
    /// What went wrong, in words.
    pub(crate) text: Option<String>,
    pub(crate) first_byte: u64,
    pub(crate) first_content: u64,
    pub(crate) ended: u64,
    /// When the first event was sent by the mock and when it came.
    pub(crate) first_event: Option<(u64, u64)>,
    /// When the mock had the request.
    pub(crate) received: u64,
    /// When the last event came.
    last_event: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) account: Option<[u8; ACCOUNT]>,
    pub(crate) turn_state: Option<Vec<u8>>,
    /// Whether the connection can be used again.
    pub(crate) is_reusable: bool,
}

impl Reply {
    /// A reply of which nothing has come.
    pub(crate) fn none(outcome: Outcome, text: Option<String>, ended: u64) -> Self {
        Self {
            outcome,
            text,
            first_byte: 0,
            first_content: 0,
            ended,
            first_event: None,
            received: 0,
            last_event: 0,
            events: 0,
            bytes: 0,
            account: None,
            turn_state: None,
            is_reusable: false,
        }
    }

    /// What the way there and back added to the first event, for a request sent at this time.
    pub(crate) fn added(&self, sent: u64) -> Option<u64> {
        let (left, came) = self.first_event?;
        let there = self.received.checked_sub(sent)?;
        Some(there + came.checked_sub(left)?)
    }
}

/// Where in a reply the next byte belongs.
#[derive(Debug)]
enum Place {
    /// In the head, of which this much has come.
    Head(Vec<u8>),
    /// In a body that is checked.
    Body(BodyDecoder),
    /// In the body of a refusal with this status, of which this much has come.
    Refusal(u16, BodyDecoder, Vec<u8>),
}

/// A reply that is arriving.
#[derive(Debug)]
struct Arriving {
    place: Place,
    check: Check,
    reply: Reply,
}

/// Reads the reply to a request that was sent. `event` is told of each event behind the first: the time since
/// the last one, and how long it was on its way.
pub(crate) async fn reply(
    connection: &mut Connection,
    buffer: &Buffer,
    expected: &Expected<'_>,
    mut event: impl FnMut(u64, u64),
) -> Reply {
    let reply = Reply::none(Outcome::Ok, None, 0);
    let mut arriving = Arriving { place: Place::Head(Vec::new()), check: Check::new(expected.nonce), reply };
    loop {
        let take = |bytes: &[u8], time: u64| {
            if arriving.reply.first_byte == 0 {
                arriving.reply.first_byte = time;
            }
            arriving.reply.ended = time;
            arriving.take(bytes, time, expected, &mut event)
        };
        match connection.read(buffer, expected.room, expected.deadline, take).await {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return arriving.finish(),
            Err(lost) => return arriving.lost(&lost, expected),
        }
        if !expected.pause.is_zero() {
            tokio::time::sleep(expected.pause).await;
        }
    }
}

impl Arriving {
    fn take(
        &mut self,
        bytes: &[u8],
        time: u64,
        expected: &Expected<'_>,
        event: &mut impl FnMut(u64, u64),
    ) -> ControlFlow<()> {
        let mut input = bytes;
        let joined;
        if let Place::Head(earlier) = &mut self.place {
            // A head nearly always comes whole, and is read where it is.
            if !earlier.is_empty() {
                earlier.extend_from_slice(input);
                joined = std::mem::take(earlier);
                input = &joined;
            }
            match self.head(input, expected) {
                Ok(Some(length)) => input = &input[length..],
                Ok(None) if input.len() > MAX_HEAD => {
                    return self.end(Outcome::ProtocolViolation, "the head does not end".to_owned());
                }
                Ok(None) => {
                    self.place = Place::Head(input.to_vec());
                    return ControlFlow::Continue(());
                }
                Err(problem) => return self.end(Outcome::ProtocolViolation, problem),
            }
        }
        self.body(input, time, expected, event)
    }

    fn body(
        &mut self,
        input: &[u8],
        time: u64,
        expected: &Expected<'_>,
        event: &mut impl FnMut(u64, u64),
    ) -> ControlFlow<()> {
        let (check, reply) = (&mut self.check, &mut self.reply);
        let decoded = match &mut self.place {
            Place::Body(decoder) => decoder.decode(input, |payload| {
                reply.bytes += payload.len() as u64;
                check.feed(expected.template, payload, |seen| reply.saw(seen.index, seen.sent, time, event));
            }),
            Place::Refusal(_, decoder, body) => decoder.decode(input, |payload| {
                reply.bytes += payload.len() as u64;
                let room = KEPT.saturating_sub(body.len()).min(payload.len());
                body.extend_from_slice(&payload[..room]);
            }),
            Place::Head(_) => return ControlFlow::Continue(()),
        };
        reply.received = check.received();
        reply.account = check.account();
        match decoded {
            Err(problem) => self.end(Outcome::ProtocolViolation, problem.to_string()),
            Ok(decoded) if !decoded.is_done => ControlFlow::Continue(()),
            Ok(decoded) => {
                self.judge(expected);
                if decoded.consumed < input.len() {
                    self.reply.is_reusable = false;
                    if self.reply.outcome == Outcome::Ok {
                        return self.end(Outcome::ProtocolViolation, "bytes behind the reply".to_owned());
                    }
                }
                ControlFlow::Break(())
            }
        }
    }

    /// Reads a head, if all of it is there; says how long it is.
    fn head(&mut self, input: &[u8], expected: &Expected<'_>) -> Result<Option<usize>, String> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let length = match head.parse(input) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(problem) => return Err(format!("no head: {problem}: {}", shown(input))),
        };
        let status = head.code.unwrap_or(0);
        if status < 200 {
            return Err(format!("an interim response with status {status}"));
        }
        let length_of = body_length(head.headers, status)?;
        let close = head.headers.iter().any(|field| {
            field.name.eq_ignore_ascii_case("connection") && field.value.eq_ignore_ascii_case(b"close")
        });
        self.reply.is_reusable = !close && head.version == Some(1) && length_of != BodyLength::UntilClose;
        if expected.keeps_state {
            let state =
                head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("x-codex-turn-state"));
            self.reply.turn_state = state.map(|field| field.value.to_vec());
        }
        let decoder = length_of.decoder();
        self.place = match status {
            200 => Place::Body(decoder),
            _ => Place::Refusal(status, decoder, Vec::new()),
        };
        Ok(Some(length))
    }

    /// Says what the reply is, now that all of it has come.
    fn judge(&mut self, expected: &Expected<'_>) {
        let (outcome, text) = match &self.place {
            Place::Refusal(status, _, body) => refusal(*status, body),
            Place::Head(_) | Place::Body(_) => judge(&self.check, expected.template),
        };
        self.reply.outcome = outcome;
        self.reply.text = text;
    }

    fn end(&mut self, outcome: Outcome, text: String) -> ControlFlow<()> {
        self.reply.outcome = outcome;
        self.reply.text = Some(text);
        self.reply.is_reusable = false;
        ControlFlow::Break(())
    }

    fn finish(self) -> Reply {
        self.reply
    }

    /// Says what the reply is when no more of it will come.
    fn lost(mut self, lost: &Lost, expected: &Expected<'_>) -> Reply {
        self.reply.is_reusable = false;
        self.reply.ended = mock_upstream::content::now();
        let is_until_close = matches!(self.place, Place::Body(BodyDecoder::UntilClose))
            || matches!(self.place, Place::Refusal(_, BodyDecoder::UntilClose, _));
        if is_until_close && matches!(lost, Lost::Closed) {
            self.judge(expected);
            return self.reply;
        }
        let (outcome, text) = end_of(lost, &self.check, expected.template);
        self.reply.outcome = outcome;
        self.reply.text = Some(text);
        self.reply
    }
}

impl Reply {
    /// Takes note of an event.
    pub(crate) fn saw(&mut self, index: usize, sent: u64, time: u64, event: &mut impl FnMut(u64, u64)) {
        if index == 0 {
            self.first_event = Some((sent, time));
        } else {
            if self.first_content == 0 {
                self.first_content = time;
            }
            event(time.saturating_sub(self.last_event), time.saturating_sub(sent));
        }
        self.events += 1;
        self.last_event = time;
    }
}

/// The outcome of a reply that has come whole.
pub(crate) fn judge(check: &Check, template: &Template) -> (Outcome, Option<String>) {
    match check.verdict(template) {
        Verdict::Whole => (Outcome::Ok, None),
        Verdict::Short => (Outcome::Truncated, Some("an orderly end before the terminal event".to_owned())),
        Verdict::Further(text) => (Outcome::ProtocolViolation, Some(text)),
        Verdict::Wrong(text) => (Outcome::WrongContent, Some(text)),
        Verdict::Failed(text) => (refused_in_band(&text), Some(text)),
    }
}

/// The outcome of a reply whose connection was lost.
pub(crate) fn end_of(lost: &Lost, check: &Check, template: &Template) -> (Outcome, String) {
    let way = match lost {
        Lost::Late => return (Outcome::Timeout, format!("not over in time; {} events", check.events())),
        Lost::Closed => "closed".to_owned(),
        Lost::Broken(error) => format!("broken: {error}"),
    };
    // What came before counts more than how it ended, unless it was right.
    match check.verdict(template) {
        Verdict::Failed(text) => (refused_in_band(&text), text),
        Verdict::Wrong(text) => (Outcome::WrongContent, text),
        Verdict::Further(text) => (Outcome::ProtocolViolation, text),
        Verdict::Whole | Verdict::Short => {
            (Outcome::Truncated, format!("{way} after {} events", check.events()))
        }
    }
}

/// Whose refusal an event or a message of failure is.
fn refused_in_band(text: &str) -> Outcome {
    if text.contains(ASKED_FOR) || !text.contains("service_unavailable") {
        Outcome::UpstreamError
    } else if is_for_want_of_room(text) {
        Outcome::Admission
    } else {
        Outcome::ProxyError
    }
}

/// Whose refusal a status is, and why.
pub(crate) fn refusal(status: u16, body: &[u8]) -> (Outcome, Option<String>) {
    let text = String::from_utf8_lossy(body);
    let outcome = if text.contains(ASKED_FOR) || status == 429 {
        Outcome::UpstreamError
    } else if matches!(status, 426 | 503 | 529) && is_for_want_of_room(&text) {
        Outcome::Admission
    } else {
        Outcome::ProxyError
    };
    (outcome, Some(format!("status {status}: {}", excerpt(&text))))
}

/// Whether a proxy's own words say that it has no room: ours, and those of others that are known.
fn is_for_want_of_room(text: &str) -> bool {
    const WORDS: [&str; 10] = [
        "in flight",
        "wait for a place",
        "place in the queue",
        "admission",
        "active_limit",
        "lane_limit",
        "proxy capacity",
        "overloaded",
        "too many",
        "upgrade_required",
    ];
    WORDS.iter().any(|word| text.contains(word))
}

fn body_length(fields: &[httparse::Header<'_>], status: u16) -> Result<BodyLength, String> {
    if status == 204 || status == 304 {
        return Ok(BodyLength::None);
    }
    let (mut length, mut chunked) = (None, false);
    for field in fields {
        if field.name.eq_ignore_ascii_case("content-length") {
            let number = std::str::from_utf8(field.value).ok().and_then(|text| text.parse::<u64>().ok());
            let number = number.ok_or("a content-length that is no number")?;
            if length.replace(number).is_some() {
                return Err("two lengths of a body".to_owned());
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if !field.value.eq_ignore_ascii_case(b"chunked") || chunked {
                return Err("a transfer coding that is not chunked".to_owned());
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err("a length and chunks at once".to_owned()),
        (Some(length), false) => Ok(BodyLength::Exact(length)),
        (None, true) => Ok(BodyLength::Chunked),
        (None, false) => Ok(BodyLength::UntilClose),
    }
}

fn shown(bytes: &[u8]) -> String {
    excerpt(&String::from_utf8_lossy(&bytes[..bytes.len().min(80)]))
}
