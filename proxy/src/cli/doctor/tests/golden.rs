//! Golden logs: for each rule the lines that it is found in, and now and then one that it is not.

use wire::run_event::{Basis, Line, RunEvent};

/// When the golden logs begin: 2026-11-20T06:00:00Z, in seconds since the epoch.
pub(super) const START: i64 = 1_795_154_400;

/// A golden log.
pub(super) struct Golden {
    /// The rule that it shows.
    pub(super) rule: &'static str,
    pub(super) lines: Vec<String>,
}

/// An event of ours, so many seconds after the start.
pub(super) fn ours(second: i64, event: &RunEvent<'_>) -> String {
    let at = jiff::Timestamp::from_second(START + second).unwrap();
    let timestamp = at.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string();
    serde_json::to_string(&Line { timestamp: &timestamp, event }).unwrap()
}

/// A message of the older tool of the same name, in its text form.
pub(super) fn theirs(second: i64, message: &str) -> String {
    let at = jiff::Timestamp::from_second(START + second + 7 * 3600).unwrap();
    format!("[{}.000 +07:00] {message}", at.strftime("%Y-%m-%d %H:%M:%S"))
}

fn golden(rule: &'static str, lines: impl IntoIterator<Item = String>) -> Golden {
    Golden { rule, lines: lines.into_iter().collect() }
}

fn refused(profile: &str, text: &str) -> RunEvent<'static> {
    RunEvent::UpstreamConnectError {
        request: 7,
        profile: profile.to_owned().into(),
        error: text.to_owned().into(),
    }
}

fn nobody(reason: &'static str, reset: Option<i64>) -> RunEvent<'static> {
    let basis = Basis { reset, at: START, ..Basis::default() };
    RunEvent::SelectionNone { request: 7, route: "responses".into(), reason: reason.into(), basis }
}

fn complete(request: u64, outcome: &'static str, leg: &'static str) -> RunEvent<'static> {
    RunEvent::StreamComplete {
        request,
        profile: "work".into(),
        outcome: outcome.into(),
        leg: Some(leg.into()),
        bytes: 5000,
        events: 7,
        ms: 900,
    }
}

