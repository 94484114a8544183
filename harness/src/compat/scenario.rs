//! The scenarios: what the mock says, what the client is asked, and what must come of it. Data only.

use mock_upstream::script::{Item, Rule, Turn};

use crate::clients::codex::Mode;

/// A conversation.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name, and the head of its column.
    pub name: &'static str,
    /// What the mock is told.
    pub rules: Vec<Rule>,
    /// Settings of the client, as `-c` takes them.
    pub settings: Vec<&'static str>,
    /// The model; the client's default without one.
    pub model: Option<&'static str>,
    /// What the client is asked, one run each; all but the first continue the thread.
    pub steps: Vec<Step>,
    /// What must have arrived at the mock in the end.
    pub expect: Expect,
}

/// One run of the client.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it is asked.
    pub prompt: &'static str,
    /// What it must say last.
    pub text: &'static str,
    /// What its commands must have printed, in any order.
    pub commands: Vec<&'static str>,
}

/// What must have arrived at the mock.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// How many model requests, warm-ups not counted.
    pub requests: usize,
    /// What their bodies must contain, each in at least one.
    pub bodies: Vec<&'static str>,
    /// Whether a compaction must have been asked for.
    pub compaction: bool,
    /// Whether the thread goes on with a second account, instead of staying with its first.
    pub moves: bool,
    /// Whether the last run ends with the usage limit of the account, and says so.
    pub ends_at_limit: bool,
}

impl Expect {
    /// What the bodies must contain in this mode. A provider that is not the vendor's compacts with an
    /// ordinary request, so only the others show the vendor's items.
    #[must_use]
    pub fn compaction_items(&self, mode: Mode) -> &'static [&'static str] {
        match (self.compaction, mode) {
            (false, _) | (true, Mode::Custom | Mode::ProviderLogin) => &[],
            (true, _) => &["\"compaction_trigger\"", "\"type\":\"compaction\""],
        }
    }
}

/// All scenarios, in the order of the table's columns.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    vec![simple(), shell(), parallel(), resume(), compaction()]
}

fn simple() -> Scenario {
    Scenario {
        name: "simple",
        rules: vec![
            Rule::new(Turn::text("The answer is forty-two.")).user_text("a question").named("answer"),
        ],
        settings: Vec::new(),
        model: None,
        steps: vec![step("a question", "The answer is forty-two.", &[])],
        expect: Expect { requests: 1, bodies: vec!["a question"], ..Expect::default() },
    }
}

fn shell() -> Scenario {
    call_and_answer("shell", Some(Item::Reasoning("A command will tell.".into())))
}

/// A command and its answer: two requests, of which the second brings the output of the first one's call.
/// The model says `before` before it calls.
pub(super) fn call_and_answer(name: &'static str, before: Option<Item>) -> Scenario {
    let items = before.into_iter().chain([Item::Shell("echo mark-$((40+2))".into())]);
    Scenario {
        name,
        rules: vec![
            Rule::new(Turn::of(items)).user_text("a command").tool_output(false).named("call"),
            Rule::new(Turn::text("The command ran."))
                .user_text("a command")
                .tool_output(true)
                .named("answer"),
        ],
        settings: Vec::new(),
        model: None,
        steps: vec![step("a command", "The command ran.", &["mark-42"])],
        expect: Expect { requests: 2, bodies: vec!["mark-42"], ..Expect::default() },
    }
}

/// Two calls in one turn. Only models with functions may call in parallel, so one is asked for.
fn parallel() -> Scenario {
    let calls = Turn::of([Item::Shell("echo one-$((1+1))".into()), Item::Shell("echo two-$((2+2))".into())]);
    Scenario {
        name: "parallel",
        rules: vec![
            Rule::new(calls).user_text("two commands").tool_output(false).named("calls"),
            Rule::new(Turn::text("Both ran.")).user_text("two commands").tool_output(true).named("answer"),
        ],
        settings: Vec::new(),
        model: Some("gpt-5.5"),
        steps: vec![step("two commands", "Both ran.", &["one-2", "two-4"])],
        expect: Expect { requests: 2, bodies: vec!["one-2", "two-4"], ..Expect::default() },
    }
}

/// A second turn by a new process: the whole history is sent again, the first answer in it.
fn resume() -> Scenario {
    Scenario {
        name: "resume",
        rules: vec![
            Rule::new(Turn::text("First answer.")).user_text("the first turn").named("first"),
            Rule::new(Turn::text("Second answer.")).user_text("the second turn").named("second"),
        ],
        settings: Vec::new(),
        model: None,
        steps: vec![
            step("the first turn", "First answer.", &[]),
            step("the second turn", "Second answer.", &[]),
        ],
        expect: Expect { requests: 2, bodies: vec!["First answer."], ..Expect::default() },
    }
}

/// A turn that reports more tokens than the limit: the client compacts before it goes on.
fn compaction() -> Scenario {
    let call = Turn::shell("echo long-$((6*7))").tokens(200_000);
    Scenario {
        name: "compaction",
        rules: vec![
            Rule::new(call).user_text("a long task").tool_output(false).times(1).named("call"),
            Rule::new(Turn::text("Done in short.")).named("answer"),
        ],
        settings: vec!["model_auto_compact_token_limit=1000"],
        model: None,
        steps: vec![step("a long task", "Done in short.", &["long-42"])],
        expect: Expect { requests: 3, bodies: vec!["long-42"], compaction: true, ..Expect::default() },
    }
}

fn step(prompt: &'static str, text: &'static str, commands: &[&'static str]) -> Step {
    Step { prompt, text, commands: commands.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mock_upstream::Script;

    #[test]
    fn every_scenario_can_be_played_and_checks_something() {
        let all = scenarios();
        for scenario in &all {
            Script::rules(scenario.rules.clone()).check().unwrap();
            assert!(!scenario.steps.is_empty() && !scenario.expect.bodies.is_empty(), "{}", scenario.name);
            assert!(scenario.expect.requests >= scenario.steps.len(), "{}", scenario.name);
        }
        let mut names: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
