//! Replies as bytes that are ready but for their fields: a template with the framing around its events.
//!
//! A thread keeps the replies of the shapes that it was asked for last. To send an event is to copy its bytes
//! and to fill a few fields of fixed width in.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use wire::websocket::{FrameHeader, Opcode};

use crate::content::{Hole, Shape, Template};

/// How the events of a reply are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Framing {
    /// Each event of a stream is a chunk (RFC 9112 §7.1).
    Chunked,
    /// Each event is a text message (RFC 6455 §5.6).
    Messages,
    /// All of it is one body, whose length the head tells.
    Length,
}

/// What a thread keeps at most: replies, and bytes of them.
const MOST: (usize, usize) = (64, 256 << 20);

thread_local! {
    static READY: RefCell<HashMap<(Framing, Shape), Arc<Template>>> = RefCell::new(HashMap::new());
}

/// The reply of a shape.
pub(super) fn ready(framing: Framing, shape: Shape) -> Arc<Template> {
    READY.with_borrow_mut(|ready| {
        if let Some(reply) = ready.get(&(framing, shape)) {
            return Arc::clone(reply);
        }
        let reply = Arc::new(render(framing, shape));
        let bytes: usize = ready.values().map(|reply| reply.bytes.len()).sum();
        if ready.len() >= MOST.0 || bytes + reply.bytes.len() > MOST.1 {
            ready.clear();
        }
        ready.insert((framing, shape), Arc::clone(&reply));
        reply
    })
}

fn render(framing: Framing, shape: Shape) -> Template {
    match framing {
        Framing::Chunked => framed(&Template::sse(shape), chunk_begin, b"\r\n"),
        Framing::Messages => framed(&Template::messages(shape), frame_begin, b""),
        Framing::Length => Template::unary(shape.bytes),
    }
}

/// The head of a chunk.
pub(super) fn chunk_begin(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{length:x}\r\n").as_bytes());
}

/// The header of a text message in one frame, as a server sends it.
pub(super) fn frame_begin(length: usize, out: &mut Vec<u8>) {
    FrameHeader { is_final: true, opcode: Opcode::Text, mask: None, length: length as u64 }.encode(out);
}

/// A template with something before and behind each event.
fn framed(plain: &Template, begin: fn(usize, &mut Vec<u8>), end: &[u8]) -> Template {
    let (mut bytes, mut ends) = (Vec::with_capacity(plain.bytes.len() * 9 / 8), Vec::new());
    let mut holes = plain.holes.clone();
    let (mut start, mut hole) = (0, 0);
    for event_end in &plain.ends {
        begin(event_end - start, &mut bytes);
        let moved = bytes.len() - start;
        while let Some(Hole { at, .. }) = holes.get_mut(hole).filter(|hole| hole.at < *event_end) {
            *at += moved;
            hole += 1;
        }
        bytes.extend_from_slice(&plain.bytes[start..*event_end]);
        bytes.extend_from_slice(end);
        ends.push(bytes.len());
        start = *event_end;
    }
    Template { bytes, holes, ends }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Content, LineEnd, NONCE, TIME, Values, account_field, time_field};

    const SHAPE: Shape =
        Shape { events: 5, bytes: 100, line_end: LineEnd::Lf, in_one_write: false, content: Content::Answer };

    fn all(template: &Template) -> Vec<u8> {
        let nonce = [b'7'; NONCE];
        let values = Values { nonce, account: account_field(b"load-001"), received: time_field(1) };
        let (sent, mut out): ([u8; TIME], _) = (time_field(2), Vec::new());
        for event in 0..template.ends.len() {
            template.render(event, event + 1, &values, &sent, &mut out);
        }
        out
    }

    #[test]
    fn chunks_hold_the_events_of_the_contract() {
        let mut framed = all(&ready(Framing::Chunked, SHAPE));
        framed.extend_from_slice(b"0\r\n\r\n");
        let mut decoder = wire::http1::BodyLength::Chunked.decoder();
        let mut payload = Vec::new();
        let decoded = decoder.decode(&framed, |bytes| payload.extend_from_slice(bytes)).unwrap();
        assert!(decoder.is_done() && decoded.consumed == framed.len());
        assert_eq!(payload, all(&Template::sse(SHAPE)));
    }

    #[test]
    fn messages_hold_the_events_of_the_contract() {
        let framed = all(&ready(Framing::Messages, SHAPE));
        let (mut rest, mut payload) = (framed.as_slice(), Vec::new());
        while let Some((header, length)) = FrameHeader::parse(rest).unwrap() {
            assert!(header.is_final && header.opcode == Opcode::Text && header.mask.is_none());
            let end = length + usize::try_from(header.length).unwrap();
            payload.extend_from_slice(&rest[length..end]);
            rest = &rest[end..];
        }
        assert_eq!(payload, all(&Template::messages(SHAPE)));
    }

    #[test]
    fn a_thread_keeps_only_so_many() {
        for events in 0..200 {
            let _ = ready(Framing::Length, Shape { events, ..SHAPE });
        }
        assert!(READY.with_borrow(HashMap::len) <= MOST.0);
    }
}
