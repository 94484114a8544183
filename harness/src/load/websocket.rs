//! Turns on a WebSocket, as Codex takes them: one at a time, many on one socket.

use std::ops::ControlFlow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mock_upstream::content::now;
use wire::websocket::{FrameDecoder, FrameHeader, Opcode, Piece, apply_mask};

use super::arrivals::mix;
use super::check::{Check, Verdict};
use super::connection::{Buffer, Connection, Lost};
use super::http::{Expected, Reply, end_of, judge, refusal};
use super::plan::Target;
use super::request::{Filling, Prepared};
use super::result::Outcome;

/// The key with which a socket is opened; any will do (RFC 6455 §4.1).
const KEY: [u8; 16] = *b"a load driver's!";

/// What the accepting side appends to the key (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Longest head of the answer to an upgrade, and of an error in its place.
const MAX_HEAD: usize = 64 * 1024;

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) connection: Connection,
    decoder: FrameDecoder,
    /// What masks are made from.
    seed: u64,
    frames: u64,
    scratch: Vec<u8>,
}

/// What is known of the message that is arriving.
#[derive(Debug, Default)]
struct Message {
    opcode: Option<Opcode>,
    is_final: bool,
    /// Events that had come before it.
    events: usize,
    /// The payload of a control frame.
    control: Vec<u8>,
    /// Pings to answer.
    pongs: Vec<Vec<u8>>,
    /// Whether there were bytes behind the message that ended the turn.
    has_more: bool,
}

impl Socket {
    /// Connects and opens one.
    ///
    /// # Errors
    /// What the attempt counts as, and why.
    pub(crate) async fn open(
        target: &Target,
        filling: &Filling<'_>,
        buffer: &Buffer,
        deadline: u64,
    ) -> Result<Self, (Outcome, String)> {
        let mut connection =
            Connection::open(target.address, deadline).await.map_err(|text| (Outcome::Connect, text))?;
        let key = STANDARD.encode(KEY);
        let mut request = Prepared::upgrade(target, &key);
        request.fill(filling);
        let lost = |lost: &Lost| match lost {
            Lost::Late => (Outcome::Timeout, "no answer to the upgrade in time".to_owned()),
            Lost::Closed => (Outcome::Truncated, "closed before the answer to the upgrade".to_owned()),
            Lost::Broken(error) => {
                (Outcome::Truncated, format!("broken before the answer to the upgrade: {error}"))
            }
        };
        connection.start(&request.bytes).map_err(|error| lost(&error))?;
        connection.flush(deadline).await.map_err(|error| lost(&error))?;
        let mut answer = Vec::new();
        loop {
            let read =
                connection.read(buffer, usize::MAX, deadline, |bytes, _| answer.extend_from_slice(bytes));
            let read = read.await;
            match wire::http1::ResponseHead::parse(&answer) {
                Err(problem) => return Err((Outcome::ProtocolViolation, problem.to_string())),
                Ok(Some((head, length))) if head.status() == 101 => {
                    if head.get("sec-websocket-accept") != Some(accept(&key).as_bytes()) {
                        let text = "the answer to the upgrade accepts another key".to_owned();
                        return Err((Outcome::ProtocolViolation, text));
                    }
                    if length != answer.len() {
                        let text = "bytes behind the answer to the upgrade".to_owned();
                        return Err((Outcome::ProtocolViolation, text));
                    }
                    let seed = u64::from(connection.used as u32) ^ u64::from(std::process::id());
                    let decoder = FrameDecoder::default();
                    return Ok(Self { connection, decoder, seed, frames: 0, scratch: Vec::new() });
                }
                Ok(Some((head, length))) => {
                    let whole = head.body_length(false).is_ok_and(|body| {
                        body.decoder().decode(&answer[length..], |_| {}).is_ok_and(|decoded| decoded.is_done)
                    });
                    if whole || read.is_err() || answer.len() > MAX_HEAD {
                        let (outcome, text) = refusal(head.status(), &answer[length..]);
                        return Err((outcome, text.unwrap_or_default()));
                    }
                }
                Ok(None) => {}
            }
            read.map_err(|error| lost(&error))?;
        }
    }

