//! Messages put together from frames, for looking at; the frames themselves pass as they came.

use wire::websocket::{FrameDecoder, FrameError, FrameHeader, Opcode, Piece, apply_mask};

/// How much memory is kept for the next message.
const KEPT: usize = 64 * 1024;

/// What ended with a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A message; `text` is its payload, cut off at the assembler's limit.
    Message {
        /// Text or binary.
        kind: Opcode,
        /// The payload, unmasked.
        text: &'a [u8],
    },
    /// A frame of a message that goes on.
    Fragment,
    /// A close, ping or pong.
    Control {
        /// Whether it came between the frames of a message.
        is_mid_message: bool,
        /// Whether it is a close, behind which nothing comes.
        is_close: bool,
    },
}

/// Reads the frames of one direction.
#[derive(Debug)]
pub(super) struct Assembler {
    frames: FrameDecoder,
    header: Option<FrameHeader>,
    /// The kind of the message that has begun and not ended.
    message: Option<Opcode>,
    text: Vec<u8>,
    limit: usize,
    /// Whether frames must be masked; if not, they may not be.
    is_masked: bool,
}

impl Assembler {
    /// An assembler for what a client sends, which keeps at most `limit` bytes of a message.
    pub(super) fn of_client(limit: usize) -> Self {
        Self {
            frames: FrameDecoder::default(),
            header: None,
            message: None,
            text: Vec::new(),
            limit,
            is_masked: true,
        }
    }

    /// The same for what a server sends.
    pub(super) fn of_server(limit: usize) -> Self {
        Self { is_masked: false, ..Self::of_client(limit) }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether the input so far ends between two messages.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.message.is_none() && self.frames.is_at_boundary()
    }

