//! Whether a reply is what was asked for, told from its bytes as they arrive: every one is compared.
//!
//! A reply is walked along its template; the bytes between two fields are compared as slices, and fields are
//! compared with what is known or read. Nothing is allocated, copied or parsed while a reply is right. From
//! where it is not, the beginning of what came instead is kept, to tell a failure that the upstream sent
//! from a reply that somebody damaged.

use mock_upstream::content::{ACCOUNT, ASKED_FOR, Field, NONCE, Template, time_of};

/// Most bytes kept of what came in place of what was expected.
const KEPT: usize = 2 * 1024;

/// The widest field.
const WIDEST: usize = 32;

/// A field that arrives in pieces.
#[derive(Debug, Clone, Copy)]
struct Partial {
    bytes: [u8; WIDEST],
    length: usize,
}

/// How far a reply has been compared with its template.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    nonce: [u8; NONCE],
    /// Where in the template the next byte belongs.
    at: usize,
    /// The next field.
    hole: usize,
    /// Events that have come whole.
    event: usize,
    partial: Partial,
    /// Who answers, once it was said.
    account: Option<[u8; ACCOUNT]>,
    received: u64,
    sent: u64,
    /// What came from the first wrong byte's event on.
    instead: Option<Vec<u8>>,
}

/// An event that has come whole and right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its number; 0 is the first of a stream and no content.
    pub(crate) index: usize,
    /// When the mock sent it, in nanoseconds.
    pub(crate) sent: u64,
}

/// What a reply turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Right to the last byte.
    Whole,
    /// Right so far.
    Short,
    /// It says in-band that the request failed; the text says how.
    Failed(String),
    /// Something else came; the text says what.
    Wrong(String),
    /// All of it came, and then more; the text says what.
    Further(String),
}

impl Check {
    /// A check of the reply to the request with this nonce.
    pub(crate) fn new(nonce: [u8; NONCE]) -> Self {
        let partial = Partial { bytes: [0; WIDEST], length: 0 };
        let (account, instead) = (None, None);
        Self { nonce, at: 0, hole: 0, event: 0, partial, account, received: 0, sent: 0, instead }
    }

    /// Takes the next bytes of the reply, and tells of the events that they complete.
    pub(crate) fn feed(&mut self, template: &Template, mut input: &[u8], mut seen: impl FnMut(Seen)) {
        while !input.is_empty() {
            if let Some(instead) = &mut self.instead {
                let room = KEPT.saturating_sub(instead.len()).min(input.len());
                instead.extend_from_slice(&input[..room]);
                return;
            }
            let hole = template.holes.get(self.hole);
            let taken = match hole {
                Some(hole) if hole.at <= self.at - self.partial.length => self.field(hole.field, input),
                _ => {
                    // Up to the next field or the end of the event; behind the last one nothing is right.
                    let event = template.ends.get(self.event).copied().unwrap_or(self.at);
                    let end = hole.map_or(event, |hole| hole.at.min(event));
                    let length = input.len().min(end - self.at);
                    let is_right = length > 0 && input[..length] == template.bytes[self.at..self.at + length];
                    is_right.then_some(length)
                }
            };
            let Some(taken) = taken else {
                let whole = self.event.checked_sub(1).map_or(0, |last| template.ends[last]);
                let before =
                    if self.event == template.ends.len() { &[] } else { &template.bytes[whole..self.at] };
                self.diverge(before);
                continue;
            };
            self.at += taken;
            input = &input[taken..];
            if template.ends.get(self.event) == Some(&self.at) {
                seen(Seen { index: self.event, sent: self.sent });
                self.event += 1;
            }
        }
    }

    /// Whether all of it has come.
    pub(crate) fn is_whole(&self, template: &Template) -> bool {
        self.instead.is_none() && self.at == template.bytes.len()
    }

    /// Whether something else came than was expected.
    pub(crate) fn is_diverged(&self) -> bool {
        self.instead.is_some()
    }

    /// Whether the reply so far ends between two events: where a message on a WebSocket must end.
    pub(crate) fn is_between_events(&self, template: &Template) -> bool {
        self.at == self.event.checked_sub(1).map_or(0, |last| template.ends[last])
    }

    /// Events that have come whole and right.
    pub(crate) fn events(&self) -> usize {
        self.event
    }

    /// Bytes that were right.
    pub(crate) fn bytes(&self) -> u64 {
        self.at as u64
    }

    /// Who answers, once that was said.
    pub(crate) fn account(&self) -> Option<[u8; ACCOUNT]> {
        self.account
    }

    /// When the mock had the request, in nanoseconds; zero until it was said.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// What the reply is, as far as it came.
    pub(crate) fn verdict(&self, template: &Template) -> Verdict {
        match &self.instead {
            None if self.at == template.bytes.len() => Verdict::Whole,
            None => Verdict::Short,
            Some(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                let says_so = FAILURES.iter().any(|failure| text.contains(failure));
                if self.at == template.bytes.len() {
                    Verdict::Further(format!("behind the last event: {}", excerpt(&text)))
                } else if says_so {
                    Verdict::Failed(excerpt(&text))
                } else {
                    Verdict::Wrong(format!(
                        "event {} of {}, byte {}: {}",
                        self.event,
                        template.ends.len(),
                        self.at,
                        excerpt(&text)
                    ))
                }
            }
        }
    }

