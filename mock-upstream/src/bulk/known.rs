//! Who asks: an account found by its credential once, and then by a look into a table of the thread's own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::Shared;
use super::counters::Account;
use super::request::Head;
use crate::accounts::Unauthorized;
use crate::content::{ACCOUNT, account_field};

/// An account that was let in.
pub(super) struct Known {
    /// Its name.
    pub(super) name: Arc<str>,
    /// Its name as it stands in a reply.
    pub(super) field: [u8; ACCOUNT],
    /// Its counters.
    pub(super) counts: Arc<Account>,
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
