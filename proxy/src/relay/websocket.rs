//! A WebSocket between a client and a profile's upstream: frames pass, turns are held until one serves.
//!
//! A turn is a `response.create` of the client up to the event that ends its response. Until its first
//! output nothing of it has reached the client, and a refusal can still rotate (see `turn`). A warm-up is
//! never held and never rotates: its failure is invisible, and the client connects anew by itself.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use wire::responses::EventView;
use wire::websocket::{FrameError, FrameHeader, Opcode};

use crate::accounting::{Account, MAX_EVENT, Outcome};
use crate::admission::Permit;
use crate::attempt::connection::Connections;
use crate::attempt::websocket::Opened;
use crate::commit::refusal::{Refusal, refusal_of_event};
use crate::exchange::{Exchange, Ties};
use crate::metrics::Meter;
use crate::pipeline::{Proxy, Tries};
use crate::profile::{Credentials, Now, Profile};
use crate::relay::outbox::Outbox;
use crate::relay::stall::Stall;
use crate::stream::{Stream, poll_read_scratch, read_some};

mod assembler;

mod turn;

use assembler::{Assembler, Heard};

/// How long a client may take to read why its WebSocket is closed.
const GOODBYE: Duration = Duration::from_secs(1);

/// The close code between two turns: nothing is amiss, and nothing on its way.
const GOING_AWAY: u16 = 1001;

/// The side of a WebSocket that leads to a profile's upstream.
struct Leg {
    stream: Stream,
    /// Bytes that were read and have not passed.
    read: Vec<u8>,
    frames: Assembler,
    profile: Arc<Profile>,
    /// The credentials that it was opened with.
    credentials: Arc<Credentials>,
    /// When it was last known to lead anywhere: when it was opened, or when a turn on it began.
    alive: Now,
}

impl Leg {
    fn new(opened: Opened, profile: Arc<Profile>) -> Self {
        let Opened { stream, read, credentials, .. } = opened;
        let frames = Assembler::of_server(MAX_EVENT);
        Self { stream, read, frames, profile, credentials, alive: Now::read() }
    }

    /// Whether the machine has slept since: then the connection most likely has ended, and nobody was told.
    fn has_slept(&self) -> bool {
        Now::read().has_slept_since(self.alive)
    }
}

/// Where the conversation stands.
enum Turn {
    /// Nothing is asked.
    Idle,
    /// A request is asked, and nothing of its answer has reached the client.
    Held(Box<Held>),
    /// The answer goes to the client.
    Running(Box<Account>),
}

/// A turn whose answer is held.
struct Held {
    account: Account,
    request: Request,
    /// The frames of the answer so far.
    frames: Vec<u8>,
    /// Where among them the current frame begins.
    frame_start: usize,
    deadline: Instant,
    tries: Tries,
    best: Option<Best>,
}

/// The best refusal of those that a turn has met.
struct Best {
    refusal: Refusal,
    /// The answer that states it.
    frames: Vec<u8>,
    /// Of the one who gave it.
    account: Account,
}

/// A request of the client.
struct Request {
    /// Its number in the run.
    id: u64,
    /// Its frames as they came.
    raw: Vec<u8>,
    ties: Ties,
    /// The id of the response that it continues.
    continues: Option<String>,
    /// Whether another account could serve it.
    may_move: bool,
    /// Counts it.
    meter: Meter,
}

/// What happens next on a WebSocket.
enum Step {
    /// The client sent a message: its frames, and what a text message says.
    Message { raw: Vec<u8>, text: Option<Vec<u8>> },
    /// The upstream refused the held turn.
    Refused(Refusal),
    /// The client went away.
    ClientGone,
    /// The upstream broke off, in this way.
    UpstreamCut(String),
    /// It is over, and the client is told why: with a close code.
    Goodbye(u16, &'static str),
}

/// A WebSocket in use.
struct Socket<'a> {
    proxy: &'a Arc<Proxy>,
    connections: &'a Connections,
    exchange: &'a Exchange,
    client: Stream,
    /// What the client sent, from the beginning of its current message on.
    input: Vec<u8>,
    /// How much of it has been looked at.
    parsed: usize,
    from_client: Assembler,
    upstream: Leg,
    to_client: Outbox,
    to_upstream: Outbox,
    turn: Turn,
    /// Whether the conversation, as far as it was seen here, holds something that only its account can read.
    is_sealed: bool,
    /// Grows with every step in either direction.
    progress: u64,
    /// Whether the proxy is about to exit: the WebSocket ends between two turns.
    is_draining: bool,
}

