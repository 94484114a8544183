//! What requests of our own need: an HTTP client, the store, the log, the owner of background tasks.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::breaker::Hosts;
use crate::config::{Config, Origin};
use crate::metrics::Metrics;
use crate::profile::store::Store;
use crate::state::State;
use crate::telemetry::RunLog;

mod flight;

pub use flight::Flight;

/// How many questions that no request waits for are asked at a time.
const BACKGROUND: usize = 2;

/// The control path.
#[derive(Debug)]
pub struct Control {
    /// The settings.
    pub config: Config,
    /// The profiles on disk.
    pub store: Store,
    /// What outlives a run.
    pub state: State,
    /// The run log.
    pub log: Arc<RunLog>,
    /// What the run counts.
    pub metrics: Arc<Metrics>,
    /// Trusts what upstream connections trust.
    pub tls: Arc<rustls::ClientConfig>,
    /// Tasks that go on when the request that began them is gone.
    pub tasks: Tasks,
    /// Which upstreams can be reached.
    pub hosts: Arc<Hosts>,
    /// A permit for each question that no request waits for: there are few, however many profiles.
    pub background: Semaphore,
    client: OnceLock<Result<reqwest::Client, String>>,
}

impl Control {
    /// The control path of a run; its tasks belong to `runtime`, which must be the one that ends last.
    #[must_use]
    pub fn new(
        config: Config,
        state: State,
        log: Arc<RunLog>,
        tls: Arc<rustls::ClientConfig>,
        runtime: Handle,
    ) -> Self {
        let (store, tasks) = (Store::new(&config.home), Tasks::new(runtime));
        let background = Semaphore::new(BACKGROUND);
        let (hosts, metrics, client) = (Arc::default(), Arc::default(), OnceLock::new());
        Self { config, store, state, log, metrics, tls, tasks, hosts, background, client }
    }

    /// The HTTP client, made when it is first needed. It follows no redirects and knows no proxies: a
    /// credential goes where the settings say and nowhere else.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client(&self) -> Result<&reqwest::Client, String> {
        let make = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured((*self.tls).clone())
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .timeout(self.config.control_timeout)
                // Calls are rare: an idle connection would have ended before the next one.
                .pool_max_idle_per_host(0)
                .build()
                .map_err(|error| error.to_string())
        };
        self.client.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// Where requests for an API go when nothing else is known.
    #[must_use]
    pub fn origin(&self, api: wire::route::Api) -> &Origin {
        match (&self.config.upstream, api) {
            (Some(upstream), _) => upstream,
            (None, wire::route::Api::Chatgpt) => &self.config.chatgpt_url,
            (None, wire::route::Api::OpenAi) => &self.config.openai_url,
        }
    }
}

/// Tasks that go on when the request that began them is gone, and when its thread's runtime is: a renewal
/// must see its answer even if the thread that needed it has nothing else to do any more.
#[derive(Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    ending: CancellationToken,
    runtime: Handle,
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { tracker: TaskTracker::new(), ending: CancellationToken::new(), runtime }
    }

    /// Runs a piece of work.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(work, &self.runtime);
    }

    /// Whether the proxy is about to exit and waits for what runs: nothing long should begin.
    #[must_use]
    pub fn are_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// Runs a piece of work that may be given up; `None` when the proxy exits before it is done.
    pub async fn unless_ending<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.ending.run_until_cancelled(work).await
    }

    /// Waits until all have ended, but no longer than `limit`.
    pub async fn end(&self, limit: Duration) {
        self.ending.cancel();
        self.tracker.close();
        // Whoever is not done by then has had the time that each of them may take.
        let _ = tokio::time::timeout(limit, self.tracker.wait()).await;
    }
}

/// An error with those it came from, on one line and without URLs' queries.
#[must_use]
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
