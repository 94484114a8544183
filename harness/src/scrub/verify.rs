//! The last look at scrubbed records: no learnt value and nothing that a detector knows may be left.
//!
//! It has a way through the records of its own, over serde_json, the decoder of event streams and the
//! base64 crate, so that a mistake of the walker is not made twice; only the detectors are shared. What it
//! finds it names by record, JSON pointer and rule, never by value.

use std::collections::HashMap;
use std::fmt;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::certificate::{Certificate, Mismatch};
use super::clean::Clean;
use super::rules::Rule;
use super::vault::hash;
use super::{Error, compressed, detect, filler};

mod decode;

mod elements;

use elements::Elements;

/// Something in a scrubbed record that must not be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Finding {
    /// The record, counted from 1.
    pub record: u64,
    /// Where in it: a JSON pointer, with `#` for what a string holds once it is decoded.
    pub pointer: String,
    /// The rule by which it is sensitive.
    pub rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "record {}, {}: {}", self.record, self.pointer, self.rule)
    }
}

/// Looks at scrubbed records, one after the other.
#[derive(Debug)]
pub struct Verifier {
    look: Look,
    record: u64,
}

/// A fixture that must not be used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Its certificate is not that of its bytes.
    #[error(transparent)]
    Certificate(#[from] Mismatch),
    /// A record cannot be looked through.
    #[error(transparent)]
    Record(#[from] Error),
    /// Something is left in it.
    #[error("something sensitive is left: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Findings(Vec<Finding>),
}

/// Checks a fixture as it lies in the repository: the certificate is that of its bytes, and no detector
/// finds anything. What the values once were is not known any more.
///
/// # Errors
/// [`Unfit`], with what is wrong.
pub fn verify_fixture(bytes: &[u8], certificate: &Certificate) -> Result<(), Unfit> {
    certificate.check(bytes)?;
    let mut verifier = Verifier::new(std::iter::empty());
    let mut findings = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        findings.extend(verifier.check(line)?);
    }
    findings.extend(verifier.finish());
    if findings.is_empty() { Ok(()) } else { Err(Unfit::Findings(findings)) }
}

impl Verifier {
    pub(super) fn new(originals: impl Iterator<Item = (Rule, Vec<u8>)>) -> Self {
        let (rules, texts): (Vec<_>, Vec<_>) = originals.unzip();
        let originals = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&texts).ok();
        let has_long_values = texts.iter().any(|text| text.contains(&b'\n'));
        let look = Look {
            originals: originals.map(|automaton| (automaton, rules)),
            clean: Clean::new(),
            clean_runs: Clean::new(),
            clean_lines: Clean::new(),
            has_long_values,
            elements: Elements::default(),
            pieces: None,
            moves: 0,
            path: None,
            found: Vec::new(),
            depth: 0,
            may_be_brotli: false,
            key: Key::Other,
            exchange: 0,
            item: 0,
            joined: HashMap::new(),
        };
        Self { look, record: 0 }
    }

    /// Looks at the next record.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn check(&mut self, record: &[u8]) -> Result<Vec<Finding>, Error> {
        self.record += 1;
        if !self.look.record(record) {
            return Err(Error::Malformed { record: self.record, column: 1 });
        }
        if self.look.found.is_empty() {
            return Ok(Vec::new());
        }
        // Only now is it worth while to know where one is.
        self.look.found.clear();
        self.look.path = Some(Vec::new());
        self.look.record(record);
        self.look.path = None;
        Ok(self.take())
    }

    /// Looks at what is left of streams whose pieces were joined.
    pub fn finish(&mut self) -> Vec<Finding> {
        let joined = std::mem::take(&mut self.look.joined);
        for text in joined.into_values() {
            self.look.plain(text.as_bytes());
        }
        self.take()
    }

    fn take(&mut self) -> Vec<Finding> {
        let record = self.record;
        let found = std::mem::take(&mut self.look.found).into_iter();
        let mut findings: Vec<_> =
            found.map(|(pointer, rule)| Finding { record, pointer, rule: rule.id().to_owned() }).collect();
        findings.sort();
        findings.dedup();
        findings
    }
}

