//! Paths of the repository: from its root, separated by `/`, without `.`, `..` or empty parts.

use std::fmt;

use serde::Serialize;

/// A path inside the repository, in the one spelling that rules are compared with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RepoPath(String);

/// Why a text is no path of the repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It starts at the root of the file system.
    #[error("`{0}` is absolute: give a path from the root of the checkout")]
    Absolute(String),
    /// It has more `..` than folders to leave.
    #[error("`{0}` leaves the checkout")]
    Escapes(String),
    /// Nothing is left of it, so it names no file.
    #[error("`{0}` names no file")]
    Empty(String),
}

impl RepoPath {
    /// Reads a path as a person types it; `docs/../proxy/x.rs` is `proxy/x.rs`.
    ///
    /// # Errors
    ///
    /// When the path is absolute, leaves the checkout on its way, or names the checkout itself.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.starts_with('/') {
            return Err(Error::Absolute(text.to_owned()));
        }
        let mut parts = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or_else(|| Error::Escapes(text.to_owned()))?;
                }
                part => parts.push(part),
            }
        }
        if parts.is_empty() { Err(Error::Empty(text.to_owned())) } else { Ok(Self(parts.join("/"))) }
    }

    /// A path as git lists it, for which there is nothing to resolve. `..` is no name git would list.
    pub(crate) fn listed(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepoPath {
    /// The path on one line, whatever its characters are: a name may hold a line end.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_control() {
                write!(formatter, "{}", character.escape_default())?;
            } else {
                write!(formatter, "{character}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        for text in ["proxy/x.rs", "docs/../proxy/x.rs", "./proxy//x.rs", "proxy/./a/../x.rs"] {
            assert_eq!(RepoPath::parse(text).map(|path| path.0), Ok("proxy/x.rs".to_owned()), "{text}");
        }
    }

    #[test]
    fn a_path_outside_the_checkout_is_refused() {
        for text in ["../x", "a/../../x", "docs/../../prodex/x", ".."] {
            assert_eq!(RepoPath::parse(text), Err(Error::Escapes(text.to_owned())));
        }
        assert_eq!(RepoPath::parse("/etc/passwd"), Err(Error::Absolute("/etc/passwd".to_owned())));
        for text in ["", ".", "a/.."] {
            assert_eq!(RepoPath::parse(text), Err(Error::Empty(text.to_owned())));
        }
    }

    #[test]
    fn a_path_is_shown_on_one_line() {
        assert_eq!(RepoPath::listed("a\nheavy=false").to_string(), "a\\nheavy=false");
    }

    proptest! {
        #[test]
        fn what_was_parsed_parses_to_itself(text in "[a./\\n-]{0,20}") {
            if let Ok(path) = RepoPath::parse(&text) {
                prop_assert_eq!(RepoPath::parse(path.as_str()), Ok(path.clone()));
                prop_assert!(path.0.split('/').all(|part| !["", ".", ".."].contains(&part)));
            }
        }
    }
}
