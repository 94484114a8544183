//! What was seen of one kind of trouble: how often, since when, of whom, and whether it is over.
//!
//! All of it is of bounded size, and does not depend on the order of lines that have the same time.

use std::collections::BTreeMap;

use super::line::{Entry, text};

/// The fields whose values are counted: their top value tells where the trouble is.
pub(crate) const FACETS: &[&str] = &[
    "affinity",
    "cause",
    "client",
    "code",
    "context",
    "continuation",
    "exit",
    "family",
    "five_hour_status",
    "lane",
    "leg",
    "origin",
    "outcome",
    "profile",
    "quota_band",
    "quota_source",
    "reason",
    "request_shape",
    "route",
    "source",
    "stage",
    "state",
    "status",
    "tool_surface",
    "transport",
    "warning",
    "weekly_status",
    "window",
];

/// The fields that are added up.
const SUMMED: &[&str] =
    &["aborted", "frames", "lines", "missing_managed_dirs", "orphan_managed_dirs", "rows"];

/// How many different values of a field are counted apart.
const VALUES: usize = 256;

/// How many conversations, requests or profiles are followed at a time.
const TRACKS: usize = 4096;

/// Longest line that is kept, and longest value that is counted or told apart.
pub(crate) const KEPT_LINE: usize = 16 * 1024;
const KEPT_VALUE: usize = 200;

/// The last of several lines; of those with the same time the greatest.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Latest {
    at: Option<i64>,
    line: Vec<u8>,
}

impl Latest {
    pub(crate) fn see(&mut self, at: i64, line: &[u8]) {
        let line = if line.len() <= KEPT_LINE { line } else { b"" };
        if (Some(at), line) > (self.at, &*self.line) {
            self.at = Some(at);
            self.line.clear();
            self.line.extend_from_slice(line);
        }
    }

    /// What it says, unless it was too long to keep.
    pub(crate) fn entry(&self) -> Option<Entry> {
        Entry::parse(&self.line).ok()
    }
}

/// How often each value occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    counts: BTreeMap<String, u64>,
    /// Occurrences of values beyond those that are counted apart.
    pub(crate) others: u64,
}

impl Tally {
    pub(crate) fn see(&mut self, value: &str) {
        if let Some(count) = self.counts.get_mut(value) {
            *count += 1;
        } else if self.counts.len() < VALUES {
            let value: String = value.chars().take(KEPT_VALUE).collect();
            *self.counts.entry(value).or_default() += 1;
        } else {
            self.others += 1;
        }
    }

    /// The most frequent value and how often it occurs; of several the first of the alphabet.
    pub(crate) fn top(&self) -> Option<(&str, u64)> {
        self.by_count().next()
    }

    /// How many different values were counted apart.
    pub(crate) fn values(&self) -> usize {
        self.counts.len()
    }

    fn by_count(&self) -> impl Iterator<Item = (&str, u64)> {
        let mut all: Vec<_> = self.counts.iter().map(|(value, count)| (&**value, *count)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all.into_iter()
    }
}

/// Counts the values of all facets that a line has.
pub(crate) fn count_facets(tallies: &mut BTreeMap<&'static str, Tally>, entry: &Entry) {
    for facet in FACETS {
        if let Some(value) = entry.fields.get(*facet) {
            match value.as_str() {
                Some(value) => tallies.entry(facet).or_default().see(value),
                None => text(value).into_iter().for_each(|text| tallies.entry(facet).or_default().see(&text)),
            }
        }
    }
}

/// One profile, request or whatever the trouble is told apart by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Track {
    began: Option<i64>,
    /// When it ends by itself, in milliseconds since the epoch, as the last line said.
    until: Option<i64>,
    ended: Option<i64>,
}

impl Track {
    fn is_open(&self, now: i64) -> bool {
        self.began > self.ended && self.until.is_none_or(|until| until > now)
    }
}

/// What was seen of one kind of trouble.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) count: u64,
    pub(crate) first: Option<i64>,
    pub(crate) last: Option<i64>,
    latest: Latest,
    tallies: BTreeMap<&'static str, Tally>,
    sums: BTreeMap<&'static str, i64>,
    tracks: BTreeMap<String, Track>,
    /// How many cases of runs that are over never ended.
    pub(crate) unended: u64,
}

impl Evidence {
    /// A line that tells of the trouble. `key` are the fields that tell cases apart, if there are such.
    pub(crate) fn see(&mut self, key: &[&str], entry: &Entry, line: &[u8]) {
        self.count += 1;
        self.first = Some(self.first.map_or(entry.at, |first| first.min(entry.at)));
        self.last = self.last.max(Some(entry.at));
        self.latest.see(entry.at, line);
        count_facets(&mut self.tallies, entry);
        for field in SUMMED {
            if let Some(number) = entry.number(field) {
                let sum = self.sums.entry(field).or_default();
                *sum = sum.saturating_add(number);
            }
        }
        let until = entry.number("until").or_else(|| entry.number("reset"));
        let until = until.map(|until| until.saturating_mul(1000));
        let track = self.track(key, entry);
        if track.began == Some(entry.at) {
            track.until = track.until.max(until);
        } else if track.began < Some(entry.at) {
            (track.began, track.until) = (Some(entry.at), until);
        }
    }

    /// A line that tells of its end.
    pub(crate) fn end(&mut self, key: &[&str], entry: &Entry) {
        let track = self.track(key, entry);
        track.ended = track.ended.max(Some(entry.at));
    }

