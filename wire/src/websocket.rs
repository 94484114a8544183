//! WebSocket frames as bytes (RFC 6455 §5): headers, masking, and where frames begin and end.
//!
//! The opening handshake and the meaning of messages live elsewhere. Extensions are not known here: a
//! frame with a reserved bit is an error, because the leg it came on never agreed to one.

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message that an earlier frame began.
    Continuation,
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// The close handshake.
    Close,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
}

impl Opcode {
    fn parse(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Whether this is a close, ping or pong, which may come between the frames of a message.
    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Why bytes are not a legal frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A reserved bit is set without an extension that gives it a meaning.
    #[error("a frame has a reserved bit set")]
    ReservedBit,
    /// An opcode that RFC 6455 does not define.
    #[error("a frame has an unknown opcode")]
    UnknownOpcode,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("a control frame is fragmented or too long")]
    BadControl,
    /// A length with its highest bit set.
    #[error("a frame is too long")]
    BadLength,
    /// A client's frame that is not masked, or a server's that is (RFC 6455 §5.1).
    #[error("a frame is masked that may not be, or is not and must be")]
    BadMask,
    /// A continuation without a message, or a new message within one.
    #[error("the fragments of a message are out of order")]
    BadFragment,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether the frame ends its message.
    pub is_final: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// The masking key; clients mask, servers do not.
    pub mask: Option<[u8; 4]>,
    /// Length of the payload in bytes.
    pub length: u64,
}

/// The longest header: two bytes, a 64-bit length, a masking key.
const MAX_HEADER: usize = 14;

impl FrameHeader {
    /// Reads a header from the start of `bytes`; `None` until all of it is there. On success also says
    /// how many bytes it took.
    ///
    /// # Errors
    /// When no frame of RFC 6455 begins so.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let [first, second, ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(FrameError::ReservedBit);
        }
        let is_final = first & 0x80 != 0;
        let opcode = Opcode::parse(first & 0x0F).ok_or(FrameError::UnknownOpcode)?;
        let short = second & 0x7F;
        if opcode.is_control() && (!is_final || short > 125) {
            return Err(FrameError::BadControl);
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_length = if second & 0x80 == 0 { 0 } else { 4 };
        let end = 2 + extended + mask_length;
        if bytes.len() < end {
            return Ok(None);
        }
        let length = match extended {
            0 => u64::from(short),
            _ => bytes[2..2 + extended].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        if length >> 63 != 0 {
            return Err(FrameError::BadLength);
        }
        let mask = bytes[2 + extended..end].first_chunk().copied();
        Ok(Some((Self { is_final, opcode, mask, length }, end)))
    }

    /// Appends the header to `out`, with the shortest form of its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_final) << 7 | self.opcode.bits());
        let masked = u8::from(self.mask.is_some()) << 7;
        match (u8::try_from(self.length), u16::try_from(self.length)) {
            (Ok(length @ 0..=125), _) => out.push(masked | length),
            (_, Ok(length)) => {
                out.push(masked | 126);
                out.extend(length.to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend(self.length.to_be_bytes());
            }
        }
        out.extend(self.mask.into_iter().flatten());
    }
}

/// Appends an unmasked text message in one frame, as a server sends it.
pub fn encode_text(text: &str, out: &mut Vec<u8>) {
    let length = text.len() as u64;
    FrameHeader { is_final: true, opcode: Opcode::Text, mask: None, length }.encode(out);
    out.extend_from_slice(text.as_bytes());
}

/// Masks or unmasks `bytes`, which begin at `offset` of their frame's payload.
pub fn apply_mask(mask: [u8; 4], offset: u64, bytes: &mut [u8]) {
    // An offset modulo four fits everywhere; the pattern is turned so that it starts with `bytes`.
    let mut turned = mask;
    turned.rotate_left((offset % 4) as usize);
    for chunk in bytes.chunks_mut(4) {
        for (byte, key) in chunk.iter_mut().zip(turned) {
            *byte ^= key;
        }
    }
}

/// A piece of a stream of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A frame begins.
    Header(FrameHeader),
    /// The next bytes of the frame's payload, still masked. Each frame ends with such a piece, which is
    /// empty for a frame without payload.
    Payload {
        /// The bytes.
        bytes: &'a [u8],
        /// Where in the frame's payload they begin.
        offset: u64,
        /// Whether the frame ends with them.
        ends_frame: bool,
    },
}

/// Finds the frames in bytes that arrive in pieces of any size.
#[derive(Debug, Clone)]
pub struct FrameDecoder {
    header: [u8; MAX_HEADER],
    header_length: usize,
    current: Option<(FrameHeader, u64)>,
    /// Whether a message has begun and not ended.
    is_mid_message: bool,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self { header: [0; MAX_HEADER], header_length: 0, current: None, is_mid_message: false }
    }
}

