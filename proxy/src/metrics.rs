//! What a run counts: requests, attempts, refusals, renewals. `admin::metrics` shows it to a scraper.
//!
//! Every count has its place from the start, found by numbers: a request costs a few relaxed additions, and no
//! lock, no allocation and no look-up. What is the case at a moment, such as how many are in flight, is not
//! counted here but asked of its owner when somebody wants to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wire::responses::TokenUsage;
use wire::route::Call;

use crate::accounting;
use crate::admission::{self, Subject, gate};
use crate::commit::refusal::Refusal;
use crate::error::Error;
use crate::route::{self, Lane, Routed};

pub mod histogram;

pub mod exposition;

use histogram::Histogram;

/// Labels whose values are known from the start.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $text:literal, )+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$variant_doc])* $variant, )+ }

        impl $name {
            /// All of them, each in the place of its number.
            pub const ALL: [Self; [$($text),+].len()] = [$( Self::$variant ),+];

            /// Its name as the value of a label.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }
        }
    };
}

labels! {
    /// What a request asks for.
    Route {
        /// A turn.
        Responses = "responses",
        /// A compaction.
        Compact = "compact",
        /// A list of models.
        Models = "models",
        /// Where a workspace's traffic goes.
        AccountsCheck = "accounts_check",
        /// Rate limits.
        Usage = "usage",
        /// The user's settings.
        Settings = "settings",
        /// Lists of plugins.
        Plugins = "plugins",
        /// The hosted MCP server.
        Mcp = "mcp",
        /// Telemetry.
        Analytics = "analytics",
        /// Other calls of a model.
        Auxiliary = "auxiliary",
        /// A WebSocket to be opened.
        Upgrade = "upgrade",
        /// Nothing that is known.
        None = "none",
    }
}

labels! {
    /// How a request comes.
    Transport {
        /// Over HTTP/1.1.
        Http1 = "http1",
        /// Over HTTP/2.
        Http2 = "http2",
        /// As a message on a WebSocket.
        Websocket = "websocket",
    }
}

labels! {
    /// Who asks.
    Client {
        /// Codex.
        Codex = "codex",
        /// Any other.
        Other = "other",
    }
}

labels! {
    /// How a request ended.
    Ending {
        /// The client has got a whole response that is no failure.
        Complete = "complete",
        /// The client has got a whole failure or refusal of the upstream.
        UpstreamError = "upstream_error",
        /// The client went away.
        ClientGone = "client_gone",
        /// The client did not read for too long.
        SlowClient = "slow_client",
        /// The upstream broke off.
        UpstreamCut = "upstream_cut",
        /// The upstream was silent for too long, within its response or before it.
        UpstreamSilent = "upstream_silent",
        /// The upstream could not be reached.
        Unreachable = "unreachable",
        /// It was refused for what it is.
        Invalid = "invalid",
        /// There was no place for it.
        Busy = "busy",
        /// No profile could serve it.
        NoProfile = "no_profile",
        /// Only the owner of its conversation could have, and cannot.
        Owned = "owned",
        /// The proxy was about to exit.
        Draining = "draining",
        /// The client was sent to HTTP.
        Fallback = "fallback",
        /// The client was told to send its full input.
        SentAnew = "sent_anew",
        /// The proxy knows the answer itself.
        Local = "local",
    }
}

labels! {
    /// Why an attempt was not the last.
    Refused {
        /// The account's quota.
        Quota = "quota",
        /// Its token.
        Auth = "auth",
        /// The account itself.
        Account = "account",
        /// The model has no capacity.
        Overload = "overload",
        /// The response that is continued is not there.
        NotFound = "not_found",
        /// An encrypted item cannot be read.
        Unreadable = "unreadable",
        /// The upstream could not be reached.
        Unreachable = "unreachable",
        /// The upstream broke off before its response.
        Broken = "broken",
    }
}

labels! {
    /// Where there was no place.
    Place {
        /// Among the turns over HTTP.
        Responses = "responses",
        /// Among the compactions.
        Compact = "compact",
        /// Among the turns on WebSockets.
        Websocket = "websocket",
        /// Among the other calls.
        Standard = "standard",
        /// Among the requests of a profile.
        Profile = "profile",
        /// Among the open WebSockets.
        Sockets = "sockets",
    }
}

