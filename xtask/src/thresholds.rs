//! `benches/thresholds.toml`: how slow each case may be, and the policy by which that is decided.
//!
//! Read so that everything wrong in it is said at once, with its place; written so that its comments stay.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use manifest::file::{Mistake, Text};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::suite;

mod write;

pub(crate) use write::written;

/// What each task about thresholds takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The file of thresholds.
    #[arg(long, value_name = "FILE", default_value = PATH)]
    pub(crate) thresholds: PathBuf,
    /// Print one JSON document on one line of standard output and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Options {
    /// The thresholds. None when there are mistakes in the file, which have been shown then.
    pub(crate) fn open(&self) -> Result<Option<Thresholds>> {
        match Thresholds::open(&self.thresholds)? {
            Ok(thresholds) => Ok(Some(thresholds)),
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| suite::diagnostic(mistake));
                Ok(None)
            }
        }
    }
}

/// Where the file stands, from the root of the checkout.
const PATH: &str = "benches/thresholds.toml";

/// The only version of the file that there is.
const VERSION: i64 = 1;

/// How slow each case may be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Thresholds {
    pub(crate) policy: Policy,
    /// By the name of the case.
    pub(crate) cases: BTreeMap<String, Threshold>,
}

/// How thresholds follow from what was measured. Percentages are of what was measured unless it says else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Policy {
    /// Which of the runs counts.
    pub(crate) basis: Basis,
    /// Which part of the runs is within the basis, where that is a percentile.
    pub(crate) percentile: u32,
    /// How many percent are allowed on top of the basis.
    pub(crate) margin: u32,
    /// How many points of a scale must lie between the slowest run and the scale.
    pub(crate) min_headroom: u32,
    /// No scale is smaller.
    pub(crate) min_scale: u32,
    /// A change by fewer points is not worth making.
    pub(crate) min_change: u32,
    /// How many percent are allowed on top of a count of instructions, which hardly varies.
    pub(crate) instruction_margin: u32,
}

/// Which of several runs counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Basis {
    /// The slowest.
    Max,
    /// The one that most are as fast as.
    Percentile,
}

/// How slow one case may be. One of the two is there at least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Threshold {
    pub(crate) time: Option<Allowed>,
    /// How many instructions one run may take.
    pub(crate) instructions: Option<u64>,
}

/// How long one case may take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Allowed {
    /// How many times as long as the reference it took when it was first calibrated.
    pub(crate) ratio: f64,
    /// How many percent of that it may take. It shows at a glance how far a case has drifted.
    pub(crate) scale: u32,
}

impl Allowed {
    /// The greatest ratio that is allowed.
    pub(crate) fn limit(self) -> f64 {
        self.ratio * f64::from(self.scale) / 100.0
    }

    /// The smallest scale that allows this ratio, in whole percent.
    pub(crate) fn required(self, ratio: f64) -> u32 {
        // A float becomes the nearest number that there is room for.
        (ratio / self.ratio * 100.0).ceil() as u32
    }
}

impl Thresholds {
    /// Reads a file; what is wrong with it is the inner error.
    fn open(path: &Path) -> Result<Result<Self, Vec<Mistake>>> {
        let name = path.display().to_string();
        let content = fs::read_to_string(path).with_context(|| format!("failed to read {name}"))?;
        Ok(Self::read(&Text::new(&name, &content), &content))
    }

    /// Reads a text; everything that is wrong with it is said at once.
    pub(crate) fn read(text: &Text, content: &str) -> Result<Self, Vec<Mistake>> {
        let raw: Raw = toml::from_str(content).map_err(|error| {
            let right = "the tables and keys that the head of the file in the repository explains".to_owned();
            vec![text.mistake(error.message().to_owned(), right, error.span())]
        })?;
        let mut reader = Reader { text, mistakes: Vec::new() };
        let thresholds = reader.thresholds(&raw);
        if reader.mistakes.is_empty() { Ok(thresholds) } else { Err(reader.mistakes) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: Spanned<i64>,
    policy: RawPolicy,
    #[serde(default)]
    case: BTreeMap<Spanned<String>, RawCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    basis: Basis,
    percentile: Spanned<i64>,
    margin: Spanned<i64>,
    min_headroom: Spanned<i64>,
    min_scale: Spanned<i64>,
    min_change: Spanned<i64>,
    instruction_margin: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    ratio: Option<Spanned<f64>>,
    scale: Option<Spanned<i64>>,
    instructions: Option<Spanned<i64>>,
}

struct Reader<'a> {
    text: &'a Text,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn thresholds(&mut self, raw: &Raw) -> Thresholds {
        if *raw.version.get_ref() != VERSION {
            let problem = format!("version {} is not known", raw.version.get_ref());
            self.wrong(problem, format!("version = {VERSION}"), raw.version.span());
        }
        let policy = Policy {
            basis: raw.policy.basis,
            percentile: self.within("percentile", &raw.policy.percentile, 1, 100),
            margin: self.within("margin", &raw.policy.margin, 0, 1000),
            min_headroom: self.within("min_headroom", &raw.policy.min_headroom, 0, 1000),
            min_scale: self.within("min_scale", &raw.policy.min_scale, 1, 1000),
            min_change: self.within("min_change", &raw.policy.min_change, 0, 1000),
            instruction_margin: self.within("instruction_margin", &raw.policy.instruction_margin, 0, 1000),
        };
        let mut cases = BTreeMap::new();
        for (name, case) in &raw.case {
            let threshold = self.case(name, case);
            cases.insert(name.get_ref().clone(), threshold);
        }
        Thresholds { policy, cases }
    }

