//! `cargo xtask bench-calibrate`: what `bench-check` measured, over many runs, as thresholds.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::terminal;
use crate::thresholds::{self, Allowed, Options, Threshold, Thresholds};

mod policy;

use policy::{Action, Suggestion};

/// Make thresholds of what `bench-check` measured.
///
/// Reads what `cargo xtask bench-check --json` printed, in as many runs as there are: documents one behind the
/// other, or arrays of them. The policy in the file of thresholds says what follows.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Files with what was measured, `-` for standard input [default: standard input]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the thresholds into the file; its comments stay.
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    options: Options,
}

const EXAMPLES: &str = "\
Examples:
  for run in 1 2 3 4 5; do cargo xtask bench-check --json >> runs.jsonl; done
  cargo xtask bench-calibrate runs.jsonl
  cargo xtask bench-calibrate runs.jsonl --apply

A case whose table is deleted from the file is measured afresh: its ratio is set anew.

Exit codes: 0 done, whatever there is to change; 2 usage, or a mistake in the thresholds or in what
is read; 3 a file cannot be read or written; 4 nothing was measured.";

/// What is read of a document of `bench-check`.
#[derive(Debug, Deserialize)]
struct Document {
    version: u32,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    case: String,
    time: Option<Time>,
    instructions: Option<Instructions>,
}

#[derive(Debug, Deserialize)]
struct Time {
    ratio: f64,
}

#[derive(Debug, Deserialize)]
struct Instructions {
    count: u64,
}

/// What was measured of one case, a number for each run.
#[derive(Debug, Default)]
struct Runs {
    ratios: Vec<f64>,
    counts: Vec<u64>,
}

/// What is to become of the thresholds of one case.
#[derive(Debug, Serialize)]
struct Row {
    case: String,
    time: Option<Suggestion<Allowed>>,
    instructions: Option<Suggestion<u64>>,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let Options { thresholds: path, json } = &args.options;
    let Some(thresholds) = args.options.open()? else { return Ok(Exit::Usage) };
    let mut runs = BTreeMap::new();
    for (name, text) in sources(&args.files)? {
        if let Err(error) = read(&text, &mut runs) {
            terminal::progress(&format!("error: {name}: {error:#}"));
            return Ok(Exit::Usage);
        }
    }
    if runs.is_empty() {
        terminal::result("bench-calibrate: nothing was measured")?;
        return Ok(Exit::NothingSelected);
    }
    let rows = rows(&thresholds, &runs);
    if args.apply {
        let name = path.display();
        let content = std::fs::read_to_string(path).with_context(|| format!("failed to read {name}"))?;
        let text = thresholds::written(&content, rows.iter().map(|row| (row.case.as_str(), row.then())))?;
        std::fs::write(path, text).with_context(|| format!("failed to write {name}"))?;
    }
    if *json {
        let document = serde_json::json!({
            "version": 1, "applied": args.apply, "policy": thresholds.policy, "cases": rows,
            "not_measured": not_measured(&thresholds, &runs),
        });
        terminal::result(&document.to_string())?;
    } else {
        terminal::result(&table(&thresholds, &runs, &rows, args.apply))?;
    }
    Ok(Exit::Good)
}

/// The texts to read, each with its name.
fn sources(files: &[PathBuf]) -> Result<Vec<(String, String)>> {
    let standard_input = [PathBuf::from("-")];
    let files = if files.is_empty() { &standard_input[..] } else { files };
    let mut sources = Vec::new();
    for path in files {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("failed to read standard input")?;
            sources.push(("standard input".to_owned(), text));
        } else {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {name}"))?;
            sources.push((name, text));
        }
    }
    Ok(sources)
}

/// Adds documents, one behind the other or in arrays, to the runs.
fn read(text: &str, runs: &mut BTreeMap<String, Runs>) -> Result<()> {
    for value in serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>() {
        let documents = match value.context("it is no JSON")? {
            serde_json::Value::Array(documents) => documents,
            document => vec![document],
        };
        for document in documents {
            let document: Document =
                serde_json::from_value(document).context("it is not what `bench-check --json` prints")?;
            anyhow::ensure!(
                document.version == 1,
                "version {} of `bench-check` is not known",
                document.version
            );
            for case in document.cases {
                let runs: &mut Runs = runs.entry(case.case).or_default();
                runs.ratios.extend(case.time.map(|time| time.ratio));
                runs.counts.extend(case.instructions.map(|instructions| instructions.count));
            }
        }
    }
    Ok(())
}

fn rows(thresholds: &Thresholds, runs: &BTreeMap<String, Runs>) -> Vec<Row> {
    let row = |(case, runs): (&String, &Runs)| {
        let now = thresholds.cases.get(case).copied().unwrap_or_default();
        Row {
            case: case.clone(),
            time: policy::time(thresholds.policy, &runs.ratios, now.time),
            instructions: policy::instructions(thresholds.policy, &runs.counts, now.instructions),
        }
    };
    runs.iter().map(row).collect()
}

impl Row {
    /// What should be in the file of what was measured.
    fn then(&self) -> Threshold {
        Threshold {
            time: self.time.map(|suggestion| suggestion.then),
            instructions: self.instructions.map(|suggestion| suggestion.then),
        }
    }
}