/// The client's side of a WebSocket, its upgrade not yet answered.
pub struct Client<'a> {
    /// The connection.
    pub stream: Stream,
    /// Bytes that came behind the upgrade.
    pub input: Vec<u8>,
    /// The upgrade.
    pub exchange: &'a Exchange,
    /// The right to be open; each turn has one of its own to be in flight.
    pub permit: Option<Permit>,
}

/// Relays a WebSocket until one side ends it. `greeting` answers the client's upgrade.
pub async fn run(
    proxy: &Arc<Proxy>,
    connections: &Connections,
    client: Client<'_>,
    opened: Opened,
    profile: Arc<Profile>,
    greeting: &[u8],
) {
    let mut to_client = Outbox::default();
    to_client.push(greeting);
    let mut socket = Socket {
        proxy,
        connections,
        exchange: client.exchange,
        client: client.stream,
        input: client.input,
        parsed: 0,
        from_client: Assembler::of_client(proxy.control.config.max_request_body.bytes()),
        upstream: Leg::new(opened, profile),
        to_client,
        to_upstream: Outbox::default(),
        turn: Turn::Idle,
        is_sealed: false,
        progress: 0,
        is_draining: false,
    };
    let outcome = socket.run().await;
    match &mut socket.turn {
        Turn::Running(account) => account.close(outcome),
        Turn::Held(held) => held.request.meter.settle(outcome.into()),
        Turn::Idle => {}
    }
    drop(client.permit);
}

