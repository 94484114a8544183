//! Rules about places: who may be in flight, who waits, who is refused. The graver ones come first.

use super::{Admission, FULL, Notice, Problem, RULE, Rule, on, on_if};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "active_limit",
        class: Admission,
        severity: Problem,
        title: "All places are taken",
        when: &[on("runtime_proxy_active_limit_reached")],
        says: |seen| {
            let (limit, lanes) = (seen.last("limit"), seen.mostly("lane"));
            format!("Refused {}{lanes}: {limit} requests were in flight, as many as may.", seen.times())
        },
        next: "PRODEX_MAX_ACTIVE=20480 prodex serve --replace",
        ..RULE
    },
    Rule {
        name: "lane_limit",
        class: Admission,
        severity: Problem,
        title: "A lane is full",
        when: &[on("runtime_proxy_lane_limit_reached")],
        says: |seen| {
            let (limit, lanes) = (seen.last("limit"), seen.all("lane"));
            format!("Refused {}: {lanes} had {limit} requests in flight, as many as may.", seen.times())
        },
        next: "PRODEX_MAX_ACTIVE=20480 prodex serve --replace",
        ..RULE
    },
    Rule {
        name: "overload_backoff",
        class: Admission,
        severity: Problem,
        title: "The proxy pauses: overload",
        when: &[on("runtime_proxy_overload_backoff")],
        because_of: FULL,
        says: |seen| format!("It refused everything for a while, {}.", seen.times()),
        next: "PRODEX_MAX_ACTIVE=20480 prodex serve --replace",
        ..RULE
    },
    Rule {
        name: "queue_overloaded",
        class: Admission,
        severity: Problem,
        title: "The queue is full",
        when: &[on("runtime_proxy_queue_overloaded")],
        because_of: FULL,
        says: |seen| {
            let (waiting, lanes) = (seen.last("waiting"), seen.mostly("lane"));
            format!("Refused {}{lanes}: {waiting} requests waited already.", seen.times())
        },
        next: "PRODEX_MAX_WAITING=4096 prodex serve --replace",
        ..RULE
    },
    Rule {
        name: "wait_exhausted",
        class: Admission,
        severity: Problem,
        title: "Requests waited in vain",
        when: &[on("runtime_proxy_admission_wait_exhausted"), on("runtime_proxy_queue_wait_exhausted")],
        because_of: FULL,
        says: |seen| {
            let (lanes, ms) = (seen.mostly("lane"), seen.last("ms"));
            format!("Refused {} after waiting for a place{lanes}; the last waited {ms} ms.", seen.times())
        },
        next: "PRODEX_ADMISSION_WAIT=60s prodex serve --replace",
        ..RULE
    },
    Rule {
        name: "compact_shed",
        class: Admission,
        title: "Compactions gave way to turns",
        when: &[on("compact_pressure_shed")],
        because_of: FULL,
        says: |seen| {
            let waiting = seen.last("waiting");
            format!(
                "Refused {} because turns waited, {waiting} the last time. Clients try again.",
                seen.times()
            )
        },
        next: "PRODEX_MAX_ACTIVE=20480 prodex serve --replace",
        ..RULE
    },
    Rule {
        name: "inflight_saturated",
        class: Admission,
        title: "A profile is full",
        when: &[on("profile_inflight_saturated")],
        says: |seen| {
            let (profile, limit) = (seen.all("profile"), seen.last("limit"));
            format!(
                "Conversations of {profile} waited or were refused, {}; the limit is {limit} requests.",
                seen.times()
            )
        },
        next: "PRODEX_PROFILE_HARD_LIMIT=20480 prodex serve --replace",
        ..RULE
    },
    Rule {
        name: "slow_admission",
        class: Admission,
        severity: Notice,
        title: "Requests waited long for a place",
        when: &[
            on_if("runtime_proxy_admission_wait_recovered", |entry| entry.number("ms") >= Some(5_000)),
            on_if("runtime_proxy_admission_recovered", |entry| entry.number("waited_ms") >= Some(5_000)),
            on_if("runtime_proxy_queue_recovered", |entry| entry.number("waited_ms") >= Some(5_000)),
        ],
        because_of: FULL,
        says: |seen| format!("Waited 5 s or more {}{}; all were served.", seen.times(), seen.mostly("lane")),
        next: "prodex log --event runtime_proxy_admission_wait_recovered",
        ..RULE
    },
];
