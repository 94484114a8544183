//! What a proxy may hold back, and the meetings with the client that show what it does hold back.

use std::time::Duration;

use wire::capture::{Answer, Direction, Exchange, Message};

use super::Shared;
use super::talk::is_data;

/// The meetings with the client behind each write.
pub(super) struct Meeting<'a> {
    shared: &'a Shared,
    exchange: u64,
    limit: Option<Duration>,
    /// How many bytes may be held back at the beginning.
    begins: u64,
    missed: u32,
}

/// Missed meetings in a row after which no further one is waited for: it is known by then.
const ENOUGH: u32 = 3;

impl<'a> Meeting<'a> {
    pub(super) fn new(shared: &'a Shared, exchange: &Exchange, answer: &Answer) -> Self {
        let begins = if shared.config.holds_beginning { held_beginning(answer) } else { 0 };
        // An answer in one piece has nothing that could be held back from the rest of it.
        let limit = shared.config.meet.filter(|_| answer.is_stream || answer.writes.len() > 1);
        Self { shared, exchange: exchange.id, limit, begins, missed: 0 }
    }

    pub(super) async fn meet(&mut self, bytes: u64) {
        let Some(limit) = self.limit.filter(|_| self.missed < ENOUGH && bytes >= self.begins) else { return };
        let met = self.shared.book.until_arrived(self.exchange, bytes + 1, limit).await;
        self.missed = if met { 0 } else { self.missed + 1 };
    }
}

/// How many bytes of a stream of events a proxy may hold that can still ask another account: those up to the
/// first output. A client has seen nothing of the answer before it.
#[must_use]
pub fn held_beginning(answer: &Answer) -> u64 {
    let is_first = |mark: &&str| memchr::memmem::find(&answer.body, mark.as_bytes());
    let output = FIRST_OUTPUT.iter().filter_map(is_first).min();
    let Some(at) = output.filter(|_| answer.is_stream || answer.status == 200) else { return u64::MAX };
    let behind =
        memchr::memmem::find(&answer.body[at..], b"\n\n").map_or(answer.body.len(), |end| at + end + 2);
    behind as u64
}

/// Which of the upstream's messages, from 1, a proxy may hold that can still ask another account: those of
/// each turn up to the first output.
#[must_use]
pub fn held_messages(messages: &[Message]) -> Vec<u64> {
    let (mut held, mut number, mut has_output) = (Vec::new(), 0, false);
    for message in messages.iter().filter(|message| is_data(message)) {
        if message.direction == Direction::ClientToUpstream {
            has_output = false;
            continue;
        }
        number += 1;
        let is_output = |mark: &&str| memchr::memmem::find(&message.payload, mark.as_bytes()).is_some();
        has_output |= FIRST_OUTPUT.iter().any(is_output);
        if !has_output {
            held.push(number);
        }
    }
    held
}

/// What the first output looks like: of Codex's backend, of Anthropic's, of Google's.
const FIRST_OUTPUT: &[&str] =
    &["response.output_", "response.completed", "content_block_start", "candidates"];
