//! The bytes of a client's HTTP/1.1 connection as records: what a recorder writes down.
//!
//! Whoever stands at a connection tells what was read from the client and written to it, and when; out
//! come the entries of whole exchanges, refused and broken ones too. Nothing is thrown away silently: what
//! cannot be read is kept as bytes, and an exchange of which something is missing says so at its end.
//! HTTP/2 has no bytes that could be told one by one; its streams are written down as [`Draft`]s.

use std::collections::VecDeque;

use super::{Direction, Entry};
use crate::http1::{BodyDecoder, RequestHead, ResponseHead};
use messages::Messages;

mod draft;

mod messages;

pub use draft::{Closing, Draft, Limits};

/// An entry, and when it was: milliseconds since the recording began.
pub type Note = (f64, Entry);

/// Longest tail of a connection that cannot be read which is kept.
const MAX_UNREADABLE: usize = 1 << 20;

/// What is being written down of a connection.
#[derive(Debug)]
pub struct Transcript {
    connection: u64,
    limits: Limits,
    asked: Asked,
    answered: Answered,
    /// Exchanges that have not ended, oldest first.
    open: VecDeque<Draft>,
    /// Whether what the client asks can still be told apart.
    is_lost: bool,
}

/// Where the client's side stands.
#[derive(Debug)]
enum Asked {
    /// A head, as much of it as there is, and when it began.
    Head(Vec<u8>, f64),
    Body(BodyDecoder),
    /// Behind an upgrade; what comes is frames or the next request, as the answer says.
    Upgrade(Vec<u8>, f64),
    Frames(Messages),
    /// It cannot be read. What comes belongs to the last request.
    Unreadable,
}

/// Where the answering side stands.
#[derive(Debug)]
enum Answered {
    Head(Vec<u8>, f64),
    Body(BodyDecoder),
    Frames(Messages),
    Unreadable,
}

impl Transcript {
    /// Begins a connection. Exchanges name it by its number.
    #[must_use]
    pub fn new(connection: u64, limits: Limits) -> Self {
        let (asked, answered) = (Asked::Head(Vec::new(), 0.0), Answered::Head(Vec::new(), 0.0));
        Self { connection, limits, asked, answered, open: VecDeque::new(), is_lost: false }
    }

    /// How many bytes are held for records that are not complete.
    #[must_use]
    pub fn held(&self) -> usize {
        self.open.iter().map(Draft::held).sum()
    }

    /// Takes what was read from the client. `ids` is the last id that was given to an exchange.
    pub fn received(&mut self, at: f64, bytes: &[u8], ids: &mut u64, notes: &mut Vec<Note>) {
        if self.is_lost {
            return;
        }
        let mut input = Vec::new();
        if let Asked::Head(kept, began) = &mut self.asked {
            if kept.is_empty() {
                *began = at;
            }
            input = std::mem::take(kept);
        }
        input.extend_from_slice(bytes);
        let mut rest = &input[..];
        while !rest.is_empty() {
            rest = match &mut self.asked {
                Asked::Head(_, began) => {
                    let began = *began;
                    self.take_head(began, at, rest, ids)
                }
                Asked::Body(decoder) => {
                    let Some(draft) = self.open.back_mut() else { return };
                    let (rest, is_done) = take_body(decoder, rest, |payload| draft.ask(payload));
                    draft.asked_at(at);
                    match is_done {
                        Ok(true) => {
                            draft.end_request();
                            self.asked = Asked::Head(Vec::new(), at);
                        }
                        Ok(false) => {}
                        Err(problem) => {
                            draft.malformed(&problem);
                            self.asked = Asked::Unreadable;
                        }
                    }
                    rest
                }
                Asked::Upgrade(early, began) => {
                    if early.is_empty() {
                        *began = at;
                    }
                    early.extend_from_slice(rest);
                    &[]
                }
                Asked::Frames(messages) => {
                    if let Some(draft) = self.open.front_mut() {
                        messages.take(at, rest, draft, notes);
                    }
                    &[]
                }
                Asked::Unreadable => {
                    if let Some(draft) = self.open.back_mut() {
                        draft.ask_unreadable(rest, MAX_UNREADABLE);
                        draft.asked_at(at);
                    }
                    &[]
                }
            };
        }
        self.settle(at, notes);
    }

