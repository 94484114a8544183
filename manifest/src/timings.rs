//! How long tests take: what runs wrote down, read from wherever it was kept, and what to expect from it.
//!
//! The store is JSON lines, one record per test and run, in the order of the runs. It may be lost at any
//! time: then the weights of the manifest count.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::case::TestId;

/// Where the store stands below the target directory.
pub const PATH: &str = "test-runs/timings.jsonl";

/// What precedes an array of records in a log.
pub const MARKER: &str = "timings-json ";

/// How many runs of a test count, newest first.
const RECENT: usize = 20;

/// How large the store may get before old runs are dropped.
const MOST: u64 = 8 << 20;

/// One test in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Which test.
    #[serde(flatten)]
    pub id: TestId,
    /// How long the last attempt took.
    pub milliseconds: f64,
    /// How many attempts it took.
    #[serde(default = "one")]
    pub attempts: u32,
    /// Whether the last attempt passed.
    #[serde(default = "yes")]
    pub passed: bool,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// Why timings cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line that is meant to hold records does not.
    #[error("read the timings in line {line}: {reason}")]
    Malformed {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The store cannot be read or written.
    #[error("keep timings in {path}")]
    Store {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Reads records: one array, or lines that are a record, an array, or end with [`MARKER`] and an array.
/// Other lines are the rest of a log.
///
/// # Errors
/// When what is meant to be records is not.
pub fn parse(text: &str) -> Result<Vec<Record>, Error> {
    if text.trim_start().starts_with('[')
        && let Ok(records) = serde_json::from_str::<Vec<Record>>(text)
    {
        return records.into_iter().map(|record| valid(1, record)).collect();
    }
    let mut records = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let malformed =
            |error: serde_json::Error| Error::Malformed { line: line_number, reason: error.to_string() };
        let found: Vec<Record> = match line.split_once(MARKER) {
            Some((_, array)) => serde_json::from_str(array).map_err(malformed)?,
            None if line.starts_with("[{") => serde_json::from_str(line).map_err(malformed)?,
            None if line.starts_with("{\"binary\"") => {
                vec![serde_json::from_str(line).map_err(malformed)?]
            }
            None => continue,
        };
        for record in found {
            records.push(valid(line_number, record)?);
        }
    }
    Ok(records)
}

fn valid(line: usize, record: Record) -> Result<Record, Error> {
    let reason = match &record {
        it if it.id.test.is_empty() => "a test without a name",
        it if !it.milliseconds.is_finite() || it.milliseconds < 0.0 => "a time that is none",
        it if it.attempts == 0 => "a test that was not attempted",
        _ => return Ok(record),
    };
    Err(Error::Malformed { line, reason: reason.to_owned() })
}

/// Adds the records of a run to the store.
///
/// # Errors
/// When the store cannot be written, or holds something else.
pub fn append(store: &Path, records: &[Record]) -> Result<(), Error> {
    let failed = |source| Error::Store { path: store.display().to_string(), source };
    let lines = |records: &[Record]| -> String {
        let lines = records.iter().filter_map(|record| serde_json::to_string(record).ok());
        lines.flat_map(|line| [line, "\n".to_owned()]).collect()
    };
    if std::fs::metadata(store).is_ok_and(|file| file.len() > MOST) {
        let mut kept = read(store)?;
        kept.extend_from_slice(records);
        let part = store.with_extension("part");
        std::fs::write(&part, lines(&recent(kept))).map_err(failed)?;
        return std::fs::rename(&part, store).map_err(failed);
    }
    let folder = store.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(store).map_err(failed)?;
    file.write_all(lines(records).as_bytes()).map_err(failed)
}

/// The records of the store; none where there is no store yet.
///
/// # Errors
/// When it cannot be read, or holds something else.
pub fn read(store: &Path) -> Result<Vec<Record>, Error> {
    match std::fs::read_to_string(store) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::Store { path: store.display().to_string(), source }),
    }
}

/// The newest records of every test, in their order.
fn recent(records: Vec<Record>) -> Vec<Record> {
    let mut seen: BTreeMap<TestId, usize> = BTreeMap::new();
    let mut kept: Vec<Record> = Vec::new();
    for record in records.into_iter().rev() {
        let count = seen.entry(record.id.clone()).or_default();
        *count += 1;
        if *count <= RECENT {
            kept.push(record);
        }
    }
    kept.reverse();
    kept
}

/// What is known of one test.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Which test.
    #[serde(flatten)]
    pub id: TestId,
    /// How often it ran.
    pub runs: usize,
    /// How many attempts that took.
    pub attempts: u64,
    /// Its mean time.
    pub average_milliseconds: f64,
    /// Its shortest time.
    pub min_milliseconds: f64,
    /// The middle of its times.
    pub median_milliseconds: f64,
    /// The time that nine of ten runs keep below.
    pub p90_milliseconds: f64,
    /// Its longest time.
    pub max_milliseconds: f64,
    /// What to expect of it: the time that three quarters of its newest runs keep below.
    pub weight_milliseconds: f64,
    /// How many of its newest runs passed at once, one after the other.
    pub passes: usize,
}

