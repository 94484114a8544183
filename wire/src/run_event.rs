//! The events of a proxy's run log: what a line of `prodex-runtime-*.jsonl` can say.
//!
//! A line is `{"timestamp","event","fields"}`. The names are those the field already uses, so that tools
//! read the logs of either proxy; no field ever holds a secret, a prompt or a body. Machines read these
//! events, never the text of a log message.
//!
//! The peer's logs have names that ours never do, each because there is nothing to tell:
//!
//! - `runtime_proxy_overload_backoff`: no request is slowed down for load; one waits, is admitted, or is refused,
//!   and each of these has its event
//! - `runtime_proxy_queue_wait_started` and `_exhausted`: there is one wait, which the names with `admission` tell
//! - `profile_latency`: no choice is made by it; `profile_commit` has the milliseconds to the first byte that counts
//! - `first_upstream_chunk` and `first_local_chunk`: two lines a request that would break its budget. What they are
//!   for is in two that are there: `profile_commit` is written when the first chunk has come and goes on, and a
//!   client that does not read it ends in `stream_complete` with `slow_client`
//! - `websocket_precommit_frame_timeout` and `websocket_reuse_watchdog`: a turn that is held for too long is let go
//!   to the client, and one whose upstream is silent ends in `stream_complete` with `idle`; the upstream of a
//!   WebSocket is not watched while nothing is asked, it is opened anew when the machine has slept
//! - `local_writer_error`: a client that is gone or does not read is the `outcome` of `stream_complete`
//! - `continuation_journal_save_*`: bindings are part of the state, whose events are `state_save_*`
//! - `runtime_proxy_startup_audit`: directories without a profile are another tool's or nobody's, and harm nothing

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub mod file;

mod standing;

pub use standing::{CircuitOf, OpenCircuit, QuotaWindow, Source, Standing};

/// Text that is borrowed when written and owned when read.
pub type Text<'a> = Cow<'a, str>;

