//! Conversations that outlive something: a limit, the proxy, a compaction, the client. Data only.
//!
//! Each is played in front of a pool of its own, because what happens in between changes the pool.

use mock_upstream::Account;
use mock_upstream::script::{Http, Item, Rule, Turn};
use serde_json::json;

use super::scenario::{Expect, Scenario, Step, call_and_answer};

/// A conversation in front of a pool, and what happens to it.
#[derive(Debug, Clone)]
pub struct Story {
    /// What is said and what must come of it.
    pub scenario: Scenario,
    /// The accounts of the pool.
    pub accounts: Vec<Account>,
    /// What happens between two runs of the client.
    pub between: Between,
}

/// What happens between two runs of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// Nothing.
    Nothing,
    /// The proxy ends and is started again.
    Restart,
}

/// The account that fresh conversations begin with.
const FIRST: &str = "a-first";

/// The other one.
const SECOND: &str = "b-second";

/// All of them.
#[must_use]
pub fn stories() -> Vec<Story> {
    vec![chain(), moves_at_the_limit(), sealed_at_the_limit(), outlives_the_proxy(), outlives_compaction()]
}

fn pool(first: Option<u64>) -> Vec<Account> {
    vec![Account { turns_left: first, ..Account::new(FIRST) }, Account::new(SECOND)]
}

fn chain() -> Story {
    let mut scenario = call_and_answer("chain", None);
    scenario.expect.bodies.push("\"previous_response_id\":\"resp_");
    Story { scenario, accounts: pool(None), between: Between::Nothing }
}

/// The account reaches its limit between the command and the answer, and the rest is the other's.
fn moves_at_the_limit() -> Story {
    let mut scenario = call_and_answer("limit", None);
    scenario.expect.moves = true;
    Story { scenario, accounts: pool(Some(1)), between: Between::Nothing }
}

/// The same with an item that only the first account can read: its client learns of the limit.
fn sealed_at_the_limit() -> Story {
    let mut scenario = call_and_answer("sealed-limit", Some(Item::Reasoning("A command will tell.".into())));
    scenario.expect =
        Expect { requests: 1, bodies: vec!["mark-42"], ends_at_limit: true, ..Expect::default() };
    Story { scenario, accounts: pool(Some(1)), between: Between::Nothing }
}

/// The first account has no capacity for what the user says, which leaves no trace of it.
fn busy(text: &str) -> Rule {
    let error = json!({ "type": "server_is_overloaded", "code": "server_is_overloaded", "message": "Busy." });
    Rule::new(Http::json(503, json!({ "error": error }))).account(FIRST).user_text(text).named("busy")
}

/// A new client behind a new proxy, with an item that only the second account can read.
fn outlives_the_proxy() -> Story {
    let thinks = Turn::of([Item::Reasoning("Hm.".into()), Item::Text("First answer.".into())]);
    let scenario = Scenario {
        name: "restart",
        rules: vec![
            busy("the first turn"),
            Rule::new(thinks).user_text("the first turn").named("first"),
            Rule::new(Turn::text("Second answer.")).user_text("the second turn").named("second"),
        ],
        settings: Vec::new(),
        model: None,
        steps: vec![
            step("the first turn", "First answer.", &[]),
            step("the second turn", "Second answer.", &[]),
        ],
        expect: Expect {
            requests: 2,
            bodies: vec!["First answer.", "encrypted_content"],
            ..Expect::default()
        },
    };
    Story { scenario, accounts: pool(None), between: Between::Restart }
}

/// The same behind a compaction, whose item is the history.
fn outlives_compaction() -> Story {
    let call = Turn::shell("echo long-$((6*7))").tokens(200_000);
    let scenario = Scenario {
        name: "compact-restart",
        rules: vec![
            busy("a long task"),
            Rule::new(call).user_text("a long task").tool_output(false).times(1).named("call"),
            Rule::new(Turn::text("Second answer.")).user_text("the second turn").named("second"),
            Rule::new(Turn::text("Done in short.")).named("answer"),
        ],
        settings: vec!["model_auto_compact_token_limit=1000"],
        model: None,
        steps: vec![
            step("a long task", "Done in short.", &["long-42"]),
            step("the second turn", "Second answer.", &[]),
        ],
        expect: Expect { requests: 4, bodies: vec!["long-42"], compaction: true, ..Expect::default() },
    };
    Story { scenario, accounts: pool(None), between: Between::Restart }
}

/// A turn whose command ends the proxy that it came through, with a WebSocket open and nothing on it, and with an
/// item that only the second account can read. `kill` is what a shell does that.
#[must_use]
pub fn outlives_a_kill(kill: &str) -> Story {
    let thinks = Item::Reasoning("A command will tell.".into());
    let kills = Turn::of([thinks, Item::Shell(format!("{kill}; echo mark-$((40+2))"))]);
    let mut scenario = call_and_answer("killed", None);
    scenario.rules[0] = Rule::new(kills).user_text("a command").tool_output(false).named("call");
    scenario.rules.insert(0, busy("a command"));
    Story { scenario, accounts: pool(None), between: Between::Nothing }
}

/// Two turns, of which the first leaves an item that only the second account can read: what the mock is told, and
/// its accounts.
#[must_use]
pub fn two_turns() -> (Vec<Rule>, Vec<Account>) {
    let thinks = Turn::of([Item::Reasoning("Hm.".into()), Item::Text("First answer.".into())]);
    let rules = vec![
        busy("the first turn"),
        Rule::new(Turn::text("Second answer.")).user_text("the second turn").named("second"),
        Rule::new(thinks).user_text("the first turn").named("first"),
    ];
    (rules, pool(None))
}

fn step(prompt: &'static str, text: &'static str, commands: &[&'static str]) -> Step {
    Step { prompt, text, commands: commands.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mock_upstream::Script;

    #[test]
    fn every_story_can_be_played_and_checks_something() {
        for story in stories().into_iter().chain([outlives_a_kill("true")]) {
            let script = Script { accounts: story.accounts, ..Script::rules(story.scenario.rules.clone()) };
            script.check().unwrap_or_else(|error| panic!("{}: {error}", story.scenario.name));
            assert!(story.scenario.expect.requests > 0 && !story.scenario.expect.bodies.is_empty());
        }
        let (rules, accounts) = two_turns();
        Script { accounts, ..Script::rules(rules) }.check().unwrap();
    }
}
