//! The verdict: what was measured, what is allowed, and what is wrong; as a table and as one JSON document.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::measured::{Counted, REFERENCE, Timed, bench};
use crate::thresholds::{Threshold, Thresholds};

/// What was measured in one run.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// `None` when only instructions were asked for.
    pub(super) time: Option<Vec<Timed>>,
    pub(super) instructions: Instructions,
}

/// Whether instructions were counted.
#[derive(Debug, Default)]
pub(super) enum Instructions {
    #[default]
    NotAskedFor,
    /// Something is missing, and this is what to do about it.
    Skipped(String),
    Counted(Vec<Counted>),
}

/// What is to be thought of a run. The JSON of `bench-check --json`, which `bench-calibrate` reads.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    version: u32,
    pub(super) passed: bool,
    /// Why instructions were not counted, if they were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
    /// How many instructions the reference takes. It is in no threshold: it tells one toolchain from another.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_instructions: Option<u64>,
    cases: Vec<Case>,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Case {
    case: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<Count>,
}

/// The time of one case. Scales are percentages of the ratio in the file.
#[derive(Debug, Serialize)]
struct Time {
    #[serde(flatten)]
    timed: Timed,
    /// The greatest ratio that is allowed.
    limit: Option<f64>,
    scale: Option<u32>,
    /// The smallest scale that this run would pass.
    required_scale: Option<u32>,
    /// How many points lie between the two.
    headroom: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Count {
    count: u64,
    limit: Option<u64>,
    /// How many percent of the limit are left.
    headroom: Option<i64>,
}

/// One thing that is not as it should be.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    case: String,
    problem: String,
    right: String,
}

impl Report {
    /// Compares with the thresholds; `asked` are the benches that were measured, or none for all.
    pub(super) fn judge(self, thresholds: &Thresholds, asked: &[String]) -> Verdict {
        let mut cases = BTreeMap::<String, (Option<Timed>, Option<u64>)>::new();
        let is_timed = self.time.is_some();
        for timed in self.time.into_iter().flatten() {
            let name = timed.case.clone();
            cases.entry(name).or_default().0 = Some(timed);
        }
        let (mut skipped, mut reference_instructions, mut is_counted) = (None, None, false);
        match self.instructions {
            Instructions::NotAskedFor => {}
            Instructions::Skipped(why) => skipped = Some(why),
            Instructions::Counted(counted) => {
                is_counted = true;
                for Counted { case, count } in counted {
                    if case == REFERENCE {
                        reference_instructions = Some(count);
                    } else {
                        cases.entry(case).or_default().1 = Some(count);
                    }
                }
            }
        }
        let mut findings = Vec::new();
        let known: BTreeSet<_> = cases.keys().cloned().collect();
        let judged = cases.into_iter().map(|(name, (timed, count))| {
            let threshold = thresholds.cases.get(&name).copied().unwrap_or_default();
            judge(name, timed, count, threshold, &mut findings)
        });
        let cases = judged.collect();
        let is_asked = |case: &String| asked.is_empty() || asked.iter().any(|name| name == bench(case));
        for case in thresholds.cases.keys().filter(|case| is_asked(case) && !known.contains(*case)) {
            if is_timed || is_counted {
                let problem = "there is a threshold and no such case".to_owned();
                let right =
                    "no table for it in the thresholds, or a case of that name in `benches`".to_owned();
                findings.push(Finding { case: case.clone(), problem, right });
            }
        }
        Verdict { version: 1, passed: findings.is_empty(), skipped, reference_instructions, cases, findings }
    }
}

/// How to get a threshold.
const CALIBRATE: &str =
    "`cargo xtask bench-check --json | cargo xtask bench-calibrate --apply`, over some runs";

