//! The attempts of one request: how many, whose refusals, and whether there may be another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::Permit;
use crate::commit::Committed;
use crate::commit::refusal::Refusal;
use crate::control::Control;
use crate::error::{ConnectStep, Error};
use crate::exchange::Exchange;
use crate::metrics::{Metrics, Refused};
use crate::profile::Profile;
use crate::selection::affinity;
use crate::trace;

/// How often a request is sent again because the upstream broke off. Codex repeats every failure up to 30
/// times itself. One that cannot be reached is tried for as long as the window lasts, in the steps that its
/// breaker allows.
const MAX_FAILURES: u32 = 2;

/// How many profiles are asked when each says that the model has no capacity.
const MAX_OVERLOADS: u32 = 3;

/// The pauses after which the owner of a response is asked again when it says that there is none: it may
/// have been told of it in the meantime.
const OWNER_PAUSES: [Duration; 3] =
    [Duration::from_millis(75), Duration::from_millis(200), Duration::from_millis(500)];

/// The pause before the first repetition; it doubles.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// The right to try a profile that is half open. It ends with this, if a refusal or a success has not ended it.
#[derive(Debug)]
pub(super) struct Probe {
    profile: Arc<Profile>,
    /// Who tries.
    request: u64,
}

impl Probe {
    /// The probe that a profile has just granted to a request.
    pub(super) fn new(profile: &Arc<Profile>, request: u64) -> Self {
        Self { profile: Arc::clone(profile), request }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.profile.health().release(self.request);
    }
}

/// What has been tried for a request.
#[derive(Debug)]
pub struct Tries {
    started: Instant,
    /// When the first attempt failed: the window is for trying again, however long an upstream thinks.
    failed: Option<Instant>,
    /// What is told of it to a collector.
    trace: trace::Request,
    /// The choice that the log has, and after how many refusals it was made.
    logged: Option<(Arc<str>, usize)>,
    max_count: u32,
    window: Duration,
    count: u32,
    failures: u32,
    overloads: u32,
    /// The earliest reset among the refusals that say one.
    reset: Option<i64>,
    /// No further attempt makes sense.
    is_ended: bool,
    /// How often the owner of a response has been asked again.
    owner_repeats: usize,
    tried: Vec<Arc<str>>,
    renewed: Vec<Arc<str>>,
    best: Option<(Refusal, Box<Committed>)>,
    permit: Option<Permit>,
    /// Held while the attempt is one that tries a profile which is half open.
    probe: Option<Probe>,
    /// Whether the request may be sent again though an upstream may have acted on it.
    is_repeatable: bool,
    /// Where attempts are counted.
    metrics: Option<Arc<Metrics>>,
    /// What the attempt before the next came to.
    behind: Option<Refused>,
}

impl Tries {
    /// Nothing has been tried for this request.
    #[must_use]
    pub fn new(control: &Control, exchange: &Exchange, permit: Permit) -> Self {
        let config = &control.config;
        let (max_count, window) = if affinity::continues(&control.state, &exchange.ties) {
            (config.max_continuation_attempts, config.continuation_window)
        } else {
            (config.max_attempts, config.attempt_window)
        };
        let (started, is_repeatable) = (exchange.started, exchange.is_repeatable());
        let metrics = Some(Arc::clone(&control.metrics));
        let trace = trace::Request::begin(exchange);
        Self {
            started,
            trace,
            max_count,
            window,
            permit: Some(permit),
            is_repeatable,
            metrics,
            ..Self::spent()
        }
    }

    /// Nothing has been tried for a turn on a WebSocket. What is sent again is only the opening of one.
    #[must_use]
    pub fn of_turn(control: &Control, upgrade: &Exchange, permit: Permit) -> Self {
        let config = &control.config;
        let trace = trace::Request::begin_turn(upgrade);
        let (max_count, window) = (config.max_continuation_attempts, config.continuation_window);
        let metrics = Some(Arc::clone(&control.metrics));
        Self { trace, max_count, window, permit: Some(permit), is_repeatable: true, metrics, ..Self::spent() }
    }

    /// A request for which nothing more may be tried.
    pub(super) fn spent() -> Self {
        Self {
            started: Instant::now(),
            failed: None,
            trace: trace::Request::none(),
            logged: None,
            max_count: 0,
            window: Duration::ZERO,
            count: 0,
            failures: 0,
            overloads: 0,
            reset: None,
            is_ended: false,
            owner_repeats: 0,
            tried: Vec::new(),
            renewed: Vec::new(),
            best: None,
            permit: None,
            probe: None,
            is_repeatable: false,
            metrics: None,
            behind: None,
        }
    }

    /// Counts an attempt by a profile.
    pub fn begin(&mut self, profile: &Profile) {
        self.count += 1;
        let behind = self.behind.take();
        if let Some(metrics) = &self.metrics {
            metrics.attempt(behind);
        }
        self.trace.begin_attempt(profile);
    }

    /// Counts an attempt that came to this.
    fn came_to(&mut self, refused: Refused) {
        self.behind = Some(refused);
        if let Some(metrics) = &self.metrics {
            metrics.refused(refused);
        }
    }

    /// How many attempts there were.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How long the request has been tried.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Allows no further attempt.
    pub fn end(&mut self) {
        self.is_ended = true;
    }

    /// Takes the right to try the profile that is asked next, if it takes one.
    pub(super) fn begin_probe(&mut self, probe: Option<Probe>) {
        self.probe = probe;
    }

