//! Filler for free text: the same length and the same classes of characters, and nothing of what was said.
//!
//! Each character is replaced for itself alone, so that the filler of the pieces of a text is the text's
//! filler in pieces. Which strings are free text is decided by `walk`.

use std::ops::Range;

/// What a byte of ASCII becomes: letters `x` or `X`, digits `0`, all else itself. Without branches and
/// tables, so that the compiler does many bytes at once.
#[inline]
pub(super) const fn ascii(byte: u8) -> u8 {
    let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let is_digit = byte.wrapping_sub(b'0') < 10;
    let letter = (byte & 0x20) | b'X';
    if is_letter {
        letter
    } else if is_digit {
        b'0'
    } else {
        byte
    }
}

/// A letter for each length of UTF-8, for letters outside ASCII.
const LETTERS: [&str; 5] = ["", "x", "é", "字", "𠀀"];

/// Turns a text into filler.
#[inline]
pub(super) fn fill(text: &mut [u8]) {
    for byte in &mut *text {
        *byte = ascii(*byte);
    }
    if !text.is_ascii() {
        fill_wide(text);
    }
}

/// Turns the letters outside ASCII into filler; bytes that are no UTF-8 stay.
fn fill_wide(text: &mut [u8]) {
    let mut at = 0;
    while let Some(letter) = next_wide(text, at) {
        at = letter.end;
        text[letter.clone()].copy_from_slice(LETTERS[letter.len()].as_bytes());
    }
}

/// Where the next letter or digit outside ASCII stands.
fn next_wide(text: &[u8], mut at: usize) -> Option<Range<usize>> {
    loop {
        while text.get(at..at + 32).is_some_and(<[u8]>::is_ascii) {
            at += 32;
        }
        at += text[at..].iter().position(|byte| !byte.is_ascii())?;
        let width = match text[at] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        let found = text.get(at..at + width).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let Some(found) = found.and_then(|text| text.chars().next()) else {
            at += 1;
            continue;
        };
        if found.is_alphanumeric() {
            return Some(at..at + width);
        }
        at += width;
    }
}

/// Turns the inside of a JSON string into filler, without decoding it: escapes of two bytes stay, letters
/// spelled `\uXXXX` become filler in the same spelling.
pub(super) fn fill_json(raw: &mut [u8], view: &mut Vec<u8>) {
    let mut at = 0;
    while at < raw.len() {
        let run = super::view::run(&raw[at..]);
        fill(&mut raw[at..at + run]);
        at += run;
        if raw.get(at + 1) == Some(&b'u') {
            // Rare: all that is left goes through a view.
            super::view::decode_json(&raw[at..], view);
            fill(view);
            super::view::encode_json(&mut raw[at..], view);
            return;
        }
        at += 2;
    }
}

/// Whether a text says nothing: it is what its own filler would be.
pub(super) fn is_filler(text: &[u8]) -> bool {
    let same =
        text.chunks(64).all(|block| block.iter().fold(0, |all, byte| all | (ascii(*byte) ^ byte)) == 0);
    if !same || text.is_ascii() {
        return same;
    }
    let mut at = 0;
    while let Some(letter) = next_wide(text, at) {
        at = letter.end;
        if text[letter.clone()] != *LETTERS[letter.len()].as_bytes() {
            return false;
        }
    }
    true
}

/// Filler for a JSON text that comes in pieces: keys and literals stay, numbers stay numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens {
    /// For each open container, innermost last, whether it is an object.
    open: Vec<bool>,
    state: State,
    /// The string being read is a key.
    is_key: bool,
    /// The next string of this object is a value.
    awaits_value: bool,
    /// The key being read is no plain name: it becomes filler.
    is_odd: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Between,
    Text,
    Escape,
    /// In `\uXXXX`, with how many digits have come.
    Unicode(u8),
    /// In a number, with whether its first digit has come.
    Number(bool),
    /// What follows is no JSON.
    Lost,
}

impl Tokens {
    /// Turns the next piece into filler.
    pub(super) fn fill(&mut self, text: &mut [u8]) {
        let mut at = 0;
        while at < text.len() {
            if self.state == State::Lost {
                return fill(&mut text[at..]);
            }
            let width = match text[at] {
                0xC2..=0xDF => 2,
                0xE0..=0xEF => 3,
                0xF0..=0xF4 => 4,
                _ => 1,
            };
            let end = (at + width).min(text.len());
            if end - at > 1 {
                fill(&mut text[at..end]);
            } else {
                text[at] = self.step(text[at]);
            }
            at = end;
        }
    }

