//! Logins that take the place of a profile's old one: only those of the same account do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, read_auth};
use crate::profile::credentials::{Credentials, Kind};

/// How long a renewal that is under way is waited for: longer than one takes.
const LEASE: Duration = Duration::from_secs(30);

/// Whose login a profile had that is logged out. None of it is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedOut {
    /// The kind of its credentials.
    pub kind: String,
    /// The account of a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// The person of a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl From<&Credentials> for LoggedOut {
    fn from(credentials: &Credentials) -> Self {
        let login = credentials.login();
        Self {
            kind: credentials.kind().name().to_owned(),
            account_id: login.map(|login| login.account_id.clone()),
            email: login.and_then(|login| login.email.clone()),
        }
    }
}

impl LoggedOut {
    /// Whether these credentials are of the same account.
    fn is_of(&self, credentials: &Credentials) -> bool {
        let other = Self::from(credentials);
        let are_known = self.email.is_some() && other.email.is_some();
        self.kind == other.kind
            && self.account_id == other.account_id
            && (!are_known || self.email == other.email)
    }
}

/// What became of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoggedIn {
    /// It is a profile now.
    Added,
    /// It has taken the place of the profile's old one.
    Renewed,
}

impl Store {
    /// Makes the text of an `auth.json` a profile, or the login of the profile with this name.
    ///
    /// # Errors
    /// When it holds no credentials, those of another account, or of one that another profile has; when the
    /// disk refuses.
    pub fn log_in(&self, name: &str, auth: &str) -> Result<LoggedIn, StoreError> {
        let about = match self.read_about(name) {
            Ok(about) => about,
            Err(StoreError::Missing(_)) => return self.add(name, auth, None).map(|_| LoggedIn::Added),
            Err(error) => return Err(error),
        };
        let credentials = Credentials::parse(auth)
            .map_err(|source| StoreError::Credentials { path: "the new login".into(), source })?;
        // A renewal that is under way ends first: what it writes is older than this.
        let _lease = self.lease(name, LEASE)?;
        let path = self.directory(name)?.join(super::AUTH_FILE);
        let is_same = match (read_auth(&path), &about.logged_out) {
            (Ok((_, stored)), _) => stored.is_same_account(&credentials),
            (Err(_), Some(logged_out)) => logged_out.is_of(&credentials),
            // Whose it was nobody knows any more; the person says whose it is.
            (Err(_), None) => true,
        };
        if !is_same {
            return Err(StoreError::OtherAccount { name: name.to_owned() });
        }
        self.replace_auth(name, auth)?;
        self.change_about(name, |about| about.logged_out = None)?;
        Ok(LoggedIn::Renewed)
    }
}

impl Store {
    /// The profile that has a login of this account, if one has.
    ///
    /// # Errors
    /// When the profiles cannot be listed.
    pub fn account_holder(&self, credentials: &Credentials) -> Result<Option<String>, StoreError> {
        let has = |name: &String| self.read(name).is_ok_and(|stored| stored.credentials.is_same(credentials));
        Ok(self.names()?.into_iter().find(has))
    }

    /// The same, or the profile that had it until it was logged out.
    ///
    /// # Errors
    /// When the profiles cannot be listed.
    pub fn account_profile(&self, credentials: &Credentials) -> Result<Option<String>, StoreError> {
        let holder = self.account_holder(credentials)?;
        let had = |name: &String| {
            let whose = self.read_about(name).ok().and_then(|about| about.logged_out);
            // Of a key only the kind is kept, which says nothing.
            whose.is_some_and(|whose| whose.account_id.is_some() && whose.is_of(credentials))
        };
        Ok(holder.or(self.names()?.into_iter().find(had)))
    }
}

impl Credentials {
    /// Whether these are certainly of the same account: of two keys, if they are the same key.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.kind(), other.kind()) {
            (Kind::OpenAiKey, Kind::OpenAiKey) => self.bearer() == other.bearer(),
            _ => self.is_same_account(other),
        }
    }
}
