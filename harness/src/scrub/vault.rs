//! The sensitive values of a session and their placeholders: one value one placeholder.
//!
//! Values come in while the session is learnt; then they get numbers, in the order of their appearance, and
//! an automaton that finds them all in a text at once. Where values stand is the walker's business.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind};
use ring::digest::{SHA256, digest};

use super::placeholder::{self, Bucket, Shape};
use super::rules::Rule;
use super::time;

/// Values of this session, as they are learnt.
#[derive(Debug, Default)]
pub(super) struct Vault {
    entries: Vec<Entry>,
    index: HashMap<Box<[u8]>, u32, BuildHasherDefault<Fast>>,
    reserved: HashMap<Bucket, BTreeSet<u64>>,
    first_time: Option<i64>,
    automaton: Option<AhoCorasick>,
    /// For each pattern of the automaton, its entry.
    patterns: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    rule: Rule,
    shape: Shape,
    bucket: Bucket,
    number: u64,
    /// The value, or nothing if it is too long to be looked for.
    value: Box<[u8]>,
    place: String,
}

/// A value has too few letters and digits for its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoRoom {
    pub(super) rule: Rule,
    pub(super) place: String,
}

/// Longer values are not looked for outside their own places.
const LONGEST: usize = 8 * 1024;

/// Words that fields of ids hold without naming anyone.
const WORDS: &[&str] = &[
    "true",
    "false",
    "null",
    "none",
    "default",
    "auto",
    "user",
    "assistant",
    "system",
    "developer",
    "model",
    "admin",
    "root",
    "test",
    "unknown",
    "standard",
    "priority",
    "localhost",
    "undefined",
    "global",
    "personal",
    "team",
    "codex",
    "primary",
    "secondary",
    "anonymous",
    "content",
    "text",
    "message",
    "session",
    "thread",
    "account",
];

impl Vault {
    /// Takes a value down. Placeholders keep their numbers for themselves.
    pub(super) fn learn(&mut self, rule: Rule, value: &[u8], place: impl FnOnce() -> String) {
        if !is_value(value) || self.find(value).is_some() {
            return;
        }
        let shape = placeholder::shape(rule, value);
        let bucket = shape.bucket(value);
        if let Some(number) = shape.number(value) {
            self.reserved.entry(bucket).or_default().insert(number);
            return;
        }
        let kept = if value.len() > LONGEST { Box::default() } else { value.into() };
        let at = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.index.insert(key(shape, value), at);
        self.entries.push(Entry { rule, shape, bucket, number: 0, value: kept, place: place() });
    }

    /// Takes a time down.
    pub(super) fn learn_time(&mut self, text: &[u8]) {
        if self.first_time.is_none() {
            self.first_time = time::seconds(text);
        }
    }

