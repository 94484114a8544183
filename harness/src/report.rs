//! What came of a replay, for people and for machines: a table, JSON, JUnit XML, Markdown and one HTML page.
//!
//! Everything is made from one [`Report`]; nothing is judged here. The JSON is described by
//! `report/schema.json`, which is part of what the laboratory promises.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

mod html;

mod junit;

mod markdown;

pub use html::page;
pub(crate) use html::push_escaped;
pub use junit::junit;
pub use markdown::markdown;

/// The version of the JSON.
pub const VERSION: u32 = 1;

/// The JSON Schema of a [`Report`].
pub const SCHEMA: &str = include_str!("report/schema.json");

/// What came of a replay of several fixtures through one proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// What was replayed through: a program or an address.
    pub target: String,
    /// `transparent` or `pooled`.
    pub expect: String,
    /// When, as RFC 3339.
    pub at: String,
    /// How long all of it took, in seconds.
    pub seconds: f64,
    /// What each check means, by its name.
    pub checks: BTreeMap<String, String>,
    /// The fixtures in the order of their names.
    pub fixtures: Vec<FixtureReport>,
}

/// What came of one fixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FixtureReport {
    /// Its name: the path below the fixtures' directory, without its ending.
    pub name: String,
    /// Whose traffic it is; `probe` for what no client was recorded with.
    pub client: String,
    /// The client's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `http1` or `http2`: what was spoken with the proxy.
    pub protocol: String,
    /// How many exchanges it has.
    pub exchanges: usize,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How often each check was made.
    pub made: BTreeMap<String, usize>,
    /// What did not hold.
    pub findings: Vec<Problem>,
    /// Why it could not be replayed, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The command that replays this fixture alone.
    pub again: String,
}

/// Something that did not hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// The check.
    pub check: String,
    /// How bad it is: `broken` fails the report, `lawful` does not.
    pub severity: Severity,
    /// The exchange, by its number in the fixture.
    pub exchange: u64,
    /// The exchange, by what was asked.
    pub request: String,
    /// What is wrong, in one line.
    pub what: String,
    /// What was recorded.
    pub expected: Excerpt,
    /// What was seen.
    pub seen: Excerpt,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Clients may notice: the proxy does not conform.
    Broken,
    /// Lawful for a proxy of this kind, and worth knowing.
    Lawful,
}

/// Some of what was expected or seen, around the first difference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The text, or the bytes as text with what is not printable escaped.
    pub text: String,
    /// Where in the whole it begins, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: usize,
    /// Which bytes of the text differ, as begin and end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs: Option<(usize, usize)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Excerpt {
    /// A short text without an offset.
    #[must_use]
    pub fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

impl FixtureReport {
    /// Whether nothing is broken.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.error.is_none() && !self.broken().any(|_| true)
    }

    /// What is broken.
    pub fn broken(&self) -> impl Iterator<Item = &Problem> {
        self.findings.iter().filter(|problem| problem.severity == Severity::Broken)
    }
}

