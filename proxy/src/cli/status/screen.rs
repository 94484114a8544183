//! The screen of `prodex status`, 80 columns wide.

use std::fmt::Write as _;

use super::Report;
use crate::admin::status::{Phase, ProfileStatus, Status, TurnStatus};
use crate::cli::wording::{duration, percent, printable, seconds, shortened};
use crate::profile::quota::Length;

/// How many of the last turns are shown.
const TURNS: usize = 8;

/// Widest that the name of a profile becomes.
const NAME: usize = 20;

/// The screen. Writing into memory cannot fail, so that is not looked at.
pub(super) fn render(report: &Report, now: i64) -> String {
    let mut text = String::new();
    for (at, status) in report.running.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        proxy(&mut text, status, now);
    }
    if report.running.is_empty() {
        text.push_str("No proxy of this home runs; `prodex run` or `prodex serve` starts one.\n\n");
        if report.profiles.is_empty() && report.broken.is_empty() {
            let _ = writeln!(text, "There are no profiles; {}.", report.first_profile);
        } else {
            profiles(&mut text, &report.profiles, now);
        }
    }
    for (name, error) in &report.broken {
        let _ = writeln!(text, "\n{} cannot be used: {}", printable(name), printable(error));
    }
    for silent in &report.silent {
        let _ = writeln!(text, "\n{}", printable(silent));
    }
    text
}

fn proxy(text: &mut String, status: &Status, now: i64) {
    let Status { pid, program, listen, .. } = status;
    let state = match status.state {
        Phase::Serving => "serving",
        Phase::Superseded => "replaced, was serving",
        Phase::Draining => "draining",
    };
    let since = duration(i64::try_from(status.uptime_s).unwrap_or(i64::MAX));
    let _ = writeln!(text, "prodex {program}, process {pid}: {state} for {since} at {listen}");
    let marks = [
        (status.tls, "TLS"),
        (!status.auth, "without a capability"),
        (status.launched, "for a `prodex run`"),
    ];
    let marks: Vec<&str> = marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect();
    if !marks.is_empty() {
        let _ = writeln!(text, "  {}", marks.join(", "));
    }
    if let Some(scope) = &status.scope {
        let _ = writeln!(text, "  only with {}", shortened(&scope.join(", "), 66));
    }
    let busy = status.lanes.iter().filter(|lane| lane.in_flight > 0);
    let busy: Vec<String> = busy.map(|lane| format!("{} {}", lane.in_flight, lane.name)).collect();
    let busy = if busy.is_empty() { String::new() } else { format!(" ({})", busy.join(", ")) };
    let _ = writeln!(
        text,
        "  in flight {}{busy}, open WebSockets {}, waiting {}",
        status.in_flight, status.websockets, status.waiting.count
    );
    if let Some(longest) = &status.waiting.longest {
        let (place, waited) = (shortened(&printable(&longest.place), 30), seconds(longest.waited_ms));
        let _ = writeln!(
            text,
            "  longest: request {} for {place}, {waited}, {} before it",
            longest.request, longest.position
        );
    }
    for origin in &status.unreachable {
        let _ = writeln!(text, "  cannot be reached: {}", shortened(&printable(origin), 59));
    }
    text.push('\n');
    profiles(text, &status.profiles, now);
    if !status.recent.is_empty() {
        text.push('\n');
        turns(text, &status.recent, now);
    }
}

/// Cells in columns as wide as their widest; the last one ends the line.
fn table(text: &mut String, heads: &[&str], rows: &[Vec<String>], right: &[usize]) {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match right.contains(&at) {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:width$}  "),
            };
        }
        let _ = writeln!(text, "{}", shortened(line.trim_end(), 80));
    }
}

fn profiles(text: &mut String, profiles: &[ProfileStatus], now: i64) {
    if profiles.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = profiles
        .iter()
        .map(|profile| {
            let mark = match (profile.current, profile.preferred) {
                (true, _) => '*',
                (false, true) => '+',
                (false, false) => ' ',
            };
            let name = shortened(&printable(&profile.name), NAME);
            vec![format!("{mark} {name}"), profile.in_flight.to_string(), quota(profile), state(profile, now)]
        })
        .collect();
    table(text, &["  PROFILE", "BUSY", "LEFT", "STATE"], &rows, &[1]);
    let long = profiles.iter().filter_map(|profile| Some((profile, profile.reason.as_ref()?)));
    for (profile, reason) in long {
        let _ = writeln!(text, "  {}: {}", shortened(&printable(&profile.name), NAME), printable(reason));
    }
}

/// What is left of the account's own windows.
fn quota(profile: &ProfileStatus) -> String {
    let own = profile.windows.iter().filter(|window| window.limit.is_none());
    let windows: Vec<String> = own
        .map(|window| {
            let length =
                window.seconds.map_or_else(|| "?".to_owned(), |length| Length::Seconds(length).label());
            let left = window.remaining_percent.map_or_else(|| "?".to_owned(), percent);
            format!("{length} {left}")
        })
        .collect();
    if windows.is_empty() { "?".to_owned() } else { shortened(&windows.join(", "), 24) }
}

/// Whether a profile could serve, and if not, until when.
fn state(profile: &ProfileStatus, now: i64) -> String {
    let name = match &*profile.state {
        "half_open" | "probing" => "being tried again",
        "exhausted" => "used up",
        "backoff" => "refused",
        "parked" => "needs a login",
        "out_of_scope" => "not for this run",
        other => other,
    };
    let until = profile.until.map(|at| format!(", back in {}", duration(at - now))).unwrap_or_default();
    let band = match (&*profile.state, &*profile.band) {
        ("ready", band @ ("thin" | "critical")) => format!(", {band}"),
        _ => String::new(),
    };
    let waiting = match profile.waiting {
        0 => String::new(),
        waiting => format!(", {waiting} waiting"),
    };
    format!("{name}{until}{band}{waiting}")
}

fn turns(text: &mut String, turns: &[TurnStatus], now: i64) {
    let rows: Vec<Vec<String>> = turns
        .iter()
        .take(TURNS)
        .map(|turn| {
            vec![
                format!("{} ago", duration(now - turn.at)),
                turn.route.clone(),
                shortened(&printable(&turn.profile), NAME),
                turn.outcome.replace('_', " "),
                seconds(turn.first_byte_ms),
                seconds(turn.ms),
                turn.conversation.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    let heads = ["LAST TURNS", "ROUTE", "PROFILE", "OUTCOME", "FIRST", "ALL", "TALK"];
    table(text, &heads, &rows, &[4, 5]);
}

#[cfg(test)]
mod tests;
