//! The way through a record: every value of it once, in its place, in every encoding.
//!
//! One walk serves both passes: while learning it takes values down, while replacing it writes over them.
//! It works on the bytes of the record itself, so that what is not replaced cannot change. What values are
//! is decided in `rules` and `detect`, what is done with them in `value`.

use super::clean::Clean;
use super::paths::{Mark, Paths, Place, ROOT};
use super::repeat::Repeats;
use super::rules::{Area, Rule, Slot};
use super::vault::{NoRoom, Vault, hash};
use super::{Options, compressed, filler, joined, view};

use std::collections::HashMap;

/// A session being learnt or replaced.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) options: Options,
    pub(super) vault: Vault,
    pub(super) paths: Paths,
    pub(super) counts: HashMap<(Rule, Place), u64>,
    pub(super) learning: bool,
    /// How many edits there were: a view without any is not written back.
    pub(super) edits: u64,
    /// Strings of which nothing came, not to be searched again.
    pub(super) clean: Clean,
    pub(super) splices: Vec<compressed::Splice>,
    pub(super) joined: joined::Joined,
    pool: Vec<Vec<u8>>,
    pub(super) depth: usize,
    nesting: usize,
    exchange: u64,
    is_form: bool,
    /// The stream that the present event adds to.
    stream: u64,
    is_arguments: bool,
    tokens: HashMap<u64, filler::Tokens>,
    pub(super) repeats: Repeats,
}

/// Why a walk did not come to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// What is at this offset is no JSON.
    Malformed(usize),
    /// Nested too deeply to be followed.
    TooDeep,
    NoRoom(NoRoom),
    /// A time cannot be moved.
    Time(String),
    /// A compressed body cannot be read.
    Compressed(String),
    /// More streamed text than is kept.
    TooMuchText,
}

pub(super) type Walked<T> = Result<T, Stop>;

/// Views within views that are followed.
const DEPTH: usize = 8;
/// Objects and arrays within each other that are followed, over all views.
const NESTING: usize = 240;

