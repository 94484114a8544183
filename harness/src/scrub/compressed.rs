//! Payloads that are no text: base64 of the record, and what is compressed under it.
//!
//! A compressed body is the one place where an edit changes a length: the new digits, the length of the
//! record's body and its `content-length` are spliced into the record together, once it has been walked.

use std::io::Read as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::paths::Place;
use super::view;
use super::walk::{Stop, Walk, Walked};

/// Digits to be put in place of those that stand in a range of a record.
#[derive(Debug)]
pub(super) struct Splice {
    range: Range<usize>,
    digits: String,
    /// Length of the bytes that the digits stood for, and stand for.
    lengths: (usize, usize),
}

/// How a payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
    /// What HTTP calls `deflate` (RFC 9110 §8.4.1.2). Some send it without the frame of zlib, which nothing
    /// tells apart from noise: that is refused.
    Zlib,
    /// Nothing in the bytes tells brotli from noise, so it is one only where that is stated.
    Brotli,
}

/// A body that is longer when decompressed is refused.
pub(super) const LIMIT: u64 = 256 * 1024 * 1024;

/// How bytes are compressed, told by how they begin.
pub(super) fn coding(bytes: &[u8]) -> Option<Coding> {
    match bytes {
        [0x1F, 0x8B, 8, ..] => Some(Coding::Gzip),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some(Coding::Zstd),
        // RFC 1950 §2.2: the method, no dictionary, and a check of both bytes.
        [0x78, flags, ..] if flags & 0x20 == 0 && (0x7800 + u32::from(*flags)).is_multiple_of(31) => {
            Some(Coding::Zlib)
        }
        _ => None,
    }
}

impl Coding {
    /// Decompresses a whole body.
    pub(super) fn decode(self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        match self {
            Coding::Gzip => {
                flate2::read::MultiGzDecoder::new(bytes).take(LIMIT + 1).read_to_end(&mut plain)?
            }
            Coding::Zstd => zstd::Decoder::new(bytes)?.take(LIMIT + 1).read_to_end(&mut plain)?,
            Coding::Zlib => flate2::read::ZlibDecoder::new(bytes).take(LIMIT + 1).read_to_end(&mut plain)?,
            Coding::Brotli => {
                let mut decoder = brotli_decompressor::Decompressor::new(bytes, 4096).take(LIMIT + 1);
                let stated = |error| {
                    std::io::Error::other(format!("its content-encoding is \"br\", it is not: {error}"))
                };
                decoder.read_to_end(&mut plain).map_err(stated)?
            }
        };
        if plain.len() as u64 > LIMIT {
            return Err(std::io::Error::other("the body is too long when decompressed"));
        }
        Ok(plain)
    }

    fn encode(self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Coding::Gzip => {
                let mut encoder = flate2::read::GzEncoder::new(plain, flate2::Compression::default());
                let mut bytes = Vec::new();
                encoder.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            Coding::Zstd => zstd::encode_all(plain, zstd::DEFAULT_COMPRESSION_LEVEL),
            Coding::Zlib => {
                let mut encoder = flate2::read::ZlibEncoder::new(plain, flate2::Compression::default());
                let mut bytes = Vec::new();
                encoder.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            Coding::Brotli => Ok(store(plain)),
        }
    }
}

/// Bytes in the format of brotli, without being compressed: a stream whose window has 16 bits, of meta-blocks
/// that are not compressed, and an empty last one (RFC 7932 §9.1 and §9.2). Bits go from the least significant
/// one of a byte upwards.
fn store(plain: &[u8]) -> Vec<u8> {
    let mut stream = Vec::with_capacity(plain.len() + 8);
    for (at, piece) in plain.chunks(1 << 16).enumerate() {
        // Not the last, a length of four nibbles, the length less one, not compressed.
        let header = (piece.len() as u32 - 1) << 3 | 1 << 19;
        // The window is stated once, in one bit that is zero.
        let header = if at == 0 { header << 1 } else { header };
        stream.extend_from_slice(&header.to_le_bytes()[..3]);
        stream.extend_from_slice(piece);
    }
    // The last, and empty; behind the window if there is nothing before.
    stream.push(if plain.is_empty() { 0b110 } else { 0b11 });
    stream
}

impl Walk {
    /// A payload in base64.
    pub(super) fn payload(&mut self, text: &mut [u8], start: usize, end: usize, place: Place) -> Walked<()> {
        let digits = text[start..end].iter().take_while(|byte| view::is_base64(**byte)).count();
        if text[start + digits..end].iter().any(|byte| *byte != b'=') {
            return self.scan(&mut text[start..end], place);
        }
        let mut bytes = self.take();
        view::decode_base64(&text[start..start + digits], &mut bytes);
        // A record states how its own payload is encoded; of one within a view nothing is known.
        let stated = if self.depth == 0 { stated(text) } else { None };
        let found = match actual(&bytes, stated.as_deref()) {
            Ok(found) => found,
            Err(reason) => {
                return Err(Stop::Compressed(format!("{}: {reason}", self.paths.pattern(place))));
            }
        };
        let walked = match found {
            Some(coding) => self.compressed(coding, &bytes, start..end, place),
            None => {
                let looked = if std::str::from_utf8(&bytes).is_ok() {
                    self.deeper(&mut bytes, |walk, view| walk.free(view, place, true))
                } else {
                    self.deeper(&mut bytes, |walk, view| walk.scan(view, place))
                };
                looked.map(|is_edited| {
                    if is_edited {
                        view::encode_base64(&mut text[start..start + digits], &bytes);
                    }
                })
            }
        };
        self.give(bytes);
        walked
    }

