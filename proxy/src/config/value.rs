//! The kinds of values that settings have, read from text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::state::Durability;

/// A value that is written as text. `Err` says what is wrong with the text.
pub(super) trait FromText: Sized {
    /// Reads a value; `range` is `least..=most` for those that have an order.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Whether the value lies within the range; kinds without an order have none.
    fn is_within(&self, _least: &Self, _most: &Self) -> bool {
        true
    }
}

/// Reads a value and holds it against its range.
pub(super) fn parse_within<T: FromText>(text: &str, range: &str) -> Result<T, String> {
    let value = T::from_text(text)?;
    if let Some((least, most)) = range.split_once("..=") {
        let (least, most) = (T::from_text(least)?, T::from_text(most)?);
        if !value.is_within(&least, &most) {
            return Err("it is out of range".to_owned());
        }
    }
    Ok(value)
}

macro_rules! whole_number {
    ($($type:ty),+) => { $(
        impl FromText for $type {
            fn from_text(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| "it is not a whole number".to_owned())
            }

            fn is_within(&self, least: &Self, most: &Self) -> bool {
                (least..=most).contains(&self)
            }
        }
    )+ };
}

whole_number!(u32, usize);

/// A number and its unit, which follows without a space.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

/// Reads a time as settings have it, and days besides.
///
/// # Errors
/// What is wrong with it, as a clause about "it".
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Some(days) = text.strip_suffix('d') {
        let seconds = days.parse::<u64>().ok().and_then(|days| days.checked_mul(86_400));
        return seconds.map(Duration::from_secs).ok_or_else(|| "it is not a number of days".to_owned());
    }
    Duration::from_text(text)
}

impl FromText for Duration {
    fn from_text(text: &str) -> Result<Self, String> {
        let milliseconds = split_unit(text).and_then(|(number, unit)| {
            let factor = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60 * 1000,
                "h" => 3600 * 1000,
                _ => return None,
            };
            number.checked_mul(factor)
        });
        let problem = "it is not a time such as 250ms, 30s, 5m or 1h";
        milliseconds.map(Self::from_millis).ok_or_else(|| problem.to_owned())
    }

    fn is_within(&self, least: &Self, most: &Self) -> bool {
        (least..=most).contains(&self)
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(usize);

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0
    }
}

impl FromText for ByteSize {
    fn from_text(text: &str) -> Result<Self, String> {
        let bytes = split_unit(text).and_then(|(number, unit)| {
            let shift = match unit {
                "B" | "" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                "TiB" => 40,
                _ => return None,
            };
            number.checked_mul(1 << shift).and_then(|bytes| usize::try_from(bytes).ok())
        });
        bytes.map(Self).ok_or_else(|| "it is not a size such as 512B, 256KiB, 64MiB or 1GiB".to_owned())
    }

    fn is_within(&self, least: &Self, most: &Self) -> bool {
        (least..=most).contains(&self)
    }
}

impl FromText for PathBuf {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(Self::from(text)) }
    }
}

impl FromText for SocketAddr {
    fn from_text(text: &str) -> Result<Self, String> {
        let address: Self = text.parse().map_err(|_| "it is not an address with a port".to_owned())?;
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        // Other addresses of 127.0.0.0/8 have no name that clients could use as a second origin.
        if loopback.contains(&address.ip()) {
            Ok(address)
        } else {
            Err("it is not a loopback address".to_owned())
        }
    }
}

impl FromText for Durability {
    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "normal" => Ok(Self::Normal),
            "full" => Ok(Self::Full),
            _ => Err("it is none of the two".to_owned()),
        }
    }
}

impl<T: FromText> FromText for Option<T> {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::from_text(text).map(Some) }
    }

    fn is_within(&self, least: &Self, most: &Self) -> bool {
        match (self, least, most) {
            (Some(value), Some(least), Some(most)) => value.is_within(least, most),
            _ => true,
        }
    }
}

/// Where an HTTP server is: scheme, host, port, and the path in front of what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    is_tls: bool,
    host: Arc<str>,
    port: u16,
    /// Without a slash at its end; empty for most.
    path: Arc<str>,
    authority: Arc<str>,
}

impl Origin {
    /// Reads an absolute http or https URL without user, query and fragment.
    ///
    /// # Errors
    /// What is wrong with it, as a clause about "it".
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|_| "it is not a URL".to_owned())?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it does not begin with http:// or https://".to_owned()),
        };
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("it holds a user name".to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("it has a query or a fragment".to_owned());
        }
        let host = authority.host().to_ascii_lowercase();
        let usual = if is_tls { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(usual);
        Ok(Self {
            is_tls,
            port,
            path: uri.path().trim_end_matches('/').into(),
            authority: if port == usual { host.as_str().into() } else { format!("{host}:{port}").into() },
            host: host.into(),
        })
    }

    /// Whether the server is spoken to over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The host's name or address, brackets around an IPv6 address included.
    #[must_use]
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// The host as it is resolved: without brackets.
    #[must_use]
    pub fn dial_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path in front of what is asked; empty or with a slash at its start only.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of a `Host` field: the port only where it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// This origin with a path behind its own.
    #[must_use]
    pub fn join(&self, path: &str) -> Self {
        Self { path: format!("{}{path}", self.path).into(), ..self.clone() }
    }

    /// Whether this is an address of the machine itself.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        &*self.host == "localhost"
            || self.dial_host().parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(formatter, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromText for Origin {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_and_written() {
        for (text, written) in [
            ("https://ChatGPT.com", "https://chatgpt.com"),
            ("https://chatgpt.com:443/", "https://chatgpt.com"),
            ("http://127.0.0.1:8080/a/b/", "http://127.0.0.1:8080/a/b"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(Origin::parse(text).unwrap().to_string(), written);
        }
        for text in
            ["chatgpt.com", "ftp://x", "http://", "http://u:p@x", "http://x?y", "http://x#y", "http://x y"]
        {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
        assert!(Origin::parse("http://[::1]:1").unwrap().is_loopback());
        assert!(!Origin::parse("http://128.0.0.1").unwrap().is_loopback());
    }

    #[test]
    fn units_are_required_where_they_matter() {
        assert_eq!(Duration::from_text("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(Duration::from_text("1h"), Ok(Duration::from_secs(3600)));
        for text in ["5", "s", "", "1.5s", "-1s", "5 s", "99999999999999999999h", "18446744073709551615h"] {
            assert!(Duration::from_text(text).is_err(), "{text}");
        }
        assert_eq!(ByteSize::from_text("2KiB").map(ByteSize::bytes), Ok(2048));
        for text in ["KiB", "1kb", "-1", "18446744073709551615GiB"] {
            assert!(ByteSize::from_text(text).is_err(), "{text}");
        }
    }
}
