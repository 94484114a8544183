//! Decoded views of a text, and edits of them written back in place.
//!
//! A view is what a JSON string, a percent-encoded part, a run of base64 or of hex decodes to. Nothing here
//! knows what is sensitive. The rule: an edit keeps the length of the view, and writing a view back keeps
//! the length and the spelling of the encoded text; an unchanged view writes back as the same bytes.

use std::ops::Range;

const LOW: u64 = 0x0101_0101_0101_0101;

/// The bytes of a word that are zero, as their highest bits, right up to the first of them.
#[inline]
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & (LOW << 7)
}

/// How many bytes at the beginning of a text are neither of two, looked at eight at a time: escapes stand a
/// few bytes apart, which is too near for `memchr` to pay. Of a long run only its first bytes are counted.
#[inline]
pub(super) fn short_run(text: &[u8], one: u8, other: u8) -> usize {
    let mut at = 0;
    while at < 64 {
        let Some(chunk) = text.get(at..at + 8).and_then(|chunk| chunk.try_into().ok()) else { break };
        let word = u64::from_le_bytes(chunk);
        let found = zeros(word ^ (LOW * u64::from(one))) | zeros(word ^ (LOW * u64::from(other)));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    if at >= 64 {
        return at;
    }
    at + text[at..].iter().take_while(|byte| **byte != one && **byte != other).count()
}

/// How many bytes there are before the next backslash.
#[inline]
pub(super) fn run(text: &[u8]) -> usize {
    match short_run(text, b'\\', b'\\') {
        short if short < 64 => short,
        long => long + memchr::memchr(b'\\', &text[long..]).unwrap_or(text.len() - long),
    }
}

/// Copies one run over another of the same length; most are a few bytes long.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    if to.len() > 16 {
        to.copy_from_slice(from);
        return;
    }
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// Decodes the inside of a JSON string. Escapes that JSON does not have stand for themselves, so that any
/// bytes have a view; a lone surrogate becomes U+FFFD.
pub(super) fn decode_json(raw: &[u8], view: &mut Vec<u8>) {
    view.clear();
    view.resize(raw.len(), 0);
    let (mut at, mut length) = (0, 0);
    while at < raw.len() {
        // Escapes stand a few bytes apart: eight bytes are copied before it is known how many of them count.
        if let (Some(from), Some(to)) = (raw[at..].first_chunk(), view[length..].first_chunk_mut::<8>()) {
            *to = *from;
            let found = zeros(u64::from_le_bytes(*from) ^ (LOW * u64::from(b'\\')));
            let run = (found.trailing_zeros() / 8) as usize;
            (at, length) = (at + run, length + run);
            if found == 0 {
                let run = self::run(&raw[at..]);
                view[length..length + run].copy_from_slice(&raw[at..at + run]);
                (at, length) = (at + run, length + run);
            }
        } else {
            let run = self::run(&raw[at..]);
            copy(&mut view[length..length + run], &raw[at..at + run]);
            (at, length) = (at + run, length + run);
        }
        if at == raw.len() {
            break;
        }
        match escape(&raw[at..]) {
            Escape::Short(byte) => {
                view[length] = byte;
                length += 1;
                at += 2;
            }
            Escape::Unicode(found, width) => {
                let mut bytes = [0; 4];
                let bytes = found.encode_utf8(&mut bytes).as_bytes();
                view[length..length + bytes.len()].copy_from_slice(bytes);
                length += bytes.len();
                at += width;
            }
            Escape::None(width) => {
                view[length..length + width].copy_from_slice(&raw[at..at + width]);
                length += width;
                at += width;
            }
        }
    }
    view.truncate(length);
}

/// Writes a view back into the inside of a JSON string that it was decoded from.
pub(super) fn encode_json(raw: &mut [u8], view: &[u8]) {
    let (mut at, mut seen) = (0, 0);
    while at < raw.len() && seen < view.len() {
        let run = run(&raw[at..]).min(view.len() - seen);
        copy(&mut raw[at..at + run], &view[seen..seen + run]);
        at += run;
        seen += run;
        if at == raw.len() {
            return;
        }
        match escape(&raw[at..]) {
            Escape::Short(_) => {
                at += 2;
                seen += 1;
            }
            Escape::Unicode(old, length) => {
                let width = old.len_utf8();
                if let Some(new) = view.get(seen..seen + width).and_then(only_char)
                    && new != old
                {
                    spell(&mut raw[at..at + length], new);
                }
                at += length;
                seen += width;
            }
            Escape::None(length) => {
                at += length;
                seen += length;
            }
        }
    }
}

