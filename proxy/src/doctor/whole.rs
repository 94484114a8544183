//! Findings about a log as such: that there is none, that it cannot be read, how it ended, and its clock.

use super::finding::{Class, Finding, Severity, word};
use super::log::{Found, Pointer};
use super::summary::Summary;

/// How far a log's time may be ahead of the clock: lines are written while they are read.
const AHEAD: i64 = 5_000;

/// What is found about the logs as such.
pub(crate) fn findings(
    found: &Found,
    summary: &Summary,
    now: i64,
    is_alive: &dyn Fn(u32) -> bool,
) -> Vec<Finding> {
    let base = |name, severity, title, sentence: String, next: &str| Finding {
        name,
        class: Class::Setup,
        severity,
        title,
        sentence,
        next: next.to_owned(),
        count: None,
        span: None,
        is_over: false,
        ends_with_cause: false,
        because_of: &[],
        fields: serde_json::Map::new(),
    };
    let mut findings = Vec::new();
    match &found.pointer {
        Pointer::Missing if found.files.is_empty() => findings.push(base(
            "no_log",
            Severity::Notice,
            "There is no run log",
            "No proxy has written one here; it may log elsewhere (log_dir, PRODEX_RUNTIME_LOG_DIR)."
                .to_owned(),
            "prodex run",
        )),
        Pointer::Missing => findings.push(base(
            "no_pointer",
            Severity::Notice,
            "The pointer to the newest log is missing",
            "The log that was written last was taken; a proxy writes the pointer when it starts.".to_owned(),
            "prodex run",
        )),
        Pointer::Dangling(target) => findings.push(base(
            "log_missing",
            Severity::Warning,
            "The newest log is gone",
            format!("The pointer names {}, which is not there.", target.display()),
            "prodex run",
        )),
        Pointer::Unasked | Pointer::To(_) => {}
    }
    for read in &summary.files {
        if let Some(problem) = &read.problem {
            let sentence = format!("{}: {problem}.", read.file.path.display());
            let next = format!("ls -l {}", word(&read.file.path));
            findings.push(base("log_unreadable", Severity::Problem, "A log cannot be read", sentence, &next));
        }
    }
    let is_read = summary.files.iter().any(|read| read.problem.is_none());
    if is_read && summary.lines == 0 {
        let sentence =
            "It has no line: the proxy ended before it said anything, or the disk took nothing.".to_owned();
        let directory = summary.files.last().and_then(|read| read.file.path.parent()).map(word);
        let next = format!("df -h {}", directory.as_deref().unwrap_or("."));
        findings.push(base("empty_log", Severity::Warning, "The log is empty", sentence, &next));
    }
    if let Some(place) = summary.places.first().filter(|_| is_worth_telling(summary)) {
        let name = place.path.file_name().unwrap_or_default().to_string_lossy();
        let (skipped, why) = (summary.skipped, place.why.name());
        let sentence = format!("{skipped} passed over; the first is line {} of {name}: {why}.", place.line);
        // `l` shows what a terminal would take for commands.
        let next = format!("sed -n {}l {}", place.line, word(&place.path));
        findings.push(base(
            "unread_lines",
            Severity::Notice,
            "Lines of the log are no events",
            sentence,
            &next,
        ));
    }
    for (path, at) in summary.crashed(is_alive) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let sentence =
            format!("{name} ends without a drain, and its process is gone: it was killed or crashed.");
        let next = format!("tail -n 20 {}", word(path));
        findings.push(Finding {
            class: Class::Persistence,
            span: Some((at, at)),
            ..base("crashed_run", Severity::Warning, "A proxy ended without saying so", sentence, &next)
        });
    }
    if let Some(last) = summary.last.filter(|last| last.saturating_sub(now) > AHEAD) {
        let seconds = last.saturating_sub(now) / 1000;
        let sentence = format!(
            "Its last line is {seconds} s ahead of the clock, which was set back: quota resets and pauses are off by as much."
        );
        let title = "The log is from the future";
        findings.push(base("clock_set_back", Severity::Warning, title, sentence, "timedatectl"));
    }
    findings
}

/// A part of a line at the very end is being written.
fn is_worth_telling(summary: &Summary) -> bool {
    let last = summary.files.last();
    let is_last = |place: &super::summary::Place| {
        last.is_some_and(|read| read.file.path == place.path && read.end == Some(place.line))
    };
    summary.skipped > 1 || !summary.places.first().is_some_and(is_last)
}
