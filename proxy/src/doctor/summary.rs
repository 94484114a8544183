//! What run logs say, put together while they are read: counts, last fields, the latest request, evidence.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::evidence::{Evidence, KEPT_LINE, Latest, Tally, count_facets};
use super::finding::{Class, Finding};
use super::line::{Entry, Unread};
use super::log::{Found, Line, LogFile};
use super::rules::{End, RULES};

/// How many different events are told apart, how many places of odd lines are told, and how many lines of the
/// latest request.
const EVENTS: usize = 256;
const PLACES: usize = 10;
const TIMELINE: usize = 64;

/// The reason that counts as an event of its own, whatever the event is that gives it.
const FLOOR: &str = "quota_critical_floor_before_send";

/// The event with which a run ends.
const DRAINED: &str = "drain_finished";

/// The lines of one event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) count: u64,
    pub(crate) first: Option<i64>,
    pub(crate) last: Option<i64>,
    latest: Latest,
}

impl Told {
    fn see(&mut self, at: i64, line: &[u8]) {
        self.count += 1;
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = self.last.max(Some(at));
        self.latest.see(at, line);
    }

    /// The fields of the last line.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        self.latest.entry().map(|entry| entry.fields).unwrap_or_default()
    }
}

/// A line that tells nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) line: u64,
    pub(crate) why: Unread,
}

/// The latest request of a run, and what is told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Timeline {
    pub(crate) request: i64,
    lines: BTreeSet<(i64, Vec<u8>)>,
}

impl Timeline {
    /// Only the request with the greatest number is followed: they are numbered as they come.
    fn see(&mut self, request: i64, at: i64, line: &[u8]) {
        if request > self.request {
            *self = Self { request, lines: BTreeSet::new() };
        }
        if request == self.request && request > 0 && line.len() <= KEPT_LINE {
            self.lines.insert((at, line.to_vec()));
            if self.lines.len() > TIMELINE {
                self.lines.pop_last();
            }
        }
    }

    fn began(&self) -> Option<i64> {
        self.lines.first().map(|(at, _)| *at)
    }

    /// Its events in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.lines.iter().filter_map(|(_, line)| Entry::parse(line).ok())
    }
}

/// What a file of a log held.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) file: LogFile,
    pub(crate) lines: u64,
    /// The number of the last line that is not empty.
    pub(crate) end: Option<u64>,
    /// When its last event was.
    last: Option<i64>,
    /// Whether it says that the run has ended. What is written behind that is what was left to do.
    has_ended: bool,
    /// Why it was not read to its end.
    pub(crate) problem: Option<String>,
}

/// What run logs say.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) files: Vec<Read>,
    /// Lines that are not empty, whether they tell anything or not.
    pub(crate) lines: u64,
    pub(crate) skipped: u64,
    pub(crate) places: Vec<Place>,
    /// Lines before the time from which on they count.
    pub(crate) older: u64,
    pub(crate) first: Option<i64>,
    pub(crate) last: Option<i64>,
    pub(crate) events: BTreeMap<String, Told>,
    /// Lines of events beyond those that are told apart.
    pub(crate) other_events: u64,
    pub(crate) facets: BTreeMap<&'static str, Tally>,
    pub(crate) classes: BTreeMap<Class, u64>,
    pub(crate) latest: Timeline,
    evidence: Vec<Evidence>,
}

impl Summary {
    /// Reads logs. Lines before `since` do not count.
    pub(crate) fn read(found: &Found, since: Option<i64>) -> Self {
        let mut summary =
            Self { evidence: RULES.iter().map(|_| Evidence::default()).collect(), ..Self::default() };
        let index = Index::new();
        for run in found.files.chunk_by(|one, next| one.run == next.run) {
            // Requests are numbered anew in each run.
            let (mut timeline, mut newest) = (Timeline::default(), None);
            for file in run {
                let read = summary.read_file(&index, since, file, &mut timeline);
                newest = newest.max(read.last);
                summary.files.push(read);
            }
            if let Some(newest) = newest {
                summary.settle(newest);
            }
            if timeline.began() >= summary.latest.began() {
                summary.latest = timeline;
            }
        }
        summary
    }

    fn read_file(
        &mut self,
        index: &Index,
        since: Option<i64>,
        file: &LogFile,
        timeline: &mut Timeline,
    ) -> Read {
        let mut read =
            Read { file: file.clone(), lines: 0, end: None, last: None, has_ended: false, problem: None };
        let result = file.lines().and_then(|mut lines| {
            while let Some(line) = lines.next()? {
                self.see(index, since, &mut read, timeline, line);
            }
            Ok(())
        });
        read.problem = result.err().map(|error| error.to_string());
        read
    }

    /// The end of a run.
    fn settle(&mut self, newest: i64) {
        for (rule, evidence) in RULES.iter().zip(&mut self.evidence) {
            if let End::Gone(_, patience) = rule.end {
                evidence.settle(newest, patience);
            }
        }
    }

