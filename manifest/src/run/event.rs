//! What happens in a run, without the types of the runner.

use std::time::Duration;

use nextest_runner::list::TestInstanceId;
use nextest_runner::output_spec::LiveSpec;
use nextest_runner::reporter::events::{
    CancelReason, ChildExecutionOutputDescription, ChildOutputDescription, ExecuteStatus,
    ExecutionResultDescription, FailureDescription, FinalRunStats, ReporterEvent, RunFinishedStats,
    RunOutcome, TestEventKind,
};
use serde::Serialize;

use crate::case::TestId;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A test was started.
    Started {
        /// Which.
        #[serde(flatten)]
        id: TestId,
    },
    /// A test takes as long as it may, and is ended.
    Ending {
        /// Which.
        #[serde(flatten)]
        id: TestId,
        /// How long it ran.
        elapsed: Duration,
    },
    /// A test failed and is tried again.
    Again {
        /// Which.
        #[serde(flatten)]
        id: TestId,
    },
    /// A test is over.
    Finished(Finished),
}

/// A test that is over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finished {
    /// Which.
    #[serde(flatten)]
    pub id: TestId,
    /// In which repetition of the whole selection, counted from 0.
    pub repetition: u32,
    /// Its attempts, at least one; only the last can have passed.
    pub attempts: Vec<Attempt>,
}

/// One attempt at a test.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// How long it took.
    pub time: Duration,
    /// What it printed, to either stream.
    pub output: String,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// It ended with this code.
    Code(i32),
    /// It was ended by a signal.
    Aborted,
    /// It took longer than it may.
    TimedOut,
    /// What it started held its output open behind its end.
    Leaked,
    /// It ended its process in the guise of a success, before the result was known.
    BrokeOff,
    /// It could not be started.
    NotStarted,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Aborted => write!(f, "was ended by a signal"),
            Self::TimedOut => write!(f, "took too long"),
            Self::Leaked => write!(f, "left something behind that holds its output open"),
            Self::BrokeOff => write!(f, "ended its process before its result was known"),
            Self::NotStarted => write!(f, "could not be started"),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every chosen test was run, whatever came of it.
    Complete,
    /// There was no test to run.
    Nothing,
    /// Someone asked it to stop.
    Interrupted,
    /// It took longer than it may.
    TimedOut,
}

impl End {
    pub(super) fn of(outcome: RunOutcome) -> Self {
        match outcome {
            RunOutcome::NoTestsRun => Self::Nothing,
            RunOutcome::Cancelled { .. } => Self::Interrupted,
            RunOutcome::Success | RunOutcome::Failed { .. } => Self::Complete,
        }
    }
}

/// How a run that did not get to its end was ended, from its last event.
pub(super) fn cancelled(event: &ReporterEvent<'_>) -> Option<End> {
    let ReporterEvent::Test(event) = event else { return None };
    let stats = match &event.kind {
        TestEventKind::RunBeginCancel { current_stats, .. } => current_stats.cancel_reason,
        TestEventKind::RunFinished { run_stats: RunFinishedStats::Single(stats), .. } => stats.cancel_reason,
        TestEventKind::RunFinished { run_stats: RunFinishedStats::Stress(stats), .. } => {
            match stats.last_final_stats {
                FinalRunStats::Cancelled { reason, .. } => reason,
                FinalRunStats::Success | FinalRunStats::NoTestsRun | FinalRunStats::Failed { .. } => None,
            }
        }
        _ => None,
    };
    match stats? {
        CancelReason::GlobalTimeout => Some(End::TimedOut),
        CancelReason::Signal | CancelReason::Interrupt | CancelReason::SecondSignal => Some(End::Interrupted),
        CancelReason::SetupScriptFailure
        | CancelReason::TestFailure
        | CancelReason::ReportError
        | CancelReason::TestFailureImmediate => None,
    }
}

/// The event in our words. What a test printed is looked at only where it was kept.
pub(super) fn translate(event: ReporterEvent<'_>, is_captured: bool) -> Option<Event> {
    let ReporterEvent::Test(event) = event else { return None };
    match event.kind {
        TestEventKind::TestStarted { test_instance, .. } => Some(Event::Started { id: id(test_instance) }),
        TestEventKind::TestSlow { test_instance, elapsed, will_terminate: true, .. } => {
            Some(Event::Ending { id: id(test_instance), elapsed })
        }
        TestEventKind::TestAttemptFailedWillRetry { test_instance, .. } => {
            Some(Event::Again { id: id(test_instance) })
        }
        TestEventKind::TestFinished { test_instance, run_statuses, stress_index, .. } => {
            let attempts = run_statuses.iter().map(|status| attempt(status, is_captured)).collect();
            let repetition = stress_index.map_or(0, |index| index.current);
            Some(Event::Finished(Finished { id: id(test_instance), repetition, attempts }))
        }
        _ => None,
    }
}

/// What a test binary prints when it has come to its end and all is well.
const RESULT: &str = "test result: ok. ";

fn id(test: TestInstanceId<'_>) -> TestId {
    TestId { binary: test.binary_id.to_string(), test: test.test_name.to_string() }
}

fn attempt(status: &ExecuteStatus<LiveSpec>, is_captured: bool) -> Attempt {
    let output = match &status.output {
        ChildExecutionOutputDescription::Output { output, .. } => match output {
            ChildOutputDescription::Combined { output } => output.as_str_lossy().to_owned(),
            ChildOutputDescription::Split { stdout, stderr } => {
                let streams = [stdout, stderr].into_iter().flatten();
                streams.map(|stream| stream.as_str_lossy()).collect()
            }
            ChildOutputDescription::NotLoaded => String::new(),
        },
        ChildExecutionOutputDescription::StartError(error) => error.to_string(),
    };
    let failure = match &status.result {
        result if result.is_success() => None,
        ExecutionResultDescription::Fail { failure: FailureDescription::ExitCode { code }, .. } => {
            Some(Failure::Code(*code))
        }
        ExecutionResultDescription::Fail { failure: FailureDescription::Abort { .. }, .. } => {
            Some(Failure::Aborted)
        }
        ExecutionResultDescription::Timeout { .. } => Some(Failure::TimedOut),
        ExecutionResultDescription::Leak { .. } => Some(Failure::Leaked),
        ExecutionResultDescription::ExecFail | _ => Some(Failure::NotStarted),
    };
    // A test that calls `exit(0)` looks like one that passed; only the line behind all tests tells them apart.
    let is_cut = failure.is_none() && is_captured && !output.contains(RESULT);
    let failure = failure.or(is_cut.then_some(Failure::BrokeOff));
    Attempt { failure, time: status.time_taken, output }
}
