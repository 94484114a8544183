//! Values that only their issuer can read: turn states and encrypted content.
//!
//! To a client they are opaque; the mock finds the account in them, so that a value that reaches another
//! account than its own is noticed without remembering what was issued.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    TurnState,
    Content,
}

impl Kind {
    fn tag(self) -> &'static str {
        match self {
            Self::TurnState => "mock-turn",
            Self::Content => "mock-content",
        }
    }
}

/// A value for an account; `n` makes it another one each time.
pub(crate) fn seal(kind: Kind, account: &str, n: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}|{n:x}|{account}", kind.tag()))
}

/// The account that a value was sealed for, if it was sealed here.
pub(crate) fn open(kind: Kind, value: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
    let (_, account) = text.strip_prefix(kind.tag())?.strip_prefix('|')?.split_once('|')?;
    Some(account.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sealed_value_names_its_account() {
        for account in ["a", "x|y", ""] {
            let value = seal(Kind::TurnState, account, 7);
            assert_eq!(open(Kind::TurnState, &value).as_deref(), Some(account));
            assert_eq!(open(Kind::Content, &value), None);
        }
        assert_ne!(seal(Kind::Content, "a", 1), seal(Kind::Content, "a", 2));
        assert_eq!(open(Kind::Content, "something else"), None);
    }

    proptest! {
        #[test]
        fn every_account_is_read_back(account in "\\PC{0,40}", n in any::<u64>(), other in "\\PC{0,60}") {
            let value = seal(Kind::Content, &account, n);
            prop_assert_eq!(open(Kind::Content, &value), Some(account));
            let _ = open(Kind::TurnState, &other);
        }
    }
}
