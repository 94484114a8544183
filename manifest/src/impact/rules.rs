//! The rules of `manifest/impact.toml`: which paths can change what, and which lanes care.
//!
//! The file is data and can be wrong: every mistake is an error with its place. What may never be ruled out
//! by data is not in the file, but here: the classifier cannot exempt itself.

use std::collections::BTreeSet;
use std::ops::Range;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use toml::Spanned;

use super::mistake::Mistake;
use super::path::RepoPath;
use super::shard;

/// Where the rules stand in the repository.
pub const FILE: &str = "manifest/impact.toml";

/// The id of the rule that no data can change.
pub const GUARDED: &str = "guarded";

/// What a change to decides how everything is built, checked or selected, and so is always everything.
const ALWAYS_EVERYTHING: &[&str] = &[
    FILE,
    shard::FILE,
    "manifest/src/impact.rs",
    "manifest/src/impact/**",
    "xtask/src/ci_impact.rs",
    "xtask/src/ci_matrix.rs",
    ".ci/**",
    ".github/**",
    "**/.cargo/**",
    "**/Cargo.toml",
    "Cargo.lock",
    "**/build.rs",
    "**/{.,}clippy.toml",
    "deny.toml",
    "**/rust-toolchain{,.toml}",
    "**/.gitattributes",
];

/// The rules and the lanes, read and checked.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    lanes: Vec<Lane>,
    guarded: GlobSet,
}

/// What a rule makes of the paths it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Every crate and every lane.
    Everything,
    /// The crate in whose folder the path lies; everything when there is none.
    Crate,
    /// These crates.
    Crates(BTreeSet<String>),
    /// Nothing but the lanes that always run.
    Nothing,
}

/// When a lane runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// For every change: it is cheap, or it looks at every file.
    Always,
    /// When any crate is reached.
    AnyCrate,
    /// When one of these crates is reached.
    Crates(BTreeSet<String>),
}

/// A job of CI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Its name here, in the workflow and in the script.
    pub id: String,
    /// When it runs.
    pub when: When,
    /// Whether it runs once for each shard, and only the shards of what is reached.
    pub is_sharded: bool,
    /// Why it runs then.
    pub because: String,
    /// Where it stands in the file.
    pub span: Range<usize>,
}

/// Which rule decided over a path, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The rule's id.
    pub rule: &'a str,
    /// What it makes of the path.
    pub effect: &'a Effect,
    /// Why.
    pub because: &'a str,
}

#[derive(Debug)]
struct Rule {
    id: String,
    paths: GlobSet,
    effect: Effect,
    because: String,
}

impl Rules {
    /// Reads the text of the file. `crates` are the names of the workspace's crates.
    ///
    /// # Errors
    ///
    /// The first mistake, with its place: not TOML, an unknown key or effect, an id given twice, a pattern
    /// that is none, a crate that does not exist, a rule or lane without a reason.
    pub fn parse(text: &str, crates: &BTreeSet<String>) -> Result<Self, Box<Mistake>> {
        let file: File = toml::from_str(text).map_err(|error| Mistake::of_toml((FILE, text), &error))?;
        let mut reader = Reader { text, crates, ids: BTreeSet::from([("rule", GUARDED.to_owned())]) };
        let version = *file.version.get_ref();
        if version != 1 {
            let problem = format!("version {version} is not known");
            return Err(reader.mistake(&file.version, problem, "`version = 1`"));
        }
        let rules = file.rules.iter().map(|entry| reader.rule(entry)).collect::<Result<_, _>>()?;
        let lanes = file.lanes.iter().map(|entry| reader.lane(entry)).collect::<Result<_, _>>()?;
        let guarded = globs(ALWAYS_EVERYTHING.iter().copied()).expect("the patterns above are patterns");
        Ok(Self { rules, lanes, guarded })
    }

    /// The rule that decides over a path: the first that matches. `None` when no rule knows the path.
    pub fn decide(&self, path: &RepoPath) -> Option<Decision<'_>> {
        if self.guarded.is_match(path.as_str()) {
            let because = "it decides how everything is built, checked or selected";
            return Some(Decision { rule: GUARDED, effect: &Effect::Everything, because });
        }
        let rule = self.rules.iter().find(|rule| rule.paths.is_match(path.as_str()))?;
        Some(Decision { rule: &rule.id, effect: &rule.effect, because: &rule.because })
    }

    /// The lanes, in the order of the file.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }
}