    /// Sends a message and reads its reply.
    pub(crate) async fn turn(
        &mut self,
        message: &[u8],
        buffer: &Buffer,
        expected: &Expected<'_>,
        mut event: impl FnMut(u64, u64),
    ) -> Reply {
        let mut reply = Reply::none(Outcome::Ok, None, 0);
        let mut check = Check::new(expected.nonce);
        let mut state = Message::default();
        self.frame(Opcode::Text, message);
        let sent = self.connection.start(&self.scratch);
        let sent = match sent {
            Ok(()) => self.connection.flush(expected.deadline).await,
            Err(lost) => Err(lost),
        };
        if let Err(lost) = sent {
            return ended(reply, end_of(&lost, &check, expected.template));
        }
        loop {
            let decoder = &mut self.decoder;
            let read = self.connection.read(buffer, expected.room, expected.deadline, |bytes, time| {
                if reply.first_byte == 0 {
                    reply.first_byte = time;
                }
                reply.ended = time;
                state.take(decoder, bytes, expected, &mut check, &mut |index, sent| {
                    reply.saw(index, sent, time, &mut event);
                })
            });
            let read = read.await;
            for payload in std::mem::take(&mut state.pongs) {
                self.frame(Opcode::Pong, &payload);
                // If the connection is lost, the next read says so.
                let _ = self.connection.start(&self.scratch);
                let _ = self.connection.flush(expected.deadline).await;
            }
            reply.received = check.received();
            reply.account = check.account();
            reply.bytes = check.bytes();
            match read {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(Ok(()))) => {
                    let (outcome, text) = judge(&check, expected.template);
                    // A failure is a message like any other; behind anything else nothing can be trusted.
                    reply.is_reusable =
                        matches!(outcome, Outcome::Ok | Outcome::UpstreamError) && !state.has_more;
                    (reply.outcome, reply.text) = (outcome, text);
                    return reply;
                }
                Ok(ControlFlow::Break(Err((outcome, text)))) => {
                    let told = match check.verdict(expected.template) {
                        Verdict::Failed(_) => judge(&check, expected.template),
                        _ => (outcome, Some(text)),
                    };
                    (reply.outcome, reply.text) = told;
                    return reply;
                }
                Err(lost) => return ended(reply, end_of(&lost, &check, expected.template)),
            }
            if !expected.pause.is_zero() {
                tokio::time::sleep(expected.pause).await;
            }
        }
    }

    /// Puts a masked frame into the scratch buffer.
    fn frame(&mut self, opcode: Opcode, payload: &[u8]) {
        self.frames += 1;
        let mask = (mix(self.seed, self.frames) as u32).to_be_bytes();
        self.scratch.clear();
        let length = payload.len() as u64;
        FrameHeader { is_final: true, opcode, mask: Some(mask), length }.encode(&mut self.scratch);
        let at = self.scratch.len();
        self.scratch.extend_from_slice(payload);
        apply_mask(mask, 0, &mut self.scratch[at..]);
    }
}

/// What a turn's end means: good, or an outcome and why.
type End = Result<(), (Outcome, String)>;

impl Message {
    /// Takes bytes of frames.
    fn take(
        &mut self,
        decoder: &mut FrameDecoder,
        bytes: &[u8],
        expected: &Expected<'_>,
        check: &mut Check,
        seen: &mut impl FnMut(usize, u64),
    ) -> ControlFlow<End> {
        let violation = |text: &str| ControlFlow::Break(Err((Outcome::ProtocolViolation, text.to_owned())));
        let mut rest = bytes;
        loop {
            let (taken, piece) = match decoder.next(rest) {
                Ok(next) => next,
                Err(problem) => return violation(&problem.to_string()),
            };
            rest = &rest[taken..];
            match piece {
                None => return ControlFlow::Continue(()),
                Some(Piece::Header(header)) => {
                    if header.mask.is_some() {
                        return violation("a server's frame is masked");
                    }
                    if header.opcode == Opcode::Binary {
                        return violation("a binary message");
                    }
                    self.opcode = Some(header.opcode);
                    self.is_final = header.is_final;
                    self.control.clear();
                }
                Some(Piece::Payload { bytes, ends_frame, .. }) => {
                    let opcode = self.opcode.unwrap_or(Opcode::Text);
                    if opcode.is_control() {
                        self.control.extend_from_slice(bytes);
                        if !ends_frame {
                            continue;
                        }
                        match opcode {
                            Opcode::Ping => self.pongs.push(std::mem::take(&mut self.control)),
                            Opcode::Close => {
                                let code = self.control.first_chunk().map(|code| u16::from_be_bytes(*code));
                                let code = code.map_or("no code".to_owned(), |code| format!("code {code}"));
                                let text = format!("a close frame ({code}) after {} events", check.events());
                                return ControlFlow::Break(Err((Outcome::Truncated, text)));
                            }
                            _ => {}
                        }
                        continue;
                    }
                    check.feed(expected.template, bytes, |event| seen(event.index, event.sent));
                    if !(ends_frame && self.is_final) {
                        continue;
                    }
                    if check.is_diverged() {
                        self.has_more = !rest.is_empty();
                        return ControlFlow::Break(Ok(()));
                    }
                    // A client reads each message as one text of JSON.
                    let is_one = check.events() == self.events + 1;
                    if !(is_one && check.is_between_events(expected.template)) {
                        return violation("a message that is not one event");
                    }
                    self.events = check.events();
                    if check.is_whole(expected.template) {
                        if !rest.is_empty() {
                            return violation("frames behind the last event");
                        }
                        return ControlFlow::Break(Ok(()));
                    }
                }
            }
        }
    }
}