fn judge(
    name: String,
    timed: Option<Timed>,
    count: Option<u64>,
    threshold: Threshold,
    findings: &mut Vec<Finding>,
) -> Case {
    let mut finding = |problem: String, right: String| {
        findings.push(Finding { case: name.clone(), problem, right });
    };
    let time = timed.map(|timed| {
        let allowed = threshold.time;
        match allowed {
            None => finding("there is no threshold for its time".to_owned(), CALIBRATE.to_owned()),
            Some(allowed) if timed.ratio > allowed.limit() => {
                let problem = format!(
                    "takes {} times as long as the reference, and {} was the measure: {} % of it",
                    digits(timed.ratio),
                    digits(allowed.ratio),
                    allowed.required(timed.ratio)
                );
                finding(
                    problem,
                    format!("{} % at most, which is {} times", allowed.scale, digits(allowed.limit())),
                );
            }
            Some(_) => {}
        }
        Time {
            limit: allowed.map(|allowed| allowed.limit()),
            scale: allowed.map(|allowed| allowed.scale),
            required_scale: allowed.map(|allowed| allowed.required(timed.ratio)),
            headroom: allowed.map(|it| i64::from(it.scale) - i64::from(it.required(timed.ratio))),
            timed,
        }
    });
    let instructions = count.map(|count| {
        match threshold.instructions {
            None => finding("there is no threshold for its instructions".to_owned(), CALIBRATE.to_owned()),
            Some(limit) if count > limit => {
                finding(format!("takes {count} instructions"), format!("{limit} at most"));
            }
            Some(_) => {}
        }
        let headroom = |limit: u64| ((1.0 - count as f64 / limit as f64) * 100.0).floor() as i64;
        Count { count, limit: threshold.instructions, headroom: threshold.instructions.map(headroom) }
    });
    Case { case: name, time, instructions }
}

impl Verdict {
    /// The table, at most 80 columns wide; what is wrong; and the summary.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:<32}{:>10}{:>9}{:>9}{:>6}{:>9}{:>5}\n",
            "case", "time", "ratio", "limit", "room", "instr.", "room"
        );
        for Case { case, time, instructions } in &self.cases {
            let nanoseconds = time.as_ref().map(|time| span(time.timed.nanoseconds));
            let ratio = time.as_ref().map(|time| digits(time.timed.ratio));
            let limit = time.as_ref().and_then(|time| time.limit).map(digits);
            let room = time.as_ref().and_then(|time| time.headroom).map(|points| points.to_string());
            let count = instructions.as_ref().map(|it| thousands(it.count));
            let left = instructions.as_ref().and_then(|it| it.headroom).map(|points| points.to_string());
            let [nanoseconds, ratio, limit, room, count, left] =
                [nanoseconds, ratio, limit, room, count, left].map(Option::unwrap_or_default);
            let line = format!("{case:<32}{nanoseconds:>10}{ratio:>9}{limit:>9}{room:>6}{count:>9}{left:>5}");
            text += line.trim_end();
            text.push('\n');
        }
        for Finding { case, problem, right } in &self.findings {
            text += &format!("{case}: {problem}\n  right: {right}\n");
        }
        let wrong: BTreeSet<_> = self.findings.iter().map(|finding| finding.case.as_str()).collect();
        text += &match wrong.len() {
            0 => format!("bench-check: {} cases within their thresholds", self.cases.len()),
            _ => {
                let wrong: Vec<_> = wrong.into_iter().collect();
                format!("bench-check: NOT within their thresholds: {}", wrong.join(", "))
            }
        };
        if let Some(why) = &self.skipped {
            text += &format!("; instructions skipped: {why}");
        }
        text
    }
}

/// A number with three digits that count.
fn digits(number: f64) -> String {
    let places = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else if number >= 1.0 {
        2
    } else {
        4
    };
    format!("{number:.places$}")
}

/// Nanoseconds as a person reads them.
fn span(nanoseconds: f64) -> String {
    let (number, unit) = if nanoseconds >= 1e6 {
        (nanoseconds / 1e6, "ms")
    } else if nanoseconds >= 1e3 {
        (nanoseconds / 1e3, "µs")
    } else {
        (nanoseconds, "ns")
    };
    format!("{} {unit}", digits(number))
}

