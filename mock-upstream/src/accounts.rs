//! The accounts of the mock: who a request comes from, what is left of their quota, and what they own.
//!
//! State only; how a refusal looks on the wire is in `chatgpt`. Without declared accounts every caller is
//! welcome and still owns what it was given, so that a mix-up of two callers is seen either way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub(crate) mod responses;
pub(crate) mod sealed;
pub mod token;

use responses::Responses;
use token::Tokens;

/// An account as a script declares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The account's id, as in `chatgpt-account-id`.
    pub id: String,
    /// Its plan.
    #[serde(default = "Account::default_plan")]
    pub plan: String,
    /// Whether its first access token has expired on the server; the token itself does not show it.
    #[serde(default)]
    pub expired: bool,
    /// The expiry that its tokens state, in seconds since the epoch.
    #[serde(default = "Account::default_expiry")]
    pub expires_at: i64,
    /// The first access token; the mock mints one without it, see [`Account::access_token`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// The first refresh token; the mock mints one without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// A key that acts for the account on the API-key routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// How many turns it may still have before its usage limit is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns_left: Option<u64>,
    /// How much of each window a turn takes, in percent.
    #[serde(default)]
    pub turn_percent: f64,
    /// Its quota windows; at most two are reported, as primary and secondary.
    #[serde(default, rename = "window")]
    pub windows: Vec<Window>,
    /// Where its workspace is served, for `accounts/check`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_origin: Option<String>,
    /// Its routing override, for `accounts/check`.
    #[serde(default = "Account::default_routing")]
    pub routing_override: String,
}

/// A quota window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// How long it is.
    pub seconds: u64,
    /// How much of it is used, in percent.
    #[serde(default)]
    pub used_percent: f64,
    /// In how many seconds from the start of the script it begins anew.
    #[serde(default = "Window::default_reset")]
    pub resets_in: u64,
}

impl Window {
    fn default_reset() -> u64 {
        3600
    }
}

impl Account {
    /// An account with the usual two windows and plenty left.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            plan: Self::default_plan(),
            expired: false,
            expires_at: Self::default_expiry(),
            access_token: None,
            refresh_token: None,
            api_key: None,
            turns_left: None,
            turn_percent: 0.0,
            windows: vec![
                Window { seconds: 5 * 3600, used_percent: 12.0, resets_in: 4 * 3600 },
                Window { seconds: 7 * 24 * 3600, used_percent: 34.0, resets_in: 4 * 24 * 3600 },
            ],
            backend_origin: None,
            routing_override: Self::default_routing(),
        }
    }

    /// Lets the account have only so many turns.
    #[must_use]
    pub fn turns_left(mut self, turns: u64) -> Self {
        self.turns_left = Some(turns);
        self
    }

    /// Lets the first access token be refused until it is refreshed.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.expired = true;
        self
    }

    /// Gives the account a key for the API-key routes.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Lets `accounts/check` send the account's traffic to this origin.
    #[must_use]
    pub fn backend_origin(mut self, origin: impl Into<String>) -> Self {
        self.backend_origin = Some(origin.into());
        self
    }

    /// The access token that the account has at the start.
    #[must_use]
    pub fn access_token(&self) -> String {
        self.access_token.clone().unwrap_or_else(|| token::access(&self.claims(), 0))
    }

    /// The refresh token that the account has at the start.
    #[must_use]
    pub fn refresh_token(&self) -> String {
        self.refresh_token.clone().unwrap_or_else(|| token::refresh(&self.id, 0))
    }

    /// What `auth.json` of a client holds that is logged in as this account.
    #[must_use]
    pub fn auth_json(&self) -> serde_json::Value {
        serde_json::json!({
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": null,
            "tokens": {
                "id_token": token::access(&self.claims(), 0),
                "access_token": self.access_token(),
                "refresh_token": self.refresh_token(),
                "account_id": self.id,
            },
            "last_refresh": rfc3339_now(),
        })
    }

    fn claims(&self) -> token::Claims<'_> {
        token::Claims { account: &self.id, plan: &self.plan, expires_at: self.expires_at }
    }

    pub(crate) fn shares_credential_with(&self, other: &Self) -> bool {
        self.access_token() == other.access_token()
            || self.refresh_token() == other.refresh_token()
            || (self.api_key.is_some() && self.api_key == other.api_key)
    }

    fn default_plan() -> String {
        "plus".into()
    }

    /// Far ahead: 2100-01-01.
    fn default_expiry() -> i64 {
        4_102_444_800
    }

    fn default_routing() -> String {
        "NO_CONSTRAINT".into()
    }
}

