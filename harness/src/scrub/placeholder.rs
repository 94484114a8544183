//! Placeholders: what stands in place of a value, of the same length and shape, made of a number alone.
//!
//! A placeholder depends on the shape of the value and on its number, on nothing else of it; from a
//! placeholder its number can be read back. Which number a value has is the vault's business.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::filler;
use super::rules::Rule;

/// What a value looks like, so far as its placeholder keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// Letters, digits and punctuation; the first bytes are a prefix that says what it is, and stay.
    Opaque {
        prefix: usize,
    },
    /// Decimal digits alone.
    Number,
    /// Hex digits alone.
    Hex,
    Uuid,
    Email {
        at: usize,
    },
    /// A name of a person: one word.
    Word,
    Host,
    Ipv4,
    Ipv6,
}

/// Values whose placeholders could be the same are numbered together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Bucket {
    class: u8,
    prefix: Box<[u8]>,
    places: u8,
}

/// The value has too few letters and digits for its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooSmall;

/// Beginnings of ids and keys that say what they are and nothing about whose.
const PREFIXES: &[&str] = &[
    "resp_",
    "msg_",
    "fc_",
    "fco_",
    "ctc_",
    "ctco_",
    "rs_",
    "call_",
    "req_",
    "toolu_",
    "srvtoolu_",
    "sess_",
    "session_",
    "turn_",
    "item_",
    "ws_",
    "conv_",
    "thread_",
    "run_",
    "step_",
    "file_",
    "file-",
    "batch_",
    "asst_",
    "acct_",
    "user_",
    "user-",
    "org_",
    "org-",
    "proj_",
    "chatcmpl-",
    "cmpl-",
    "cmp_",
    "evt_",
    "ig_",
    "mcp_",
    "tsc_",
    "lsh_",
    "event_",
    "response_",
    "sk-ant-api03-",
    "sk-ant-oat01-",
    "sk-ant-ort01-",
    "sk-ant-admin01-",
    "sk-ant-",
    "sk-proj-",
    "sk-svcacct-",
    "sk-admin-",
    "sk-or-v1-",
    "sk-",
    "ya29.",
    "AIza",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "AKIA",
    "ASIA",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxr-",
    "xoxs-",
    "xoxe-",
    "xapp-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "rk_test_",
    "pk_live_",
    "whsec_",
    "npm_",
    "hf_",
    "glpat-",
    "pypi-",
    "SG.",
    "xai-",
    "gsk_",
    "1//0",
    "GOCSPX-",
    "app_",
    "W/",
    "rt_",
    "at-",
];

/// The shape of a value.
pub(super) fn shape(rule: Rule, value: &[u8]) -> Shape {
    match rule {
        Rule::UserName if !value.contains(&b'@') => return Shape::Word,
        Rule::HostName => return Shape::Host,
        Rule::IpAddress => {
            return if value.contains(&b':') { Shape::Ipv6 } else { Shape::Ipv4 };
        }
        _ => {}
    }
    if is_uuid(value) {
        return Shape::Uuid;
    }
    if matches!(rule, Rule::Email | Rule::UserName | Rule::UserId)
        && let Some(at) = memchr::memrchr(b'@', value)
        && at > 0
        && value.len() - at > 4
    {
        return Shape::Email { at };
    }
    let is_number = value.iter().all(u8::is_ascii_digit);
    // A number of JSON has no leading zero, a placeholder of hex digits has.
    if value.len() >= 16 && value.len().is_multiple_of(8) && is_hex(value) && !(is_number && value[0] != b'0')
    {
        return Shape::Hex;
    }
    if is_number {
        return Shape::Number;
    }
    Shape::Opaque { prefix: prefix(value) }
}

/// The length of the longest known prefix that something follows.
fn prefix(value: &[u8]) -> usize {
    let Some(first) = value.first() else { return 0 };
    let fits = |prefix: &&&str| {
        // Most are out by their first letter.
        prefix.as_bytes()[0] == *first
            && value.starts_with(prefix.as_bytes())
            && value[prefix.len()..].iter().any(u8::is_ascii_alphanumeric)
    };
    PREFIXES.iter().filter(fits).map(|prefix| prefix.len()).max().unwrap_or(0)
}

/// Whether a value is a UUID in its usual spelling.
pub(super) fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

pub(super) fn is_hex(value: &[u8]) -> bool {
    value.iter().all(u8::is_ascii_hexdigit)
}

