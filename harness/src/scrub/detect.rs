//! What is sensitive by how it looks: the detectors, and the times that are spelled in a text.
//!
//! A detector is a regular expression, the features that a text must have for it to be tried, and a check
//! of what it found. What is sensitive by where it stands is in `rules`. Both passes and the verification
//! use these; a hit that is a placeholder is none.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::placeholder;
use super::rules::Rule;

/// Something that looks for values of one kind.
pub(super) struct Detector {
    pub(super) rule: Rule,
    /// A text without these features holds none.
    needs: u32,
    regex: Regex,
    /// Whether the value is the whole match or its group.
    group: usize,
    check: fn(&[u8]) -> bool,
}

const AT: u32 = 1;
const COLON: u32 = 2;
const DASH: u32 = 4;
const DOT: u32 = 8;
const SLASH: u32 = 16;
const BACKSLASH: u32 = 32;
const EQUALS: u32 = 64;
const DIGIT: u32 = 128;
const UNDERSCORE: u32 = 256;
const SPACE: u32 = 512;
const LETTER: u32 = 1024;
const PERCENT: u32 = 2048;

const FEATURES: [u16; 256] = {
    let mut table = [0_u16; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = match at as u8 {
            b'@' => AT,
            b':' => COLON,
            b'-' => DASH,
            b'.' => DOT,
            b'/' => SLASH,
            b'\\' => BACKSLASH,
            b'=' => EQUALS,
            b'0'..=b'9' => DIGIT,
            b'_' => UNDERSCORE,
            b' ' => SPACE,
            b'%' => PERCENT,
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            _ => 0,
        } as u16;
        at += 1;
    }
    table
};

/// The features of a text.
pub(super) fn features(text: &[u8]) -> u32 {
    u32::from(text.iter().fold(0, |all, byte| all | FEATURES[usize::from(*byte)]))
}

pub(super) fn has_percent(features: u32) -> bool {
    features & PERCENT != 0
}

pub(super) fn has_backslash(features: u32) -> bool {
    features & BACKSLASH != 0
}

