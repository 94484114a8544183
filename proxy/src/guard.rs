//! Who may speak to the proxy, and in which form: capability, host, origin, request target, framing.
//!
//! Everything a page in a browser, another user's process or a confused intermediary could send is
//! refused here, before a route is looked up and long before an upstream is asked.

use wire::http1::{BodyLength, RequestHead};

use crate::error::Error;
use crate::secret::Secret;

/// What every request must show.
#[derive(Debug)]
pub struct Guard {
    capability: Option<Secret>,
}

/// The methods that some known client uses.
const METHODS: [&str; 4] = ["GET", "POST", "DELETE", "HEAD"];

impl Guard {
    /// A guard that asks for `capability`; without one anybody on the machine may speak (`--no-auth`).
    #[must_use]
    pub fn new(capability: Option<Secret>) -> Self {
        Self { capability }
    }

    /// What it asks for.
    #[must_use]
    pub fn capability(&self) -> Option<&Secret> {
        self.capability.as_ref()
    }

    /// Checks a request's head. On success says what it asks for, without the capability, and how long
    /// its body is.
    ///
    /// # Errors
    /// With the reply's status and a reason for the person at the client.
    pub fn check<'a>(&self, head: &'a RequestHead) -> Result<(&'a str, BodyLength), Error> {
        let target = check_target(head)?;
        check_host(head)?;
        check_origin(head)?;
        let target = self.check_capability(head, target)?;
        if !METHODS.contains(&head.method()) {
            return Err(Error::refused(405, "this method is not used by any known client"));
        }
        let length = head.body_length().map_err(|error| Error::refused(400, error.to_string()))?;
        if head.get("expect").is_some_and(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
            return Err(Error::refused(417, "the expectation is not known"));
        }
        Ok((target, length))
    }

    /// The capability comes as `/k/<capability>` in front of the path, which every client's base URL can
    /// hold, or as the key of a client that is given one.
    fn check_capability<'a>(&self, head: &RequestHead, target: &'a str) -> Result<&'a str, Error> {
        let Some(capability) = &self.capability else { return Ok(target) };
        if let Some(rest) = target.strip_prefix("/k/") {
            let (shown, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if capability.matches(shown.as_bytes()) {
                return Ok(rest);
            }
        } else if keys(head).any(|key| capability.matches(key)) {
            return Ok(target);
        }
        Err(Error::refused(
            401,
            "this request does not carry the capability of this launch: use the base URL that \
             `prodex run` or `prodex serve` gives out",
        ))
    }
}

/// The keys that a request shows in one of the places where clients put them.
fn keys(head: &RequestHead) -> impl Iterator<Item = &[u8]> {
    head.fields().filter_map(|field| {
        if field.is("authorization") {
            let value = field.value.split_at_checked(7)?;
            value.0.eq_ignore_ascii_case(b"bearer ").then_some(value.1)
        } else if field.is("x-api-key") || field.is("x-goog-api-key") {
            Some(field.value)
        } else {
            None
        }
    })
}

/// Only a plain path of visible ASCII: what a later reader could resolve to another path is refused.
fn check_target(head: &RequestHead) -> Result<&str, Error> {
    let target = head.target();
    let refuse = |reason| Err(Error::refused(400, reason));
    if !target.starts_with('/') {
        return refuse("the request target is not a path");
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains(['\\', '#']) {
        return refuse("the request target holds a character that it may not");
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let is_refused = |encoded: &str| {
        let code = encoded.get(..2).unwrap_or_default();
        ["2f", "5c", "2e", "25", "00"].iter().any(|refused| code.eq_ignore_ascii_case(refused))
    };
    if path.split('%').skip(1).any(is_refused) {
        return refuse("the path holds an encoded separator, dot, percent sign or NUL");
    }
    if path.contains("//") || path.split('/').any(|segment| segment == "." || segment == "..") {
        return refuse("the path holds an empty or a dot segment");
    }
    Ok(target)
}

/// A name of the machine itself: a page that made its own name resolve to the loopback shows that name.
fn check_host(head: &RequestHead) -> Result<(), Error> {
    let mut hosts = head.fields().filter(|field| field.is("host"));
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Error::refused(400, "there is not exactly one Host"));
    };
    let is_local = host.text().is_some_and(is_local_authority);
    if is_local { Ok(()) } else { Err(Error::refused(403, "the Host is not a name of this machine")) }
}

