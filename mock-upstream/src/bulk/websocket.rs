//! WebSockets of a bulk mock: each message of the client is a turn, answered with the events as messages.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use wire::websocket::{FrameDecoder, FrameHeader, Opcode, Piece, apply_mask};

use super::Shared;
use super::connection::{Wire, open_turn};
use super::known::Known;
use super::turn::{self, Ending, Order, Reply};
use crate::connection::Gone;
use crate::content::{Ask, Fault, TURN_STATE_PREFIX};
use crate::metrics::count;

/// How much of a message is kept: what is asked for must stand in it.
const KEPT: usize = 64 * 1024;

/// The answer to a client's key.
pub(super) fn accept(key: &[u8]) -> String {
    derive_accept_key(key)
}

/// Serves a WebSocket from its handshake to its end.
pub(super) async fn serve(shared: &Shared, mut wire: Wire, known: Arc<Known>, accept: &str) {
    count(&shared.counters.websockets);
    let shake = |out: &mut Vec<u8>| {
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n");
        out.extend_from_slice(b"connection: Upgrade\r\nsec-websocket-accept: ");
        out.extend_from_slice(accept.as_bytes());
        out.extend_from_slice(b"\r\nx-codex-turn-state: ");
        out.extend_from_slice(TURN_STATE_PREFIX.as_bytes());
        out.extend_from_slice(&known.field);
        out.extend_from_slice(b"\r\n\r\n");
    };
    if wire.send(shared, shake).await.is_err() {
        return;
    }
    let mut messages = Messages::default();
    while let Ok(message) = wire.read(shared, |bytes| messages.take(bytes)).await {
        let ending = match message {
            Message::Text(text) => turn(shared, &mut wire, &known, &text).await,
            Message::Control(Opcode::Ping, payload) => {
                control(shared, &mut wire, Opcode::Pong, &payload).await
            }
            Message::Control(Opcode::Close, payload) => {
                let _ = control(shared, &mut wire, Opcode::Close, &payload).await;
                return;
            }
            Message::Control(..) => Ok(Ending::Clean),
            Message::Broken => {
                count(&shared.counters.bad_requests);
                return;
            }
        };
        match ending {
            Ok(Ending::Clean) => {}
            Ok(Ending::Fin) => return,
            Ok(Ending::Reset) => return wire.reset(),
            Ok(Ending::Silence) => return wire.until_gone().await,
            Err(Gone) => return count(&known.counts.client_gone),
        }
    }
}

async fn turn(shared: &Shared, wire: &mut Wire, known: &Arc<Known>, text: &[u8]) -> Result<Ending, Gone> {
    count(&known.counts.messages);
    let _open = open_turn(&shared.counters);
    let Some(ask) = Ask::find(text) else {
        count(&shared.counters.bad_requests);
        return error(shared, wire, 400, super::control::NO_ASK).await;
    };
    if let Some(what) = known.misplaced(text) {
        count(&known.counts.misplaced);
        return error(shared, wire, 400, what.body()).await;
    }
    let order = Order::new(ask, Reply::Messages, Arc::clone(known), false);
    if order.fault() != Fault::None {
        count(&known.counts.faults);
    }
    if let Some((status, body)) = order.refusal() {
        // A status line begins with its number.
        let status = status.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(500);
        return error(shared, wire, status, body).await;
    }
    turn::events(shared, wire, &order, false).await
}

/// Refuses a turn, as the backend does on a WebSocket.
async fn error(shared: &Shared, wire: &mut Wire, status: u16, body: &str) -> Result<Ending, Gone> {
    let inner = body.strip_prefix('{').unwrap_or(body);
    let text = format!(r#"{{"type":"error","status":{status},{inner}"#);
    let render = |out: &mut Vec<u8>| {
        super::reply::frame_begin(text.len(), out);
        out.extend_from_slice(text.as_bytes());
    };
    wire.send(shared, render).await.map(|_| Ending::Clean)
}

async fn control(shared: &Shared, wire: &mut Wire, opcode: Opcode, payload: &[u8]) -> Result<Ending, Gone> {
    let render = |out: &mut Vec<u8>| {
        FrameHeader { is_final: true, opcode, mask: None, length: payload.len() as u64 }.encode(out);
        out.extend_from_slice(payload);
    };
    wire.send(shared, render).await.map(|_| Ending::Clean)
}

/// Something that a client has said.
enum Message {
    /// The beginning of a message, at most [`KEPT`] bytes of it.
    Text(Vec<u8>),
    Control(Opcode, Vec<u8>),
    /// Bytes that are no frames of a client.
    Broken,
}

/// Puts messages together from frames.
#[derive(Default)]
struct Messages {
    frames: FrameDecoder,
    header: Option<FrameHeader>,
    text: Vec<u8>,
    control: Vec<u8>,
}

impl Messages {
    /// Takes bytes up to the end of a message.
    fn take(&mut self, bytes: &[u8]) -> (usize, Option<Message>) {
        let mut used = 0;
        loop {
            match self.frames.next(&bytes[used..]) {
                Err(_) => return (bytes.len(), Some(Message::Broken)),
                Ok((taken, None)) => return (used + taken, None),
                Ok((taken, Some(Piece::Header(header)))) => {
                    used += taken;
                    if header.mask.is_none() {
                        return (bytes.len(), Some(Message::Broken));
                    }
                    self.header = Some(header);
                }
                Ok((taken, Some(Piece::Payload { bytes: payload, offset, ends_frame }))) => {
                    used += taken;
                    if let Some(message) = self.payload(payload, offset, ends_frame) {
                        return (used, Some(message));
                    }
                }
            }
        }
    }

    fn payload(&mut self, payload: &[u8], offset: u64, ends_frame: bool) -> Option<Message> {
        let header = self.header?;
        let is_control = header.opcode.is_control();
        let into = if is_control { &mut self.control } else { &mut self.text };
        let start = into.len();
        let room = KEPT.saturating_sub(start).min(payload.len());
        into.extend_from_slice(&payload[..room]);
        apply_mask(header.mask?, offset, &mut into[start..]);
        match (ends_frame, is_control) {
            (true, true) => Some(Message::Control(header.opcode, std::mem::take(&mut self.control))),
            (true, false) if header.is_final => Some(Message::Text(std::mem::take(&mut self.text))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: Opcode, is_final: bool, text: &[u8], out: &mut Vec<u8>) {
        let mask = [1, 2, 3, 4];
        FrameHeader { is_final, opcode, mask: Some(mask), length: text.len() as u64 }.encode(out);
        let start = out.len();
        out.extend_from_slice(text);
        apply_mask(mask, 0, &mut out[start..]);
    }

    proptest! {
        #[test]
        fn messages_are_put_together_however_they_are_cut(size in 1_usize..40) {
            let mut bytes = Vec::new();
            frame(Opcode::Text, false, b"first ", &mut bytes);
            frame(Opcode::Ping, true, b"there?", &mut bytes);
            frame(Opcode::Continuation, true, b"message", &mut bytes);
            frame(Opcode::Text, true, b"second", &mut bytes);
            let (mut messages, mut seen) = (Messages::default(), Vec::new());
            for piece in bytes.chunks(size) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let (used, message) = messages.take(rest);
                    rest = &rest[used..];
                    seen.extend(message.map(|message| match message {
                        Message::Text(text) | Message::Control(_, text) => String::from_utf8(text).unwrap(),
                        Message::Broken => "broken".into(),
                    }));
                }
            }
            prop_assert_eq!(seen, ["there?", "first message", "second"]);
        }
    }
}
