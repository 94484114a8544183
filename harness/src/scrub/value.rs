//! What is done with a decoded value of each kind: taken down in the first pass, written over in the second.
//!
//! Composite values are taken apart here: URLs, credentials with a scheme, cookies, tokens with claims,
//! ids that hold ids. How to get to a value is `walk`'s part.

use std::ops::Range;

use super::paths::Place;
use super::placeholder;
use super::rules::{Area, Rule, Slot};
use super::vault;
use super::walk::{Stop, Walk, Walked};
use super::{detect, filler, time, view};

/// Shorter runs of base64 or hex are not decoded: what they could hold is shorter than what is looked for.
const LEAST_RUN: usize = 12;

impl Walk {
    /// Looks at a decoded value in its place.
    pub(super) fn slotted(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        if text.is_empty() {
            return Ok(());
        }
        match self.paths.node(place).slot {
            Slot::Plain => Ok(()),
            Slot::Scan => self.scan(text, place),
            Slot::Free => self.free(text, place, false),
            Slot::Payload | Slot::Base64 => self.free(text, place, true),
            Slot::Content => self.content(text, place),
            Slot::Phrase if is_word(text) => self.scan(text, place),
            Slot::Phrase => self.content(text, place),
            Slot::Arguments if self.options.keep_content => self.kept(text, place),
            Slot::Arguments => {
                let is_piece = self.paths.name(place) == b"partial_json";
                self.arguments(text, place, is_piece);
                Ok(())
            }
            Slot::Time => self.time(text, place),
            Slot::MaybeId if is_known_id(text) => self.id(Rule::ObjectId, text, place),
            Slot::MaybeId => self.free(text, place, false),
            Slot::Id(rule) => self.id(rule, text, place),
            Slot::Whole(rule) => self.whole(rule, text, place),
            Slot::Url => self.url(text, place),
            Slot::Head => self.head(text, place),
            Slot::Authorization => self.authorization(text, place),
            Slot::Cookie => self.cookies(text, place, false),
            Slot::SetCookie => self.cookies(text, place, true),
            Slot::Media => self.media(text, place),
            Slot::Host => self.host(text, place),
            Slot::ContentType => {
                self.set_form(memchr::memmem::find(text, b"x-www-form-urlencoded").is_some());
                Ok(())
            }
        }
    }

    /// A value that is replaced as a whole, unless it is one that has parts.
    fn whole(&mut self, rule: Rule, text: &mut [u8], place: Place) -> Walked<()> {
        if is_jwt(text) {
            return self.jwt(text, place);
        }
        if matches!(text.first(), Some(b'{' | b'[')) {
            return self.free(text, place, false);
        }
        if rule == Rule::PrivateKey && text.starts_with(b"-----") {
            return self.scan(text, place);
        }
        self.replace_whole(rule, text, place)
    }

    /// Takes a value down, or writes its placeholder over it.
    pub(super) fn replace_whole(&mut self, rule: Rule, text: &mut [u8], place: Place) -> Walked<()> {
        if self.learning {
            let paths = &self.paths;
            self.vault.learn(rule, text, || paths.pattern(place));
        } else if let Some(replaced) = self.vault.replace(text) {
            let rule = replaced.map_err(Stop::NoRoom)?;
            self.count(rule, place);
        }
        Ok(())
    }

    /// An id, or several in one.
    fn id(&mut self, rule: Rule, text: &mut [u8], place: Place) -> Walked<()> {
        if matches!(text.first(), Some(b'{' | b'[')) || text.contains(&b' ') {
            return self.free(text, place, false);
        }
        let uuids = uuids(text);
        if !uuids.is_empty() {
            let mut at = 0;
            for uuid in uuids {
                self.rest_of_id(rule, &mut text[at..uuid.start], place)?;
                at = uuid.end;
                self.replace_whole(rule, &mut text[uuid], place)?;
            }
            return self.rest_of_id(rule, &mut text[at..], place);
        }
        if rule == Rule::TraceId && text.contains(&b'-') {
            return self.rest_of_id(rule, text, place);
        }
        let is_weak = matches!(rule, Rule::ObjectId) && !is_known_id(text) && !vault::looks_like_id(text);
        let places = text.iter().filter(|byte| byte.is_ascii_alphanumeric()).count();
        if is_weak || places < 4 || vault::is_common(text) {
            return self.scan(text, place);
        }
        self.replace_whole(rule, text, place)
    }

