//! WebSockets of the faulty proxy: bytes both ways, or messages with what its defect makes of them.

use bytes::Buf as _;
use mock_upstream::playback::encode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::OwnedWriteHalf;
use wire::capture::{Direction, Message, MessageKind};
use wire::websocket::{FrameHeader, Opcode, apply_mask};

use super::Defect;
use super::link::{Link, Reader};
use super::message::Head;

/// Changes the answer to an upgrade.
pub(crate) fn handshake(head: &mut Head, defect: Defect) {
    let is_upgraded = head.first.contains(" 101 ");
    match defect {
        Defect::AgreesToDeflate if is_upgraded => head.add("sec-websocket-extensions", "permessage-deflate"),
        Defect::AddsSubprotocol if is_upgraded => head.add("sec-websocket-protocol", "chat"),
        Defect::DropsSubprotocol => head.remove("sec-websocket-protocol"),
        Defect::AcceptsWrongly if is_upgraded => {
            head.set("sec-websocket-accept", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        }
        Defect::RefusesWith502 if head.first.contains(" 426 ") => {
            head.first = "HTTP/1.1 502 Bad Gateway".into();
        }
        _ => {}
    }
}

/// Relays until both sides have ended.
pub(crate) async fn relay(defect: Option<Defect>, client: Link, upstream: Link) {
    let up = pump(defect, Direction::ClientToUpstream, client.read, upstream.write);
    let down = pump(defect, Direction::UpstreamToClient, upstream.read, client.write);
    tokio::join!(up, down);
}

async fn pump(defect: Option<Defect>, direction: Direction, mut from: Reader, mut to: OwnedWriteHalf) {
    let mut editor = defect.filter(|defect| takes_messages(*defect)).map(|defect| Editor {
        defect,
        direction,
        message: None,
        held: Vec::new(),
    });
    loop {
        let bytes = match &mut editor {
            None => from.ahead.split().to_vec(),
            Some(editor) => editor.edit(&mut from.ahead),
        };
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        if !matches!(from.more().await, Ok(1..)) {
            // The other side is told, and may still have something to say.
            let _ = to.shutdown().await;
            return;
        }
    }
}

fn takes_messages(defect: Defect) -> bool {
    defect as usize >= Defect::DropsPing as usize && defect as usize <= Defect::DropsCloseFrame as usize
}

struct Editor {
    defect: Defect,
    direction: Direction,
    message: Option<Message>,
    held: Vec<Vec<u8>>,
}

impl Editor {
    /// Takes the whole frames off the front, and says what goes on for them.
    fn edit(&mut self, ahead: &mut bytes::BytesMut) -> Vec<u8> {
        let mut out = Vec::new();
        while let Ok(Some((header, begin))) = FrameHeader::parse(ahead) {
            let end = begin + header.length as usize;
            if ahead.len() < end {
                break;
            }
            let mut payload = ahead[begin..end].to_vec();
            if let Some(mask) = header.mask {
                apply_mask(mask, 0, &mut payload);
            }
            ahead.advance(end);
            let kind = match header.opcode {
                Opcode::Text => MessageKind::Text,
                Opcode::Binary => MessageKind::Binary,
                Opcode::Ping => MessageKind::Ping,
                Opcode::Pong => MessageKind::Pong,
                Opcode::Close => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    payload.drain(..2);
                    MessageKind::Close(code)
                }
                Opcode::Continuation => {
                    let mut message = self.message.take().unwrap();
                    message.payload.extend(payload);
                    if header.is_final {
                        out.extend(self.message(message));
                    } else {
                        self.message = Some(message);
                    }
                    continue;
                }
            };
            let message = Message { at: 0.0, direction: self.direction, kind, payload, frames: Vec::new() };
            if header.is_final { out.extend(self.message(message)) } else { self.message = Some(message) }
        }
        out
    }

    fn message(&mut self, mut message: Message) -> Vec<u8> {
        let is_data = matches!(message.kind, MessageKind::Text | MessageKind::Binary);
        let is_down = self.direction == Direction::UpstreamToClient;
        match (self.defect, message.kind) {
            (Defect::DropsPing, MessageKind::Ping) | (Defect::DropsCloseFrame, MessageKind::Close(_)) => {
                return Vec::new();
            }
            (Defect::LosesCloseCode, MessageKind::Close(_)) => {
                (message.kind, message.payload) = (MessageKind::Close(1000), Vec::new());
            }
            (Defect::SendsBinary, MessageKind::Text) => message.kind = MessageKind::Binary,
            (Defect::CutsLongMessage, _) if is_data => message.payload.truncate(1 << 19),
            (Defect::ReencodesMessage, _) if is_data => {
                message.payload =
                    String::from_utf8_lossy(&message.payload).replace("\\u00e9", "é").into_bytes();
            }
            (Defect::SplitsMessages, _) if is_data && message.payload.len() > 20 => {
                let rest = Message { payload: message.payload.split_off(20), ..message.clone() };
                return [encode(&message, self.direction), encode(&rest, self.direction)].concat();
            }
            _ => {}
        }
        let bytes = encode(&message, self.direction);
        match self.defect {
            Defect::RepeatsMessage if is_data => bytes.repeat(2),
            Defect::SwapsMessages if is_down && is_data && self.held.is_empty() => {
                self.held.push(bytes);
                Vec::new()
            }
            Defect::GathersMessages if is_down && is_data => {
                self.held.push(bytes);
                let is_last = memchr::memmem::find(&message.payload, b"response.completed").is_some();
                if is_last { std::mem::take(&mut self.held).concat() } else { Vec::new() }
            }
            Defect::SwapsMessages if is_down && is_data => {
                [bytes, self.held.iter_mut().map(std::mem::take).collect::<Vec<_>>().concat()].concat()
            }
            _ => bytes,
        }
    }
}
