//! What the programs of `benches` print, read.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What a case took beside the reference: a line of `gate` (`benches::measure::Measured`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timed {
    #[serde(skip_serializing)]
    pub(super) case: String,
    /// The median of the pairs: how many times as long as the reference.
    pub(super) ratio: f64,
    /// The ninth decile of the pairs.
    pub(super) p90: f64,
    /// Nanoseconds of processor time for one run, the median.
    pub(super) nanoseconds: f64,
    /// The same of the reference.
    pub(super) reference: f64,
    pub(super) pairs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) items: Option<u64>,
}

/// How many instructions one run of a case takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) case: String,
    pub(super) count: u64,
}

/// What the reference is called among the cases whose instructions are counted.
pub(super) const REFERENCE: &str = "reference";

impl Counted {
    /// The part of the name before the slash.
    pub(super) fn bench(&self) -> &str {
        bench(&self.case)
    }

    pub(super) fn is_reference(&self) -> bool {
        self.case == REFERENCE
    }
}

/// The bench that a case is of: the part of its name before the slash.
pub(super) fn bench(case: &str) -> &str {
    case.split_once('/').map_or(case, |(bench, _)| bench)
}

/// Reads a line of `gate`.
pub(super) fn timed(line: &str) -> Result<Timed> {
    let timed: Timed = serde_json::from_str(line).with_context(|| format!("{line:?} is no measurement"))?;
    ensure!(timed.ratio.is_finite() && timed.ratio > 0.0, "{} took no time at all", timed.case);
    Ok(timed)
}

/// A benchmark as gungraun 0.20 reports it, and of that what matters (`BenchmarkSummary` of gungraun-runner,
/// version 7 of the format).
#[derive(Deserialize)]
struct Summary {
    /// `case_N`, and N counts from 0 through the reference and the cases.
    id: String,
    profiles: Vec<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    tool: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    total: Total,
}

#[derive(Deserialize)]
struct Total {
    metrics: Metrics,
}

#[derive(Deserialize)]
struct Metrics {
    /// Instructions that were run ("instructions read").
    #[serde(rename = "Ir")]
    instructions: Metric,
}

#[derive(Deserialize)]
struct Metric {
    values: Values,
}

/// Beside the new value stands the one of an earlier run, if there was one.
#[derive(Deserialize)]
struct Values {
    new: u64,
}

/// Reads gungraun's report: JSON documents, one behind the other. `names` are those of the cases, in their order.
pub(super) fn counted(names: &[String], text: &str) -> Result<Vec<Counted>> {
    let mut counts = BTreeMap::new();
    for summary in serde_json::Deserializer::from_str(text).into_iter::<Summary>() {
        let summary = summary.context("it is no report of gungraun")?;
        let number = summary.id.rsplit_once('_').and_then(|(_, number)| number.parse::<usize>().ok());
        let number = number.with_context(|| format!("`{}` is no case", summary.id))?;
        let callgrind = summary.profiles.iter().find(|profile| profile.tool == "Callgrind");
        let total = &callgrind.with_context(|| format!("`{}` has no instructions", summary.id))?.data.total;
        let count = total.metrics.instructions.values.new;
        counts.insert(number, count);
    }
    let names = std::iter::once(REFERENCE).chain(names.iter().map(String::as_str));
    let cases = names.enumerate().map(|(number, case)| {
        let count = counts.get(&number).with_context(|| format!("`{case}` was not counted"))?;
        Ok(Counted { case: case.to_owned(), count: *count })
    });
    cases.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_gate_is_a_measurement() {
        let line = r#"{"case":"sse/one-write","ratio":1.5,"p90":1.7,"nanoseconds":30000.5,"reference":20000.0,"pairs":55,"bytes":65536}"#;
        let timed = timed(line).expect("it is one");
        assert_eq!((timed.ratio, timed.bytes, timed.items), (1.5, Some(65_536), None));
        assert_eq!(bench(&timed.case), "sse");
    }

    #[test]
    fn a_case_that_took_no_time_or_says_something_else_is_refused() {
        let line = |ratio: &str| {
            format!(
                r#"{{"case":"a/b","ratio":{ratio},"p90":1.0,"nanoseconds":1.0,"reference":1.0,"pairs":1}}"#
            )
        };
        assert!(timed(&line("0.1")).is_ok());
        for wrong in
            [line("0.0"), line("-1.0"), line("1e999"), line(r#"1.0,"more":1"#), "{}".into(), String::new()]
        {
            assert!(timed(&wrong).is_err(), "{wrong}");
        }
    }

    /// A summary in the form that gungraun-runner 0.20.0 prints, cut to what is about one metric.
    fn summary(id: &str, values: &str) -> String {
        format!(
            r#"{{"function_name":"run","id":"{id}","profiles":[{{"data":{{"parts":[],"total":{{"metrics":{{"Dr":{{"values":
            {{"new":1}}}},"Ir":{{"values":{values}}}}},"regressions":[]}}}},"tool":"Callgrind"}}],"version":"7"}}"#
        )
    }

    #[test]
    fn counts_go_to_the_names_by_their_numbers() {
        let names = ["a/b".to_owned(), "c/d".to_owned()];
        let text = summary("case_2", r#"{"new":30,"old":29}"#)
            + &summary("case_0", r#"{"new":10}"#)
            + &summary("case_1", r#"{"new":20}"#);
        let counted = counted(&names, &text).expect("it is a report");
        let counts: Vec<_> = counted.iter().map(|case| (case.case.as_str(), case.count)).collect();
        assert_eq!(counts, [("reference", 10), ("a/b", 20), ("c/d", 30)]);
    }

    #[test]
    fn a_case_that_is_missing_and_a_report_of_something_else_are_errors() {
        let text = summary("case_0", r#"{"new":10}"#);
        let error = counted(&["a/b".to_owned()], &text).expect_err("a case is missing").to_string();
        assert_eq!(error, "`a/b` was not counted");
        let other = text.replace("Callgrind", "DHAT");
        assert!(counted(&[], &other).is_err() && counted(&[], "{}").is_err() && counted(&[], "x").is_err());
    }
}