/// A count of instructions, in a few characters.
fn thousands(count: u64) -> String {
    if count < 10_000 { count.to_string() } else { format!("{} k", count / 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thresholds::tests::{FILE, read};

    fn timed(case: &str, ratio: f64) -> Timed {
        let (case, nanoseconds) = (case.to_owned(), ratio * 20_000.0);
        Timed {
            case,
            ratio,
            p90: ratio * 1.1,
            nanoseconds,
            reference: 20_000.0,
            pairs: 55,
            bytes: None,
            items: None,
        }
    }

    fn counted(case: &str, count: u64) -> Counted {
        Counted { case: case.to_owned(), count }
    }

    fn report(ratio: f64, count: u64) -> Report {
        Report {
            time: Some(vec![timed("sse/one-write", ratio)]),
            instructions: Instructions::Counted(vec![counted(REFERENCE, 7), counted("sse/one-write", count)]),
        }
    }

    fn problems(verdict: &Verdict) -> Vec<String> {
        assert_eq!(verdict.passed, verdict.findings.is_empty());
        verdict
            .findings
            .iter()
            .map(|found| format!("{}: {}; right: {}", found.case, found.problem, found.right))
            .collect()
    }

    #[test]
    fn what_is_within_its_thresholds_passes() {
        let verdict = report(2.5, 1000).judge(&read(FILE), &[]);
        assert_eq!(problems(&verdict), Vec::<String>::new());
        let time = verdict.cases[0].time.as_ref().unwrap();
        assert_eq!((time.scale, time.required_scale, time.headroom), (Some(125), Some(125), Some(0)));
    }

    #[test]
    fn a_case_that_was_made_twice_as_slow_is_named() {
        // Calibrated at 2.0 with a scale of 125; a quiet run has 1.9, a noisy one 2.2.
        for (ratio, is_caught) in [(1.9, false), (2.2, false), (3.8, true), (4.4, true)] {
            let verdict = report(ratio, 900).judge(&read(FILE), &[]);
            assert_eq!(!verdict.passed, is_caught, "{ratio}");
        }
        let verdict = report(4.0, 2000).judge(&read(FILE), &[]);
        assert_eq!(
            problems(&verdict),
            [
                "sse/one-write: takes 4.00 times as long as the reference, and 2.00 was the measure: 200 % of it; \
                 right: 125 % at most, which is 2.50 times",
                "sse/one-write: takes 2000 instructions; right: 1000 at most",
            ]
        );
        assert!(verdict.table().ends_with("bench-check: NOT within their thresholds: sse/one-write"));
    }

    #[test]
    fn a_case_without_a_threshold_and_a_threshold_without_a_case_are_findings() {
        let mut report = report(2.0, 900);
        report.time = Some(vec![timed("sse/new", 1.0)]);
        report.instructions = Instructions::Skipped("install valgrind".to_owned());
        let verdict = report.judge(&read(FILE), &["sse".to_owned()]);
        let found = problems(&verdict);
        assert!(
            found[0]
                .starts_with("sse/new: there is no threshold for its time; right: `cargo xtask bench-check")
        );
        assert!(found[1].starts_with("sse/one-write: there is a threshold and no such case"));
        assert_eq!(found.len(), 2);
        assert!(verdict.table().ends_with("; instructions skipped: install valgrind"));
    }

    #[test]
    fn what_was_not_asked_for_needs_no_case() {
        let report =
            Report { time: Some(vec![timed("other/case", 1.0)]), instructions: Instructions::NotAskedFor };
        let thresholds = read(&format!("{FILE}[case.\"other/case\"]\nratio = 1.0\nscale = 125\n"));
        assert!(report.judge(&thresholds, &["other".to_owned()]).passed);
    }

    #[test]
    fn the_table_has_at_most_80_columns() {
        let mut report = report(123.4, 900);
        let Instructions::Counted(counted_cases) = &mut report.instructions else { unreachable!() };
        counted_cases.push(counted("lineage/short-request-with-one", 123_456_789));
        let text = report.judge(&read(FILE), &[]).table();
        let table: Vec<_> = text.lines().take(3).collect();
        assert!(table.iter().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(table.join("\n"), @r"
        case                                  time    ratio    limit  room   instr. room
        lineage/short-request-with-one                                     123456 k
        sse/one-write                      2.47 ms      123     2.50 -6045      900    9
        ");
    }

    #[test]
    fn the_document_is_one_line() {
        let verdict = report(2.0, 900).judge(&read(FILE), &[]);
        let text = serde_json::to_string(&verdict).unwrap();
        insta::assert_snapshot!(text, @r#"{"version":1,"passed":true,"reference_instructions":7,"cases":[{"case":"sse/one-write","time":{"ratio":2.0,"p90":2.2,"nanoseconds":40000.0,"reference":20000.0,"pairs":55,"limit":2.5,"scale":125,"required_scale":100,"headroom":25},"instructions":{"count":900,"limit":1000,"headroom":9}}],"findings":[]}"#);
    }
}
