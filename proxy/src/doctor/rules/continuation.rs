//! Rules about conversations that should go on with the account that owns them. The graver ones come first.

use super::{Continuation, Notice, PROFILE_LOST, Problem, RULE, Rule, on, on_if};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "stale_continuation",
        class: Continuation,
        severity: Problem,
        title: "Conversations could not go on",
        when: &[on("stale_continuation"), on("chain_dead_upstream_confirmed")],
        says: |seen| {
            let (profile, reasons) = (seen.all("profile"), seen.mostly("reason"));
            format!("{profile} has lost what they continue, {}{reasons}. Start them anew.", seen.times())
        },
        next: "prodex why {request}",
        ..RULE
    },
    Rule {
        name: "compact_guard",
        class: Continuation,
        severity: Problem,
        title: "Compactions were held back",
        when: &[on("compact_fresh_fallback_blocked"), on("compact_exit_fresh_fallback_blocked")],
        because_of: PROFILE_LOST,
        says: |seen| {
            let profile = seen.all("profile");
            format!(
                "Only {profile} can read what they are about, and could not serve, {}. They go on when it can.",
                seen.times()
            )
        },
        next: "prodex why {request}",
        ..RULE
    },
    Rule {
        name: "owner_unavailable",
        class: Continuation,
        severity: Problem,
        title: "Conversations wait for their account",
        when: &[
            on_if("selection_none", |entry| entry.is("reason", "owner_cannot_serve")),
            on("previous_response_fresh_fallback_blocked"),
        ],
        because_of: PROFILE_LOST,
        says: |seen| {
            format!("Refused {}: the owner could not serve, and nobody else can read them.", seen.times())
        },
        next: "prodex why {request}",
        ..RULE
    },
    Rule {
        name: "response_not_found",
        class: Continuation,
        title: "Clients had to send their full history",
        when: &[on("previous_response_not_found")],
        because_of: PROFILE_LOST,
        says: |seen| {
            let (route, profile) = (seen.all("route"), seen.all("profile"));
            format!(
                "The response that they continue was not to be had, {}, on {route} ({profile}).",
                seen.times()
            )
        },
        next: "prodex log --event previous_response_not_found",
        ..RULE
    },
    Rule {
        name: "suspect_continuation",
        class: Continuation,
        severity: Notice,
        title: "Conversations ask again for what is gone",
        when: &[on("previous_response_negative_cache"), on("chain_retried_owner")],
        because_of: &["stale_continuation"],
        says: |seen| {
            format!(
                "Asked {} for a response that {} had just said to be gone.",
                seen.times(),
                seen.all("profile")
            )
        },
        next: "prodex log --event previous_response_negative_cache",
        ..RULE
    },
];
