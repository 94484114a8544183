//! What came of a replay against its record: every difference as a finding of a named check.
//!
//! [`Expect`] says which proxy it was: a transparent one may change nothing but what belongs to a
//! connection; a pooling one does to each field what `wire::header` says of it. What a plain reverse proxy
//! may lawfully do is found too, but as [`Severity::Lawful`].

use mock_upstream::playback::{Ask, Log};
use serde::{Deserialize, Serialize};
use wire::capture::Exchange;

use crate::replay::{Recording, Seen};

mod check;

mod ending;

mod excerpt;

mod headers;

mod pool;

mod request;

mod response;

mod timing;

mod websocket;

pub use check::Check;
pub use excerpt::{Excerpt, differ, first_difference};
pub use pool::Account;

/// What kind of proxy it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Nothing is changed but what RFC 9110 §7.6.1 gives to the connection, and the host.
    Transparent,
    /// The account's fields stand in place of the client's.
    Pooled {
        /// The accounts of the pool.
        accounts: Vec<Account>,
    },
}

impl Expect {
    pub(crate) fn is_pooled(&self) -> bool {
        matches!(self, Self::Pooled { .. })
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A standard allows a proxy to do it.
    Lawful,
    /// Traffic is not what it was.
    Broken,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What was judged.
    pub check: Check,
    /// How bad it is.
    pub severity: Severity,
    /// The exchange, where it is about one.
    pub exchange: Option<u64>,
    /// What differs, in a sentence.
    pub problem: String,
    /// What was to be seen.
    pub expected: Excerpt,
    /// What was seen.
    pub seen: Excerpt,
}

/// Judges a replay of these exchanges.
#[must_use]
pub fn judge(exchanges: &[Exchange], recording: &Recording, expect: &Expect) -> Vec<Finding> {
    let mut findings = Findings { list: Vec::new(), exchange: None };
    let mut pairs = Pairs::new(exchanges, &recording.upstream, expect);
    for exchange in exchanges {
        findings.exchange = Some(exchange.id);
        let Some(seen) = recording.client.iter().find(|seen| seen.exchange == exchange.id) else { continue };
        let case = Case { exchange, seen, asks: recording.upstream.of(exchange.id).collect(), expect };
        if let Some(ask) = pairs.lost(exchange) {
            // What was answered to a request that was not recognised says nothing more.
            request::judge(&Case { asks: vec![ask], ..case }, &mut findings);
            continue;
        }
        case.judge(&mut findings);
    }
    findings.exchange = None;
    for ask in pairs.unexpected {
        let problem = match &ask.problem {
            Some(problem) => format!("what reached the upstream is no request: {problem}"),
            None => format!("{} {} is nobody's request", ask.method, ask.target),
        };
        findings.text(Check::UnexpectedRequest, &problem, "", &format!("{} {}", ask.method, ask.target));
    }
    if let Expect::Pooled { accounts } = expect {
        pool::judge(exchanges, recording, accounts, &mut findings);
    }
    findings.list
}

/// An exchange and what both sides saw of it.
struct Case<'a> {
    exchange: &'a Exchange,
    seen: &'a Seen,
    asks: Vec<&'a Ask>,
    expect: &'a Expect,
}

impl Case<'_> {
    fn judge(&self, findings: &mut Findings) {
        if self.expect.is_pooled() && pool::answers_itself(&self.exchange.request.url) {
            return;
        }
        if self.asks.is_empty() {
            self.never_asked(findings);
            return;
        }
        request::judge(self, findings);
        ending::judge(self, findings);
        if self.exchange.is_upgrade() {
            websocket::judge(self, findings);
        } else {
            response::judge(self, findings);
            timing::judge(self, findings);
        }
    }

    fn never_asked(&self, findings: &mut Findings) {
        let request = &self.exchange.request;
        if request::breaks_off(self.exchange) || response::is_half_closed(self, findings) {
            return;
        }
        let seen = format!("status {:?}, {:?}", self.seen.status, self.seen.end);
        let problem = format!("{} {} never reached the upstream", request.method, request.url);
        findings.text(Check::ReachesUpstream, &problem, "a request", &seen);
    }

    /// The request that the client's answer came from: the last.
    fn ask(&self) -> Option<&Ask> {
        self.asks.last().copied()
    }
}