    /// Takes what is there of a field; says how much that was, or that it is not what it must be.
    fn field(&mut self, field: Field, input: &[u8]) -> Option<usize> {
        let width = field.width();
        if self.partial.length == 0 && input.len() >= width {
            return self.is_right(field, &input[..width]).then(|| {
                self.hole += 1;
                width
            });
        }
        let partial = &mut self.partial;
        let take = (width - partial.length).min(input.len());
        partial.bytes[partial.length..partial.length + take].copy_from_slice(&input[..take]);
        partial.length += take;
        if partial.length == width {
            let bytes = partial.bytes;
            partial.length = 0;
            self.hole += 1;
            if !self.is_right(field, &bytes[..width]) {
                return None;
            }
        }
        Some(take)
    }

    fn is_right(&mut self, field: Field, value: &[u8]) -> bool {
        match field {
            Field::Nonce => value == self.nonce,
            Field::Account => match self.account {
                Some(account) => value == account,
                None => {
                    self.account = value.first_chunk().copied();
                    true
                }
            },
            Field::Received => time_of(value).is_some_and(|time| {
                self.received = time;
                true
            }),
            Field::Sent => time_of(value).is_some_and(|time| {
                self.sent = time;
                true
            }),
        }
    }

    /// From here on it is something else. `before` is what of the event's template it agreed with.
    fn diverge(&mut self, before: &[u8]) {
        let mut kept = Vec::with_capacity(KEPT);
        kept.extend_from_slice(&before[..before.len().min(KEPT / 2)]);
        self.instead = Some(kept);
    }
}

/// What stands in an event that says that a turn failed, over SSE and on a WebSocket.
const FAILURES: [&str; 5] = [
    r#""type":"response.failed""#,
    r#""type":"response.incomplete""#,
    r#""type":"error""#,
    "event: error",
    ASKED_FOR,
];

/// The beginning of a text, in one line of printable characters.
pub(crate) fn excerpt(text: &str) -> String {
    let clean = text.chars().map(|each| if each.is_control() { ' ' } else { each });
    clean.take(240).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use mock_upstream::content::{Content, LineEnd, Shape, Values, account_field, failed, time_field};
    use proptest::prelude::*;

    use super::*;

    const SHAPE: Shape = Shape {
        events: 3,
        bytes: 50,
        line_end: LineEnd::CrLf,
        in_one_write: false,
        content: Content::Answer,
    };

    const SEALED: Shape = Shape { content: Content::Compaction, ..SHAPE };
    const MINE: [u8; NONCE] = *b"0123456789abcdef0123456789abcdef";

    fn stream(template: &Template) -> Vec<u8> {
        let values = Values { nonce: MINE, account: account_field(b"load-001"), received: time_field(5) };
        let mut out = Vec::new();
        template.render(0, template.ends.len(), &values, &time_field(7), &mut out);
        out
    }

    fn check(template: &Template, pieces: &[&[u8]]) -> (Verdict, usize) {
        let (mut check, mut events) = (Check::new(MINE), 0);
        for piece in pieces {
            check.feed(template, piece, |seen| {
                assert_eq!((seen.index, seen.sent), (events, 7));
                events += 1;
            });
        }
        (check.verdict(template), events)
    }

    #[test]
    fn every_single_changed_byte_is_noticed() {
        let template = Template::sse(SHAPE);
        let bytes = stream(&template);
        let first_account = template.holes.iter().find(|hole| hole.field == Field::Account).unwrap().at;
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            // The first account can be any, and a digit of a time can be another.
            let in_hole = template.holes.iter().find(|hole| {
                hole.at <= place && place < hole.at + hole.field.width() && hole.field != Field::Nonce
            });
            match in_hole {
                Some(hole) if hole.at != first_account && hole.field != Field::Account => {}
                // The second account then differs from the first, wherever the change is.
                _ => assert!(matches!(check(&template, &[&changed]).0, Verdict::Wrong(_)), "{place}"),
            }
        }
    }

    #[test]
    fn missing_and_further_bytes_are_noticed() {
        let template = Template::sse(SHAPE);
        let bytes = stream(&template);
        assert_eq!(check(&template, &[&bytes]), (Verdict::Whole, 5));
        for length in 0..bytes.len() {
            assert_eq!(check(&template, &[&bytes[..length]]).0, Verdict::Short);
        }
        assert!(matches!(check(&template, &[&bytes, b"\n"]).0, Verdict::Further(_)));
        let doubled: Vec<u8> = [&bytes[..template.ends[1]], &bytes[template.ends[0]..]].concat();
        assert!(matches!(check(&template, &[&doubled]).0, Verdict::Wrong(_)));
    }

    #[test]
    fn a_failure_in_band_is_no_damage() {
        let template = Template::sse(SHAPE);
        let bytes = stream(&template);
        let event = format!("event: response.failed\r\ndata: {}\r\n\r\n", failed("server_error", &MINE));
        let (verdict, events) = check(&template, &[&bytes[..template.ends[0]], event.as_bytes()]);
        assert!(matches!(verdict, Verdict::Failed(text) if text.contains("server_error")));
        assert_eq!(events, 1);
        let messages = Template::messages(SHAPE);
        let error = br#"{"type":"error","status":503,"error":{"type":"service_unavailable"}}"#;
        assert!(matches!(check(&messages, &[error]).0, Verdict::Failed(_)));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in proptest::collection::vec(0_usize..1_500, 0..12)) {
            for template in [
                Template::sse(SHAPE),
                Template::messages(SHAPE),
                Template::unary(90),
                Template::sse(SEALED),
                Template::messages(SEALED),
            ] {
                let bytes = stream(&template);
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len()).collect();
                cuts.extend([0, bytes.len()]);
                cuts.sort_unstable();
                let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
                prop_assert_eq!(check(&template, &pieces), (Verdict::Whole, template.ends.len()));
            }
        }
    }
}
