//! One side of a recorded WebSocket: sends its recorded messages, frame by frame, and hears the other side's.
//!
//! A message that was recorded behind so many messages of the other side is sent when so many have been
//! heard. A pong is sent behind its ping, and a side leaves behind the pings it heard; but that a proxy answers
//! pings itself stops nobody. The client's side masks; nothing else differs, so that both sides play the same
//! record.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::watch;
use wire::capture::{Direction, Message, MessageKind, Payload};
use wire::websocket::{FrameDecoder, FrameHeader, Opcode, Piece, apply_mask};

use super::hold::held_messages;
use super::log::{Heard, now};
use super::pace::Pace;

/// How a side of a WebSocket plays.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// Whose messages are sent.
    pub direction: Direction,
    /// How pauses are kept.
    pub pace: Pace,
    /// How long it waits for the other side where that has to do something.
    pub patience: Duration,
    /// Whether a proxy between the sides may hold the beginning of a turn back.
    pub holds_beginning: bool,
}

/// How it ended for this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Everything was sent and the other side has closed.
    Done,
    /// The other side went away without a close frame.
    Gone,
    /// The other side did not do in time what the record has of it.
    Patience,
    /// The other side's bytes are no frames.
    Broken,
}

/// What is known of the other side.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Its text and binary messages.
    messages: usize,
    /// Its pings and pongs.
    controls: usize,
    /// The code of its close frame; none for an empty one.
    closed: Option<Option<u16>>,
    /// Whether nothing more comes from it.
    gone: bool,
    broken: bool,
}

/// Plays one side of a WebSocket whose handshake is done; `ahead` is what was read behind it. Each
/// message, sent and heard, is handed to `note`; `meet` is awaited behind each data message sent, with
/// their number so far. Gives the stream back, whose sending side is closed where the record says so.
pub async fn talk<S, F>(
    stream: S,
    ahead: &[u8],
    script: &[Message],
    side: Side,
    note: impl Fn(Heard),
    meet: impl Fn(u64) -> F,
) -> (Over, S)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (tell, known) = watch::channel(Known::default());
    let writing = tokio::sync::Mutex::new(&mut writer);
    let note = Mutex::new(note);
    let note = |heard: Heard| note.lock().unwrap_or_else(PoisonError::into_inner)(heard);
    let over = {
        let listening = listen(&mut reader, ahead, other(side.direction), &tell, &note);
        let sending = send(&writing, script, side, known, &note, meet);
        tokio::pin!(listening, sending);
        tokio::select! {
            over = &mut sending => over,
            // The listener ends with the other side; the sender then comes to its end by itself.
            () = &mut listening => sending.await,
        }
    };
    (over, reunite(reader, writer))
}

fn reunite<S: Unpin>(reader: ReadHalf<S>, writer: WriteHalf<S>) -> S {
    reader.unsplit(writer)
}

fn other(direction: Direction) -> Direction {
    match direction {
        Direction::ClientToUpstream => Direction::UpstreamToClient,
        Direction::UpstreamToClient => Direction::ClientToUpstream,
    }
}

pub(super) fn is_data(message: &Message) -> bool {
    matches!(message.kind, MessageKind::Text | MessageKind::Binary)
}