/// Cases that have a threshold and were not measured: gone, or of a bench that was not asked for.
fn not_measured<'a>(thresholds: &'a Thresholds, runs: &BTreeMap<String, Runs>) -> Vec<&'a str> {
    thresholds.cases.keys().filter(|case| !runs.contains_key(*case)).map(String::as_str).collect()
}

/// The table, at most 80 columns wide, and the summary.
fn table(thresholds: &Thresholds, runs: &BTreeMap<String, Runs>, rows: &[Row], is_applied: bool) -> String {
    let mut text =
        format!("{:<32}{:>5}{:>12}{:>11}{:>11}  action\n", "case", "runs", "measured", "now", "then");
    let mut counts = BTreeMap::<_, usize>::new();
    let mut line = |case: &str, runs: usize, measured: String, [now, then]: [String; 2], action: Action| {
        let word = action.word();
        *counts.entry(word).or_default() += 1;
        text += &format!("{case:<32}{runs:>5}{measured:>12}{now:>11}{then:>11}  {word}\n");
    };
    for Row { case, time, instructions } in rows {
        if let Some(it) = time {
            let now = it.now.map_or_else(|| "-".to_owned(), |now| format!("{} %", now.scale));
            let then = format!("{} %", it.then.scale);
            line(case, it.runs, format!("x {:.3}", it.measured), [now, then], it.action);
        }
        if let Some(it) = instructions {
            let now = it.now.map_or_else(|| "-".to_owned(), |now| now.to_string());
            let measured = format!("{:.0} i", it.measured);
            line(case, it.runs, measured, [now, it.then.to_string()], it.action);
        }
    }
    let missing = not_measured(thresholds, runs);
    if !missing.is_empty() {
        text += &format!("not measured: {}\n", missing.join(", "));
    }
    let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
    let end = if is_applied { "written" } else { "not written without --apply" };
    text + &format!("bench-calibrate: {}; {end}", counts.join(", "))
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Raise => "raise",
            Self::Tighten => "tighten",
            Self::Keep => "keep",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thresholds::tests::{FILE, read as read_thresholds};

    fn document(cases: &[(&str, f64, u64)]) -> String {
        let case = |(name, ratio, count): &(&str, f64, u64)| serde_json::json!({"case": name, "time": {"ratio": ratio, "p90": 9.0}, "instructions": {"count": count}});
        let cases: Vec<_> = cases.iter().map(case).collect();
        serde_json::json!({"version": 1, "passed": true, "cases": cases, "findings": []}).to_string()
    }

    fn runs(texts: &[String]) -> BTreeMap<String, Runs> {
        let mut runs = BTreeMap::new();
        texts.iter().for_each(|text| read(text, &mut runs).expect("it is what bench-check prints"));
        runs
    }

    #[test]
    fn documents_are_read_from_lines_and_arrays() {
        let one = document(&[("sse/one-write", 1.5, 900)]);
        let runs = runs(&[format!("{one}\n{one}\n"), format!("[{one},{one}]"), String::new()]);
        assert_eq!(runs["sse/one-write"].ratios, [1.5; 4]);
        assert_eq!(runs["sse/one-write"].counts, [900; 4]);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["{", "{\"version\":1}", "3", "{\"version\":2,\"cases\":[]}", "[[]]"] {
            assert!(read(text, &mut BTreeMap::new()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_table_says_what_becomes_of_each_threshold() {
        let thresholds = read_thresholds(&format!("{FILE}[case.\"gone/case\"]\ninstructions = 1\n"));
        let runs = runs(&[
            document(&[("sse/one-write", 2.1, 950), ("a/new-case-with-a-long-name", 0.0123, 123_456_789)]),
            document(&[("sse/one-write", 3.0, 950), ("a/new-case-with-a-long-name", 0.012, 123_456_780)]),
        ]);
        let text = table(&thresholds, &runs, &rows(&thresholds, &runs), false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text, @r"
        case                             runs    measured        now       then  action
        a/new-case-with-a-long-name         2     x 0.012          -      125 %  set
        a/new-case-with-a-long-name         2 123456789 i          -  130000000  set
        sse/one-write                       2     x 3.000      125 %      190 %  raise
        sse/one-write                       2       950 i       1000       1000  keep
        not measured: gone/case
        bench-calibrate: keep 1, raise 1, set 2; not written without --apply
        ");
    }

    #[test]
    fn what_was_suggested_and_written_is_kept_the_next_time() {
        let runs = runs(&[document(&[("sse/one-write", 3.0, 1500), ("a/b", 0.5, 77)])]);
        let first = rows(&read_thresholds(FILE), &runs);
        assert!(first.iter().all(|row| row.time.is_some_and(|time| time.action != Action::Keep)));
        let cases = first.iter().map(|row| (row.case.as_str(), row.then()));
        let text = thresholds::written(FILE, cases).expect("the file can be written");
        let second = rows(&read_thresholds(&text), &runs);
        assert!(second.iter().all(|row| row.time.is_some_and(|time| time.action == Action::Keep)));
        assert!(text.contains("# The stream.") && text.contains("# as of November"), "{text}");
    }
}
