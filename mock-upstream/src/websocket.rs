//! The WebSocket transport: the handshake, the messages of a client in turn, and what is sent for each.
//!
//! Frames are tungstenite's, an implementation that shares nothing with the proxies under test. Extensions
//! are declined: `permessage-deflate` would hide what was sent. While something is being sent or waited
//! for, the client's side is read too, so that its going away is noticed at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame as RawFrame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use wire::capture::{Closing, Direction};
use wire::http1::RequestHead;

use crate::chatgpt::{Body, Incoming, Plan, Refusal};
use crate::connection::{Connection, Gone, Socket};
use crate::fault::{At, End, Fault};
use crate::journal::{HowEnded, Kind};
use crate::metrics::count;
use crate::pacing::{Pacing, Schedule, WriteSize};
use crate::script::{CallName, Frame, Transport};
use crate::server::{Recorder, push_field};

/// Serves a WebSocket from its handshake to its end.
pub(crate) async fn serve(
    mut connection: Connection,
    head: &RequestHead,
    plan: Plan,
    recorder: &Recorder<'_>,
) {
    let number = connection.id;
    match shake(&mut connection, head, &plan, recorder).await {
        Ok(None) => {}
        Ok(Some(end)) => return break_connection(connection, &end, recorder).await,
        Err(Gone) => return recorder.end(HowEnded::ClientGone),
    }
    count(&recorder.backend.metrics.websockets);
    let (socket, ahead) = connection.into_parts();
    // The client has a limit of its own; the mock is to see everything.
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let stream = WebSocketStream::from_partially_read(socket, ahead, Role::Server, Some(config)).await;
    let mut talk = Talk { stream, head, number, recorder, waiting: VecDeque::new(), answered: 0 };
    match talk.run().await {
        Over::Done => recorder.end(HowEnded::Complete),
        Over::Gone => recorder.end(HowEnded::ClientGone),
        Over::Broken(end) => talk.break_off(&end).await,
    }
}

/// Longest message that is read: four times what Codex itself accepts.
const MAX_MESSAGE: usize = 64 << 20;

/// Most messages that wait while another is being answered. Codex sends one at a time.
const MAX_WAITING: usize = 64;

/// Accepts the handshake. Says how the connection ends if a fault ends it here.
async fn shake(
    connection: &mut Connection,
    head: &RequestHead,
    plan: &Plan,
    recorder: &Recorder<'_>,
) -> Result<Option<End>, Gone> {
    let mut schedule = Schedule::new(plan.pacing, recorder.backend.seed, recorder.id());
    connection.pause(schedule.head()).await?;
    if let Some(Fault { at: At::BeforeHead, end }) = &plan.fault {
        return Ok(Some(end.clone()));
    }
    let key = head.get("sec-websocket-key").unwrap_or_default();
    let mut reply = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    push_field(&mut reply, "upgrade", "websocket");
    push_field(&mut reply, "connection", "Upgrade");
    push_field(&mut reply, "sec-websocket-accept", &derive_accept_key(key));
    for (name, value) in &plan.headers {
        push_field(&mut reply, name, value);
    }
    reply.extend_from_slice(b"\r\n");
    recorder.head(101, &reply, false);
    connection.write(&reply).await?;
    Ok(plan.fault.as_ref().map(|fault| fault.end.clone()))
}

async fn break_connection(mut connection: Connection, end: &End, recorder: &Recorder<'_>) {
    match end {
        End::Reset => {
            recorder.end(HowEnded::Reset);
            connection.reset();
        }
        End::Hang => {
            connection.until_gone().await;
            recorder.end(HowEnded::Hang);
        }
        End::Fin | End::Eof | End::Short | End::Close { .. } => {
            recorder.end(HowEnded::Fin);
            connection.close().await;
        }
    }
}

/// How a WebSocket is over.
enum Over {
    /// The client closed it, or dropped it when nothing was going on.
    Done,
    /// The client went away while it was being answered.
    Gone,
    /// The mock ends it.
    Broken(End),
}

struct Talk<'a> {
    stream: WebSocketStream<Socket>,
    head: &'a RequestHead,
    /// The connection's number.
    number: u64,
    recorder: &'a Recorder<'a>,
    /// Messages that came while another was being answered.
    waiting: VecDeque<Message>,
    /// How many messages have been answered.
    answered: u64,
}

/// The client closed the WebSocket or went away.
struct Ended;