impl Report {
    /// Whether the proxy conforms: every fixture was replayed and nothing is broken.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.fixtures.is_empty() && self.fixtures.iter().all(FixtureReport::passed)
    }

    /// The clients in the order of their first fixture.
    #[must_use]
    pub fn clients(&self) -> Vec<&str> {
        let mut clients: Vec<&str> = Vec::new();
        for fixture in &self.fixtures {
            if !clients.contains(&fixture.client.as_str()) {
                clients.push(&fixture.client);
            }
        }
        clients
    }

    /// For every check and client how often it was made and how often it did not hold, lawful things apart.
    #[must_use]
    pub fn matrix(&self) -> Vec<Row<'_>> {
        let clients = self.clients();
        let row = |(check, meaning)| {
            let cells = clients.iter().map(|client| self.cell(check, client)).collect();
            Row { check, meaning, cells }
        };
        let rows = self.checks.iter().map(|(check, meaning)| row((check.as_str(), meaning.as_str())));
        rows.filter(|row| row.cells.iter().any(|cell| cell.made + cell.broken + cell.lawful > 0)).collect()
    }

    fn cell(&self, check: &str, client: &str) -> Cell {
        let mut cell = Cell::default();
        for fixture in self.fixtures.iter().filter(|fixture| fixture.client == client) {
            cell.made += fixture.made.get(check).copied().unwrap_or(0);
            for problem in fixture.findings.iter().filter(|problem| problem.check == check) {
                match problem.severity {
                    Severity::Broken => cell.broken += 1,
                    Severity::Lawful => cell.lawful += 1,
                }
            }
        }
        cell
    }

    /// The verdict in one line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let fixtures = self.fixtures.len();
        let passed = self.fixtures.iter().filter(|fixture| fixture.passed()).count();
        let made: usize = self.fixtures.iter().flat_map(|fixture| fixture.made.values()).sum();
        let broken: usize = self.fixtures.iter().map(|fixture| fixture.broken().count()).sum();
        let verdict = if self.passed() { "conforms" } else { "does NOT conform" };
        format!(
            "{} {verdict} ({}): {passed} of {fixtures} fixtures, {made} checks made, {broken} broken, {:.1} s",
            self.target, self.expect, self.seconds
        )
    }

    /// The table for a terminal: a row per check, a column per client, and what is broken below.
    #[must_use]
    pub fn table(&self) -> String {
        let rows = self.matrix();
        let width = rows.iter().map(|row| row.check.len()).max().unwrap_or(0).max("check".len());
        let clients = self.clients();
        let mut text = format!("{:width$}", "check");
        for client in &clients {
            let _ = write!(text, "  {client:>13}");
        }
        text.push('\n');
        for row in &rows {
            let _ = write!(text, "{:width$}", row.check);
            for cell in &row.cells {
                let _ = write!(text, "  {:>13}", cell.to_string());
            }
            text.push('\n');
        }
        for fixture in &self.fixtures {
            self.describe(fixture, &mut text);
        }
        text.push_str(&self.verdict());
        text
    }

    /// What is broken in a fixture, a few lines each, and no more of one kind than anyone reads.
    fn describe(&self, fixture: &FixtureReport, text: &mut String) {
        if let Some(error) = &fixture.error {
            let _ = writeln!(
                text,
                "\n{} could not be replayed: {error}\n  again: {}",
                fixture.name, fixture.again
            );
            return;
        }
        let broken: Vec<&Problem> = fixture.broken().collect();
        if broken.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n{} ({})", fixture.name, fixture.protocol);
        for problem in broken.iter().take(SHOWN) {
            let _ = writeln!(text, "  {}: {} — {}", problem.check, problem.request, problem.what);
            for (name, excerpt) in [("expected", &problem.expected), ("seen", &problem.seen)] {
                let at =
                    if excerpt.offset > 0 { format!(" (at byte {})", excerpt.offset) } else { String::new() };
                let _ = writeln!(text, "    {name}{at}: {}", shorten(&excerpt.text));
            }
        }
        if broken.len() > SHOWN {
            let _ = writeln!(text, "  … and {} more", broken.len() - SHOWN);
        }
        let _ = writeln!(text, "  again: {}", fixture.again);
    }
}

/// Most problems of a fixture that the terminal shows.
const SHOWN: usize = 5;

/// A line for a terminal, which must not take orders from what was on the wire.
fn shorten(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars().take(WIDE) {
        match letter {
            '\n' => line.push('␊'),
            '\r' => line.push('␍'),
            letter if letter.is_control() => line.extend(letter.escape_default()),
            letter => line.push(letter),
        }
    }
    if text.chars().nth(WIDE).is_some() {
        line.push('…');
    }
    line
}

/// Most characters of an excerpt that the terminal shows.
const WIDE: usize = 160;

/// A check over all clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    /// The check.
    pub check: &'a str,
    /// What it means.
    pub meaning: &'a str,
    /// A cell per client.
    pub cells: Vec<Cell>,
}

/// How a check went with a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cell {
    /// How often it was made.
    pub made: usize,
    /// How often it did not hold.
    pub broken: usize,
    /// How often something lawful was lawful.
    pub lawful: usize,
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.made, self.broken, self.lawful) {
            (0, 0, 0) => f.write_str("–"),
            (made, 0, 0) => write!(f, "{made} ok"),
            (made, 0, lawful) => write!(f, "{made} ok, {lawful} note"),
            (_, broken, _) => write!(f, "{broken} BROKEN"),
        }
    }
}

#[cfg(test)]
mod tests;
