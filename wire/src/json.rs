//! JSON texts looked at in place: single values found by key, as spans of the original bytes.
//!
//! Bodies and events pass through unparsed; of each a few fields are read. A [`Value`] is a slice of the
//! text, and looking up a key skips over the rest without building anything. Texts are not validated: of
//! a malformed one some value or none is found, and nothing panics. Of duplicate keys the first counts.

use std::borrow::Cow;

/// A value within a JSON text, with whatever follows it in the text.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    /// The text from the first byte of the value on.
    text: &'a [u8],
}

impl<'a> Value<'a> {
    /// The first value of a text.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text: skip_space(text) }
    }

    /// The value of a key of this object.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.entries().find(|(name, _)| name.is_key(key)).map(|(_, value)| value)
    }

    /// The value behind several keys, one object within the other.
    #[must_use]
    pub fn at(self, path: &[&str]) -> Option<Value<'a>> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The keys and values of this object; none if it is not one.
    #[must_use]
    pub fn entries(self) -> Entries<'a> {
        Entries { rest: self.text.strip_prefix(b"{").map(skip_space) }
    }

    /// The elements of this array; none if it is not one.
    #[must_use]
    pub fn elements(self) -> Elements<'a> {
        Elements { rest: self.text.strip_prefix(b"[").map(skip_space) }
    }

    /// The bytes of the value alone; empty if it is cut off or malformed.
    #[must_use]
    pub fn raw(self) -> &'a [u8] {
        let rest = skip_value(self.text).unwrap_or(self.text);
        &self.text[..self.text.len() - rest.len()]
    }

    /// The text of this string.
    #[must_use]
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        let inner = string_inner(self.text)?;
        if memchr::memchr(b'\\', inner).is_none() {
            return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
        }
        serde_json::from_slice(self.raw()).ok().map(Cow::Owned)
    }

    /// This number as an integer.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        std::str::from_utf8(self.raw()).ok()?.parse().ok()
    }

    /// This number.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        let is_number = self.text.first().is_some_and(|first| *first == b'-' || first.is_ascii_digit());
        if is_number { std::str::from_utf8(self.raw()).ok()?.parse().ok() } else { None }
    }

    /// This boolean.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.raw() {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// Whether this is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.raw() == b"null"
    }

    /// Whether this is an object.
    #[must_use]
    pub fn is_object(self) -> bool {
        self.text.first() == Some(&b'{')
    }

    fn is_key(self, key: &str) -> bool {
        let Some(inner) = string_inner(self.text) else { return false };
        if memchr::memchr(b'\\', inner).is_some() {
            return self.as_str().as_deref() == Some(key);
        }
        inner == key.as_bytes()
    }
}

/// The entries of an object, in order.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (Value<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.rest.take()?;
        let behind_key = skip_space(skip_string(key)?);
        let value = skip_space(behind_key.strip_prefix(b":")?);
        // A value that is cut off can still be looked into; nothing follows it.
        self.rest = skip_value(value).and_then(behind_comma);
        Some((Value { text: key }, Value { text: value }))
    }
}

/// The elements of an array, in order.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = self.rest.take().filter(|rest| !rest.is_empty() && !rest.starts_with(b"]"))?;
        self.rest = skip_value(value).and_then(behind_comma);
        Some(Value { text: value })
    }
}

fn behind_comma(text: &[u8]) -> Option<&[u8]> {
    skip_space(text).strip_prefix(b",").map(skip_space)
}

fn skip_space(text: &[u8]) -> &[u8] {
    let space = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    &text[space..]
}

/// What is between the quotes of the string that `text` starts with.
fn string_inner(text: &[u8]) -> Option<&[u8]> {
    let rest = skip_string(text)?;
    Some(&text[1..text.len() - rest.len() - 1])
}

/// The text behind the string that `text` starts with.
fn skip_string(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest)?;
        if rest[at] == b'"' {
            return Some(&rest[at + 1..]);
        }
        rest = rest.get(at + 2..)?;
    }
}