fn ended(mut reply: Reply, (outcome, text): (Outcome, String)) -> Reply {
    reply.outcome = outcome;
    reply.text = Some(text);
    reply.is_reusable = false;
    reply.ended = now();
    reply
}

/// What the answer to an upgrade with this key must say (RFC 6455 §4.2.2).
fn accept(key: &str) -> String {
    let text = [key.as_bytes(), GUID].concat();
    STANDARD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &text))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mock_upstream::content::{NONCE, TIME, Template, Values, account_field, time_field};

    use super::*;
    use crate::load::plan::Traffic;

    const NONE: [u8; NONCE] = [b'0'; NONCE];

    /// What is said of a reply whose events come in messages of these frames: each is the numbers of the events in
    /// it, the part of them, and whether it ends its message.
    fn told(template: &Template, frames: &[Vec<u8>]) -> ControlFlow<End> {
        let expected = Expected {
            template,
            nonce: NONE,
            deadline: 0,
            pause: Duration::ZERO,
            room: 1,
            keeps_state: false,
        };
        let (mut state, mut check, mut decoder) =
            (Message::default(), Check::new(NONE), FrameDecoder::default());
        for frame in frames {
            let told = state.take(&mut decoder, frame, &expected, &mut check, &mut |_, _| {});
            if told.is_break() {
                return told;
            }
        }
        ControlFlow::Continue(())
    }

    fn frame(opcode: Opcode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        FrameHeader { is_final, opcode, mask: None, length: payload.len() as u64 }.encode(&mut frame);
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn every_message_is_one_event_however_it_is_fragmented() {
        let template = Template::messages(Traffic { events: 1, bytes: 9, ..Traffic::default() }.shape());
        let values = Values { nonce: NONE, account: account_field(b"one"), received: [b'1'; TIME] };
        let events: Vec<Vec<u8>> = (0..3)
            .map(|event| {
                let mut out = Vec::new();
                template.render(event, event + 1, &values, &time_field(7), &mut out);
                out
            })
            .collect();
        let text = |payload: &[u8]| frame(Opcode::Text, true, payload);
        let [one, two, three] = [0, 1, 2].map(|event| text(&events[event]));
        let good = |frames: &[Vec<u8>]| matches!(told(&template, frames), ControlFlow::Break(Ok(())));
        assert!(good(&[one.clone(), two.clone(), three.clone()]));
        let begin = frame(Opcode::Text, false, &events[1][..5]);
        let ping = frame(Opcode::Ping, true, b"?");
        let end = frame(Opcode::Continuation, true, &events[1][5..]);
        assert!(good(&[one.clone(), begin.clone(), ping, end, three.clone()]));
        let violates = |frames: &[Vec<u8>]| {
            matches!(told(&template, frames), ControlFlow::Break(Err((Outcome::ProtocolViolation, _))))
        };
        assert!(violates(&[one.clone(), text(&[&events[1][..], &events[2]].concat())]));
        assert!(violates(&[text(&events.concat())]));
        assert!(violates(&[one.clone(), text(b"")]));
        assert!(violates(&[one.clone(), text(&events[1][..5]), text(&events[1][5..])]));
        assert!(violates(&[one.clone(), begin, text(&events[1][5..])]));
        assert!(violates(&[one, two, [three.clone(), three].concat()]));
    }

    #[test]
    fn the_key_of_the_standard_is_accepted_as_it_says() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
