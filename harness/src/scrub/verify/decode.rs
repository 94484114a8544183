//! What encoded texts decode to, for the verification: by other code than the scrubber's.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
/// Base64 of the alphabet with `+` and `/`.
pub(super) const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
/// Base64 of the alphabet with `-` and `_`.
pub(super) const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What a text with `%XX` decodes to.
pub(super) fn percent(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

/// What pairs of hex digits decode to, as far as they are such.
pub(super) fn hex(digits: &[u8]) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).map_while(byte).collect()
}

/// Base64 that is wrapped into lines (RFC 2045 §6.8), each with its lines joined.
pub(super) fn unwrapped(text: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    if memchr::memchr(b'\n', text).is_none() {
        return found;
    }
    let (mut joined, mut lines) = (Vec::new(), 0);
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).chain([&b""[..]]) {
        let padding = line.iter().rev().take_while(|byte| **byte == b'=').count();
        let digits = &line[..line.len() - padding];
        let is_digits = digits.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte));
        let is_line = is_digits && digits.len() >= if lines == 0 { 16 } else { 1 };
        if is_line {
            joined.extend_from_slice(digits);
            lines += 1;
        }
        if !is_line || padding > 0 {
            let block = std::mem::take(&mut joined);
            if lines > 1 {
                found.push(block);
            }
            lines = 0;
        }
    }
    found
}