pub(crate) fn is_local_authority(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some((_, port)) if !port.ends_with(']') => return false,
        _ => authority,
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// Requests from a web page are refused. An `Origin` of this machine's own says no more than that a program
/// here has served a page, and a program needs the capability like any other.
fn check_origin(head: &RequestHead) -> Result<(), Error> {
    let refuse = |what| Err(Error::refused(403, format!("{what} shows that a web page sent this request")));
    for field in head.fields() {
        if field.is("origin") {
            let origin = field.text().unwrap_or_default().to_ascii_lowercase();
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if !authority.is_some_and(is_local_authority) {
                return refuse("the Origin");
            }
        }
        if field.is("sec-fetch-site") && !field.value.eq_ignore_ascii_case(b"none") {
            return refuse("Sec-Fetch-Site");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOST: &str = "Host: 127.0.0.1:80\r\n";

    fn check(capability: Option<&str>, request: &str) -> Result<String, u16> {
        let (head, _) = RequestHead::parse(request.as_bytes()).unwrap().unwrap();
        let guard = Guard::new(capability.map(Secret::new));
        match guard.check(&head) {
            Ok((target, _)) => Ok(target.to_owned()),
            Err(Error::Refused { status, .. }) => Err(status),
            Err(other) => panic!("{other}"),
        }
    }

    fn get(target: &str, fields: &str) -> String {
        format!("GET {target} HTTP/1.1\r\n{fields}\r\n")
    }

    #[test]
    fn the_capability_is_in_the_path_or_is_the_key() {
        let capability = Some("cap");
        for (request, expected) in [
            (get("/k/cap/v1/models?x=/k/", HOST), Ok("/v1/models?x=/k/".to_owned())),
            (get("/k/cap", HOST), Ok(String::new())),
            (get("/k/ca/v1/models", HOST), Err(401)),
            (get("/k/capx/v1/models", HOST), Err(401)),
            (get("/v1/models", HOST), Err(401)),
            (get("/v1/models", &format!("{HOST}Authorization: bearer cap\r\n")), Ok("/v1/models".to_owned())),
            (get("/v1/models", &format!("{HOST}X-Api-Key: cap\r\n")), Ok("/v1/models".to_owned())),
            (get("/v1/models", &format!("{HOST}Authorization: Bearer real\r\n")), Err(401)),
            // A wrong capability in the path is not helped by a right key.
            (get("/k/no/v1/models", &format!("{HOST}Authorization: Bearer cap\r\n")), Err(401)),
        ] {
            assert_eq!(check(capability, &request), expected, "{request}");
        }
        assert_eq!(check(None, &get("/v1/models", HOST)), Ok("/v1/models".to_owned()));
    }

    #[test]
    fn only_plain_paths_are_taken() {
        for target in [
            "/backend-api/../etc",
            "/backend-api/%2e%2e/etc",
            "/backend-api/.",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "//evil",
            "/a//b",
            "/a%00",
            "/a%252e",
            "http://evil/",
            "*",
            "evil:443",
            "/a#b",
            "/é",
        ] {
            assert_eq!(check(None, &get(target, HOST)), Err(400), "{target}");
        }
        assert!(check(None, &get("/a?b=../%2f//", HOST)).is_ok());
    }

    #[test]
    fn only_local_hosts_are_taken() {
        for host in ["127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:80", "127.9.9.9:1"] {
            assert!(check(None, &get("/", &format!("Host: {host}\r\n"))).is_ok(), "{host}");
        }
        for host in [
            "evil.com",
            "evil.com:80",
            "127.0.0.1.evil.com",
            "localhost.evil.com",
            "",
            "localhost:",
            "localhost:x",
            "0.0.0.0",
            "[::2]",
            "192.168.0.1",
        ] {
            assert!(matches!(check(None, &get("/", &format!("Host: {host}\r\n"))), Err(403)), "{host}");
        }
        assert_eq!(check(None, &get("/", "")), Err(400));
        assert_eq!(check(None, &get("/", &format!("{HOST}{HOST}"))), Err(400));
    }

    #[test]
    fn web_pages_are_refused() {
        for field in [
            "Origin: https://evil.com",
            "Origin: null",
            "Origin: ",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-origin",
            "Origin: http://localhost.evil.com",
        ] {
            assert_eq!(check(None, &get("/", &format!("{HOST}{field}\r\n"))), Err(403), "{field}");
        }
        // Gemini CLI's fetch sends this and no origin.
        assert!(check(None, &get("/", &format!("{HOST}Sec-Fetch-Mode: cors\r\n"))).is_ok());
    }

    #[test]
    fn smuggling_forms_are_refused() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
        ] {
            assert_eq!(check(None, &get("/", &format!("{HOST}{fields}"))), Err(400), "{fields}");
        }
        assert_eq!(check(None, &get("/", &format!("{HOST}Expect: cake\r\n"))), Err(417));
        assert_eq!(check(None, &format!("TRACE / HTTP/1.1\r\n{HOST}\r\n")), Err(405));
    }

    /// What a lenient server would make of a path.
    fn percent_decode(path: &str) -> String {
        let mut decoded = String::new();
        let mut rest = path;
        while let Some((head, tail)) = rest.split_once('%') {
            decoded.push_str(head);
            let byte = tail.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            decoded.push(byte.map_or('%', char::from));
            rest = if byte.is_some() { &tail[2..] } else { tail };
        }
        decoded + rest
    }

    proptest! {
        #[test]
        fn no_admitted_path_leaves_its_prefix(path in "[a-z./%2eEfF5cC\\\\?#]{0,24}") {
            let request = get(&format!("/backend-api/{path}"), HOST);
            if let Ok(Some((head, _))) = RequestHead::parse(request.as_bytes())
                && let Ok((target, _)) = Guard::new(None).check(&head)
            {
                let path = target.split_once('?').map_or(target, |(path, _)| path);
                let decoded = percent_decode(path);
                prop_assert_eq!(decoded.matches('/').count(), path.matches('/').count());
                prop_assert!(!decoded.split('/').any(|segment| segment == ".." || segment == "."));
                prop_assert!(!decoded.contains('\\'));
            }
        }
    }
}