    /// Takes bytes up to the end of the next frame: says how many, and what ended with it. Nothing ended
    /// when all of the input was taken and more is needed.
    ///
    /// # Errors
    /// When the bytes are no legal frames.
    pub(super) fn next<'a>(&'a mut self, input: &'a [u8]) -> Result<(usize, Option<Heard<'a>>), FrameError> {
        let mut taken = 0;
        loop {
            let (count, piece) = self.frames.next(&input[taken..])?;
            taken += count;
            match piece {
                None => return Ok((taken, None)),
                Some(Piece::Header(header)) if header.mask.is_some() != self.is_masked => {
                    return Err(FrameError::BadMask);
                }
                Some(Piece::Header(header)) => self.begin(header),
                Some(Piece::Payload { bytes, offset, ends_frame }) => {
                    // A payload comes behind its header.
                    let Some(header) = self.header else { continue };
                    if ends_frame {
                        self.header = None;
                    }
                    if header.opcode.is_control() {
                        if ends_frame {
                            let is_mid_message = self.message.is_some();
                            let is_close = header.opcode == Opcode::Close;
                            return Ok((taken, Some(Heard::Control { is_mid_message, is_close })));
                        }
                        continue;
                    }
                    let is_whole =
                        ends_frame && header.is_final && header.mask.is_none() && self.text.is_empty();
                    if !is_whole {
                        self.append(header, bytes, offset);
                    }
                    if ends_frame {
                        return Ok((taken, Some(self.end(header, is_whole.then_some(bytes)))));
                    }
                }
            }
        }
    }

    fn begin(&mut self, header: FrameHeader) {
        self.header = Some(header);
        if matches!(header.opcode, Opcode::Text | Opcode::Binary) {
            self.message = Some(header.opcode);
            self.forget();
        }
    }

    /// Forgets the message that was heard last. An unusually long one does not keep its memory: it may be
    /// the last for hours.
    pub(super) fn forget(&mut self) {
        if self.text.capacity() > KEPT {
            self.text = Vec::new();
        } else {
            self.text.clear();
        }
    }

    /// Hands out the payload of the client's message that was heard last, and keeps nothing of it.
    pub(super) fn take_text(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    fn append(&mut self, header: FrameHeader, bytes: &[u8], offset: u64) {
        let room = self.limit.saturating_sub(self.text.len());
        let start = self.text.len();
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if let Some(mask) = header.mask {
            apply_mask(mask, offset, &mut self.text[start..]);
        }
    }

    fn end<'a>(&'a mut self, header: FrameHeader, whole: Option<&'a [u8]>) -> Heard<'a> {
        if !header.is_final {
            return Heard::Fragment;
        }
        // The decoder has checked that a message had begun.
        let kind = self.message.take().unwrap_or(Opcode::Text);
        Heard::Message { kind, text: whole.unwrap_or(&self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(is_final: bool, opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        FrameHeader { is_final, opcode, mask, length: payload.len() as u64 }.encode(&mut out);
        let start = out.len();
        out.extend_from_slice(payload);
        if let Some(mask) = mask {
            apply_mask(mask, 0, &mut out[start..]);
        }
        out
    }

    fn hear(assembler: &mut Assembler, input: &[u8]) -> Vec<String> {
        let (mut rest, mut heard) = (input, Vec::new());
        loop {
            let (taken, what) = assembler.next(rest).unwrap();
            rest = &rest[taken..];
            match what {
                Some(Heard::Message { text, .. }) => heard.push(String::from_utf8(text.to_vec()).unwrap()),
                Some(other) => heard.push(format!("{other:?}")),
                None => return heard,
            }
        }
    }

    #[test]
    fn messages_come_together_however_they_are_cut() {
        for mask in [None, Some([1, 2, 3, 4])] {
            let bytes = [
                frame(true, Opcode::Text, mask, b"one"),
                frame(false, Opcode::Text, mask, b"tw"),
                frame(true, Opcode::Ping, mask, b"ping"),
                frame(true, Opcode::Continuation, mask, b"o"),
                frame(true, Opcode::Close, mask, b""),
            ]
            .concat();
            let expected = [
                "one",
                "Fragment",
                "Control { is_mid_message: true, is_close: false }",
                "two",
                "Control { is_mid_message: false, is_close: true }",
            ];
            let new = if mask.is_some() { Assembler::of_client } else { Assembler::of_server };
            assert_eq!(hear(&mut new(100), &bytes), expected);
            let mut assembler = new(100);
            let pieces: Vec<String> = bytes.chunks(1).flat_map(|byte| hear(&mut assembler, byte)).collect();
            assert_eq!(pieces, expected);
            assert!(assembler.is_at_boundary());
        }
    }

    #[test]
    fn a_long_message_is_cut_off_for_looking_at_only() {
        let mut assembler = Assembler::of_client(3);
        let mask = Some([9; 4]);
        assert_eq!(hear(&mut assembler, &frame(true, Opcode::Text, mask, b"abcdef")), ["abc"]);
        assert_eq!(hear(&mut assembler, &frame(true, Opcode::Text, mask, b"x")), ["x"]);
    }

    #[test]
    fn what_was_heard_costs_no_memory() {
        let long = vec![b'x'; 2 * KEPT];
        let mut assembler = Assembler::of_client(usize::MAX);
        hear(&mut assembler, &frame(true, Opcode::Text, Some([9; 4]), &long));
        assert_eq!((assembler.take_text(), assembler.text.capacity()), (long.clone(), 0));
        let mut assembler = Assembler::of_server(usize::MAX);
        for part in frame(true, Opcode::Text, None, &long).chunks(KEPT) {
            hear(&mut assembler, part);
        }
        assembler.forget();
        assert_eq!(assembler.text.capacity(), 0);
    }

    #[test]
    fn clients_mask_and_servers_do_not() {
        let (plain, masked) =
            (frame(true, Opcode::Ping, None, b""), frame(true, Opcode::Ping, Some([1; 4]), b""));
        assert_eq!(Assembler::of_client(9).next(&plain), Err(FrameError::BadMask));
        assert_eq!(Assembler::of_server(9).next(&masked), Err(FrameError::BadMask));
        assert!(
            Assembler::of_client(9).next(&masked).is_ok() && Assembler::of_server(9).next(&plain).is_ok()
        );
    }
}