/// The one character that bytes are.
fn only_char(bytes: &[u8]) -> Option<char> {
    let mut chars = std::str::from_utf8(bytes).ok()?.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// What a backslash begins.
enum Escape {
    /// Two bytes for one that is no letter: they never change.
    Short(u8),
    /// `\uXXXX`, or two of them, with how many bytes that is.
    Unicode(char, usize),
    /// No escape of JSON: so many bytes stand for themselves.
    None(usize),
}

#[inline]
fn escape(text: &[u8]) -> Escape {
    let Some(kind) = text.get(1) else { return Escape::None(1) };
    match kind {
        b'"' | b'\\' | b'/' => Escape::Short(*kind),
        b'b' => Escape::Short(8),
        b'f' => Escape::Short(12),
        b'n' => Escape::Short(b'\n'),
        b'r' => Escape::Short(b'\r'),
        b't' => Escape::Short(b'\t'),
        b'u' => {
            let Some(high) = unit(&text[2..]) else { return Escape::None(2) };
            let low = text.get(6..8).filter(|next| next == b"\\u").and_then(|_| unit(&text[8..]));
            match (char::from_u32(high), low) {
                (Some(found), _) => Escape::Unicode(found, 6),
                (None, Some(low)) if high < 0xDC00 && (0xDC00..0xE000).contains(&low) => {
                    let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                    Escape::Unicode(char::from_u32(code).unwrap_or('\u{FFFD}'), 12)
                }
                _ => Escape::Unicode('\u{FFFD}', 6),
            }
        }
        // What looks like an escape and is none may hold the start of a character.
        _ => Escape::None(1),
    }
}

fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.get(..4)?;
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + (*digit as char).to_digit(16)?))
}

/// Spells a character as `\uXXXX`, with hex digits of the case that stands there.
fn spell(raw: &mut [u8], new: char) {
    let mut units = [0; 2];
    for (unit, place) in new.encode_utf16(&mut units).iter().zip(raw.chunks_exact_mut(6)) {
        write_hex(&mut place[2..], u32::from(*unit));
    }
}

/// Writes a number over hex digits; letters get the case of the letters that stand there, else lower case.
fn write_hex(place: &mut [u8], mut number: u32) {
    let upper = place.iter().any(u8::is_ascii_uppercase);
    for digit in place.iter_mut().rev() {
        let new = b"0123456789abcdef"[(number % 16) as usize];
        *digit = if upper { new.to_ascii_uppercase() } else { new };
        number /= 16;
    }
}

/// Decodes `%XX`; says whether there was any.
pub(super) fn decode_percent(raw: &[u8], view: &mut Vec<u8>) -> bool {
    view.clear();
    let (mut at, mut any) = (0, false);
    while at < raw.len() {
        if let Some(byte) = percent(&raw[at..]) {
            view.push(byte);
            any = true;
            at += 3;
        } else {
            view.push(raw[at]);
            at += 1;
        }
    }
    any
}

/// Writes a view back over the percent-encoded text that it was decoded from.
pub(super) fn encode_percent(raw: &mut [u8], view: &[u8]) {
    let mut at = 0;
    for new in view {
        if at >= raw.len() {
            return;
        }
        if let Some(old) = percent(&raw[at..]) {
            if old != *new {
                write_hex(&mut raw[at + 1..at + 3], u32::from(*new));
            }
            at += 3;
        } else {
            raw[at] = *new;
            at += 1;
        }
    }
}

fn percent(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| (*text.get(at)? as char).to_digit(16);
    if text[0] != b'%' {
        return None;
    }
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

/// Decodes pairs of hex digits; the text is nothing else.
pub(super) fn decode_hex(raw: &[u8], view: &mut Vec<u8>) {
    view.clear();
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0);
    view.extend(raw.chunks_exact(2).map(|pair| (digit(pair[0]) * 16 + digit(pair[1])) as u8));
}

