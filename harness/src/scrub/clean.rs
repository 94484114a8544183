//! Texts of which nothing came, not to be looked at again: requests bring their whole history every time.
//!
//! They are kept as they are and compared byte for byte, so that what is taken for looked at has been. The
//! memory has a bound; what comes newest takes the place of what is oldest.

use super::vault::hash;

/// Short texts in slots of their own, longer ones in a ring behind each other.
#[derive(Debug)]
pub(super) struct Clean {
    short: Vec<([u8; Clean::SHORT], u8)>,
    long: Vec<Long>,
    ring: Vec<u8>,
    /// How many bytes were ever written to the ring, with those that were left out at its end.
    written: u64,
}

/// Where a text begins, counted as `Clean::written` is, and how long it is; nothing is there at length 0.
#[derive(Debug, Clone, Copy, Default)]
struct Long {
    at: u64,
    length: usize,
}

impl Clean {
    const SHORT: usize = 63;
    /// Longer texts are taken apart before they are looked at, and their parts are kept.
    const LONGEST: usize = 256 * 1024;
    const RING: usize = 4 * 1024 * 1024;
    const SLOTS: usize = 4096;

    pub(super) fn new() -> Self {
        Self {
            short: vec![([0; Self::SHORT], 0); Self::SLOTS],
            long: vec![Long::default(); Self::SLOTS],
            ring: Vec::new(),
            written: 0,
        }
    }

    fn slot(text: &[u8]) -> usize {
        // Of a long text only its ends are hashed: it is compared as a whole in any case.
        let ends = text.first_chunk::<128>().zip(text.last_chunk::<128>());
        let hashed = match ends {
            Some((first, last)) if text.len() > 256 => hash(hash(text.len() as u64, first), last),
            _ => hash(0, text),
        };
        hashed as usize % Self::SLOTS
    }

    pub(super) fn has(&self, text: &[u8]) -> bool {
        match text.len() {
            0..=Self::SHORT => {
                let (bytes, length) = &self.short[Self::slot(text)];
                usize::from(*length) == text.len() && bytes[..text.len()] == *text
            }
            Self::LONGEST.. => false,
            length => {
                let long = self.long[Self::slot(text)];
                let start = long.at as usize % Self::RING;
                long.length == length
                    && self.written - long.at <= Self::RING as u64
                    && self.ring[start..start + length] == *text
            }
        }
    }

    pub(super) fn add(&mut self, text: &[u8]) {
        match text.len() {
            0..=Self::SHORT => {
                let (bytes, length) = &mut self.short[Self::slot(text)];
                bytes[..text.len()].copy_from_slice(text);
                *length = text.len() as u8;
            }
            Self::LONGEST.. => {}
            length => {
                // Only a session with longer texts pays for the ring.
                self.ring.resize(Self::RING, 0);
                let mut start = self.written as usize % Self::RING;
                if start + length > Self::RING {
                    self.written += (Self::RING - start) as u64;
                    start = 0;
                }
                self.ring[start..start + length].copy_from_slice(text);
                self.long[Self::slot(text)] = Long { at: self.written, length };
                self.written += length as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of some length that is like no other.
    fn text(number: usize, length: usize) -> Vec<u8> {
        let mut text = format!("{number:09}").into_bytes();
        text.resize(length, b'x');
        text
    }

    #[test]
    fn what_was_added_is_there_until_its_place_is_taken() {
        let mut clean = Clean::new();
        let texts: Vec<_> = (0..64).map(|number| text(number, 20 + 3_000 * number)).collect();
        for (added, new) in texts.iter().enumerate() {
            assert!(!clean.has(new));
            clean.add(new);
            assert!(clean.has(new));
            // What is kept is a part of what was added, and nothing but that.
            let others = texts.iter().enumerate().filter(|(_, other)| clean.has(other));
            assert!(others.map(|(at, _)| at).all(|at| at <= added));
        }
        assert!(!clean.has(&texts[10]), "the ring has gone round");
        assert!(clean.has(&texts[60]));
    }

    #[test]
    fn a_text_that_differs_in_one_byte_is_another() {
        let mut clean = Clean::new();
        for length in [1, 63, 64, 5_000] {
            let mut one = text(7, length);
            clean.add(&one);
            assert!(clean.has(&one));
            one[length - 1] ^= 1;
            assert!(!clean.has(&one));
        }
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let mut clean = Clean::new();
        let long = text(1, Clean::LONGEST);
        clean.add(&long);
        assert!(!clean.has(&long));
    }
}
