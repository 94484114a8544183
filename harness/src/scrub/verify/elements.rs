//! Elements of arrays that were verified, so that those that come again are not: only what came twice is copied.

use std::collections::{HashMap, HashSet};

/// Elements of arrays of which nothing came, as they are spelled: tools and the history come with every request.
#[derive(Debug, Default)]
pub(super) struct Elements {
    pub(super) known: HashMap<u64, Element>,
    size: usize,
    /// Those that came once: of what does not come again nothing is copied.
    came: HashSet<u64>,
}

#[derive(Debug)]
pub(super) struct Element {
    pub(super) raw: Box<str>,
    /// The pieces that it joins to its stream, which they do every time.
    pub(super) pieces: Vec<String>,
}

impl Elements {
    /// What is kept at most, in bytes; then all is forgotten.
    const LIMIT: usize = 8 * 1024 * 1024;
    /// Shorter elements are looked at sooner than looked up.
    pub(super) const SHORTEST: usize = 32;

    /// How many elements that came once are remembered; then all are forgotten.
    const ONCE: usize = 64 * 1024;

    pub(super) fn add(&mut self, key: u64, raw: &str, pieces: Vec<String>) {
        let size = raw.len() + pieces.iter().map(String::len).sum::<usize>();
        if size > Self::LIMIT / 8 {
            return;
        }
        if self.came.len() >= Self::ONCE {
            self.came.clear();
        }
        if self.came.insert(key) {
            return;
        }
        if self.size + size > Self::LIMIT {
            self.known.clear();
            self.size = 0;
        }
        self.size += size;
        self.known.insert(key, Element { raw: raw.into(), pieces });
    }
}
