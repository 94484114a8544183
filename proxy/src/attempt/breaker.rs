//! Whether upstreams can be reached: one breaker per host and port, for all profiles that use it.
//!
//! One refused connection means nothing. After several within seconds nobody tries for a moment, and then
//! one request does; the others wait for how it fares, and with a first success all go on. No account is to
//! blame, and none is left out.
//!
//! Waiting is the kindest answer there is: Codex puts no limit on the wait for a response's head, but
//! repeats a 503 up to 30 times in 24 s and then gives up the turn (measured with 0.149 and 0.169). So a turn
//! waits, for seconds at most, and its client's patience lasts through a longer outage.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::connection::Peer;

/// How many failures open a breaker, and within which time.
const FAILURES: usize = 3;
const WINDOW: Duration = Duration::from_secs(10);

/// How long nobody tries at first; it doubles with each probe that fails, up to the longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// How long behind its pause an upstream still counts as one that nobody reaches, if nobody tries: others are
/// chosen before it, and it is not to stay the last for ever.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Most upstreams that are remembered; each profile has one at a time.
const CAPACITY: usize = 1024;

/// How long a turn waits for an upstream that cannot be reached. Other calls do not wait: what Codex asks
/// beside a turn, it waits for.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// The breakers of all upstreams.
#[derive(Debug, Default)]
pub struct Hosts {
    /// Only those that failed last: an upstream that is reached is forgotten.
    failing: Mutex<HashMap<Peer, Host>>,
    /// How many there are, to be looked at without a lock.
    count: AtomicUsize,
}

/// An upstream that could not be reached lately.
#[derive(Debug, Default)]
struct Host {
    /// When, the last few times.
    failures: Vec<Instant>,
    /// From when on a probe may begin, and how long the pause before it was.
    open: Option<(Instant, Duration)>,
    is_probing: bool,
    /// Told when a probe ends.
    changed: Arc<Notify>,
}

impl Host {
    /// Whether connecting would most likely be in vain.
    fn is_open(&self, now: Instant) -> bool {
        self.open.is_some_and(|(until, _)| self.is_probing || now < until + REMEMBERED)
    }
}

/// The right to connect to an upstream once. Dropped without a word, it says nothing about the upstream.
#[derive(Debug)]
pub struct Pass {
    hosts: Arc<Hosts>,
    peer: Peer,
    is_probe: bool,
}

impl Hosts {
    /// Waits until connecting to an upstream makes sense.
    ///
    /// # Errors
    /// With the time until anybody tries again, when that is longer than `patience`.
    pub async fn enter(self: &Arc<Self>, peer: &Peer, patience: Duration) -> Result<Pass, Duration> {
        let pass = |is_probe| Pass { hosts: Arc::clone(self), peer: peer.clone(), is_probe };
        let deadline = Instant::now() + patience;
        loop {
            if self.count.load(Ordering::Acquire) == 0 {
                return Ok(pass(false));
            }
            let (changed, wake) = {
                let mut failing = self.failing();
                let Some(host) = failing.get_mut(peer) else { return Ok(pass(false)) };
                let now = Instant::now();
                match host.open {
                    None => return Ok(pass(false)),
                    Some((until, _)) if until <= now && !host.is_probing => {
                        host.is_probing = true;
                        return Ok(pass(true));
                    }
                    Some((until, _)) if until > deadline => return Err(until - now),
                    Some(_) if now >= deadline => return Err(PAUSE),
                    Some((until, _)) => {
                        let wake = if host.is_probing { deadline } else { until };
                        // Registered under the lock: a probe cannot end unheard before it is awaited.
                        (Arc::clone(&host.changed).notified_owned(), wake)
                    }
                }
            };
            // Whether told or by time: it is looked at anew.
            let _ = timeout_at(wake, changed).await;
        }
    }

