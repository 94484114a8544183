//! `GET /metrics`: what the run has counted and how it stands, as Prometheus reads it.
//!
//! Names and units follow its conventions: base units, `_total` for what only grows, ratios from 0 to 1. The
//! number of series is bounded: labels have known values, and of the profiles so many are shown.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wire::route::Api;
use wire::run_event::CircuitOf;

use super::Admin;
use crate::metrics::exposition::Kind::{Counter, Gauge, Histogram};
use crate::metrics::exposition::Page;
use crate::metrics::{Cause, Ending, Place, Refused, Renewal, Series, Tokens};
use crate::pipeline::Proxy;
use crate::profile::{Now, Profile};
use crate::route::Lane;
use crate::selection::{Snapshot, State};

mod process;

/// How many profiles are shown, by name.
const MAX_PROFILES: usize = 256;

/// The names of the states of a profile.
const STATES: [&str; 8] =
    ["ready", "half_open", "probing", "exhausted", "backoff", "parked", "paused", "out_of_scope"];

/// The metrics of a run now.
pub(super) fn render(admin: &Admin) -> String {
    let proxy = &*admin.proxy;
    let mut page = Page::default();
    let mut build = page.family("prodex_build_info", Gauge, "The version of the program, as a label.");
    build.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    requests(&mut page, proxy);
    admission(&mut page, proxy);
    upstream(&mut page, proxy);
    profiles(&mut page, proxy);
    upkeep(&mut page, proxy);
    process::render(&mut page, admin.run.started.unix);
    page.into_text()
}

fn requests(page: &mut Page, proxy: &Proxy) {
    let metrics = &proxy.control.metrics;
    let help = "Requests that ended, and turns on WebSockets, by how they ended.";
    let mut family = page.family("prodex_requests_total", Counter, help);
    for series in Series::all() {
        for ending in Ending::ALL {
            let count = metrics.requests(series, ending);
            // Of a thousand combinations a few occur. One that never did has no series.
            if count > 0 {
                let Series { route, transport, client } = series;
                let labels = [
                    ("route", route.name()),
                    ("transport", transport.name()),
                    ("client", client.name()),
                    ("outcome", ending.name()),
                ];
                family.sample(&labels, count as f64);
            }
        }
    }
    let help = "Time from a request's head to the last byte of its response, where there was one.";
    let mut family = page.family("prodex_request_duration_seconds", Histogram, help);
    for (lane, histogram) in Lane::ALL.into_iter().zip(&metrics.duration) {
        family.histogram(&[("lane", lane.name())], histogram);
    }
    let help = "Time from a request's head to the first byte of its response.";
    let mut family = page.family("prodex_time_to_first_byte_seconds", Histogram, help);
    for (lane, histogram) in Lane::ALL.into_iter().zip(&metrics.first_byte) {
        family.histogram(&[("lane", lane.name())], histogram);
    }
    let bytes = metrics.response_bytes.load(Ordering::Relaxed);
    let help = "Bytes of upstreams' responses that were handed to clients.";
    page.single("prodex_response_bytes_total", Counter, help, bytes as f64);
    let help = "Tokens that responses took, as upstreams state them.";
    let mut family = page.family("prodex_tokens_total", Counter, help);
    for tokens in Tokens::ALL {
        family.sample(&[("kind", tokens.name())], metrics.tokens(tokens) as f64);
    }
    let accepted = metrics.connections.load(Ordering::Relaxed);
    let open = accepted.saturating_sub(metrics.connections_ended.load(Ordering::Relaxed));
    page.single(
        "prodex_connections_total",
        Counter,
        "Clients' connections that were accepted.",
        accepted as f64,
    );
    page.single("prodex_connections_open", Gauge, "Clients' connections that are open.", open as f64);
}