async fn send<S, F>(
    writing: &tokio::sync::Mutex<&mut WriteHalf<S>>,
    script: &[Message],
    side: Side,
    mut known: watch::Receiver<Known>,
    note: &impl Fn(Heard),
    meet: impl Fn(u64) -> F,
) -> Over
where
    S: AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let held = if side.holds_beginning { held_messages(script) } else { Vec::new() };
    let (mut before, mut controls, mut sent, mut closed) = (0, 0, 0, false);
    let mut last = script.first().map_or(0.0, |message| message.at);
    for message in script {
        if message.direction != side.direction {
            before += usize::from(is_data(message));
            controls += usize::from(matches!(message.kind, MessageKind::Ping | MessageKind::Pong));
            last = message.at;
            continue;
        }
        // Who leaves, or answers a ping, cannot wait for what is held back until more of it has come.
        let may_be_held = |number: &usize| !is_data(message) && held.contains(&(*number as u64));
        let due = before - (1..=before).rev().take_while(may_be_held).count();
        if let Some(over) = until(&mut known, side.patience, |known| known.messages >= due).await {
            return over;
        }
        if !is_data(message) {
            let all = |known: &Known| known.messages >= before && known.controls >= controls;
            // Whatever comes of it: that something is missing is seen in what was heard.
            let _ = until(&mut known, side.patience.min(MAY_MISS), all).await;
        }
        side.pace.pause(last, message.at).await;
        last = message.at;
        if let MessageKind::Close(1006) = message.kind {
            note(heard(message, side.direction));
            return Over::Done;
        }
        if writing.lock().await.write_all(&encode(message, side.direction)).await.is_err() {
            return Over::Gone;
        }
        note(heard(message, side.direction));
        closed |= matches!(message.kind, MessageKind::Close(_));
        if is_data(message) {
            sent += 1;
            meet(sent).await;
        }
    }
    finish(writing, script, side, known, closed).await
}

/// How long what may never come is waited for, so that it is not missed when it does.
const MAY_MISS: Duration = Duration::from_millis(300);

/// The end of a side that has sent everything: the rest of the other's messages, and the close handshake.
async fn finish<S: AsyncWrite + Unpin>(
    writing: &tokio::sync::Mutex<&mut WriteHalf<S>>,
    script: &[Message],
    side: Side,
    mut known: watch::Receiver<Known>,
    closed: bool,
) -> Over {
    let theirs = || script.iter().filter(|message| message.direction != side.direction);
    let total = theirs().filter(|message| is_data(message)).count();
    let mut over = until(&mut known, side.patience, |known| known.messages >= total).await;
    // Without any close in the record it is the client who leaves.
    let has_close = script.iter().any(|message| matches!(message.kind, MessageKind::Close(_)));
    let waits = has_close || side.direction == Direction::UpstreamToClient;
    if over.is_none() && waits {
        over = until(&mut known, side.patience, |known| known.closed.is_some()).await;
        let code = known.borrow().closed;
        if let (None, Some(code), false) = (over, code, closed) {
            let kind = MessageKind::Close(code.unwrap_or(1005));
            let (at, direction) = (0.0, side.direction);
            let echo = Message { at, direction, kind, payload: Vec::new(), frames: Vec::new() };
            // The other side may have gone with its close frame.
            let _ = writing.lock().await.write_all(&encode(&echo, side.direction)).await;
        }
        let ends_without = !has_close || theirs().any(|message| message.kind == MessageKind::Close(1006));
        if over == Some(Over::Gone) && (closed || ends_without) {
            over = None;
        }
    }
    let _ = writing.lock().await.shutdown().await;
    over.unwrap_or(Over::Done)
}

/// Waits until this is known of the other side. Says what ended the wait otherwise.
async fn until(
    known: &mut watch::Receiver<Known>,
    patience: Duration,
    holds: impl Fn(&Known) -> bool,
) -> Option<Over> {
    let wait = known.wait_for(|known| holds(known) || known.gone || known.broken);
    match tokio::time::timeout(patience, wait).await {
        Err(_) => Some(Over::Patience),
        Ok(Err(_)) => Some(Over::Gone),
        Ok(Ok(known)) if holds(&known) => None,
        Ok(Ok(known)) if known.broken => Some(Over::Broken),
        Ok(Ok(_)) => Some(Over::Gone),
    }
}

fn heard(message: &Message, direction: Direction) -> Heard {
    let (payload, frames) = (Payload(message.payload.clone()), message.frames.clone());
    Heard { at: now(), direction, kind: message.kind, payload, frames }
}