fn commit(profile: &'static str) -> RunEvent<'static> {
    let (route, profile) = ("responses".into(), profile.into());
    RunEvent::ProfileCommit { request: 9, route, profile, status: 200, attempts: 1, ms: 300 }
}

fn closed(route: &'static str) -> RunEvent<'static> {
    RunEvent::ProfileHealth {
        request: 9,
        profile: "work".into(),
        route: route.into(),
        state: "closed".into(),
    }
}

fn no_renewal(profile: &'static str, reason: &'static str, parked: bool) -> RunEvent<'static> {
    RunEvent::ProfileRefreshError { profile: profile.into(), reason: reason.into(), parked }
}

/// All of them, in the order of the table.
pub(super) fn logs() -> Vec<Golden> {
    let (work, home, responses) = (|| "work".into(), || "home".into(), || "responses".into());
    let until = START + 3600;
    let mut all = admission();
    all.extend([
        golden("profile_parked", [
            ours(0, &no_renewal("home", "its login is no longer good (refresh_token_reused)", true)),
            ours(9, &no_renewal("work", "its login is no longer good (refresh_token_reused)", true)),
            ours(60, &RunEvent::ProfileRefreshOk { profile: home(), adopted: true, ms: 12 }),
        ]),
        golden("refresh_failed", [
            ours(0, &no_renewal("work", "its login could not be renewed: the endpoint answered 503", false)),
            ours(20, &RunEvent::ProfileRefreshOk { profile: work(), adopted: false, ms: 300 }),
        ]),
        golden("profile_backoff", [
            ours(0, &RunEvent::ProfileRetryBackoff { request: 7, profile: work(), reason: "auth".into(), until }),
        ]),
        golden("bad_pairing", [
            ours(0, &RunEvent::ProfileBadPairing {
                request: 7,
                profile: work(),
                route: "websocket".into(),
                serves: responses(),
            }),
        ]),
                golden(
            "reload_failed",
            [ours(0, &RunEvent::ProfilesReloaded { added: 1, removed: 0, renewed: 0, paused: 0, resumed: 0, failed: 2 })],
        ),
golden("refused_by_guard", [
            ours(0, &RunEvent::RequestRefused {
                request: 1,
                status: 403,
                reason: "the Origin shows that a web page sent this request".into(),
            }),
            ours(1, &RunEvent::RequestRefused { request: 2, status: 503, reason: "told elsewhere".into() }),
            ours(2, &RunEvent::RequestRefused { request: 3, status: 408, reason: "a slow client".into() }),
        ]),
        golden("stale_continuation", [
            ours(0, &RunEvent::StaleContinuation {
                request: 7,
                profile: work(),
                reason: "previous_response_not_found".into(),
            }),
        ]),
        golden("compact_guard", [
            ours(0, &RunEvent::CompactFreshFallbackBlocked { request: 7, profile: work() }),
        ]),
        golden("owner_unavailable", [ours(0, &nobody("owner_cannot_serve", None))]),
        golden("response_not_found", [
            ours(0, &RunEvent::PreviousResponseNotFound {
                request: 7,
                profile: work(),
                route: "websocket".into(),
                injected: true,
            }),
            ours(1, &RunEvent::PreviousResponseNotFound {
                request: 8,
                profile: home(),
                route: responses(),
                injected: false,
            }),
            theirs(2, "request=41 transport=http route=responses previous_response_not_found profile=beta response_id=resp-x retry_index=0"),
        ]),
        golden("suspect_continuation", [
            ours(0, &RunEvent::PreviousResponseNegativeCache { request: 7, profile: work() }),
        ]),
        golden("save_error", [
            ours(0, &RunEvent::StateSaveError {
                cause: "full".into(),
                error: "database or disk is full".into(),
                backlog: 12,
                lag_ms: 900,
            }),
        ]),
        golden("save_given_up", [
            ours(0, &RunEvent::StateSaveSkipped { rows: 40, backlog: 9000, lag_ms: 60_000 }),
            theirs(1, "state_save_skipped revision=3 reason=superseded lag_ms=4"),
        ]),
        golden("log_dropped", [ours(0, &RunEvent::LogDropped { lines: 30 }), ours(9, &RunEvent::LogDropped { lines: 12 })]),
        golden("state_recovered", [
            ours(0, &RunEvent::StateRecovered { frames: 9, bindings: 120, pruned: 0 }),
            ours(1, &RunEvent::StateRecovered { frames: 0, bindings: 120, pruned: 3 }),
        ]),
        golden("orphan_directories", [
            theirs(0, "runtime_proxy_startup_audit missing_managed_dirs=0 orphan_managed_dirs=0"),
            theirs(5, "runtime_proxy_startup_audit missing_managed_dirs=0 orphan_managed_dirs=2"),
        ]),
        golden("quota_everywhere", [ours(0, &nobody("all_refused", Some(until)))]),
        golden("usage_limit_passed", [
            ours(0, &RunEvent::ProfileQuotaQuarantine {
                request: 7,
                profile: work(),
                code: "usage_limit_reached".into(),
                until,
            }),
            ours(0, &RunEvent::UpstreamUsageLimitPassthrough { request: 7, profile: work(), status: 429 }),
        ]),
        golden("profile_exhausted", [
            ours(0, &RunEvent::ProfileQuotaQuarantine {
                request: 7,
                profile: work(),
                code: "usage_limit_reached".into(),
                until,
            }),
        ]),
        golden("quota_floor", [
            ours(0, &RunEvent::QuotaCriticalFloorBeforeSend {
                request: 7,
                route: responses(),
                profile: work(),
                reason: "critical".into(),
                window: Some("5h".into()),
                remaining: 3.0,
                source: "response".into(),
                age_s: 40,
            }),
            ours(0, &RunEvent::ResponsesPreSendSkip { request: 7, profile: work(), reason: "critical".into() }),
            theirs(1, "request=8 websocket_pre_send_skip profile=home reason=quota_critical_floor_before_send"),
        ]),
        golden("probe_error", [
            ours(0, &RunEvent::ProfileProbeRefreshError { profile: work(), error: "it answered 500".into(), retry_s: 30 }),
        ]),
        golden("probe_unanswered", [
            ours(0, &RunEvent::ProfileProbeRefreshStart { profile: work() }),
            ours(1, &RunEvent::ProfileProbeRefreshStart { profile: home() }),
            ours(2, &RunEvent::ProfileProbeRefreshOk { profile: home(), windows: 2, remaining: Some(40.0), ms: 90 }),
            ours(300, &commit("home")),
        ]),
    ]);
    all.extend(transport());
    all
}

fn admission() -> Vec<Golden> {
    let responses = || "responses".into();
    vec![
        golden(
            "active_limit",
            [ours(
                0,
                &RunEvent::RuntimeProxyActiveLimitReached {
                    request: 7,
                    lane: responses(),
                    active: 99,
                    limit: 99,
                },
            )],
        ),
        golden(
            "lane_limit",
            [
                ours(
                    0,
                    &RunEvent::RuntimeProxyLaneLimitReached {
                        request: 7,
                        lane: "standard".into(),
                        active: 8,
                        limit: 8,
                    },
                ),
                ours(
                    5,
                    &RunEvent::RuntimeProxyLaneLimitReached {
                        request: 8,
                        lane: "standard".into(),
                        active: 8,
                        limit: 8,
                    },
                ),
            ],
        ),
        golden("overload_backoff", [theirs(0, "runtime_proxy_overload_backoff until=1795154405")]),
        golden(
            "queue_overloaded",
            [ours(
                0,
                &RunEvent::RuntimeProxyQueueOverloaded {
                    request: 7,
                    lane: responses(),
                    waiting: 1024,
                    limit: 1024,
                    displaced: false,
                },
            )],
        ),
        golden(
            "wait_exhausted",
            [ours(
                0,
                &RunEvent::RuntimeProxyAdmissionWaitExhausted {
                    request: 7,
                    lane: responses(),
                    profile: None,
                    ms: 20_000,
                },
            )],
        ),
        golden("compact_shed", [ours(0, &RunEvent::CompactPressureShed { request: 7, waiting: 12 })]),
        golden(
            "inflight_saturated",
            [ours(
                0,
                &RunEvent::ProfileInflightSaturated {
                    request: 7,
                    profile: "work".into(),
                    active: 4,
                    limit: 4,
                },
            )],
        ),
        golden(
            "slow_admission",
            [
                ours(
                    0,
                    &RunEvent::RuntimeProxyAdmissionWaitRecovered {
                        request: 7,
                        lane: responses(),
                        profile: None,
                        ms: 9_000,
                    },
                ),
                ours(
                    9,
                    &RunEvent::RuntimeProxyAdmissionWaitRecovered {
                        request: 8,
                        lane: responses(),
                        profile: None,
                        ms: 300,
                    },
                ),
            ],
        ),
    ]
}

fn transport() -> Vec<Golden> {
    let (work, until) = (|| "work".into(), START + 3600);
    let error = "cannot reach chatgpt.com:443 for profile work: Connection refused";
    vec![
        golden(
            "dns_error",
            [ours(
                0,
                &RunEvent::UpstreamConnectDnsError {
                    request: 7,
                    profile: work(),
                    error: "chatgpt.com has no address".into(),
                },
            )],
        ),
        golden(
            "connect_error",
            [
                ours(0, &refused("work", error)),
                ours(1, &refused("home", error)),
                ours(
                    1,
                    &RunEvent::ProfileTransportBackoff {
                        request: 7,
                        profile: "home".into(),
                        origin: "https://chatgpt.com".into(),
                        ms: 1000,
                    },
                ),
                ours(2, &nobody("all_refused", None)),
                ours(2, &RunEvent::PrecommitBudgetExhausted { request: 7, attempts: 12, ms: 3000 }),
                theirs(
                    3,
                    "profile_circuit_open profile=work route=responses until=1795158000 reason=connect",
                ),
            ],
        ),
        golden(
            "tls_error",
            [ours(
                0,
                &RunEvent::UpstreamTlsHandshakeError {
                    request: 7,
                    profile: work(),
                    error: "invalid peer certificate: UnknownIssuer.".into(),
                },
            )],
        ),
        golden(
            "connect_timeout",
            [
                ours(0, &RunEvent::UpstreamConnectTimeout { request: 7, profile: work(), ms: 10_000 }),
                ours(60, &commit("work")),
            ],
        ),
        golden("selection_none", [ours(0, &nobody("all_barred", None))]),
        golden(
            "budget_exhausted",
            [ours(0, &RunEvent::PrecommitBudgetExhausted { request: 7, attempts: 12, ms: 2900 })],
        ),
        golden(
            "stream_cut",
            [
                ours(0, &complete(6, "upstream_cut", "upstream")),
                ours(1, &complete(7, "idle", "upstream")),
                ours(2, &complete(8, "client_gone", "client")),
            ],
        ),
        golden(
            "read_error",
            [ours(
                0,
                &RunEvent::StreamReadError {
                    request: 7,
                    profile: work(),
                    error: "the upstream ended the connection".into(),
                },
            )],
        ),
        golden(
            "writer_error",
            [
                ours(0, &complete(7, "slow_client", "client")),
                theirs(1, "request=8 transport=http local_writer_error profile=work error=\"broken pipe\""),
            ],
        ),
        golden(
            "writer_stall",
            [
                theirs(0, "request=7 transport=http first_upstream_chunk profile=work bytes=128"),
                theirs(1, "request=8 transport=http first_upstream_chunk profile=work bytes=128"),
                theirs(2, "request=8 transport=http first_local_chunk profile=work bytes=128 elapsed_ms=10"),
                theirs(30, "request=9 transport=http first_upstream_chunk profile=work bytes=128"),
            ],
        ),
        golden(
            "first_frame_timeout",
            [theirs(
                0,
                "request=7 transport=websocket websocket_precommit_frame_timeout profile=work elapsed_ms=8000",
            )],
        ),
        golden(
            "reuse_watchdog",
            [theirs(0, "request=7 transport=websocket websocket_reuse_watchdog profile=work event=no_frame")],
        ),
        golden(
            "transport_backoff",
            [ours(
                0,
                &RunEvent::ProfileTransportBackoff {
                    request: 7,
                    profile: work(),
                    origin: "https://chatgpt.com".into(),
                    ms: 1000,
                },
            )],
        ),
        golden(
            "circuit_open",
            [
                ours(
                    0,
                    &RunEvent::ProfileCircuitOpen {
                        request: 7,
                        profile: work(),
                        route: "compact".into(),
                        code: "account_restricted".into(),
                        until,
                    },
                ),
                ours(60, &closed("compact")),
            ],
        ),
        golden(
            "half_open_probe",
            [
                ours(
                    0,
                    &RunEvent::ProfileCircuitHalfOpenProbe {
                        request: 7,
                        profile: work(),
                        route: "compact".into(),
                    },
                ),
                ours(90, &RunEvent::ProfileRefreshOk { profile: work(), adopted: false, ms: 1 }),
            ],
        ),
        golden(
            "degraded_routes",
            [
                theirs(
                    0,
                    "profile_health profile=main route=responses score=4 delta=4 reason=stream_read_error",
                ),
                theirs(1, "profile_latency profile=main route=compact elapsed_ms=9000 score=2"),
                ours(2, &closed("responses")),
            ],
        ),
        golden(
            "drain_cut_off",
            [
                ours(0, &RunEvent::DrainFinished { aborted: 0, ms: 10 }),
                ours(9, &RunEvent::DrainFinished { aborted: 3, ms: 30_000 }),
            ],
        ),
        golden(
            "compat_warning",
            [ours(
                0,
                &RunEvent::CompatWarning {
                    request: 0,
                    warning: "accounts_check".into(),
                    detail: "work: it answered 404".into(),
                },
            )],
        ),
    ]
}
