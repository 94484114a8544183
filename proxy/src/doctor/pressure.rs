//! Pressures: in one word each, how choosing, the network, the disk and what is known of quotas are doing.
//!
//! One is elevated only on evidence of trouble, which is named. That profiles are chosen is none.

use super::finding::Ranked;
use super::summary::Summary;

/// How something is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) of: &'static str,
    pub(crate) level: &'static str,
    /// The findings, or the events and how often they were, that it is known by.
    pub(crate) evidence: Vec<String>,
}

/// A pressure, the findings that elevate it, and the events that show that there is something to do.
struct Gauge {
    of: &'static str,
    elevated: &'static str,
    findings: &'static [&'static str],
    active: &'static [&'static str],
}

const GAUGES: &[Gauge] = &[
    Gauge {
        of: "selection",
        elevated: "elevated",
        findings: &["selection_none", "quota_everywhere", "owner_unavailable", "budget_exhausted"],
        active: &[],
    },
    Gauge {
        of: "transport",
        elevated: "elevated",
        findings: &[
            "dns_error",
            "connect_error",
            "tls_error",
            "connect_timeout",
            "transport_backoff",
            "circuit_open",
            "stream_cut",
            "read_error",
            "writer_error",
            "writer_stall",
            "first_frame_timeout",
        ],
        active: &[],
    },
    Gauge {
        of: "persistence",
        elevated: "elevated",
        findings: &["save_error", "save_given_up", "log_dropped"],
        active: &["state_save_queued", "state_save_skipped", "continuation_journal_save_queued"],
    },
    Gauge {
        of: "quota_freshness",
        elevated: "stale_risk",
        findings: &["probe_error", "probe_unanswered"],
        active: &["profile_probe_refresh_start", "profile_probe_refresh_ok"],
    },
    Gauge { of: "startup_audit", elevated: "elevated", findings: &["orphan_directories"], active: &[] },
];

/// All pressures.
pub(crate) fn pressures(summary: &Summary, findings: &[Ranked]) -> Vec<Pressure> {
    let pressure = |gauge: &Gauge| {
        let holds =
            |name: &str| findings.iter().any(|ranked| ranked.finding.name == name && !ranked.finding.is_over);
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let found: Vec<&str> = gauge.findings.iter().copied().filter(|name| holds(name)).collect();
        if !found.is_empty() {
            return Pressure { of: gauge.of, level: gauge.elevated, evidence: named(&found) };
        }
        let active = gauge.active.iter().filter(|event| summary.count_of(event) > 0);
        let active: Vec<String> =
            active.map(|event| format!("{event} x{}", summary.count_of(event))).collect();
        let level = if active.is_empty() { "low" } else { "active" };
        Pressure { of: gauge.of, level, evidence: active }
    };
    GAUGES.iter().map(pressure).collect()
}

/// What waits to be done by one of the writers, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) of: &'static str,
    /// The last `backlog` of a queued event.
    pub(crate) backlog: Option<i64>,
    /// The last `lag_ms` of an ok event, else of a skipped one, else of an error.
    pub(crate) lag_ms: Option<i64>,
}

/// All backlogs.
pub(crate) fn backlogs(summary: &Summary) -> Vec<Backlog> {
    let backlog = |of: &'static str| {
        let last = |end: &str, field: &str| summary.last_number(&format!("{of}_{end}"), field);
        let lag_ms = ["ok", "skipped", "error"].into_iter().find_map(|end| last(end, "lag_ms"));
        Backlog { of, backlog: last("queued", "backlog"), lag_ms }
    };
    ["state_save", "continuation_journal_save", "profile_probe_refresh"].map(backlog).into()
}