/// A detector as it is written down.
type Line = (Rule, u32, &'static str, usize, fn(&[u8]) -> bool);

/// All detectors, those first whose finds hold those of others.
pub(super) static DETECTORS: LazyLock<Vec<Detector>> = LazyLock::new(|| {
    let any: fn(&[u8]) -> bool = |_| true;
    let has_digit: fn(&[u8]) -> bool = |value| value.iter().any(u8::is_ascii_digit);
    let list: Vec<Line> = vec![
        // The body alone, so that what it is can still be seen.
        (
            Rule::PrivateKey,
            DASH | SPACE,
            r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:\\[nr]|\s)*([A-Za-z0-9+/=:,\\\s-]{16,}?)(?:\\[nr]|\s)*(?:-----END|$)",
            1,
            any,
        ),
        (Rule::Jwt, DOT, r"\beyJ[A-Za-z0-9_-]{6,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*", 0, any),
        (Rule::AnthropicKey, DASH, r"\bsk-ant-[A-Za-z0-9_-]{8,}", 0, any),
        (Rule::OpenaiKey, DASH, r"\bsk-[A-Za-z0-9_-]{16,}", 0, has_digit),
        (
            Rule::GoogleKey,
            LETTER,
            r"\bAIza[0-9A-Za-z_-]{30,}|\bya29\.[0-9A-Za-z_.-]{16,}|\b1//0[0-9A-Za-z_-]{20,}|\bGOCSPX-[0-9A-Za-z_-]{16,}",
            0,
            any,
        ),
        (
            Rule::GithubToken,
            UNDERSCORE,
            r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{22,}",
            0,
            any,
        ),
        (Rule::AwsKey, LETTER, r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b", 0, any),
        (Rule::SlackToken, DASH, r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{10,}", 0, any),
        (
            Rule::SlackToken,
            SLASH,
            r"hooks\.slack\.com/services/([A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]{8,})",
            1,
            any,
        ),
        (
            Rule::StripeKey,
            UNDERSCORE,
            r"\b[rsp]k_(?:live|test)_[A-Za-z0-9]{10,}|\bwhsec_[A-Za-z0-9+/=]{16,}",
            0,
            any,
        ),
        (
            Rule::RegistryToken,
            LETTER,
            r"\bnpm_[A-Za-z0-9]{30,}|\bpypi-[A-Za-z0-9_-]{30,}|\bdckr_pat_[A-Za-z0-9_-]{20,}|\bcio[A-Za-z0-9]{32}\b",
            0,
            any,
        ),
        (Rule::HuggingfaceToken, UNDERSCORE, r"\bhf_[A-Za-z0-9]{24,}", 0, any),
        (Rule::GitlabToken, DASH, r"\bgl(?:pat|dt|rt|cbt|ptt|ft|imt|agent)-[A-Za-z0-9_-]{16,}", 0, any),
        (
            Rule::ProviderKey,
            LETTER,
            r"\bgsk_[A-Za-z0-9]{20,}|\bxai-[A-Za-z0-9]{20,}|\br8_[A-Za-z0-9]{30,}|\bpplx-[A-Za-z0-9]{20,}|\bnvapi-[A-Za-z0-9_-]{20,}|\btvly-[A-Za-z0-9-]{16,}|\blin_api_[A-Za-z0-9]{20,}|\bdop_v1_[a-f0-9]{40,}|\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|\bhv[sbr]\.[A-Za-z0-9_-]{20,}|\bdapi[a-f0-9]{32}\b|\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b|\bkey-[0-9a-f]{32}\b|\bAGE-SECRET-KEY-1[A-Z0-9]{40,}|\b\d{8,10}:AA[A-Za-z0-9_-]{30,}|\bPMAK-[a-f0-9-]{40,}|\bsq0[a-z]{3}-[A-Za-z0-9_-]{20,}|\bATATT3[A-Za-z0-9_=-]{40,}|\bsntrys_[A-Za-z0-9+/=_-]{30,}|\bntn_[A-Za-z0-9]{30,}|\bfigd_[A-Za-z0-9_-]{20,}|\bpk_[0-9]{6,}_[A-Z0-9]{20,}",
            0,
            any,
        ),
        (Rule::BearerToken, SPACE, r"(?i)\bbearer\s+([A-Za-z0-9._~+/-]{12,}=*)", 1, is_opaque),
        (Rule::BasicAuth, SPACE, r"(?i)\bbasic\s+([A-Za-z0-9+/]{8,}={0,2})", 1, is_basic),
        (
            Rule::ConnectionString,
            COLON | SLASH | AT,
            r#"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@'"<>]*:([^\s/?#@'"<>]+)@[^\s@]"#,
            1,
            |value| !is_reference(value),
        ),
        (
            Rule::ConnectionString,
            EQUALS,
            r"(?i)\b(?:AccountKey|SharedAccessKey|SharedAccessSignature|Password|Pwd)=([^;\s]{6,});",
            1,
            |value| !is_reference(value),
        ),
        (
            Rule::SignedUrl,
            EQUALS,
            r"(?i)\b(?:X-Amz-(?:Signature|Credential|Security-Token)|X-Goog-(?:Signature|Credential)|Signature|Key-Pair-Id|AWSAccessKeyId|sig)=([A-Za-z0-9%/+_.~-]{16,}=*)",
            1,
            any,
        ),
        (
            Rule::OauthCode,
            EQUALS,
            r"(?i)[?&](?:code|code_verifier|code_challenge|refresh_token|access_token|id_token|client_secret)=([^&\s#]{8,})",
            1,
            |value| !is_reference(value),
        ),
        (
            Rule::EnvironmentSecret,
            EQUALS,
            r#"(?:^|[\s"';=&?,(])(?:export\s+)?[A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|DSN)\s?=\s?["']?([^\s"'`$<>(){}]{6,})"#,
            1,
            |value| !is_reference(value),
        ),
        (
            Rule::Email,
            AT | DOT,
            r"\b[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,18}\b",
            0,
            is_email,
        ),
        (
            Rule::UserName,
            SLASH,
            r"(?:/home|/Users|/var/home|/export/home)/([A-Za-z0-9._-]*[A-Za-z0-9])",
            1,
            is_user,
        ),
        (
            Rule::UserName,
            BACKSLASH,
            r#"(?i)\b[A-Z]:\\{1,4}(?:Users|Documents and Settings)\\{1,4}([^\\/:*?"<>|\s,;'()]+)"#,
            1,
            is_user,
        ),
        (
            Rule::Uuid,
            DASH | DIGIT,
            r"\b[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[1-8][0-9A-Fa-f]{3}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}\b",
            0,
            any,
        ),
        (
            Rule::Uuid,
            DASH | DIGIT | UNDERSCORE,
            r"[A-Za-z0-9]_([0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[1-8][0-9A-Fa-f]{3}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12})",
            1,
            any,
        ),
        (
            Rule::ObjectId,
            UNDERSCORE | DIGIT,
            r"\b(?:resp|msg|fc|fco|ctc|ctco|rs|call|req|sess|session|turn|item|conv|thread|run|step|file|batch|asst|acct|user|org|proj|toolu|srvtoolu|cmpl|evt|wfid|chatcmpl|ig)[_-][A-Za-z0-9]{16,}",
            0,
            has_digit,
        ),
        (Rule::ObjectId, DASH | DIGIT, r"\b(?:chatcmpl|user|org|file)-[A-Za-z0-9]{16,}", 0, has_digit),
        (
            Rule::IpAddress,
            DOT | DIGIT,
            r"(?:^|[^0-9A-Za-z.])((?:[0-9]{1,3}\.){3}[0-9]{1,3})\b",
            1,
            is_address,
        ),
        (
            Rule::IpAddress,
            COLON | DIGIT,
            r"(?:^|[^0-9A-Za-z:.])([0-9A-Fa-f]{3,4}:[0-9A-Fa-f:]{2,34}[0-9A-Fa-f])\b",
            1,
            is_address,
        ),
    ];
    let build = |(rule, needs, pattern, group, check): Line| {
        let regex = regex::bytes::RegexBuilder::new(pattern).unicode(false).build();
        Detector {
            rule,
            needs,
            regex: regex.expect("the patterns are constants, and a test builds them"),
            group,
            check,
        }
    };
    list.into_iter().map(build).collect()
});

/// Hands over what the detectors find in a text, with its rule and place. Finds may overlap; placeholders
/// are handed over as well if `all` is set.
pub(super) fn find(text: &[u8], features: u32, all: bool, mut each: impl FnMut(Rule, Range<usize>)) {
    if text.len() < 7 {
        return;
    }
    for detector in DETECTORS.iter().filter(|detector| features & detector.needs == detector.needs) {
        let mut hit = |range: Range<usize>| {
            let value = &text[range.clone()];
            if detector.rule == Rule::Email && is_password(&text[..range.start]) {
                return;
            }
            let is_placeholder = placeholder::is(detector.rule, value);
            if if is_placeholder { all } else { (detector.check)(value) } {
                each(detector.rule, range);
            }
        };
        if detector.group == 0 {
            detector.regex.find_iter(text).for_each(|found| hit(found.range()));
        } else {
            for found in detector.regex.captures_iter(text) {
                if let Some(group) = found.get(detector.group) {
                    hit(group.range());
                }
            }
        }
    }
}

/// Whether what follows is the password of a URL, which with its host looks like an address.
fn is_password(before: &[u8]) -> bool {
    let word = before.iter().rev().take(200).take_while(|byte| !byte.is_ascii_whitespace()).count();
    before.ends_with(b":") && memchr::memmem::find(&before[before.len() - word..], b"://").is_some()
}

/// A token that says nothing by itself. One with claims is the business of its own rule.
fn is_opaque(value: &[u8]) -> bool {
    value.iter().any(u8::is_ascii_digit) && !super::value::is_jwt(value)
}

/// What stands for a value elsewhere: a variable, a mask, a sample.
fn is_reference(value: &[u8]) -> bool {
    let start = value.first();
    matches!(start, Some(b'$' | b'<' | b'{' | b'*' | b'%'))
        || value.starts_with(b"...")
        || value.iter().all(|byte| !byte.is_ascii_alphanumeric())
}

fn is_basic(value: &[u8]) -> bool {
    let mut view = Vec::new();
    super::view::decode_base64(
        value.trim_ascii_end().strip_suffix(b"=").map_or(value, |value| value),
        &mut view,
    );
    view.contains(&b':') && view.iter().take(4).all(|byte| (0x20..0x7F).contains(byte))
}

fn is_email(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    let local = &lower[..memchr::memchr(b'@', &lower).unwrap_or(0)];
    let domain = &lower[(local.len() + 1).min(lower.len())..];
    let is_sample = [&b"example.com"[..], b"example.org", b"example.net", b"localhost"].contains(&domain)
        || [&b".test"[..], b".invalid", b".example"].iter().any(|end| domain.ends_with(end));
    let is_program = [&b"git"[..], b"noreply", b"no-reply"].contains(&local);
    // A package with its version, or a file: pkg@1.2.x, icon@2x.png.
    let ends: [&[u8]; 8] = [b".png", b".jpg", b".svg", b".js", b".ts", b".json", b".md", b".rs"];
    !is_sample && !is_program && !ends.iter().any(|end| domain.ends_with(end))
}

/// Names of users that are the same on many machines.
const GENERIC: &[&str] = &[
    "root",
    "runner",
    "ubuntu",
    "debian",
    "user",
    "users",
    "node",
    "vscode",
    "shared",
    "public",
    "default",
    "admin",
    "administrator",
    "app",
    "agent",
    "codespace",
    "linuxbrew",
    "builder",
    "circleci",
    "coder",
    "dev",
    "guest",
    "home",
    "jenkins",
    "me",
    "name",
    "sandbox",
    "test",
    "username",
    "www",
    "you",
    "yourname",
    "oai",
];

/// Whether a name of a user tells who it is.
pub(super) fn is_user(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    !GENERIC.iter().any(|name| name.as_bytes() == lower) && value.iter().any(u8::is_ascii_alphabetic)
}

/// Whether an address is one of somebody.
fn is_address(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        let octets = address.octets();
        return !(address.is_loopback()
            || address.is_documentation()
            || address.is_broadcast()
            || octets[0] == 0
            || octets[0] >= 224);
    }
    text.parse::<Ipv6Addr>().is_ok_and(|address| {
        let [first, second, ..] = address.segments();
        let has_digit =
            text.split(':').next().is_some_and(|group| group.bytes().any(|byte| byte.is_ascii_digit()));
        let is_local = (0xFC00..0xFF00).contains(&first);
        !(address.is_loopback() || (first == 0x2001 && second == 0xDB8) || first == 0x100)
            && (has_digit || is_local)
    })
}

/// Whether a host is one of somebody, and not a vendor's or a sample.
pub(super) fn is_host(value: &[u8]) -> bool {
    const PUBLIC: &[&str] = &[
        "localhost",
        "openai.com",
        "chatgpt.com",
        "oaiusercontent.com",
        "oaistatic.com",
        "anthropic.com",
        "claude.ai",
        "claude.com",
        "googleapis.com",
        "google.com",
        "github.com",
        "githubusercontent.com",
        "example.com",
        "example.org",
        "example.net",
        "test",
        "invalid",
        "example",
        "w3.org",
        "json-schema.org",
        "host.docker.internal",
        "azure.com",
        "amazonaws.com",
    ];
    let lower = value.to_ascii_lowercase();
    let Ok(text) = std::str::from_utf8(&lower) else { return true };
    let text = text.trim_end_matches('.');
    if text.parse::<Ipv4Addr>().is_ok() || text.starts_with('[') || text.contains(':') {
        return false;
    }
    let is_public = PUBLIC
        .iter()
        .any(|name| text.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    text.bytes().any(|byte| byte.is_ascii_alphabetic()) && !is_public
}

/// Finds times in a text: RFC 3339 with any offset, and the dates of HTTP.
static TIMES: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT|\b[0-9]{8}T[0-9]{6}Z\b";
    regex::bytes::RegexBuilder::new(pattern).unicode(false).build().expect("a constant, which a test builds")
});

