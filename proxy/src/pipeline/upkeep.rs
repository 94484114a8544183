//! What requests see to by the way: that tokens stay good, quotas known, new logins found, and the home tidy.
//!
//! What another process of the home has learnt of the profiles is taken up here as well.
//!
//! There may be many profiles and many more requests, so a request looks at what is published and leaves the
//! profiles alone, but for one a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wire::route::Api;

use super::Proxy;
use crate::profile::board::View;
use crate::profile::quota::probe;
use crate::profile::{Now, Profile, refresh};
use crate::selection::Owner;

/// How long the profiles of an API are left alone, however many requests there are. What is seen to has minutes.
const PAUSE: Duration = Duration::from_secs(1);

/// How often what is in the home for a time only is looked through: what was removed 30 days ago goes.
const TIDY: Duration = Duration::from_secs(3600);

/// When the profiles of each API may be looked after again.
#[derive(Debug)]
pub(super) struct Upkeep {
    begun: Instant,
    /// In milliseconds since it began.
    not_before: [AtomicU64; 2],
    tidied: Mutex<Option<Now>>,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { begun: Instant::now(), not_before: Default::default(), tidied: Mutex::default() }
    }
}

impl Upkeep {
    /// Whether it is time to tidy, by either clock: a laptop sleeps most of its weeks.
    fn is_untidy(&self, now: Now) -> bool {
        let mut tidied = self.tidied.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = tidied.is_none_or(|tidied| now.since(tidied) >= TIDY);
        if is_due {
            *tidied = Some(now);
        }
        is_due
    }

    /// Whether it is time for an API; of those who ask at the same time one is told so.
    fn is_due(&self, api: Api, now: Instant) -> bool {
        let not_before = match api {
            Api::Chatgpt => &self.not_before[0],
            Api::OpenAi => &self.not_before[1],
        };
        let at = |moment: Instant| {
            let age = moment.saturating_duration_since(self.begun);
            u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
        };
        // Nothing is read that somebody wrote before.
        let known = not_before.load(Ordering::Relaxed);
        known <= at(now)
            && not_before
                .compare_exchange(known, at(now + PAUSE), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Proxy {
    /// Sees to it that tokens stay good and quotas known while there is traffic. Waits for nothing.
    pub(crate) fn look_after(&self, api: Api) {
        if !self.upkeep.is_due(api, Instant::now()) {
            return;
        }
        let now = Now::read();
        if self.upkeep.is_untidy(now) {
            let control = Arc::clone(&self.control);
            // On a thread that may wait for the disk, and nobody waits for it.
            self.control.tasks.spawn(async move {
                drop(tokio::task::spawn_blocking(move || control.store.tidy()).await);
            });
        }
        if self.control.state.has_news() {
            let (control, profiles) = (Arc::clone(&self.control), self.profiles.profiles());
            self.control.tasks.spawn(async move {
                control.state.reread().await;
                profiles.iter().for_each(|profile| profile.learn(&control.state));
            });
        }
        for profile in self.profiles.of(api).iter() {
            if profile.quota().is_held_back(now) {
                profile.quota().let_go(now);
            }
            refresh::renew_ahead(&self.control, profile, now);
            refresh::save_later(&self.control, profile, now);
            probe::consider(&self.control, profile, now);
        }
    }

    /// Has the files of parked profiles looked at, which may have got a new login. That is waited for only where
    /// nobody else can serve: when the owner is one of them, or everybody is left out.
    pub(super) async fn look_for_logins(&self, api: Api, owner: Option<&Owner>) {
        let View { standings, members, .. } = self.profiles.board(api).read();
        if !standings.iter().any(|standing| standing.is_parked) {
            return;
        }
        let parked = members.iter().zip(standings.iter()).filter(|(_, standing)| standing.is_parked);
        let parked: Vec<&Arc<Profile>> = parked.map(|(profile, _)| profile).collect();
        let now = Now::read().unix;
        // All begin before one is waited for.
        parked.iter().for_each(|profile| refresh::begin_look(&self.control, profile));
        let nobody_else = standings
            .iter()
            .all(|standing| standing.is_parked || standing.is_paused_at(now) || standing.is_out_of_scope);
        for profile in parked {
            if nobody_else || owner.is_some_and(|owner| owner.profile == profile.name) {
                refresh::look_again(&self.control, profile).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_tidied_once_an_hour_by_either_clock() {
        let (upkeep, now) = (Upkeep::default(), Now::read());
        assert!(upkeep.is_untidy(now), "what the last run has left");
        assert!(!upkeep.is_untidy(now));
        assert!(!upkeep.is_untidy(Now { unix: now.unix - 7200, ..now }), "a clock that was set back");
        let asleep = Now { unix: now.unix + 3600, ..now };
        assert!(upkeep.is_untidy(asleep) && !upkeep.is_untidy(asleep));
    }

    #[test]
    fn the_profiles_of_each_api_are_looked_after_once_a_second() {
        let upkeep = Upkeep::default();
        let after = |milliseconds| upkeep.begun + Duration::from_millis(milliseconds);
        assert!(upkeep.is_due(Api::Chatgpt, after(0)), "the first request");
        assert!(!upkeep.is_due(Api::Chatgpt, after(999)));
        assert!(upkeep.is_due(Api::OpenAi, after(999)), "another API");
        assert!(upkeep.is_due(Api::Chatgpt, after(1000)));
        assert!(!upkeep.is_due(Api::Chatgpt, after(1000)));
    }
}