impl FrameDecoder {
    /// Whether the input so far ends between two frames.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        self.header_length == 0 && self.current.is_none()
    }

    /// Takes bytes from the start of `input`: says how many, and which piece they make. No piece means
    /// that all of the input was taken and more is needed.
    ///
    /// # Errors
    /// When the bytes are no legal frames; the decoder must not be used again.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Option<Piece<'a>>), FrameError> {
        if let Some((header, offset)) = self.current {
            let left = header.length - offset;
            if input.is_empty() && left > 0 {
                return Ok((0, None));
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
            let ends_frame = take as u64 == left;
            self.current = if ends_frame { None } else { Some((header, offset + take as u64)) };
            return Ok((take, Some(Piece::Payload { bytes: &input[..take], offset, ends_frame })));
        }
        let earlier = self.header_length;
        let copied = input.len().min(MAX_HEADER - earlier);
        self.header[earlier..earlier + copied].copy_from_slice(&input[..copied]);
        let Some((header, length)) = FrameHeader::parse(&self.header[..earlier + copied])? else {
            self.header_length += copied;
            return Ok((copied, None));
        };
        self.check_order(header)?;
        self.header_length = 0;
        self.current = Some((header, 0));
        Ok((length - earlier, Some(Piece::Header(header))))
    }

    fn check_order(&mut self, header: FrameHeader) -> Result<(), FrameError> {
        if header.opcode.is_control() {
            return Ok(());
        }
        if self.is_mid_message != (header.opcode == Opcode::Continuation) {
            return Err(FrameError::BadFragment);
        }
        self.is_mid_message = !header.is_final;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The frames of a stream, payloads unmasked.
    fn read(pieces: &[&[u8]]) -> Result<Vec<(FrameHeader, Vec<u8>)>, FrameError> {
        let mut decoder = FrameDecoder::default();
        let mut frames: Vec<(FrameHeader, Vec<u8>)> = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let (taken, part) = decoder.next(rest)?;
                rest = &rest[taken..];
                match part {
                    Some(Piece::Header(header)) => frames.push((header, Vec::new())),
                    Some(Piece::Payload { bytes, offset, .. }) => {
                        let (header, payload) = frames.last_mut().unwrap();
                        let start = payload.len();
                        payload.extend_from_slice(bytes);
                        if let Some(mask) = header.mask {
                            apply_mask(mask, offset, &mut payload[start..]);
                        }
                    }
                    None => break,
                }
            }
        }
        assert!(decoder.is_at_boundary());
        Ok(frames)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let text = |is_final, opcode, mask, length| FrameHeader { is_final, opcode, mask, length };
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(read(&[&masked]).unwrap(), [(text(true, Opcode::Text, mask, 5), b"Hello".to_vec())]);
        let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x89, 0x00, 0x80, 0x02, 0x6c, 0x6f];
        assert_eq!(
            read(&[&fragmented]).unwrap(),
            [
                (text(false, Opcode::Text, None, 3), b"Hel".to_vec()),
                (text(true, Opcode::Ping, None, 0), vec![]),
                (text(true, Opcode::Continuation, None, 2), b"lo".to_vec()),
            ]
        );
    }

    #[test]
    fn what_is_not_a_frame_is_an_error() {
        for (bytes, error) in [
            (&[0xC1, 0x00][..], FrameError::ReservedBit),
            (&[0x83, 0x00], FrameError::UnknownOpcode),
            (&[0x09, 0x00], FrameError::BadControl),
            (&[0x89, 0x7E, 0x00, 0x7E], FrameError::BadControl),
            (&[0x82, 0x7F, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::BadLength),
            (&[0x80, 0x00], FrameError::BadFragment),
            (&[0x01, 0x00, 0x01, 0x00], FrameError::BadFragment),
        ] {
            assert_eq!(read(&[bytes]), Err(error), "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            frames in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..300), prop::option::of(any::<[u8; 4]>())), 0..5),
            size in 1_usize..50,
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (payload, mask) in frames {
                let length = payload.len() as u64;
                let header = FrameHeader { is_final: true, opcode: Opcode::Binary, mask, length };
                header.encode(&mut bytes);
                let start = bytes.len();
                bytes.extend(&payload);
                if let Some(mask) = mask {
                    apply_mask(mask, 0, &mut bytes[start..]);
                }
                expected.push((header, payload));
            }
            prop_assert_eq!(read(&bytes.chunks(size).collect::<Vec<_>>()).unwrap(), expected);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut decoder = FrameDecoder::default();
            let mut rest = &bytes[..];
            while let Ok((taken, Some(_))) = decoder.next(rest) {
                rest = &rest[taken..];
            }
        }
    }
}
