//! What outlives a run: which profile owns which conversation, and what is known of each profile.
//!
//! Requests read memory. What they change goes to a database in the home by one thread (`writer`), many
//! changes to a commit, and a [`Ticket`] tells when a change is durable: before that, no byte that carries
//! an id reaches a client. A database that cannot be written stops nothing: requests go on from memory, the
//! log says so, and it is tried again. Of an id, which may be as long as a body, only a digest is kept.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::run_event::RunEvent;

use crate::profile::{Now, health, quota};
use crate::telemetry::RunLog;

mod ballast;

mod change;

pub mod crash;

pub mod database;

mod inspect;

mod memory;

mod schema;

mod ticket;

mod writer;

use database::{Database, Row};
pub use database::{Durability, Recovery, StateError};
pub(crate) use inspect::inspect;
pub use memory::{Digest, digest};
use memory::{Known, Lacks, Memory, Owners};
pub use ticket::{Gate, Ticket};
use writer::Writer;

/// What ties a request to the profile that served an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tie {
    /// The response it continues.
    Response,
    /// An item of its input that only its account can read.
    Content,
    /// The turn state it carries.
    TurnState,
    /// The thread it belongs to: a conversation of its own.
    Thread,
    /// The session it belongs to: a thread and those of its sub-agents.
    Session,
}

impl Tie {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Response, Self::Content, Self::TurnState, Self::Thread, Self::Session];

    /// Its name in logs and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Response => "response_id",
            Self::Content => "encrypted_content",
            Self::TurnState => "turn_state",
            Self::Thread => "thread",
            Self::Session => "session",
        }
    }

    /// How many bindings of this kind are kept: those made or used last.
    #[must_use]
    pub const fn capacity(self) -> usize {
        match self {
            Self::Response | Self::TurnState => 16_384,
            // Every step of a turn may leave one.
            Self::Content => 32_768,
            Self::Thread => 4_096,
            Self::Session => 2_048,
        }
    }
}

/// Something that is known of a profile and outlives a run. One of each kind per profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fact {
    /// What is known of the account's quota.
    Quota,
    /// What is known of the account's health.
    Health,
}

impl Fact {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Quota, Self::Health];

    /// Its name in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Health => "health",
        }
    }

    /// What two processes know, each for itself. None if one of the texts cannot be read.
    fn merge(self, one: &str, other: &str) -> Option<String> {
        fn merge<T: Serialize + DeserializeOwned>(
            (one, other): (&str, &str),
            merge: impl FnOnce(T, T) -> T,
        ) -> Option<String> {
            let (one, other) = (serde_json::from_str(one).ok()?, serde_json::from_str(other).ok()?);
            serde_json::to_string(&merge(one, other)).ok()
        }
        match self {
            Self::Quota => merge((one, other), |one: quota::Record, other| one.merge(other, Now::read())),
            Self::Health => merge((one, other), |one: health::Record, other| one.merge(&other)),
        }
    }
}

/// A binding that comes from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// What kind of id it is about.
    pub tie: Tie,
    /// The id.
    pub id: String,
    /// The owner's name.
    pub profile: Arc<str>,
    /// When it was made or used, in seconds since the epoch.
    pub at: i64,
}

/// Adds bindings to the state in `directory`, but none that it has, and none that is too old. Says how many
/// were added. Proxies that run take them up.
///
/// # Errors
/// When the database cannot be opened or written.
pub fn import(directory: &Path, durability: Durability, bindings: Vec<Binding>) -> Result<usize, StateError> {
    let (mut database, _) = Database::open(directory, durability)?;
    let now = Now::unix();
    let fresh = bindings.into_iter().filter(|binding| binding.at > now - database::KEPT);
    let rows = fresh.map(|Binding { tie, id, profile, at }| {
        let id = memory::digest(&id);
        Row { tie, id, profile, at: at.min(now) }
    });
    database.import(&rows.collect::<Vec<_>>())
}