/// Keys that matter for joining pieces of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Piece,
    Item,
    Id,
    Other,
}

#[derive(Debug)]
struct Look {
    originals: Option<(AhoCorasick, Vec<Rule>)>,
    clean: Clean,
    /// Runs of digits of base64 whose decoded views are clean.
    clean_runs: Clean,
    /// Lines of heads and streams of events that are clean as text and in every view.
    clean_lines: Clean,
    /// Some learnt value is longer than a line.
    has_long_values: bool,
    elements: Elements,
    /// The pieces that the present element has joined to its stream.
    pieces: Option<Vec<String>>,
    /// How often it changed where pieces go, or one went there: what does either has to be seen again.
    moves: u64,
    /// Where one is, if that is of interest.
    path: Option<Vec<String>>,
    found: Vec<(String, Rule)>,
    depth: usize,
    /// The record may have a body in brotli, which nothing but its headers tell from noise.
    may_be_brotli: bool,
    key: Key,
    exchange: u64,
    item: u64,
    joined: HashMap<(u64, u64), String>,
}

/// Views within views that are looked at; one more than the walker follows.
const DEPTH: usize = 9;

/// How much of a stream is looked at together, and how much of that again with what follows.
const WINDOW: usize = 16 * 1024;
const OVERLAP: usize = 4 * 1024;

impl Look {
    fn record(&mut self, record: &[u8]) -> bool {
        (self.depth, self.exchange, self.item) = (0, 0, 0);
        self.may_be_brotli = memchr::memmem::find(record, b"\"br\"").is_some();
        if self.may_be_brotli {
            // What was clean was so without a look into brotli.
            (self.clean, self.clean_runs) = (Clean::new(), Clean::new());
            self.elements = Elements::default();
        }
        self.json(record)
    }

    /// Looks at a JSON text; says whether it is one.
    fn json(&mut self, text: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        let mut reader = serde_json::Deserializer::from_str(text);
        Seed(self).deserialize(&mut reader).is_ok() && reader.end().is_ok()
    }

    /// Looks at an element of an array; says whether it is JSON.
    fn element(&mut self, raw: &str) -> bool {
        if raw.len() < Elements::SHORTEST {
            return self.json(raw.as_bytes());
        }
        let key = hash(3, raw.as_bytes());
        if let Some(element) = self.elements.known.get_mut(&key)
            && *element.raw == *raw
        {
            let pieces = std::mem::take(&mut element.pieces);
            pieces.iter().for_each(|piece| self.join(piece));
            if let Some(element) = self.elements.known.get_mut(&key) {
                element.pieces = pieces;
            }
            return true;
        }
        let before = (self.found.len(), self.exchange, self.item);
        let moves = self.moves;
        self.pieces = Some(Vec::new());
        let is_json = self.json(raw.as_bytes());
        let pieces = self.pieces.take().unwrap_or_default();
        let has_moved = self.moves - moves != pieces.len() as u64;
        if is_json && !has_moved && before == (self.found.len(), self.exchange, self.item) {
            self.elements.add(key, raw, pieces);
        }
        is_json
    }

    fn string(&mut self, text: &str) {
        if self.key == Key::Item {
            self.moves += 1;
            self.item = hash(2, text.as_bytes());
        }
        if self.key == Key::Piece {
            self.join(text);
        }
        self.text(text.as_bytes());
    }

    fn join(&mut self, piece: &str) {
        self.moves += 1;
        if let Some(pieces) = &mut self.pieces {
            pieces.push(piece.to_owned());
        }
        let stream = self.joined.entry((self.exchange, self.item)).or_default();
        stream.push_str(piece);
        if stream.len() > WINDOW {
            let text = std::mem::take(stream);
            self.plain(text.as_bytes());
            let mut keep = text.len() - OVERLAP;
            while !text.is_char_boundary(keep) {
                keep += 1;
            }
            self.joined.insert((self.exchange, self.item), text[keep..].to_owned());
        }
    }