    /// Counts a line.
    fn see(
        &mut self,
        index: &Index,
        since: Option<i64>,
        read: &mut Read,
        timeline: &mut Timeline,
        line: Line<'_>,
    ) {
        let Line { number, bytes: line, entry } = line;
        read.lines += 1;
        read.end = Some(number);
        self.lines += 1;
        let entry = match entry {
            Ok(entry) => entry,
            Err(why) => {
                self.skipped += 1;
                if self.places.len() < PLACES {
                    self.places.push(Place { path: read.file.path.clone(), line: number, why });
                }
                return;
            }
        };
        read.has_ended |= entry.event == DRAINED;
        if since.is_some_and(|since| entry.at < since) {
            self.older += 1;
            return;
        }
        self.first = Some(self.first.map_or(entry.at, |first| first.min(entry.at)));
        self.last = self.last.max(Some(entry.at));
        read.last = read.last.max(Some(entry.at));
        self.count(&entry.event, entry.at, line);
        if entry.event != FLOOR && entry.is("reason", FLOOR) {
            self.count(FLOOR, entry.at, line);
        }
        count_facets(&mut self.facets, &entry);
        if let Some(request) = entry.number("request") {
            timeline.see(request, entry.at, line);
        }
        self.judge(index, &entry, line);
    }

    fn count(&mut self, event: &str, at: i64, line: &[u8]) {
        if let Some(told) = self.events.get_mut(event) {
            told.see(at, line);
        } else if self.events.len() < EVENTS {
            self.events.entry(event.to_owned()).or_default().see(at, line);
        } else {
            self.other_events += 1;
        }
    }

    /// Holds a line against the rules.
    fn judge(&mut self, index: &Index, entry: &Entry, line: &[u8]) {
        let mut classes: [Option<Class>; 4] = [None; 4];
        for &at in index.of(&entry.event) {
            let (rule, evidence) = (&RULES[at], &mut self.evidence[at]);
            if rule.when.iter().any(|when| when.holds(entry)) {
                evidence.see(rule.key, entry, line);
                // A line counts once in a class, whichever rules of it apply; what may be good counts later.
                if !matches!(rule.end, End::Gone(..))
                    && !classes.contains(&Some(rule.class))
                    && let Some(free) = classes.iter_mut().find(|class| class.is_none())
                {
                    *free = Some(rule.class);
                    *self.classes.entry(rule.class).or_default() += 1;
                }
            } else if rule.end.lines().iter().any(|when| when.holds(entry)) {
                evidence.end(rule.key, entry);
            }
        }
    }

    /// What the rules find.
    pub(crate) fn findings(&self, now: i64) -> Vec<Finding> {
        let found = RULES.iter().zip(&self.evidence).filter_map(|(rule, seen)| {
            let (first, last) = (seen.first?, seen.last?);
            let mut count = seen.count;
            let is_over = match rule.end {
                End::Gone(..) if seen.unended == 0 => return None,
                End::Gone(..) => {
                    count = seen.unended;
                    false
                }
                End::Over(_) => seen.open(now).next().is_none(),
                End::Never => seen.is_timed() && seen.open(now).next().is_none(),
            };
            Some(Finding {
                name: rule.name,
                class: rule.class,
                severity: rule.severity,
                title: rule.title,
                sentence: (rule.says)(seen),
                next: rule.command(seen),
                count: Some(count),
                span: Some((first, last)),
                is_over,
                ends_with_cause: matches!(rule.end, End::Never) && !seen.is_timed(),
                because_of: rule.because_of,
                fields: seen.fields(),
            })
        });
        found.collect()
    }

    /// The last value of a field of the last line of an event.
    pub(crate) fn last_number(&self, event: &str, field: &str) -> Option<i64> {
        self.events.get(event)?.latest.entry()?.number(field)
    }

    /// How often an event occurs.
    pub(crate) fn count_of(&self, event: &str) -> u64 {
        self.events.get(event).map_or(0, |told| told.count)
    }

    /// Runs that said nothing of their end, and whose process is gone: the last file, and its last event.
    pub(crate) fn crashed(&self, is_alive: &dyn Fn(u32) -> bool) -> Vec<(&Path, i64)> {
        let runs = self.files.chunk_by(|one, next| one.file.run == next.file.run);
        let crashed = runs.filter_map(|run| {
            let last = run.last()?;
            let is_gone = last.file.pid.is_some_and(|pid| !is_alive(pid));
            let has_ended = run.iter().any(|read| read.has_ended);
            let at = run.iter().filter_map(|read| read.last).max()?;
            (is_gone && !has_ended).then_some((&*last.file.path, at))
        });
        crashed.collect()
    }
}

/// Which rules an event is about.
struct Index(HashMap<&'static str, Vec<usize>>);

impl Index {
    fn new() -> Self {
        let mut index: HashMap<&'static str, Vec<usize>> = HashMap::new();
        for (at, rule) in RULES.iter().enumerate() {
            for when in rule.when.iter().chain(rule.end.lines()) {
                let of = index.entry(when.event).or_default();
                if of.last() != Some(&at) {
                    of.push(at);
                }
            }
        }
        Self(index)
    }

    fn of(&self, event: &str) -> &[usize] {
        self.0.get(event).map_or(&[], |rules| rules)
    }
}
