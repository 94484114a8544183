//! A fixture through a proxy: its upstream played behind, its client before, judged, and told.
//!
//! What stands between is known by its address only. Starting it, and giving each fixture a fresh one where
//! that matters, is the caller's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mock_upstream::StartError;
use mock_upstream::playback::{Config, Playback};
use wire::capture::{Exchange, Payload, StreamEnd};

use crate::diff::{self, Check, Expect, Finding, judge};
use crate::replay::{Http2, Options, ReplayError, Target, replay};
use crate::report::{Excerpt, FixtureReport, Problem, Severity};

/// Why a fixture could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// Its upstream could not be played.
    #[error("play the upstream")]
    Upstream(#[from] StartError),
    /// Its client could not be played.
    #[error("play the client")]
    Client(#[from] ReplayError),
}

/// What is replayed.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The fixture's name.
    pub name: String,
    /// Whose traffic it is.
    pub client: String,
    /// The client's version.
    pub version: Option<String>,
    /// How the client was launched, if that is known.
    pub mode: Option<String>,
    /// What it holds.
    pub exchanges: Vec<Exchange>,
}

/// How it is replayed.
#[derive(Debug, Clone)]
pub struct Manner {
    /// What kind of proxy it is.
    pub expect: Expect,
    /// How the client is played.
    pub options: Options,
    /// Where the upstream is played; port 0 for any free one.
    pub listen: SocketAddr,
}

/// An upstream that plays a subject.
#[derive(Debug)]
pub struct Stage<'a> {
    subject: &'a Subject,
    manner: &'a Manner,
    playback: Playback,
}

impl<'a> Stage<'a> {
    /// Starts the upstream of a subject.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn set(subject: &'a Subject, manner: &'a Manner) -> Result<Self, ConformanceError> {
        let config = Config {
            listen: manner.listen,
            speed: manner.options.speed,
            max_gap: manner.options.max_gap,
            patience: manner.options.patience,
            holds_beginning: matches!(manner.expect, Expect::Pooled { .. }),
            ..Config::default()
        };
        let playback = Playback::start(subject.exchanges.clone(), config).await?;
        Ok(Self { subject, manner, playback })
    }

    /// Where the proxy finds the upstream.
    #[must_use]
    pub fn upstream(&self) -> SocketAddr {
        self.playback.address()
    }

    /// Plays the client against the proxy and says what came of it. `again` is the command that does just this.
    ///
    /// # Errors
    /// When the target is no URL that can be spoken to.
    pub async fn play(self, target: &Target, again: String) -> Result<FixtureReport, ConformanceError> {
        let begun = Instant::now();
        let Self { subject, manner, playback } = self;
        let recording = replay(&subject.exchanges, target, &playback, &manner.options).await?;
        let findings = judge(&subject.exchanges, &recording, &manner.expect);
        let spoke_http2 = recording.client.iter().any(|seen| seen.http2);
        Ok(FixtureReport {
            name: subject.name.clone(),
            client: subject.client.clone(),
            version: subject.version.clone(),
            protocol: if spoke_http2 { "http2" } else { "http1" }.to_owned(),
            exchanges: subject.exchanges.len(),
            seconds: begun.elapsed().as_secs_f64(),
            made: made(&subject.exchanges, &manner.expect),
            findings: findings.iter().map(|finding| problem(finding, &subject.exchanges)).collect(),
            error: None,
            again,
        })
    }
}

impl Manner {
    /// The usual manner: recorded pauses are cut short, HTTP/2 where it was recorded.
    #[must_use]
    pub fn new(expect: Expect) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { expect, options: Options::default(), listen }
    }

    /// Over HTTP/2 wherever that is possible.
    #[must_use]
    pub fn over_http2(mut self) -> Self {
        self.options.http2 = Http2::Always;
        self
    }

    /// Keeps recorded pauses up to this long.
    #[must_use]
    pub fn max_gap(mut self, gap: Duration) -> Self {
        self.options.max_gap = gap;
        self
    }
}

/// What each check means, with what it forgives.
#[must_use]
pub fn meanings() -> BTreeMap<String, String> {
    let meaning = |check: &Check| {
        let tolerance = check.tolerance().map(|tolerance| format!(" ({tolerance})")).unwrap_or_default();
        (check.name().to_owned(), format!("{}{tolerance}", check.meaning()))
    };
    Check::ALL.iter().map(meaning).collect()
}

/// How often each check had something to look at.
fn made(exchanges: &[Exchange], expect: &Expect) -> BTreeMap<String, usize> {
    let is_pooled = matches!(expect, Expect::Pooled { .. });
    let count = |check: &Check| {
        let made = exchanges.iter().filter(|exchange| concerns(*check, exchange, is_pooled)).count();
        (made > 0).then(|| (check.name().to_owned(), made))
    };
    Check::ALL.iter().filter_map(count).collect()
}

