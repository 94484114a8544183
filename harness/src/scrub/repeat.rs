//! Elements that come again: every request brings the tools and the history of those before it.
//!
//! What an element teaches, and what is written over it, depends on its bytes, its place and the learnt
//! values alone, unless it belongs to a stream. So an element that is byte for byte one that was walked
//! teaches nothing new, and is replaced by what was written then. One is kept when it comes for the
//! second time: of what comes once nothing is copied.

use std::collections::HashMap;

use super::paths::Place;
use super::rules::Rule;
use super::vault::hash;
use super::walk::{Walk, Walked};

/// The elements of one pass.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    known: HashMap<u64, Repeat>,
    /// Bytes that are kept.
    size: usize,
    /// What was counted in the element that is being recorded.
    pub(super) log: Option<Vec<(Rule, Place)>>,
    /// How often something was done that depends on more than the element, or that what follows depends on.
    pub(super) touched: u64,
}

#[derive(Debug)]
struct Repeat {
    length: usize,
    /// The element as it was read; empty until it has come twice.
    raw: Vec<u8>,
    /// The element as it was written; empty where nothing is.
    written: Vec<u8>,
    counts: Vec<(Rule, Place)>,
}

/// An element is looked up by so many bytes at its beginning; shorter ones are walked sooner.
const BEGINNING: usize = 320;
/// Longer elements are not kept.
const LONGEST: usize = 512 * 1024;
/// What is kept at most, in bytes; then all is forgotten.
const LIMIT: usize = 8 * 1024 * 1024;

impl Repeats {
    fn has(&self, key: u64, text: &[u8]) -> Option<&Repeat> {
        let repeat = self.known.get(&key)?;
        // Objects and arrays end by themselves: what begins like one is it.
        (!repeat.raw.is_empty() && text.starts_with(&repeat.raw)).then_some(repeat)
    }

    fn add(&mut self, key: u64, repeat: Repeat) {
        let size = |repeat: &Repeat| {
            size_of::<Repeat>() + repeat.raw.len() + repeat.written.len() + 8 * repeat.counts.len()
        };
        if self.size + size(&repeat) > LIMIT {
            self.known.clear();
            self.size = 0;
        }
        self.size += size(&repeat);
        if let Some(old) = self.known.insert(key, repeat) {
            self.size -= size(&old);
        }
    }
}

impl Walk {
    /// Walks an element of an array, unless it is one that was walked before; says where it ends.
    pub(super) fn element(&mut self, text: &mut [u8], at: usize, place: Place) -> Walked<usize> {
        let is_eligible = !self.options.keep_content
            && self.repeats.log.is_none()
            && self.is_outside_streams()
            && matches!(text.get(at), Some(b'{' | b'['));
        let Some(beginning) = text.get(at..at + BEGINNING).filter(|_| is_eligible) else {
            return self.value(text, at, place);
        };
        let key = hash(u64::from(place), beginning);
        if let Some(repeat) = self.repeats.has(key, &text[at..]) {
            let end = at + repeat.length;
            if !repeat.written.is_empty() {
                text[at..end].copy_from_slice(&repeat.written);
            }
            self.edits += repeat.counts.len() as u64;
            for counted in &repeat.counts {
                *self.counts.entry(*counted).or_default() += 1;
            }
            return Ok(end);
        }
        let length = self.repeats.known.get(&key).map_or(0, |repeat| repeat.length);
        if length == 0 || length > LONGEST || at + length > text.len() {
            let end = self.value(text, at, place)?;
            let length = end - at;
            self.repeats
                .add(key, Repeat { length, raw: Vec::new(), written: Vec::new(), counts: Vec::new() });
            return Ok(end);
        }
        self.recorded(key, length, text, at, place)
    }

    /// Walks an element that seems to come for the second time, and keeps it.
    fn recorded(
        &mut self,
        key: u64,
        length: usize,
        text: &mut [u8],
        at: usize,
        place: Place,
    ) -> Walked<usize> {
        let mut raw = text[at..at + length].to_vec();
        let before = (self.repeats.touched, self.splices.len());
        self.repeats.log = Some(Vec::new());
        let walked = self.value(text, at, place);
        let counts = self.repeats.log.take().unwrap_or_default();
        let end = walked?;
        let is_alone = before == (self.repeats.touched, self.splices.len());
        if end - at != length || !is_alone {
            raw.clear();
        }
        let written = if self.learning || raw.is_empty() { Vec::new() } else { text[at..end].to_vec() };
        self.repeats.add(key, Repeat { length: end - at, raw, written, counts });
        Ok(end)
    }
}
