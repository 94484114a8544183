//! What holds of a pool: conversations stay with their account, and nothing of one account reaches another.
//!
//! Which account a request is for is known by the credentials on it and by nothing else.

use std::collections::HashMap;

use mock_upstream::playback::{Ask, held_beginning};
use serde::{Deserialize, Serialize};
use wire::capture::{Answer, Direction, Exchange, Headers, StreamEnd};
use wire::header::{Carries, TABLE};

use super::{Case, Check, Expect, Findings};
use crate::replay::Recording;

/// An account of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name, for findings.
    pub name: String,
    /// What only its own requests may hold: its access token, its account id.
    pub credentials: Vec<String>,
}

impl Account {
    /// Whether a value holds credentials of this account.
    #[must_use]
    pub fn owns(&self, value: impl AsRef<[u8]>) -> bool {
        let value = value.as_ref();
        let is_in = |credential: &String| memchr::memmem::find(value, credential.as_bytes()).is_some();
        self.credentials.iter().any(|credential| !credential.is_empty() && is_in(credential))
    }
}

/// Paths that a pooling proxy asks for on its own account.
const OWN_QUESTIONS: &[&str] =
    &["/wham/accounts/check", "/accounts/check", "/wham/usage", "/oauth/token", "/usage"];

/// Whether a pooling proxy may ask this without any client.
pub(super) fn is_own_question(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    OWN_QUESTIONS.iter().any(|own| path.ends_with(own))
}

/// Whether a pooling proxy answers this itself: which workspaces there are is what it stands in for.
pub(super) fn answers_itself(url: &str) -> bool {
    url.split('?').next().unwrap_or_default().ends_with("/accounts/check")
}

/// Whether a client asks this without credentials, so that a proxy may leave it so.
pub(super) fn goes_without(headers: &Headers) -> bool {
    !headers.iter().any(|(name, _)| {
        ["authorization", "x-api-key", "x-goog-api-key"].iter().any(|field| name.eq_ignore_ascii_case(field))
    })
}

/// How often this exchange may reach the upstream: again where nothing of its answer was output.
pub(super) fn most_asks(exchange: &Exchange, expect: &Expect) -> usize {
    let Expect::Pooled { accounts } = expect else { return 1 };
    // Twice each: a refused token is renewed, and a broken connection is opened anew.
    let again = 2 * accounts.len().max(1);
    match &exchange.answer {
        None => again,
        Some(answer) if answer.status >= 400 => again,
        Some(answer) if answer.status == 101 || is_without_output(answer) => again,
        Some(_) => 1,
    }
}

/// Whether the answer may be the proxy's own: an account's refusal is not the client's business, nor is a
/// connection that broke before anything was output.
pub(super) fn may_answer(case: &Case<'_>, status: u16) -> bool {
    if !case.expect.is_pooled() {
        return false;
    }
    let Some(answer) = &case.exchange.answer else { return true };
    let is_refusal = matches!(answer.status, 401 | 402 | 403 | 429);
    status >= 400 && (is_refusal || is_without_output(answer))
}

/// Whether a stream, or what came of a broken answer, shows a client nothing, so that another account may be
/// asked.
fn is_without_output(answer: &Answer) -> bool {
    let may_be_held = answer.is_stream || answer.end != StreamEnd::Eof;
    may_be_held && held_beginning(answer) >= answer.body.len() as u64
}

/// Whether an account is refused on a WebSocket: what the client then sees, and what another account is
/// asked, is the pool's to say.
pub(super) fn is_refused_in_messages(case: &Case<'_>) -> bool {
    case.expect.is_pooled() && says_refusal(case.exchange)
}

fn says_refusal(exchange: &Exchange) -> bool {
    let is_refusal =
        |payload: &[u8]| REFUSALS.iter().any(|mark| memchr::memmem::find(payload, mark.as_bytes()).is_some());
    let mut messages = exchange.messages.iter();
    messages.any(|message| message.direction == Direction::UpstreamToClient && is_refusal(&message.payload))
}

/// What refusals and failures look like among the messages of Codex's backend.
const REFUSALS: &[&str] = &["\"type\":\"error\"", "\"type\": \"error\"", "response.failed"];

pub(super) fn judge(
    exchanges: &[Exchange],
    recording: &Recording,
    accounts: &[Account],
    findings: &mut Findings,
) {
    let mut ledger = Ledger::default();
    for ask in &recording.upstream.asks {
        findings.exchange = ask.exchange;
        let owners: Vec<&Account> = accounts
            .iter()
            .filter(|account| {
                ask.headers.iter().any(|(_, value)| account.owns(value)) || in_body(account, ask)
            })
            .collect();
        if let [one, other, ..] = owners[..] {
            let problem = format!("credentials of {} and of {} are on one request", one.name, other.name);
            findings.text(Check::NoCrossAccountLeak, &problem, &one.name, &other.name);
        }
        let Some(account) = owners.first() else { continue };
        ledger.check(ask, account, findings);
        let exchange = exchanges.iter().find(|exchange| Some(exchange.id) == ask.exchange);
        if let Some(exchange) = exchange {
            ledger.enter(exchange, ask, account);
        }
    }
    for seen in &recording.client {
        findings.exchange = Some(seen.exchange);
        let fields = seen.headers.iter().map(|(_, value)| value.as_bytes());
        let messages = seen.messages.iter().filter(|heard| heard.direction == Direction::UpstreamToClient);
        let messages = messages.map(|heard| &heard.payload.0[..]);
        let mut texts = fields.chain(messages).chain([&seen.body.0[..]]);
        let leaked = texts.find_map(|text| accounts.iter().find(|account| account.owns(text)));
        if let Some(account) = leaked {
            let problem = format!("credentials of {} reached the client", account.name);
            findings.text(Check::NoCrossAccountLeak, &problem, "", &account.name);
        }
    }
    findings.exchange = None;
}

