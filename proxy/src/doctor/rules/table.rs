//! The table itself, by class: the first of a class are the graver ones.

use super::{
    Admission, Auth, Continuation, End, Notice, Persistence, Problem, Quota, RULE, Rule, Setup, Transport,
    clock, on, on_if,
};

/// Rules about an upstream that cannot be reached.
const UNREACHABLE: &[&str] = &["dns_error", "connect_error", "tls_error", "connect_timeout"];

/// Why a profile may not have been there.
const PROFILE_LOST: &[&str] = &[
    "dns_error",
    "connect_error",
    "tls_error",
    "connect_timeout",
    "profile_parked",
    "quota_everywhere",
    "profile_exhausted",
    "circuit_open",
    "profile_backoff",
];

/// Why there may have been no place.
const FULL: &[&str] = &["active_limit", "lane_limit", "inflight_saturated"];

/// Every rule, each with a name of its own.
pub(crate) const RULES: &[Rule] = &[
    // Admission.
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
        next: "PRODEX_MAX_ACTIVE=20480 prodex serve",
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
        next: "PRODEX_MAX_ACTIVE=20480 prodex serve",
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
        next: "PRODEX_MAX_ACTIVE=20480 prodex serve",
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
        next: "PRODEX_MAX_WAITING=4096 prodex serve",
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
        next: "PRODEX_ADMISSION_WAIT=60s prodex serve",
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
        next: "PRODEX_MAX_ACTIVE=20480 prodex serve",
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
        next: "PRODEX_PROFILE_HARD_LIMIT=20480 prodex serve",
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
    // Accounts and their credentials, and who may speak to the proxy.
    Rule {
        name: "profile_parked",
        class: Auth,
        severity: Problem,
        title: "A login is no longer good",
        when: &[on_if("profile_refresh_error", |entry| {
            entry.fields.get("parked").is_some_and(|parked| parked == true)
        })],
        end: End::Over(&[
            on("profile_refresh_ok"),
            on_if("profile_health", |entry| entry.is("route", "credentials") && entry.is("state", "closed")),
        ]),
        says: |seen| {
            format!("Left out until somebody logs in again: {}. Last: {}.", seen.still(), seen.last("reason"))
        },
        next: "codex login && prodex profile import",
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
        end: End::Over(&[on_if("profile_health", |entry| entry.is("state", "closed"))]),
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
        name: "refused_by_guard",
        class: Auth,
        title: "Requests were refused at the door",
        when: &[on_if("request_refused", |entry| {
            matches!(entry.number("status"), Some(400..=407 | 409..=412 | 414..=499))
        })],
        says: |seen| {
            let reasons = seen.mostly("reason");
            format!(
                "{}{reasons}. A stale base URL, a web page or another program may be why.",
                seen.many("request", "requests")
            )
        },
        next: "prodex log --event request_refused",
        ..RULE
    },
    // What continues a conversation.
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
    // What outlives a run.
    Rule {
        name: "save_error",
        class: Persistence,
        severity: Problem,
        title: "The state cannot be written",
        when: &[on("state_save_error"), on("continuation_journal_save_error")],
        key: "",
        end: End::Over(&[on("state_save_ok"), on("continuation_journal_save_ok")]),
        says: |seen| {
            let (causes, error, backlog) = (seen.mostly("cause"), seen.last("error"), seen.last("backlog"));
            format!("Failed {}{causes}; {backlog} bindings waited. Last: {error}.", seen.times())
        },
        next: "df -h .",
        ..RULE
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
        because_of: &["save_error"],
        says: |seen| {
            format!(
                "{} lines are missing because the disk did not keep up; other findings may be, too.",
                seen.sum("lines")
            )
        },
        next: "df -h .",
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
    // Quota.
    Rule {
        name: "quota_everywhere",
        class: Quota,
        severity: Problem,
        title: "Every account is used up",
        when: &[on_if("selection_none", |entry| {
            entry.is("reason", "all_refused") && entry.number("reset").is_some()
        })],
        key: "",
        end: End::Over(&[on("profile_commit")]),
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
    // The way to the upstream and back.
    Rule {
        name: "dns_error",
        class: Transport,
        severity: Problem,
        title: "The upstream's name cannot be resolved",
        when: &[on("upstream_connect_dns_error")],
        key: "",
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
        key: "",
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
        key: "",
        end: End::Over(&[on("profile_commit")]),
        says: |seen| {
            format!(
                "Failed {}. Last: {}. A proxy of the network needs its authority in PRODEX_UPSTREAM_CA.",
                seen.times(),
                seen.last("error")
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
        key: "",
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
        key: "request",
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
        key: "",
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
        next: "PRODEX_DRAIN_TIMEOUT=5m prodex serve",
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