fn places(value: &[u8]) -> usize {
    value.iter().filter(|byte| byte.is_ascii_alphanumeric()).count()
}

impl Shape {
    /// Which values it is numbered with.
    pub(super) fn bucket(self, value: &[u8]) -> Bucket {
        let class = |class, prefix: &[u8], places: usize| Bucket {
            class,
            prefix: prefix.into(),
            // Only among short ones are there too few numbers for all.
            places: places.min(8) as u8,
        };
        match self {
            Shape::Opaque { prefix } => class(0, &value[..prefix], places(&value[prefix..])),
            Shape::Number => class(1, &[], value.len()),
            // A UUID may also come without its dashes.
            Shape::Hex | Shape::Uuid => class(2, &[], 8),
            Shape::Email { at } => class(4, &[], at),
            Shape::Word => class(5, &[], value.len()),
            Shape::Host => class(6, &[], value.len()),
            Shape::Ipv4 => class(7, &[value.len() as u8], 8),
            Shape::Ipv6 => class(8, &[value.len() as u8], 8),
        }
    }

    /// Writes the placeholder with a number over a value of this shape.
    pub(super) fn write(self, number: u64, value: &mut [u8]) -> Result<(), TooSmall> {
        match self {
            Shape::Opaque { prefix } => {
                let rest = &mut value[prefix..];
                room(number, rest)?;
                filler::fill(rest);
                number_over(number, rest)
            }
            Shape::Number => {
                room(number, value)?;
                value.fill(b'0');
                let (first, rest) = value.split_first_mut().ok_or(TooSmall)?;
                if rest.is_empty() {
                    return number_over(number, std::slice::from_mut(first));
                }
                *first = b'1';
                number_over(number, rest)
            }
            Shape::Hex => {
                value.fill(b'0');
                number_over(number, value)
            }
            Shape::Uuid => {
                let version = value[14];
                value.copy_from_slice(b"00000000-0000-0000-8000-000000000000");
                value[14] = version;
                number_over(number, &mut value[24..])
            }
            Shape::Email { at } => {
                let (local, domain) = value.split_at_mut(at);
                write_word(number, local)?;
                let domain = &mut domain[1..];
                domain.fill(b'x');
                let end: &[u8] = match domain.len() {
                    11 => b"example.com",
                    13.. => b".example.com",
                    6.. => b".test",
                    _ => b".xx",
                };
                let start = domain.len().checked_sub(end.len()).ok_or(TooSmall)?;
                domain[start..].copy_from_slice(end);
                Ok(())
            }
            Shape::Word => write_word(number, value),
            Shape::Host => write_host(number, value),
            Shape::Ipv4 => write_ipv4(number, value),
            Shape::Ipv6 => write_ipv6(number, value),
        }
    }

    /// The number of the placeholder that a value of this shape is; none if it is no placeholder.
    pub(super) fn number(self, value: &[u8]) -> Option<u64> {
        let number = match self {
            Shape::Ipv4 => return ipv4_number(value),
            Shape::Ipv6 => ipv6_number(value)?,
            Shape::Email { at } => last_number(&value[..at]),
            Shape::Host => last_number(value.strip_suffix(b".test").unwrap_or(value)),
            Shape::Uuid => last_number(&value[24..]),
            Shape::Number if value.len() > 1 => last_number(&value[1..]),
            _ => last_number(value),
        }?;
        let mut again = value.to_vec();
        self.write(number, &mut again).ok()?;
        (again == value).then_some(number)
    }
}

/// Whether a value is a placeholder, or says nothing at all.
pub(super) fn is(rule: Rule, value: &[u8]) -> bool {
    let value = match rule {
        // Its claims are looked at on their own.
        Rule::Jwt => &value[memchr::memrchr(b'.', value).map_or(0, |at| at + 1)..],
        _ => value,
    };
    shape(rule, value).number(value).is_some() || filler::is_filler(value)
}

/// Whether a number is small enough for a value of digits alone, which could else be any number itself.
fn room(number: u64, value: &[u8]) -> Result<(), TooSmall> {
    let has_letter = value.iter().any(|byte| byte.is_ascii_alphabetic());
    let half = u32::try_from(places(value).div_ceil(2)).unwrap_or(u32::MAX);
    if has_letter || half > 18 || number < 10_u64.pow(half) { Ok(()) } else { Err(TooSmall) }
}