/// The key of every masked frame: which one it is does not matter to any check, and a fixed one can be read
/// in a dump.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A message as its frames.
#[must_use]
pub fn encode(message: &Message, direction: Direction) -> Vec<u8> {
    let mask = (direction == Direction::ClientToUpstream).then_some(MASK);
    let (opcode, payload) = match message.kind {
        MessageKind::Text => (Opcode::Text, message.payload.clone()),
        MessageKind::Binary => (Opcode::Binary, message.payload.clone()),
        MessageKind::Ping => (Opcode::Ping, message.payload.clone()),
        MessageKind::Pong => (Opcode::Pong, message.payload.clone()),
        MessageKind::Close(1005) => (Opcode::Close, Vec::new()),
        MessageKind::Close(code) => (Opcode::Close, [&code.to_be_bytes(), &message.payload[..]].concat()),
    };
    let mut lengths: Vec<usize> =
        message.frames.iter().map(|length| usize::try_from(*length).unwrap_or(usize::MAX)).collect();
    let covered = lengths.iter().fold(0_usize, |sum, length| sum.saturating_add(*length));
    if lengths.is_empty() || covered != payload.len() || opcode.is_control() {
        lengths = vec![payload.len()];
    }
    let mut out = Vec::with_capacity(payload.len() + 14 * lengths.len());
    let mut rest = &payload[..];
    for (at, length) in lengths.iter().enumerate() {
        let (frame, behind) = rest.split_at(*length);
        rest = behind;
        let is_final = at + 1 == lengths.len();
        let opcode = if at == 0 { opcode } else { Opcode::Continuation };
        FrameHeader { is_final, opcode, mask, length: *length as u64 }.encode(&mut out);
        let begin = out.len();
        out.extend_from_slice(frame);
        if let Some(mask) = mask {
            apply_mask(mask, 0, &mut out[begin..]);
        }
    }
    out
}

/// Bytes that one read takes at most.
const READ: usize = 64 * 1024;

/// A message whose frames are still coming.
#[derive(Default)]
struct Partial {
    kind: Option<Opcode>,
    payload: Vec<u8>,
    frames: Vec<u64>,
}

async fn listen<S: AsyncRead + Unpin>(
    reader: &mut ReadHalf<S>,
    ahead: &[u8],
    direction: Direction,
    tell: &watch::Sender<Known>,
    note: &impl Fn(Heard),
) {
    let mut buffer = BytesMut::from(ahead);
    let (mut decoder, mut message, mut control) =
        (FrameDecoder::default(), Partial::default(), Partial::default());
    let mut header = None;
    loop {
        loop {
            let Ok((taken, piece)) = decoder.next(&buffer) else {
                tell.send_modify(|known| known.broken = true);
                return;
            };
            match piece {
                None => {
                    buffer.advance(taken);
                    break;
                }
                Some(Piece::Header(next)) => {
                    let partial = if next.opcode.is_control() { &mut control } else { &mut message };
                    if next.opcode != Opcode::Continuation {
                        *partial = Partial { kind: Some(next.opcode), ..Partial::default() };
                    }
                    partial.frames.push(next.length);
                    header = Some(next);
                }
                Some(Piece::Payload { bytes, offset, ends_frame }) => {
                    let Some(current) = header else { break };
                    let partial = if current.opcode.is_control() { &mut control } else { &mut message };
                    let begin = partial.payload.len();
                    partial.payload.extend_from_slice(bytes);
                    if let Some(mask) = current.mask {
                        apply_mask(mask, offset, &mut partial.payload[begin..]);
                    }
                    if ends_frame && current.is_final {
                        complete(std::mem::take(partial), direction, tell, note);
                    }
                }
            }
            buffer.advance(taken);
        }
        buffer.reserve(READ);
        if !matches!(reader.read_buf(&mut buffer).await, Ok(1..)) {
            if tell.borrow().closed.is_none() {
                let (kind, payload) = (MessageKind::Close(1006), Payload::default());
                note(Heard { at: now(), direction, kind, payload, frames: Vec::new() });
            }
            tell.send_modify(|known| known.gone = true);
            return;
        }
    }
}