    /// What stands around the UUIDs of an id: its long parts are ids too.
    fn rest_of_id(&mut self, rule: Rule, text: &mut [u8], place: Place) -> Walked<()> {
        for part in text.split_mut(|byte| !byte.is_ascii_alphanumeric()) {
            if part.len() >= 16 && part.iter().any(u8::is_ascii_digit) {
                self.replace_whole(rule, part, place)?;
            }
        }
        Ok(())
    }

    /// A time, wherever it stands in the value.
    pub(super) fn time(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        if time::seconds(text).is_none() {
            return self.scan(text, place);
        }
        if self.learning {
            self.vault.learn_time(text);
            return Ok(());
        }
        let by = self.vault.shift();
        if by == 0 {
            return Ok(());
        }
        if !time::shift(text, by) {
            return Err(Stop::Time(self.paths.pattern(place)));
        }
        self.count(Rule::Time, place);
        Ok(())
    }

    /// A URL, or what is left of one from its path on.
    pub(super) fn url(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        if text.starts_with(b"data:") {
            return self.media(text, place);
        }
        let mut at = 0;
        if let Some(scheme) = memchr::memmem::find(text, b"://") {
            let start = scheme + 3;
            let end = start + text[start..].iter().take_while(|byte| !b"/?#".contains(byte)).count();
            let mut host = start;
            if let Some(sign) = memchr::memrchr(b'@', &text[start..end]) {
                let user = &mut text[start..start + sign];
                let colon = memchr::memchr(b':', user).map_or(0, |colon| colon + 1);
                self.replace_whole(Rule::ConnectionString, &mut user[colon..], place)?;
                host = start + sign + 1;
            }
            self.host(&mut text[host..end], place)?;
            at = end;
        }
        let query =
            text[at..].iter().position(|byte| b"?#".contains(byte)).map_or(text.len(), |query| at + query);
        let segment = self.paths.part(place, b"#path", Slot::MaybeId, Area::Body);
        for part in text[at..query].split_mut(|byte| *byte == b'/') {
            self.percent(part, segment)?;
        }
        if query < text.len() {
            let place = self.paths.part(place, b"#query", Slot::Free, Area::Query);
            for part in text[query + 1..].split_mut(|byte| *byte == b'#') {
                self.parameters(part, place)?;
            }
        }
        self.search(text, place)
    }

    /// The name of a machine, with or without port, or an origin.
    fn host(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        if memchr::memmem::find(text, b"://").is_some() {
            return self.url(text, place);
        }
        let end = memchr::memchr(b':', text).unwrap_or(text.len());
        if detect::is_host(&text[..end]) {
            return self.replace_whole(Rule::HostName, &mut text[..end], place);
        }
        self.scan(text, place)
    }

    /// The head of a message: its first line, and a field per line.
    fn head(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let fields = self.paths.part(place, b"#fields", Slot::Scan, Area::Headers);
        let target = self.paths.part(place, b"#target", Slot::Url, Area::Body);
        for (at, line) in text.split_mut(|byte| *byte == b'\n').enumerate() {
            let end = line.strip_suffix(b"\r").map_or(line.len(), <[u8]>::len);
            let line = &mut line[..end];
            if at > 0 {
                self.line(line, fields)?;
                continue;
            }
            let mut words = line.split_mut(|byte| *byte == b' ');
            if let (Some(_), Some(word)) = (words.next(), words.next()) {
                self.slotted(word, target)?;
            }
        }
        Ok(())
    }

    /// A scheme and what it carries.
    fn authorization(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let Some(space) = memchr::memchr(b' ', text) else {
            return self.whole(Rule::BearerToken, text, place);
        };
        let (scheme, rest) = text.split_at_mut(space + 1);
        let skipped = rest.iter().take_while(|byte| **byte == b' ').count();
        let rest = &mut rest[skipped..];
        if scheme.trim_ascii().eq_ignore_ascii_case(b"basic") {
            return self.basic(rest, place);
        }
        let is_list = rest.contains(&b'=') && (rest.contains(&b',') || rest.contains(&b' '));
        if !is_list {
            return self.whole(Rule::BearerToken, rest, place);
        }
        for part in rest.split_mut(|byte| matches!(byte, b',' | b' ')) {
            let Some(equals) = memchr::memchr(b'=', part) else { continue };
            let (name, value) = part.split_at_mut(equals + 1);
            let is_plain: [&[u8]; 5] = [b"SignedHeaders=", b"algorithm=", b"qop=", b"realm=", b"nc="];
            if !is_plain.contains(&&*name) {
                self.replace_whole(Rule::SignedUrl, value, place)?;
            }
        }
        Ok(())
    }

