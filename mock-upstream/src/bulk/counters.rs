//! Counters of a bulk mock, together and per account.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

/// The counters of a running bulk mock.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) open_connections: AtomicU64,
    pub(super) websockets: AtomicU64,
    pub(super) open_turns: AtomicU64,
    pub(super) peak_turns: AtomicU64,
    pub(super) side_requests: AtomicU64,
    pub(super) bad_requests: AtomicU64,
    /// Every account that has asked, by its name.
    accounts: Mutex<BTreeMap<Arc<str>, Arc<Account>>>,
}

/// The counters of an account.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) unary: AtomicU64,
    pub(super) streams: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) client_gone: AtomicU64,
    pub(super) misplaced: AtomicU64,
}

/// The counters of a bulk mock at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BulkCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// WebSockets opened.
    pub websockets: u64,
    /// Model calls being answered now.
    pub open_turns: u64,
    /// Most that were at once.
    pub peak_turns: u64,
    /// Requests that are no model calls.
    pub side_requests: u64,
    /// Bytes that were no request, and model calls that say not what they ask for.
    pub bad_requests: u64,
    /// Processor time of the mock's process so far, in seconds; user and kernel.
    pub cpu_seconds: f64,
    /// All model calls.
    pub all: AccountCounts,
    /// The model calls of each account.
    pub accounts: BTreeMap<Arc<str>, AccountCounts>,
}

/// What was done for an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCounts {
    /// Unary model calls.
    pub unary: u64,
    /// Turns over SSE.
    pub streams: u64,
    /// Turns on WebSockets.
    pub messages: u64,
    /// Those of the turns on either that were compactions; unary ones are not among them.
    pub compactions: u64,
    /// Events sent, on either.
    pub events: u64,
    /// Bytes sent, framing included.
    pub bytes_sent: u64,
    /// Replies with a fault that was asked for.
    pub faults: u64,
    /// Replies that the client left before their end.
    pub client_gone: u64,
    /// Model calls that refer to what another account was given: they are refused.
    pub misplaced: u64,
}

impl Counters {
    /// The counters of the account with this name.
    pub(super) fn account(&self, name: &Arc<str>) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        // A client can name any account when none are declared.
        let name = if accounts.len() < MOST_ACCOUNTS || accounts.contains_key(name) {
            Arc::clone(name)
        } else {
            "others".into()
        };
        Arc::clone(accounts.entry(name).or_default())
    }

    pub(super) fn counts(&self) -> BulkCounts {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let accounts: BTreeMap<_, _> =
            accounts.iter().map(|(name, account)| (Arc::clone(name), account.counts())).collect();
        let mut all = AccountCounts::default();
        accounts.values().for_each(|account| all.add(account));
        BulkCounts {
            connections: load(&self.connections),
            open_connections: load(&self.open_connections),
            websockets: load(&self.websockets),
            open_turns: load(&self.open_turns),
            peak_turns: load(&self.peak_turns),
            side_requests: load(&self.side_requests),
            bad_requests: load(&self.bad_requests),
            cpu_seconds: cpu_seconds(),
            all,
            accounts,
        }
    }
}

/// Most accounts that are counted each by itself.
const MOST_ACCOUNTS: usize = 4096;

impl Account {
    fn counts(&self) -> AccountCounts {
        AccountCounts {
            unary: load(&self.unary),
            streams: load(&self.streams),
            messages: load(&self.messages),
            compactions: load(&self.compactions),
            events: load(&self.events),
            bytes_sent: load(&self.bytes_sent),
            faults: load(&self.faults),
            client_gone: load(&self.client_gone),
            misplaced: load(&self.misplaced),
        }
    }
}

impl AccountCounts {
    fn add(&mut self, other: &Self) {
        self.unary += other.unary;
        self.streams += other.streams;
        self.messages += other.messages;
        self.compactions += other.compactions;
        self.events += other.events;
        self.bytes_sent += other.bytes_sent;
        self.faults += other.faults;
        self.client_gone += other.client_gone;
        self.misplaced += other.misplaced;
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn cpu_seconds() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0.0 };
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}
