//! Header fields of both sides against each other: kept, replaced, dropped, added, their number, order and case.

use std::collections::HashSet;

use wire::capture::Headers;
use wire::header::{Action, lookup};

use super::{Check, Findings};

/// The checks of one direction.
pub(super) struct Way {
    pub(super) kept: Check,
    pub(super) dropped: Check,
    pub(super) added: Check,
    /// Where the number of equal lines is a check of its own.
    pub(super) duplicates: Check,
    pub(super) order: Check,
    pub(super) case: Check,
    /// Fields that a plain proxy may add.
    pub(super) may_add: &'static [&'static str],
    pub(super) is_request: bool,
}

pub(super) const REQUEST: Way = Way {
    kept: Check::RequestHeadersKept,
    dropped: Check::RequestHeadersDropped,
    added: Check::RequestHeadersAdded,
    duplicates: Check::RequestHeadersKept,
    order: Check::RequestHeaderOrder,
    case: Check::RequestHeaderCase,
    may_add: &["via", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"],
    is_request: true,
};

pub(super) const RESPONSE: Way = Way {
    kept: Check::ResponseHeadersKept,
    dropped: Check::ResponseHeadersDropped,
    added: Check::ResponseHeadersAdded,
    duplicates: Check::ResponseHeaderDuplicates,
    order: Check::ResponseHeaderOrder,
    case: Check::ResponseHeaderCase,
    may_add: &["via", "date", "server", "age"],
    is_request: false,
};

/// Fields of a connection (RFC 9110 §7.6.1), the framing, and what each hop of a WebSocket has for itself.
const HOP: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// How the fields are to be compared.
pub(super) struct Compare<'a> {
    pub(super) expected: &'a Headers,
    pub(super) seen: &'a Headers,
    pub(super) is_pooled: bool,
    /// Over HTTP/2 names have no case, equal names are kept together, and nothing is a connection's.
    pub(super) is_http2: bool,
    /// Whether this field, which a pool would keep, may be missing.
    pub(super) may_miss: &'a dyn Fn(&str) -> bool,
}

pub(super) fn judge(way: &Way, compare: &Compare<'_>, findings: &mut Findings) {
    let hop = hop_names(compare.expected);
    let is_hop = |name: &str| HOP.contains(&name) || hop.contains(name);
    let mut names: Vec<String> = Vec::new();
    for (name, _) in compare.expected.iter().chain(compare.seen) {
        let name = name.to_ascii_lowercase();
        if !names.contains(&name) && !name.starts_with(':') {
            names.push(name);
        }
    }
    let mut hops = Vec::new();
    for name in &names {
        // A host names the next hop; whether a key was accepted was seen with the handshake.
        if (way.is_request && name == "host") || name == "sec-websocket-accept" {
            continue;
        }
        let (expected, seen) = (values(compare.expected, name), values(compare.seen, name));
        let action = match (compare.is_pooled, way.is_request) {
            (false, _) => Action::Keep,
            (true, true) => lookup(name).request,
            (true, false) => lookup(name).response,
        };
        // A pool that forwards what its client has for a proxy gives a secret away.
        if is_hop(name) && !(compare.is_pooled && name == "proxy-authorization") {
            if expected != seen && !compare.is_pooled && !compare.is_http2 {
                hops.push((name, lines(&expected), lines(&seen)));
            }
            continue;
        }
        match action {
            Action::Keep => kept(way, compare, name, &expected, &seen, findings),
            Action::Drop if !seen.is_empty() && !expected.is_empty() => {
                findings.text(way.dropped, &format!("{name} was forwarded"), "", &lines(&seen));
            }
            Action::Drop | Action::Replace => {}
        }
    }
    connection(way, &hops, findings);
    if !compare.is_http2 {
        spelling(way, compare, &is_hop, findings);
        order(way, compare, &is_hop, findings);
    }
}

/// Tells in one finding what each hop has of its own.
fn connection(way: &Way, fields: &[(&String, String, String)], findings: &mut Findings) {
    if fields.is_empty() {
        return;
    }
    let expected: String = fields.iter().map(|(name, value, _)| format!("{name}: {value}\n")).collect();
    let seen: String = fields.iter().map(|(name, _, value)| format!("{name}: {value}\n")).collect();
    let what = if way.is_request { "a request" } else { "a response" };
    let problem = format!("the connection's fields of {what} differ");
    findings.lawful(Check::HopByHop, &problem, &expected, &seen);
}