    /// `user:password` as base64.
    fn basic(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let end = text.iter().take_while(|byte| view::is_base64(**byte)).count();
        let mut decoded = self.take();
        view::decode_base64(&text[..end], &mut decoded);
        let Some(colon) = memchr::memchr(b':', &decoded) else {
            self.give(decoded);
            return self.whole(Rule::BasicAuth, text, place);
        };
        let changed = self.deeper(&mut decoded, |walk, view| {
            let (user, password) = view.split_at_mut(colon);
            if detect::is_user(user) {
                walk.whole(Rule::UserName, user, place)?;
            }
            walk.whole(Rule::BasicAuth, &mut password[1..], place)
        })?;
        if changed {
            view::encode_base64(&mut text[..end], &decoded);
        }
        self.give(decoded);
        Ok(())
    }

    /// A token with claims: the claims are walked, the signature is the token's number.
    fn jwt(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let mut parts = text.split_mut(|byte| *byte == b'.');
        let (Some(_), Some(claims), Some(signature)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(());
        };
        self.replace_whole(Rule::Jwt, signature, place)?;
        let inner = self.paths.part(place, b"#claims", Slot::Free, Area::Person);
        let mut decoded = self.take();
        view::decode_base64(claims, &mut decoded);
        if self.deeper(&mut decoded, |walk, view| walk.free(view, inner, false))? {
            view::encode_base64(claims, &decoded);
        }
        self.give(decoded);
        Ok(())
    }

    fn cookies(&mut self, text: &mut [u8], place: Place, is_set: bool) -> Walked<()> {
        let value_place = self.paths.part(place, b"#value", Slot::Whole(Rule::Cookie), Area::Body);
        for (at, part) in text.split_mut(|byte| *byte == b';').enumerate() {
            let Some(equals) = memchr::memchr(b'=', part) else { continue };
            let (name, value) = part.split_at_mut(equals + 1);
            let name = name.trim_ascii().to_ascii_lowercase();
            match (is_set && at > 0, name.as_slice()) {
                (true, b"expires=") => self.time(value, place)?,
                (true, b"domain=") => self.host(value, place)?,
                (true, _) => {}
                _ => self.percent(value, value_place)?,
            }
        }
        Ok(())
    }

    /// A picture, sound or file: bytes that are nobody's business.
    fn media(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let start = if text.starts_with(b"data:") {
            memchr::memchr(b',', text).map_or(0, |comma| comma + 1)
        } else {
            0
        };
        let rest = &mut text[start..];
        let is_digits = rest.iter().all(|byte| view::is_base64(*byte) || b"=\r\n".contains(byte));
        if rest.len() < 64 || !is_digits {
            return if text.starts_with(b"data:") {
                self.scan(text, place)
            } else {
                self.free(text, place, false)
            };
        }
        if !self.learning && !filler::is_filler(rest) {
            filler::fill(rest);
            self.count(Rule::Media, place);
        }
        Ok(())
    }

    /// Searches a text that has no structure, in every encoding it may have.
    pub(super) fn scan(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        if text.len() < 3 || self.clean.has(text) {
            return Ok(());
        }
        let before = (self.edits, self.vault.len());
        self.search(text, place)?;
        if before == (self.edits, self.vault.len()) {
            self.clean.add(text);
        }
        Ok(())
    }

    fn search(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        let features = detect::features(text);
        for range in detect::times(text, features) {
            let range_text = &mut text[range];
            if time::seconds(range_text).is_some() {
                self.time(range_text, place)?;
            }
        }
        if self.learning {
            let (vault, paths) = (&mut self.vault, &self.paths);
            detect::find(text, features, true, |rule, range| {
                let value = &text[range];
                let value = if rule == Rule::Jwt { signature(value) } else { value };
                vault.learn(rule, value, || paths.pattern(place));
            });
        } else {
            for (_, range) in self.vault.hits(text) {
                self.replace_whole(Rule::Secret, &mut text[range], place)?;
            }
        }
        if detect::has_percent(features) {
            let mut decoded = self.take();
            if view::decode_percent(text, &mut decoded)
                && self.deeper(&mut decoded, |walk, view| walk.scan(view, place))?
            {
                view::encode_percent(text, &decoded);
            }
            self.give(decoded);
        }
        if detect::has_backslash(features) && has_escape(text) {
            let mut decoded = self.take();
            view::decode_json(text, &mut decoded);
            if decoded != text && self.deeper(&mut decoded, |walk, view| walk.scan(view, place))? {
                view::encode_json(text, &decoded);
            }
            self.give(decoded);
        }
        if text.len() >= LEAST_RUN {
            self.wrapped(text, place)?;
            self.runs(text, place)?;
        }
        Ok(())
    }

