//! Rules about accounts and their credentials, and about who may speak to the proxy. The graver ones come first.

use super::{Auth, End, Entry, Problem, RULE, Rule, UNREACHABLE, clock, on, on_if};

/// Whether a profile was served after its credentials had been refused.
fn is_login_good(health: &Entry) -> bool {
    health.is("route", "credentials") && health.is("state", "closed")
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "profile_parked",
        class: Auth,
        severity: Problem,
        title: "A login is no longer good",
        when: &[on_if("profile_refresh_error", |entry| {
            entry.fields.get("parked").is_some_and(|parked| parked == true)
        })],
        end: End::Over(&[on("profile_refresh_ok"), on_if("profile_health", is_login_good)]),
        says: |seen| {
            format!("Left out until somebody logs in again: {}. Last: {}.", seen.still(), seen.last("reason"))
        },
        next: "prodex login {profile}",
        ..RULE
    },
    Rule {
        name: "refresh_failed",
        class: Auth,
        title: "A login could not be renewed",
        when: &[on_if("profile_refresh_error", |entry| {
            entry.fields.get("parked").is_none_or(|parked| parked != true)
        })],
        end: End::Over(&[on("profile_refresh_ok")]),
        because_of: UNREACHABLE,
        says: |seen| {
            format!("Failed {} for {}. Last: {}.", seen.times(), seen.all("profile"), seen.last("reason"))
        },
        next: "prodex quota --profile {profile}",
        ..RULE
    },
    Rule {
        name: "profile_backoff",
        class: Auth,
        title: "A profile is left out after a refusal",
        when: &[on("profile_retry_backoff"), on("profile_auth_backoff")],
        end: End::Over(&[on_if("profile_health", is_login_good)]),
        because_of: &["profile_parked"],
        says: |seen| {
            let (profile, reasons, until) =
                (seen.all("profile"), seen.mostly("reason"), clock(seen.last_number("until")));
            format!("{profile}, {}{reasons}. The last time until {until}.", seen.times())
        },
        next: "prodex quota --profile {profile}",
        ..RULE
    },
    Rule {
        name: "bad_pairing",
        class: Auth,
        title: "An account refuses one kind of call",
        when: &[on("profile_bad_pairing")],
        because_of: &["circuit_open"],
        says: |seen| {
            let (profile, route, serves) = (seen.all("profile"), seen.top("route"), seen.last("serves"));
            format!(
                "{profile} refuses {route} and serves {serves}, {}: its plan may not have it.",
                seen.times()
            )
        },
        next: "prodex profile list",
        ..RULE
    },
    Rule {
        name: "reload_failed",
        class: Auth,
        title: "Profiles could not be read anew",
        when: &[on_if("profiles_reloaded", |entry| entry.number("failed") > Some(0))],
        key: &[],
        end: End::Over(&[on_if("profiles_reloaded", |entry| entry.number("failed") == Some(0))]),
        says: |seen| {
            let failed = seen.last("failed");
            format!("{failed} of them are served as they were: their files cannot be used.")
        },
        next: "prodex profile list",
        ..RULE
    },
    Rule {
        name: "refused_by_guard",
        class: Auth,
        title: "Requests were refused at the door",
        when: &[on_if("request_refused", |entry| {
            matches!(entry.number("status"), Some(400..=407 | 409..=412 | 414..=499))
        })],
        says: |seen| {
            let reasons = seen.mostly("reason");
            format!(
                "{}{reasons}. A stale base URL, a web page, another program or `prodex doctor --attack` may be why.",
                seen.many("request", "requests")
            )
        },
        next: "prodex log --event request_refused",
        ..RULE
    },
];