impl Talk<'_> {
    async fn run(&mut self) -> Over {
        loop {
            let message = match self.waiting.pop_front() {
                Some(message) => message,
                None => match self.receive().await {
                    Ok(message) => message,
                    Err(Ended) => return Over::Done,
                },
            };
            let plan = match &message {
                Message::Text(text) => self.answer(text.as_bytes()),
                Message::Binary(_) => Refusal::bad_request("a message is text").into_message(),
                _ => continue,
            };
            match self.play(&plan).await {
                Ok(None) => {}
                Ok(Some(end)) => return Over::Broken(end),
                Err(Ended) => return Over::Gone,
            }
        }
    }

    fn answer(&self, text: &[u8]) -> Plan {
        let backend = self.recorder.backend;
        if !wire::responses::RequestView::new(text).is_create() {
            return Refusal::bad_request("the message is no response.create").into_message();
        }
        count(&backend.metrics.model_requests);
        let plan = backend.answer(&Incoming {
            call: CallName::Responses,
            transport: Some(Transport::Websocket),
            head: self.head,
            body: text,
            connection: self.number,
        });
        self.recorder.violations(&plan);
        if plan.status >= 400 {
            count(&backend.metrics.refusals);
        }
        plan
    }

    /// Sends what is answered. Says how the connection ends if a fault ends it.
    async fn play(&mut self, plan: &Plan) -> Result<Option<End>, Ended> {
        // A message is never split over writes: that would only be TCP's business.
        let pacing = Pacing { write: WriteSize::Event, ..plan.pacing };
        // The handshake has the stream of the exchange itself.
        self.answered += 1;
        let stream = self.recorder.id() << 32 | self.answered;
        let mut schedule = Schedule::new(pacing, self.recorder.backend.seed, stream);
        self.pause(schedule.head()).await?;
        let mut frames = self.frames(plan, &mut schedule);
        let end = plan.fault.as_ref().map(|fault| {
            cut(fault.at, &mut frames);
            fault.end.clone()
        });
        let joined = plan.pacing.write == WriteSize::All;
        for (pause, frame) in frames {
            self.pause(pause).await?;
            if let Some(end) = self.send(frame, joined, plan.rule.as_ref()).await? {
                return Ok(Some(end));
            }
        }
        if joined {
            self.stream.flush().await.map_err(|_| Ended)?;
        }
        Ok(end)
    }

    /// The frames of a plan with the pause before each.
    fn frames(&self, plan: &Plan, schedule: &mut Schedule) -> Vec<(Duration, Frame)> {
        match &plan.body {
            Body::Pieces(pieces) => {
                let steps = schedule.steps(pieces).into_iter();
                let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
                steps.map(|step| (step.pause, Frame::Text(text(&step.data)))).collect()
            }
            Body::Frames(frames) => {
                let gap = Duration::from_millis(plan.pacing.gap_ms);
                let mut paced = Vec::with_capacity(frames.len());
                let mut pause = Duration::from_millis(plan.pacing.first_event_ms);
                for frame in frames {
                    match frame {
                        Frame::PauseMs(length) => pause += Duration::from_millis(*length),
                        frame => paced.push((std::mem::replace(&mut pause, gap), frame.clone())),
                    }
                }
                paced
            }
            Body::Upgrade => Vec::new(),
        }
    }

    /// Sends a frame. Says how the connection ends if this frame ends it.
    async fn send(
        &mut self,
        frame: Frame,
        joined: bool,
        rule: Option<&Arc<str>>,
    ) -> Result<Option<End>, Ended> {
        let (kind, payload, message) = match frame {
            Frame::Text(text) => (Kind::Text, text.clone(), Message::text(text)),
            Frame::Fragments(parts) => {
                let (to, kind, payload) = (Direction::UpstreamToClient, Kind::Text, parts.concat());
                // A single frame is a message like any other.
                let lengths = parts.iter().map(|part| part.len() as u64).filter(|_| parts.len() > 1);
                self.recorder.frames(to, kind, payload.into(), lengths.collect(), rule);
                for frame in fragments(&parts) {
                    self.put(frame, joined).await?;
                }
                return Ok(None);
            }
            Frame::Binary(text) => {
                let data = Bytes::from(STANDARD.decode(&text).unwrap_or_default());
                self.recorder.message(Direction::UpstreamToClient, Kind::Binary, data.clone(), rule);
                return self.put(Message::Binary(data), joined).await.map(|()| None);
            }
            Frame::Ping(text) => (Kind::Ping, text.clone(), Message::Ping(text.into())),
            Frame::Close { code, reason } => return Ok(Some(End::Close { code, reason })),
            // A schedule has turned it into the pause before the next frame.
            Frame::PauseMs(_) => return Ok(None),
        };
        self.recorder.message(Direction::UpstreamToClient, kind, payload.into(), rule);
        self.put(message, joined).await.map(|()| None)
    }

    async fn put(&mut self, message: Message, joined: bool) -> Result<(), Ended> {
        let sent = if joined { self.stream.feed(message).await } else { self.stream.send(message).await };
        sent.map_err(|_| Ended)
    }

    /// Waits, and takes what the client sends meanwhile.
    async fn pause(&mut self, length: Duration) -> Result<(), Ended> {
        if length.is_zero() {
            return Ok(());
        }
        let until = Instant::now() + length;
        loop {
            // A dropped `receive` loses nothing: a message is handed out whole or not at all.
            tokio::select! {
                message = self.receive() => self.keep(message?)?,
                () = tokio::time::sleep_until(until) => return Ok(()),
            }
        }
    }

    fn keep(&mut self, message: Message) -> Result<(), Ended> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(Ended);
        }
        self.waiting.push_back(message);
        Ok(())
    }

    /// The next message of the client, entered into the journal.
    async fn receive(&mut self) -> Result<Message, Ended> {
        let received = self.stream.next().await;
        let from = Direction::ClientToUpstream;
        let (kind, payload) = match &received {
            Some(Ok(Message::Text(text))) => {
                count(&self.recorder.backend.metrics.messages);
                (Kind::Text, Bytes::copy_from_slice(text.as_bytes()))
            }
            Some(Ok(Message::Binary(data))) => {
                count(&self.recorder.backend.metrics.messages);
                (Kind::Binary, data.clone())
            }
            Some(Ok(Message::Ping(data))) => (Kind::Ping, data.clone()),
            Some(Ok(Message::Pong(data))) => (Kind::Pong, data.clone()),
            Some(Ok(Message::Close(frame))) => closed(frame.as_ref()),
            // Raw frames are only ever sent.
            Some(Ok(Message::Frame(_)) | Err(Error::ConnectionClosed)) | None => return Err(Ended),
            Some(Err(_)) => (Kind::Close(1006), Bytes::new()),
        };
        self.recorder.message(from, kind, payload, None);
        if let Kind::Close(_) = kind {
            // Lets the answer to the close frame out; the client may be gone already.
            let _ = self.stream.flush().await;
            return Err(Ended);
        }
        received.and_then(Result::ok).ok_or(Ended)
    }

    /// Ends the WebSocket as a script says.
    async fn break_off(mut self, end: &End) {
        let close = match end {
            End::Eof => Some((1000, "")),
            End::Close { code, reason } => Some((*code, reason.as_str())),
            End::Reset | End::Fin | End::Short | End::Hang => None,
        };
        if let Some((code, reason)) = close {
            let payload = Bytes::copy_from_slice(reason.as_bytes());
            self.recorder.message(Direction::UpstreamToClient, Kind::Close(code), payload, None);
            let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
            let _ = self.stream.close(Some(frame)).await;
            // The client answers with its own close frame, or is gone.
            let _ =
                tokio::time::timeout(CLOSE_HANDSHAKE, async { while self.receive().await.is_ok() {} }).await;
            return self.recorder.end(HowEnded::Complete);
        }
        match end {
            End::Hang => {
                self.stream.get_mut().settle(Closing::Hung);
                while self.receive().await.is_ok() {}
                self.recorder.end(HowEnded::Hang);
            }
            End::Reset => {
                self.recorder.end(HowEnded::Reset);
                self.stream.into_inner().reset();
            }
            End::Fin | End::Short | End::Eof | End::Close { .. } => self.recorder.end(HowEnded::Fin),
        }
    }
}