/// A binding that is used is written again after this time, so that age and number forget those that are
/// not: in seconds.
const REFRESH: i64 = 3600;

/// Profiles' facts as JSON.
type Facts = HashMap<(Fact, Arc<str>), Arc<str>>;

/// The state of a run, shared by its threads.
#[derive(Debug)]
pub struct State {
    memory: Arc<Memory>,
    facts: Mutex<Facts>,
    /// The way to the disk; none for a state that lives in memory alone.
    writer: Option<Writer>,
}

impl State {
    /// A state that ends with the process, for tests. Whatever is bound counts as durable.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { memory: Arc::default(), facts: Mutex::default(), writer: None }
    }

    /// Opens the state in `directory`, which is made if it is missing, and reads what is there. Says what
    /// was found behind a run that did not end by itself. Blocks on the disk: called before anything listens.
    ///
    /// # Errors
    /// When the database cannot be opened, is none, is damaged, or is a newer version's. It is left as it is.
    pub fn open(
        directory: &Path,
        durability: Durability,
        log: &Arc<RunLog>,
    ) -> Result<(Self, Recovery), StateError> {
        let (mut database, recovery) = Database::open(directory, durability)?;
        let (memory, facts) = (Arc::new(Memory::default()), database.facts()?);
        let seen = database.rows_after(0, |row| memory.learn(row))?;
        if recovery.frames > 0 {
            let Recovery { frames, bindings, pruned } = recovery;
            log.record(&RunEvent::StateRecovered { frames, bindings, pruned });
        }
        let writer = Writer::start(database, seen, Arc::clone(&memory), Arc::clone(log))?;
        Ok((Self { memory, facts: Mutex::new(facts), writer: Some(writer) }, recovery))
    }

    /// Reads the state in `directory`, on a disk that cannot be written. What is learnt from then on ends with
    /// the process.
    ///
    /// # Errors
    /// When the database is damaged, or is a newer version's.
    pub fn read_only(directory: &Path) -> Result<Self, StateError> {
        let memory = Arc::new(Memory::default());
        let facts = database::read_only(directory, |row| memory.learn(row))?;
        Ok(Self { memory, facts: Mutex::new(facts), writer: None })
    }

    /// Whether nothing of it outlives the process.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.writer.is_none()
    }

    /// The profile that owns what `id` names, as far as memory knows.
    #[must_use]
    pub fn owner(&self, tie: Tie, id: &str) -> Option<Arc<str>> {
        self.owner_of(tie, &digest(id))
    }

    /// The same for an id whose digest is known.
    #[must_use]
    pub fn owner_of(&self, tie: Tie, id: &Digest) -> Option<Arc<str>> {
        self.memory.get(tie, id).map(|known| known.profile)
    }

    /// Brings into memory what other processes know about these ids, so that [`State::owner`] knows it.
    /// Ids that are in memory cost nothing but a look.
    pub async fn recall(&self, ids: impl IntoIterator<Item = (Tie, Digest)>) {
        let Some(writer) = &self.writer else { return };
        let mut lacks = Lacks::Nothing;
        let mut missing = Vec::new();
        for (tie, id) in ids {
            let found = self.memory.lacks(tie, &id);
            if found != Lacks::Nothing {
                missing.push((tie, id));
            }
            lacks = lacks.max(found);
        }
        writer.look();
        let is_known = lacks == Lacks::Nothing || (lacks == Lacks::News && writer.is_up_to_date());
        if !is_known {
            writer.find(missing).await;
        }
    }

    /// Makes `profile` the owner of what `id` names. The ticket tells when that is durable.
    pub fn bind(&self, tie: Tie, id: &str, profile: &Arc<str>) -> Ticket {
        self.bind_of(tie, digest(id), profile)
    }

    /// The same for an id whose digest is known.
    pub fn bind_of(&self, tie: Tie, id: Digest, profile: &Arc<str>) -> Ticket {
        self.bind_locked(&mut self.memory.owners(tie), tie, id, profile)
    }

    /// The same, unless another profile than `before` owns it: of those that begin a conversation at the same
    /// time one decides whose it is.
    pub fn claim(
        &self,
        tie: Tie,
        id: Digest,
        profile: &Arc<str>,
        before: Option<&Arc<str>>,
    ) -> Option<Ticket> {
        let mut owners = self.memory.owners(tie);
        let owner = owners.get(&id).map(|known| known.profile);
        let is_free = owner.is_none_or(|owner| owner == *profile || Some(&owner) == before);
        is_free.then(|| self.bind_locked(&mut owners, tie, id, profile))
    }

    fn bind_locked(&self, owners: &mut Owners, tie: Tie, id: Digest, profile: &Arc<str>) -> Ticket {
        let at = Now::unix();
        let known = owners.get(&id).filter(|known| known.profile == *profile);
        // Most of what is bound is bound already, and then nothing changes.
        if let Some(known) = &known
            && at.saturating_sub(known.at) < REFRESH
        {
            return known.ticket;
        }
        let Some(writer) = &self.writer else {
            owners.insert(id, Known { profile: Arc::clone(profile), at, ticket: Ticket::DURABLE });
            return Ticket::DURABLE;
        };
        // Under the lock of the map: rows are written in the order in which memory changed.
        let queued = writer.queue(Row { tie, id, profile: Arc::clone(profile), at });
        // What is only written again is durable already.
        let ticket = known.map_or(queued, |known| known.ticket);
        owners.insert(id, Known { profile: Arc::clone(profile), at, ticket });
        ticket
    }

    /// What to wait for until the change of this ticket is durable; nothing if it is.
    #[must_use]
    pub fn gate(&self, ticket: Ticket) -> Option<Gate> {
        self.writer.as_ref()?.gate(ticket)
    }

    /// Keeps what is known of a profile, beside what other processes know of it. It is written soon, with the
    /// next bindings, and nobody waits for it.
    /// What is as it was costs no write.
    pub fn put(&self, fact: Fact, profile: &Arc<str>, value: &impl Serialize) {
        // A value that is no JSON is a mistake of the program, which the caller's tests find.
        let Ok(text) = serde_json::to_string(value) else { return };
        let text: Arc<str> = text.into();
        let key = (fact, Arc::clone(profile));
        let mut facts = lock(&self.facts);
        if facts.get(&key) == Some(&text) {
            return;
        }
        facts.insert(key.clone(), Arc::clone(&text));
        if let Some(writer) = &self.writer {
            writer.queue_fact(key, text);
        }
    }

    /// Whether other processes may have put something since this was asked last: then [`State::reread`] is worth it.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::has_news)
    }

    /// Adds what other processes have put to what [`State::get`] knows.
    pub async fn reread(&self) {
        let Some(writer) = &self.writer else { return };
        let read = writer.read_facts().await;
        let mut facts = lock(&self.facts);
        for ((fact, profile), theirs) in read {
            let key = (fact, profile);
            let merged = facts.get(&key).and_then(|ours| fact.merge(ours, &theirs));
            facts.insert(key, merged.map_or(theirs, Arc::from));
        }
    }

    /// What was known of a profile when this run began, or was put or reread since. None as well if it was written in
    /// a form that `T` does not read.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, fact: Fact, profile: &Arc<str>) -> Option<T> {
        let text = lock(&self.facts).get(&(fact, Arc::clone(profile))).cloned()?;
        serde_json::from_str(&text).ok()
    }

    /// How much waits to be written.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.writer.as_ref().map_or(0, Writer::backlog)
    }

    /// Writes what is waiting and closes the database. From then on nothing is durable, and nobody waits.
    pub fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.close();
        }
    }
}

/// A panic while one of our maps or queues was changed leaves it usable: each change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