/// Writes a view back over the hex digits that it was decoded from.
pub(super) fn encode_hex(raw: &mut [u8], view: &[u8]) {
    let upper = raw.iter().any(u8::is_ascii_uppercase);
    for (pair, new) in raw.chunks_exact_mut(2).zip(view) {
        for (digit, value) in pair.iter_mut().zip([new >> 4, new & 15]) {
            let new = b"0123456789abcdef"[usize::from(value)];
            *digit = if upper { new.to_ascii_uppercase() } else { new };
        }
    }
}

/// Decodes base64 of either alphabet, without padding: whole groups, and a rest of two or three digits.
pub(super) fn decode_base64(raw: &[u8], view: &mut Vec<u8>) {
    view.clear();
    let sextet = |byte: &u8| u32::from(SEXTETS[usize::from(*byte)]) & 63;
    for group in raw.chunks(4) {
        let bits = group.iter().fold(0, |bits, byte| (bits << 6) | sextet(byte)) << (6 * (4 - group.len()));
        let bytes = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        view.extend_from_slice(&bytes[..group.len() * 6 / 8]);
    }
}

/// Writes a view back over the base64 digits that it was decoded from. Bits that belong to no byte stay.
pub(super) fn encode_base64(raw: &mut [u8], view: &[u8]) {
    let has = |of: [u8; 2]| memchr::memchr2(of[0], of[1], raw).is_some();
    let url = has([b'-', b'_']) || (!has([b'+', b'/']) && !raw.len().is_multiple_of(4));
    let alphabet = if url { URL_ALPHABET } else { ALPHABET };
    for (group, bytes) in raw.chunks_mut(4).zip(view.chunks(3)) {
        let old =
            group.iter().fold(0, |bits, byte| (bits << 6) | u32::from(SEXTETS[usize::from(*byte)] & 63));
        let old = old << (6 * (4 - group.len()));
        let mut new = old;
        for (place, byte) in bytes.iter().enumerate() {
            let shift = 16 - 8 * place;
            new = (new & !(0xFF << shift)) | (u32::from(*byte) << shift);
        }
        for (place, digit) in group.iter_mut().enumerate() {
            let shift = 18 - 6 * place;
            if (old >> shift) & 63 != (new >> shift) & 63 {
                *digit = alphabet[((new >> shift) & 63) as usize];
            }
        }
    }
}

/// Base64 that is wrapped into lines of one length, the last of which may be shorter: where the digits of
/// each line stand.
pub(super) fn wrapped(text: &[u8]) -> Vec<Vec<Range<usize>>> {
    let mut found = Vec::new();
    if memchr::memchr(b'\n', text).is_none() {
        return found;
    }
    let mut block: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', text).chain([text.len()]) {
        let line = text[start..end].trim_ascii();
        let first = end - text[start..end].trim_ascii_start().len();
        let digits = line.iter().take_while(|byte| is_base64(**byte)).count();
        let is_line = line[digits..].iter().all(|byte| *byte == b'=');
        let is_next = block.first().is_some_and(|line| line.len() >= digits) && digits > 0;
        if !(is_line && is_next) {
            found.extend(Some(std::mem::take(&mut block)).filter(|block| block.len() > 1));
        }
        if is_line && (is_next || digits >= LEAST_LINE) {
            let is_last = block.first().is_some_and(|line| line.len() > digits) || line.len() > digits;
            block.push(first..first + digits);
            if is_last {
                found.extend(Some(std::mem::take(&mut block)).filter(|block| block.len() > 1));
            }
        }
        start = end + 1;
    }
    found.extend(Some(block).filter(|block| block.len() > 1));
    found
}

/// Base64 is not wrapped into shorter lines: they hold words.
const LEAST_LINE: usize = 16;

