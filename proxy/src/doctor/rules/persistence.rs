//! Rules about what outlives a run: the state, the log, the profiles' directories. The graver ones come first.

use super::super::home::DISK_FULL;
use super::{End, Notice, Persistence, Problem, RULE, Rule, on, on_if};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "save_error",
        class: Persistence,
        severity: Problem,
        title: "The state cannot be written",
        when: &[on("state_save_error"), on("continuation_journal_save_error")],
        key: &[],
        end: End::Over(&[on("state_save_ok"), on("continuation_journal_save_ok")]),
        because_of: &[DISK_FULL],
        // Each cause is told once, however often it is tried.
        says: |seen| {
            let (causes, error, backlog) = (seen.all("cause"), seen.last("error"), seen.last("backlog"));
            format!("Why: {causes}; {backlog} bindings waited. Last: {error}. It is tried again and again.")
        },
        next: "prodex log --event state_save_error",
    },
    Rule {
        name: "save_given_up",
        class: Persistence,
        severity: Problem,
        title: "Bindings were lost",
        when: &[on_if("state_save_skipped", |entry| entry.number("rows") > Some(0))],
        because_of: &["save_error"],
        says: |seen| {
            let rows = seen.sum("rows");
            format!(
                "{rows} were given up because the disk failed for too long: those conversations may have to start anew."
            )
        },
        next: "prodex log --event state_save_skipped",
        ..RULE
    },
    Rule {
        name: "log_dropped",
        class: Persistence,
        title: "The log has gaps",
        when: &[on("log_dropped"), on("runtime_proxy_log_dropped")],
        because_of: &[DISK_FULL, "save_error"],
        says: |seen| {
            format!(
                "{} lines are missing because the disk did not keep up; other findings may be, too.",
                seen.sum("lines")
            )
        },
        next: "prodex log --event log_dropped",
        ..RULE
    },
    Rule {
        name: "state_recovered",
        class: Persistence,
        severity: Notice,
        title: "A run was killed before this one",
        when: &[on_if("state_recovered", |entry| entry.number("frames") > Some(0))],
        says: |seen| {
            let (frames, bindings) = (seen.sum("frames"), seen.last("bindings"));
            format!(
                "What it had left on the disk ({frames} pages) was taken over; there are {bindings} bindings."
            )
        },
        next: "prodex log --event state_recovered",
        ..RULE
    },
    Rule {
        name: "orphan_directories",
        class: Persistence,
        severity: Notice,
        title: "Profile directories do not fit their list",
        when: &[on_if("runtime_proxy_startup_audit", |entry| {
            entry.number("missing_managed_dirs") > Some(0) || entry.number("orphan_managed_dirs") > Some(0)
        })],
        says: |seen| {
            let (missing, orphan) = (seen.last("missing_managed_dirs"), seen.last("orphan_managed_dirs"));
            format!("At the last start {missing} were missing, and {orphan} belonged to nobody.")
        },
        next: "prodex profile list",
        ..RULE
    },
];
