//! A run as it is seen: life signs on standard error, what failed as a part of the result, events in a file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use manifest::case::{Case, Tag, TestId};
use manifest::file::Manifest;
use manifest::run::{End, Event, Failure, Finished, Selection};

use crate::{isolate, terminal};

/// The events of the last run of a suite, one per line.
const EVENTS: &str = "events.jsonl";

/// How often a life sign is shown while all goes well.
const PULSE: Duration = Duration::from_secs(5);

/// What came of a run.
pub(super) struct Ran {
    pub(super) tests: Vec<Done>,
    pub(super) end: End,
}

/// One test that ran.
pub(super) struct Done {
    pub(super) finished: Finished,
    pub(super) verdict: Verdict,
    /// The processes it left behind.
    pub(super) left_behind: Vec<String>,
    /// What is left of it, if it failed.
    pub(super) kept: Option<PathBuf>,
}

/// What is to be thought of a test that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passed at once.
    Passed,
    /// It failed and then passed.
    Flaky,
    /// It failed.
    Failed,
    /// It failed or was flaky as its quarantine says it does.
    Expected,
}

impl Verdict {
    /// What a test deserves, with what is known of its case.
    fn of(finished: &Finished, case: Option<&Case>) -> Self {
        let is_failed = finished.attempts.last().is_none_or(|attempt| attempt.failure.is_some());
        let quarantine = case.and_then(|case| case.quarantine.as_ref());
        let is_expected = quarantine.is_some_and(|quarantine| {
            let mut failed = finished.attempts.iter().filter(|attempt| attempt.failure.is_some());
            failed.all(|attempt| attempt.output.contains(&quarantine.fails_with))
        });
        match (is_failed, finished.attempts.len()) {
            (false, 0 | 1) => Self::Passed,
            _ if is_expected => Self::Expected,
            (false, _) => Self::Flaky,
            (true, _) => Self::Failed,
        }
    }
}

/// Runs a selection and shows it.
pub(super) fn run(
    selection: &Selection<'_>,
    manifest: &Manifest,
    folder: &Path,
    kept: &Path,
    is_json: bool,
) -> Result<Ran> {
    let chosen = selection.chosen();
    let mut screen = Screen {
        total: chosen.len(),
        cases: quarantined(selection, manifest)?,
        kept,
        is_json,
        tests: Vec::with_capacity(chosen.len()),
        failed: 0,
        shown: Instant::now(),
    };
    // Whole or not at all, and no other run's: two may go on at a time.
    let file = tempfile::NamedTempFile::new_in(folder).context("failed to make a file for the events")?;
    let mut events = BufWriter::new(file);
    let mut written = Ok(());
    let end = selection.run(|event| {
        if let Ok(line) = serde_json::to_string(&event)
            && written.is_ok()
        {
            written = writeln!(events, "{line}");
        }
        screen.event(event);
    })?;
    written.and_then(|()| events.flush()).context("failed to write the events")?;
    let file = events.into_inner().context("failed to write the events")?;
    file.persist(folder.join(EVENTS)).context("failed to put the events in place")?;
    Ok(Ran { tests: screen.tests, end })
}

/// The cases in quarantine of the tests that are in one.
fn quarantined<'m>(selection: &Selection<'_>, manifest: &'m Manifest) -> Result<BTreeMap<TestId, &'m Case>> {
    let listed = selection.listed();
    let mut found = BTreeMap::new();
    for case in manifest.cases.iter().filter(|case| case.lane() == Some(Tag::Quarantine)) {
        for test in selection.matching(&case.filter)? {
            found.insert(listed[test].clone(), case);
        }
    }
    Ok(found)
}

struct Screen<'a> {
    total: usize,
    cases: BTreeMap<TestId, &'a Case>,
    kept: &'a Path,
    is_json: bool,
    tests: Vec<Done>,
    failed: usize,
    shown: Instant,
}

impl Screen<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Started { .. } => {}
            Event::Ending { id, elapsed } => {
                terminal::progress(&format!(
                    "{id}: takes too long, ended after {:.1}s",
                    elapsed.as_secs_f64()
                ));
            }
            Event::Again { id } => terminal::progress(&format!("{id}: failed, tried again")),
            Event::Finished(finished) => self.finished(finished),
        }
        if self.shown.elapsed() >= PULSE {
            self.shown = Instant::now();
            let (done, total, failed) = (self.tests.len(), self.total, self.failed);
            terminal::progress(&format!("{done} of {total} tests, {failed} failed"));
        }
    }

    fn finished(&mut self, finished: Finished) {
        let verdict = Verdict::of(&finished, self.cases.get(&finished.id).copied());
        let folder = isolate::folder(self.kept, &finished.id);
        let has_failed = finished.attempts.iter().any(|attempt| attempt.failure.is_some());
        let left_behind = match has_failed {
            true => isolate::left_behind(&folder).iter().map(isolate::name).collect(),
            false => Vec::new(),
        };
        let mut done = Done { finished, verdict, left_behind, kept: None };
        if has_failed {
            let output = failed_attempt(&done.finished).map_or("", |(_, output)| output);
            // What cannot be kept is still shown.
            let _ = fs::create_dir_all(&folder);
            let _ = fs::write(folder.join("output.txt"), output);
            let _ = fs::write(folder.join("rerun.txt"), format!("{}\n", rerun(&done.finished.id)));
            done.kept = Some(folder);
        }
        if matches!(verdict, Verdict::Failed | Verdict::Flaky) {
            self.failed += 1;
            self.show(&failure(&done));
        }
        self.tests.push(done);
    }

    /// What a failing test wrote: part of the result, unless that is a JSON document.
    fn show(&self, text: &str) {
        if self.is_json {
            terminal::progress(text);
        } else {
            // When this cannot be written, the closing line cannot either, and says so.
            let _ = terminal::result(text);
        }
    }
}

