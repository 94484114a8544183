//! Rules about what is left of accounts, and what is known of that. The graver ones come first.

use super::{End, Notice, Problem, Quota, RULE, Rule, UNREACHABLE, clock, is_turn_served, on, on_if};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "quota_everywhere",
        class: Quota,
        severity: Problem,
        title: "Every account is used up",
        when: &[on_if("selection_none", |entry| {
            entry.is("reason", "all_refused") && entry.number("reset").is_some()
        })],
        key: &[],
        end: End::Over(&[on_if("profile_commit", is_turn_served)]),
        says: |seen| {
            let reset = clock(seen.last_number("reset"));
            format!("Nobody could serve, {}. The first account comes back at {reset}.", seen.times())
        },
        next: "prodex quota",
        ..RULE
    },
    Rule {
        name: "usage_limit_passed",
        class: Quota,
        severity: Problem,
        title: "Clients met a usage limit",
        when: &[on("upstream_usage_limit_passthrough")],
        because_of: &["quota_everywhere", "profile_exhausted", "circuit_open"],
        says: |seen| {
            format!(
                "{}, with the refusal of {}: no other profile could serve.",
                seen.many("request", "requests"),
                seen.all("profile")
            )
        },
        next: "prodex quota",
        ..RULE
    },
    Rule {
        name: "profile_exhausted",
        class: Quota,
        title: "An account is used up",
        when: &[on("profile_quota_quarantine")],
        says: |seen| {
            let (profile, until) = (seen.all("profile"), clock(seen.last_number("until")));
            format!("{profile}: the upstream said so {}; the last comes back at {until}.", seen.times())
        },
        next: "prodex quota --profile {profile}",
        ..RULE
    },
    Rule {
        name: "quota_floor",
        class: Quota,
        severity: Notice,
        title: "An account is nearly used up",
        when: &[
            on("quota_critical_floor_before_send"),
            on("responses_pre_send_skip"),
            on("websocket_pre_send_skip"),
        ],
        because_of: &["quota_everywhere", "profile_exhausted"],
        says: |seen| {
            format!(
                "Passed over for fresh requests: {} ({}).",
                seen.all("profile"),
                seen.many("line", "lines")
            )
        },
        next: "prodex quota --profile {profile}",
        ..RULE
    },
    Rule {
        name: "probe_error",
        class: Quota,
        title: "The usage endpoint does not answer",
        when: &[on("profile_probe_refresh_error")],
        end: End::Over(&[on("profile_probe_refresh_ok")]),
        because_of: &["dns_error", "connect_error", "tls_error", "connect_timeout", "profile_parked"],
        says: |seen| {
            let (profile, error) = (seen.all("profile"), seen.last("error"));
            format!("Asked {} in vain for {profile}; quotas may be out of date. Last: {error}.", seen.times())
        },
        next: "prodex quota --profile {profile}",
        ..RULE
    },
    Rule {
        name: "probe_unanswered",
        class: Quota,
        severity: Notice,
        title: "Questions about quotas came to no end",
        when: &[on("profile_probe_refresh_start")],
        end: End::Gone(&[on("profile_probe_refresh_ok"), on("profile_probe_refresh_error")], 120_000),
        because_of: UNREACHABLE,
        says: |seen| format!("The last about {} has been under way for minutes.", seen.last("profile")),
        next: "prodex quota --profile {profile}",
        ..RULE
    },
];
