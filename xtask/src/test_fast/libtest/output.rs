//! What `cargo test` prints, as counts: which binary ran, how many of its tests passed, which failed.
//!
//! The text is meant for people, so only lines with a fixed place are read: cargo's heading of a binary,
//! the number of tests it announces, its list of failures, and its result, which must add up to that number.

use super::super::Binary;

/// A line to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// A life sign.
    Progress(String),
    /// A part of what a failing binary printed.
    Failure(String),
}

/// Reads the output of `cargo test`, line by line.
#[derive(Debug)]
pub(super) struct Output {
    /// Whether every line is shown, and not only those of binaries that fail.
    is_loud: bool,
    done: Vec<Binary>,
    current: Option<Current>,
}

/// The binary whose output is being read.
#[derive(Debug, Default)]
struct Current {
    binary: Binary,
    /// How many tests it announced and has not reported yet.
    announced: Option<usize>,
    /// Whether it reported at least once; the examples of a crate's documentation do it several times.
    has_result: bool,
    /// What it printed since its last report, without the tests that passed.
    lines: Vec<String>,
    /// The last list of failures it printed.
    failures: Vec<String>,
    is_listing: bool,
}

/// A line such as `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
    measured: usize,
    seconds: f64,
}

impl Output {
    /// Reads from the start; `is_loud` shows every line.
    pub(super) fn new(is_loud: bool) -> Self {
        Self { is_loud, done: Vec::new(), current: None }
    }

    /// Reads one line and says what to show.
    pub(super) fn read(&mut self, line: &str) -> Vec<Seen> {
        if let Some(name) = heading(line) {
            let seen = self.close();
            let binary = Binary { name, ..Binary::default() };
            self.current = Some(Current { binary, ..Current::default() });
            return seen;
        }
        let shown = match &mut self.current {
            Some(current) => current.read(line),
            None => vec![Seen::Progress(line.to_owned())],
        };
        if self.is_loud { vec![Seen::Progress(line.to_owned())] } else { shown }
    }

    /// Ends the reading: the binaries that had tests, and what is left to show.
    pub(super) fn finish(mut self) -> (Vec<Binary>, Vec<Seen>) {
        let seen = self.close();
        (self.done, seen)
    }

    /// The current binary is over; without a result it broke off.
    fn close(&mut self) -> Vec<Seen> {
        let Some(mut current) = self.current.take() else { return Vec::new() };
        let mut seen = Vec::new();
        if current.announced.is_some() || !current.has_result {
            current.binary.is_cut = true;
            seen.push(Seen::Failure(format!("{}: broke off without a result", current.binary.name)));
            seen.extend(current.take_lines());
        }
        let Binary { passed, failed, ignored, is_cut, .. } = current.binary;
        if passed + failed + ignored > 0 || is_cut {
            self.done.push(current.binary);
        }
        seen
    }
}

impl Current {
    fn read(&mut self, line: &str) -> Vec<Seen> {
        match self.announced {
            None => {
                self.announced = announcement(line);
                if self.announced.is_some() || line.trim().is_empty() {
                    return Vec::new();
                }
                // After a result it is cargo that speaks; before one, the binary, which may yet break off.
                if self.has_result {
                    return vec![Seen::Progress(line.to_owned())];
                }
                self.lines.push(line.to_owned());
                Vec::new()
            }
            Some(announced) => match Counts::parse(line).filter(|counts| counts.total() == announced) {
                Some(counts) => self.close(&counts),
                None => self.keep(line),
            },
        }
    }

    /// A line between the announcement and the result.
    fn keep(&mut self, line: &str) -> Vec<Seen> {
        if line == "failures:" {
            self.failures.clear();
            self.is_listing = true;
        } else if let Some(name) = line.strip_prefix("    ").filter(|_| self.is_listing) {
            self.failures.push(name.to_owned());
        } else {
            self.is_listing = false;
        }
        if line.starts_with("test ") && line.ends_with("has been running for over 60 seconds") {
            return vec![Seen::Progress(line.to_owned())];
        }
        if !is_unfailed(line) {
            self.lines.push(line.to_owned());
        }
        Vec::new()
    }

    /// The result of what was announced.
    fn close(&mut self, counts: &Counts) -> Vec<Seen> {
        self.announced = None;
        self.has_result = true;
        let binary = &mut self.binary;
        binary.passed += counts.passed;
        binary.failed += counts.failed;
        binary.ignored += counts.ignored;
        binary.seconds += counts.seconds;
        let failures = std::mem::take(&mut self.failures);
        let lines = self.take_lines();
        if counts.total() == 0 {
            return Vec::new();
        }
        let ignored =
            if counts.ignored > 0 { format!(", {} ignored", counts.ignored) } else { String::new() };
        let Counts { passed, failed, seconds, .. } = counts;
        let name = &self.binary.name;
        if *failed == 0 {
            return vec![Seen::Progress(format!("{name}: {passed} passed{ignored} in {seconds:.2}s"))];
        }
        self.binary.failures.extend(failures);
        let summary = format!("{name}: {failed} failed, {passed} passed{ignored} in {seconds:.2}s");
        std::iter::once(Seen::Failure(summary)).chain(lines).collect()
    }

    /// What is kept, without the blank lines around it.
    fn take_lines(&mut self) -> Vec<Seen> {
        let lines = std::mem::take(&mut self.lines);
        let is_blank = |line: &String| line.trim().is_empty();
        let end = lines.iter().rposition(|line| !is_blank(line)).map_or(0, |last| last + 1);
        lines.into_iter().take(end).skip_while(is_blank).map(Seen::Failure).collect()
    }
}

impl Counts {
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut counts = Self::default();
        for part in rest.split("; ") {
            if let Some(seconds) = part.strip_prefix("finished in ").and_then(|time| time.strip_suffix('s')) {
                counts.seconds = seconds.parse().ok()?;
                continue;
            }
            let (count, what) = part.split_once(' ')?;
            let count = count.parse().ok()?;
            match what {
                "passed" => counts.passed = count,
                "failed" => counts.failed = count,
                "ignored" => counts.ignored = count,
                "measured" => counts.measured = count,
                _ => {}
            }
        }
        Some(counts)
    }

    fn total(&self) -> usize {
        self.passed + self.failed + self.ignored + self.measured
    }
}

/// The name of the binary that cargo announces: `     Running tests/it/main.rs (target/…/it-0123456789abcdef)`.
fn heading(line: &str) -> Option<String> {
    let text = line.strip_prefix("  ")?.trim_start();
    if let Some(name) = text.strip_prefix("Doc-tests ") {
        return Some(format!("{name} documentation"));
    }
    let (source, program) = text.strip_prefix("Running ")?.strip_suffix(')')?.split_once(" (")?;
    let source = source.strip_prefix("unittests ").unwrap_or(source);
    let (stem, _hash) = program.rsplit(['/', '\\']).next()?.rsplit_once('-')?;
    Some(format!("{stem} {source}"))
}

/// The number in `running 5 tests`.
fn announcement(line: &str) -> Option<usize> {
    let (count, what) = line.strip_prefix("running ")?.split_once(' ')?;
    matches!(what, "test" | "tests").then(|| count.parse().ok())?
}

/// Whether a line reports a test that passed or was ignored.
fn is_unfailed(line: &str) -> bool {
    line.starts_with("test ") && (line.ends_with(" ... ok") || line.contains(" ... ignored"))
}

#[cfg(test)]
mod tests;
