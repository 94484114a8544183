//! Cases: which tests, how they may be run, and why not otherwise.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// What is claimed about the tests of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tag {
    /// Runs beside anything, in a process of its own or in one with others.
    ParallelSafe,
    /// Nothing may run beside it.
    Serial,
    /// Needs something of the machine that its sandbox cannot give: a toolchain, a shared folder.
    Env,
    /// Loads the machine on purpose.
    Stress,
    /// Known to fail; it is run, and does not decide.
    Quarantine,
    /// Belongs to the minute that is worth running before anything else.
    Smoke,
    /// About conversations that stay with their owner; also run twice in a row.
    Continuation,
}

impl Tag {
    /// Every tag, lanes first.
    pub const ALL: [Self; 7] = [
        Self::ParallelSafe,
        Self::Serial,
        Self::Env,
        Self::Stress,
        Self::Quarantine,
        Self::Smoke,
        Self::Continuation,
    ];

    /// The tag as it is written in the manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ParallelSafe => "parallel-safe",
            Self::Serial => "serial",
            Self::Env => "env",
            Self::Stress => "stress",
            Self::Quarantine => "quarantine",
            Self::Smoke => "smoke",
            Self::Continuation => "continuation",
        }
    }

    /// The tag of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| tag.name() == name)
    }

    /// Whether the tag is a lane: every case is in exactly one.
    #[must_use]
    pub fn is_lane(self) -> bool {
        !matches!(self, Self::Smoke | Self::Continuation)
    }

    /// Whether tests of this lane are run with nothing beside them.
    #[must_use]
    pub fn is_alone(self) -> bool {
        matches!(self, Self::Serial | Self::Env | Self::Stress | Self::Quarantine)
    }
}

/// One test: which binary it is in, and its path there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TestId {
    /// The binary as nextest names it: `wire`, `prodex::it`.
    pub binary: String,
    /// The path of the test in it: `sse::tests::a_bom_is_dropped`.
    pub test: String,
}

impl std::fmt::Display for TestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.binary, self.test)
    }
}

/// Tests that are run in the same way.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its name, which no other case has.
    pub id: String,
    /// Which tests, as a nextest filter expression.
    pub filter: String,
    /// What is claimed about them. Exactly one is a lane.
    pub tags: BTreeSet<Tag>,
    /// Why they are not parallel-safe.
    pub reason: Option<String>,
    /// How long each takes where nothing was measured yet.
    pub weight: Option<Duration>,
    /// How long each may take before it is ended; [`Case::TIMEOUT`] unless given.
    pub timeout: Option<Duration>,
    /// What is known of the failure, for a case in quarantine.
    pub quarantine: Option<Quarantine>,
    /// The line of the manifest that it begins in, counted from 1.
    pub line: usize,
}

impl Case {
    /// How long a test may take unless its case says otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(60);

    /// The lane that its tests are in.
    #[must_use]
    pub fn lane(&self) -> Option<Tag> {
        self.tags.iter().copied().find(|tag| tag.is_lane())
    }
}

/// Why a test is in quarantine, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Who brings it back.
    pub owner: String,
    /// Where it is discussed.
    pub issue: String,
    /// The first day.
    pub since: Date,
    /// The last day.
    pub expires: Date,
    /// A part of what the test prints when it fails as expected.
    pub fails_with: String,
}
