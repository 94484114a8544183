//! What came of all cases: as JSON for machines, as a table of at most 80 columns for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{Check, Evidence};
use crate::clients::Client;
use crate::clients::codex::Mode;

/// What came of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All checks held.
    Pass,
    /// One did not.
    Fail,
}

/// One scenario with one client in one launch mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// The client, as `codex@0.169.0`.
    pub client: String,
    /// The launch mode.
    pub mode: Mode,
    /// The scenario.
    pub scenario: String,
    /// What came of it.
    pub verdict: Verdict,
    /// What was checked.
    pub checks: Vec<Check>,
    /// What was seen.
    pub evidence: Evidence,
}

impl CaseResult {
    pub(super) fn new(
        client: &Client,
        mode: Mode,
        scenario: &str,
        checks: Vec<Check>,
        evidence: Evidence,
    ) -> Self {
        let verdict = if checks.iter().all(|check| check.ok) { Verdict::Pass } else { Verdict::Fail };
        Self { client: client.to_string(), mode, scenario: scenario.to_owned(), verdict, checks, evidence }
    }

    /// How long the client took, all runs together, in milliseconds.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.evidence.wall_ms.iter().sum()
    }
}

/// What came of all cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What stood between clients and mock.
    pub target: String,
    /// The cases.
    pub results: Vec<CaseResult>,
}

/// Widest line of a table.
const WIDTH: usize = 80;

impl Report {
    /// Whether every case passed. A report without cases shows nothing and does not pass.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.results.is_empty() && self.results.iter().all(|result| result.verdict == Verdict::Pass)
    }

    /// The cases that did not pass.
    pub fn failures(&self) -> impl Iterator<Item = &CaseResult> {
        self.results.iter().filter(|result| result.verdict == Verdict::Fail)
    }

    /// A row per client and mode, a column per scenario, the failures in words, and one line of summary.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let columns = unique(self.results.iter().map(|result| result.scenario.as_str()));
        let mut rows = vec![header(&columns)];
        for (client, mode) in unique(self.results.iter().map(|result| (result.client.as_str(), result.mode)))
        {
            let mut row = vec![client.to_owned(), mode.name().to_owned()];
            row.extend(columns.iter().map(|scenario| self.cell(client, mode, scenario)));
            rows.push(row);
        }
        for line in align(&rows) {
            text.push_str(&line);
            text.push('\n');
        }
        for failure in self.failures() {
            text.push_str(&describe(failure));
        }
        // Writing into a text does not fail.
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    /// One line: how many cases, and what each of them held.
    #[must_use]
    pub fn summary(&self) -> String {
        let failed = self.failures().count();
        let passed = self.results.len() - failed;
        let checks: usize = self.results.iter().map(|result| result.checks.len()).sum();
        let strays: usize = self.results.iter().map(|result| result.evidence.tripwire.len()).sum();
        format!(
            "{}: {passed} passed, {failed} failed, {checks} checks, {strays} requests to other addresses",
            self.target
        )
    }

    fn cell(&self, client: &str, mode: Mode, scenario: &str) -> String {
        let is_it = |result: &&CaseResult| {
            result.client == client && result.mode == mode && result.scenario == scenario
        };
        self.results.iter().find(is_it).map_or_else(
            || "-".into(),
            |result| match result.verdict {
                Verdict::Pass => format!("ok {:.1}s", seconds(result.wall_ms())),
                Verdict::Fail => "FAIL".into(),
            },
        )
    }
}

fn header(columns: &[&str]) -> Vec<String> {
    let columns = columns.iter().map(|column| (*column).to_owned());
    ["client".to_owned(), "mode".to_owned()].into_iter().chain(columns).collect()
}

/// Each value once, in the order of the first of each.
fn unique<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    values.filter(|value| seen.insert(*value)).collect()
}

/// The rows with their columns under each other.
fn align(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().chars().take(WIDTH).collect()
    };
    rows.iter().map(line).collect()
}

/// A failure in words: what did not hold, and what was seen instead.
fn describe(failure: &CaseResult) -> String {
    let CaseResult { client, mode, scenario, .. } = failure;
    let mut text = format!("\n{client} {} {scenario} failed:\n", mode.name());
    for check in failure.checks.iter().filter(|check| !check.ok) {
        let _ = writeln!(text, "  not: {}", check.what);
        let _ = writeln!(text, "    seen: {}", check.seen);
    }
    for error in failure.evidence.errors.iter().chain(&failure.evidence.refusals) {
        let _ = writeln!(text, "  {error}");
    }
    for line in failure.evidence.stderr.lines() {
        let _ = writeln!(text, "  | {}", line.chars().take(WIDTH - 4).collect::<String>());
    }
    text.push('\n');
    text
}

fn seconds(milliseconds: u64) -> f64 {
    std::time::Duration::from_millis(milliseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(client: &str, mode: Mode, scenario: &str, ok: bool) -> CaseResult {
        let seen = if ok { "" } else { "None" }.to_owned();
        let checks = vec![Check { what: "run 1: exit code 0".into(), ok, seen }];
        let stderr = if ok { "" } else { "ERROR: no\n" }.to_owned();
        let evidence = Evidence { wall_ms: vec![10_250, 100], stderr, ..Evidence::default() };
        CaseResult::new(&client.parse().unwrap(), mode, scenario, checks, evidence)
    }

    #[test]
    fn a_report_is_a_table_of_80_columns() {
        let mut results = Vec::new();
        for client in ["codex@0.169.0", "codex@0.149.1"] {
            for mode in Mode::ALL {
                for scenario in super::super::scenarios() {
                    let ok = (client, mode, scenario.name) != ("codex@0.149.1", Mode::Custom, "resume");
                    results.push(result(client, mode, scenario.name, ok));
                }
            }
        }
        let report = Report { target: "no proxy".into(), results };
        assert!(!report.passed());
        let table = report.table();
        assert!(table.lines().all(|line| line.len() <= WIDTH), "{table}");
        insta::assert_snapshot!(table);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn nothing_shown_is_not_passed() {
        let report = Report { target: "x".into(), results: Vec::new() };
        assert!(!report.passed());
        assert_eq!(
            report.table(),
            "client  mode\nx: 0 passed, 0 failed, 0 checks, 0 requests to other addresses\n"
        );
    }
}