    fn compressed(&mut self, coding: Coding, bytes: &[u8], range: Range<usize>, place: Place) -> Walked<()> {
        let broken = |walk: &Self, error: &std::io::Error| {
            Stop::Compressed(format!("{}: {error}", walk.paths.pattern(place)))
        };
        let mut plain = coding.decode(bytes).map_err(|error| broken(self, &error))?;
        if !self.deeper(&mut plain, |walk, view| walk.free(view, place, true))? {
            return Ok(());
        }
        let again = coding.encode(&plain).map_err(|error| broken(self, &error))?;
        if self.depth > 0 {
            // Within a view nothing may change its length.
            return Err(Stop::Compressed(self.paths.pattern(place)));
        }
        self.splices.push(Splice {
            range,
            digits: STANDARD.encode(&again),
            lengths: (bytes.len(), again.len()),
        });
        Ok(())
    }

    /// Puts what was compressed again into the record.
    pub(super) fn splice(&mut self, line: &mut Vec<u8>) {
        for splice in std::mem::take(&mut self.splices).into_iter().rev() {
            line.splice(splice.range, splice.digits.into_bytes());
            let (old, new) = splice.lengths;
            for range in lengths(line, old).into_iter().rev() {
                line.splice(range, new.to_string().into_bytes());
            }
        }
    }
}

/// How a payload is encoded that may be stated to be so; none if it is as it is.
fn actual(bytes: &[u8], stated: Option<&str>) -> Result<Option<Coding>, String> {
    let found = coding(bytes);
    match (found, stated) {
        (Some(Coding::Gzip | Coding::Zstd), _) | (Some(Coding::Zlib), Some("deflate")) => Ok(found),
        (_, Some("br")) if std::str::from_utf8(bytes).is_err() => Ok(Some(Coding::Brotli)),
        (_, None | Some("" | "identity")) => Ok(None),
        // Some recorders decode bodies and keep the headers.
        (_, Some("gzip" | "x-gzip" | "zstd" | "deflate" | "br")) if std::str::from_utf8(bytes).is_ok() => {
            Ok(None)
        }
        (_, Some(stated)) => {
            Err(format!("its content-encoding {stated:?} is not one that can be looked into"))
        }
    }
}

/// What a record states in `content-encoding`, in lower case.
fn stated(line: &[u8]) -> Option<String> {
    let mut stated = None;
    each_field(wire::json::Value::new(line), "content-encoding", |value| {
        let value = value.as_str().unwrap_or_default();
        stated = Some(value.trim().to_ascii_lowercase());
    });
    stated
}

/// Hands over the values of a header field of a record, in every spelling of headers.
fn each_field<'a>(record: wire::json::Value<'a>, wanted: &str, mut each: impl FnMut(wire::json::Value<'a>)) {
    let Some(headers) = record.get("headers") else { return };
    let is_wanted =
        |name: wire::json::Value<'_>| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
    for field in headers.elements() {
        let mut parts = field.elements();
        match (parts.next(), parts.next()) {
            (Some(name), Some(value)) if is_wanted(name) => each(value),
            _ => {}
        }
        if field.get("name").is_some_and(is_wanted)
            && let Some(value) = field.get("value")
        {
            each(value);
        }
    }
    headers.entries().filter(|(name, _)| is_wanted(*name)).for_each(|(_, value)| each(value));
}

/// Where a record states the length of its body, in order.
fn lengths(line: &[u8], length: usize) -> Vec<Range<usize>> {
    let length = length.to_string();
    let record = wire::json::Value::new(line);
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut take = |value: wire::json::Value<'_>| {
        let raw = value.raw();
        let inner = raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")).unwrap_or(raw);
        if inner == length.as_bytes() {
            // A slice of the line itself, so the distance of their beginnings is its place.
            let start = inner.as_ptr().addr() - line.as_ptr().addr();
            found.push(start..start + inner.len());
        }
    };
    ["wire_len", "body_len"].iter().filter_map(|key| record.get(key)).for_each(&mut take);
    each_field(record, "content-length", take);
    found.sort_by_key(|range| range.start);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_in_the_format_of_brotli_is_read_by_its_decoder() {
        for length in [0, 1, 2, 65_535, 65_536, 65_537, 200_000] {
            let plain: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
            assert_eq!(Coding::Brotli.decode(&store(&plain)).unwrap(), plain, "{length}");
        }
        // "Hello" by node 20.
        let node = [0x0B, 0x02, 0x80, b'H', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(Coding::Brotli.decode(&node).unwrap(), b"Hello");
        assert!(Coding::Brotli.decode(&node[..6]).is_err());
    }

    #[test]
    fn stated_lengths_are_found_in_every_spelling_of_headers() {
        for line in [
            r#"{"headers":[["Content-Length","12"],["x","12"]],"wire_len":12}"#,
            r#"{"wire_len": 12,"headers":{"content-length":"12"}}"#,
            r#"{"body_len":12,"headers":[{"name":"CONTENT-LENGTH","value":"12"}]}"#,
        ] {
            let found = lengths(line.as_bytes(), 12);
            assert_eq!(found.len(), 2, "{line}");
            assert!(found.iter().all(|range| &line[range.clone()] == "12"));
        }
    }
}