/// Whether a byte is a digit of base64, of either alphabet.
pub(super) fn is_base64(byte: u8) -> bool {
    SEXTETS[usize::from(byte)] < 64
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The value of each base64 digit, 255 for what is none.
const SEXTETS: [u8; 256] = {
    let mut table = [255; 256];
    let mut at = 0;
    while at < 64 {
        table[ALPHABET[at] as usize] = at as u8;
        table[URL_ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    table
};

/// Ranges of runs of bytes of one class that are at least `least` long.
pub(super) fn runs(text: &[u8], least: usize, is: impl Fn(u8) -> bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    // A run of the wanted length covers every `least`-th byte: look there first.
    while at + least <= text.len() {
        if !is(text[at + least - 1]) {
            at += least;
            continue;
        }
        let probe = at + least - 1;
        let start =
            at + text[at..probe].iter().rev().take_while(|byte| is(**byte)).count().abs_diff(least - 1);
        let end = probe + text[probe..].iter().take_while(|byte| is(**byte)).count();
        if end - start >= least {
            found.push(start..end);
        }
        at = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use proptest::prelude::*;

    /// The inside of a JSON string, with any spelling of its characters.
    fn spelled() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<char>().prop_map(|found| {
                let text = serde_json::to_string(&found.to_string()).expect("a string");
                text[1..text.len() - 1].to_owned()
            }),
            any::<(char, bool)>().prop_map(|(found, upper)| {
                let units = found.encode_utf16(&mut [0; 2]).to_vec();
                let spell =
                    |unit: &u16| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
                units.iter().map(spell).collect()
            }),
            Just("\\/".to_owned()),
            "[a-z ]{1,40}",
        ];
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_json_view_is_what_serde_reads_and_writes_back_as_it_was(inner in spelled()) {
            let mut view = Vec::new();
            decode_json(inner.as_bytes(), &mut view);
            let expected: String = serde_json::from_str(&format!("\"{inner}\"")).expect("a string");
            prop_assert_eq!(&view, expected.as_bytes());
            let mut again = inner.clone().into_bytes();
            encode_json(&mut again, &view);
            prop_assert_eq!(again, inner.into_bytes());
        }

        #[test]
        fn an_edit_of_a_json_view_lands_where_it_belongs(inner in spelled()) {
            let mut view = Vec::new();
            decode_json(inner.as_bytes(), &mut view);
            view.iter_mut().filter(|byte| byte.is_ascii_alphanumeric()).for_each(|byte| *byte = b'x');
            let mut raw = inner.clone().into_bytes();
            encode_json(&mut raw, &view);
            prop_assert_eq!(raw.len(), inner.len());
            let read: String = serde_json::from_str(&format!("\"{}\"", String::from_utf8(raw).expect("text"))).expect("a string");
            prop_assert_eq!(read.as_bytes(), &view[..]);
        }

        #[test]
        fn any_bytes_have_views_that_write_back(bytes in prop::collection::vec(
            prop_oneof![prop::sample::select(b"\\u00%4aAd/-".to_vec()), any::<u8>()], 0..60)
        ) {
            let mut view = Vec::new();
            for (decode, encode) in [
                (decode_json as fn(&[u8], &mut Vec<u8>), encode_json as fn(&mut [u8], &[u8])),
                (|raw, view| { decode_percent(raw, view); }, encode_percent),
            ] {
                decode(&bytes, &mut view);
                let mut again = bytes.clone();
                encode(&mut again, &view);
                prop_assert_eq!(&again, &bytes);
            }
        }

        #[test]
        fn base64_and_hex_take_edits(old in prop::collection::vec(any::<u8>(), 0..40), seed in any::<u8>()) {
            let new: Vec<u8> = old.iter().map(|byte| byte ^ seed).collect();
            let mut view = Vec::new();
            for engine in [base64::engine::general_purpose::STANDARD_NO_PAD, base64::engine::general_purpose::URL_SAFE_NO_PAD] {
                let mut text = engine.encode(&old).into_bytes();
                decode_base64(&text, &mut view);
                prop_assert_eq!(&view, &old);
                encode_base64(&mut text, &new);
                decode_base64(&text, &mut view);
                prop_assert_eq!(&view, &new);
            }
            let mut text: Vec<u8> = old.iter().flat_map(|byte| format!("{byte:02X}").into_bytes()).collect();
            decode_hex(&text, &mut view);
            prop_assert_eq!(&view, &old);
            encode_hex(&mut text, &new);
            decode_hex(&text, &mut view);
            prop_assert_eq!(&view, &new);
        }

        #[test]
        fn runs_are_all_that_are_long_enough(text in "[ab.]{0,60}", least in 1_usize..6) {
            let found = runs(text.as_bytes(), least, |byte| byte != b'.');
            let mut at = 0;
            let mut expected = Vec::new();
            for part in text.split('.') {
                if part.len() >= least {
                    expected.push(at..at + part.len());
                }
                at += part.len() + 1;
            }
            prop_assert_eq!(found, expected);
        }
    }
}
