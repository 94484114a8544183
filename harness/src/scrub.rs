//! Scrubbing of recorded traffic: what is sensitive becomes placeholders, in every encoding, in place.
//!
//! Two passes over the records of a session: a [`Learner`] takes down every sensitive value, then a
//! [`Scrubber`] writes over all of them wherever they appear, and a [`Verifier`], which shares no way
//! through the records with those two, looks at what came of it. The rule that everything here keeps:
//! **an edit keeps the length and the place of what it replaces**, so that header order, line ends, JSON
//! spacing, number spelling, write sizes and lengths all stay true. The one exception is a compressed
//! body, see `compressed`. Files and their formats are not known here; a record is a line of JSON as
//! `wire::capture` has it.
//!
//! ```
//! use harness::scrub::{Learner, Options};
//!
//! let record = br#"{"type":"request","url":"/v1/responses","headers":[["X-Api-Key","Sesame-4711"]]}"#;
//! let mut learner = Learner::new(Options::default());
//! learner.learn(record)?;
//! let mut scrubber = learner.finish()?;
//! let mut line = record.to_vec();
//! scrubber.scrub(&mut line)?;
//! assert_eq!(line, br#"{"type":"request","url":"/v1/responses","headers":[["X-Api-Key","Xxxxxx-0001"]]}"#);
//! assert!(scrubber.verifier().check(&line)?.is_empty());
//! # Ok::<(), harness::scrub::Error>(())
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod certificate;

mod clean;

mod compressed;

mod detect;

mod filler;

mod joined;

mod paths;

mod placeholder;

mod repeat;

mod rules;

mod time;

mod value;

mod vault;

mod verify;

mod view;

mod walk;

pub use certificate::{Certificate, Mismatch};
pub use rules::Rule;
pub use verify::{Finding, Unfit, Verifier, verify_fixture};

use walk::{Stop, Walk};

/// What is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Options {
    /// Free text stays: prompts, answers, instructions, outputs of tools. What is recognised in it is still
    /// replaced.
    pub keep_content: bool,
}

/// Why a record cannot be scrubbed. Nothing of it may be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A record is no JSON.
    #[error("record {record} is no JSON from column {column} on")]
    Malformed {
        /// The record, counted from 1.
        record: u64,
        /// The byte of the record, counted from 1.
        column: usize,
    },
    /// A record holds views within views, or objects within objects, that are not followed that far.
    #[error("record {record} is nested too deeply to be looked through")]
    TooDeep {
        /// The record, counted from 1.
        record: u64,
    },
    /// There are more values of this shape than placeholders.
    #[error("there are more values like that in {place} ({rule}) than there are placeholders of their length", rule = rule.id())]
    NoRoom {
        /// The rule that the value was taken by.
        rule: Rule,
        /// Where the value was seen first, as a pattern.
        place: String,
    },
    /// A time cannot be moved without changing its length.
    #[error("the time in {place} of record {record} cannot be moved")]
    Time {
        /// The record, counted from 1.
        record: u64,
        /// The place, as a pattern.
        place: String,
    },
    /// A compressed body is cut off, broken, too long, or within another encoding.
    #[error("the compressed body in {place} of record {record} cannot be looked into")]
    Compressed {
        /// The record, counted from 1.
        record: u64,
        /// The place, as a pattern, and the reason.
        place: String,
    },
    /// More streamed text is kept than can be searched for split values.
    #[error("the session holds more streamed text than can be searched for split values")]
    TooMuchText,
}

impl Error {
    fn new(stop: Stop, record: u64) -> Self {
        match stop {
            Stop::Malformed(at) => Error::Malformed { record, column: at + 1 },
            Stop::TooDeep => Error::TooDeep { record },
            Stop::NoRoom(found) => Error::NoRoom { rule: found.rule, place: found.place },
            Stop::Time(place) => Error::Time { record, place },
            Stop::Compressed(place) => Error::Compressed { record, place },
            Stop::TooMuchText => Error::TooMuchText,
        }
    }
}

/// The first pass: takes down what is sensitive in a session.
#[derive(Debug)]
pub struct Learner {
    walk: Walk,
    record: u64,
    line: Vec<u8>,
}

impl Learner {
    /// Begins with a session: one file, or several that belong together.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { walk: Walk::new(options), record: 0, line: Vec::new() }
    }

    /// Learns from the next record.
    ///
    /// # Errors
    /// When the record cannot be looked through. It must not be scrubbed either then.
    pub fn learn(&mut self, record: &[u8]) -> Result<(), Error> {
        self.record += 1;
        self.line.clear();
        self.line.extend_from_slice(record);
        check_text(record, self.record)?;
        self.walk.record(&mut self.line).map_err(|stop| Error::new(stop, self.record))
    }

    /// Ends the first pass: every value gets its placeholder.
    ///
    /// # Errors
    /// [`Error::NoRoom`] or [`Error::TooMuchText`].
    pub fn finish(mut self) -> Result<Scrubber, Error> {
        self.walk.finish().map_err(|stop| Error::new(stop, self.record))?;
        Ok(Scrubber { walk: self.walk, record: 0 })
    }
}

/// The second pass: replaces what was learnt.
#[derive(Debug)]
pub struct Scrubber {
    walk: Walk,
    record: u64,
}

impl Scrubber {
    /// Scrubs a record, in place; only a compressed body can change its length. The records must be those
    /// that were learnt, in that order.
    ///
    /// # Errors
    /// When the record cannot be scrubbed. The line is no good then.
    pub fn scrub(&mut self, record: &mut Vec<u8>) -> Result<(), Error> {
        self.record += 1;
        check_text(record, self.record)?;
        self.walk.record(record).map_err(|stop| Error::new(stop, self.record))?;
        self.walk.splice(record);
        Ok(())
    }

    /// What has been replaced so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut rules: BTreeMap<&'static str, RuleReport> = BTreeMap::new();
        for ((rule, place), count) in &self.walk.counts {
            let report = rules.entry(rule.id()).or_insert_with(|| RuleReport {
                rule: rule.id().to_owned(),
                count: 0,
                places: BTreeMap::new(),
            });
            report.count += count;
            *report.places.entry(self.walk.paths.pattern(*place)).or_default() += count;
        }
        Report {
            records: self.record,
            values: self.walk.vault.len() as u64,
            rules: rules.into_values().collect(),
        }
    }

    /// A verification that knows the values of this session.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.walk.vault.originals())
    }

    /// What is left as it is.
    #[must_use]
    pub fn options(&self) -> Options {
        self.walk.options
    }
}

/// What was replaced in a session: rules, places and counts, never values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How many records there were.
    pub records: u64,
    /// How many different values have a placeholder.
    pub values: u64,
    /// The rules that replaced something, by name.
    pub rules: Vec<RuleReport>,
}

/// What one rule replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// The rule.
    pub rule: String,
    /// How often.
    pub count: u64,
    /// Where, and how often there: JSON pointers in which `*` stands for an element and `#` for what a
    /// string holds once it is decoded.
    pub places: BTreeMap<String, u64>,
}

fn check_text(record: &[u8], number: u64) -> Result<(), Error> {
    match std::str::from_utf8(record) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Malformed { record: number, column: error.valid_up_to() + 1 }),
    }
}
