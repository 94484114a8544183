//! Values that are split over the pieces of a stream, where the text of streams is kept.
//!
//! While learning, the pieces of every stream are joined; once all values are known they are looked for in
//! the joined texts, and what crosses pieces is replaced piece by piece. Without kept text there is nothing
//! to do here: filler is filler in pieces.

use std::collections::HashMap;
use std::ops::Range;

use super::rules::Rule;
use super::vault::Vault;
use super::walk::{Stop, Walked};
use super::{detect, value};

/// The streams of a session.
#[derive(Debug, Default)]
pub(super) struct Joined {
    streams: HashMap<u64, Stream>,
    total: usize,
}

#[derive(Debug, Default)]
struct Stream {
    text: Vec<u8>,
    /// Where pieces end.
    ends: Vec<usize>,
    /// What is written over ranges of the text that lie in several pieces.
    edits: Vec<(Rule, Range<usize>, Vec<u8>)>,
    at: usize,
}

/// More streamed text than this is not kept: such a session needs filler, or to be split.
const LIMIT: usize = 256 * 1024 * 1024;

impl Joined {
    /// Takes a piece down.
    pub(super) fn add(&mut self, stream: u64, piece: &[u8]) -> Walked<()> {
        self.total += piece.len();
        if self.total > LIMIT {
            return Err(Stop::TooMuchText);
        }
        let stream = self.streams.entry(stream).or_default();
        stream.text.extend_from_slice(piece);
        stream.ends.push(stream.text.len());
        Ok(())
    }

    /// Lets the vault learn from the joined texts, in an order that is the same every time.
    pub(super) fn learn(&mut self, vault: &mut Vault) {
        let mut streams: Vec<_> = self.streams.values().filter(|stream| stream.ends.len() > 1).collect();
        streams.sort_by(|a, b| a.text.cmp(&b.text));
        for stream in streams {
            detect::find(&stream.text, detect::features(&stream.text), true, |rule, range| {
                let found = &stream.text[range];
                let found = if rule == Rule::Jwt { value::signature(found) } else { found };
                vault.learn(rule, found, || "(joined pieces of a stream)".to_owned());
            });
        }
    }

    /// Finds the values that lie in several pieces.
    pub(super) fn look(&mut self, vault: &Vault) -> Walked<()> {
        for stream in self.streams.values_mut().filter(|stream| stream.ends.len() > 1) {
            for (_, range) in vault.hits(&stream.text) {
                let is_split = stream.ends.iter().any(|end| range.start < *end && *end < range.end);
                if !is_split {
                    continue;
                }
                let mut text = stream.text[range.clone()].to_vec();
                if let Some(replaced) = vault.replace(&mut text) {
                    let rule = replaced.map_err(Stop::NoRoom)?;
                    stream.edits.push((rule, range, text));
                }
            }
            stream.text = Vec::new();
        }
        Ok(())
    }

    /// Writes over what of split values lies in the next piece; says by which rules.
    pub(super) fn replace(&mut self, stream: u64, piece: &mut [u8]) -> Option<Vec<Rule>> {
        let stream = self.streams.get_mut(&stream)?;
        let start = stream.at;
        stream.at += piece.len();
        let mut rules = Vec::new();
        for (rule, range, text) in &stream.edits {
            let from = range.start.max(start);
            let to = range.end.min(stream.at);
            if from < to {
                piece[from - start..to - start].copy_from_slice(&text[from - range.start..to - range.start]);
                rules.push(*rule);
            }
        }
        Some(rules)
    }
}