    fn case(&mut self, name: &Spanned<String>, case: &RawCase) -> Threshold {
        let time = match (&case.ratio, &case.scale) {
            (Some(ratio), Some(scale)) => {
                if !(ratio.get_ref().is_finite() && *ratio.get_ref() > 0.0) {
                    let problem = format!("`ratio` is {}", ratio.get_ref());
                    self.wrong(problem, "a number above 0", ratio.span());
                }
                Some(Allowed {
                    ratio: *ratio.get_ref(),
                    scale: self.within("scale", scale, 1, i64::from(u32::MAX)),
                })
            }
            (None, None) => None,
            (_, _) => {
                let problem = format!("`{}` has one of `ratio` and `scale`", name.get_ref());
                self.wrong(problem, "both, or neither", name.span());
                None
            }
        };
        if time.is_none() && case.instructions.is_none() {
            let problem = format!("`{}` has no threshold", name.get_ref());
            self.wrong(problem, "`ratio` and `scale`, or `instructions`, or all three", name.span());
        }
        let instructions =
            case.instructions.as_ref().map(|count| self.within("instructions", count, 1, i64::MAX));
        Threshold { time, instructions }
    }

    /// A whole number within its range, or what is nearest to it.
    fn within<T: TryFrom<i64> + Default>(
        &mut self,
        key: &str,
        value: &Spanned<i64>,
        least: i64,
        most: i64,
    ) -> T {
        let number = *value.get_ref();
        if !(least..=most).contains(&number) {
            let right =
                if most == i64::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
            self.wrong(format!("`{key}` is {number}"), right, value.span());
        }
        T::try_from(number.clamp(least, most)).unwrap_or_default()
    }

    fn wrong(&mut self, problem: String, right: impl Into<String>, at: Range<usize>) {
        self.mistakes.push(self.text.mistake(problem, right.into(), Some(at)));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const FILE: &str = r#"# What the policy is for.
version = 1

[policy]
basis = "max"
percentile = 90
margin = 25
min_headroom = 15
min_scale = 50
min_change = 5
instruction_margin = 5

# The stream.
[case."sse/one-write"]
ratio = 2.0 # as of November
scale = 125
instructions = 1000
"#;

    pub(crate) fn read(content: &str) -> Thresholds {
        Thresholds::read(&Text::new(PATH, content), content).expect("it is right")
    }

    fn problems(content: &str) -> Vec<String> {
        let mistakes = Thresholds::read(&Text::new(PATH, content), content).expect_err("it is wrong");
        mistakes.iter().map(|mistake| format!("{}; right: {}", mistake.problem, mistake.right)).collect()
    }

    #[test]
    fn a_file_is_a_policy_and_thresholds_by_case() {
        let thresholds = read(FILE);
        assert_eq!((thresholds.policy.basis, thresholds.policy.margin), (Basis::Max, 25));
        let time = Allowed { ratio: 2.0, scale: 125 };
        assert_eq!(
            thresholds.cases["sse/one-write"],
            Threshold { time: Some(time), instructions: Some(1000) }
        );
        assert_eq!((time.limit(), time.required(2.0), time.required(2.001)), (2.5, 100, 101));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let file = FILE.replace("version = 1", "version = 2").replace("margin = 25", "margin = -1");
        let file =
            file.replace("ratio = 2.0", "ratio = -2.0") + "[case.\"a/b\"]\nscale = 0\n[case.\"a/c\"]\n";
        assert_eq!(
            problems(&file),
            [
                "version 2 is not known; right: version = 1",
                "`margin` is -1; right: 0 to 1000",
                "`a/b` has one of `ratio` and `scale`; right: both, or neither",
                "`a/b` has no threshold; right: `ratio` and `scale`, or `instructions`, or all three",
                "`a/c` has no threshold; right: `ratio` and `scale`, or `instructions`, or all three",
                "`ratio` is -2; right: a number above 0",
            ]
        );
    }

    #[test]
    fn keys_that_are_unknown_missing_or_twice_are_mistakes() {
        for (old, new) in [
            ("margin = 25", "margin = 25\nmagin = 3"),
            ("margin = 25\n", ""),
            ("basis = \"max\"", "basis = \"mean\""),
            ("scale = 125", "scale = 125\nscale = 126"),
            ("scale = 125", "scale = \"125\""),
            ("version = 1\n", ""),
            ("instructions = 1000", "instructions = 1000\n[case.\"sse/one-write\"]\nratio = 1.0"),
        ] {
            let file = FILE.replacen(old, new, 1);
            assert_ne!(file, FILE);
            assert_eq!(problems(&file).len(), 1, "{file}");
        }
    }
}
