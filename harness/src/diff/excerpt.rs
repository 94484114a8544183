//! The bytes around the first difference of two texts, for a view side by side.

use serde::{Deserialize, Serialize};
use wire::capture::Payload;

/// Some bytes of a whole, and where in it they lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The bytes.
    pub bytes: Payload,
    /// Where they begin in the whole.
    pub offset: u64,
    /// How long the whole is.
    pub length: u64,
}

/// Bytes shown before the first difference.
const BEFORE: usize = 48;

/// Bytes shown from the first difference on.
const BEHIND: usize = 80;

impl Excerpt {
    /// All of a short text.
    #[must_use]
    pub fn whole(text: &str) -> Self {
        Self::around(text.as_bytes(), 0)
    }

    fn around(bytes: &[u8], at: usize) -> Self {
        let begin = at.saturating_sub(BEFORE).min(bytes.len());
        let end = (at + BEHIND).min(bytes.len());
        let piece = Payload(bytes[begin..end.max(begin)].to_vec());
        Self { bytes: piece, offset: begin as u64, length: bytes.len() as u64 }
    }
}

/// Where two texts begin to differ; none when they are equal.
#[must_use]
pub fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    // Equal texts are the rule, and are compared at once.
    if one == other {
        return None;
    }
    let common = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    (common < one.len() || common < other.len()).then_some(common)
}

/// Excerpts of both around their first difference, and where it is; none when they are equal.
#[must_use]
pub fn differ(expected: &[u8], seen: &[u8]) -> Option<(usize, Excerpt, Excerpt)> {
    let at = first_difference(expected, seen)?;
    Some((at, Excerpt::around(expected, at), Excerpt::around(seen, at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_texts_do_not_differ_and_a_prefix_differs_at_its_end() {
        assert_eq!(differ(b"ab", b"ab"), None);
        let (at, expected, seen) = differ(b"abc", b"ab").unwrap();
        assert_eq!((at, expected.length, seen.bytes.0), (2, 3, b"ab".to_vec()));
    }

    proptest! {
        #[test]
        fn both_excerpts_show_the_difference_in_its_place(
            common in prop::collection::vec(any::<u8>(), 0..200),
            one in prop::collection::vec(any::<u8>(), 0..200),
            other in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let (one, other) = ([common.clone(), one].concat(), [common, other].concat());
            let Some((at, left, right)) = differ(&one, &other) else {
                prop_assert_eq!(one, other);
                return Ok(());
            };
            prop_assert_eq!(&one[..at], &other[..at]);
            prop_assert_ne!(one.get(at), other.get(at));
            prop_assert_eq!(left.offset, right.offset);
            prop_assert_eq!(one.get(at), left.bytes.0.get(at - left.offset as usize));
            prop_assert_eq!(other.get(at), right.bytes.0.get(at - right.offset as usize));
        }
    }
}
