//! The thread that makes records of what the connections tell.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use wire::capture::{Closing, Draft, Entry, Limits, Note, Transcript};

use super::conceal::conceal;
use super::files::Files;
use super::{Event, Shared, Waiting, What};
use crate::notice;
use crate::secret::Secret;

/// How long the first event of a burst waits for others. It is also how much a killed process loses, apart
/// from responses that had not ended.
const GATHER: Duration = Duration::from_millis(40);

/// Most bytes of one exchange that are recorded: a response is one record.
const MAX_EXCHANGE: usize = 256 * 1024 * 1024;

/// Most bytes of all open exchanges together.
const MAX_HELD: usize = 512 * 1024 * 1024;

const LIMITS: Limits = Limits { exchange: MAX_EXCHANGE, cut_is_missing: true };

/// What is told of one connection, or of one stream.
enum Session {
    Connection(Box<Transcript>),
    Stream(Box<Draft>),
}

impl Session {
    fn held(&self) -> usize {
        match self {
            Self::Connection(transcript) => transcript.held(),
            Self::Stream(draft) => draft.held(),
        }
    }

    fn give_up(&mut self, reason: &str) {
        match self {
            Self::Connection(transcript) => transcript.give_up(reason),
            Self::Stream(draft) => draft.give_up(reason),
        }
    }
}

/// Writes what comes until the recording is closed.
pub(super) fn run(shared: &Shared, files: Files, capability: Option<&Secret>) {
    let mut writer =
        Writer { files, capability, sessions: HashMap::new(), held: 0, ids: 0, has_complained: false };
    loop {
        let waiting = shared.waiting();
        let is_quiet = |waiting: &mut Waiting| waiting.events.is_empty() && !waiting.is_closed;
        let waiting = shared.changed.wait_while(waiting, is_quiet).unwrap_or_else(PoisonError::into_inner);
        let gathering = shared.changed.wait_timeout_while(waiting, GATHER, |waiting| !waiting.is_closed);
        let mut waiting = gathering.unwrap_or_else(PoisonError::into_inner).0;
        let (events, is_closed) = (std::mem::take(&mut waiting.events), waiting.is_closed);
        waiting.bytes = 0;
        drop(waiting);
        let last = events.back().map_or(0.0, |event| event.at);
        for event in events {
            writer.take(event);
        }
        if is_closed {
            return writer.end(last);
        }
        writer.files.write();
        writer.complain();
    }
}

struct Writer<'a> {
    files: Files,
    capability: Option<&'a Secret>,
    sessions: HashMap<u64, Session>,
    /// Bytes of open exchanges.
    held: usize,
    /// The last id that was given to an exchange.
    ids: u64,
    has_complained: bool,
}

impl Writer<'_> {
    fn take(&mut self, Event { key, at, what }: Event) {
        let mut notes = Vec::new();
        if let What::Begun(begun) = what {
            self.ids += 1;
            let mut draft = Draft::new(self.ids, begun.connection, at, LIMITS);
            draft.request_fields(&begun.method, &begun.target, "2", begun.headers);
            self.sessions.insert(key, Session::Stream(Box::new(draft)));
            return;
        }
        if let What::Closed(closing) = what {
            if let Some(session) = self.sessions.remove(&key) {
                self.held -= session.held().min(self.held);
                self.close(session, at, closing);
            }
            return;
        }
        let ids = &mut self.ids;
        let session = self
            .sessions
            .entry(key)
            .or_insert_with(|| Session::Connection(Box::new(Transcript::new(key, LIMITS))));
        let before = session.held();
        match session {
            Session::Connection(transcript) => tell(transcript, at, what, ids, &mut notes),
            Session::Stream(draft) => tell_stream(draft, at, what, &mut notes),
        }
        self.held = self.held + session.held() - before;
        if self.held > MAX_HELD {
            let held = session.held();
            session.give_up("too much was in flight at once to be kept");
            self.held -= (held - session.held()).min(self.held);
        }
        self.put(notes);
    }

    fn close(&mut self, session: Session, at: f64, closing: Closing) {
        let mut notes = Vec::new();
        match session {
            Session::Connection(mut transcript) => transcript.close(at, closing, &mut self.ids, &mut notes),
            Session::Stream(mut draft) => draft.finish(at, closing, &mut notes),
        }
        self.put(notes);
    }

    fn put(&mut self, notes: Vec<Note>) {
        for (at, mut entry) in notes {
            if let Some(capability) = self.capability {
                conceal(&mut entry, capability);
            }
            let id = match &entry {
                Entry::Request(request) => request.id,
                Entry::Response(response) => response.id,
                Entry::SseStream(stream) => stream.id,
                Entry::WebsocketMessage(message) => message.id,
                Entry::WebsocketClose(close) => close.id,
                Entry::ClientDisconnect { id } => *id,
                Entry::ExchangeEnd(end) => end.id,
                Entry::Meta(_) | Entry::Marker { .. } | Entry::Fault { .. } => continue,
            };
            self.files.note(id, (at, entry));
        }
    }

    /// Nothing more is told: what is open was cut off.
    fn end(&mut self, at: f64) {
        for (_, session) in std::mem::take(&mut self.sessions) {
            self.close(session, at, Closing::Drained);
        }
        self.files.write();
        let failed = self.files.failed();
        if failed > 0 {
            let directory = self.files.directory().display();
            notice::tell(format_args!(
                "{failed} exchanges could not be recorded in {directory}, or not all of them"
            ));
        }
    }

    /// Says once that the disk does not take what is recorded.
    fn complain(&mut self) {
        if self.files.failed() > 0 && !std::mem::replace(&mut self.has_complained, true) {
            let directory = self.files.directory().display();
            notice::tell(format_args!(
                "{directory} does not take the recording; requests are served all the same"
            ));
        }
    }
}

fn tell(transcript: &mut Transcript, at: f64, what: What, ids: &mut u64, notes: &mut Vec<Note>) {
    match what {
        What::Received(bytes) => transcript.received(at, &bytes, ids, notes),
        What::Sent(bytes) => transcript.sent(at, &bytes, ids, notes),
        What::Lost => transcript.lose(at, "the recorder could not keep up with the traffic", notes),
        What::Begun(_) | What::Asked | What::Answered(..) | What::Done | What::Closed(_) => {}
    }
}

fn tell_stream(draft: &mut Draft, at: f64, what: What, notes: &mut Vec<Note>) {
    match what {
        What::Received(bytes) => {
            draft.ask(&bytes);
            draft.asked_at(at);
        }
        What::Asked => draft.end_request(),
        What::Answered(status, headers) => {
            draft.end_request();
            draft.response_fields(at, status, headers);
        }
        What::Sent(bytes) => {
            draft.answer(&bytes);
            draft.answered_at(at);
        }
        What::Done => draft.end_answer(),
        What::Lost => draft.give_up("the recorder could not keep up with the traffic"),
        What::Begun(_) | What::Closed(_) => {}
    }
    draft.tell(notes);
}
