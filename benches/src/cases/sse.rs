//! Decoding a stream of events, as `wire::sse` gets it: in one write, in reads of 1 KiB, and in crumbs.

use wire::sse::Decoder;

use crate::case::{Amount, Case, Prepared};

pub(super) const CASES: &[Case] = &[
    Case { name: "sse/one-write", prepare: || decode(usize::MAX) },
    Case { name: "sse/writes-of-1024", prepare: || decode(1024) },
    // Nearly every write ends within a line, so that each line is put together.
    Case { name: "sse/writes-of-16", prepare: || decode(16) },
];

/// How much is decoded in one run.
const STREAM: usize = 64 * 1024;

/// Deltas of the length that the backend writes, about 200 bytes each.
fn stream() -> Vec<u8> {
    let mut stream = Vec::with_capacity(STREAM + 256);
    let mut number = 0;
    while stream.len() < STREAM {
        number += 1;
        let event = format!(
            "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\
             \"sequence_number\":{number},\"item_id\":\"msg_1\",\"output_index\":0,\"delta\":\"{}\"}}\n\n",
            "words ".repeat(1 + number % 12)
        );
        stream.extend_from_slice(event.as_bytes());
    }
    stream
}

fn decode(write: usize) -> Prepared {
    let stream = stream();
    Prepared::new(Amount::Bytes(stream.len() as u64), move || {
        let (mut decoder, mut events, mut bytes) = (Decoder::default(), 0, 0);
        for write in stream.chunks(write) {
            let each = |event: wire::sse::Event<'_>| {
                events += 1;
                bytes += event.data.len();
            };
            decoder.feed(write, each).expect("no event is too long");
        }
        assert!(events > STREAM / 400 && !decoder.is_mid_event(), "the stream is whole");
        bytes
    })
}