/// Whether there is anything in an exchange that a check looks at.
fn concerns(check: Check, exchange: &Exchange, is_pooled: bool) -> bool {
    let answer = exchange.answer.as_ref();
    let is_refused = answer.is_some_and(|answer| answer.status >= 400);
    let is_socket = exchange.is_upgrade() && answer.is_some_and(|answer| answer.status == 101);
    let has = |name: &str| {
        answer.is_some_and(|answer| answer.headers.iter().any(|(field, _)| field.eq_ignore_ascii_case(name)))
    };
    let is_http = !exchange.is_upgrade();
    let is_cut = answer.is_some_and(|answer| matches!(answer.end, StreamEnd::Fin | StreamEnd::Reset));
    match check {
        Check::RequestHeadersReplaced
        | Check::RequestHeadersDropped
        | Check::ResponseHeadersDropped
        | Check::ContinuationOwner
        | Check::NoCrossAccountLeak => is_pooled,
        Check::RequestBody => !exchange.body().is_empty(),
        Check::WsHandshake => exchange.is_upgrade(),
        Check::WsSubprotocol
        | Check::WsExtensions
        | Check::WsMessages
        | Check::WsFrames
        | Check::WsCloseCode => is_socket,
        Check::WsRefusedUpgrade => exchange.is_upgrade() && !is_socket,
        Check::ResponseBody => is_http && answer.is_some_and(|answer| !answer.body.is_empty()),
        Check::EventOrder | Check::ChunkDelay => is_http && answer.is_some_and(|answer| answer.is_stream),
        Check::FirstByteDelay => is_http && answer.is_some(),
        Check::CutSeenAsCut => is_http && is_cut,
        Check::CleanEnd => is_http && answer.is_some_and(|answer| answer.end == StreamEnd::Eof),
        Check::Cancellation => exchange.client_gone.is_some(),
        Check::ErrorBody => is_refused,
        Check::RetryAfter => is_refused && has("retry-after"),
        Check::ContentEncoding => {
            let coded = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-encoding");
            has("content-encoding") || exchange.request.headers.iter().any(coded)
        }
        Check::BigBody => {
            let longest = exchange.body().len().max(answer.map_or(0, |answer| answer.body.len()));
            longest >= BIG
        }
        Check::HalfClose => mock_upstream::playback::half_closes(exchange),
        Check::SlowFirstByte => {
            answer.is_some_and(|answer| answer.at - exchange.at >= SLOW.as_secs_f64() * 1000.0)
        }
        Check::Status
        | Check::ResponseHeadersKept
        | Check::ResponseHeadersAdded
        | Check::ResponseHeaderDuplicates
        | Check::ResponseHeaderOrder
        | Check::ResponseHeaderCase => answer.is_some(),
        Check::ReachesUpstream
        | Check::UnexpectedRequest
        | Check::SentOnce
        | Check::Method
        | Check::PathAndQuery
        | Check::RequestHeadersKept
        | Check::RequestHeadersAdded
        | Check::RequestHeaderOrder
        | Check::RequestHeaderCase
        | Check::HopByHop => true,
    }
}

/// A body from which on it is called big, in bytes.
const BIG: usize = 1 << 20;

/// A beginning from which on it is called slow.
const SLOW: Duration = Duration::from_millis(500);

fn problem(finding: &Finding, exchanges: &[Exchange]) -> Problem {
    let exchange = exchanges.iter().find(|exchange| Some(exchange.id) == finding.exchange);
    let request = exchange.map(|exchange| format!("{} {}", exchange.request.method, exchange.request.url));
    let (expected, seen) = excerpts(&finding.expected, &finding.seen);
    Problem {
        check: finding.check.name().to_owned(),
        severity: match finding.severity {
            diff::Severity::Broken => Severity::Broken,
            diff::Severity::Lawful => Severity::Lawful,
        },
        exchange: finding.exchange.unwrap_or(0),
        request: request.unwrap_or_default(),
        what: finding.problem.clone(),
        expected,
        seen,
    }
}

/// Both sides as text, with what differs marked: what both begin and end with is not.
fn excerpts(expected: &diff::Excerpt, seen: &diff::Excerpt) -> (Excerpt, Excerpt) {
    let (Payload(one), Payload(other)) = (&expected.bytes, &seen.bytes);
    let same = expected.offset == seen.offset;
    let begin = if same { one.iter().zip(other).take_while(|(one, other)| one == other).count() } else { 0 };
    let tail = one[begin..].iter().rev().zip(other[begin..].iter().rev());
    let end = tail.take_while(|(one, other)| one == other).count();
    let excerpt = |excerpt: &diff::Excerpt| {
        let bytes = &excerpt.bytes.0;
        let (before, rest) = bytes.split_at(begin);
        let (between, behind) = rest.split_at(rest.len() - end);
        let [before, between, behind] = [before, between, behind].map(readable);
        let differs = (!between.is_empty()).then(|| (before.len(), before.len() + between.len()));
        let offset = usize::try_from(excerpt.offset).unwrap_or(usize::MAX);
        Excerpt { text: before + &between + &behind, offset, differs }
    };
    (excerpt(expected), excerpt(seen))
}

/// Bytes as text: what is no UTF-8 and what cannot be printed is escaped, line ends are kept.
fn readable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' | '\r' | '\t' => text.push(letter),
                letter if letter.is_control() => text.extend(letter.escape_unicode()),
                letter => text.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn excerpt(bytes: &[u8]) -> diff::Excerpt {
        diff::Excerpt { bytes: Payload::from(bytes), offset: 0, length: bytes.len() as u64 }
    }

    #[test]
    fn what_differs_is_marked_on_both_sides() {
        let (one, other) = excerpts(&excerpt(b"abXYcd"), &excerpt(b"abZcd"));
        assert_eq!((one.differs, other.differs), (Some((2, 4)), Some((2, 3))));
        let (one, other) = excerpts(&excerpt(b"ab"), &excerpt(b"ab"));
        assert_eq!((one.differs, other.differs), (None, None));
    }

    proptest! {
        #[test]
        fn a_mark_lies_between_characters(one in prop::collection::vec(any::<u8>(), 0..20),
            other in prop::collection::vec(any::<u8>(), 0..20)) {
            let (one, other) = excerpts(&excerpt(&one), &excerpt(&other));
            for side in [one, other] {
                if let Some((begin, end)) = side.differs {
                    prop_assert!(side.text.get(begin..end).is_some());
                }
                prop_assert!(!side.text.contains('\x1b'));
            }
        }
    }
}
