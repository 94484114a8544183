//! Who asks: an account found by its credential once, and then by a look into a table of the thread's own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::Shared;
use super::counters::Account;
use super::request::Head;
use crate::accounts::Unauthorized;
use crate::content::{ACCOUNT, NONCE, TURN_STATE_PREFIX, account_field};

/// An account that was let in.
pub(super) struct Known {
    /// Its name.
    pub(super) name: Arc<str>,
    /// Its name as it stands in a reply.
    pub(super) field: [u8; ACCOUNT],
    /// Its counters.
    pub(super) counts: Arc<Account>,
}

impl Known {
    /// What in a request is another account's: a response that it continues, a sealed item in its input. Both
    /// end with who issued them.
    pub(super) fn misplaced(&self, body: &[u8]) -> Option<Misplaced> {
        let is_foreign = |marker: &[u8]| {
            memchr::memmem::find_iter(body, marker).any(|at| {
                // The nonce, `_`, and the account.
                let account = body.get(at + marker.len() + NONCE + 1..);
                account.and_then(|rest| rest.get(..ACCOUNT)).is_some_and(|account| account != self.field)
            })
        };
        if is_foreign(br#""previous_response_id":"resp_"#) {
            Some(Misplaced::Previous)
        } else {
            is_foreign(br#""encrypted_content":"sealed_"#).then_some(Misplaced::Sealed)
        }
    }

    /// Whether a turn state is another account's.
    pub(super) fn misplaced_state(&self, turn_state: &[u8]) -> Option<Misplaced> {
        let issuer = turn_state.strip_prefix(TURN_STATE_PREFIX.as_bytes())?;
        (issuer != self.field).then_some(Misplaced::TurnState)
    }
}

/// What a request has that another account was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// The response that it continues.
    Previous,
    /// Encrypted content in its input.
    Sealed,
    /// The turn state.
    TurnState,
}

impl Misplaced {
    /// The body of the refusal.
    pub(super) fn body(self) -> &'static str {
        match self {
            Self::Previous => {
                r#"{"error":{"type":"invalid_request_error","code":"previous_response_not_found","message":"The previous response is another account's.","param":"previous_response_id"}}"#
            }
            Self::Sealed => {
                r#"{"error":{"type":"invalid_request_error","code":"invalid_encrypted_content","message":"The encrypted content is another account's."}}"#
            }
            Self::TurnState => {
                r#"{"error":{"type":"invalid_request_error","code":"invalid_turn_state","message":"The turn state is another account's."}}"#
            }
        }
    }
}

/// Most credentials that a thread remembers; with more it begins anew.
const MOST: usize = 4096;

thread_local! {
    /// By the account's name and the credential, with a space between.
    static SEEN: RefCell<HashMap<Vec<u8>, Arc<Known>>> = RefCell::new(HashMap::new());
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Who a request comes from. What is let in once stays let in: a bulk mock's tokens expire only at its start.
pub(super) fn find(shared: &Shared, head: &Head<'_>) -> Result<Arc<Known>, Unauthorized> {
    KEY.with_borrow_mut(|key| {
        key.clear();
        key.extend_from_slice(head.account);
        key.push(b' ');
        key.extend_from_slice(head.bearer);
        SEEN.with_borrow_mut(|seen| {
            if let Some(known) = seen.get(key.as_slice()) {
                return Ok(Arc::clone(known));
            }
            let name = identify(shared, head)?;
            let counts = shared.counters.account(&name);
            let known = Arc::new(Known { field: account_field(name.as_bytes()), name, counts });
            if seen.len() >= MOST {
                seen.clear();
            }
            seen.insert(key.clone(), Arc::clone(&known));
            Ok(known)
        })
    })
}

fn identify(shared: &Shared, head: &Head<'_>) -> Result<Arc<str>, Unauthorized> {
    let text = |bytes| std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty());
    shared.backend().accounts().identify(text(head.bearer), text(head.account))
}