/// Enters a message that is whole.
fn complete(partial: Partial, direction: Direction, tell: &watch::Sender<Known>, note: &impl Fn(Heard)) {
    let Partial { kind, mut payload, mut frames } = partial;
    let kind = match kind {
        Some(Opcode::Text) => MessageKind::Text,
        Some(Opcode::Binary) => MessageKind::Binary,
        Some(Opcode::Ping) => MessageKind::Ping,
        Some(Opcode::Pong) => MessageKind::Pong,
        Some(Opcode::Close) => {
            let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            payload.drain(..payload.len().min(2));
            tell.send_modify(|known| known.closed = Some(code));
            MessageKind::Close(code.unwrap_or(1005))
        }
        Some(Opcode::Continuation) | None => return,
    };
    if frames.len() == 1 {
        frames.clear();
    }
    note(Heard { at: now(), direction, kind, payload: Payload(payload), frames });
    tell.send_modify(|known| match kind {
        MessageKind::Text | MessageKind::Binary => known.messages += 1,
        MessageKind::Ping | MessageKind::Pong => known.controls += 1,
        MessageKind::Close(_) => {}
    });
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let kind = prop_oneof![
            4 => Just(MessageKind::Text),
            2 => Just(MessageKind::Binary),
            1 => Just(MessageKind::Ping),
            1 => Just(MessageKind::Pong),
        ];
        let direction = prop_oneof![Just(Direction::ClientToUpstream), Just(Direction::UpstreamToClient)];
        (kind, direction, prop::collection::vec(any::<u8>(), 0..300), any::<prop::sample::Index>()).prop_map(
            |(kind, direction, mut payload, split)| {
                let is_data = matches!(kind, MessageKind::Text | MessageKind::Binary);
                payload.truncate(if is_data { 300 } else { 125 });
                let at = split.index(payload.len() + 1) as u64;
                let frames = if is_data { vec![at, payload.len() as u64 - at] } else { Vec::new() };
                Message { at: 0.0, direction, kind, payload, frames }
            },
        )
    }

    /// Plays a script on both sides of a pipe that takes so many bytes, and says what each has heard.
    fn play(script: &[Message], pipe: usize) -> [(Over, Vec<Message>); 2] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (client, upstream) = tokio::io::duplex(pipe);
            let one = async |stream, direction| {
                let pace = Pace { speed: 1.0, max_gap: Duration::ZERO };
                let patience = Duration::from_secs(10);
                let side = Side { direction, pace, patience, holds_beginning: false };
                let heard = RefCell::new(Vec::new());
                let note = |message: Heard| {
                    if message.direction != direction {
                        let (direction, kind, frames) = (message.direction, message.kind, message.frames);
                        let payload = message.payload.0;
                        heard.borrow_mut().push(Message { at: 0.0, direction, kind, payload, frames });
                    }
                };
                let (over, _) = talk(stream, &[], script, side, note, async |_| ()).await;
                (over, heard.into_inner())
            };
            let sides = tokio::join!(
                one(client, Direction::ClientToUpstream),
                one(upstream, Direction::UpstreamToClient)
            );
            sides.into()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn each_side_hears_what_the_other_has_to_say(
            mut script in prop::collection::vec(message(), 0..8),
            pipe in 1_usize..64,
            code in prop::sample::select(vec![1000_u16, 1011, 4000]),
            closer in prop_oneof![Just(Direction::ClientToUpstream), Just(Direction::UpstreamToClient)],
        ) {
            let (kind, payload) = (MessageKind::Close(code), b"done".to_vec());
            script.push(Message { at: 0.0, direction: closer, kind, payload, frames: Vec::new() });
            let [client, upstream] = play(&script, pipe);
            for ((over, heard), from) in
                [(client, Direction::UpstreamToClient), (upstream, Direction::ClientToUpstream)]
            {
                prop_assert_eq!(over, Over::Done);
                let said: Vec<_> = script.iter().filter(|message| message.direction == from).cloned().collect();
                prop_assert_eq!(&heard[..said.len()], &said[..]);
            }
        }
    }
}
