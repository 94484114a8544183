//! The progress of a run, as one line on a terminal.

use std::io::IsTerminal as _;

use harness::load::driver::Progress;
use harness::load::plan::Plan;

use crate::terminal;

/// The progress, as one line that is rewritten on a terminal; nothing elsewhere.
pub(super) struct Shown {
    is_shown: bool,
    stages: Vec<String>,
    last: Progress,
}

impl Shown {
    /// For the run of a plan.
    pub(super) fn new(plan: &Plan, is_quiet: bool) -> Self {
        let is_shown = !is_quiet && std::io::stderr().is_terminal();
        let stages = plan.stages.iter().map(|stage| stage.name.clone()).collect();
        Self { is_shown, stages, last: Progress::default() }
    }

    /// Shows how far it is, about once a second.
    pub(super) fn show(&mut self, now: &Progress) {
        let passed = now.seconds - self.last.seconds;
        if !self.is_shown || passed < 0.9 {
            return;
        }
        let rate = |now: u64, then: u64| (now - then) as f64 / passed;
        let line = format!(
            "{:>6.1} s {:<17.17} {:>8.0}/s ok {:>6.0}/s not, {:>6} in flight, {:>7.0} events/s",
            now.seconds,
            self.stages.get(now.stage).map_or("", String::as_str),
            rate(now.ok, self.last.ok),
            rate(now.not_ok, self.last.not_ok),
            now.in_flight(),
            rate(now.events, self.last.events),
        );
        terminal::rewrite(&line);
        self.last = *now;
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        if self.is_shown {
            terminal::rewrite("");
        }
    }
}
