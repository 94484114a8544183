//! The manifest `manifest/tests.toml`, read so that everything wrong in it is said at once, with its line.
//!
//! What can be seen in the file alone is found here; what needs the list of tests is found in `coverage`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::Date;
use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::Deserialize;
use toml::Spanned;

use crate::case::{Case, Quarantine, Tag};
use crate::shard::Label;

mod fix;

pub use fix::{Unowned, with_cases};

/// Where the manifest stands below the root of a workspace.
pub const PATH: &str = "manifest/tests.toml";

/// Every test of a workspace, by how it may be run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// The cases, in the order of the file.
    pub cases: Vec<Case>,
    /// The parts that CI runs the parallel-safe tests in, in the order of the file.
    pub shards: Vec<Label>,
}

/// One thing that is wrong with a manifest or with what it says about the tests.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("{problem}")]
pub struct Mistake {
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    #[help]
    pub right: String,
    /// The file, if the mistake is in one.
    #[source_code]
    source_code: Option<NamedSource<Arc<str>>>,
    #[label("here")]
    at: Option<SourceSpan>,
}

/// Why there is no manifest to work with.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It has mistakes.
    #[error("{count} in {path}", count = count(mistakes.len()))]
    Mistakes {
        /// The file.
        path: String,
        /// All of them.
        #[related]
        mistakes: Vec<Mistake>,
    },
}

impl Manifest {
    /// Reads the manifest of the workspace at `root`.
    ///
    /// # Errors
    /// When it cannot be read, or has mistakes.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(root.join(PATH))
            .map_err(|source| Error::Read { path: PATH.to_owned(), source })?;
        let (manifest, mistakes) = Self::read(&Text::new(PATH, &text));
        if mistakes.is_empty() {
            return Ok(manifest);
        }
        Err(Error::Mistakes { path: PATH.to_owned(), mistakes })
    }

    /// Reads as much as makes sense, and says what does not.
    #[must_use]
    pub fn read(text: &Text) -> (Self, Vec<Mistake>) {
        match toml::from_str::<Raw>(&text.content) {
            Ok(raw) => Reader { text, mistakes: Vec::new() }.manifest(raw),
            Err(error) => {
                let right = "TOML with the tables and keys that CONTRIBUTING.md describes".to_owned();
                (Self::default(), vec![text.mistake(error.message().to_owned(), right, error.span())])
            }
        }
    }
}

/// A file that mistakes point into.
#[derive(Debug, Clone)]
pub struct Text {
    name: String,
    content: Arc<str>,
}

impl Text {
    /// A file of this name with this content.
    #[must_use]
    pub fn new(name: &str, content: &str) -> Self {
        Self { name: name.to_owned(), content: content.into() }
    }

    /// A mistake at a place of the file.
    #[must_use]
    pub fn mistake(&self, problem: String, right: String, at: Option<Range<usize>>) -> Mistake {
        let source = NamedSource::new(&self.name, Arc::clone(&self.content));
        Mistake { problem, right, source_code: Some(source), at: at.map(SourceSpan::from) }
    }

    /// A mistake in a line of the file, counted from 1.
    #[must_use]
    pub fn mistake_in(&self, line: usize, problem: String, right: String) -> Mistake {
        let start = self.content.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let rest = self.content.get(start..).unwrap_or_default();
        let end = start + rest.lines().next().unwrap_or_default().len();
        self.mistake(problem, right, Some(start..end))
    }

    fn line(&self, offset: usize) -> usize {
        self.content.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
    }
}