impl Socket<'_> {
    async fn run(&mut self) -> Outcome {
        let leaving = self.proxy.leaving.clone();
        let config = &self.proxy.control.config;
        let mut stall = Stall::new(config.stream_idle_timeout, config.write_timeout);
        loop {
            // What is waited for may change while it is waited, so the looks are never far apart.
            let held = match &self.turn {
                Turn::Held(held) => held.deadline.saturating_duration_since(Instant::now()),
                _ => Duration::MAX,
            };
            let limit = held.min(stall.tick());
            let step = tokio::select! {
                step = tokio::time::timeout(limit, std::future::poll_fn(|context| self.poll(context))) => step,
                () = leaving.cancelled(), if !self.is_draining => {
                    self.is_draining = true;
                    continue;
                }
            };
            let done = match step {
                Ok(Step::Message { raw, text }) => self.message(raw, text).await,
                Ok(Step::Refused(refusal @ (Refusal::NotFound | Refusal::Unreadable))) => {
                    self.lost(refusal).await
                }
                Ok(Step::Refused(refusal)) => self.refused(refusal).await,
                Ok(Step::ClientGone) => Err(Outcome::ClientGone),
                Ok(Step::UpstreamCut(problem)) => {
                    self.record_cut(&problem);
                    self.show_held().await;
                    Err(Outcome::UpstreamCut)
                }
                Ok(Step::Goodbye(code, reason)) => {
                    self.say_goodbye(code, reason).await;
                    Err(Outcome::Complete)
                }
                Err(_) => self.timed_out(&mut stall),
            };
            if let Err(outcome) = done {
                return outcome;
            }
        }
    }

    /// Nothing has happened for as long as is waited for.
    fn timed_out(&mut self, stall: &mut Stall) -> Result<(), Outcome> {
        if let Turn::Held(held) = &self.turn {
            if held.deadline <= Instant::now() {
                self.release();
            }
            return Ok(());
        }
        let waits_for_client = !self.to_client.is_empty();
        match stall.check(self.progress, waits_for_client) {
            // Between two turns a person may think for as long as they like, once what they said is gone.
            None => Ok(()),
            Some(_)
                if !waits_for_client && matches!(self.turn, Turn::Idle) && self.to_upstream.is_empty() =>
            {
                Ok(())
            }
            Some(outcome) => Err(outcome),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        loop {
            let is_client_blocked = match self.to_client.poll_send(&mut self.client, context, |_| {}) {
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(_)) => return Poll::Ready(Step::ClientGone),
                Poll::Pending => true,
            };
            let is_upstream_blocked =
                match self.to_upstream.poll_send(&mut self.upstream.stream, context, |_| {}) {
                    Poll::Ready(Ok(())) => false,
                    Poll::Ready(Err(error)) => return Poll::Ready(Step::UpstreamCut(error.to_string())),
                    Poll::Pending => true,
                };
            let mut is_pending = true;
            if !is_client_blocked {
                match self.poll_upstream(context) {
                    Poll::Ready(Some(step)) => return Poll::Ready(step),
                    Poll::Ready(None) => is_pending = false,
                    Poll::Pending => {}
                }
            }
            if !is_upstream_blocked {
                match self.poll_client(context) {
                    Poll::Ready(Some(step)) => return Poll::Ready(step),
                    Poll::Ready(None) => is_pending = false,
                    Poll::Pending => {}
                }
            }
            if self.is_draining && matches!(self.turn, Turn::Idle) && self.to_client.is_empty() {
                // Between two turns a client takes a close without a word, and connects anew.
                return Poll::Ready(Step::Goodbye(GOING_AWAY, "the proxy is shutting down"));
            }
            if is_pending {
                return Poll::Pending;
            }
            self.progress += 1;
        }
    }

    /// Takes the client's next message, if all of it is there, or reads more of it.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<Option<Step>> {
        loop {
            let Ok((taken, heard)) = self.from_client.next(&self.input[self.parsed..]) else {
                return Poll::Ready(Some(Step::Goodbye(1002, "this is not a WebSocket frame")));
            };
            let message = match heard {
                Some(Heard::Message { kind, .. }) => Some(kind),
                _ => None,
            };
            let is_between = matches!(heard, Some(Heard::Control { is_mid_message: false, .. }));
            let is_all = heard.is_none();
            self.parsed += taken;
            if let Some(kind) = message {
                let text = Some(self.from_client.take_text()).filter(|_| kind == Opcode::Text);
                let raw = self.take_input();
                return Poll::Ready(Some(Step::Message { raw, text }));
            }
            if is_between {
                let raw = self.take_input();
                self.to_upstream.push(&raw);
                return Poll::Ready(None);
            }
            if is_all {
                break;
            }
        }
        if self.input.len() > self.from_client.limit() {
            return Poll::Ready(Some(Step::Goodbye(1009, "the message is longer than max_request_body")));
        }
        let input = &mut self.input;
        let read = poll_read_scratch(&mut self.client, context, |bytes| {
            input.extend_from_slice(bytes);
            bytes.len()
        });
        match read {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Some(Step::ClientGone)),
            Poll::Ready(Ok(_)) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The frames of the message that has just ended.
    fn take_input(&mut self) -> Vec<u8> {
        let rest = self.input.split_off(self.parsed);
        self.parsed = 0;
        std::mem::replace(&mut self.input, rest)
    }

    /// Reads once from the upstream, and lets pass or holds what came.
    fn poll_upstream(&mut self, context: &mut Context<'_>) -> Poll<Option<Step>> {
        if !self.upstream.read.is_empty() {
            return Poll::Ready(self.take_read());
        }
        let Self { upstream, turn, is_sealed, to_client, client, .. } = self;
        let Leg { stream, frames, read: unread, .. } = upstream;
        let mut writing = Context::from_waker(context.waker());
        let read = poll_read_scratch(stream, context, |bytes| {
            if bytes.is_empty() {
                return Some(Step::UpstreamCut("the connection ended".to_owned()));
            }
            if matches!(turn, Turn::Held(_)) {
                unread.extend_from_slice(bytes);
                return None;
            }
            if let Err(error) = pass(frames, turn, is_sealed, to_client, bytes) {
                return Some(Step::UpstreamCut(error.to_string()));
            }
            to_client.write(client, &mut writing, bytes).is_err().then_some(Step::ClientGone)
        });
        match read {
            Poll::Ready(Ok(step)) => Poll::Ready(step),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Step::UpstreamCut(error.to_string()))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Takes what was read: frame by frame while the turn is held, all that is left once it is not.
    fn take_read(&mut self) -> Option<Step> {
        let read = std::mem::take(&mut self.upstream.read);
        let mut rest = &read[..];
        let now = Now::unix();
        let max_held = self.proxy.control.config.hold_bytes.bytes();
        while let Turn::Held(held) = &mut self.turn {
            let heard = hear(&mut self.upstream.frames, &mut held.account, rest, now);
            let (taken, verdict) = match heard {
                Ok(heard) => heard,
                Err(error) => return Some(Step::UpstreamCut(error.to_string())),
            };
            held.frames.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            match verdict {
                Verdict::More | Verdict::Nothing if held.frames.len() >= max_held => self.release(),
                Verdict::More => return None,
                Verdict::Nothing => held.frame_start = held.frames.len(),
                Verdict::Control => {
                    // A ping is for the client and does not wait with the turn.
                    let control = held.frames.split_off(held.frame_start);
                    self.to_client.push(&control);
                }
                Verdict::Close => {
                    // It ends what came before it, so it does not overtake that.
                    let frames = std::mem::take(&mut held.frames);
                    held.frame_start = 0;
                    self.to_client.close_until(held.account.gate());
                    self.to_client.push(&frames);
                }
                Verdict::Output { is_end } => {
                    self.release();
                    if is_end {
                        end(&mut self.turn, &mut self.is_sealed);
                    }
                }
                Verdict::Refused(refusal) => {
                    self.upstream.read = rest.to_vec();
                    return Some(Step::Refused(refusal));
                }
            }
        }
        let Self { upstream, turn, is_sealed, to_client, .. } = self;
        if let Err(error) = pass(&mut upstream.frames, turn, is_sealed, to_client, rest) {
            return Some(Step::UpstreamCut(error.to_string()));
        }
        self.to_client.push(rest);
        None
    }

    /// Says how the upstream ended a turn before its end.
    fn record_cut(&self, problem: &str) {
        match &self.turn {
            Turn::Running(account) => account.read_error(problem),
            Turn::Held(held) => held.account.read_error(problem),
            // Nobody waits for anything.
            Turn::Idle => {}
        }
    }

    /// Lets the client see what was held of a turn whose upstream has gone: no other profile gets it now,
    /// and what came is the client's.
    async fn show_held(&mut self) {
        let Turn::Held(held) = &mut self.turn else { return };
        self.to_client.close_until(held.account.gate());
        self.to_client.push(&std::mem::take(&mut held.frames));
        let Self { to_client, client, .. } = self;
        let sending = std::future::poll_fn(|context| to_client.poll_send(client, context, |_| {}));
        // Best effort: a client that does not read is not waited for.
        let _ = tokio::time::timeout(GOODBYE, sending).await;
    }

    /// Closes the client's side with a reason.
    async fn say_goodbye(&mut self, code: u16, reason: &str) {
        let mut frame = Vec::new();
        let length = 2 + reason.len() as u64;
        FrameHeader { is_final: true, opcode: Opcode::Close, mask: None, length }.encode(&mut frame);
        frame.extend_from_slice(&code.to_be_bytes());
        frame.extend_from_slice(reason.as_bytes());
        self.to_client.push(&frame);
        let Self { to_client, client, input, .. } = self;
        let farewell = async {
            std::future::poll_fn(|context| to_client.poll_send(client, context, |_| {})).await?;
            if code != GOING_AWAY {
                // A connection that is closed with bytes unread is reset, and the reason with it.
                client.shutdown().await?;
                while read_some(client, input).await? > 0 {
                    input.clear();
                }
            }
            std::io::Result::Ok(())
        };
        // Best effort: a client that does not read is not waited for.
        let _ = tokio::time::timeout(GOODBYE, farewell).await;
    }
}