labels! {
    /// Why there was none.
    Cause {
        /// As many as allowed were in flight.
        Active = "active",
        /// As many as allowed were in flight in the lane.
        Lane = "lane",
        /// As many as allowed waited.
        Queue = "queue",
        /// A stronger one took the place in the queue.
        Displaced = "displaced",
        /// It was a compaction, and turns waited.
        Pressure = "pressure",
    }
}

labels! {
    /// What came of a renewal.
    Renewal {
        /// A new token.
        Renewed = "renewed",
        /// Somebody else's new token.
        Adopted = "adopted",
        /// The login is no longer good.
        Rejected = "rejected",
        /// It may work later.
        Failed = "failed",
    }
}

labels! {
    /// What tokens are.
    Tokens {
        /// Input that was not cached.
        Input = "input",
        /// Input that was.
        Cached = "cached",
        /// Output.
        Output = "output",
    }
}

/// Counts with a place for each label.
#[derive(Debug)]
pub struct Counts(Box<[AtomicU64]>);

impl Counts {
    fn new(places: usize) -> Self {
        Self((0..places).map(|_| AtomicU64::new(0)).collect())
    }

    fn add(&self, place: usize, count: u64) {
        self.0[place].fetch_add(count, Ordering::Relaxed);
    }

    /// The count in a place.
    #[must_use]
    pub fn get(&self, place: usize) -> u64 {
        self.0[place].load(Ordering::Relaxed)
    }
}

/// What a run has counted.
#[derive(Debug)]
pub struct Metrics {
    requests: Counts,
    /// From a request's head to the last byte of its response, by lane; of those that got one.
    pub duration: [Histogram; Lane::ALL.len()],
    /// From a request's head to the first byte of its response, by lane.
    pub first_byte: [Histogram; Lane::ALL.len()],
    admission: Counts,
    /// Attempts at an upstream.
    pub attempts: AtomicU64,
    refusals: Counts,
    rotations: Counts,
    renewals: Counts,
    tokens: Counts,
    /// Bytes of responses that were handed to clients.
    pub response_bytes: AtomicU64,
    /// Connections of clients that were accepted.
    pub connections: AtomicU64,
    /// Those that have ended.
    pub connections_ended: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Counts::new(Series::PLACES * Ending::ALL.len()),
            duration: Default::default(),
            first_byte: Default::default(),
            admission: Counts::new(Place::ALL.len() * Cause::ALL.len()),
            attempts: AtomicU64::new(0),
            refusals: Counts::new(Refused::ALL.len()),
            rotations: Counts::new(Refused::ALL.len()),
            renewals: Counts::new(Renewal::ALL.len()),
            tokens: Counts::new(Tokens::ALL.len()),
            response_bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_ended: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// A request ended.
    pub fn end(&self, series: Series, ending: Ending) {
        self.requests.add(series.place() * Ending::ALL.len() + ending as usize, 1);
    }

    /// How many requests of these ended so.
    #[must_use]
    pub fn requests(&self, series: Series, ending: Ending) -> u64 {
        self.requests.get(series.place() * Ending::ALL.len() + ending as usize)
    }

    /// Somebody was not admitted.
    pub fn not_admitted(&self, subject: &Subject, reason: gate::Reason) {
        let place = match subject {
            Subject::Lane(Lane::Responses) => Place::Responses,
            Subject::Lane(Lane::Compact) => Place::Compact,
            Subject::Lane(Lane::Websocket) => Place::Websocket,
            Subject::Lane(Lane::Standard) => Place::Standard,
            Subject::Profile(_) => Place::Profile,
            Subject::Sockets => Place::Sockets,
        };
        let cause = match reason {
            gate::Reason::Active => Cause::Active,
            gate::Reason::Lane => Cause::Lane,
            gate::Reason::Queue => Cause::Queue,
            gate::Reason::Displaced => Cause::Displaced,
            gate::Reason::Pressure => Cause::Pressure,
        };
        self.admission.add(place as usize * Cause::ALL.len() + cause as usize, 1);
    }