    /// Looks at a text: as what it is, and in every view of it.
    fn text(&mut self, text: &[u8]) {
        // What is long is either filler, which is known at its first letters that are none, or worth a look.
        if text.len() < 4 || (text.len() > 256 && filler::is_filler(text)) || self.clean.has(text) {
            return;
        }
        if text.len() <= 256 && filler::is_filler(text) {
            return;
        }
        if self.depth >= DEPTH {
            return self.report(Rule::Secret);
        }
        let before = (self.found.len(), self.moves);
        self.depth += 1;
        if let Some(path) = &mut self.path {
            path.push("#".to_owned());
        }
        let is_done = self.structured(text);
        if let Some(path) = &mut self.path {
            path.pop();
        }
        if !is_done {
            self.plain(text);
            self.views(text);
        }
        self.depth -= 1;
        if before == (self.found.len(), self.moves) {
            self.clean.add(text);
        }
    }

    /// Looks at a text that is JSON or a stream of events as that. Says whether that was all of it.
    fn structured(&mut self, text: &[u8]) -> bool {
        let trimmed = text.trim_ascii();
        if matches!((trimmed.first(), trimmed.last()), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']'))) {
            return self.json(trimmed);
        }
        if is_head(text) && !self.has_long_values {
            text.split(|byte| *byte == b'\n').for_each(|line| self.line(line.trim_ascii_end()));
            return true;
        }
        if !super::walk::is_event_stream(text) {
            return false;
        }
        let mut decoder = wire::sse::Decoder::new(usize::MAX);
        for part in [text, b"\n\n"] {
            let fed = decoder.feed(part, |event| {
                self.text(event.data);
                self.text(event.name);
                self.text(event.last_id);
            });
            if fed.is_err() {
                return false;
            }
        }
        for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
            if !line.starts_with(b"data:") && !line.starts_with(b"event:") {
                self.line(line);
            }
        }
        true
    }

    /// Looks at a line as text and in every view. A line by itself may look like a stream of events again,
    /// which would never end.
    fn line(&mut self, line: &[u8]) {
        if line.len() < 4 || self.clean_lines.has(line) {
            return;
        }
        let before = (self.found.len(), self.moves);
        self.plain(line);
        self.views(line);
        if before == (self.found.len(), self.moves) {
            self.clean_lines.add(line);
        }
    }

    /// Looks for values in a text as it stands.
    fn plain(&mut self, text: &[u8]) {
        if filler::is_filler(text) {
            return;
        }
        if let Some((automaton, rules)) = &self.originals {
            // Nearly always there is none, which is known sooner without those that overlap.
            let found = automaton.is_match(text).then(|| automaton.find_overlapping_iter(text));
            let hit = found
                .into_iter()
                .flatten()
                .find(|found| found.len() >= 8 || super::vault::is_word(text, &found.range()));
            if let Some(rule) = hit.map(|found| rules[found.pattern()]) {
                self.report(rule);
            }
        }
        let mut rule = None;
        detect::find(text, detect::features(text), false, |found, _| rule = Some(found));
        if let Some(rule) = rule {
            self.report(rule);
        }
    }

    /// Looks at what a text may be the encoding of.
    fn views(&mut self, text: &[u8]) {
        if memchr::memchr(b'%', text).is_some() {
            let decoded = decode::percent(text);
            if decoded != text {
                self.text(&decoded);
            }
        }
        if memchr::memmem::find(text, b"\\u").is_some() || memchr::memmem::find(text, b"\\/").is_some() {
            let quoted = [b"\"", text, b"\""].concat();
            if let Ok(decoded) = serde_json::from_slice::<String>(&quoted) {
                self.text(decoded.as_bytes());
            }
        }
        decode::unwrapped(text).iter().for_each(|digits| self.base64(digits));
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
        for run in text.split(|byte| !is_digit(byte)).filter(|run| run.len() >= 12 && !filler::is_filler(run))
        {
            // Tokens and ids come again with every request.
            if self.clean_runs.has(run) {
                continue;
            }
            let before = self.found.len();
            self.base64(run);
            for part in run.split(|byte| !byte.is_ascii_hexdigit()).filter(|part| part.len() >= 12) {
                for start in 0..2 {
                    self.bytes(&decode::hex(&part[start..]));
                }
            }
            if self.found.len() == before {
                self.clean_runs.add(run);
            }
        }
    }

    fn base64(&mut self, run: &[u8]) {
        for start in 0..4 {
            let run = &run[start..];
            let run = if run.len() % 4 == 1 { &run[..run.len() - 1] } else { run };
            for engine in [&decode::STANDARD, &decode::URL_SAFE] {
                if let Ok(decoded) = engine.decode(run) {
                    self.bytes(&decoded);
                    break;
                }
            }
        }
    }

    /// Looks at bytes that something decodes to.
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some(coding) = compressed::coding(bytes)
            && let Ok(plain) = coding.decode(bytes)
        {
            return self.text(&plain);
        }
        if super::value::is_text(bytes) {
            return self.text(bytes);
        }
        if self.may_be_brotli
            && let Ok(plain) = compressed::Coding::Brotli.decode(bytes)
        {
            self.text(&plain);
        }
        if let Some((automaton, rules)) = &self.originals {
            let found = automaton.is_match(bytes).then(|| automaton.find_overlapping_iter(bytes));
            let hit = found.into_iter().flatten().find(|found| found.len() >= 8);
            if let Some(rule) = hit.map(|found| rules[found.pattern()]) {
                self.report(rule);
            }
        }
    }

    fn report(&mut self, rule: Rule) {
        let pointer = self.path.as_ref().map_or(String::new(), |path| {
            path.iter()
                .fold(String::new(), |text, part| text + "/" + &part.replace('~', "~0").replace('/', "~1"))
        });
        self.found.push((pointer, rule));
    }
}

