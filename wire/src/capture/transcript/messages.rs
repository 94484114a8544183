//! The messages of one direction of a WebSocket, with the lengths of their frames.

use super::{Draft, Note};
use crate::capture::{Control, Direction, Entry, Payload, Rest, WebsocketClose, WebsocketMessage};
use crate::websocket::{FrameDecoder, FrameHeader, Opcode, Piece, apply_mask};

#[derive(Debug)]
pub(super) struct Messages {
    direction: Direction,
    /// Longest message that is kept whole.
    limit: usize,
    decoder: FrameDecoder,
    header: Option<FrameHeader>,
    /// The message that has begun: whether it is binary, and the lengths of its frames.
    message: Option<(bool, Vec<u64>)>,
    payload: Vec<u8>,
    control: Vec<u8>,
    is_broken: bool,
}

impl Messages {
    pub(super) fn new(direction: Direction, limit: usize) -> Self {
        Self {
            direction,
            limit,
            decoder: FrameDecoder::default(),
            header: None,
            message: None,
            payload: Vec::new(),
            control: Vec::new(),
            is_broken: false,
        }
    }

    /// Takes bytes, and tells the messages that end with them.
    pub(super) fn take(&mut self, at: f64, mut bytes: &[u8], draft: &mut Draft, notes: &mut Vec<Note>) {
        // A frame without payload ends behind its last byte, so it is asked once more.
        while !self.is_broken {
            match self.decoder.next(bytes) {
                Ok((count, piece)) => {
                    bytes = &bytes[count..];
                    match piece {
                        None => return,
                        Some(Piece::Header(header)) => self.begin(header),
                        Some(Piece::Payload { bytes, offset, ends_frame }) => {
                            self.append(bytes, offset, draft);
                            if ends_frame {
                                self.end_frame(at, draft, notes);
                            }
                        }
                    }
                }
                Err(error) => {
                    draft.miss(&format!("the frames of the WebSocket cannot be read: {error}"));
                    self.is_broken = true;
                }
            }
        }
    }

    fn begin(&mut self, header: FrameHeader) {
        self.header = Some(header);
        match header.opcode {
            Opcode::Text | Opcode::Binary => {
                self.message = Some((header.opcode == Opcode::Binary, vec![header.length]));
            }
            Opcode::Continuation => {
                if let Some((_, frames)) = &mut self.message {
                    frames.push(header.length);
                }
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
    }

    fn append(&mut self, bytes: &[u8], offset: u64, draft: &mut Draft) {
        let Some(header) = self.header else { return };
        let kept = if header.opcode.is_control() { &mut self.control } else { &mut self.payload };
        let room = self.limit.saturating_sub(kept.len()).min(bytes.len());
        if room < bytes.len() {
            draft.miss(&format!(
                "a message is longer than {} bytes, of which the rest is not kept",
                self.limit
            ));
        }
        let start = kept.len();
        kept.extend_from_slice(&bytes[..room]);
        if let Some(mask) = header.mask {
            apply_mask(mask, offset, &mut kept[start..]);
        }
    }

    fn end_frame(&mut self, at: f64, draft: &mut Draft, notes: &mut Vec<Note>) {
        let Some(header) = self.header.take() else { return };
        let (direction, id) = (self.direction, draft.id());
        let control = match header.opcode {
            Opcode::Close => {
                let payload = std::mem::take(&mut self.control);
                draft.note_close();
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                notes.push((at, Entry::WebsocketClose(WebsocketClose { direction, id, code, reason })));
                return;
            }
            Opcode::Ping => Some(Control::Ping),
            Opcode::Pong => Some(Control::Pong),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => None,
        };
        if control.is_none() && !header.is_final {
            return;
        }
        let (binary, frames, payload) = if control.is_some() {
            (false, Vec::new(), std::mem::take(&mut self.control))
        } else {
            let (binary, frames) = self.message.take().unwrap_or_default();
            (binary, frames, std::mem::take(&mut self.payload))
        };
        let frames = if frames.len() > 1 { frames } else { Vec::new() };
        let (message, rest) = (Payload(payload), Rest::new());
        let message = WebsocketMessage { direction, id, binary, control, message, frames, rest };
        notes.push((at, Entry::WebsocketMessage(message)));
    }

    /// The connection is over.
    pub(super) fn close(&self, draft: &mut Draft) {
        if self.message.is_some() || self.header.is_some() {
            draft.miss("a message was cut off");
        }
    }
}