fn admission(page: &mut Page, proxy: &Proxy) {
    type Of = fn(&(usize, usize, usize)) -> usize;
    let lanes = Lane::ALL.map(|lane| {
        let (gate, index) = proxy.admission.gate(lane);
        let view = gate.view();
        let (active, limit) = view.lanes[index];
        (active, limit, view.waiting.iter().filter(|waiting| waiting.lane == index).count())
    });
    let families: [(&'static str, &str, Of); 3] = [
        ("prodex_requests_in_flight", "Requests and turns in flight.", |lane| lane.0),
        ("prodex_requests_in_flight_limit", "Most requests and turns in flight.", |lane| lane.1),
        ("prodex_requests_waiting", "Requests and turns that wait for a place.", |lane| lane.2),
    ];
    for (name, help, of) in families {
        let mut family = page.family(name, Gauge, help);
        for (lane, counts) in Lane::ALL.into_iter().zip(&lanes) {
            family.sample(&[("lane", lane.name())], of(counts) as f64);
        }
    }
    let sockets = proxy.admission.sockets() as f64;
    page.single("prodex_websockets_open", Gauge, "WebSockets that are open, busy or not.", sockets);
    let help = "Requests, turns and WebSockets for which there was no place.";
    let mut family = page.family("prodex_admission_refusals_total", Counter, help);
    for place in Place::ALL {
        for cause in Cause::ALL {
            let count = proxy.control.metrics.admission_refusals(place, cause);
            if count > 0 {
                family.sample(&[("place", place.name()), ("cause", cause.name())], count as f64);
            }
        }
    }
}

fn upstream(page: &mut Page, proxy: &Proxy) {
    let metrics = &proxy.control.metrics;
    let attempts = metrics.attempts.load(Ordering::Relaxed) as f64;
    page.single("prodex_upstream_attempts_total", Counter, "Attempts at an upstream.", attempts);
    let help = "Attempts that were refused or failed before a response was committed.";
    let mut family = page.family("prodex_upstream_refusals_total", Counter, help);
    for refused in Refused::ALL {
        family.sample(&[("reason", refused.name())], metrics.refusals(refused).0 as f64);
    }
    let help = "Attempts that followed one that was refused or failed, by what became of that one.";
    let mut family = page.family("prodex_rotations_total", Counter, help);
    for refused in Refused::ALL {
        family.sample(&[("reason", refused.name())], metrics.refusals(refused).1 as f64);
    }
    let open = proxy.control.hosts.unreachable();
    let help = "Upstreams that could not be reached a moment ago, and that nobody tries now.";
    page.single("prodex_upstreams_unreachable", Gauge, help, open.len() as f64);
}

/// What is shown of a profile.
struct Shown {
    profile: Arc<Profile>,
    state: State,
    circuits: Vec<(CircuitOf, bool)>,
}

fn profiles(page: &mut Page, proxy: &Proxy) {
    let now = Now::read();
    let mut all: Vec<Shown> = Vec::new();
    for api in [Api::Chatgpt, Api::OpenAi] {
        let snapshot = proxy.snapshot(api);
        let members = proxy.profiles.of(api);
        all.extend(members.iter().filter_map(|profile| shown(&snapshot, profile, now)));
    }
    page.single("prodex_profiles", Gauge, "Profiles of this run.", all.len() as f64);
    all.sort_by(|one, two| one.profile.name.cmp(&two.profile.name));
    all.truncate(MAX_PROFILES);
    let mut family =
        page.family("prodex_profile_state", Gauge, "Whether a profile is in a state, as to turns: 1 or 0.");
    for Shown { profile, state, .. } in &all {
        for name in STATES {
            let is_in = f64::from(u8::from(state.name() == name));
            family.sample(&[("profile", &profile.name), ("state", name)], is_in);
        }
    }
    let mut family =
        page.family("prodex_profile_requests_in_flight", Gauge, "Requests that a profile serves.");
    for Shown { profile, .. } in &all {
        family.sample(&[("profile", &profile.name)], profile.in_flight() as f64);
    }
    let help = "Requests that wait until a profile serves fewer.";
    let mut family = page.family("prodex_profile_requests_waiting", Gauge, help);
    for Shown { profile, .. } in &all {
        family.sample(&[("profile", &profile.name)], profile.gate.waiting().0 as f64);
    }
    let mut family = page.family(
        "prodex_profile_circuit_open",
        Gauge,
        "Circuits that are not closed: 1 while calls of the route are not sent to the profile, 0 while one may try.",
    );
    for Shown { profile, circuits, .. } in &all {
        for (of, is_open) in circuits {
            let is_open = f64::from(u8::from(*is_open));
            family.sample(&[("profile", &profile.name), ("route", of.name())], is_open);
        }
    }
    quotas(page, &all, now);
}

fn shown(snapshot: &Snapshot, profile: &Arc<Profile>, now: Now) -> Option<Shown> {
    let candidate = snapshot.get(&profile.name)?;
    let circuits = candidate.standing.circuits.iter().filter(|circuit| circuit.forgotten_at > now.unix);
    let circuits = circuits.map(|circuit| (circuit.of, circuit.until > now.unix)).collect();
    Some(Shown { profile: Arc::clone(profile), state: candidate.state(CircuitOf::Responses), circuits })
}

/// The windows of the accounts' own limits.
fn quotas(page: &mut Page, all: &[Shown], now: Now) {
    let windows: Vec<_> = all
        .iter()
        .flat_map(|shown| {
            let quota = shown.profile.quota().clone();
            let own = quota.windows().iter().filter(|window| window.key.limit.is_none()).cloned();
            own.map(|window| (&shown.profile.name, window)).collect::<Vec<_>>()
        })
        .filter_map(|(name, window)| {
            let seconds = window.key.length.seconds()?.to_string();
            Some((name, seconds, window.remaining(now), window.reading.resets_at))
        })
        .collect();
    let help = "What is left of a window of an account's quota, 0 to 1; its length is the label.";
    let mut family = page.family("prodex_profile_quota_remaining_ratio", Gauge, help);
    for (name, seconds, remaining, _) in &windows {
        if let Some(remaining) = remaining {
            family.sample(&[("profile", name), ("window_seconds", seconds)], remaining / 100.0);
        }
    }
    let help = "When a window of an account's quota starts anew, in seconds since the epoch.";
    let mut family = page.family("prodex_profile_quota_reset_timestamp_seconds", Gauge, help);
    for (name, seconds, _, resets_at) in &windows {
        if let Some(at) = resets_at {
            family.sample(&[("profile", name), ("window_seconds", seconds)], *at as f64);
        }
    }
}

fn upkeep(page: &mut Page, proxy: &Proxy) {
    let control = &proxy.control;
    let help = "Renewals of logins, by what came of them.";
    let mut family = page.family("prodex_credential_renewals_total", Counter, help);
    for renewal in Renewal::ALL {
        family.sample(&[("result", renewal.name())], control.metrics.renewals(renewal) as f64);
    }
    let help = "Lines of the run log that did not get to the disk.";
    page.single("prodex_log_lines_dropped_total", Counter, help, control.log.lost() as f64);
    let help = "Changes of the state that wait to be written.";
    page.single("prodex_state_backlog", Gauge, help, control.state.backlog() as f64);
}