/// What happened.
///
/// `request` numbers the requests of one run; durations are milliseconds, times seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", content = "fields", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are named for what they hold; the variants say what happened")]
pub enum RunEvent<'a> {
    /// The proxy listens.
    RuntimeProxyStarted { version: Text<'a>, listen: Text<'a>, tls: bool, profiles: usize, workers: usize },
    /// The profiles were read anew, because somebody said so, and these numbers of them changed. `failed` are
    /// left as they were: their files cannot be used.
    ProfilesReloaded {
        added: usize,
        removed: usize,
        renewed: usize,
        paused: usize,
        resumed: usize,
        failed: usize,
    },
    /// Another process of this home has taken over the addresses; this one serves those who are connected.
    RuntimeProxySuperseded { pid: u32, version: Text<'a>, active: usize },
    /// No further connection is accepted; those in flight may end.
    DrainStarted { active: usize },
    /// The proxy is about to exit.
    DrainFinished { aborted: usize, ms: u64 },
    /// A request was refused before any upstream was asked.
    RequestRefused { request: u64, status: u16, reason: Text<'a> },
    /// So many requests are in flight that another is refused.
    RuntimeProxyActiveLimitReached { request: u64, lane: Text<'a>, active: usize, limit: usize },
    /// So many requests of a lane are in flight that another is refused.
    RuntimeProxyLaneLimitReached { request: u64, lane: Text<'a>, active: usize, limit: usize },
    /// So many requests wait for a place that another is refused; `displaced` says that it had one in the
    /// queue and gave way to a conversation that goes on.
    RuntimeProxyQueueOverloaded {
        request: u64,
        lane: Text<'a>,
        waiting: usize,
        limit: usize,
        displaced: bool,
    },
    /// A request has waited for a quarter of a second: for a place in its lane, or, where a profile is
    /// named, for one among that profile's requests. `position` are admitted before it.
    RuntimeProxyAdmissionWaitStarted {
        request: u64,
        lane: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<Text<'a>>,
        position: usize,
        waiting: usize,
    },
    /// A wait that was logged ended with a place.
    RuntimeProxyAdmissionWaitRecovered {
        request: u64,
        lane: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<Text<'a>>,
        ms: u64,
    },
    /// A wait that was logged ended without one.
    RuntimeProxyAdmissionWaitExhausted {
        request: u64,
        lane: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<Text<'a>>,
        ms: u64,
    },
    /// A compaction was refused because turns wait.
    CompactPressureShed { request: u64, waiting: usize },
    /// A profile serves as many requests as it may, and one that only it can serve waits, or is refused.
    ProfileInflightSaturated { request: u64, profile: Text<'a>, active: usize, limit: usize },
    /// What is known of the profiles of an API has changed since it was last said.
    SelectionSnapshot(SnapshotFields<'a>),
    /// A request without an owner got a profile.
    SelectionPick {
        request: u64,
        route: Text<'a>,
        profile: Text<'a>,
        reason: Text<'a>,
        candidates: usize,
        #[serde(flatten)]
        basis: Basis<'a>,
    },
    /// A request without an owner stays with the current profile.
    SelectionKeepCurrent {
        request: u64,
        route: Text<'a>,
        profile: Text<'a>,
        #[serde(flatten)]
        basis: Basis<'a>,
    },
    /// A request goes to the profile that owns its conversation.
    SelectionKeepAffinity {
        request: u64,
        route: Text<'a>,
        profile: Text<'a>,
        affinity: Text<'a>,
        #[serde(flatten)]
        basis: Basis<'a>,
    },
    /// The owner cannot serve now and the conversation may move.
    SelectionSkipAffinity { request: u64, profile: Text<'a>, affinity: Text<'a>, reason: Text<'a> },
    /// A request without an owner does not stay with the current profile.
    SelectionSkipCurrent { request: u64, profile: Text<'a>, reason: Text<'a> },
    /// There is no profile, or no further one, for a request.
    SelectionNone {
        request: u64,
        route: Text<'a>,
        reason: Text<'a>,
        #[serde(flatten)]
        basis: Basis<'a>,
    },
    /// The response of this profile goes to the client; nothing rotates from here on.
    ProfileCommit { request: u64, route: Text<'a>, profile: Text<'a>, status: u16, attempts: u32, ms: u64 },
    /// No further profile may be tried for this request.
    PrecommitBudgetExhausted { request: u64, attempts: u32, ms: u64 },
    /// The profile is left out until a time.
    ProfileRetryBackoff { request: u64, profile: Text<'a>, reason: Text<'a>, until: i64 },
    /// A profile is not asked for calls of this route for a while: its account refused one on its own account.
    ProfileCircuitOpen { request: u64, profile: Text<'a>, route: Text<'a>, code: Text<'a>, until: i64 },
    /// One request tries whether a profile serves again.
    ProfileCircuitHalfOpenProbe { request: u64, profile: Text<'a>, route: Text<'a> },
    /// A profile that had refused serves again.
    ProfileHealth { request: u64, profile: Text<'a>, route: Text<'a>, state: Text<'a> },
    /// A profile refuses the calls of one route while it serves those of another.
    ProfileBadPairing { request: u64, profile: Text<'a>, route: Text<'a>, serves: Text<'a> },
    /// An upstream could not be reached several times, and nobody tries for so long. `profile` is whose
    /// request found that out; the others are not to blame either.
    ProfileTransportBackoff { request: u64, profile: Text<'a>, origin: Text<'a>, ms: u64 },
    /// The profile's account is used up until a time.
    ProfileQuotaQuarantine { request: u64, profile: Text<'a>, code: Text<'a>, until: i64 },
    /// A fresh request was not sent to the profile that served last, or that its WebSocket leads to: by
    /// `source`, a window of its account has all but nothing left. `reason` is `critical` or `exhausted`, `remaining` percent, `age_s` that of the evidence.
    QuotaCriticalFloorBeforeSend {
        request: u64,
        route: Text<'a>,
        profile: Text<'a>,
        reason: Text<'a>,
        window: Option<Text<'a>>,
        remaining: f64,
        source: Text<'a>,
        age_s: u64,
    },
    /// A profile was left out before a request was sent over HTTP.
    ResponsesPreSendSkip { request: u64, profile: Text<'a>, reason: Text<'a> },
    /// A profile was left out before a turn was sent on a WebSocket.
    WebsocketPreSendSkip { request: u64, profile: Text<'a>, reason: Text<'a> },
    /// The usage endpoint is to be asked about a profile. `reason` is `unknown`, `reset` or `stale`.
    ProfileProbeRefreshQueued { profile: Text<'a>, reason: Text<'a> },
    /// The usage endpoint is asked about a profile.
    ProfileProbeRefreshStart { profile: Text<'a> },
    /// The usage endpoint answered. `remaining` is that of the tightest window, in percent.
    ProfileProbeRefreshOk { profile: Text<'a>, windows: usize, remaining: Option<f64>, ms: u64 },
    /// The usage endpoint gave no answer, and is left alone for `retry_s` seconds.
    ProfileProbeRefreshError { profile: Text<'a>, error: Text<'a>, retry_s: u64 },
    /// The refusal of an account goes to the client, because no other profile may serve.
    UpstreamUsageLimitPassthrough { request: u64, profile: Text<'a>, status: u16 },
    /// A profile's token was renewed, or someone else had already done it.
    ProfileRefreshOk { profile: Text<'a>, adopted: bool, ms: u64 },
    /// A profile's token could not be renewed.
    ProfileRefreshError { profile: Text<'a>, reason: Text<'a>, parked: bool },
    /// Where a profile's traffic goes was learnt.
    ProfileOrigin {
        profile: Text<'a>,
        origin: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        routing: Option<Text<'a>>,
    },
    /// The client was told that the response it continues is unknown, so that it sends its full input: the
    /// account that has it refuses. `injected` says that the proxy said so itself.
    PreviousResponseNotFound { request: u64, profile: Text<'a>, route: Text<'a>, injected: bool },
    /// An account said that it does not have the response that a request continues, its owner also when asked
    /// again; or that it cannot read an encrypted item (`reason`: `previous_response_not_found` or
    /// `invalid_encrypted_content`). The client gets what it said.
    StaleContinuation { request: u64, profile: Text<'a>, reason: Text<'a> },
    /// The response that a request continues was said to be gone a moment ago: it is asked for only once.
    PreviousResponseNegativeCache { request: u64, profile: Text<'a> },
    /// A compaction was made by this profile, which owns what comes of it.
    CompactCommittedOwner { request: u64, profile: Text<'a> },
    /// A request that carries what a compaction left went to the profile that made it.
    CompactFollowupOwner { request: u64, profile: Text<'a> },
    /// A compaction, or what follows one, was not served: its owner cannot, and nobody else can read it.
    CompactFreshFallbackBlocked { request: u64, profile: Text<'a> },
    /// A conversation moved to another account with its full history.
    ContinuationMigrated { request: u64, from: Text<'a>, to: Text<'a> },
    /// The upstream could not be reached in time.
    UpstreamConnectTimeout { request: u64, profile: Text<'a>, ms: u64 },
    /// The upstream's name could not be resolved.
    UpstreamConnectDnsError { request: u64, profile: Text<'a>, error: Text<'a> },
    /// The TLS handshake with the upstream failed.
    UpstreamTlsHandshakeError { request: u64, profile: Text<'a>, error: Text<'a> },
    /// The upstream could not be reached.
    UpstreamConnectError { request: u64, profile: Text<'a>, error: Text<'a> },
    /// An exchange ended after its response was committed. `outcome` is `complete`, `client_gone`,
    /// `upstream_cut`, `idle` or `slow_client`; where it is not `complete`, `leg` says which side it was:
    /// `client` for one that left or did not read, `upstream` for one that broke off or was silent.
    StreamComplete {
        request: u64,
        profile: Text<'a>,
        outcome: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        leg: Option<Text<'a>>,
        bytes: u64,
        events: u64,
        ms: u64,
    },
    /// The upstream broke off, did not answer in time, or sends the request elsewhere.
    StreamReadError { request: u64, profile: Text<'a>, error: Text<'a> },
    /// The tokens that a response took.
    TokenUsage { request: u64, profile: Text<'a>, input: i64, cached: i64, output: i64, total: i64 },
    /// Something about the traffic is not as this version knows it.
    CompatWarning { request: u64, warning: Text<'a>, detail: Text<'a> },
    /// A run that was killed had left this many pages of its write-ahead log; they are part of the state
    /// now, which has so many bindings. So many more were too old.
    StateRecovered { frames: u64, bindings: u64, pruned: u64 },
    /// So many bindings wait to be written, for longer or more of them than usual.
    StateSaveQueued { backlog: usize },
    /// What was written since this was said last: rows, in so many commits. `lag_ms` is the longest that
    /// one of them waited.
    StateSaveOk { rows: usize, commits: u64, backlog: usize, lag_ms: u64 },
    /// So many bindings were given up, because the disk fails and more wait than may.
    StateSaveSkipped { rows: usize, backlog: usize, lag_ms: u64 },
    /// The state could not be written; it is tried again, and this cause is not told again. `cause` is
    /// `busy`, `full`, `read_only`, `io`, `damaged`, `stuck` or `other`.
    StateSaveError { cause: Text<'a>, error: Text<'a>, backlog: usize, lag_ms: u64 },
    /// So many spans of requests were not taken by the collector, or found no room on their way.
    SpansDropped { spans: u64, error: Text<'a> },
    /// The log goes on in this file: what it had is a part of its own now, the one with this number. Always
    /// the first line of its file.
    LogContinued { part: u32 },
    /// Lines were lost because the disk did not keep up, or had no room.
    LogDropped { lines: u64 },
}

/// What is known of the profiles of one API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotFields<'a> {
    /// Its number in this run.
    pub id: u64,
    /// The snapshot of which this one tells the differences; without one it tells everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    /// Whose profiles: `chatgpt` or `openai`.
    pub api: Text<'a>,
    /// The profile that fresh requests stay with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Text<'a>>,
    /// The profiles in their order, or those that changed.
    pub candidates: Vec<Arc<Standing>>,
}

/// What else a choice was made from: what is different for every request. With the snapshot it is enough to
/// make the choice again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Basis<'a> {
    /// The snapshot, whose current profile this may replace.
    pub snapshot: u64,
    /// When, in seconds since the epoch.
    pub at: i64,
    /// The profile that fresh requests stay with, if it is not the snapshot's: on a WebSocket, the one that it
    /// leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<Text<'a>>,
    /// The profile that owns the conversation, if it is not the chosen one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Text<'a>>,
    /// By which id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tie: Option<Text<'a>>,
    /// Whether only the owner can serve the request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stays: bool,
    /// The profiles that have refused the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Text<'a>>,
    /// The earliest reset among their refusals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<i64>,
    /// How many requests each profile serves, where that was looked at; zeros at the end are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<usize>,
    /// From how many requests in flight on a profile is avoided, and left out: soft and hard limit, where
    /// a profile has reached one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<(usize, usize)>,
    /// The profiles whose upstream cannot be reached now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<Text<'a>>,
}

/// A line of a run log.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// RFC 3339 in UTC with milliseconds.
    pub timestamp: &'a str,
    /// What happened.
    #[serde(flatten)]
    pub event: &'a RunEvent<'a>,
}

/// A line of a run log as a reader takes it: any event, of this version or another.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RawLine {
    /// RFC 3339.
    pub timestamp: String,
    /// The event's name.
    pub event: String,
    /// What it says.
    #[serde(default)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_and_read() {
        let event = RunEvent::SelectionKeepAffinity {
            request: 7,
            route: "responses".into(),
            profile: "work".into(),
            affinity: "session".into(),
            basis: Basis { snapshot: 3, at: 1_795_154_200, ..Basis::default() },
        };
        let line = Line { timestamp: "2026-11-20T05:56:40.692Z", event: &event };
        let text = serde_json::to_string(&line).unwrap();
        insta::assert_snapshot!(text, @r#"{"timestamp":"2026-11-20T05:56:40.692Z","event":"selection_keep_affinity","fields":{"request":7,"route":"responses","profile":"work","affinity":"session","snapshot":3,"at":1795154200}}"#);
        let raw: RawLine = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (raw.event.as_str(), raw.fields["profile"].as_str()),
            ("selection_keep_affinity", Some("work"))
        );
    }
}
