//! What the mock is told to be and to answer: accounts, and rules that match requests and give replies.
//!
//! Only the shape of a script is here and in `script/reply.rs`; what a rule matches is in `script/select.rs`,
//! what a reply becomes on the wire in `chatgpt`. A script is TOML or JSON; unknown keys are errors that name their place, so
//! that a typing error never makes a rule silently weaker.

use serde::{Deserialize, Serialize};

use crate::accounts::Account;
use crate::fault::Fault;
use crate::pacing::Pacing;

mod load;
mod reply;
pub(crate) mod select;

pub use load::ScriptError;
pub use reply::{Call, CustomCall, Frame, Framing, Http, Item, Reply, Stream, Turn, TurnEnd, Usage, Write};

/// Everything the mock is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The accounts that exist. Without any, every caller is welcome: the account is then the one the
    /// request names, or its key.
    #[serde(default, rename = "account")]
    pub accounts: Vec<Account>,
    /// The rules, tried in order; the first that matches answers. Behind them stand the built-in ones.
    #[serde(default, rename = "rule")]
    pub rules: Vec<Rule>,
    /// How replies are paced that do not say it themselves.
    #[serde(default)]
    pub pacing: Pacing,
    /// Where a response can be continued.
    #[serde(default)]
    pub continuation: Continuation,
}

impl Script {
    /// A script of these rules and no accounts.
    #[must_use]
    pub fn rules(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { rules: rules.into_iter().collect(), ..Self::default() }
    }

    /// Adds an account.
    #[must_use]
    pub fn account(mut self, account: Account) -> Self {
        self.accounts.push(account);
        self
    }

    /// Adds a rule behind those that are there.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }
}

/// Where `previous_response_id` is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Continuation {
    /// On every connection of the account that got the response.
    #[default]
    Account,
    /// Only on the WebSocket that the response was sent on, as the backend does it for `store: false`.
    Connection,
}

/// When a rule applies and what it answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What the journal calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which requests it matches.
    #[serde(default)]
    pub when: When,
    /// How many matching requests pass by before it answers.
    #[serde(default)]
    pub skip: u64,
    /// How many it answers; all without a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// What it answers.
    pub reply: Reply,
    /// How the reply is paced; the script's pacing without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pacing: Option<Pacing>,
    /// What goes wrong with the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

impl Rule {
    /// A rule that answers every model request.
    #[must_use]
    pub fn new(reply: impl Into<Reply>) -> Self {
        Self {
            name: None,
            when: When::default(),
            skip: 0,
            times: None,
            reply: reply.into(),
            pacing: None,
            fault: None,
        }
    }

    /// Gives the rule a name for the journal.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Replaces what the rule matches.
    #[must_use]
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// Only requests whose last user message contains `text`.
    #[must_use]
    pub fn user_text(mut self, text: impl Into<String>) -> Self {
        self.when.user_text = Some(text.into());
        self
    }

    /// Only requests that do, or do not, carry a tool's output behind the last user message.
    #[must_use]
    pub fn tool_output(mut self, present: bool) -> Self {
        self.when.has_tool_output = Some(present);
        self
    }

    /// Only requests of this account.
    #[must_use]
    pub fn account(mut self, id: impl Into<String>) -> Self {
        self.when.account = Some(id.into());
        self
    }

    /// Only requests made this way.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.when.transport = Some(transport);
        self
    }

    /// Only this call instead of model requests.
    #[must_use]
    pub fn call(mut self, call: CallName) -> Self {
        self.when.call = call;
        self
    }

    /// Answers only so many matching requests.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Answers only the `n`-th matching request, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.skip = n.saturating_sub(1);
        self.times = Some(1);
        self
    }

    /// Paces the reply.
    #[must_use]
    pub fn pacing(mut self, pacing: Pacing) -> Self {
        self.pacing = Some(pacing);
        self
    }

    /// Lets something go wrong with the reply.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }
}

/// Which requests a rule matches: those for which everything that is given holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// What is called.
    pub call: CallName,
    /// How a model request is made. Without it, over HTTP and as a WebSocket message, but not the
    /// handshake.
    pub transport: Option<Transport>,
    /// Whether the request only warms a WebSocket up. Rules leave warm-ups alone unless they say so.
    pub warm_up: bool,
    /// The id of the account that asks.
    pub account: Option<String>,
    /// What the last user message contains.
    pub user_text: Option<String>,
    /// Whether a tool's output comes behind the last user message.
    pub has_tool_output: Option<bool>,
    /// The type of the last input item. Rules leave a `compaction_trigger` alone unless they name it.
    pub last_item: Option<String>,
    /// The model that is asked.
    pub model: Option<String>,
    /// What the request target contains.
    pub target: Option<String>,
    /// What the decoded body contains.
    pub body: Option<String>,
}

/// The calls that a rule can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of wire::route::Call, where they are explained")]
pub enum CallName {
    #[default]
    Responses,
    Compact,
    Models,
    AccountsCheck,
    Usage,
    Settings,
    Plugins,
    Mcp,
    Analytics,
    Auxiliary,
    /// The OAuth refresh.
    Token,
    /// A path that no known client calls.
    Unknown,
}

/// How a model request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A POST, answered with a stream of events.
    Http,
    /// A `response.create` message on a WebSocket.
    Websocket,
    /// The handshake that opens a WebSocket.
    Upgrade,
}