/// The text behind the value that `text` starts with, whatever it is.
fn skip_value(text: &[u8]) -> Option<&[u8]> {
    match text.first()? {
        b'"' => skip_string(text),
        b'{' | b'[' => skip_container(text),
        b',' | b'}' | b']' | b':' => None,
        _ => {
            let end = text.iter().position(|byte| {
                matches!(byte, b',' | b'}' | b']' | b':' | b'"' | b' ' | b'\t' | b'\n' | b'\r')
            });
            Some(&text[end.unwrap_or(text.len())..])
        }
    }
}

/// The text behind an object or array. Brackets are only counted: a mismatch makes the text malformed,
/// and then any answer will do.
fn skip_container(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    let mut depth = 0_usize;
    loop {
        let at = rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))?;
        match rest[at] {
            b'"' => rest = skip_string(&rest[at..])?,
            b'{' | b'[' => {
                depth += 1;
                rest = &rest[at + 1..];
            }
            _ => {
                depth -= 1;
                rest = &rest[at + 1..];
                if depth == 0 {
                    return Some(rest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_found_by_key() {
        let text = br#" {"a" : {"x":[1,{"id":"no"}],"id":"yes\n"}, "b\u0062":true,"n":-12.5,"z":null}"#;
        let value = Value::new(text);
        assert_eq!(value.at(&["a", "id"]).unwrap().as_str().unwrap(), "yes\n");
        assert_eq!(value.get("bb").unwrap().as_bool(), Some(true));
        assert_eq!(value.get("n").unwrap().as_f64(), Some(-12.5));
        assert!(value.get("z").unwrap().is_null());
        assert!(value.get("id").is_none());
        assert_eq!(value.at(&["a", "x"]).unwrap().raw(), br#"[1,{"id":"no"}]"#);
        assert_eq!(value.at(&["a", "x"]).unwrap().elements().count(), 2);
        let escaped = Value::new(br#"{"\\":1,"\\\\":2}"#);
        assert_eq!(escaped.get(r"\\").unwrap().as_i64(), Some(2), "keys are compared unescaped");
        assert_eq!(Value::new(b"[]").elements().count(), 0);
        assert_eq!(Value::new(b"{}").entries().count(), 0);
    }

    #[test]
    fn the_start_of_a_cut_text_can_be_read() {
        let value = Value::new(br#"{"type":"response.completed","response":{"id":"r1","output":[{"te"#);
        assert_eq!(value.get("type").unwrap().as_str().unwrap(), "response.completed");
        assert_eq!(value.at(&["response", "id"]).unwrap().as_str().unwrap(), "r1");
        assert!(value.at(&["response", "usage"]).is_none());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "(?s).{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map("[a-c\"\\\\\n]{0,3}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Compares everything reachable through views with what serde_json read.
    fn assert_same(view: Value<'_>, value: &serde_json::Value) {
        match value {
            serde_json::Value::Null => assert!(view.is_null()),
            serde_json::Value::Bool(expected) => assert_eq!(view.as_bool(), Some(*expected)),
            serde_json::Value::Number(expected) => assert_eq!(view.as_i64(), expected.as_i64()),
            serde_json::Value::String(expected) => assert_eq!(view.as_str().as_deref(), Some(&**expected)),
            serde_json::Value::Array(expected) => {
                assert_eq!(view.elements().count(), expected.len());
                view.elements().zip(expected).for_each(|(view, value)| assert_same(view, value));
            }
            serde_json::Value::Object(expected) => {
                assert_eq!(view.entries().count(), expected.len());
                for (key, value) in expected {
                    assert_same(view.get(key).unwrap(), value);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_value_of_a_text_is_found(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            assert_same(Value::new(text.as_bytes()), &value);
            prop_assert_eq!(Value::new(text.as_bytes()).raw(), text.as_bytes());
        }

        #[test]
        fn any_bytes_can_be_looked_at(bytes in prop::collection::vec(
            prop_oneof![prop::sample::select(b"{}[]\":,\\ a1".to_vec()), any::<u8>()], 0..60)
        ) {
            let value = Value::new(&bytes);
            let _ = (value.raw(), value.as_str(), value.as_f64(), value.at(&["a", "a"]).map(Value::raw));
            prop_assert!(value.entries().count() <= bytes.len());
            prop_assert!(value.elements().count() <= bytes.len());
        }
    }
}