fn rfc3339_now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Seconds since the epoch.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A window now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowState {
    /// How long it is, in seconds.
    pub seconds: u64,
    /// How much of it is used, in percent.
    pub used_percent: f64,
    /// When it begins anew, in seconds since the epoch.
    pub resets_at: u64,
}

/// An account now.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountState {
    /// The id.
    pub id: String,
    /// The plan.
    pub plan: String,
    /// The windows.
    pub windows: Vec<WindowState>,
    /// The turns left before the limit.
    pub turns_left: Option<u64>,
    /// How many turns it was given.
    pub turns: u64,
    /// How many requests were refused because its limit was reached.
    pub refusals: u64,
    /// How many times its refresh token was exchanged.
    pub refreshes: u64,
    pub(crate) backend_origin: Option<String>,
    pub(crate) routing_override: String,
}

impl AccountState {
    /// The state of an account to which nothing has happened yet.
    pub(crate) fn fresh(declared: &Account, now: u64) -> Self {
        let window = |window: &Window| WindowState {
            seconds: window.seconds,
            used_percent: window.used_percent,
            resets_at: now + window.resets_in,
        };
        let mut windows: Vec<WindowState> = declared.windows.iter().map(window).collect();
        if declared.turns_left == Some(0)
            && let Some(first) = windows.first_mut()
        {
            first.used_percent = 100.0;
        }
        Self {
            id: declared.id.clone(),
            plan: declared.plan.clone(),
            windows,
            turns_left: declared.turns_left,
            turns: 0,
            refusals: 0,
            refreshes: 0,
            backend_origin: declared.backend_origin.clone(),
            routing_override: declared.routing_override.clone(),
        }
    }

    /// Whether its usage limit is reached.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.turns_left == Some(0) || self.windows.iter().any(|window| window.used_percent >= 100.0)
    }

    /// When the limit is lifted: when the last of the used-up windows begins anew.
    pub(crate) fn resets_at(&self) -> u64 {
        let used_up = self.windows.iter().filter(|window| window.used_percent >= 100.0);
        let first = self.windows.first().map(|window| window.resets_at);
        used_up.map(|window| window.resets_at).max().or(first).unwrap_or_else(|| unix_now() + 3600)
    }
}

/// Why a request is not let in, with the account that its token is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unauthorized {
    /// No token, or one that no account has.
    Unknown,
    /// A token that was valid once.
    Expired(Arc<str>),
    /// The token of another account than the one named.
    Mismatch(Arc<str>),
}

impl Unauthorized {
    pub(crate) fn account(&self) -> Option<Arc<str>> {
        match self {
            Self::Unknown => None,
            Self::Expired(account) | Self::Mismatch(account) => Some(Arc::clone(account)),
        }
    }
}

struct Entry {
    declared: Account,
    state: AccountState,
    tokens: Tokens,
}

/// All accounts, and who owns which response.
pub(crate) struct Accounts {
    entries: Vec<Entry>,
    by_credential: HashMap<String, usize>,
    /// The responses and their owners.
    pub(crate) responses: Responses,
}