/// The number that the last letters and digits of a value are.
fn last_number(value: &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    let mut factor = 1_u64;
    let mut any = false;
    let digits = value.iter().rev().filter(|byte| byte.is_ascii_alphanumeric());
    for byte in digits.take_while(|byte| byte.is_ascii_digit()).take(18) {
        number += u64::from(byte - b'0') * factor;
        factor *= 10;
        any = true;
    }
    any.then_some(number)
}

/// Writes a number over the last letters and digits of a value.
fn number_over(mut number: u64, value: &mut [u8]) -> Result<(), TooSmall> {
    for place in value.iter_mut().rev().filter(|byte| byte.is_ascii_alphanumeric()) {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return Ok(());
        }
    }
    Err(TooSmall)
}

/// `user` and a number, over a word of any length.
fn write_word(number: u64, word: &mut [u8]) -> Result<(), TooSmall> {
    for (place, letter) in word.iter_mut().zip(b"user".iter().chain(std::iter::repeat(&b'x'))) {
        *place = *letter;
    }
    number_over(number, word)
}

fn write_host(number: u64, host: &mut [u8]) -> Result<(), TooSmall> {
    let has_dot = host.contains(&b'.') && host.len() > 6;
    let (name, end) = host.split_at_mut(if has_dot { host.len() - 5 } else { host.len() });
    end.copy_from_slice(&b".test"[..end.len()]);
    for (place, letter) in name.iter_mut().zip(b"host".iter().chain(std::iter::repeat(&b'x'))) {
        *place = *letter;
    }
    number_over(number, name)
}

/// The lengths of the octets behind the first, for an address of some length.
fn octet_lengths(length: usize) -> Option<(&'static [u8], [usize; 3])> {
    let (first, digits): (&[u8], usize) = match length {
        7..=13 => (b"0", length - 4),
        14..=15 => (b"240", length - 6),
        _ => return None,
    };
    let mut lengths = [1; 3];
    for turn in 0..digits.checked_sub(3)? {
        lengths[2 - turn % 3] += 1;
    }
    Some((first, lengths))
}

/// The smallest octet of some length, and how many there are.
fn octets(length: usize) -> (u64, u64) {
    match length {
        1 => (0, 10),
        2 => (10, 90),
        _ => (100, 156),
    }
}

fn write_ipv4(mut number: u64, value: &mut [u8]) -> Result<(), TooSmall> {
    let (first, lengths) = octet_lengths(value.len()).ok_or(TooSmall)?;
    let mut text = first.to_vec();
    let mut octet = [0; 3];
    for (place, length) in octet.iter_mut().zip(lengths).rev() {
        let (least, many) = octets(length);
        *place = least + number % many;
        number /= many;
    }
    if number != 0 {
        return Err(TooSmall);
    }
    for octet in octet {
        text.extend_from_slice(format!(".{octet}").as_bytes());
    }
    value.copy_from_slice(&text);
    Ok(())
}

fn ipv4_number(value: &[u8]) -> Option<u64> {
    let (first, lengths) = octet_lengths(value.len())?;
    let address: Ipv4Addr = std::str::from_utf8(value).ok()?.parse().ok()?;
    if address.octets()[0].to_string().as_bytes() != first {
        return None;
    }
    let mut number = 0;
    for (octet, length) in address.octets()[1..].iter().zip(lengths) {
        let (least, many) = octets(length);
        number = number * many + u64::from(*octet).checked_sub(least).filter(|octet| *octet < many)?;
    }
    Some(number)
}

/// Zeros in the form of an address of a length, in a range for documentation or that goes nowhere.
fn ipv6_frame(length: usize) -> Option<Vec<u8>> {
    let groups = |digits: usize, many: usize| {
        let mut lengths = vec![digits / many; many];
        lengths.iter_mut().rev().take(digits % many).for_each(|length| *length += 1);
        lengths.iter().map(|length| "0".repeat(*length)).collect::<Vec<_>>().join(":")
    };
    let text = match length {
        6..=9 => format!("100::{}", "0".repeat(length - 5)),
        10 => "0100::0000".to_owned(),
        11..=14 => format!("2001:db8::{}", "0".repeat(length - 10)),
        15..=34 => {
            let rest = length - 10;
            let many = (rest + 1).div_ceil(5);
            format!("2001:db8::{}", groups(rest + 1 - many, many))
        }
        35..=38 => format!("2001:db8:{}", groups(length - 14, 6)),
        39 => format!("2001:0db8:{}", groups(24, 6)),
        _ => return None,
    };
    Some(text.into_bytes())
}

