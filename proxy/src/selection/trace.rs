//! Which snapshots the run log has: each is written once, and then only what is different.
//!
//! What changes with every request, the time and the counts in flight, is told with the choice; so a
//! snapshot is the same for as long as nothing is learnt about a profile. Evidence that is stated anew within
//! a minute is nothing new.

use std::sync::{Arc, Mutex, PoisonError};

use wire::route::Api;
use wire::run_event::{Basis, RunEvent, SnapshotFields, Text};

use super::{Choice, NoChoice, Reason, Snapshot, Wanted};
use crate::profile::board::Standings;
use crate::telemetry::RunLog;

/// How much later the same evidence counts as new, in seconds.
const ANEW: i64 = 60;

/// How many snapshots in a row tell only differences: should a line of the log be lost, what follows can be
/// read again after so many.
const DIFFERENCES: u32 = 64;

/// The snapshots that were written last.
#[derive(Debug, Default)]
pub struct Trace(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    /// The number of the last snapshot of any API.
    id: u64,
    chatgpt: Option<Last>,
    openai: Option<Last>,
}

/// The last snapshot of one API.
#[derive(Debug)]
struct Last {
    id: u64,
    /// What was written of each profile.
    standings: Vec<Arc<wire::run_event::Standing>>,
    /// What was compared with that last, and is the same.
    same: Standings,
    current: Option<Arc<str>>,
    /// How many differences in a row were written.
    differences: u32,
    /// How many parts of the log were complete then. Each part has a whole snapshot soon, so that it can be
    /// read without those before it, which may be deleted.
    parts: u32,
}

impl Trace {
    /// Sees to it that the log has a snapshot. Says which number it has there.
    pub fn write(&self, log: &RunLog, api: Api, snapshot: &Snapshot) -> u64 {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Written { id, chatgpt, openai } = &mut *written;
        let (last, name) = match api {
            Api::Chatgpt => (chatgpt, "chatgpt"),
            Api::OpenAi => (openai, "openai"),
        };
        let all = &snapshot.standings;
        let current = &snapshot.current;
        let parts = log.parts();
        let last_part = last.as_ref().map(|last| last.parts);
        let candidates: Vec<_> = match last {
            Some(last) if last.parts != parts => Vec::new(),
            Some(last) if Arc::ptr_eq(&last.same, all) && last.current == *current => return last.id,
            Some(last) if last.standings.len() == all.len() => {
                let pairs = last.standings.iter().zip(all.iter());
                let changed =
                    pairs.filter(|(old, new)| !Arc::ptr_eq(old, new) && !old.is_same_within(new, ANEW));
                let changed: Vec<_> = changed.map(|(_, new)| Arc::clone(new)).collect();
                if changed.is_empty() && last.current == *current {
                    last.same = Arc::clone(all);
                    return last.id;
                }
                changed
            }
            _ => Vec::new(),
        };
        *id += 1;
        let base = last.as_ref().filter(|last| {
            last.standings.len() == all.len() && last.differences < DIFFERENCES && last_part == Some(parts)
        });
        let (base, differences) = base.map_or((None, 0), |base| (Some(base.id), base.differences + 1));
        let mut standings = match last.take() {
            Some(last) if base.is_some() => last.standings,
            _ => all.to_vec(),
        };
        for changed in &candidates {
            if let Some(old) = standings.iter_mut().find(|old| old.name == changed.name) {
                *old = Arc::clone(changed);
            }
        }
        // Under the lock, so that the snapshots are in the log in their order.
        log.record(&RunEvent::SelectionSnapshot(SnapshotFields {
            id: *id,
            base,
            api: name.into(),
            current: current.as_deref().map(Into::into),
            candidates: if base.is_some() { candidates } else { all.to_vec() },
        }));
        let (same, current) = (Arc::clone(all), current.clone());
        *last = Some(Last { id: *id, standings, same, current, differences, parts });
        *id
    }
}

/// What a choice was made from beside the snapshot with this number.
#[must_use]
pub fn basis<'a>(
    number: u64,
    snapshot: &'a Snapshot,
    wanted: &Wanted<'a>,
    result: &Result<Choice, NoChoice>,
) -> Basis<'a> {
    let reason = result.as_ref().ok().map(|choice| choice.reason);
    let is_owners = matches!(reason, Some(Reason::Affinity(_)));
    let owner = wanted.owner.filter(|_| !is_owners);
    // What nobody reaches matters to no choice.
    let is_reached = snapshot.candidates().any(|candidate| candidate.is_busy() || candidate.is_full());
    let limits = Some(snapshot.limits).filter(|_| is_reached);
    // Nobody's count matters to a choice that is not a comparison, unless somebody has reached a limit.
    let counts = limits.is_some() || !(is_owners || reason == Some(Reason::Current));
    let end = snapshot.in_flight.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
    Basis {
        snapshot: number,
        at: snapshot.at,
        here: snapshot.here.as_deref().map(Into::into),
        owner: owner.map(|owner| Text::from(&*owner.profile)),
        tie: owner.map(|owner| owner.tie.name().into()),
        stays: wanted.owner.is_some() && !wanted.may_move,
        tried: wanted.tried.iter().map(|name| Text::from(&**name)).collect(),
        reset: wanted.reset,
        in_flight: if counts { snapshot.in_flight[..end].to_vec() } else { Vec::new() },
        limits: limits.map(|limits| (limits.soft, limits.hard)),
        unreachable: snapshot.unreachable.iter().map(|name| Text::from(&**name)).collect(),
    }
}
