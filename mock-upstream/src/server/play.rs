//! Playing a plan over HTTP/1.1: head, framing, writes, and the fault if there is one.
//!
//! What goes into one write is the schedule's decision and is kept to: nothing here buffers.

use wire::http1::RequestHead;

use super::exchange::{After, Recorder};
use crate::chatgpt::{Body, Plan};
use crate::connection::{Connection, Gone};
use crate::fault::{At, End, Fault};
use crate::journal::HowEnded;
use crate::pacing::{Schedule, Step};
use crate::script::Framing;

/// Plays a plan and says what becomes of the connection.
pub(super) async fn play(
    mut connection: Connection,
    request: &RequestHead,
    plan: Plan,
    recorder: &Recorder<'_>,
) -> After {
    let end = match send(&mut connection, request, &plan, recorder).await {
        Ok(end) => end,
        Err(Gone) => {
            recorder.end(HowEnded::ClientGone);
            return After::Closed;
        }
    };
    match end {
        Ending::Keep => {
            recorder.end(HowEnded::Complete);
            return After::Keep(connection);
        }
        Ending::Close => {
            recorder.end(HowEnded::Complete);
            connection.close().await;
        }
        Ending::Broken(End::Reset) => {
            recorder.end(HowEnded::Reset);
            connection.reset();
        }
        Ending::Broken(End::Hang) => {
            connection.until_gone().await;
            recorder.end(HowEnded::Hang);
        }
        Ending::Broken(End::Fin | End::Short | End::Close { .. } | End::Eof) => {
            recorder.end(HowEnded::Fin);
            connection.close().await;
        }
    }
    After::Closed
}

/// How an exchange ends, once everything is sent that is sent.
enum Ending {
    /// The connection serves the next request.
    Keep,
    /// The connection is closed, as the client was told.
    Close,
    /// The connection breaks.
    Broken(End),
}

async fn send(
    connection: &mut Connection,
    request: &RequestHead,
    plan: &Plan,
    recorder: &Recorder<'_>,
) -> Result<Ending, Gone> {
    let mut schedule = Schedule::new(plan.pacing, recorder.backend.seed, recorder.id());
    connection.pause(schedule.head()).await?;
    if let Some(Fault { at: At::BeforeHead, end }) = &plan.fault {
        return Ok(Ending::Broken(end.clone()));
    }
    let mut steps = match &plan.body {
        Body::Pieces(pieces) if has_body(request, plan.status) => schedule.steps(pieces),
        Body::Pieces(_) | Body::Frames(_) | Body::Upgrade => Vec::new(),
    };
    let framer = Framer::new(plan, &mut steps);
    let keeps = framer.framing != Framing::Close && !asks_to_close(request);
    let head = head(request, plan, &framer, keeps);
    recorder.head(plan.status, &head, plan.is_stream());
    write_all(connection, &schedule, &framer, head, &steps, recorder).await?;
    Ok(match &plan.fault {
        Some(Fault { end: End::Eof, .. }) | None if keeps => Ending::Keep,
        Some(Fault { end: End::Eof, .. }) | None => Ending::Close,
        Some(fault) => Ending::Broken(fault.end.clone()),
    })
}

/// Writes head, steps and end, joined where the schedule joins them.
async fn write_all(
    connection: &mut Connection,
    schedule: &Schedule,
    framer: &Framer,
    head: Vec<u8>,
    steps: &[Step],
    recorder: &Recorder<'_>,
) -> Result<(), Gone> {
    let mut buffer = head;
    let joins_head = schedule.joins_head() && steps.first().is_none_or(|step| step.pause.is_zero());
    if !joins_head {
        connection.write(&buffer).await?;
        buffer.clear();
    }
    for (at, step) in steps.iter().enumerate() {
        connection.pause(step.pause).await?;
        let is_last = at + 1 == steps.len();
        framer.frame(&step.data, is_last, &mut buffer);
        if is_last && (schedule.joins_end() || framer.joins_end) {
            framer.finish(&mut buffer);
        }
        connection.write(&buffer).await?;
        recorder.wrote(&step.data);
        buffer.clear();
    }
    if steps.is_empty() || !(schedule.joins_end() || framer.joins_end) {
        framer.finish(&mut buffer);
    }
    if buffer.is_empty() { Ok(()) } else { connection.write(&buffer).await }
}

/// The framing of a body.
struct Framer {
    framing: Framing,
    /// The length that is told, with [`Framing::Length`].
    length: usize,
    /// Whether the last step breaks off within a chunk.
    breaks_chunk: bool,
    /// Whether the end of the body is told.
    finishes: bool,
    /// Whether there is nothing to be told about the end, so that it needs no write of its own.
    joins_end: bool,
}