/// How long a client may take to answer a close frame.
const CLOSE_HANDSHAKE: Duration = Duration::from_secs(2);

fn closed(frame: Option<&CloseFrame>) -> (Kind, Bytes) {
    match frame {
        Some(frame) => (Kind::Close(frame.code.into()), Bytes::copy_from_slice(frame.reason.as_bytes())),
        // A close frame without a code (RFC 6455 §7.1.5).
        None => (Kind::Close(1005), Bytes::new()),
    }
}

/// A text message in several frames.
fn fragments(parts: &[String]) -> Vec<Message> {
    let last = parts.len().saturating_sub(1);
    let frame = |(at, part): (usize, &String)| {
        let opcode = if at == 0 { Data::Text } else { Data::Continue };
        Message::Frame(RawFrame::message(part.clone(), OpCode::Data(opcode), at == last))
    };
    parts.iter().enumerate().map(frame).collect()
}

/// Drops the frames that are not sent.
fn cut(at: At, frames: &mut Vec<(Duration, Frame)>) {
    match at {
        At::BeforeHead => frames.clear(),
        At::Events(count) => frames.truncate(count),
        At::Bytes(count) => {
            let mut sent = 0;
            frames.retain(|(_, frame)| {
                sent += match frame {
                    Frame::Text(text) | Frame::Binary(text) | Frame::Ping(text) => text.len(),
                    Frame::Fragments(parts) => parts.iter().map(String::len).sum(),
                    Frame::Close { .. } | Frame::PauseMs(_) => 0,
                };
                sent <= count
            });
        }
        At::End => {}
    }
}