impl Mistake {
    /// A mistake that has no place in a file.
    #[must_use]
    pub fn new(problem: String, right: String) -> Self {
        Self { problem, right, source_code: None, at: None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    case: Vec<Spanned<RawCase>>,
    #[serde(default)]
    shard: Vec<Spanned<RawLabel>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    id: Spanned<String>,
    filter: Spanned<String>,
    tags: Spanned<Vec<Spanned<String>>>,
    reason: Option<Spanned<String>>,
    weight: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    quarantine: Option<Spanned<RawQuarantine>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawQuarantine {
    owner: Spanned<String>,
    issue: Spanned<String>,
    since: Spanned<String>,
    expires: Spanned<String>,
    fails_with: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLabel {
    label: Spanned<String>,
    filter: Spanned<String>,
}

/// Turns what the file says into cases, and keeps what is wrong on the way.
struct Reader<'a> {
    text: &'a Text,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn manifest(mut self, raw: Raw) -> (Manifest, Vec<Mistake>) {
        let ids = raw.case.iter().map(|case| &case.as_ref().id);
        self.unique("case", ids);
        let filters = raw.case.iter().map(|case| &case.as_ref().filter);
        self.unique("case with the filter", filters);
        let labels = raw.shard.iter().map(|shard| &shard.as_ref().label);
        self.unique("shard", labels);
        let cases = raw.case.into_iter().map(|case| self.case(case)).collect();
        let shards = raw.shard.into_iter().map(|shard| self.label(shard)).collect();
        (Manifest { cases, shards }, self.mistakes)
    }

    fn case(&mut self, raw: Spanned<RawCase>) -> Case {
        let line = self.text.line(raw.span().start);
        let raw = raw.into_inner();
        self.filled(&raw.id, "an id");
        self.filled(&raw.filter, "a filter");
        let tags = self.tags(&raw.tags);
        let case = Case {
            id: raw.id.into_inner(),
            filter: raw.filter.into_inner(),
            reason: raw.reason.map(|reason| self.filled(&reason, "a reason")),
            weight: raw.weight.and_then(|weight| self.duration(&weight)),
            timeout: raw.timeout.and_then(|timeout| self.duration(&timeout)),
            quarantine: raw.quarantine.and_then(|quarantine| self.quarantine(&quarantine)),
            tags,
            line,
        };
        self.agreement(&case, raw.tags.span());
        case
    }

    fn tags(&mut self, raw: &Spanned<Vec<Spanned<String>>>) -> BTreeSet<Tag> {
        let mut tags = BTreeSet::new();
        for name in raw.as_ref() {
            let Some(tag) = Tag::parse(name.as_ref()) else {
                let known: Vec<_> = Tag::ALL.into_iter().map(Tag::name).collect();
                self.wrong(format!("no tag `{}`", name.as_ref()), known.join(", "), name.span());
                continue;
            };
            if !tags.insert(tag) {
                let problem = format!("the tag `{}` stands here twice", tag.name());
                self.wrong(problem, "each tag once".to_owned(), name.span());
            }
        }
        tags
    }

    /// What tags, reason and quarantine say together.
    fn agreement(&mut self, case: &Case, at: Range<usize>) {
        let lanes: Vec<_> = case.tags.iter().filter(|tag| tag.is_lane()).map(|tag| tag.name()).collect();
        let id = &case.id;
        if lanes.len() != 1 {
            let problem = match lanes.as_slice() {
                [] => format!("case `{id}` is in no lane"),
                lanes => format!("case `{id}` contradicts itself: {}", lanes.join(" and ")),
            };
            let right = "exactly one of parallel-safe, serial, env, stress, quarantine".to_owned();
            self.wrong(problem, right, at.clone());
        }
        let is = |tag| case.tags.contains(&tag);
        if is(Tag::Smoke) && (is(Tag::Stress) || is(Tag::Quarantine)) {
            let right = "a smoke test is quick and decides; stress and quarantine are neither".to_owned();
            self.wrong(format!("case `{id}` contradicts itself: smoke in its lane"), right, at.clone());
        }
        if !is(Tag::ParallelSafe) && case.reason.is_none() {
            let problem = format!("case `{id}` does not say why it is not parallel-safe");
            self.wrong(problem, "`reason = \"…\"`".to_owned(), at.clone());
        }
        if is(Tag::Quarantine) != case.quarantine.is_some() {
            let (problem, right) = match &case.quarantine {
                Some(_) => ("has a quarantine and not the tag", "the tag `quarantine`, or no table"),
                None => (
                    "is in quarantine without saying why",
                    "`quarantine = { owner, issue, since, expires, fails-with }`",
                ),
            };
            self.wrong(format!("case `{id}` {problem}"), right.to_owned(), at);
        }
    }

    fn quarantine(&mut self, raw: &Spanned<RawQuarantine>) -> Option<Quarantine> {
        let at = raw.span();
        let raw = raw.as_ref();
        let owner = self.filled(&raw.owner, "an owner");
        let issue = self.filled(&raw.issue, "an issue");
        let fails_with = self.filled(&raw.fails_with, "an expected failure");
        let (since, expires) = (self.date(&raw.since), self.date(&raw.expires));
        let (since, expires) = (since?, expires?);
        if expires < since {
            self.wrong("the quarantine ends before it begins".to_owned(), "since <= expires".to_owned(), at);
        }
        Some(Quarantine { owner, issue, since, expires, fails_with })
    }

    fn label(&mut self, raw: Spanned<RawLabel>) -> Label {
        let line = self.text.line(raw.span().start);
        let raw = raw.into_inner();
        let (name, filter) = (self.filled(&raw.label, "a label"), self.filled(&raw.filter, "a filter"));
        Label { name, filter, line }
    }

    /// A duration such as `90s`, `500ms` or `2m`, longer than nothing.
    fn duration(&mut self, raw: &Spanned<String>) -> Option<Duration> {
        let parsed = raw.as_ref().parse::<SignedDuration>().ok();
        let duration = parsed.and_then(|parsed| Duration::try_from(parsed).ok()).filter(|it| !it.is_zero());
        if duration.is_none() {
            let right = "a time with its unit: `90s`, `500ms`, `2m`".to_owned();
            self.wrong(format!("`{}` is no time to wait", raw.as_ref()), right, raw.span());
        }
        duration
    }

    fn date(&mut self, raw: &Spanned<String>) -> Option<Date> {
        let date = raw.as_ref().parse().ok();
        if date.is_none() {
            self.wrong(format!("`{}` is no day", raw.as_ref()), "`2026-12-31`".to_owned(), raw.span());
        }
        date
    }

    fn filled(&mut self, raw: &Spanned<String>, what: &str) -> String {
        if raw.as_ref().trim().is_empty() {
            self.wrong(format!("{what} that says nothing"), format!("{what} in words"), raw.span());
        }
        raw.as_ref().clone()
    }

    fn unique<'a>(&mut self, what: &str, names: impl Iterator<Item = &'a Spanned<String>>) {
        let mut seen = BTreeMap::new();
        for name in names {
            if let Some(line) = seen.insert(name.as_ref(), self.text.line(name.span().start)) {
                let problem = format!("a second {what} `{}`", name.as_ref());
                self.wrong(problem, format!("the first is in line {line}"), name.span());
            }
        }
    }

    fn wrong(&mut self, problem: String, right: String, at: Range<usize>) {
        self.mistakes.push(self.text.mistake(problem, right, Some(at)));
    }
}

fn count(mistakes: usize) -> String {
    if mistakes == 1 { "1 mistake".to_owned() } else { format!("{mistakes} mistakes") }
}

#[cfg(test)]
mod tests;
