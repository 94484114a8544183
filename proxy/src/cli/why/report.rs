//! What `prodex why` prints: a page of at most 80 columns, or JSON.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use wire::run_event::RawLine;

use super::history::{Decision, History, Outcome};
use super::what_if::WhatIf;
use crate::cli::page::{self, duration, push, shorten};
use crate::selection::{Candidate, State};

/// The version of the JSON; it grows when a key changes its meaning or goes.
const VERSION: u32 = 1;

/// Widest name in the table.
const NAME: usize = 18;

/// The page for people.
pub(super) fn text(log: &str, history: &History, changes: &[WhatIf], what_if: Option<&Outcome>) -> String {
    let mut out = String::new();
    for (at, decision) in history.decisions.iter().enumerate() {
        if at == 0 {
            let head = format!("Request {} ({}) at {}", history.request, decision.route, decision.time);
            push(&mut out, &format!("{head}, from {log}"), "");
        } else {
            let tried = decision.tried.join(", ");
            let why = if tried.is_empty() { "asked again".to_owned() } else { format!("{tried} refused") };
            push(&mut out, &format!("Then at {}: {why}", decision.time), "");
        }
        out.push('\n');
        table(&mut out, decision);
        out.push('\n');
        push(&mut out, &format!("  {}", sentence(decision, &decision.logged)), "  ");
        let remade = decision.remake(&decision.snapshot);
        if remade != decision.logged {
            let differs =
                "  This version of prodex would not choose so: the log is of another. By its rules: ";
            push(&mut out, &(differs.to_owned() + &sentence(decision, &remade)), "  ");
        }
        out.push('\n');
    }
    if let (Some(outcome), Some(decision)) = (what_if, history.decisions.first()) {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        let then = match &outcome.profile {
            Some(profile) => format!("{profile} would have been chosen first"),
            None => "nobody would have been chosen".to_owned(),
        };
        let why = because(decision, outcome);
        push(&mut out, &format!("  If {}, {then}: {why}.", changes.join(" and ")), "  ");
        out.push('\n');
    }
    out.push_str("What happened:\n");
    let start = history.events.first().and_then(milliseconds);
    for line in &history.events {
        let after = milliseconds(line).zip(start).map_or(0, |(at, start)| at - start);
        let fields = line.fields.iter().filter(|(key, _)| !DECISIVE.contains(&key.as_str()));
        let fields: Vec<String> = fields.map(|(key, value)| format!("{key}={}", plain(value))).collect();
        push(&mut out, &format!("{after:>7} ms  {}  {}", line.event, fields.join(" ")), "            ");
    }
    out
}

/// Fields that the page tells in other ways.
const DECISIVE: &[&str] =
    &["request", "snapshot", "at", "in_flight", "tried", "limits", "unreachable", "reset"];

