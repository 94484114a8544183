//! What `prodex doctor` prints: a page of at most 80 columns with what is wrong, or JSON with everything.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::cli::page::{WIDTH, duration, plain, push};
use crate::doctor::attack::{Outcome, Target};
use crate::doctor::finding::{Class, Ranked, Severity};
use crate::doctor::home::Facts;
use crate::doctor::log::Pointer;
use crate::doctor::{Examination, Logs};

/// The version of the JSON: a change that a reader could stumble over raises it.
const VERSION: u32 = 1;

/// Longest value of a field in the JSON.
const LONGEST: usize = 500;

/// The report, with a line break at its end.
pub(super) fn of(examination: &Examination, facts: Option<&Facts>, is_json: bool) -> String {
    if is_json { format!("{}\n", json(examination, facts)) } else { text(examination, facts) }
}

fn text(examination: &Examination, facts: Option<&Facts>) -> String {
    let mut out = String::new();
    let count = examination.findings.len();
    let head = match count {
        0 => "Nothing is wrong.".to_owned(),
        1 => "1 finding.".to_owned(),
        count => format!("{count} findings, the worst first."),
    };
    push(&mut out, &head, "");
    push(&mut out, &format!("Log: {}", log_line(examination)), "     ");
    if let Some(facts) = facts {
        push(&mut out, &format!("Home: {}", home_line(facts)), "      ");
    }
    for (at, ranked) in examination.findings.iter().enumerate() {
        out.push('\n');
        finding(&mut out, examination, at, ranked);
    }
    if count > 0 {
        let line = pressure_line(examination);
        if !line.is_empty() {
            out.push('\n');
            push(&mut out, &line, "  ");
        }
    }
    out
}

fn finding(out: &mut String, examination: &Examination, at: usize, ranked: &Ranked) {
    let found = &ranked.finding;
    let severity = match found.severity {
        Severity::Problem => "PROBLEM",
        severity => severity.name(),
    };
    let left = format!("{:>2}. {severity:8} {}", at + 1, found.title);
    let age = found.span.map(|(_, last)| {
        let age = duration((examination.at - last) / 1000);
        if found.is_over { format!("over, {age} ago") } else { format!("{age} ago") }
    });
    let class = found.class.name().to_owned();
    let both = age.as_ref().map_or(class.clone(), |age| format!("{class}, {age}"));
    let room = |right: &str| {
        WIDTH.checked_sub(left.chars().count() + right.chars().count()).filter(|room| *room > 1)
    };
    let right = if room(&both).is_some() { both } else { age.unwrap_or(class) };
    let _ = writeln!(out, "{left}{}{right}", " ".repeat(room(&right).unwrap_or(2)));
    let cause = ranked
        .cause
        .and_then(|cause| examination.findings.iter().position(|other| other.finding.name == cause));
    let because = cause.map(|cause| format!(" Because of {}.", cause + 1)).unwrap_or_default();
    let indent = "    ";
    push(out, &format!("{indent}{}{because}", plain(&found.sentence)), indent);
    let _ = writeln!(out, "{indent}> {}", plain(&found.next));
}

/// What was read.
fn log_line(examination: &Examination) -> String {
    let summary = &examination.summary;
    let name = |path: &std::path::Path| {
        plain(&path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default())
    };
    let files = match &*summary.files {
        [] => match &examination.logs {
            Logs::File(path) | Logs::Directory(path) => {
                return format!("none in {}", plain(&path.display().to_string()));
            }
        },
        [one] => name(&one.file.path),
        [.., last] => format!("{} files up to {}", summary.files.len(), name(&last.file.path)),
    };
    let lines = if summary.lines == 1 { "1 line".to_owned() } else { format!("{} lines", summary.lines) };
    let mut line = format!("{files}, {lines}");
    if let (Some(first), Some(last)) = (summary.first, summary.last) {
        let _ = write!(line, ", {} to {}", clock(first), clock(last));
    }
    if let Some(since) = examination.since {
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let _ = write!(
            line,
            ", of which {} are of the last {}",
            summary.lines - summary.older - summary.skipped,
            duration(seconds)
        );
    }
    line
}

