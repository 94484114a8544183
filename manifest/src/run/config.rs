//! Plan and cases as the configuration that nextest-runner reads.

use std::time::Duration;

use toml::{Table, Value};

use super::Plan;
use crate::case::Case;

/// How long a test may take to stop when it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// How long what a test started may hold its output open once it has ended.
const LEAK: Duration = Duration::from_millis(500);

/// The name of the wrapper.
const WRAPPER: &str = "isolate";

/// The configuration, as TOML.
pub(super) fn render(plan: &Plan, cases: &[Case]) -> String {
    let mut profile = table([
        ("retries", Value::Integer(plan.retries.into())),
        ("flaky-result", text("fail")),
        ("fail-fast", Value::Boolean(false)),
        ("slow-timeout", patience(Case::TIMEOUT)),
        ("leak-timeout", Value::Table(table([("period", time(LEAK)), ("result", text("fail"))]))),
        ("overrides", Value::Array(cases.iter().map(exception).collect())),
    ]);
    if let Some(limit) = plan.limit {
        profile.insert("global-timeout".to_owned(), time(limit));
    }
    let mut config = Table::new();
    if !plan.wrapper.is_empty() {
        let script = table([("filter", text("all()")), ("run-wrapper", text(WRAPPER))]);
        profile.insert("scripts".to_owned(), Value::Array(vec![Value::Table(script)]));
        let command = plan.wrapper.iter().map(|word| text(word)).collect();
        let wrapper = table([("command", Value::Array(command))]);
        let wrappers = table([(WRAPPER, Value::Table(wrapper))]);
        config.insert("scripts".to_owned(), Value::Table(table([("wrapper", Value::Table(wrappers))])));
    }
    config.insert("profile".to_owned(), Value::Table(table([("default", Value::Table(profile))])));
    config.to_string()
}

/// What a case has different from the others.
fn exception(case: &Case) -> Value {
    let mut exception = table([
        ("filter", text(&case.filter)),
        ("slow-timeout", patience(case.timeout.unwrap_or(Case::TIMEOUT))),
    ]);
    if case.lane().is_some_and(|lane| lane.is_alone()) {
        exception.insert("threads-required".to_owned(), text("num-test-threads"));
    }
    Value::Table(exception)
}

fn patience(limit: Duration) -> Value {
    Value::Table(table([
        ("period", time(limit)),
        ("terminate-after", Value::Integer(1)),
        ("grace-period", time(GRACE)),
    ]))
}

fn time(time: Duration) -> Value {
    Value::String(format!("{}ms", time.as_millis()))
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::file::{Manifest, Text};
    use crate::run::Words;

    #[test]
    fn cases_are_exceptions_and_what_runs_alone_takes_every_thread() {
        let text = "[[case]]\nid = \"many\"\nfilter = \"test(many)\"\ntags = [\"stress\"]\n\
            reason = \"load\"\ntimeout = \"2m\"\n";
        let (manifest, mistakes) = Manifest::read(&Text::new("tests.toml", text));
        assert!(mistakes.is_empty());
        let plan = Plan {
            threads: NonZeroUsize::MIN,
            retries: 1,
            limit: Some(Duration::from_secs(60)),
            wrapper: vec!["/bin/xtask".to_owned(), "--".to_owned()],
            ..Plan::new("all()".to_owned(), Words::default())
        };
        insta::assert_snapshot!(render(&plan, &manifest.cases));
    }
}