    /// Gives every value its number, and makes ready for looking.
    pub(super) fn finish(&mut self) -> Result<(), NoRoom> {
        let mut last: HashMap<Bucket, u64> = HashMap::new();
        for entry in &mut self.entries {
            let number = last.entry(entry.bucket.clone()).or_default();
            let reserved = self.reserved.get(&entry.bucket);
            *number += 1;
            while reserved.is_some_and(|reserved| reserved.contains(number)) {
                *number += 1;
            }
            entry.number = *number;
            if !entry.value.is_empty() && entry.shape.write(entry.number, &mut entry.value.to_vec()).is_err()
            {
                return Err(NoRoom { rule: entry.rule, place: entry.place.clone() });
            }
        }
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for (at, entry) in self.entries.iter().enumerate().filter(|(_, entry)| spreads(entry)) {
            for text in spellings(entry) {
                texts.push(text);
                self.patterns.push(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        self.automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts).ok();
        Ok(())
    }

    fn find(&self, value: &[u8]) -> Option<u32> {
        if let Some(at) = self.index.get(value) {
            return Some(*at);
        }
        let is_folded = value.len() == 36 || value.contains(&b'@');
        if value.len() > LONGEST || (is_folded && value.iter().any(u8::is_ascii_uppercase)) {
            return self.index.get(&fold(value)).copied();
        }
        None
    }

    /// Writes the placeholder of a value over it; says its rule. None if it was never learnt.
    pub(super) fn replace(&self, value: &mut [u8]) -> Option<Result<Rule, NoRoom>> {
        let entry = &self.entries[self.find(value)? as usize];
        Some(self.write(entry, value))
    }

    fn write(&self, entry: &Entry, value: &mut [u8]) -> Result<Rule, NoRoom> {
        let no_room = |_| NoRoom { rule: entry.rule, place: entry.place.clone() };
        // Without its dashes a UUID has another shape.
        let is_as_learnt = value.len() == entry.value.len();
        let shape = if is_as_learnt { entry.shape } else { placeholder::shape(entry.rule, value) };
        shape.write(entry.number, value).map_err(no_room)?;
        Ok(entry.rule)
    }

    /// The learnt values within a text: leftmost first, of several the longest, without overlap.
    pub(super) fn hits(&self, text: &[u8]) -> Vec<(Rule, Range<usize>)> {
        let mut hits = Vec::new();
        let Some(automaton) = &self.automaton else { return hits };
        let mut at = 0;
        while at < text.len() {
            let input = Input::new(text).span(at..text.len()).anchored(Anchored::No);
            let Some(found) = automaton.find(input) else { break };
            let entry = &self.entries[self.patterns[found.pattern()] as usize];
            if found.end() - found.start() >= 8 || is_word(text, &found.range()) {
                hits.push((entry.rule, found.range()));
                at = found.end();
            } else {
                at = found.start() + 1;
            }
        }
        hits
    }

    /// By how many seconds times are moved.
    pub(super) fn shift(&self) -> i64 {
        self.first_time.map_or(0, |first| time::EPOCH - first)
    }

    /// The values that must not be found in what was scrubbed.
    pub(super) fn originals(&self) -> impl Iterator<Item = (Rule, Vec<u8>)> {
        let spread = self.entries.iter().filter(|entry| spreads(entry));
        spread.flat_map(|entry| spellings(entry).into_iter().map(|text| (entry.rule, text)))
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Whether a value says anything that could be replaced.
fn is_value(value: &[u8]) -> bool {
    value.iter().any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii())
}

/// Whether a field of ids says nothing with this value.
pub(super) fn is_common(value: &[u8]) -> bool {
    WORDS.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a value is looked for outside the places that are its own.
fn spreads(entry: &Entry) -> bool {
    let value = &entry.value;
    if value.len() < 4 {
        return false;
    }
    let has_letter = value.iter().any(u8::is_ascii_alphabetic);
    let has_digit = value.iter().any(u8::is_ascii_digit);
    let is_word = is_common(value);
    match entry.rule {
        Rule::Cookie => value.len() >= 8 && has_digit && has_letter,
        rule if rule.is_credential() => (has_letter || value.len() >= 6) && !is_word,
        Rule::Email | Rule::UserName | Rule::HostName | Rule::IpAddress => !is_word,
        Rule::EntityTag => value.len() >= 12 && has_digit && has_letter,
        // A short number may be anything.
        _ => {
            !is_word
                && (value.len() >= 9 || has_letter)
                && (has_digit || value.len() >= 8 || value.contains(&b'_'))
        }
    }
}

/// The spellings in which a value is looked for.
fn spellings(entry: &Entry) -> Vec<Vec<u8>> {
    let value = entry.value.to_vec();
    let mut all = vec![value.clone()];
    if matches!(entry.shape, Shape::Uuid | Shape::Email { .. } | Shape::Host) {
        for other in [value.to_ascii_lowercase(), value.to_ascii_uppercase()] {
            if !all.contains(&other) {
                all.push(other);
            }
        }
    }
    if entry.shape == Shape::Uuid {
        // Some write them without dashes.
        let plain: Vec<u8> = value.iter().copied().filter(|byte| *byte != b'-').collect();
        all.push(plain.to_ascii_lowercase());
    }
    all
}

/// Whether a range of a text is bounded by what is neither letter nor digit.
pub(super) fn is_word(text: &[u8], range: &Range<usize>) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte >= 0x80);
    let before = range.start.checked_sub(1).and_then(|at| text.get(at));
    !is_part(before) && !is_part(text.get(range.end))
}

/// What a value is found by: the same for spellings that mean the same.
fn key(shape: Shape, value: &[u8]) -> Box<[u8]> {
    let is_folded = matches!(shape, Shape::Uuid | Shape::Email { .. });
    if is_folded || value.len() > LONGEST { fold(value) } else { value.into() }
}

fn fold(value: &[u8]) -> Box<[u8]> {
    if value.len() > LONGEST {
        let mut text = String::from("sha256 ");
        for byte in digest(&SHA256, value).as_ref() {
            let _ = write!(text, "{byte:02x}");
        }
        return text.into_bytes().into();
    }
    value.to_ascii_lowercase().into()
}

/// A hash for short byte strings, several times as fast as the standard one. Values are counted, not
/// trusted: who makes them collide makes his own scrubbing slow.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Fast(u64);

const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// Mixes bytes into a seed.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ (bytes.len() as u64).wrapping_mul(MIX);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        state = mix(state ^ word);
    }
    let rest = chunks.remainder();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(state ^ u64::from_le_bytes(last))
}