impl Accounts {
    pub(crate) fn new(declared: &[Account]) -> Self {
        let now = unix_now();
        let entries: Vec<Entry> = declared.iter().map(|account| Entry::new(account, now)).collect();
        let mut by_credential = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            by_credential.insert(entry.declared.access_token(), at);
            by_credential.extend(entry.declared.api_key.clone().map(|key| (key, at)));
        }
        Self { entries, by_credential, responses: Responses::default() }
    }

    /// Whether no accounts are declared, so that everyone is welcome.
    pub(crate) fn is_open(&self) -> bool {
        self.entries.is_empty()
    }

    /// Who a request with this bearer token and account id comes from.
    pub(crate) fn identify(
        &self,
        bearer: Option<&str>,
        named: Option<&str>,
    ) -> Result<Arc<str>, Unauthorized> {
        if self.is_open() {
            return Ok(named.or(bearer).unwrap_or("anonymous").into());
        }
        let at = bearer.and_then(|bearer| self.by_credential.get(bearer));
        let entry = at.and_then(|at| self.entries.get(*at)).ok_or(Unauthorized::Unknown)?;
        let id: Arc<str> = entry.declared.id.as_str().into();
        if bearer.is_some_and(|bearer| entry.tokens.is_expired(bearer)) {
            return Err(Unauthorized::Expired(id));
        }
        if named.is_some_and(|named| *named != *id) {
            return Err(Unauthorized::Mismatch(id));
        }
        Ok(id)
    }

    /// The account with this id as it is now.
    pub(crate) fn state(&mut self, id: &str) -> Option<AccountState> {
        let entry = self.entry(id)?;
        entry.roll_windows(unix_now());
        Some(entry.state.clone())
    }

    /// The same; of an account that is not declared, the state of a new one.
    pub(crate) fn state_or_fresh(&mut self, id: &str) -> AccountState {
        self.state(id).unwrap_or_else(|| AccountState::fresh(&Account::new(id), unix_now()))
    }

    /// Takes a turn from the account's quota, or says in what state it is that there is none left. An
    /// account that is not declared has no limit.
    pub(crate) fn take_turn(&mut self, id: &str) -> Result<(), Box<AccountState>> {
        let Some(entry) = self.entry(id) else { return Ok(()) };
        entry.roll_windows(unix_now());
        let state = &mut entry.state;
        if state.is_exhausted() {
            state.refusals += 1;
            return Err(Box::new(state.clone()));
        }
        state.turns += 1;
        state.turns_left = state.turns_left.map(|left| left - 1);
        for window in &mut state.windows {
            window.used_percent += entry.declared.turn_percent;
        }
        // The window that the limit belongs to shows it, as the backend's does.
        if state.turns_left == Some(0)
            && let Some(window) = state.windows.first_mut()
        {
            window.used_percent = 100.0;
        }
        Ok(())
    }

    /// Exchanges a refresh token. `None` when it is no account's.
    pub(crate) fn refresh(&mut self, refresh_token: &str) -> Option<Result<token::Grant, token::Reused>> {
        if self.is_open() {
            return Some(Ok(token::Grant::for_anyone(refresh_token)));
        }
        let at = self.entries.iter().position(|entry| entry.tokens.knows_refresh(refresh_token))?;
        let entry = &mut self.entries[at];
        let granted = entry.tokens.exchange(&entry.declared.claims(), refresh_token);
        if let Ok(grant) = &granted {
            entry.state.refreshes += 1;
            self.by_credential.insert(grant.access_token.clone(), at);
        }
        Some(granted)
    }

    /// Lets the access tokens of an account expire. Says whether there is such an account.
    pub(crate) fn expire(&mut self, id: &str) -> bool {
        self.entry(id).map(|entry| entry.tokens.expire()).is_some()
    }

    /// Sets how many turns an account has left; with some left its windows are free again.
    pub(crate) fn set_turns_left(&mut self, id: &str, turns: Option<u64>) -> bool {
        let Some(entry) = self.entry(id) else { return false };
        entry.state.turns_left = turns;
        for window in &mut entry.state.windows {
            window.used_percent = if turns == Some(0) { 100.0 } else { 0.0 };
        }
        true
    }

    fn entry(&mut self, id: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.declared.id == id)
    }
}