    /// How many were not admitted there, for this reason.
    #[must_use]
    pub fn admission_refusals(&self, place: Place, cause: Cause) -> u64 {
        self.admission.get(place as usize * Cause::ALL.len() + cause as usize)
    }

    /// An attempt begins, behind one that came to this.
    pub fn attempt(&self, behind: Option<Refused>) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if let Some(refused) = behind {
            self.rotations.add(refused as usize, 1);
        }
    }

    /// An attempt was not the last word.
    pub fn refused(&self, refused: Refused) {
        self.refusals.add(refused as usize, 1);
    }

    /// How many attempts came to this, and how many of them were followed by another.
    #[must_use]
    pub fn refusals(&self, refused: Refused) -> (u64, u64) {
        (self.refusals.get(refused as usize), self.rotations.get(refused as usize))
    }

    /// A login was to be renewed.
    pub fn renewal(&self, renewal: Renewal) {
        self.renewals.add(renewal as usize, 1);
    }

    /// How many renewals came to this.
    #[must_use]
    pub fn renewals(&self, renewal: Renewal) -> u64 {
        self.renewals.get(renewal as usize)
    }

    /// A response took tokens.
    pub fn used(&self, usage: &TokenUsage) {
        let count = |tokens: i64| u64::try_from(tokens).unwrap_or_default();
        let cached = count(usage.cached);
        self.tokens.add(Tokens::Input as usize, count(usage.input).saturating_sub(cached));
        self.tokens.add(Tokens::Cached as usize, cached);
        self.tokens.add(Tokens::Output as usize, count(usage.output));
    }

    /// How many tokens of a kind responses took.
    #[must_use]
    pub fn tokens(&self, tokens: Tokens) -> u64 {
        self.tokens.get(tokens as usize)
    }
}

/// The requests that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series {
    /// What they ask for.
    pub route: Route,
    /// How they come.
    pub transport: Transport,
    /// Who asks.
    pub client: Client,
}

impl Series {
    const PLACES: usize = Route::ALL.len() * Transport::ALL.len() * Client::ALL.len();

    /// The series of a request over HTTP.
    #[must_use]
    pub fn of(routed: Routed, transport: Transport) -> Self {
        let route = match routed.call {
            _ if routed.lane == Lane::Websocket => Route::Upgrade,
            Call::Responses => Route::Responses,
            Call::Compact => Route::Compact,
            Call::Models => Route::Models,
            Call::AccountsCheck => Route::AccountsCheck,
            Call::Usage => Route::Usage,
            Call::Settings => Route::Settings,
            Call::Plugins => Route::Plugins,
            Call::Mcp => Route::Mcp,
            Call::Analytics => Route::Analytics,
            Call::Auxiliary => Route::Auxiliary,
        };
        let client = match routed.client {
            route::Client::Codex => Client::Codex,
            route::Client::Unknown => Client::Other,
        };
        Self { route, transport, client }
    }

    /// The series of the turns on a WebSocket of this upgrade.
    #[must_use]
    pub fn of_turn(routed: Routed) -> Self {
        Self { route: Route::Responses, ..Self::of(routed, Transport::Websocket) }
    }

    /// The series of what is no request for anything that is known.
    #[must_use]
    pub fn unrouted(transport: Transport) -> Self {
        Self { route: Route::None, transport, client: Client::Other }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let of = |route, transport| Client::ALL.map(|client| Self { route, transport, client });
        let of = move |route| Transport::ALL.into_iter().flat_map(move |transport| of(route, transport));
        Route::ALL.into_iter().flat_map(of)
    }

    fn place(self) -> usize {
        let Self { route, transport, client } = self;
        (route as usize * Transport::ALL.len() + transport as usize) * Client::ALL.len() + client as usize
    }

    /// Their lane.
    #[must_use]
    pub fn lane(self) -> Lane {
        match (self.route, self.transport) {
            (Route::Upgrade, _) | (_, Transport::Websocket) => Lane::Websocket,
            (Route::Responses, _) => Lane::Responses,
            (Route::Compact, _) => Lane::Compact,
            _ => Lane::Standard,
        }
    }

    /// Whether a turn of a conversation is what they ask for.
    #[must_use]
    pub fn is_turn(self) -> bool {
        matches!(self.route, Route::Responses | Route::Compact)
    }