/// The last attempt that failed: why, and what it printed.
pub(super) fn failed_attempt(finished: &Finished) -> Option<(&Failure, &str)> {
    let mut attempts = finished.attempts.iter().rev();
    attempts.find_map(|it| Some((it.failure.as_ref()?, it.output.as_str())))
}

/// A failure as it is shown: what, why, what the test printed, how to see it again, where the rest is.
fn failure(done: &Done) -> String {
    let id = &done.finished.id;
    let (reason, output) = failed_attempt(&done.finished)
        .map_or_else(|| ("failed".to_owned(), ""), |(reason, output)| (reason.to_string(), output));
    let verdict = if done.verdict == Verdict::Flaky { "FLAKY" } else { "FAILED" };
    let mut text = format!("{verdict} {id}: {reason}\n{}\n", output.trim_end());
    if !done.left_behind.is_empty() {
        text += &format!("left behind: {}\n", done.left_behind.join(", "));
    }
    text += &format!("rerun: {}\n", rerun(id));
    if let Some(kept) = &done.kept {
        text += &format!("kept: {}\n", kept.display());
    }
    text
}

/// The command that runs one test and nothing else.
pub(super) fn rerun(id: &TestId) -> String {
    let (package, target) = id.binary.split_once("::").unwrap_or((&id.binary, ""));
    let target = match target.split_once('/') {
        None if target.is_empty() => "--lib".to_owned(),
        None => format!("--test {target}"),
        Some((kind, name)) => format!("--{kind} {name}"),
    };
    format!("cargo xtask test-full --no-prebuild -- -p {package} {target} -- --exact {}", id.test)
}

/// Mistakes in a file that a person wrote, with their lines.
pub(crate) fn diagnostic(diagnostic: &dyn miette::Diagnostic) {
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
    let mut text = String::new();
    if handler.render_report(&mut text, diagnostic).is_err() {
        text = diagnostic.to_string();
    }
    terminal::progress(&text);
}

#[cfg(test)]
mod tests {
    use manifest::case::Quarantine;
    use manifest::run::Attempt;

    use super::*;

    fn finished(outputs: &[Option<&str>]) -> Finished {
        let attempts = outputs.iter().map(|output| Attempt {
            failure: output.map(|_| Failure::Code(101)),
            time: Duration::from_millis(5),
            output: output.unwrap_or_default().to_owned(),
        });
        let id = TestId { binary: "prodex::it".into(), test: "a::b".into() };
        Finished { id, repetition: 0, attempts: attempts.collect() }
    }

    #[test]
    fn a_pass_behind_a_failure_is_a_verdict_of_its_own() {
        let verdict = |outputs: &[Option<&str>]| Verdict::of(&finished(outputs), None);
        assert_eq!(verdict(&[None]), Verdict::Passed);
        assert_eq!(verdict(&[Some("x"), None]), Verdict::Flaky);
        assert_eq!(verdict(&[Some("x"), Some("x")]), Verdict::Failed);
    }

    #[test]
    fn a_quarantine_covers_the_failure_it_names_and_no_other() {
        let day = "2026-11-20".parse().unwrap();
        let fails_with = "left: 1".to_owned();
        let quarantine =
            Quarantine { owner: "a".into(), issue: "7".into(), since: day, expires: day, fails_with };
        let case = Case {
            id: "late".into(),
            filter: "all()".into(),
            tags: [Tag::Quarantine].into(),
            reason: None,
            weight: None,
            timeout: None,
            quarantine: Some(quarantine),
            line: 1,
        };
        let verdict = |outputs: &[Option<&str>]| Verdict::of(&finished(outputs), Some(&case));
        assert_eq!(verdict(&[Some("left: 1"), Some("left: 1")]), Verdict::Expected);
        assert_eq!(verdict(&[Some("left: 1"), None]), Verdict::Expected);
        assert_eq!(verdict(&[Some("left: 1"), Some("a crash")]), Verdict::Failed);
        assert_eq!(verdict(&[None]), Verdict::Passed);
    }

    #[test]
    fn one_command_reruns_just_that_test() {
        let line = |binary: &str| rerun(&TestId { binary: binary.into(), test: "a::b".into() });
        let rest = "-- --exact a::b";
        let start = "cargo xtask test-full --no-prebuild -- -p";
        assert_eq!(line("wire"), format!("{start} wire --lib {rest}"));
        assert_eq!(line("prodex::it"), format!("{start} prodex --test it {rest}"));
        assert_eq!(line("xtask::bin/xtask"), format!("{start} xtask --bin xtask {rest}"));
    }
}
