//! What a run log says of one request: the choices that were made for it, and what else happened.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;
use wire::run_event::{Basis, CircuitOf, RawLine, SnapshotFields, Standing};

use crate::selection::{Choice, Limits, NoChoice, Owner, Snapshot, Wanted, choose};
use crate::state::Tie;

/// How many snapshots of an API are remembered while a log is read. A choice is logged right behind its own.
const REMEMBERED: usize = 256;

/// Why a log does not tell.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HistoryError {
    /// It has no choice at all.
    #[error(
        "the log tells of no request for which a profile was chosen ({0} lines that can be read); `prodex run` makes requests, and --log \
         names another log"
    )]
    Nothing(usize),
    /// It has none for this request.
    #[error(
        "the log does not tell of request {number}; it has requests {first} to {last}; `prodex why last` tells \
         of the last"
    )]
    NotFound {
        /// The request.
        number: u64,
        /// The first that it has.
        first: u64,
        /// The last.
        last: u64,
    },
    /// What the choice was made from is not there.
    #[error(
        "request {number} was decided on snapshot {snapshot}, which the log does not have: it is truncated, or \
         lines of it were lost; `prodex why last` tells of the last request"
    )]
    NoSnapshot {
        /// The request.
        number: u64,
        /// The snapshot.
        snapshot: u64,
    },
    /// A line about the request is not of this version's form.
    #[error(
        "a line about request {number} cannot be read; it may be of another version: {problem}; read it with the \
         prodex that wrote it"
    )]
    Odd {
        /// The request.
        number: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// What a log says of one request.
#[derive(Debug)]
pub(super) struct History {
    /// Its number.
    pub(super) request: u64,
    /// The choices for it, in order; at least one.
    pub(super) decisions: Vec<Decision>,
    /// All events that are about it, in order.
    pub(super) events: Vec<RawLine>,
}

/// A choice that was made.
#[derive(Debug)]
pub(super) struct Decision {
    /// When, as in the log.
    pub(super) time: String,
    /// What the call is named in the log.
    pub(super) route: String,
    /// The number of the snapshot in the log.
    pub(super) number: u64,
    /// What was known.
    pub(super) snapshot: Snapshot,
    /// Who owned the conversation.
    pub(super) owner: Option<Owner>,
    /// Whether another could have served it.
    pub(super) may_move: bool,
    /// Who had refused already.
    pub(super) tried: Vec<Arc<str>>,
    /// The earliest reset among their refusals.
    pub(super) reset: Option<i64>,
    /// What was chosen, as logged.
    pub(super) logged: Outcome,
}

/// What was chosen: a profile or none, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The profile.
    pub(super) profile: Option<String>,
    /// The name of the reason.
    pub(super) reason: String,
}

impl From<Result<Choice, NoChoice>> for Outcome {
    fn from(result: Result<Choice, NoChoice>) -> Self {
        match result {
            Ok(Choice { profile, reason }) => {
                Self { profile: Some(profile.to_string()), reason: reason.name().to_owned() }
            }
            Err(none) => Self { profile: None, reason: none.name().to_owned() },
        }
    }
}

impl Decision {
    /// Makes the choice again, from what was known or from something else.
    pub(super) fn remake(&self, snapshot: &Snapshot) -> Outcome {
        let (owner, tried) = (self.owner.as_ref(), &*self.tried);
        choose(
            snapshot,
            &Wanted { route: self.circuit(), owner, may_move: self.may_move, tried, reset: self.reset },
        )
        .into()
    }

    /// Which circuit its call passes.
    pub(super) fn circuit(&self) -> CircuitOf {
        CircuitOf::route(&self.route)
    }