    fn step(&mut self, byte: u8) -> u8 {
        match self.state {
            State::Text => self.step_text(byte),
            State::Escape => {
                self.state = if byte == b'u' { State::Unicode(0) } else { State::Text };
                byte
            }
            State::Unicode(digits) => {
                self.state = if digits == 3 { State::Text } else { State::Unicode(digits + 1) };
                b"0078"[usize::from(digits)]
            }
            State::Number(has_digit) if byte.is_ascii_digit() => {
                self.state = State::Number(true);
                if has_digit || byte == b'0' { b'0' } else { b'1' }
            }
            State::Number(has_digit) if b".+-eE".contains(&byte) => {
                self.state = State::Number(has_digit);
                byte
            }
            State::Between | State::Number(_) | State::Lost => self.step_between(byte),
        }
    }

    fn step_text(&mut self, byte: u8) -> u8 {
        match byte {
            b'"' => {
                self.state = State::Between;
                byte
            }
            b'\\' => {
                self.state = State::Escape;
                self.is_odd = true;
                byte
            }
            _ if self.is_key && !self.is_odd => {
                self.is_odd = !(byte.is_ascii_alphanumeric() || b"_-$".contains(&byte));
                byte
            }
            _ => ascii(byte),
        }
    }

    fn step_between(&mut self, byte: u8) -> u8 {
        self.state = State::Between;
        match byte {
            b'{' | b'[' if self.open.len() < 64 => {
                self.open.push(byte == b'{');
                self.awaits_value = false;
            }
            b'}' | b']' => {
                self.open.pop();
            }
            b',' => self.awaits_value = false,
            b':' => self.awaits_value = true,
            b'"' => {
                self.state = State::Text;
                self.is_key = self.open.last() == Some(&true) && !self.awaits_value;
                self.is_odd = false;
            }
            b'0'..=b'9' | b'-' if !self.open.is_empty() => {
                self.state = State::Number(false);
                return if byte == b'-' { byte } else { self.step(byte) };
            }
            // The letters of true, false and null.
            b'a' | b'e' | b'f' | b'l' | b'n' | b'r' | b's' | b't' | b'u' if !self.open.is_empty() => {}
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => {
                self.state = State::Lost;
                return ascii(byte);
            }
        }
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        Tokens::default().fill(&mut bytes);
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn arguments_keep_their_keys_and_their_types() {
        let text = r#"{"command":["bash","-lc","ls /home\n\u00e9"],"n":-12.5e3,"ok":true,"é k":null}"#;
        let expected = r#"{"command":["xxxx","-xx","xx /xxxx\n\u0078"],"n":-10.0e0,"ok":true,"é x":null}"#;
        assert_eq!(tokens(text), expected);
        assert_eq!(tokens("*** Begin Patch"), "*** Xxxxx Xxxxx");
        assert_eq!(tokens(expected), expected, "filler is its own filler");
    }

    proptest! {
        #[test]
        fn filler_keeps_length_and_is_its_own_filler(text in "\\PC{0,60}") {
            let mut bytes = text.clone().into_bytes();
            fill(&mut bytes);
            prop_assert_eq!(bytes.len(), text.len());
            prop_assert!(is_filler(&bytes));
            let classes = |text: &str| text.chars().map(char::is_alphanumeric).collect::<Vec<_>>();
            prop_assert_eq!(classes(std::str::from_utf8(&bytes).expect("text")), classes(&text));
        }

        #[test]
        fn pieces_make_the_filler_of_the_whole(text in "[\\[{}\",:\\\\ut0-9a-eé.-]{0,60}", cut in any::<prop::sample::Index>()) {
            let mut cut = cut.index(text.len() + 1);
            while !text.is_char_boundary(cut) { cut -= 1; }
            let mut pieces = text.clone().into_bytes();
            let (head, tail) = pieces.split_at_mut(cut);
            let mut state = Tokens::default();
            state.fill(head);
            state.fill(tail);
            prop_assert_eq!(String::from_utf8(pieces).expect("text"), tokens(&text));
        }

        #[test]
        fn a_json_string_is_filled_as_its_view(text in "\\PC{0,40}") {
            let spelled = serde_json::to_string(&text).expect("a string");
            let mut inner = spelled.as_bytes()[1..spelled.len() - 1].to_vec();
            fill_json(&mut inner, &mut Vec::new());
            let read: String = serde_json::from_str(&format!("\"{}\"", String::from_utf8(inner).expect("text"))).expect("a string");
            let mut expected = text.into_bytes();
            fill(&mut expected);
            prop_assert_eq!(read.into_bytes(), expected);
        }
    }
}
