//! The usage endpoint: asked for a profile when there is a reason to, beside the requests.
//!
//! Nothing here has a clock of its own. Each request lets it be considered whether a profile should be
//! asked about; without requests nobody is asked, and an idle proxy does not wake up for it. A question
//! waits for a moment first, so that several proxies of a home, and a response that tells it anyway, do not
//! meet: if the reason is gone by then, nobody is asked. One question runs per profile, and few in all. A
//! request never waits for it, and neither does the exit of the proxy.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wire::limits::UsageView;
use wire::route::Api;
use wire::run_event::RunEvent;

use super::Source;
use crate::control::{Control, Flight};
use crate::profile::backend::{self, Problem};
use crate::profile::{Now, Profile, lock};

/// Where the question is asked. Measured with Codex 0.169.
const PATH: &str = "/backend-api/wham/usage";

/// Asks about one profile.
#[derive(Debug, Default)]
pub struct Prober {
    flight: Flight<()>,
    rest: Mutex<Rest>,
}

/// When it may be asked again.
#[derive(Debug, Default, Clone, Copy)]
struct Rest {
    until: Option<Instant>,
    failures: u32,
    /// The last answer, which may have told nothing.
    answered: Option<Now>,
}

/// Why a profile is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Nothing is known.
    Unknown,
    /// A window has started anew.
    Reset,
    /// What is known is old.
    Stale,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Reset => "reset",
            Self::Stale => "stale",
        }
    }
}

/// What the usage endpoint said, beside what it said about windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// How many windows it stated.
    pub windows: usize,
    /// Whether it says that a limit is reached.
    pub is_reached: bool,
}

/// Asks the usage endpoint about a profile now, and takes the answer as evidence.
///
/// # Errors
/// When there is no answer, or none that can be read.
pub async fn ask(control: &Arc<Control>, profile: &Arc<Profile>) -> Result<Usage, Problem> {
    let answer = backend::get(control, profile, PATH, control.config.control_timeout).await?;
    let view = UsageView::of_body(&answer.body);
    let view = view.ok_or(Problem::Unusable("the answer does not tell the usage of an account"))?;
    let (limits, is_reached) = (view.limits(), view.is_reached());
    let windows = limits.iter().map(|limit| limit.windows.len()).sum();
    let mut quota = profile.quota();
    if let Some(plan) = view.plan() {
        quota.set_plan(&plan);
    }
    quota.observe(&limits, Source::Usage, Now::read());
    Ok(Usage { windows, is_reached })
}

/// Considers whether a profile should be asked about, and sees to it. Waits for nothing.
pub fn consider(control: &Arc<Control>, profile: &Arc<Profile>, now: Now) {
    let Some(reason) = reason(control, profile, now) else { return };
    profile.prober.flight.begin(&control.tasks, || {
        control.log.record(&RunEvent::ProfileProbeRefreshQueued {
            profile: (&*profile.name).into(),
            reason: reason.name().into(),
        });
        let (control, profile) = (Arc::clone(control), Arc::clone(profile));
        // An exit does not wait for what is asked here; a renewal that it needs is a task of its own.
        async move {
            let _ = control.tasks.unless_ending(probe(&control, &profile)).await;
        }
    });
}

fn reason(control: &Control, profile: &Profile, now: Now) -> Option<Reason> {
    let limit = control.config.quota_refresh;
    if limit.is_zero() || profile.kind.api() != Api::Chatgpt || control.tasks.are_ending() {
        return None;
    }
    let rest = *lock(&profile.prober.rest);
    if rest.until.is_some_and(|until| until > now.instant) || profile.health().parked().is_some() {
        return None;
    }
    let quota = profile.quota();
    if quota.exhausted_until(now).is_some() {
        // No answer would lift that.
        return None;
    }
    let answered = rest.answered.map(|answered| now.since(answered));
    match quota.age(now) {
        _ if quota.has_reset(now) => Some(Reason::Reset),
        None if answered.is_none_or(|age| age > limit) => Some(Reason::Unknown),
        Some(age) if age.min(answered.unwrap_or(age)) > limit => Some(Reason::Stale),
        _ => None,
    }
}

#[expect(clippy::disallowed_methods, reason = "a pause before a question that nobody waits for")]
async fn probe(control: &Arc<Control>, profile: &Arc<Profile>) {
    let refresh = control.config.quota_refresh;
    tokio::time::sleep(jittered(refresh / 300, 4)).await;
    let Ok(_permit) = control.background.acquire().await else { return };
    if reason(control, profile, Now::read()).is_none() {
        return;
    }
    let name = || (&*profile.name).into();
    control.log.record(&RunEvent::ProfileProbeRefreshStart { profile: name() });
    let started = Instant::now();
    let result = ask(control, profile).await;
    let rest = {
        let mut rest = lock(&profile.prober.rest);
        let now = Now::read();
        let pause = if result.is_ok() {
            *rest = Rest { answered: Some(now), ..Rest::default() };
            refresh / 5
        } else {
            rest.failures = rest.failures.saturating_add(1);
            jittered(refresh / 10 * (1 << (rest.failures - 1).min(5)), 2).min(refresh * 3)
        };
        rest.until = Some(now.instant + pause);
        pause
    };
    if result.is_ok() {
        profile.keep(&control.state);
    }
    control.log.record(&match result {
        Ok(usage) => RunEvent::ProfileProbeRefreshOk {
            profile: name(),
            windows: usage.windows,
            remaining: profile.quota().remaining(Now::read()),
            ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        },
        Err(problem) => RunEvent::ProfileProbeRefreshError {
            profile: name(),
            error: problem.to_string().into(),
            retry_s: rest.as_secs(),
        },
    });
}

/// Between one and `most` times as long, at random, so that those who begin together do not go on so.
fn jittered(least: Duration, most: u32) -> Duration {
    let mut bytes = [0; 4];
    // Without randomness all wait equally long.
    let _ = getrandom::fill(&mut bytes);
    let share = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
    least + (least * most.saturating_sub(1)).mul_f64(share)
}

#[cfg(test)]
mod tests;
