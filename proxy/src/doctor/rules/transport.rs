//! Rules about the way to the upstream and back. The graver ones come first.

use super::{End, Notice, PROFILE_LOST, Problem, RULE, Rule, Setup, Transport, UNREACHABLE, on, on_if};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "dns_error",
        class: Transport,
        severity: Problem,
        title: "The upstream's name cannot be resolved",
        when: &[on("upstream_connect_dns_error")],
        key: &[],
        end: End::Over(&[on("profile_commit")]),
        says: |seen| format!("Failed {}. Last: {}.", seen.times(), seen.last("error")),
        next: "getent hosts chatgpt.com",
        ..RULE
    },
    Rule {
        name: "connect_error",
        class: Transport,
        severity: Problem,
        title: "The upstream cannot be reached",
        when: &[on("upstream_connect_error")],
        key: &[],
        end: End::Over(&[on("profile_commit")]),
        says: |seen| format!("Failed {}. Last: {}.", seen.times(), seen.last("error")),
        next: "curl -sS -o /dev/null https://chatgpt.com",
        ..RULE
    },
    Rule {
        name: "tls_error",
        class: Transport,
        severity: Problem,
        title: "The TLS handshake with the upstream fails",
        when: &[on("upstream_tls_handshake_error")],
        key: &[],
        end: End::Over(&[on("profile_commit")]),
        says: |seen| {
            format!(
                "Failed {}. Last: {}. A proxy of the network needs its authority in PRODEX_UPSTREAM_CA.",
                seen.times(),
                seen.last("error").trim_end_matches('.')
            )
        },
        next: "curl -sSv -o /dev/null https://chatgpt.com",
        ..RULE
    },
    Rule {
        name: "connect_timeout",
        class: Transport,
        severity: Problem,
        title: "The upstream does not answer",
        when: &[on("upstream_connect_timeout")],
        key: &[],
        end: End::Over(&[on("profile_commit")]),
        says: |seen| format!("Connecting took longer than {} ms, {}.", seen.last("ms"), seen.times()),
        next: "curl -sS -o /dev/null -m 10 https://chatgpt.com",
        ..RULE
    },
    Rule {
        name: "selection_none",
        class: Transport,
        severity: Problem,
        title: "No profile could serve",
        when: &[on_if("selection_none", |entry| {
            entry.is("reason", "no_profiles")
                || entry.is("reason", "all_barred")
                || (entry.is("reason", "all_refused") && entry.number("reset").is_none())
        })],
        because_of: PROFILE_LOST,
        says: |seen| {
            format!(
                "Refused {}{}: {}.",
                seen.times(),
                seen.mostly("route"),
                match seen.top("reason") {
                    "no_profiles" => "there is no profile of that kind",
                    "all_barred" => "the logins of all are not good, or they are paused or out of scope",
                    _ => "all had refused",
                }
            )
        },
        next: "prodex profile list",
        ..RULE
    },
    Rule {
        name: "budget_exhausted",
        class: Transport,
        severity: Problem,
        title: "Requests ran out of attempts",
        when: &[on("precommit_budget_exhausted"), on("compact_precommit_budget_exhausted")],
        because_of: PROFILE_LOST,
        says: |seen| {
            format!(
                "{}; the last after {} attempts in {} ms.",
                seen.many("request", "requests"),
                seen.last("attempts"),
                seen.last("ms")
            )
        },
        next: "prodex why {request}",
        ..RULE
    },
    Rule {
        name: "stream_cut",
        class: Transport,
        severity: Problem,
        title: "Streams broke off upstream",
        when: &[on_if("stream_complete", |entry| {
            entry.is("outcome", "upstream_cut") || entry.is("outcome", "idle")
        })],
        says: |seen| {
            format!(
                "{} ({}){}. Clients try such turns again.",
                seen.many("stream", "streams"),
                seen.all("profile"),
                seen.mostly("outcome")
            )
        },
        next: "prodex log --request {request}",
        ..RULE
    },
    Rule {
        name: "read_error",
        class: Transport,
        title: "The upstream broke off before it answered",
        when: &[on("stream_read_error")],
        says: |seen| {
            format!(
                "{} ({}). Last: {}.",
                seen.many("attempt", "attempts"),
                seen.all("profile"),
                seen.last("error")
            )
        },
        next: "prodex log --event stream_read_error",
        ..RULE
    },
    Rule {
        name: "writer_error",
        class: Transport,
        title: "Clients did not read what they were sent",
        when: &[
            on("local_writer_error"),
            on_if("stream_complete", |entry| entry.is("outcome", "slow_client")),
        ],
        says: |seen| format!("{} given up.", seen.many("stream was", "streams were")),
        next: "prodex log --request {request}",
        ..RULE
    },
    Rule {
        name: "writer_stall",
        class: Transport,
        severity: Problem,
        title: "Clients got nothing of what was sent",
        when: &[on("first_upstream_chunk")],
        key: &["request"],
        end: End::Gone(
            &[
                on("first_local_chunk"),
                on("stream_complete"),
                on("stream_read_error"),
                on("local_writer_error"),
            ],
            5_000,
        ),
        says: |seen| {
            format!("Request {} is among those of which the client got nothing.", seen.last("request"))
        },
        next: "prodex log --request {request}",
        ..RULE
    },
    Rule {
        name: "first_frame_timeout",
        class: Transport,
        title: "WebSockets were silent at first",
        when: &[on("websocket_precommit_frame_timeout")],
        because_of: UNREACHABLE,
        says: |seen| format!("No first message in time, {} ({}).", seen.times(), seen.all("profile")),
        next: "prodex log --event websocket_precommit_frame_timeout",
        ..RULE
    },
    Rule {
        name: "reuse_watchdog",
        class: Transport,
        severity: Notice,
        title: "WebSockets had gone silent",
        when: &[on("websocket_reuse_watchdog")],
        says: |seen| {
            format!(
                "{} ({}); their turns were sent again on a new one.",
                seen.many("time", "times"),
                seen.all("profile")
            )
        },
        next: "prodex log --event websocket_reuse_watchdog",
        ..RULE
    },
    Rule {
        name: "transport_backoff",
        class: Transport,
        title: "An upstream is left alone for a while",
        when: &[on("profile_transport_backoff")],
        key: &[],
        end: End::Over(&[on("profile_commit")]),
        because_of: &["dns_error", "connect_error", "tls_error", "connect_timeout", "read_error"],
        says: |seen| {
            format!(
                "{} could not be reached several times; nobody tried for a while, {}.",
                seen.top("origin"),
                seen.times()
            )
        },
        next: "prodex log --event profile_transport_backoff",
        ..RULE
    },
    Rule {
        name: "circuit_open",
        class: Transport,
        title: "A profile is not asked for some calls",
        when: &[on("profile_circuit_open")],
        key: &["profile", "route"],
        end: End::Over(&[on_if("profile_health", |entry| entry.is("state", "closed"))]),
        because_of: &["dns_error", "connect_error", "tls_error", "connect_timeout", "profile_parked"],
        says: |seen| {
            let (profile, route, codes) = (seen.all("profile"), seen.all("route"), seen.mostly("code"));
            format!("{profile} refused {route}, {}{codes}. It is tried again at times.", seen.times())
        },
        next: "prodex why {request}",
        ..RULE
    },
    Rule {
        name: "half_open_probe",
        class: Transport,
        severity: Notice,
        title: "A profile does not serve again yet",
        when: &[on("profile_circuit_half_open_probe")],
        end: End::Gone(
            &[on_if("profile_health", |entry| entry.is("state", "closed")), on("profile_commit")],
            10_000,
        ),
        because_of: &["dns_error", "connect_error", "tls_error", "connect_timeout", "circuit_open"],
        says: |seen| format!("{}, for {}, {}.", seen.all("profile"), seen.all("route"), seen.times()),
        next: "prodex why {request}",
        ..RULE
    },
    Rule {
        name: "degraded_routes",
        class: Transport,
        severity: Notice,
        title: "Profiles were slow or unhealthy",
        when: &[
            on("profile_latency"),
            on_if("profile_health", |entry| !entry.is("state", "closed") && entry.number("score") != Some(0)),
        ],
        because_of: UNREACHABLE,
        says: |seen| format!("{} on {}, {}.", seen.all("profile"), seen.all("route"), seen.times()),
        next: "prodex log --event profile_health",
        ..RULE
    },
    Rule {
        name: "drain_cut_off",
        class: Transport,
        title: "Requests were cut off at the end",
        when: &[on_if("drain_finished", |entry| entry.number("aborted") > Some(0))],
        says: |seen| {
            format!(
                "{} in {}: they took longer than a drain waits.",
                seen.sum("aborted"),
                seen.many("drain", "drains")
            )
        },
        next: "PRODEX_DRAIN_TIMEOUT=5m prodex serve --replace",
        ..RULE
    },
    Rule {
        name: "compat_warning",
        class: Setup,
        severity: Notice,
        title: "The traffic is not as it is known",
        when: &[on("compat_warning")],
        because_of: UNREACHABLE,
        says: |seen| {
            format!(
                "{}, {}. {}",
                seen.all("warning"),
                seen.times(),
                match seen.last("detail").as_str() {
                    "?" => String::new(),
                    detail => format!("Last: {detail}."),
                }
            )
        },
        next: "prodex log --event compat_warning",
        ..RULE
    },
];