impl Walk {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            vault: Vault::default(),
            paths: Paths::new(),
            counts: HashMap::new(),
            learning: true,
            edits: 0,
            clean: Clean::new(),
            splices: Vec::new(),
            joined: joined::Joined::default(),
            pool: Vec::new(),
            depth: 0,
            nesting: 0,
            exchange: 0,
            is_form: false,
            stream: 0,
            is_arguments: false,
            tokens: HashMap::new(),
            repeats: Repeats::default(),
        }
    }

    /// Ends the learning.
    pub(super) fn finish(&mut self) -> Walked<()> {
        self.joined.learn(&mut self.vault);
        self.vault.finish().map_err(Stop::NoRoom)?;
        self.joined.look(&self.vault)?;
        self.learning = false;
        self.paths = Paths::new();
        self.clean = Clean::new();
        self.repeats = Repeats::default();
        self.tokens.clear();
        Ok(())
    }

    /// Walks a record.
    pub(super) fn record(&mut self, line: &mut [u8]) -> Walked<()> {
        (self.depth, self.nesting, self.is_form) = (0, 0, false);
        (self.exchange, self.stream, self.is_arguments) = (0, 0, false);
        self.splices.clear();
        let start = skip_space(line, 0);
        let end = self.value(line, start, ROOT)?;
        match skip_space(line, end) {
            rest if rest == line.len() => Ok(()),
            rest => Err(Stop::Malformed(rest)),
        }
    }

    /// Walks the value at `at`, and says where it ends.
    pub(super) fn value(&mut self, text: &mut [u8], at: usize, place: Place) -> Walked<usize> {
        match text.get(at) {
            Some(b'"') => {
                let (end, has_escape) = string_end(text, at + 1);
                let is_whole = end < text.len();
                self.string(text, at + 1, end, has_escape, place)?;
                if is_whole { Ok(end + 1) } else { Err(Stop::Malformed(end)) }
            }
            Some(open @ (b'{' | b'[')) => {
                self.nesting += 1;
                if self.nesting > NESTING {
                    return Err(Stop::TooDeep);
                }
                let end = match open {
                    b'{' => self.object(text, at, place),
                    _ if self.paths.node(place).area == Area::Headers => self.fields(text, at, place),
                    _ => self.array(text, at, place),
                };
                self.nesting -= 1;
                end
            }
            Some(b'-' | b'0'..=b'9') => {
                let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let end = at + text[at..].iter().take_while(|byte| is_part(byte)).count();
                self.number(&mut text[at..end], place)?;
                Ok(end)
            }
            Some(b't' | b'f' | b'n') => {
                let literals: [&[u8]; 3] = [b"true", b"false", b"null"];
                let found = literals.iter().find(|literal| text[at..].starts_with(literal));
                found.map(|literal| at + literal.len()).ok_or(Stop::Malformed(at))
            }
            _ => Err(Stop::Malformed(at)),
        }
    }

    fn object(&mut self, text: &mut [u8], open: usize, place: Place) -> Walked<usize> {
        let slot = self.paths.node(place).slot;
        if slot == Slot::Payload {
            self.begin_event();
        }
        let mut at = skip_space(text, open + 1);
        if text.get(at) == Some(&b'}') {
            return Ok(at + 1);
        }
        if self.paths.node(place).area == Area::Headers
            && let Some(end) = self.named_field(text, open, place)?
        {
            return Ok(end);
        }
        loop {
            if text.get(at) != Some(&b'"') {
                return Err(Stop::Malformed(at));
            }
            let (end, has_escape) = string_end(text, at + 1);
            if end == text.len() {
                return Err(Stop::Malformed(at));
            }
            let child = self.key(text, at + 1, end, has_escape, place)?;
            at = skip_space(text, end + 1);
            if text.get(at) != Some(&b':') {
                return Err(Stop::Malformed(at));
            }
            at = skip_space(text, at + 1);
            let end = self.value(text, at, child)?;
            if self.paths.node(child).mark != Mark::None {
                self.note(self.paths.node(child).mark, &text[at..end]);
            }
            at = skip_space(text, end);
            match text.get(at) {
                Some(b',') => at = skip_space(text, at + 1),
                Some(b'}') => return Ok(at + 1),
                _ => return Err(Stop::Malformed(at)),
            }
        }
    }

    /// The place of a key; an odd one is searched, for it may be a value itself.
    fn key(
        &mut self,
        text: &mut [u8],
        start: usize,
        end: usize,
        has_escape: bool,
        place: Place,
    ) -> Walked<Place> {
        if has_escape {
            let mut name = self.take();
            view::decode_json(&text[start..end], &mut name);
            let child = self.child(place, &mut name)?;
            if !self.learning {
                view::encode_json(&mut text[start..end], &name);
            }
            self.give(name);
            return Ok(child);
        }
        if let Some(child) = self.paths.get(place, &text[start..end])
            && !self.paths.node(child).is_odd
        {
            return Ok(child);
        }
        self.child(place, &mut text[start..end])
    }

    /// The place of a key that may be new.
    pub(super) fn child(&mut self, place: Place, name: &mut [u8]) -> Walked<Place> {
        if let Some(child) = self.paths.get(place, name)
            && !self.paths.node(child).is_odd
        {
            return Ok(child);
        }
        let is_value = if self.learning { false } else { !self.vault.hits(name).is_empty() };
        let child = self.paths.add(place, name, is_value);
        let is_odd = self.paths.node(child).is_odd;
        if is_odd || self.learning {
            self.scan(name, child)?;
        }
        Ok(child)
    }

    fn array(&mut self, text: &mut [u8], open: usize, place: Place) -> Walked<usize> {
        let element = self.paths.element(place);
        self.elements(text, open, |walk, text, at| walk.element(text, at, element))
    }

    /// Goes over the elements of an array.
    fn elements(
        &mut self,
        text: &mut [u8],
        open: usize,
        mut each: impl FnMut(&mut Self, &mut [u8], usize) -> Walked<usize>,
    ) -> Walked<usize> {
        let mut at = skip_space(text, open + 1);
        if text.get(at) == Some(&b']') {
            return Ok(at + 1);
        }
        loop {
            let end = each(self, text, at)?;
            at = skip_space(text, end);
            match text.get(at) {
                Some(b',') => at = skip_space(text, at + 1),
                Some(b']') => return Ok(at + 1),
                _ => return Err(Stop::Malformed(at)),
            }
        }
    }

    /// Header fields as an array: of pairs, of objects with a name, of lines.
    fn fields(&mut self, text: &mut [u8], open: usize, place: Place) -> Walked<usize> {
        self.elements(text, open, |walk, text, at| match text.get(at) {
            Some(b'[') => walk.pair(text, at, place),
            Some(b'"') => {
                let (end, has_escape) = string_end(text, at + 1);
                if end == text.len() {
                    return Err(Stop::Malformed(end));
                }
                walk.viewed(text, at + 1, end, has_escape, |walk, line| {
                    // An element of `"name": ["value"]` stands in the place of its field.
                    if walk.paths.node(place).slot == Slot::Scan {
                        walk.line(line, place)
                    } else {
                        walk.slotted(line, place)
                    }
                })?;
                Ok(end + 1)
            }
            _ => walk.value(text, at, place),
        })
    }

    /// A field as `["name", "value", ...]`.
    fn pair(&mut self, text: &mut [u8], open: usize, place: Place) -> Walked<usize> {
        let mut field = None;
        self.elements(text, open, |walk, text, at| match (field, text.get(at)) {
            (None, Some(b'"')) => {
                let (end, has_escape) = string_end(text, at + 1);
                let mut name = text[at + 1..end.min(text.len())].to_vec();
                if has_escape {
                    view::decode_json(&text[at + 1..end], &mut name);
                }
                name.make_ascii_lowercase();
                field = Some(walk.child(place, &mut name)?);
                Ok(end + 1)
            }
            (Some(field), _) => walk.value(text, at, field),
            (None, _) => walk.value(text, at, place),
        })
    }

    /// A field as an object with a name and a value; none if the object is something else.
    fn named_field(&mut self, text: &mut [u8], open: usize, place: Place) -> Walked<Option<usize>> {
        let object = wire::json::Value::new(&text[open..]);
        let name = ["name", "key", "header"].iter().find_map(|key| object.get(key)?.as_str());
        let has_value = object.get("value").is_some() || object.get("values").is_some();
        let Some(name) = name.filter(|_| has_value) else { return Ok(None) };
        let mut name = name.to_ascii_lowercase().into_bytes();
        let field = self.child(place, &mut name)?;
        let mut at = skip_space(text, open + 1);
        loop {
            if text.get(at) != Some(&b'"') {
                return Err(Stop::Malformed(at));
            }
            let (end, _) = string_end(text, at + 1);
            let is_value = matches!(text.get(at + 1..end), Some(b"value" | b"values"));
            at = skip_space(text, end + 1);
            if text.get(at) != Some(&b':') {
                return Err(Stop::Malformed(at));
            }
            at = skip_space(text, at + 1);
            // The name itself is no value.
            let is_string = text.get(at) == Some(&b'"');
            let end = match (is_value, is_string) {
                (false, true) => string_end(text, at + 1).0 + 1,
                _ => self.value(text, at, if is_value { field } else { ROOT })?,
            };
            at = skip_space(text, end);
            match text.get(at) {
                Some(b',') => at = skip_space(text, at + 1),
                Some(b'}') => return Ok(Some(at + 1)),
                _ => return Err(Stop::Malformed(at)),
            }
        }
    }

    /// A header field as a line.
    pub(super) fn line(&mut self, line: &mut [u8], place: Place) -> Walked<()> {
        let Some(colon) = memchr::memchr(b':', line) else { return self.scan(line, place) };
        let mut name = line[..colon].to_ascii_lowercase();
        let field = self.child(place, &mut name)?;
        let space = line[colon + 1..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let end = line.len()
            - line[colon + 1 + space..].iter().rev().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.slotted(&mut line[colon + 1 + space..end], field)
    }

    fn number(&mut self, digits: &mut [u8], place: Place) -> Walked<()> {
        let node = self.paths.node(place);
        match node.slot {
            Slot::Time => self.time(digits, place),
            Slot::Id(_) | Slot::Whole(_) if digits.len() >= 5 && digits.iter().all(u8::is_ascii_digit) => {
                let (Slot::Id(rule) | Slot::Whole(rule)) = node.slot else { return Ok(()) };
                self.replace_whole(rule, digits, place)
            }
            Slot::Content if node.area == Area::Input && !self.learning && !self.options.keep_content => {
                let old = digits.to_vec();
                for (at, digit) in digits.iter_mut().enumerate() {
                    if digit.is_ascii_digit() {
                        let is_first = !old[..at].iter().any(u8::is_ascii_digit);
                        *digit = if is_first && *digit != b'0' { b'1' } else { b'0' };
                    }
                }
                self.count(Rule::ToolArguments, place);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The inside of a string, as it is spelled.
    fn string(
        &mut self,
        text: &mut [u8],
        start: usize,
        end: usize,
        has_escape: bool,
        place: Place,
    ) -> Walked<()> {
        let node = self.paths.node(place);
        if start == end || node.slot == Slot::Plain {
            return Ok(());
        }
        if node.slot == Slot::Base64 {
            return self.payload(text, start, end, place);
        }
        let fills = !self.options.keep_content && node.slot == Slot::Content && !self.is_arguments;
        if fills {
            if self.learning {
                return Ok(());
            }
            let mut scratch = self.take();
            filler::fill_json(&mut text[start..end], &mut scratch);
            self.give(scratch);
            self.count(Rule::FreeText, place);
            return Ok(());
        }
        self.viewed(text, start, end, has_escape, |walk, view| walk.slotted(view, place))
    }

    /// Looks at the decoded inside of a string, and writes back what was edited.
    fn viewed(
        &mut self,
        text: &mut [u8],
        start: usize,
        end: usize,
        has_escape: bool,
        look: impl FnOnce(&mut Self, &mut [u8]) -> Walked<()>,
    ) -> Walked<()> {
        if !has_escape {
            return look(self, &mut text[start..end]);
        }
        let mut decoded = self.take();
        view::decode_json(&text[start..end], &mut decoded);
        let before = self.edits;
        let looked = look(self, &mut decoded);
        if self.edits != before {
            view::encode_json(&mut text[start..end], &decoded);
        }
        self.give(decoded);
        looked
    }

    /// Looks at a view of a part of a text, one level further down.
    pub(super) fn deeper(
        &mut self,
        view: &mut [u8],
        look: impl FnOnce(&mut Self, &mut [u8]) -> Walked<()>,
    ) -> Walked<bool> {
        if self.depth >= DEPTH {
            return Err(Stop::TooDeep);
        }
        self.depth += 1;
        let before = self.edits;
        let looked = look(self, view);
        self.depth -= 1;
        looked.map(|()| self.edits != before)
    }

    /// Free text: filler, or what is kept of it is searched.
    pub(super) fn content(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let is_arguments = self.is_arguments;
        if self.options.keep_content {
            return self.kept(text, place);
        }
        if self.learning {
            return Ok(());
        }
        if is_arguments {
            self.arguments(text, place, true);
            return Ok(());
        }
        filler::fill(text);
        self.count(Rule::FreeText, place);
        Ok(())
    }

    /// Arguments of a tool: whole, or a piece of a stream.
    pub(super) fn arguments(&mut self, text: &mut [u8], place: Place, is_piece: bool) {
        if self.learning {
            return;
        }
        if is_piece {
            if self.tokens.len() > 1024 {
                self.tokens.clear();
            }
            self.repeats.touched += 1;
            let stream = hash(self.stream, b"arguments");
            self.tokens.entry(stream).or_default().fill(text);
        } else {
            filler::Tokens::default().fill(text);
        }
        self.count(Rule::ToolArguments, place);
    }

    /// Free text that is kept: searched, also where a value is split over pieces of a stream.
    pub(super) fn kept(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let is_delta = matches!(self.paths.name(place), b"delta" | b"partial_json" | b"text" | b"thinking")
            && self.stream != 0;
        if is_delta {
            let stream = hash(self.stream, self.paths.name(place));
            if self.learning {
                self.joined.add(stream, text)?;
            } else if let Some(rules) = self.joined.replace(stream, text) {
                rules.into_iter().for_each(|rule| self.count(rule, place));
            }
        }
        let inner = self.paths.inner(place);
        self.free(text, inner, false)
    }

    /// A string with no meaning of its own: whatever structure it has is followed, the rest searched.
    pub(super) fn free(&mut self, text: &mut [u8], place: Place, is_payload: bool) -> Walked<()> {
        if text.len() < 4 {
            return Ok(());
        }
        let start = skip_space(text, 0);
        if is_payload {
            self.begin_event();
            if is_event_stream(&text[start..]) {
                return self.deeper(text, |walk, text| walk.events(text, place)).map(|_| ());
            }
            if self.is_form && memchr::memchr(b'=', text).is_some() {
                let part = self.paths.part(place, b"#form", Slot::Free, Area::Form);
                return self.parameters(text, part);
            }
        }
        if let Some(b'{' | b'[') = text.get(start) {
            let mut at = start;
            let inner = self.paths.inner(place);
            self.deeper(text, |walk, text| {
                let nesting = walk.nesting;
                // One JSON text behind the other is as good as one.
                while at < text.len() && matches!(text[at], b'{' | b'[') {
                    match walk.value(text, at, inner) {
                        Ok(end) => at = skip_space(text, end),
                        Err(Stop::Malformed(end)) => {
                            // Of a text that is cut off the rest is looked at as text.
                            at = if end > at + 64 { end } else { at };
                            break;
                        }
                        Err(stop) => return Err(stop),
                    }
                }
                walk.nesting = nesting;
                Ok(())
            })?;
            return if at < text.len() { self.text(&mut text[at..], place) } else { Ok(()) };
        }
        if text.starts_with(b"http://") || text.starts_with(b"https://") {
            return self.url(text, place);
        }
        self.text(text, place)
    }

    /// Text without structure: prose becomes filler, all else is searched.
    fn text(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        if self.is_prose(text) && self.paths.node(place).area != Area::Error {
            if !self.learning {
                filler::fill(text);
                self.count(Rule::FreeText, place);
            }
            return Ok(());
        }
        self.scan(text, place)
    }

    fn is_prose(&self, text: &[u8]) -> bool {
        !self.options.keep_content && text.len() > 80 && memchr::memchr_iter(b' ', text).take(8).count() == 8
    }

    /// A stream of events, line by line.
    fn events(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let inner = self.paths.inner(place);
        let data = self.paths.part(inner, b"#data", Slot::Payload, Area::Body);
        let mut at = 0;
        let mut event: Vec<std::ops::Range<usize>> = Vec::new();
        while at <= text.len() {
            let end = memchr::memchr2(b'\n', b'\r', &text[at..]).map_or(text.len(), |length| at + length);
            let line = &text[at..end];
            if line.starts_with(b"data:") {
                let start = at + 5 + usize::from(line.get(5) == Some(&b' '));
                event.push(start..end);
            } else if line.is_empty() {
                self.event(text, &mut event, data)?;
            } else if !line.starts_with(b"event:") {
                let id = if line.starts_with(b"id:") { at + 3 } else { at };
                self.scan(&mut text[id..end], inner)?;
            }
            let is_pair = text.get(end) == Some(&b'\r') && text.get(end + 1) == Some(&b'\n');
            at = end + 1 + usize::from(is_pair);
        }
        self.event(text, &mut event, data)
    }

    /// The data of one event, whose lines are joined to be looked at.
    fn event(
        &mut self,
        text: &mut [u8],
        lines: &mut Vec<std::ops::Range<usize>>,
        place: Place,
    ) -> Walked<()> {
        match lines.as_slice() {
            [] => {}
            [line] => self.free(&mut text[line.clone()], place, true)?,
            many => {
                let mut joined = self.take();
                for line in many {
                    joined.extend_from_slice(&text[line.clone()]);
                    joined.push(b'\n');
                }
                joined.pop();
                let before = self.edits;
                let looked = self.free(&mut joined, place, true);
                if self.edits != before {
                    let mut at = 0;
                    for line in many {
                        text[line.clone()].copy_from_slice(&joined[at..at + line.len()]);
                        at += line.len() + 1;
                    }
                }
                self.give(joined);
                looked?;
            }
        }
        lines.clear();
        Ok(())
    }

    /// The parameters of a query or a form.
    pub(super) fn parameters(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let mut at = 0;
        while at <= text.len() {
            let end = memchr::memchr(b'&', &text[at..]).map_or(text.len(), |length| at + length);
            match memchr::memchr(b'=', &text[at..end]) {
                Some(equals) => {
                    let mut name = self.take();
                    view::decode_percent(&text[at..at + equals], &mut name);
                    let child = self.child(place, &mut name)?;
                    self.give(name);
                    self.percent(&mut text[at + equals + 1..end], child)?;
                }
                None => self.scan(&mut text[at..end], place)?,
            }
            at = end + 1;
        }
        Ok(())
    }

    /// A part of a URL or form, percent-encoded or not.
    pub(super) fn percent(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let mut decoded = self.take();
        if view::decode_percent(text, &mut decoded) {
            if self.deeper(&mut decoded, |walk, view| walk.slotted(view, place))? {
                view::encode_percent(text, &decoded);
            }
            self.give(decoded);
            return Ok(());
        }
        self.give(decoded);
        self.slotted(text, place)
    }

    fn begin_event(&mut self) {
        self.repeats.touched += 1;
        (self.stream, self.is_arguments) = (self.exchange, false);
    }

    /// Takes down what a value tells of what comes beside it.
    fn note(&mut self, mark: Mark, value: &[u8]) {
        let before = (self.exchange, self.is_arguments);
        match mark {
            Mark::Exchange => self.exchange = hash(1, value),
            Mark::Type => self.is_arguments = value.ends_with(b"arguments.delta\""),
            Mark::Item => {
                self.stream = hash(self.exchange, value);
                self.repeats.touched += 1;
            }
            Mark::None => {}
        }
        if before != (self.exchange, self.is_arguments) {
            self.repeats.touched += 1;
        }
    }

    /// Whether what a value becomes depends on no value before it.
    pub(super) fn is_outside_streams(&self) -> bool {
        !self.is_arguments && !self.is_form
    }

    pub(super) fn set_form(&mut self, is_form: bool) {
        self.repeats.touched += 1;
        self.is_form = is_form;
    }

    /// Counts an edit.
    pub(super) fn count(&mut self, rule: Rule, place: Place) {
        self.edits += 1;
        *self.counts.entry((rule, place)).or_default() += 1;
        if let Some(log) = &mut self.repeats.log {
            log.push((rule, place));
        }
    }

    /// An empty buffer.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.pool.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.pool.len() < 16 {
            buffer.clear();
            self.pool.push(buffer);
        }
    }
}

/// Where the string that begins before `start` ends, and whether it has escapes.
fn string_end(text: &[u8], start: usize) -> (usize, bool) {
    let mut at = start;
    let mut has_escape = false;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let run = match view::short_run(rest, b'"', b'\\') {
            short if short < 64 => short,
            long => long + memchr::memchr2(b'"', b'\\', &rest[long..]).unwrap_or(rest.len() - long),
        };
        at += run;
        match text.get(at) {
            Some(b'"') => return (at, has_escape),
            Some(_) => {
                has_escape = true;
                at += 2;
            }
            None => break,
        }
    }
    (text.len(), has_escape)
}

fn skip_space(text: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at.min(text.len())
}

/// Whether a text begins like a stream of events.
pub(super) fn is_event_stream(text: &[u8]) -> bool {
    let fields: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b": "];
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    fields.iter().any(|field| text.starts_with(field))
}