/// What there is.
fn home_line(facts: &Facts) -> String {
    let mut told = vec![match facts.profiles {
        1 => "1 profile".to_owned(),
        count => format!("{count} profiles"),
    }];
    told.extend(facts.bindings.map(|count| format!("{count} bindings")));
    told.push(match &*facts.running {
        [] => "no proxy runs".to_owned(),
        [pid] => format!("proxy {pid} runs"),
        several => format!("{} proxies run", several.len()),
    });
    if let Some((_, version)) = &facts.client {
        told.push(plain(version.as_deref().unwrap_or("a client without a version")));
    }
    told.extend(facts.login.map(|login| format!("with {login}")));
    told.join(", ")
}

/// Which pressures are not low, and how many lines of trouble there are.
fn pressure_line(examination: &Examination) -> String {
    let raised = examination.pressures.iter().filter(|pressure| !matches!(pressure.level, "low" | "active"));
    let raised: Vec<String> = raised
        .map(|pressure| format!("{} {} ({})", pressure.of, pressure.level, pressure.evidence.join(", ")))
        .collect();
    if raised.is_empty() { String::new() } else { format!("Pressure: {}.", raised.join("; ")) }
}

/// The time of day, with the day.
fn clock(at: i64) -> String {
    timestamp(at).map_or_else(|| "?".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn timestamp(at: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(at).ok()
}

/// RFC 3339 with milliseconds.
fn rfc3339(at: i64) -> Option<String> {
    timestamp(at).map(|at| at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

fn json(examination: &Examination, facts: Option<&Facts>) -> Value {
    let summary = &examination.summary;
    let findings: Vec<Value> = examination.findings.iter().map(finding_json).collect();
    let events: Map<String, Value> = summary
        .events
        .iter()
        .map(|(name, told)| {
            let value = json!({
                "count": told.count,
                "first": told.first.and_then(rfc3339),
                "last": told.last.and_then(rfc3339),
                "fields": shortened(told.fields()),
            });
            (name.clone(), value)
        })
        .collect();
    let facets: Map<String, Value> = summary
        .facets
        .iter()
        .map(|(facet, tally)| {
            let (top, count) = tally.top().unwrap_or_default();
            let value = json!({"top": top, "count": count, "values": tally.values(), "others": tally.others});
            ((*facet).to_owned(), value)
        })
        .collect();
    let of_class = |class: Class| {
        (class.name().to_owned(), Value::from(summary.classes.get(&class).copied().unwrap_or_default()))
    };
    let pressures = examination.pressures.iter().map(|pressure| {
        (pressure.of.to_owned(), json!({"level": pressure.level, "evidence": pressure.evidence}))
    });
    let backlogs = examination.backlogs.iter().map(|backlog| {
        (backlog.of.to_owned(), json!({"backlog": backlog.backlog, "lag_ms": backlog.lag_ms}))
    });
    json!({
        "version": VERSION,
        "at": rfc3339(examination.at),
        "healthy": examination.findings.is_empty() && examination.has_log(),
        "findings": findings,
        "log": log_json(examination),
        "events": events,
        "other_events": summary.other_events,
        "facets": facets,
        "classes": Class::OF_LOGS.into_iter().map(of_class).collect::<Map<_, _>>(),
        "pressures": pressures.collect::<Map<_, _>>(),
        "persistence": backlogs.collect::<Map<_, _>>(),
        "latest_request": latest_json(examination),
        "home": facts.map(facts_json),
    })
}

fn finding_json(ranked: &Ranked) -> Value {
    let found = &ranked.finding;
    json!({
        "rule": found.name,
        "class": found.class.name(),
        "severity": found.severity.name(),
        "title": found.title,
        "sentence": found.sentence,
        "next": found.next,
        "over": found.is_over,
        "because_of": ranked.cause,
        "count": found.count,
        "first": found.span.and_then(|(first, _)| rfc3339(first)),
        "last": found.span.and_then(|(_, last)| rfc3339(last)),
        "fields": shortened(found.fields.clone()),
    })
}

fn log_json(examination: &Examination) -> Value {
    let summary = &examination.summary;
    let (pointer, target) = match &examination.pointer {
        Pointer::Unasked => ("not_asked", None),
        Pointer::Missing => ("missing", None),
        Pointer::Dangling(target) => ("dangling", Some(target)),
        Pointer::To(target) => ("good", Some(target)),
    };
    let files: Vec<Value> = summary
        .files
        .iter()
        .map(|read| json!({"path": read.file.path, "pid": read.file.pid, "lines": read.lines, "problem": read.problem}))
        .collect();
    let places: Vec<Value> = summary
        .places
        .iter()
        .map(|place| json!({"path": place.path, "line": place.line, "why": place.why.name()}))
        .collect();
    json!({
        "pointer": {"state": pointer, "path": target},
        "files": files,
        "since_s": examination.since.map(|since| since.as_secs()),
        "lines": summary.lines,
        "older": summary.older,
        "skipped": summary.skipped,
        "skipped_places": places,
        "first": summary.first.and_then(rfc3339),
        "last": summary.last.and_then(rfc3339),
    })
}

fn latest_json(examination: &Examination) -> Option<Value> {
    let latest = &examination.summary.latest;
    let start = latest.entries().next()?.at;
    let events: Vec<Value> = latest
        .entries()
        .map(|entry| json!({"after_ms": entry.at - start, "event": entry.event, "fields": shortened(entry.fields)}))
        .collect();
    Some(json!({"request": latest.request, "began": rfc3339(start), "events": events}))
}

fn facts_json(facts: &Facts) -> Value {
    let client = facts.client.as_ref().map(|(path, version)| json!({"path": path, "version": version}));
    json!({
        "client": client,
        "login": facts.login,
        "profiles": facts.profiles,
        "bindings": facts.bindings,
        "running": facts.running,
    })
}

/// Fields without values that are longer than a person reads.
fn shortened(fields: Map<String, Value>) -> Map<String, Value> {
    let shorten = |value: Value| match value {
        Value::String(text) if text.len() > LONGEST => {
            Value::String(text.chars().take(LONGEST).chain(['…']).collect())
        }
        Value::Array(items) if items.len() > 16 => Value::from(format!("{} items", items.len())),
        other => other,
    };
    fields.into_iter().map(|(key, value)| (key, shorten(value))).collect()
}

/// What came of an attack.
pub(super) fn attack(target: &Target, outcomes: &[Outcome], is_json: bool) -> String {
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    if is_json {
        let probes: Vec<Value> = outcomes
            .iter()
            .map(|outcome| {
                json!({
                    "about": outcome.about,
                    "probe": outcome.name,
                    "expected": outcome.expected,
                    "seen": outcome.seen,
                    "passed": outcome.passed,
                })
            })
            .collect();
        let at = rfc3339(jiff::Timestamp::now().as_millisecond());
        let value = json!({
            "version": VERSION,
            "at": at,
            "healthy": failed == 0,
            "attack": {"address": target.address.to_string(), "probes": probes},
        });
        return format!("{value}\n");
    }
    let mut out = String::new();
    let _ = match failed {
        0 => writeln!(out, "The proxy at {} refused all {} probes.", target.address, outcomes.len()),
        failed => writeln!(
            out,
            "The proxy at {} let {failed} of {} probes through.",
            target.address,
            outcomes.len()
        ),
    };
    let mut about = "";
    for outcome in outcomes {
        if outcome.about != about {
            about = outcome.about;
            let _ = writeln!(out, "\n{about}");
        }
        let mark = if outcome.passed { "pass" } else { "FAIL" };
        let seen = if outcome.passed {
            outcome.seen.clone()
        } else {
            format!("{}; right is {}", outcome.seen, outcome.expected)
        };
        push(&mut out, &format!("  {mark}  {}: {seen}", outcome.name), "        ");
    }
    out
}