    /// Gives back the right to try the profile that was asked last.
    pub fn end_probe(&mut self) {
        self.probe = None;
    }

    /// Whether there is to be no further attempt.
    #[must_use]
    pub fn are_spent(&self) -> bool {
        self.is_ended || self.are_over_budget()
    }

    /// Whether there were as many attempts as allowed, or the time for further ones is over.
    #[must_use]
    pub fn are_over_budget(&self) -> bool {
        let is_late = self.failed.is_some_and(|failed| failed.elapsed() >= self.window);
        self.count >= self.max_count || is_late
    }

    /// The profiles that have refused.
    #[must_use]
    pub fn tried(&self) -> &[Arc<str>] {
        &self.tried
    }

    /// Whether a choice is the one that the log has already, as when an owner is asked again or a token was renewed.
    #[must_use]
    pub fn repeats(&self, profile: Option<&Arc<str>>) -> bool {
        let logged = self.logged.as_ref().filter(|(_, tried)| *tried == self.tried.len());
        profile.is_some() && profile == logged.map(|(profile, _)| profile)
    }

    /// Takes note that the log has this choice.
    pub fn note(&mut self, profile: Option<&Arc<str>>) {
        self.logged = profile.map(|profile| (Arc::clone(profile), self.tried.len()));
    }

    /// The right to be in flight, for the account that is committed.
    pub fn take_permit(&mut self) -> Option<Permit> {
        self.permit.take()
    }

    /// What is told to a collector, for the account that is committed.
    pub(crate) fn take_trace(&mut self) -> trace::Request {
        std::mem::take(&mut self.trace)
    }

    /// Whether this profile's token may be renewed for this request; once it may.
    pub fn may_renew(&mut self, profile: &Profile) -> bool {
        let is_first = !self.renewed.contains(&profile.name);
        if is_first {
            self.renewed.push(Arc::clone(&profile.name));
        }
        is_first
    }

    /// This profile is not asked again for this request.
    pub fn refuse(&mut self, profile: &Profile, refusal: &Refusal) {
        self.came_to(refusal.into());
        self.trace.end_attempt(refusal.name());
        self.tried.push(Arc::clone(&profile.name));
        self.failed.get_or_insert_with(Instant::now);
        if *refusal == Refusal::Overload {
            self.overloads += 1;
            if self.overloads >= MAX_OVERLOADS {
                self.end();
            }
        }
        if let Refusal::Quota { resets_at: Some(at), .. } = *refusal {
            self.reset = Some(self.reset.map_or(at, |reset| reset.min(at)));
        }
    }

    /// Keeps a refusal that the client may get, if it is better than those before.
    pub fn keep(&mut self, profile: &Profile, refusal: Refusal, committed: Box<Committed>) {
        // After a renewal the profile is asked again; what it said before is past.
        let is_final = self.tried.contains(&profile.name);
        let is_better = self.best.as_ref().is_none_or(|(best, _)| refusal.worth() < best.worth());
        if is_final && refusal != Refusal::Auth && is_better {
            self.best = Some((refusal, committed));
        }
    }

    /// The refusal that the client gets when nobody serves.
    pub fn best(&mut self) -> Option<(Refusal, Box<Committed>)> {
        self.best.take()
    }

    /// After which pause the owner of a response may be asked for it again; none when it has been asked
    /// often enough.
    pub fn owner_pause(&mut self) -> Option<Duration> {
        self.came_to(Refused::NotFound);
        let pause = OWNER_PAUSES.get(self.owner_repeats).copied().filter(|_| !self.are_spent())?;
        self.failed.get_or_insert_with(Instant::now);
        self.owner_repeats += 1;
        Some(pause)
    }

    /// Whether the best that the client could get says that the model has no capacity.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        matches!(self.best, Some((Refusal::Overload, _)))
    }

    /// The earliest reset among the refusals; for one that may be over at once, the beginning of time.
    #[must_use]
    pub fn earliest_reset(&self) -> Option<i64> {
        match &self.best {
            Some((Refusal::Quota { resets_at, .. }, _)) => *resets_at,
            _ if self.overloads > 0 => Some(i64::MIN),
            // A turn on a WebSocket keeps its refusals itself.
            None => self.reset,
            _ => None,
        }
    }

    /// Whether the request may be sent again after this error; waits for the pause before it.
    pub async fn may_retry(&mut self, error: &Error) -> bool {
        self.came_to(error.into());
        self.trace.end_attempt("unreachable");
        self.failed.get_or_insert_with(Instant::now);
        let time = match error {
            // Nobody tried, because it would be in vain for longer than a turn waits.
            Error::Connect { step: ConnectStep::Backoff, .. } => return false,
            Error::Connect {
                step: ConnectStep::Resolve | ConnectStep::Connect | ConnectStep::Files,
                pause,
                ..
            } => match pause {
                // The breaker makes the next attempt wait.
                Some(_) => Duration::ZERO,
                None => FAILURE_PAUSE * (1 << self.failures.min(MAX_FAILURES)),
            },
            _ if self.failures >= MAX_FAILURES => return false,
            _ => FAILURE_PAUSE * (1 << self.failures),
        };
        if !error.may_retry(self.is_repeatable) || self.are_spent() {
            return false;
        }
        pause(time).await;
        self.failures += 1;
        true
    }
}

/// A pause between two attempts.
#[expect(clippy::disallowed_methods, reason = "nothing tells when an upstream is up again, or knows more")]
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
