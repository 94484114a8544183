//! Request targets and protocol versions as captures write them.

/// A URL as its origin, if it has one, and the request target.
pub(in crate::capture) fn split(url: &str) -> (Option<String>, String) {
    let Some((scheme, rest)) = url.split_once("://") else { return (None, url.to_owned()) };
    if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+') {
        return (None, url.to_owned());
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let target = target.split('#').next().unwrap_or_default();
    let slash = if target.starts_with('/') { "" } else { "/" };
    (Some(format!("{scheme}://{authority}")), format!("{slash}{target}"))
}

/// `1.0`, `1.1`, `2` or `3`, whatever the spelling; what is not known stays.
pub(in crate::capture) fn version(text: &str) -> String {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.strip_prefix("http/").or_else(|| lower.strip_prefix('h')).unwrap_or(&lower);
    match number {
        "" | "1.1" | "unknown" => "1.1".to_owned(),
        "2" | "2.0" => "2".to_owned(),
        "3" | "3.0" => "3".to_owned(),
        _ => number.to_owned(),
    }
}

/// A name or value of a form, as browsers encode it.
pub(in crate::capture) fn encode_form(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'*' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            // Writing into memory cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_targets() {
        for (url, origin, target) in [
            ("/a?b", None, "/a?b"),
            ("https://x.y:1/a?b#c", Some("https://x.y:1"), "/a?b"),
            ("wss://x", Some("wss://x"), "/"),
            ("http://x?a=://", Some("http://x"), "/?a=://"),
            ("/login?to=https://x/", None, "/login?to=https://x/"),
        ] {
            assert_eq!(split(url), (origin.map(str::to_owned), target.to_owned()), "{url}");
        }
    }

    #[test]
    fn versions_have_one_spelling() {
        let spellings = ["HTTP/1.1", "http/1.1", "", "h2", "http/2.0", "HTTP/2", "h3", "HTTP/1.0", "2"];
        let versions: Vec<String> = spellings.iter().map(|text| version(text)).collect();
        assert_eq!(versions, ["1.1", "1.1", "1.1", "2", "2", "2", "3", "1.0", "2"]);
    }
}