/// Whether a text is the head of a message of HTTP/1.1, in which no value goes beyond its line.
fn is_head(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default().trim_ascii_end();
    (first.starts_with(b"HTTP/1.") || first.ends_with(b" HTTP/1.1") || first.ends_with(b" HTTP/1.0"))
        && lines.all(|line| !line.starts_with(b" ") && !line.starts_with(b"\t"))
        && memchr::memmem::find(text, b"-----BEGIN").is_none()
}

/// Reads a value without building it.
struct Seed<'a>(&'a mut Look);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.0.string(text);
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        match self.0.key {
            Key::Id if self.0.depth == 0 => {
                self.0.exchange = number;
                self.0.moves += 1;
            }
            Key::Item => {
                self.0.item = number;
                self.0.moves += 1;
            }
            _ => {}
        }
        if number >= 100_000 {
            self.0.plain(number.to_string().as_bytes());
        }
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            if let Some(path) = &mut self.0.path {
                path.push(index.to_string());
            }
            let element = if self.0.key == Key::Other && self.0.pieces.is_none() {
                let raw = elements.next_element::<&RawValue>();
                raw.and_then(|raw| match raw {
                    Some(raw) if !self.0.element(raw.get()) => {
                        Err(de::Error::custom("an element is no JSON"))
                    }
                    raw => Ok(raw.map(|_| ())),
                })
            } else {
                elements.next_element_seed(Seed(self.0))
            };
            if let Some(path) = &mut self.0.path {
                path.pop();
            }
            if element?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key_seed(KeySeed(self.0))? {
            self.0.key = key;
            let value = entries.next_value_seed(Seed(self.0));
            if let Some(path) = &mut self.0.path {
                path.pop();
            }
            value?;
        }
        self.0.key = Key::Other;
        Ok(())
    }
}

/// Reads a key, which is looked at like any string.
struct KeySeed<'a>(&'a mut Look);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Key, E> {
        let before = self.0.found.len();
        self.0.text(key.as_bytes());
        if let Some(path) = &mut self.0.path {
            // A key with something in it is not shown.
            path.push(if self.0.found.len() == before { key.to_owned() } else { "*".to_owned() });
        }
        Ok(match key {
            "delta" | "partial_json" | "text" | "thinking" => Key::Piece,
            "item_id" | "index" => Key::Item,
            "id" => Key::Id,
            _ => Key::Other,
        })
    }
}
