//! What a hostile neighbour would try on a running proxy, tried: each probe must be refused.
//!
//! Probes are bytes on sockets of their own, so that no library makes them well-formed. Each asks for a path
//! that no backend has, and none carries a credential of ours, so that even a proxy that lets one through
//! relays nothing that matters. The one that must name a real route, to have its body refused, is only sent
//! where the unknown path was refused.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

mod addresses;

mod dial;

mod probes;

use dial::Seen;
use probes::{PROBES, Probe};

/// A proxy to try.
pub(crate) struct Target {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// With which settings, if it listens with TLS.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// What stands in front of every path: the capability, behind `/k/`.
    pub(crate) prefix: String,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What it is about: `capability`, `page`, `target`, `framing`, `size` or `network`.
    pub(crate) about: &'static str,
    /// What was tried.
    pub(crate) name: &'static str,
    pub(crate) expected: String,
    pub(crate) seen: String,
    pub(crate) passed: bool,
}

/// Why an URL names no proxy that may be tried.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// It is none.
    #[error("{0:?} is no URL such as http://127.0.0.1:8080/k/CAPABILITY")]
    Url(String),
    /// It is on another machine.
    #[error("{0} is not on this machine: only a proxy of your own is tried")]
    Remote(String),
}

impl Target {
    /// The proxy at a base URL, which holds its capability. `tls` are the settings for one with TLS.
    ///
    /// # Errors
    /// When it is no URL of a loopback address.
    pub(crate) fn parse(
        url: &str,
        tls: impl FnOnce() -> Option<Arc<rustls::ClientConfig>>,
    ) -> Result<Self, TargetError> {
        let wrong = || TargetError::Url(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let tls = match scheme {
            "http" => None,
            "https" => Some(tls().ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let ip = match host.trim_start_matches('[').trim_end_matches(']') {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            host => host.parse().map_err(|_| TargetError::Remote(host.to_owned()))?,
        };
        if !ip.is_loopback() {
            return Err(TargetError::Remote(host.to_owned()));
        }
        // Of a base URL for Codex only the capability counts.
        let capability = path.strip_prefix("k/").and_then(|path| path.split('/').next()).unwrap_or_default();
        if !capability.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(wrong());
        }
        let prefix = if capability.is_empty() { String::new() } else { format!("/k/{capability}") };
        Ok(Self { address: SocketAddr::new(ip, port), tls, prefix })
    }

    /// A capability that is almost the right one.
    fn spoilt_prefix(&self) -> String {
        let mut prefix =
            if self.prefix.is_empty() { format!("/k/{}", "x".repeat(32)) } else { self.prefix.clone() };
        let last = prefix.pop();
        prefix.push(if last == Some('x') { 'y' } else { 'x' });
        prefix
    }
}

/// Tries everything.
///
/// # Errors
/// When nobody listens there.
pub(crate) fn attack(target: &Target) -> std::io::Result<Vec<Outcome>> {
    // A proxy that is not there refuses everything, too.
    dial::open(target)?;
    let mut outcomes: Vec<Outcome> = PROBES.iter().map(|probe| run(target, probe)).collect();
    let is_closed = outcomes.iter().any(|outcome| outcome.name == probes::UNKNOWN_PATH && outcome.passed);
    outcomes.push(if is_closed {
        run(target, &probes::LONG_BODY)
    } else {
        let probe = &probes::LONG_BODY;
        let seen = "not tried: unknown paths are not refused".to_owned();
        Outcome { about: probe.about, name: probe.name, expected: probe.expectation(), seen, passed: false }
    });
    outcomes.push(slow_heads(target));
    outcomes.push(addresses::outcome(target.address.port()));
    Ok(outcomes)
}

fn run(target: &Target, probe: &Probe) -> Outcome {
    let seen = dial::exchange(target, &(probe.request)(target));
    let outcome = |seen: String, passed| Outcome {
        about: probe.about,
        name: probe.name,
        expected: probe.expectation(),
        seen,
        passed,
    };
    match seen {
        Seen::Closed => outcome("closed".to_owned(), probe.may_close),
        Seen::Nothing => outcome("no answer".to_owned(), false),
        Seen::Answers { count: 2.., status, .. } => outcome(format!("{status} and a further answer"), false),
        Seen::Answers { allows_origins: true, status, .. } => {
            outcome(format!("{status} that lets web pages read it"), false)
        }
        Seen::Answers { status, .. } => outcome(status.to_string(), probe.statuses.contains(&status)),
    }
}

/// Heads that never end must keep nobody else waiting.
fn slow_heads(target: &Target) -> Outcome {
    const HEADS: usize = 32;
    let held: Vec<_> = (0..HEADS)
        .filter_map(|_| {
            let mut connection = dial::open(target).ok()?;
            connection.send(b"GET /prodex-doctor HTTP/1.1\r\nHost: local").ok()?;
            Some(connection)
        })
        .collect();
    let started = std::time::Instant::now();
    let seen = dial::exchange(target, &(PROBES[0].request)(target));
    let took = started.elapsed().as_millis();
    let passed = held.len() == HEADS && matches!(seen, Seen::Answers { .. });
    let seen = match seen {
        Seen::Answers { .. } => format!("answered after {took} ms, {} heads open", held.len()),
        _ => format!("no answer after {took} ms"),
    };
    let name = "32 heads that do not end";
    Outcome { about: "size", name, expected: "others are answered".to_owned(), seen, passed }
}

#[cfg(test)]
mod tests;
