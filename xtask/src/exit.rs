//! How a task ends, as every command of this workspace counts it.

use std::process::ExitCode;

/// The exit codes. Scripts and CI branch on them, so a number keeps its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Nothing is wrong.
    Good = 0,
    /// The command did its work and its verdict is no: findings, failed tests.
    Findings = 1,
    /// The command was asked for something that makes no sense.
    Usage = 2,
    /// Something the command needs is missing or broken: a tool, a file's permission, the network.
    Environment = 3,
    /// Nothing was selected, so nothing was shown to be right.
    NothingSelected = 4,
    /// It took longer than it may.
    TimedOut = 124,
    /// A person or a supervisor asked it to stop.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
