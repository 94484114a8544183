//! What came of a suite as JUnit XML: a suite per binary, a case per test.

use std::collections::BTreeMap;

use anyhow::Result;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};

use super::report::time;
use super::show::{Done, Verdict, failed_attempt, rerun};

/// The XML.
pub(super) fn render(name: &str, tests: &[Done]) -> Result<String> {
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for done in tests {
        let binary = done.finished.id.binary.as_str();
        suites.entry(binary).or_insert_with(|| TestSuite::new(binary)).add_test_case(case(done));
    }
    let mut report = Report::new(name);
    report.add_test_suites(suites.into_values());
    Ok(report.to_string()?)
}

fn case(done: &Done) -> TestCase {
    let id = &done.finished.id;
    let (reason, output) = failed_attempt(&done.finished)
        .map_or_else(|| ("passed".to_owned(), ""), |(reason, output)| (reason.to_string(), output));
    let status = match done.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Expected => {
            let mut status = TestCaseStatus::skipped();
            status.set_message("failed as its quarantine says");
            status
        }
        Verdict::Flaky => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message("flaky: passed behind a failure");
            let mut attempt = TestRerun::new(NonSuccessKind::Failure);
            attempt.set_message(reason).set_system_out(output);
            status.add_rerun(attempt);
            status
        }
        Verdict::Failed => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(reason).set_description(rerun(id));
            status
        }
    };
    let mut case = TestCase::new(&*id.test, status);
    case.set_classname(&*id.binary).set_time(time(done));
    if !output.is_empty() {
        case.set_system_out(output);
    }
    case
}