/// Hands over the ranges of the times in a text.
pub(super) fn times(text: &[u8], features: u32) -> Vec<Range<usize>> {
    if text.len() < 16 || features & DIGIT == 0 || features & (COLON | LETTER) == 0 {
        return Vec::new();
    }
    TIMES.find_iter(text).map(|found| found.range()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(Rule, String)> {
        let mut all = Vec::new();
        find(text.as_bytes(), features(text.as_bytes()), false, |rule, range| {
            all.push((rule, text[range].to_owned()));
        });
        all
    }

    #[test]
    fn what_is_benign_is_not_found() {
        for text in [
            "commit 2b1e0f6a9d3c4b5a69788796a5b4c3d2e1f00112",
            "sha512-Zk1hcm0gbG9jayBmaWxlIGhhc2hlcyBhcmUgbm90IHNlY3JldHM0000000000000000000000000000000000000000==",
            "claude-opus-4-8 gpt-5.5 gemini-3.1-pro-preview claude-sonnet-4-20250514",
            "codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm; Chrome/120.0.6099.109",
            "127.0.0.1:8080 0.0.0.0 ::1 192.0.2.7 2001:db8::7 198.51.100.3",
            "Add::add std::fs::read at 12:34:56 10:20",
            "/home/runner/work /home/user/x /Users/Shared noreply@anthropic.com git@github.com:a/b pkg@1.2.3 a@example.com",
            "let token = parse(input)?; password: String, API_KEY=$KEY OPENAI_API_KEY=<your key> bearer token of the realm",
            "max_tokens input_tokens=123456 the basic principles of user_interface_guidelines and sk-learn",
            "00000000-0000-4000-8000-000000000012 user3@example.com",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn people_and_machines_are_found() {
        let text = r"mail bob.k@corp.io from /home/bobk/x, C:\Users\Bob, 10.1.2.3 or 2a02:8109::1";
        let rules: Vec<_> = found(text).into_iter().map(|(_, value)| value).collect();
        assert_eq!(rules, ["bob.k@corp.io", "bobk", "Bob", "10.1.2.3", "2a02:8109::1"]);
    }
}