fn mix(state: u64) -> u64 {
    let wide = u128::from(state ^ 0xA076_1D64_78BD_642F) * u128::from(MIX);
    (wide >> 64) as u64 ^ wide as u64
}

impl Hasher for Fast {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(self.0, bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

/// Whether a generic id looks like one, and not like a word that many would use.
pub(super) fn looks_like_id(value: &[u8]) -> bool {
    let has_digit = value.iter().any(u8::is_ascii_digit);
    let Shape::Opaque { prefix } = placeholder::shape(Rule::ObjectId, value) else { return value.len() >= 8 };
    if prefix > 0 {
        // A word behind a prefix, as in `user_interface` or `call_id`, is none.
        let rest = &value[prefix..];
        return rest.iter().any(u8::is_ascii_digit)
            || (rest.len() >= 16 && rest.iter().all(u8::is_ascii_alphanumeric));
    }
    let words = value.split(|byte| !byte.is_ascii_alphanumeric());
    // Names of models are words and short numbers; ids have long parts with both.
    let is_mixed = |word: &[u8]| {
        word.len() >= 8
            && word.iter().any(u8::is_ascii_digit)
            && word.iter().filter(|byte| byte.is_ascii_alphabetic()).count() >= 2
    };
    has_digit && words.into_iter().any(is_mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(values: &[(Rule, &str)]) -> Vault {
        let mut vault = Vault::default();
        for (rule, value) in values {
            vault.learn(*rule, value.as_bytes(), String::new);
        }
        vault.finish().expect("there is room");
        vault
    }

    fn replaced(vault: &Vault, value: &str) -> Option<String> {
        let mut bytes = value.as_bytes().to_vec();
        vault.replace(&mut bytes)?.expect("there is room");
        Some(String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn one_value_has_one_placeholder_in_every_case() {
        let vault = vault(&[
            (Rule::SessionId, "e612df53-95d8-7eff-9444-2c178f6f8f82"),
            (Rule::ThreadId, "E612DF53-95D8-7EFF-9444-2C178F6F8F82"),
            (Rule::ThreadId, "f612df53-95d8-4eff-9444-2c178f6f8f82"),
        ]);
        assert_eq!(vault.len(), 2);
        assert_eq!(
            replaced(&vault, "E612DF53-95d8-7eff-9444-2c178f6f8f82").unwrap(),
            "00000000-0000-7000-8000-000000000001"
        );
        assert_eq!(
            replaced(&vault, "f612df53-95d8-4eff-9444-2c178f6f8f82").unwrap(),
            "00000000-0000-4000-8000-000000000002"
        );
        assert_eq!(replaced(&vault, "unknown"), None);
    }

    #[test]
    fn placeholders_that_are_there_keep_their_numbers() {
        let vault = vault(&[
            (Rule::CallId, "call_abcdefgh"),
            (Rule::CallId, "call_xxxxxxx1"),
            (Rule::CallId, "call_ijklmnop"),
        ]);
        assert_eq!(replaced(&vault, "call_abcdefgh").unwrap(), "call_xxxxxxx2");
        assert_eq!(replaced(&vault, "call_ijklmnop").unwrap(), "call_xxxxxxx3");
        assert_eq!(replaced(&vault, "call_xxxxxxx1"), None);
    }

    #[test]
    fn short_values_are_words_and_long_ones_are_found_anywhere() {
        let vault =
            vault(&[(Rule::UserName, "alice"), (Rule::Password, "hunter2-hunter2"), (Rule::UserName, "bo")]);
        let found = |text: &str| {
            vault
                .hits(text.as_bytes())
                .into_iter()
                .map(|(_, range)| text[range].to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("malice -alice- alice_x"), ["alice", "alice"]);
        assert_eq!(found("xhunter2-hunter2x bo"), ["hunter2-hunter2"]);
    }

    #[test]
    fn a_number_that_does_not_fit_is_an_error_that_names_the_place() {
        let mut vault = Vault::default();
        for letter in 'a'..='j' {
            vault.learn(Rule::Password, letter.to_string().as_bytes(), || "/p".to_owned());
        }
        assert_eq!(vault.finish(), Err(NoRoom { rule: Rule::Password, place: "/p".into() }));
    }
}
