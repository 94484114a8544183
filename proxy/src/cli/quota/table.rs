//! The table of `prodex quota`: one line for each window, 80 columns wide.

use std::fmt::Write as _;

use super::{Asked, Entry};
use crate::cli::wording::{duration, percent, printable, shortened};
use crate::profile::Now;
use crate::profile::quota::{Band, Measured, Source};

const HEADS: [&str; 7] = ["PROFILE", "PLAN", "WINDOW", "LEFT", "RESETS IN", "EVIDENCE", "BAND"];

/// Widest that each column becomes; with two spaces between them they are 80.
const WIDTHS: [usize; 7] = [16, 8, 6, 5, 9, 15, 9];

/// What is in a line.
struct Line {
    cells: [String; 7],
    band: Option<Band>,
}

/// The table, and below it what else is to be said.
pub(super) fn render(entries: &[Entry], all: bool, is_coloured: bool, now: Now) -> String {
    let lines: Vec<Line> = entries.iter().flat_map(|entry| lines_of(entry, all, now)).collect();
    let mut widths = HEADS.map(str::len);
    for line in &lines {
        for (at, cell) in line.cells.iter().enumerate() {
            widths[at] = widths[at].max(cell.chars().count()).min(WIDTHS[at]);
        }
    }
    if entries.is_empty() {
        return "API keys have no windows, and there are no other profiles; --all shows them.\n".to_owned();
    }
    let mut text = String::new();
    let heads = HEADS.map(str::to_owned);
    write_line(&mut text, &heads, &widths, None);
    for line in &lines {
        write_line(&mut text, &line.cells, &widths, line.band.filter(|_| is_coloured));
    }
    write_notes(&mut text, entries, now);
    text
}

fn write_line(text: &mut String, cells: &[String; 7], widths: &[usize; 7], colour: Option<Band>) {
    let last = cells.len() - 1;
    for (at, cell) in cells.iter().enumerate() {
        let cell = shortened(cell, widths[at]);
        match (at, colour) {
            (3 | 4, _) => drop(write!(text, "{cell:>width$}  ", width = widths[at])),
            (at, _) if at < last => drop(write!(text, "{cell:width$}  ", width = widths[at])),
            (_, Some(band)) => drop(writeln!(text, "{}{cell}\x1b[0m", colour_of(band))),
            (_, None) => drop(writeln!(text, "{cell}")),
        }
    }
}

fn colour_of(band: Band) -> &'static str {
    match band {
        Band::Ready => "\x1b[32m",
        Band::Unknown => "\x1b[2m",
        Band::Thin => "\x1b[33m",
        Band::Critical => "\x1b[31m",
        Band::Exhausted => "\x1b[1;31m",
    }
}

fn lines_of(entry: &Entry, all: bool, now: Now) -> Vec<Line> {
    let name = entry.name.clone();
    let plan = || entry.plan.as_deref().map_or_else(|| "?".to_owned(), printable);
    let none = |what: &str, band: &str| {
        let [dash, question] = ["-", "?"].map(str::to_owned);
        [name.clone(), plan(), dash, question.clone(), question, what.to_owned(), band.to_owned()]
    };
    if entry.asked == Asked::Not {
        let cells = none("API key", "-").map(|cell| if cell == "?" { "-".to_owned() } else { cell });
        return vec![Line { cells, band: None }];
    }
    let quota = &entry.quota;
    let mark = if matches!(entry.asked, Asked::Failed(_)) { " *" } else { "" };
    let refused = quota.refused(now);
    let mut lines: Vec<Line> = Vec::new();
    for window in quota.windows().iter().filter(|window| all || window.key.limit.is_none()) {
        let refusal = refused.as_ref().filter(|refused| refused.window.as_ref() == Some(&window.key));
        let reading = &window.reading;
        let (remaining, resets_at, source, age) = match refusal {
            Some(refused) => (Some(0.0), Some(refused.until), Source::Refusal, refused.age),
            None => {
                let resets_at = window.remaining(now).and(reading.resets_at);
                (window.remaining(now), resets_at, reading.source, reading.observed.age(now))
            }
        };
        let first = match &window.key.limit {
            Some(limit) if lines.is_empty() => format!("{name} {limit}"),
            Some(limit) => format!("  {limit}"),
            None if lines.is_empty() => name.clone(),
            None => String::new(),
        };
        let band = Band::of(remaining);
        let cells = [
            first,
            if lines.is_empty() { plan() } else { String::new() },
            window.key.length.label(),
            remaining.map_or_else(|| "?".to_owned(), percent),
            resets_at.map_or_else(|| "?".to_owned(), |at| duration(at - now.unix)),
            evidence(source, age.as_secs(), mark),
            band.name().to_owned(),
        ];
        lines.push(Line { cells, band: Some(band) });
    }
    if let Some(refused) = refused.filter(|refused| refused.window.is_none()) {
        let band = Band::Exhausted;
        let mut cells = none(&evidence(Source::Refusal, refused.age.as_secs(), mark), band.name());
        if !lines.is_empty() {
            cells[0].clear();
            cells[1].clear();
        }
        cells[2] = "all".to_owned();
        cells[3] = percent(0.0);
        cells[4] = duration(refused.until - now.unix);
        lines.push(Line { cells, band: Some(band) });
    }
    if lines.is_empty() {
        let band = Band::Unknown;
        lines.push(Line { cells: none(&format!("none{mark}"), band.name()), band: Some(band) });
    }
    lines
}

/// What does not fit into a table: estimates, and what went wrong.
fn write_notes(text: &mut String, entries: &[Entry], now: Now) {
    let mut notes = Vec::new();
    for entry in entries {
        let own = entry.quota.windows().iter().filter(|window| window.key.limit.is_none());
        notes.extend(own.filter_map(|window| estimate(&entry.name, window, now)));
        if matches!(&entry.asked, Asked::Answered(usage) if usage.is_reached) {
            notes.push(format!("{}: the backend says that a limit is reached", entry.name));
        }
    }
    let failures = entries.iter().filter_map(|entry| match &entry.asked {
        Asked::Failed(problem) => Some(format!("{}: {}", entry.name, printable(problem))),
        _ => None,
    });
    let failures: Vec<String> = failures.collect();
    if !failures.is_empty() {
        notes.push("* last known; the backend could not be asked now:".to_owned());
        notes.extend(failures.into_iter().map(|failure| format!("  {failure}")));
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        text.push_str(&note);
        text.push('\n');
    }
}

fn estimate(name: &str, window: &Measured, now: Now) -> Option<String> {
    let estimate = window.estimate(now)?;
    let (length, over) = (window.key.length.label(), duration(estimate.over_seconds));
    let left = duration(estimate.runs_out_at - now.unix);
    Some(format!("estimate: {name} uses up its {length} window in {left}, at the pace of the last {over}"))
}

fn evidence(source: Source, age: u64, mark: &str) -> String {
    let (count, unit) = match age {
        0..60 => (age, "s"),
        60..3600 => (age / 60, "m"),
        3600..86_400 => (age / 3600, "h"),
        _ => (age / 86_400, "d"),
    };
    format!("{} {count}{unit}{mark}", source.name())
}

#[cfg(test)]
mod tests;