/// Reads entries, and knows what was read before.
struct Reader<'a> {
    text: &'a str,
    crates: &'a BTreeSet<String>,
    /// The ids so far, by kind.
    ids: BTreeSet<(&'static str, String)>,
}

impl Reader<'_> {
    fn rule(&mut self, entry: &FileRule) -> Result<Rule, Box<Mistake>> {
        let id = self.id("rule", &entry.id)?;
        let effect = match &entry.effect {
            FileEffect::Everything => Effect::Everything,
            FileEffect::Crate => Effect::Crate,
            FileEffect::Nothing => Effect::Nothing,
            FileEffect::Crates(names) => Effect::Crates(self.crates(names)?),
        };
        let paths = globs(entry.paths.get_ref().iter().map(String::as_str)).map_err(|error| {
            self.mistake(&entry.paths, error.to_string(), "patterns such as `docs/**/*.md`")
        })?;
        if paths.is_empty() {
            return Err(self.mistake(&entry.paths, "the rule has no path", "at least one pattern"));
        }
        Ok(Rule { id, paths, effect, because: self.reason(&entry.because)? })
    }

    fn lane(&mut self, entry: &FileLane) -> Result<Lane, Box<Mistake>> {
        let id = self.id("lane", &entry.id)?;
        let when = match &entry.when {
            FileWhen::Always => When::Always,
            FileWhen::AnyCrate => When::AnyCrate,
            FileWhen::Crates(names) => When::Crates(self.crates(names)?),
        };
        let because = self.reason(&entry.because)?;
        Ok(Lane { id, when, is_sharded: entry.sharded, because, span: entry.id.span() })
    }

    fn id(&mut self, kind: &'static str, id: &Spanned<String>) -> Result<String, Box<Mistake>> {
        let name = id.get_ref();
        if !is_id(name) {
            let right = "a lower-case letter, then such letters, digits, `-`, `_` and `.`";
            return Err(self.mistake(id, format!("`{name}` is no id"), right));
        }
        if !self.ids.insert((kind, name.clone())) {
            return Err(self.mistake(id, format!("the id `{name}` is taken"), "an id of its own"));
        }
        Ok(name.clone())
    }

    fn crates(&self, names: &Spanned<BTreeSet<String>>) -> Result<BTreeSet<String>, Box<Mistake>> {
        if let Some(unknown) = names.get_ref().difference(self.crates).next() {
            return Err(self.mistake(
                names,
                format!("there is no crate `{unknown}`"),
                "crates of the workspace",
            ));
        }
        if names.get_ref().is_empty() {
            return Err(self.mistake(names, "no crate is named", "at least one crate"));
        }
        Ok(names.get_ref().clone())
    }

    fn reason(&self, because: &Spanned<String>) -> Result<String, Box<Mistake>> {
        match because.get_ref().trim() {
            "" => Err(self.mistake(because, "there is no reason", "why it is so, in some words")),
            because => Ok(because.to_owned()),
        }
    }

    fn mistake<T>(&self, at: &Spanned<T>, problem: impl Into<String>, right: &'static str) -> Box<Mistake> {
        Mistake::new((FILE, self.text), at.span(), problem, right)
    }
}

/// Whether a text may be a name in CI's outputs: nothing in it needs quoting anywhere.
pub(super) fn is_id(text: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(is_plain)
}

/// Patterns in which `*` stays in its folder and `**` does not.
fn globs<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(
            GlobBuilder::new(pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .empty_alternates(true)
                .build()?,
        );
    }
    set.build()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<u32>,
    #[serde(default, rename = "rule")]
    rules: Vec<FileRule>,
    #[serde(default, rename = "lane")]
    lanes: Vec<FileLane>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    id: Spanned<String>,
    paths: Spanned<Vec<String>>,
    effect: FileEffect,
    because: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLane {
    id: Spanned<String>,
    when: FileWhen,
    #[serde(default)]
    sharded: bool,
    because: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FileEffect {
    Everything,
    Crate,
    Crates(Spanned<BTreeSet<String>>),
    Nothing,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FileWhen {
    Always,
    AnyCrate,
    Crates(Spanned<BTreeSet<String>>),
}

#[cfg(test)]
mod tests;