    /// Looks into base64 that is wrapped into lines, where a value may begin in one and end in the next.
    fn wrapped(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        for lines in view::wrapped(text) {
            let mut digits = self.take();
            lines.iter().for_each(|line| digits.extend_from_slice(&text[line.clone()]));
            let mut decoded = self.take();
            view::decode_base64(&digits, &mut decoded);
            if !filler::is_filler(&digits) && self.decoded(&mut decoded, place)? {
                view::encode_base64(&mut digits, &decoded);
                let mut rest = digits.as_slice();
                for line in lines {
                    let (new, later) = rest.split_at(line.len());
                    text[line].copy_from_slice(new);
                    rest = later;
                }
            }
            self.give(decoded);
            self.give(digits);
        }
        Ok(())
    }

    /// Looks into the runs of base64 and of hex of a text.
    fn runs(&mut self, text: &mut [u8], place: Place) -> Walked<()> {
        for range in view::runs(text, LEAST_RUN, view::is_base64) {
            let run = &mut text[range];
            if filler::is_filler(run) {
                continue;
            }
            let mut decoded = self.take();
            if run.len().is_multiple_of(2) && placeholder::is_hex(run) {
                view::decode_hex(run, &mut decoded);
                if self.decoded(&mut decoded, place)? {
                    view::encode_hex(run, &decoded);
                }
            } else {
                self.hex_in(run, place)?;
            }
            // What stands before it may belong to its alphabet.
            for start in 0..4 {
                let digits = &mut run[start..];
                view::decode_base64(digits, &mut decoded);
                if self.decoded(&mut decoded, place)? {
                    view::encode_base64(digits, &decoded);
                    break;
                }
            }
            self.give(decoded);
        }
        Ok(())
    }

    /// Hex digits within a longer run of letters and digits.
    fn hex_in(&mut self, run: &mut [u8], place: Place) -> Walked<()> {
        for range in view::runs(run, LEAST_RUN, |byte| byte.is_ascii_hexdigit()) {
            for start in 0..2 {
                let end = range.end - (range.end - range.start - start) % 2;
                let mut decoded = self.take();
                view::decode_hex(&run[range.start + start..end], &mut decoded);
                if self.decoded(&mut decoded, place)? {
                    view::encode_hex(&mut run[range.start + start..end], &decoded);
                }
                self.give(decoded);
            }
        }
        Ok(())
    }

    /// Looks at bytes that may be a text or may be noise. Says whether they were edited.
    fn decoded(&mut self, bytes: &mut [u8], place: Place) -> Walked<bool> {
        if is_text(bytes) {
            let inner = self.paths.inner(place);
            return self.deeper(bytes, |walk, view| {
                if walk.paths.node(place).area == Area::Error {
                    walk.scan(view, place)
                } else {
                    walk.free(view, inner, false)
                }
            });
        }
        if self.learning {
            return Ok(false);
        }
        let before = self.edits;
        for (_, range) in self.vault.hits(bytes) {
            if range.len() >= 6 {
                self.replace_whole(Rule::Secret, &mut bytes[range], place)?;
            }
        }
        Ok(self.edits != before)
    }
}

/// Whether bytes are text, and not what random bytes decode to.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let is_plain = |byte: &u8| !byte.is_ascii_control() || b"\t\n\r".contains(byte);
    bytes.len() >= 8 && bytes.iter().all(is_plain) && std::str::from_utf8(bytes).is_ok()
}

/// Whether a text has escapes of a JSON string that hide letters.
fn has_escape(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"\\u").is_some() || memchr::memmem::find(text, b"\\/").is_some()
}

/// Whether free text is one word, as the values of enumerations are.
fn is_word(text: &[u8]) -> bool {
    text.len() <= 16 && text.iter().all(|byte| byte.is_ascii_lowercase() || b"_-".contains(byte))
}

/// Whether the value of a field that need not be an id is one.
fn is_known_id(text: &[u8]) -> bool {
    let is_number = text.iter().all(u8::is_ascii_digit);
    !is_number && (vault::looks_like_id(text) || !uuids(text).is_empty())
}

/// The UUIDs within a text that is no more than an id.
fn uuids(text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 36 <= text.len() {
        if placeholder::is_uuid(&text[at..at + 36]) {
            found.push(at..at + 36);
            at += 36;
        } else {
            at += 1;
        }
    }
    found
}

pub(super) fn is_jwt(text: &[u8]) -> bool {
    text.starts_with(b"eyJ") && text.split(|byte| *byte == b'.').count() == 3
}

/// The signature of a token.
pub(super) fn signature(token: &[u8]) -> &[u8] {
    &token[memchr::memrchr(b'.', token).map_or(0, |at| at + 1)..]
}