fn in_body(account: &Account, ask: &Ask) -> bool {
    let messages = ask.messages.iter().filter(|heard| heard.direction == Direction::ClientToUpstream);
    std::iter::once(&ask.body.0)
        .chain(messages.map(|heard| &heard.payload.0))
        .any(|bytes| account.owns(bytes))
}

/// Whose each conversation, response, turn state and cookie is.
#[derive(Default)]
struct Ledger {
    /// By field and value, the account that has it now.
    conversations: HashMap<(String, String), String>,
    /// By id, all accounts that have given it out: a record that is played to two gives both the same.
    responses: HashMap<String, Vec<String>>,
    /// Turn states and cookies, likewise.
    secrets: HashMap<String, Vec<String>>,
}

impl Ledger {
    fn check(&self, ask: &Ask, account: &Account, findings: &mut Findings) {
        let is_others = |owners: &&Vec<String>| !owners.contains(&account.name);
        let texts = texts(ask);
        for id in texts.iter().flat_map(|text| marked(text, "\"previous_response_id\":")) {
            let owner = self.responses.get(&id).filter(is_others).and_then(|owners| owners.first());
            Self::moved(owner, account, &format!("response {id}"), findings);
        }
        let fields = ask.headers.iter().map(|(_, value)| value.as_bytes());
        let said: Vec<&[u8]> = fields.chain(texts.iter().map(|text| &text[..])).collect();
        for (secret, owners) in self.secrets.iter().filter(|(_, owners)| is_others(owners)) {
            if said.iter().any(|text| memchr::memmem::find(text, secret.as_bytes()).is_some()) {
                let owner = owners.first().map_or("", String::as_str);
                let problem = format!("{secret} of {owner} went to {}", account.name);
                findings.text(Check::NoCrossAccountLeak, &problem, owner, &account.name);
            }
        }
        for (name, value) in conversations(ask) {
            let key = (name.to_ascii_lowercase(), value.clone());
            let owner = self.conversations.get(&key).filter(|owner| **owner != account.name);
            Self::moved(owner, account, &format!("{name} {value}"), findings);
        }
    }

    fn moved(owner: Option<&String>, account: &Account, what: &str, findings: &mut Findings) {
        if let Some(owner) = owner {
            let problem = format!("{what} is {owner}'s and went to {}", account.name);
            findings.text(Check::ContinuationOwner, &problem, owner, &account.name);
        }
    }

    fn enter(&mut self, exchange: &Exchange, ask: &Ask, account: &Account) {
        let Some(answer) = &exchange.answer else { return };
        // Whoever has been refused may be sent elsewhere.
        let is_refused = answer.status >= 400 || is_without_output(answer) || says_refusal(exchange);
        for (name, value) in conversations(ask) {
            let key = (name.to_ascii_lowercase(), value.clone());
            if is_refused {
                self.conversations.remove(&key);
            } else {
                self.conversations.insert(key, account.name.clone());
            }
        }
        for (name, value) in &answer.headers {
            let secret = match &*name.to_ascii_lowercase() {
                "x-codex-turn-state" => value.clone(),
                "set-cookie" => value.split(';').next().unwrap_or_default().to_owned(),
                _ => continue,
            };
            // Shorter ones are found where nobody has put them.
            if secret.len() >= 8 {
                self.secrets.entry(secret).or_default().push(account.name.clone());
            }
        }
        let sent = ask.messages.iter().filter(|heard| heard.direction == Direction::UpstreamToClient);
        let sent = std::iter::once(&answer.body).chain(sent.map(|heard| &heard.payload.0));
        for id in sent.flat_map(|bytes| marked(bytes, "\"id\":")).filter(|id| id.starts_with("resp")) {
            self.responses.entry(id).or_default().push(account.name.clone());
        }
    }
}

/// The fields by which a request belongs to a conversation. What is only asked about one belongs to none.
fn conversations(ask: &Ask) -> impl Iterator<Item = &(String, String)> {
    let belongs = ask.method == "POST" || ask.header("upgrade").is_some();
    ask.headers.iter().filter(move |(name, _)| belongs && is_conversation(name))
}

/// Whether a field names a conversation.
fn is_conversation(name: &str) -> bool {
    let is_affinity = |name: &str| {
        TABLE.iter().any(|entry| entry.carries == Carries::Affinity && entry.name.eq_ignore_ascii_case(name))
    };
    is_affinity(name) && !name.eq_ignore_ascii_case("x-codex-turn-state")
}

/// What the client said in a request: its body, decoded, or its messages.
fn texts(ask: &Ask) -> Vec<std::borrow::Cow<'_, [u8]>> {
    let body = match ask.header("content-encoding") {
        Some("zstd") => zstd::decode_all(&ask.body.0[..]).unwrap_or_default().into(),
        _ => ask.body.0.as_slice().into(),
    };
    let messages = ask.messages.iter().filter(|heard| heard.direction == Direction::ClientToUpstream);
    std::iter::once(body).chain(messages.map(|heard| heard.payload.0.as_slice().into())).collect()
}

/// The strings behind each occurrence of a key.
fn marked(text: &[u8], key: &str) -> Vec<String> {
    let behind = memchr::memmem::find_iter(text, key).map(|at| text[at + key.len()..].trim_ascii_start());
    let string = |rest: &[u8]| {
        let rest = rest.strip_prefix(b"\"")?;
        Some(String::from_utf8_lossy(&rest[..memchr::memchr(b'"', rest)?]).into_owned())
    };
    behind.filter_map(string).collect()
}