fn write_ipv6(number: u64, value: &mut [u8]) -> Result<(), TooSmall> {
    let mut frame = ipv6_frame(value.len()).ok_or(TooSmall)?;
    let start = memchr::memrchr(b':', &frame).map_or(0, |at| at + 1);
    number_over(number, &mut frame[start..])?;
    value.copy_from_slice(&frame);
    Ok(())
}

fn ipv6_number(value: &[u8]) -> Option<Option<u64>> {
    let _: Ipv6Addr = std::str::from_utf8(value).ok()?.parse().ok()?;
    let start = memchr::memrchr(b':', value)? + 1;
    Some(last_number(&value[start..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn placeholder(rule: Rule, number: u64, value: &str) -> String {
        let mut bytes = value.as_bytes().to_vec();
        shape(rule, value.as_bytes()).write(number, &mut bytes).expect("it fits");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn placeholders_keep_the_shape() {
        for (rule, value, expected) in [
            (Rule::ResponseId, "resp_0aF3b9", "resp_0xX0x7"),
            (Rule::ApiKey, "Sesame-99-open", "Xxxxxx-00-xxx7"),
            (Rule::UserId, "31415926", "10000007"),
            (Rule::TraceId, "4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000007"),
            (Rule::SessionId, "E612DF53-95D8-7EFF-9444-2C178F6F8F82", "00000000-0000-7000-8000-000000000007"),
            (Rule::Email, "alice.b@corp.io", "userxx7@xx.test"),
            (Rule::Email, "bo@example.com", "u7@example.com"),
            (Rule::UserName, "alice", "user7"),
            (Rule::HostName, "build.acme.io", "hostxxx7.test"),
            (Rule::HostName, "thinkpad", "hostxxx7"),
            (Rule::IpAddress, "8.8.8.8", "0.0.0.7"),
            (Rule::IpAddress, "192.168.10.117", "240.10.100.107"),
            (Rule::IpAddress, "fe80::1", "100::07"),
            (Rule::IpAddress, "2a02:8109:9c80::c4f2:1", "2001:db8::000:000:0007"),
        ] {
            let made = placeholder(rule, 7, value);
            assert_eq!(made, expected, "{value}");
            assert_eq!(made.len(), value.len());
            assert_eq!(shape(rule, made.as_bytes()).number(made.as_bytes()), Some(7), "{made}");
        }
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused() {
        assert_eq!(Shape::Opaque { prefix: 0 }.write(10, &mut b"a".to_vec()), Err(TooSmall));
        assert_eq!(Shape::Ipv4.write(1_000, &mut b"8.8.8.8".to_vec()), Err(TooSmall));
    }

    proptest! {
        #[test]
        fn addresses_of_every_length_are_addresses(bytes in any::<[u8; 16]>(), four in any::<[u8; 4]>(), number in 1_u64..90) {
            let six = Ipv6Addr::from(bytes).to_string();
            if !six.contains('.') {
                let made = placeholder(Rule::IpAddress, number, &six);
                prop_assert!(made.parse::<Ipv6Addr>().is_ok(), "{}", made);
                prop_assert_eq!(Shape::Ipv6.number(made.as_bytes()), Some(number));
            }
            let made = placeholder(Rule::IpAddress, number, &Ipv4Addr::from(four).to_string());
            prop_assert!(made.parse::<Ipv4Addr>().is_ok(), "{}", made);
            prop_assert_eq!(Shape::Ipv4.number(made.as_bytes()), Some(number));
        }

        #[test]
        fn different_numbers_are_different_placeholders(value in "[A-Za-z0-9_.@-]{8,40}", a in 1_u64..999, b in 1_u64..999) {
            prop_assume!(a != b);
            for rule in [Rule::ApiKey, Rule::Email, Rule::UserName, Rule::HostName] {
                let shape = shape(rule, value.as_bytes());
                let (mut first, mut second) = (value.clone().into_bytes(), value.clone().into_bytes());
                if shape.write(a, &mut first).is_ok() && shape.write(b, &mut second).is_ok() {
                    prop_assert_ne!(first, second);
                }
            }
        }

        #[test]
        fn any_value_can_be_looked_at(value in prop::collection::vec(any::<u8>(), 0..50)) {
            for rule in Rule::ALL {
                let _ = is(*rule, &value);
                let shape = shape(*rule, &value);
                let _ = (shape.bucket(&value), shape.write(3, &mut value.clone()));
            }
        }
    }
}