    /// Takes a head that may have come to its end. Says what is behind it.
    fn take_head<'a>(&mut self, began: f64, at: f64, bytes: &'a [u8], ids: &mut u64) -> &'a [u8] {
        let parsed = RequestHead::parse(bytes);
        if let Ok(None) = parsed {
            self.asked = Asked::Head(bytes.to_vec(), began);
            return &[];
        }
        *ids += 1;
        let mut draft = Draft::new(*ids, self.connection, began, self.limits);
        let (next, rest) = match parsed {
            Ok(Some((head, end))) => {
                draft.request(&head);
                match head.body_length() {
                    Ok(_) if draft.is_upgrade() => (Asked::Upgrade(Vec::new(), at), &bytes[end..]),
                    Ok(length) => match length.decoder() {
                        decoder if decoder.is_done() => (Asked::Head(Vec::new(), at), &bytes[end..]),
                        decoder => (Asked::Body(decoder), &bytes[end..]),
                    },
                    Err(error) => {
                        draft.malformed(&error.to_string());
                        (Asked::Unreadable, &bytes[end..])
                    }
                }
            }
            Err(error) => {
                draft.malformed(&error.to_string());
                (Asked::Unreadable, bytes)
            }
            Ok(None) => return &[],
        };
        if matches!(next, Asked::Head(..) | Asked::Upgrade(..)) {
            draft.end_request();
        }
        self.open.push_back(draft);
        self.asked = next;
        rest
    }

    /// Takes what was written to the client.
    pub fn sent(&mut self, at: f64, bytes: &[u8], ids: &mut u64, notes: &mut Vec<Note>) {
        if self.is_lost {
            return;
        }
        let mut input = Vec::new();
        if let Answered::Head(kept, began) = &mut self.answered {
            if kept.is_empty() {
                *began = at;
            }
            input = std::mem::take(kept);
        }
        input.extend_from_slice(bytes);
        let mut rest = &input[..];
        while !rest.is_empty() {
            if self.open.is_empty() {
                self.begin_unasked(at, ids);
            }
            let Some(draft) = self.open.front_mut() else { return };
            rest = match &mut self.answered {
                Answered::Head(_, began) => {
                    let began = *began;
                    match ResponseHead::parse(rest) {
                        Ok(None) => {
                            self.answered = Answered::Head(rest.to_vec(), began);
                            &[]
                        }
                        Ok(Some((head, end))) => {
                            self.answered = Answered::Head(Vec::new(), at);
                            self.begin_answer(began, &head, ids, notes);
                            &rest[end..]
                        }
                        Err(error) => {
                            draft.miss(&format!("the response cannot be read: {error}"));
                            self.answered = Answered::Unreadable;
                            &[]
                        }
                    }
                }
                Answered::Body(decoder) => {
                    let (rest, is_done) = take_body(decoder, rest, |payload| draft.answer(payload));
                    draft.answered_at(at);
                    match is_done {
                        Ok(true) => {
                            draft.end_answer();
                            self.answered = Answered::Head(Vec::new(), at);
                            self.settle(at, notes);
                        }
                        Ok(false) => {}
                        Err(problem) => {
                            draft.miss(&problem);
                            self.answered = Answered::Unreadable;
                        }
                    }
                    rest
                }
                Answered::Frames(messages) => {
                    messages.take(at, rest, draft, notes);
                    &[]
                }
                Answered::Unreadable => &[],
            };
        }
        self.settle(at, notes);
    }

    /// A response to what is no request yet, or to none at all.
    fn begin_unasked(&mut self, at: f64, ids: &mut u64) {
        *ids += 1;
        let (asked, began) = match &mut self.asked {
            Asked::Head(head, began) if !head.is_empty() => (std::mem::take(head), *began),
            _ => (Vec::new(), at),
        };
        let mut draft = Draft::new(*ids, self.connection, began, self.limits);
        if asked.is_empty() {
            draft.malformed("nothing was asked");
        } else {
            draft.malformed("the head is not complete");
            draft.miss("the head of the request is not complete");
        }
        draft.ask_unreadable(&asked, MAX_UNREADABLE);
        self.open.push_back(draft);
        self.asked = Asked::Unreadable;
    }

    fn begin_answer(&mut self, began: f64, head: &ResponseHead, ids: &mut u64, notes: &mut Vec<Note>) {
        let Some(draft) = self.open.front_mut() else { return };
        let status = head.status();
        if status < 200 && status != 101 {
            draft.interim(status);
            return;
        }
        draft.respond(began, head);
        let early = match &mut self.asked {
            Asked::Upgrade(early, since) => Some((std::mem::take(early), *since)),
            _ => None,
        };
        if status == 101 {
            let limit = self.limits.exchange;
            // Frames follow, so nothing more of a request does.
            draft.end_request();
            draft.end_answer();
            draft.tell(notes);
            let mut messages = Messages::new(Direction::ClientToUpstream, limit);
            if let Some((early, since)) = early.filter(|(early, _)| !early.is_empty()) {
                messages.take(since, &early, draft, notes);
            }
            self.asked = Asked::Frames(messages);
            self.answered = Answered::Frames(Messages::new(Direction::UpstreamToClient, limit));
            return;
        }
        match head.body_length(draft.is_to_head()).map(crate::http1::BodyLength::decoder) {
            Ok(decoder) if decoder.is_done() => draft.end_answer(),
            Ok(decoder) => self.answered = Answered::Body(decoder),
            Err(error) => {
                draft.miss(&format!("the response's framing cannot be read: {error}"));
                self.answered = Answered::Unreadable;
            }
        }
        // Settled at once: the next response on the connection is to the next request.
        self.settle(began, notes);
        if let Some((early, since)) = early {
            self.asked = Asked::Head(Vec::new(), since);
            self.received(since, &early, ids, notes);
        }
    }

    /// Whether nothing is told any more, because of [`Transcript::lose`].
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Gives up what is held of open exchanges, so that memory is freed. Later ones are whole again.
    pub fn give_up(&mut self, reason: &str) {
        self.open.iter_mut().for_each(|draft| draft.give_up(reason));
    }

    /// Something of the connection is not told, so that no further byte can be placed.
    pub fn lose(&mut self, at: f64, reason: &str, notes: &mut Vec<Note>) {
        self.is_lost = true;
        for draft in &mut self.open {
            draft.miss(reason);
            draft.finish(at, Closing::Unknown, notes);
        }
        self.open.clear();
    }

    /// The connection is over.
    pub fn close(&mut self, at: f64, closing: Closing, ids: &mut u64, notes: &mut Vec<Note>) {
        if self.is_lost {
            return;
        }
        if matches!(&self.asked, Asked::Head(head, _) if !head.is_empty()) && self.open.is_empty() {
            self.begin_unasked(at, ids);
        }
        let ends_body = matches!(&self.answered, Answered::Body(decoder) if decoder.may_end_at_close());
        if let Some(draft) = self.open.front_mut() {
            if ends_body && closing == Closing::ByServer {
                draft.end_answer();
            }
            if let Asked::Frames(messages) = &self.asked {
                messages.close(draft);
            }
            if let Answered::Frames(messages) = &self.answered {
                messages.close(draft);
            }
        }
        for draft in &mut self.open {
            draft.finish(at, closing, notes);
        }
        self.open.clear();
    }

    /// Gives out what has become complete.
    fn settle(&mut self, at: f64, notes: &mut Vec<Note>) {
        for draft in &mut self.open {
            draft.tell(notes);
        }
        while self.open.front().is_some_and(Draft::is_whole) {
            if let Some(mut draft) = self.open.pop_front() {
                draft.finish(at, Closing::ByServer, notes);
            }
        }
    }
}

/// Takes what belongs to a body. Says what is behind it, and whether the body has ended.
fn take_body<'a>(
    decoder: &mut BodyDecoder,
    bytes: &'a [u8],
    each: impl FnMut(&'a [u8]),
) -> (&'a [u8], Result<bool, String>) {
    match decoder.decode(bytes, each) {
        Ok(decoded) => (&bytes[decoded.consumed..], Ok(decoded.is_done)),
        Err(error) => (&[], Err(format!("the framing of a body is broken: {error}"))),
    }
}

#[cfg(test)]
mod tests;