/// What a frame says about the fate of a held turn.
enum Verdict {
    /// All of the input was taken and no frame has ended.
    More,
    /// Nothing: it comes before any output.
    Nothing,
    /// Nothing: it is a ping or a pong.
    Control,
    /// Nothing, and nothing more will come.
    Close,
    /// The account serves. With the very first event the response may also be at its end.
    Output { is_end: bool },
    /// The account refuses.
    Refused(Refusal),
}

/// Takes the next frame of a held turn.
fn hear(
    frames: &mut Assembler,
    account: &mut Account,
    input: &[u8],
    now: i64,
) -> Result<(usize, Verdict), FrameError> {
    let (taken, heard) = frames.next(input)?;
    let verdict = match heard {
        None => Verdict::More,
        Some(Heard::Fragment) => Verdict::Nothing,
        Some(Heard::Control { is_close: true, .. }) => Verdict::Close,
        Some(Heard::Control { is_mid_message: false, .. }) => Verdict::Control,
        Some(Heard::Control { is_mid_message: true, .. }) => Verdict::Nothing,
        Some(Heard::Message { text, .. }) => {
            let event = EventView::new(text);
            account.event(event);
            if event.kind.precedes_output() {
                Verdict::Nothing
            } else {
                let is_end = event.kind.is_terminal();
                refusal_of_event(event, now).map_or(Verdict::Output { is_end }, Verdict::Refused)
            }
        }
    };
    Ok((taken, verdict))
}

/// Looks at frames that pass to the client, which wait there until the ids in them are durable; the event that
/// ends the response ends the turn.
fn pass(
    frames: &mut Assembler,
    turn: &mut Turn,
    is_sealed: &mut bool,
    to_client: &mut Outbox,
    bytes: &[u8],
) -> Result<(), FrameError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (taken, heard) = frames.next(rest)?;
        rest = &rest[taken..];
        let is_message = matches!(heard, Some(Heard::Message { .. }));
        if let Turn::Running(account) = turn {
            account.forwarded(taken);
            if let Some(Heard::Message { text, .. }) = heard {
                let event = EventView::new(text);
                account.event(event);
                to_client.close_until(account.gate());
                if event.kind.is_terminal() {
                    end(turn, is_sealed);
                }
            }
        }
        if is_message {
            frames.forget();
        }
    }
    Ok(())
}

/// The response has ended.
fn end(turn: &mut Turn, is_sealed: &mut bool) {
    if let Turn::Running(account) = turn {
        *is_sealed |= account.has_sealed();
        account.close(Outcome::Complete);
    }
    *turn = Turn::Idle;
}