fn values<'a>(headers: &'a Headers, name: &str) -> Vec<&'a str> {
    let is_named = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
    headers.iter().filter(is_named).map(|(_, value)| value.trim()).collect()
}

fn lines(values: &[&str]) -> String {
    values.join("\n")
}

/// The fields that `Connection` gives to the connection.
fn hop_names(headers: &Headers) -> HashSet<String> {
    let named = values(headers, "connection").into_iter().flat_map(|value| value.split(','));
    named.map(|name| name.trim().to_ascii_lowercase()).collect()
}

fn kept(
    way: &Way,
    compare: &Compare<'_>,
    name: &str,
    expected: &[&str],
    seen: &[&str],
    findings: &mut Findings,
) {
    if expected == seen {
        return;
    }
    let (left, right) = (lines(expected), lines(seen));
    let sorted = |values: &[&str]| {
        let mut values: Vec<String> = values.iter().map(ToString::to_string).collect();
        values.sort_unstable();
        values
    };
    if expected.is_empty() {
        let problem = format!("{name} was added");
        // A date is even owed by whoever forwards an answer without one (RFC 9110 §6.6.1).
        if name == "date" || (!compare.is_pooled && way.may_add.contains(&name)) {
            findings.lawful(way.added, &problem, &left, &right);
        } else {
            findings.text(special(name, way.added), &problem, &left, &right);
        }
    } else if seen.is_empty() {
        if !(compare.may_miss)(name) {
            findings.text(special(name, way.kept), &format!("{name} is missing"), &left, &right);
        }
    } else if sorted(expected) == sorted(seen) {
        findings.text(way.order, &format!("the lines of {name} have changed places"), &left, &right);
    } else if expected.join(", ") == seen.join(", ") && name != "set-cookie" {
        findings.lawful(way.kept, &format!("the lines of {name} were joined"), &left, &right);
    } else if expected.len() != seen.len() {
        let problem = format!("{name} came {} times and arrives {} times", expected.len(), seen.len());
        findings.text(special(name, way.duplicates), &problem, &left, &right);
    } else {
        findings.text(special(name, way.kept), &format!("{name} has another value"), &left, &right);
    }
}

/// Fields whose loss has a check of its own.
fn special(name: &str, check: Check) -> Check {
    match name {
        "retry-after" => Check::RetryAfter,
        "content-encoding" => Check::ContentEncoding,
        "sec-websocket-protocol" => Check::WsSubprotocol,
        _ => check,
    }
}

fn spelling(way: &Way, compare: &Compare<'_>, is_hop: &dyn Fn(&str) -> bool, findings: &mut Findings) {
    let own = |name: &str| !is_hop(&name.to_ascii_lowercase()) && !name.eq_ignore_ascii_case("host");
    let changed = compare.expected.iter().filter(|(name, _)| own(name)).find_map(|(name, _)| {
        let same = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        let mut others = compare.seen.iter().filter(same).peekable();
        others.peek()?;
        let (other, _) = others.find(|(field, _)| field != name)?;
        Some((name, other))
    });
    if let Some((name, other)) = changed {
        findings.lawful(way.case, &format!("{name} is spelled in another way"), name, other);
    }
}

fn order(way: &Way, compare: &Compare<'_>, is_hop: &dyn Fn(&str) -> bool, findings: &mut Findings) {
    let names = |headers: &Headers, others: &Headers| -> Vec<String> {
        let names = headers.iter().map(|(name, _)| name.to_ascii_lowercase());
        let is_common = |name: &String| {
            others.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
                && !is_hop(name)
                && name != "host"
        };
        let mut once = HashSet::new();
        names.filter(is_common).filter(|name| once.insert(name.clone())).collect()
    };
    let expected = names(compare.expected, compare.seen);
    let seen = names(compare.seen, compare.expected);
    if expected != seen {
        findings.lawful(way.order, "the fields have changed places", &expected.join("\n"), &seen.join("\n"));
    }
}