    /// The end of a run, whose last line was at `newest`: cases that had not ended after `patience` never did, and
    /// younger ones the end took with it.
    pub(crate) fn settle(&mut self, newest: i64, patience: i64) {
        self.unended += self.open(newest).filter(|(_, began)| newest - began >= patience).count() as u64;
        self.tracks.clear();
    }

    fn track(&mut self, key: &[&str], entry: &Entry) -> &mut Track {
        if self.tracks.len() >= TRACKS {
            // Lines of the same time may still belong together.
            self.tracks.retain(|_, track| track.began > track.ended || track.ended >= Some(entry.at));
            if self.tracks.len() >= TRACKS {
                self.tracks.pop_first();
            }
        }
        let values = key.iter().filter_map(|field| entry.text(field));
        let values: Vec<String> = values.map(|value| value.chars().take(KEPT_VALUE).collect()).collect();
        self.tracks.entry(values.join(" ")).or_default()
    }

    /// The cases that have not ended, and when each began.
    pub(crate) fn open(&self, now: i64) -> impl Iterator<Item = (&str, i64)> {
        let open = self.tracks.iter().filter(move |(_, track)| track.is_open(now));
        open.filter_map(|(key, track)| Some((&**key, track.began?)))
    }

    /// Whether cases end by the time that they name.
    pub(crate) fn is_timed(&self) -> bool {
        self.tracks.values().any(|track| track.until.is_some())
    }

    /// So many times, in words.
    pub(crate) fn times(&self) -> String {
        match self.count {
            1 => "once".to_owned(),
            2 => "twice".to_owned(),
            count => format!("{count} times"),
        }
    }

    /// So many of something.
    pub(crate) fn many(&self, one: &str, several: &str) -> String {
        if self.count == 1 { format!("1 {one}") } else { format!("{} {several}", self.count) }
    }

    /// The sum of a field that is added up.
    pub(crate) fn sum(&self, field: &str) -> i64 {
        self.sums.get(field).copied().unwrap_or_default()
    }

    /// A field of the last line, or `?`.
    pub(crate) fn last(&self, field: &str) -> String {
        let last = self.latest.entry().and_then(|entry| entry.text(field));
        last.map_or_else(|| "?".to_owned(), |value| value.chars().take(KEPT_VALUE).collect())
    }

    /// A field of the last line as a number.
    pub(crate) fn last_number(&self, field: &str) -> Option<i64> {
        self.latest.entry()?.number(field)
    }

    /// The most frequent value of a facet, or `?`.
    pub(crate) fn top(&self, facet: &str) -> &str {
        self.tallies.get(facet).and_then(Tally::top).map_or("?", |(value, _)| value)
    }

    /// The most frequent value as the end of a clause: `, mostly x`, or nothing if none is known.
    pub(crate) fn mostly(&self, facet: &str) -> String {
        match self.top(facet) {
            "?" => String::new(),
            top => format!(", mostly {top}"),
        }
    }

    /// Those of whom no line told the end.
    pub(crate) fn still(&self) -> String {
        let still: Vec<&str> = self.open(i64::MIN).map(|(key, _)| key).collect();
        if still.is_empty() { "nobody any more".to_owned() } else { some_of(&still) }
    }

    /// The values of a facet, the most frequent first; or `?`.
    pub(crate) fn all(&self, facet: &str) -> String {
        let Some(tally) = self.tallies.get(facet) else { return "?".to_owned() };
        some_of(&tally.by_count().map(|(value, _)| value).collect::<Vec<_>>())
    }

    /// The fields of the last line.
    pub(crate) fn fields(&self) -> serde_json::Map<String, serde_json::Value> {
        self.latest.entry().map(|entry| entry.fields).unwrap_or_default()
    }
}

/// Names as a person lists them: `a, b, c and 3 more`; or `?`.
fn some_of(names: &[&str]) -> String {
    let more = format!("{} more", names.len().saturating_sub(3));
    let told = if names.len() > 4 { [&names[..3], &[&more]].concat() } else { names.to_vec() };
    match told.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(evidence: &mut Evidence, at: i64, profile: &str, until: Option<i64>) {
        let mut fields = serde_json::Map::new();
        fields.insert("profile".to_owned(), profile.into());
        if let Some(until) = until {
            fields.insert("until".to_owned(), until.into());
        }
        let entry = Entry { at, event: "a".to_owned(), fields };
        evidence.see(&["profile"], &entry, profile.as_bytes());
    }

    #[test]
    fn what_has_ended_or_run_out_is_not_open() {
        let mut evidence = Evidence::default();
        see(&mut evidence, 1_000, "a", None);
        see(&mut evidence, 2_000, "b", Some(5));
        let fields = [("profile".to_owned(), "a".into())].into_iter().collect();
        evidence.end(&["profile"], &Entry { at: 1_500, event: "b".to_owned(), fields });
        assert_eq!(evidence.open(4_000).collect::<Vec<_>>(), [("b", 2_000)]);
        assert_eq!(evidence.open(5_000).count(), 0);
        see(&mut evidence, 6_000, "a", None);
        assert_eq!(evidence.open(9_000).collect::<Vec<_>>(), [("a", 6_000)]);
    }

    #[test]
    fn any_number_of_names_takes_bounded_room() {
        let mut evidence = Evidence::default();
        for n in 0..10_000 {
            see(&mut evidence, n, &format!("p{n:05}"), None);
        }
        assert_eq!(evidence.tracks.len(), TRACKS);
        assert_eq!(evidence.all("profile"), "p00000, p00001, p00002 and 253 more");
        assert_eq!(evidence.still(), "p05904, p05905, p05906 and 4093 more");
        assert_eq!(evidence.tallies["profile"].others, 10_000 - VALUES as u64);
    }
}