impl Entry {
    fn new(declared: &Account, now: u64) -> Self {
        let state = AccountState::fresh(declared, now);
        let tokens = Tokens::new(declared.access_token(), declared.refresh_token(), declared.expired);
        Self { declared: declared.clone(), state, tokens }
    }

    /// Empties the windows whose time has come.
    fn roll_windows(&mut self, now: u64) {
        for (at, window) in self.state.windows.iter_mut().enumerate() {
            if window.resets_at > now {
                continue;
            }
            window.used_percent = 0.0;
            let length = window.seconds.max(1);
            window.resets_at += ((now - window.resets_at) / length + 1) * length;
            if at == 0 && self.state.turns_left == Some(0) {
                self.state.turns_left = self.declared.turns_left.filter(|turns| *turns > 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(declared: &[Account]) -> Accounts {
        Accounts::new(declared)
    }

    #[test]
    fn an_account_is_known_by_its_token_and_id() {
        let (a, b) = (Account::new("a").api_key("key-a"), Account::new("b").expired());
        let accounts = accounts(&[a.clone(), b.clone()]);
        let token = a.access_token();
        assert_eq!(accounts.identify(Some(&token), Some("a")).as_deref(), Ok("a"));
        assert_eq!(accounts.identify(Some(&token), None).as_deref(), Ok("a"));
        assert_eq!(accounts.identify(Some("key-a"), None).as_deref(), Ok("a"));
        assert_eq!(accounts.identify(Some(&token), Some("b")), Err(Unauthorized::Mismatch("a".into())));
        assert_eq!(
            accounts.identify(Some(&b.access_token()), Some("b")),
            Err(Unauthorized::Expired("b".into()))
        );
        assert_eq!(accounts.identify(Some("x"), Some("a")), Err(Unauthorized::Unknown));
        assert_eq!(accounts.identify(None, Some("a")), Err(Unauthorized::Unknown));
    }

    #[test]
    fn without_declared_accounts_everyone_is_welcome() {
        let mut accounts = accounts(&[]);
        assert_eq!(accounts.identify(Some("t"), Some("me")).as_deref(), Ok("me"));
        assert_eq!(accounts.identify(Some("t"), None).as_deref(), Ok("t"));
        assert_eq!(accounts.identify(None, None).as_deref(), Ok("anonymous"));
        assert_eq!(accounts.take_turn("me"), Ok(()));
    }

    #[test]
    fn turns_run_out_and_come_back_with_the_window() {
        let mut accounts = accounts(&[Account::new("a").turns_left(2)]);
        assert_eq!(accounts.take_turn("a"), Ok(()));
        assert_eq!(accounts.take_turn("a"), Ok(()));
        let state = accounts.take_turn("a").unwrap_err();
        assert!(state.is_exhausted() && state.windows[0].used_percent >= 100.0);
        assert_eq!(state.resets_at(), state.windows[0].resets_at);
        let entry = accounts.entry("a").unwrap();
        entry.roll_windows(state.resets_at());
        assert_eq!(accounts.take_turn("a"), Ok(()));
        assert_eq!(accounts.state("a").map(|state| (state.turns, state.refusals)), Some((3, 1)));
    }

    #[test]
    fn a_refresh_token_is_good_for_one_exchange() {
        let account = Account::new("a").expired();
        let mut accounts = accounts(std::slice::from_ref(&account));
        let grant = accounts.refresh(&account.refresh_token()).unwrap().unwrap();
        assert_eq!(accounts.identify(Some(&grant.access_token), Some("a")).as_deref(), Ok("a"));
        assert_eq!(accounts.refresh(&account.refresh_token()), Some(Err(token::Reused)));
        assert!(accounts.refresh(&grant.refresh_token).unwrap().is_ok());
        assert_eq!(accounts.refresh("unknown"), None);
        assert_eq!(accounts.state("a").map(|state| state.refreshes), Some(2));
        assert!(accounts.expire("a"));
        assert_eq!(
            accounts.identify(Some(&grant.access_token), None),
            Err(Unauthorized::Expired("a".into()))
        );
    }
}