/// The candidates of a choice.
fn table(out: &mut String, decision: &Decision) {
    let _ = writeln!(
        out,
        "  {:NAME$} {:11} {:9} {:>5}  {:21}{:>9}",
        "profile", "state", "band", "left", "evidence", "in flight"
    );
    for candidate in decision.snapshot.candidates() {
        let is_chosen = decision.logged.profile.as_deref() == Some(&**candidate.name());
        let mark = if is_chosen { '>' } else { ' ' };
        let state = candidate.state(decision.circuit()).name();
        let left = candidate.remaining().map_or_else(|| "?".to_owned(), |left| format!("{left:.0} %"));
        let evidence = evidence(decision, &candidate);
        let in_flight = in_flight(decision, &candidate);
        let name = shorten(candidate.name(), NAME);
        let band = candidate.band().name();
        let line = format!("{mark} {name:NAME$} {state:11} {band:9} {left:>5}  {evidence}");
        // One state is longer than its column; the last column ends where it does all the same.
        let rest = 80_usize.saturating_sub(line.chars().count());
        let line = format!("{line}{in_flight:>rest$}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// Whether the requests in flight were looked at; else the log does not have them.
fn is_counted(decision: &Decision) -> bool {
    matches!(decision.logged.reason.as_str(), "ranked" | "queue" | "last_resort")
        || decision.logged.profile.is_none()
        || decision.snapshot.in_flight.iter().any(|count| *count > 0)
}

/// How many requests a candidate served, and which limit it has reached with them.
fn in_flight(decision: &Decision, candidate: &Candidate<'_>) -> String {
    let limit = if candidate.is_full() {
        " full"
    } else if candidate.is_busy() {
        " busy"
    } else {
        ""
    };
    if is_counted(decision) { format!("{}{limit}", candidate.in_flight) } else { "-".to_owned() }
}

/// What a candidate's state or band is known from.
fn evidence(decision: &Decision, candidate: &Candidate<'_>) -> String {
    let at = decision.snapshot.at;
    match candidate.state(decision.circuit()) {
        State::Exhausted(until) | State::Backoff(until) => {
            return format!("refusal, {} left", duration(until.saturating_sub(at)));
        }
        _ if candidate.is_unreachable => return "cannot be reached".to_owned(),
        _ => {}
    }
    let windows = candidate.standing.windows.iter();
    let current = windows.filter(|window| window.resets_at.is_none_or(|reset| reset > at));
    let tightest = current.min_by(|one, two| one.remaining.total_cmp(&two.remaining));
    tightest.map_or_else(
        || "none".to_owned(),
        |window| format!("{}, {} old", window.source.name(), duration(at.saturating_sub(window.observed_at))),
    )
}

/// What was chosen, and why, as a sentence.
fn sentence(decision: &Decision, outcome: &Outcome) -> String {
    let because = because(decision, outcome);
    match &outcome.profile {
        Some(profile) => format!("Chosen: {profile}, because {because}."),
        None => format!("Nobody was chosen, because {because}."),
    }
}

fn because(decision: &Decision, outcome: &Outcome) -> String {
    let owner = decision.owner.as_ref().map_or("?", |owner| &owner.profile);
    match outcome.reason.as_str() {
        "response_id" => "it owns the response that the request continues".to_owned(),
        "encrypted_content" => "it owns an encrypted item that the request holds".to_owned(),
        "turn_state" => "it owns the turn whose state the request carries".to_owned(),
        "thread" => "it owns the thread of the request".to_owned(),
        "session" => "it owns the session of the request".to_owned(),
        "current" => "it served last, so its prompt cache is warm, and it has room".to_owned(),
        "ranked" => {
            "it is the best of those that could serve; compared are, in this order: reachable, proved \
                     since its last refusal, above 5 %, not busy, then band, preference, requests in flight, \
                     and what is left"
                .to_owned()
        }
        "queue" => "all that could serve have as many requests in flight as they may; it is the best of \
                    them, or the one that the WebSocket leads to, and the request waits for a place there"
            .to_owned(),
        "last_resort" => "nobody is ready, and it is the first to be so again; its refusal tells the client \
                          when"
            .to_owned(),
        "no_profiles" => "there is no profile for this API".to_owned(),
        "owner_cannot_serve" => format!("{owner} owns the conversation, cannot serve, and nobody else could"),
        "all_refused" => "all have refused, or would".to_owned(),
        "all_barred" => "the credentials of all are not good, or they are paused or out of scope".to_owned(),
        other => format!("of {other}"),
    }
}

/// The same as JSON.
pub(super) fn json(path: &Path, history: &History, changes: &[WhatIf], what_if: Option<&Outcome>) -> Value {
    let events: Vec<Value> = history
        .events
        .iter()
        .map(|line| json!({"time": line.timestamp, "event": line.event, "fields": line.fields}))
        .collect();
    let decisions: Vec<Value> = history.decisions.iter().map(decision_json).collect();
    let what_if = what_if.map(|outcome| {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        json!({"changes": changes, "choice": outcome_json(outcome)})
    });
    json!({
        "version": VERSION,
        "log": path,
        "request": history.request,
        "decisions": decisions,
        "events": events,
        "what_if": what_if,
    })
}

fn decision_json(decision: &Decision) -> Value {
    let remade = decision.remake(&decision.snapshot);
    let candidate = |candidate: Candidate<'_>| {
        let state = candidate.state(decision.circuit());
        let until = state.returns_at().filter(|at| *at > decision.snapshot.at);
        json!({
            "name": candidate.name(),
            "state": state.name(),
            "until": until,
            "band": candidate.band().name(),
            "remaining": candidate.remaining(),
            "windows": candidate.standing.windows,
            "circuits": candidate.standing.circuits,
            "in_flight": is_counted(decision).then_some(candidate.in_flight),
            "busy": candidate.is_busy(),
            "full": candidate.is_full(),
            "unreachable": candidate.is_unreachable,
        })
    };
    let owner = decision.owner.as_ref();
    json!({
        "time": decision.time,
        "at": decision.snapshot.at,
        "route": decision.route,
        "snapshot": decision.number,
        "current": decision.snapshot.here.as_ref().or(decision.snapshot.current.as_ref()),
        "owner": owner.map(|owner| json!({"profile": owner.profile, "by": owner.tie.name()})),
        "may_move": decision.may_move,
        "tried": decision.tried,
        "candidates": decision.snapshot.candidates().map(candidate).collect::<Vec<_>>(),
        "choice": outcome_json(&decision.logged),
        "recomputed": outcome_json(&remade),
        "agrees": remade == decision.logged,
    })
}

fn outcome_json(outcome: &Outcome) -> Value {
    json!({"profile": outcome.profile, "reason": outcome.reason})
}

/// A value without the quotes of JSON, and without what a terminal could take for a command.
fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    page::plain(&text)
}

fn milliseconds(line: &RawLine) -> Option<i64> {
    line.timestamp.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}