/// Requests that belong to no exchange, and the exchanges that nobody asked for: likely each other's.
struct Pairs<'a> {
    lost: Vec<(u64, &'a Ask)>,
    unexpected: Vec<&'a Ask>,
}

impl<'a> Pairs<'a> {
    fn new(exchanges: &[Exchange], log: &'a Log, expect: &Expect) -> Self {
        let is_own = |ask: &Ask| expect.is_pooled() && pool::is_own_question(&ask.target);
        let mut unexpected: Vec<&Ask> = log.unexpected().filter(|ask| !is_own(ask)).collect();
        let mut lost = Vec::new();
        for exchange in exchanges.iter().filter(|exchange| log.of(exchange.id).next().is_none()) {
            let best = unexpected
                .iter()
                .enumerate()
                .map(|(at, ask)| (likeness(exchange, ask), at))
                .filter(|(likeness, at)| *likeness > 1 && unexpected[*at].problem.is_none())
                .max_by_key(|(likeness, at)| (*likeness, std::cmp::Reverse(*at)));
            if let Some((_, at)) = best {
                lost.push((exchange.id, unexpected.remove(at)));
            }
        }
        Self { lost, unexpected }
    }

    fn lost(&mut self, exchange: &Exchange) -> Option<&'a Ask> {
        self.lost.iter().find(|(id, _)| *id == exchange.id).map(|(_, ask)| *ask)
    }
}

/// How much of a request is as in an exchange that it does not match.
fn likeness(exchange: &Exchange, ask: &Ask) -> u32 {
    let request = &exchange.request;
    let path = |target: &str| target.split('?').next().unwrap_or_default().to_owned();
    let is_same_path = path(&request.url) == path(&ask.target);
    let is_same_method = request.method == ask.method;
    let kept = request.headers.iter().filter(|field| ask.headers.contains(field)).count();
    let is_same_body = !ask.body.0.is_empty() && exchange.body() == ask.body.0;
    2 * u32::from(is_same_path)
        + u32::from(is_same_method)
        + 2 * u32::from(is_same_body)
        + u32::from(kept * 2 > request.headers.len())
}

/// The findings so far, and the exchange that is being judged.
struct Findings {
    list: Vec<Finding>,
    exchange: Option<u64>,
}

impl Findings {
    fn add(&mut self, check: Check, severity: Severity, problem: &str, expected: Excerpt, seen: Excerpt) {
        let (exchange, problem) = (self.exchange, problem.to_owned());
        self.list.push(Finding { check, severity, exchange, problem, expected, seen });
    }

    /// Something broken that is shown in words.
    fn text(&mut self, check: Check, problem: &str, expected: &str, seen: &str) {
        self.add(check, Severity::Broken, problem, Excerpt::whole(expected), Excerpt::whole(seen));
    }

    /// Something lawful that is shown in words.
    fn lawful(&mut self, check: Check, problem: &str, expected: &str, seen: &str) {
        self.add(check, Severity::Lawful, problem, Excerpt::whole(expected), Excerpt::whole(seen));
    }

    /// Something broken if these bytes are not the same.
    fn bytes(&mut self, checks: &[Check], what: &str, expected: &[u8], seen: &[u8]) {
        let Some((at, left, right)) = differ(expected, seen) else { return };
        let problem = format!("{what} differs from byte {at} on: {}", in_short(expected, seen));
        for check in checks {
            self.add(*check, Severity::Broken, &problem, left.clone(), right.clone());
        }
    }
}

fn in_short(expected: &[u8], seen: &[u8]) -> String {
    match seen.len().cmp(&expected.len()) {
        std::cmp::Ordering::Less => {
            format!("{} of {} bytes are missing", expected.len() - seen.len(), expected.len())
        }
        std::cmp::Ordering::Equal => format!("{} bytes, as many as there should be", seen.len()),
        std::cmp::Ordering::Greater => {
            format!("{} bytes more than the {}", seen.len() - expected.len(), expected.len())
        }
    }
}