impl Framer {
    /// The framing for these steps, which a fault cuts here.
    fn new(plan: &Plan, steps: &mut Vec<Step>) -> Self {
        let total = |steps: &[Step]| steps.iter().map(|step| step.data.len()).sum::<usize>();
        let whole = total(steps);
        let Some(fault) = &plan.fault else {
            let framing = plan.framing;
            return Self {
                framing,
                length: whole,
                breaks_chunk: false,
                finishes: framing == Framing::Chunked,
                joins_end: framing != Framing::Chunked,
            };
        };
        fault.at.cut(steps);
        let sent = total(steps);
        let is_clean = fault.end == End::Eof;
        let framing = if fault.end == End::Short { Framing::Length } else { plan.framing };
        let length = match fault.end {
            End::Eof => sent,
            End::Short | End::Reset | End::Fin | End::Hang | End::Close { .. } => whole.max(sent + 1),
        };
        Self {
            framing,
            length,
            breaks_chunk: !is_clean && matches!(fault.at, At::Bytes(_)) && sent < whole,
            finishes: is_clean && framing == Framing::Chunked,
            joins_end: !is_clean || framing != Framing::Chunked,
        }
    }

    fn frame(&self, data: &[u8], is_last: bool, buffer: &mut Vec<u8>) {
        if self.framing != Framing::Chunked {
            buffer.extend_from_slice(data);
            return;
        }
        let breaks = self.breaks_chunk && is_last;
        let size = data.len() + usize::from(breaks);
        buffer.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        buffer.extend_from_slice(data);
        if !breaks {
            buffer.extend_from_slice(b"\r\n");
        }
    }

    fn finish(&self, buffer: &mut Vec<u8>) {
        if self.finishes {
            buffer.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

fn has_body(request: &RequestHead, status: u16) -> bool {
    request.method() != "HEAD" && status != 204 && status != 304
}

fn asks_to_close(request: &RequestHead) -> bool {
    request
        .fields()
        .filter(|field| field.is("connection"))
        .filter_map(|field| field.text().map(str::to_owned))
        .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case("close")))
}

/// The head of a response. A script that gives the framing fields itself gets just those.
fn head(request: &RequestHead, plan: &Plan, framer: &Framer, keeps: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", plan.status, reason(plan.status)).into_bytes();
    for (name, value) in &plan.headers {
        push_field(&mut head, name, value);
    }
    let gives = |wanted: &str| plan.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    if !gives("content-length") && !gives("transfer-encoding") {
        match framer.framing {
            Framing::Chunked => push_field(&mut head, "transfer-encoding", "chunked"),
            Framing::Length if has_body(request, plan.status) => {
                push_field(&mut head, "content-length", &framer.length.to_string());
            }
            Framing::Length | Framing::Close => {}
        }
    }
    if !keeps && !gives("connection") {
        push_field(&mut head, "connection", "close");
    }
    head.extend_from_slice(b"\r\n");
    head
}

pub(crate) fn push_field(head: &mut Vec<u8>, name: &str, value: &str) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value.as_bytes());
    head.extend_from_slice(b"\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        // RFC 9112 §4 lets the phrase be empty; clients go by the number.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pacing::Piece;
    use bytes::Bytes;
    use std::time::Duration;

    fn framed(framing: Framing, fault: Option<Fault>) -> (usize, String) {
        let pieces = ["abc", "de"].map(|text| Piece::Data(Bytes::from_static(text.as_bytes())));
        let mut plan = Plan::of(200, Body::Pieces(pieces.to_vec()));
        (plan.framing, plan.fault) = (framing, fault);
        let mut steps: Vec<Step> = ["abc", "de"]
            .map(|text| Step { pause: Duration::ZERO, data: Bytes::from_static(text.as_bytes()) })
            .to_vec();
        let framer = Framer::new(&plan, &mut steps);
        let mut buffer = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            framer.frame(&step.data, at + 1 == steps.len(), &mut buffer);
        }
        framer.finish(&mut buffer);
        (framer.length, String::from_utf8(buffer).unwrap())
    }

    #[test]
    fn a_body_is_framed_as_it_is_told() {
        let chunks = "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(framed(Framing::Chunked, None).1, chunks);
        assert_eq!(framed(Framing::Length, None), (5, "abcde".into()));
        assert_eq!(framed(Framing::Close, None).1, "abcde");
    }

    #[test]
    fn a_fault_breaks_the_framing_and_a_clean_end_does_not() {
        let fault = |at, end| Some(Fault { at, end });
        let fin = fault(At::Events(1), End::Fin);
        assert_eq!(framed(Framing::Chunked, fin.clone()).1, "3\r\nabc\r\n");
        assert_eq!(framed(Framing::Length, fin), (5, "abc".into()));
        assert_eq!(framed(Framing::Chunked, fault(At::Bytes(4), End::Reset)).1, "3\r\nabc\r\n2\r\nd");
        assert_eq!(framed(Framing::Chunked, fault(At::Events(1), End::Eof)).1, "3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(framed(Framing::Length, fault(At::Events(1), End::Eof)), (3, "abc".into()));
        assert_eq!(framed(Framing::Chunked, fault(At::End, End::Short)), (6, "abcde".into()));
    }
}