    /// What they are called in the run log.
    #[must_use]
    pub fn name(self) -> &'static str {
        if self.lane() == Lane::Websocket { Lane::Websocket.name() } else { self.route.name() }
    }
}

/// Counts one request when it ends. One that ends without a word did so because its client went away.
#[derive(Debug)]
pub struct Meter {
    metrics: Arc<Metrics>,
    /// Which request it is.
    pub series: Series,
    is_settled: AtomicBool,
}

impl Meter {
    /// A request has come.
    #[must_use]
    pub fn new(metrics: &Arc<Metrics>, series: Series) -> Self {
        Self { metrics: Arc::clone(metrics), series, is_settled: AtomicBool::new(false) }
    }

    /// It ended so.
    pub fn settle(&self, ending: Ending) {
        if !self.is_settled.swap(true, Ordering::Relaxed) {
            self.metrics.end(self.series, ending);
        }
    }

    /// It has a response, whose account counts it from here on.
    pub fn hand_over(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.settle(Ending::ClientGone);
    }
}

impl Metrics {
    /// The first byte of a response is about to go to the client.
    pub fn first_byte(&self, series: Series, started: Instant) -> Duration {
        let took = started.elapsed();
        self.first_byte[series.lane() as usize].observe(took);
        took
    }
}

impl From<accounting::Outcome> for Ending {
    fn from(outcome: accounting::Outcome) -> Self {
        match outcome {
            accounting::Outcome::Complete => Self::Complete,
            accounting::Outcome::ClientGone => Self::ClientGone,
            accounting::Outcome::UpstreamCut => Self::UpstreamCut,
            accounting::Outcome::Idle => Self::UpstreamSilent,
            accounting::Outcome::SlowClient => Self::SlowClient,
        }
    }
}

impl From<&Error> for Ending {
    fn from(error: &Error) -> Self {
        match error {
            Error::Refused { .. } => Self::Invalid,
            Error::Busy(admission::Refused { subject: Subject::Sockets, .. }) => Self::Fallback,
            Error::Busy(_) => Self::Busy,
            Error::NoProfile(_) => Self::NoProfile,
            Error::Owned { .. } => Self::Owned,
            Error::Draining => Self::Draining,
            Error::Connect { .. } => Self::Unreachable,
            Error::Timeout { .. } => Self::UpstreamSilent,
            Error::Redirected { .. } | Error::Broken { .. } => Self::UpstreamCut,
        }
    }
}

impl From<&Refusal> for Refused {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Quota { .. } => Self::Quota,
            Refusal::Auth => Self::Auth,
            Refusal::Account { .. } => Self::Account,
            Refusal::Overload => Self::Overload,
            Refusal::NotFound => Self::NotFound,
            Refusal::Unreadable => Self::Unreadable,
        }
    }
}

impl From<&Error> for Refused {
    fn from(error: &Error) -> Self {
        if matches!(error, Error::Connect { .. }) { Self::Unreachable } else { Self::Broken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_series_has_a_place_of_its_own() {
        let places: Vec<usize> = Series::all().map(Series::place).collect();
        assert_eq!(places, (0..Series::PLACES).collect::<Vec<_>>());
        for (place, lane) in Lane::ALL.into_iter().enumerate() {
            assert_eq!(lane as usize, place);
        }
    }

    #[test]
    fn a_request_is_counted_once_however_it_ends() {
        let metrics = Arc::new(Metrics::default());
        let series = Series::unrouted(Transport::Http2);
        Meter::new(&metrics, series).settle(Ending::Busy);
        drop(Meter::new(&metrics, series));
        let told = Meter::new(&metrics, series);
        told.settle(Ending::Invalid);
        told.settle(Ending::Busy);
        drop(told);
        Meter::new(&metrics, series).hand_over();
        let counts = Ending::ALL.map(|ending| metrics.requests(series, ending));
        let of = |ending| metrics.requests(series, ending);
        assert_eq!((of(Ending::Busy), of(Ending::Invalid), of(Ending::ClientGone)), (1, 1, 1));
        assert_eq!(counts.into_iter().sum::<u64>(), 3);
    }
}