/// What is known of every test, the slowest first.
#[must_use]
pub fn summarize(records: &[Record]) -> Vec<Summary> {
    let mut tests: BTreeMap<&TestId, Vec<&Record>> = BTreeMap::new();
    for record in records {
        tests.entry(&record.id).or_default().push(record);
    }
    let mut summaries: Vec<_> = tests.into_iter().map(|(id, runs)| summary(id, &runs)).collect();
    // Stable, so tests of one time stay in the order of their names.
    summaries.sort_by(|a, b| {
        let slower = b.average_milliseconds.total_cmp(&a.average_milliseconds);
        slower.then(b.max_milliseconds.total_cmp(&a.max_milliseconds))
    });
    summaries
}

fn summary(id: &TestId, runs: &[&Record]) -> Summary {
    let times: Vec<f64> = runs.iter().map(|record| record.milliseconds).collect();
    let newest = &times[times.len().saturating_sub(RECENT)..];
    let passes = runs.iter().rev().take_while(|record| record.passed && record.attempts == 1).count();
    Summary {
        id: id.clone(),
        runs: runs.len(),
        attempts: runs.iter().map(|record| u64::from(record.attempts)).sum(),
        average_milliseconds: times.iter().sum::<f64>() / times.len().max(1) as f64,
        min_milliseconds: rank(&times, 0.0),
        median_milliseconds: rank(&times, 0.5),
        p90_milliseconds: rank(&times, 0.9),
        max_milliseconds: rank(&times, 1.0),
        weight_milliseconds: rank(newest, 0.75),
        passes,
    }
}

/// The time that `part` of the times do not exceed: nearest rank.
fn rank(times: &[f64], part: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// What to expect of each test.
#[must_use]
pub fn weights(records: &[Record]) -> BTreeMap<TestId, Duration> {
    let weigh = |it: Summary| (it.id, Duration::from_secs_f64(it.weight_milliseconds / 1000.0));
    summarize(records).into_iter().map(weigh).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(test: &str, milliseconds: f64) -> Record {
        let id = TestId { binary: "wire".into(), test: test.into() };
        Record { id, milliseconds, attempts: 1, passed: true }
    }

    #[test]
    fn records_are_read_from_arrays_lines_and_logs() {
        let one = r#"{"binary":"wire","test":"a","milliseconds":2.5,"attempts":1,"passed":true}"#;
        let other = r#"{"binary":"wire","test":"b","milliseconds":1}"#;
        let expected = vec![record("a", 2.5), record("b", 1.0)];
        let texts = [
            format!("[{one},{other}]"),
            format!("[\n  {one},\n  {other}\n]\n"),
            format!("{one}\n{other}\n"),
            format!("building\ntest-fast: timings-json [{one}]\n[label] done\n[{other}]\n"),
        ];
        for text in texts {
            assert_eq!(parse(&text).unwrap(), expected, "{text}");
        }
        assert_eq!(parse("nothing of the kind\n").unwrap(), []);
    }

    #[test]
    fn a_malformed_line_is_named() {
        let lines = [
            "timings-json [",
            "{\"binary\":\"a\"}",
            r#"[{"binary":"a","test":"","milliseconds":1}]"#,
            r#"[{"binary":"a","test":"t","milliseconds":-1}]"#,
            r#"[{"binary":"a","test":"t","milliseconds":1,"attempts":0}]"#,
        ];
        for line in lines {
            let error = parse(&format!("log\n{line}\n")).unwrap_err();
            assert!(error.to_string().starts_with("read the timings in line 2: "), "{error}");
        }
    }

    #[test]
    fn a_weight_is_what_three_quarters_of_the_newest_runs_keep_below() {
        let old = std::iter::repeat_with(|| record("a", 9000.0)).take(5);
        let new = (1..=20).map(|time| record("a", f64::from(time)));
        let [summary] = summarize(&old.chain(new).collect::<Vec<_>>()).try_into().unwrap();
        assert_eq!((summary.runs, summary.weight_milliseconds, summary.max_milliseconds), (25, 15.0, 9000.0));
        assert_eq!((summary.median_milliseconds, summary.passes), (13.0, 25));
    }

    #[test]
    fn the_slowest_test_comes_first_and_passes_end_at_a_failure() {
        let failed = Record { passed: false, ..record("b", 7.0) };
        let summaries = summarize(&[record("a", 1.0), record("b", 5.0), failed, record("b", 6.0)]);
        let found: Vec<_> = summaries.iter().map(|it| (it.id.test.as_str(), it.passes)).collect();
        assert_eq!(found, [("b", 1), ("a", 1)]);
    }

    #[test]
    fn the_store_keeps_what_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("a/timings.jsonl");
        assert_eq!(read(&store).unwrap(), []);
        append(&store, &[record("a", 1.0)]).unwrap();
        append(&store, &[record("b", 2.0)]).unwrap();
        assert_eq!(read(&store).unwrap(), [record("a", 1.0), record("b", 2.0)]);
        let many = std::iter::repeat_with(|| record("a", 1.0)).take(30).collect();
        assert_eq!(recent(many).len(), RECENT);
    }

    proptest::proptest! {
        #[test]
        fn no_log_breaks_the_reader(text in "(\\[\\{|timings-json |\\{\"binary\"|\"|:|1|\\}|\\]|\\n|.){0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_was_written_is_read(times in proptest::collection::vec(0_u32..1 << 20, 0..20)) {
            let records: Vec<_> = times.into_iter().map(|time| record("t", f64::from(time) / 8.0)).collect();
            let text = serde_json::to_string(&records).unwrap();
            proptest::prop_assert_eq!(parse(&text).unwrap(), records);
        }
    }
}