    /// Whether any upstream could not be reached lately.
    #[must_use]
    pub fn is_any_failing(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Whether this upstream could not be reached a moment ago, several times.
    #[must_use]
    pub fn is_open(&self, peer: &Peer) -> bool {
        let now = Instant::now();
        self.failing().get(peer).is_some_and(|host| host.is_open(now))
    }

    /// The upstreams that could not be reached a moment ago, several times.
    #[must_use]
    pub fn unreachable(&self) -> Vec<String> {
        let (failing, now) = (self.failing(), Instant::now());
        let open = failing.iter().filter(|(_, host)| host.is_open(now));
        let mut open: Vec<_> = open.map(|(peer, _)| peer.to_string()).collect();
        open.sort_unstable();
        open
    }

    fn failing(&self) -> MutexGuard<'_, HashMap<Peer, Host>> {
        // Each change is small and whole, so a panic elsewhere cannot have left half of one.
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The upstream was reached.
    pub fn reached(mut self) {
        self.is_probe = false;
        if !self.hosts.is_any_failing() {
            return;
        }
        let mut failing = self.hosts.failing();
        if let Some(host) = failing.remove(&self.peer) {
            host.changed.notify_waiters();
        }
        self.hosts.count.store(failing.len(), Ordering::Release);
    }

    /// The upstream could not be reached. Says for how long nobody tries now, if this was once too often.
    pub fn failed(mut self) -> Option<Duration> {
        let (mut failing, now) = (self.hosts.failing(), Instant::now());
        if failing.len() >= CAPACITY && !failing.contains_key(&self.peer) {
            failing.retain(|_, host| host.is_open(now));
            if failing.len() >= CAPACITY {
                return None;
            }
        }
        let host = failing.entry(self.peer.clone()).or_default();
        let pause = match host.open {
            Some((_, pause)) if self.is_probe => Some((pause * 2).min(LONGEST_PAUSE)),
            // Begun before it opened: that says nothing new.
            Some(_) => None,
            None => {
                host.failures.retain(|failed| now.duration_since(*failed) < WINDOW);
                host.failures.push(now);
                (host.failures.len() >= FAILURES).then_some(PAUSE)
            }
        };
        if let Some(pause) = pause {
            host.open = Some((now + pause, pause));
        }
        if std::mem::take(&mut self.is_probe) {
            host.is_probing = false;
            host.changed.notify_waiters();
        }
        self.hosts.count.store(failing.len(), Ordering::Release);
        pause
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_probe
            && let Some(host) = self.hosts.failing().get_mut(&self.peer)
        {
            host.is_probing = false;
            host.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    fn peer() -> Peer {
        Peer::of(&Origin::parse("http://127.0.0.1:9").unwrap())
    }

    async fn pass(hosts: &Arc<Hosts>) -> Pass {
        hosts.enter(&peer(), Duration::ZERO).await.unwrap()
    }

    /// Hosts of which one has just become unreachable.
    async fn open() -> Arc<Hosts> {
        let hosts = Arc::new(Hosts::default());
        for expected in [None, None, Some(PAUSE)] {
            assert!(!hosts.is_open(&peer()));
            assert_eq!(pass(&hosts).await.failed(), expected);
        }
        assert!(hosts.is_open(&peer()));
        hosts
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_failures_open_it_briefly_and_a_success_closes_it() {
        let hosts = open().await;
        assert_eq!(hosts.enter(&peer(), Duration::ZERO).await.unwrap_err(), PAUSE, "who cannot wait is told");
        let began = Instant::now();
        let probe = hosts.enter(&peer(), PATIENCE).await.unwrap();
        assert_eq!(began.elapsed(), PAUSE);
        probe.reached();
        assert!(!hosts.is_any_failing());
        let passes = [pass(&hosts).await, pass(&hosts).await];
        assert!(passes.into_iter().all(|pass| pass.failed().is_none()), "it is all forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_grows_to_seconds_and_not_further() {
        let hosts = open().await;
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let probe = hosts.enter(&peer(), 2 * LONGEST_PAUSE).await.unwrap();
            pauses.push(probe.failed().unwrap().as_millis());
        }
        assert_eq!(pauses, [1000, 2000, 4000, 4000, 4000]);
        assert_eq!(hosts.enter(&peer(), PATIENCE).await.unwrap_err(), LONGEST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_tries_is_given_another_chance() {
        let hosts = open().await;
        tokio::time::advance(PAUSE + REMEMBERED - Duration::from_millis(1)).await;
        assert!(hosts.is_open(&peer()) && hosts.unreachable().len() == 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!hosts.is_open(&peer()) && hosts.unreachable().is_empty(), "it is as good as any");
        let probe = pass(&hosts).await;
        assert!(probe.is_probe && hosts.is_open(&peer()), "until one has tried");
        assert_eq!(probe.failed(), Some(2 * PAUSE), "and what came before is not forgotten");
        assert!(hosts.is_open(&peer()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_upstreams_is_bounded() {
        let hosts = Arc::new(Hosts::default());
        let host = |port: usize| Peer::of(&Origin::parse(&format!("http://127.0.0.1:{port}")).unwrap());
        for port in 1..=3 * CAPACITY {
            hosts.enter(&host(port), Duration::ZERO).await.unwrap().failed();
            assert!(hosts.failing().len() <= CAPACITY);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_far_apart_do_not_open_it() {
        let hosts = Arc::new(Hosts::default());
        for _ in 0..10 {
            assert_eq!(pass(&hosts).await.failed(), None);
            tokio::time::advance(WINDOW / 2).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_probes_and_the_others_wait_for_it() {
        let hosts = open().await;
        tokio::time::advance(PAUSE).await;
        let probe = pass(&hosts).await;
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let hosts = Arc::clone(&hosts);
                tokio::spawn(async move { hosts.enter(&peer(), PATIENCE).await.map(|pass| pass.is_probe) })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        probe.reached();
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), Ok(false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_leaves_its_place_to_the_next() {
        let hosts = open().await;
        tokio::time::advance(PAUSE).await;
        drop(pass(&hosts).await);
        assert!(pass(&hosts).await.is_probe);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_from_before_it_opened_says_nothing_new() {
        let hosts = Arc::new(Hosts::default());
        let late = pass(&hosts).await;
        for _ in 0..3 {
            pass(&hosts).await.failed();
        }
        assert_eq!(late.failed(), None);
        assert_eq!(hosts.enter(&peer(), Duration::ZERO).await.unwrap_err(), PAUSE);
    }
}