    fn read(line: &RawLine, request: u64, snapshots: &Snapshots) -> Result<Self, HistoryError> {
        let odd = |problem: String| HistoryError::Odd { number: request, problem };
        let basis: Basis<'static> = serde_json::from_value(Value::Object(line.fields.clone()))
            .map_err(|error| odd(error.to_string()))?;
        let text = |key: &str| line.fields.get(key).and_then(Value::as_str).map(str::to_owned);
        let missing = |key: &str| odd(format!("it has no `{key}`"));
        let profile = text("profile");
        let tie = |name: Option<&str>| {
            Tie::ALL.into_iter().find(|tie| Some(tie.name()) == name).ok_or_else(|| missing("tie"))
        };
        let (reason, owner) = if line.event == KEEP_AFFINITY {
            let affinity = text("affinity").ok_or_else(|| missing("affinity"))?;
            let profile = profile.as_deref().ok_or_else(|| missing("profile"))?.into();
            let owner = Owner { profile, tie: tie(Some(&affinity))? };
            (affinity, Some(owner))
        } else {
            let owner = match &basis.owner {
                Some(owner) => Some(Owner { profile: (&**owner).into(), tie: tie(basis.tie.as_deref())? }),
                None => None,
            };
            let reason = if line.event == KEEP_CURRENT { Some("current".to_owned()) } else { text("reason") };
            (reason.ok_or_else(|| missing("reason"))?, owner)
        };
        let known = snapshots.get(basis.snapshot);
        let known = known.ok_or(HistoryError::NoSnapshot { number: request, snapshot: basis.snapshot })?;
        let snapshot = Snapshot {
            at: basis.at,
            standings: Arc::new(known.standings.clone()),
            in_flight: basis.in_flight,
            current: known.current.clone(),
            here: basis.here.as_deref().map(Into::into),
            limits: basis.limits.map(|(soft, hard)| Limits { soft, hard }).unwrap_or_default(),
            unreachable: basis.unreachable.iter().map(|name| (&**name).into()).collect(),
        };
        Ok(Self {
            time: line.timestamp.clone(),
            route: text("route").ok_or_else(|| missing("route"))?,
            number: basis.snapshot,
            snapshot,
            owner,
            may_move: !basis.stays,
            tried: basis.tried.iter().map(|name| (&**name).into()).collect(),
            reset: basis.reset,
            logged: Outcome { profile, reason },
        })
    }
}

const KEEP_AFFINITY: &str = "selection_keep_affinity";
const KEEP_CURRENT: &str = "selection_keep_current";

/// Whether an event is a choice.
fn is_choice(event: &str) -> bool {
    matches!(event, KEEP_AFFINITY | KEEP_CURRENT | "selection_pick" | "selection_none")
}

fn request_of(line: &RawLine) -> Option<u64> {
    line.fields.get("request").and_then(Value::as_u64)
}

impl History {
    /// Reads what a log says of a request, or of the last one for which a profile was chosen. Lines that are
    /// no events are passed over: the last may be one that is still being written.
    pub(super) fn read(log: &[u8], wanted: Option<u64>) -> Result<Self, HistoryError> {
        let lines = || {
            let lines = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.filter_map(|line| serde_json::from_slice::<RawLine>(line).ok())
        };
        let choices = || lines().filter(|line| is_choice(&line.event)).filter_map(|line| request_of(&line));
        let (Some(first), Some(last)) = (choices().min(), choices().next_back()) else {
            return Err(HistoryError::Nothing(lines().count()));
        };
        let request = wanted.unwrap_or(last);
        let mut history = Self { request, decisions: Vec::new(), events: Vec::new() };
        let mut snapshots = Snapshots::default();
        for line in lines() {
            if line.event == "selection_snapshot" {
                // One that cannot be read is missed by the choice that was made from it.
                if let Ok(fields) = serde_json::from_value(Value::Object(line.fields)) {
                    snapshots.add(fields);
                }
            } else if request_of(&line) == Some(request) {
                if is_choice(&line.event) {
                    history.decisions.push(Decision::read(&line, request, &snapshots)?);
                }
                history.events.push(line);
            }
        }
        if history.decisions.is_empty() {
            let last = choices().max().unwrap_or(last);
            return Err(HistoryError::NotFound { number: request, first, last });
        }
        Ok(history)
    }
}

/// The latest snapshots of a log, by their numbers: those of each API for themselves, since what is known of one may
/// be as it is for as long as the other has news.
#[derive(Default)]
struct Snapshots(HashMap<String, BTreeMap<u64, Known>>);

/// A snapshot of a log, put together from what is different in each.
#[derive(Clone)]
struct Known {
    standings: Vec<Arc<Standing>>,
    current: Option<Arc<str>>,
}

impl Snapshots {
    fn add(&mut self, fields: SnapshotFields<'static>) {
        let of_api = self.0.entry(fields.api.into_owned()).or_default();
        let current = fields.current.as_deref().map(Into::into);
        let standings = match fields.base {
            None => fields.candidates,
            Some(base) => {
                let Some(base) = of_api.get(&base) else { return };
                let changed: HashMap<&str, &Arc<Standing>> =
                    fields.candidates.iter().map(|changed| (&*changed.name, changed)).collect();
                let standings = base.standings.iter();
                standings.map(|old| Arc::clone(changed.get(&*old.name).copied().unwrap_or(old))).collect()
            }
        };
        of_api.insert(fields.id, Known { standings, current });
        if of_api.len() > REMEMBERED {
            of_api.pop_first();
        }
    }

    fn get(&self, id: u64) -> Option<&Known> {
        self.0.values().find_map(|of_api| of_api.get(&id))
    }
}

#[cfg(test)]
mod tests;
