//! The probes, as a table: what is sent, and which refusals are right.

use super::Target;

/// A request that must be refused.
pub(super) struct Probe {
    pub(super) about: &'static str,
    pub(super) name: &'static str,
    /// The bytes.
    pub(super) request: fn(&Target) -> Vec<u8>,
    /// The right refusals.
    pub(super) statuses: &'static [u16],
    /// Ending the connection is one, too.
    pub(super) may_close: bool,
}

impl Probe {
    pub(super) fn expectation(&self) -> String {
        let statuses: Vec<String> = self.statuses.iter().map(u16::to_string).collect();
        statuses.join(" or ") + if self.may_close { ", or closed" } else { "" }
    }
}

/// A path that no backend has.
const PATH: &str = "/prodex-doctor/probe";

/// The name of the probe that shows that unknown paths are refused.
pub(super) const UNKNOWN_PATH: &str = "a path that no client asks for";

/// A request with these further fields, and with the capability.
fn with(target: &Target, method: &str, path: &str, fields: &str) -> Vec<u8> {
    let host = target.address;
    let prefix = &target.prefix;
    format!("{method} {prefix}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n")
        .into_bytes()
}

fn get(target: &Target, fields: &str) -> Vec<u8> {
    with(target, "GET", PATH, fields)
}

/// A request for this target as it stands.
fn raw(target: &Target, line: &str, fields: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{fields}\r\n", target.address).into_bytes()
}

/// A request whose only Host is this.
fn host(target: &Target, fields: &str) -> Vec<u8> {
    format!("GET {}{PATH} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n", target.prefix).into_bytes()
}

/// A request whose framing is in doubt: one reader takes what is behind its head for a second request.
fn smuggle(target: &Target, fields: &str, body: &str) -> Vec<u8> {
    let mut request = with(target, "POST", PATH, fields);
    let inner = format!("GET {}{PATH} HTTP/1.1\r\nHost: {}\r\n\r\n", target.prefix, target.address);
    request.extend_from_slice(body.as_bytes());
    request.extend_from_slice(inner.as_bytes());
    request
}

const fn refused(
    about: &'static str,
    name: &'static str,
    statuses: &'static [u16],
    request: fn(&Target) -> Vec<u8>,
) -> Probe {
    Probe { about, name, request, statuses, may_close: false }
}

/// One whose form is so odd that ending the connection is right, too.
const fn odd(about: &'static str, name: &'static str, request: fn(&Target) -> Vec<u8>) -> Probe {
    Probe { about, name, request, statuses: &[400], may_close: true }
}

/// The probes that are sent to every proxy.
pub(super) const PROBES: &[Probe] = &[
    refused("capability", "none", &[401], |target| raw(target, &format!("GET {PATH}"), "")),
    refused("capability", "one letter is wrong", &[401], |target| {
        raw(target, &format!("GET {}{PATH}", target.spoilt_prefix()), "")
    }),
    refused("capability", "the last letter is missing", &[401], |target| {
        let mut prefix = target.spoilt_prefix();
        prefix.pop();
        raw(target, &format!("GET {prefix}{PATH}"), "")
    }),
    refused("capability", "empty", &[400, 401], |target| raw(target, &format!("GET /k/{PATH}"), "")),
    refused("capability", "a wrong bearer", &[401], |target| {
        raw(target, &format!("GET {PATH}"), "Authorization: Bearer prodex-doctor\r\n")
    }),
    refused("capability", "a wrong API key", &[401], |target| {
        raw(target, &format!("GET {PATH}"), "x-api-key: prodex-doctor\r\n")
    }),
    refused("page", "the Host of another machine", &[403], |target| {
        host(target, "Host: prodex-doctor.example\r\n")
    }),
    refused("page", "a Host that begins like ours", &[403], |target| {
        host(target, "Host: 127.0.0.1.prodex-doctor.example\r\n")
    }),
    refused("page", "two Hosts", &[400], |target| {
        host(target, &format!("Host: {0}\r\nHost: {0}\r\n", target.address))
    }),
    refused("page", "no Host", &[400], |target| host(target, "")),
    refused("page", "a foreign Origin", &[403], |target| {
        get(target, "Origin: https://prodex-doctor.example\r\n")
    }),
    refused("page", "the Origin null", &[403], |target| get(target, "Origin: null\r\n")),
    refused("page", "Sec-Fetch-Site: cross-site", &[403], |target| {
        get(target, "Sec-Fetch-Site: cross-site\r\n")
    }),
    refused("page", "Sec-Fetch-Site: same-site", &[403], |target| {
        get(target, "Sec-Fetch-Site: same-site\r\n")
    }),
    refused("page", "a CORS preflight", &[403, 405], |target| {
        let asks = "Origin: https://prodex-doctor.example\r\nAccess-Control-Request-Method: POST\r\n";
        with(target, "OPTIONS", PATH, asks)
    }),
    refused("target", UNKNOWN_PATH, &[404], |target| get(target, "")),
    refused("target", "a method that no client uses", &[405], |target| with(target, "TRACE", PATH, "")),
    refused("target", "a tunnel", &[400, 405], |target| raw(target, "CONNECT prodex-doctor.example:443", "")),
    refused("target", "an absolute form", &[400], |target| {
        raw(target, &format!("GET http://{}{}{PATH}", target.address, target.prefix), "")
    }),
    refused("target", "an asterisk", &[400], |target| raw(target, "OPTIONS *", "")),
    refused("target", "dot segments", &[400], |target| {
        with(target, "GET", "/backend-api/../prodex-doctor", "")
    }),
    refused("target", "encoded dot segments", &[400], |target| {
        with(target, "GET", "/backend-api/%2e%2E/prodex-doctor", "")
    }),
    refused("target", "an encoded slash", &[400], |target| with(target, "GET", "/prodex-doctor%2fprobe", "")),
    refused("target", "an encoded backslash", &[400], |target| {
        with(target, "GET", "/prodex-doctor%5Cprobe", "")
    }),
    refused("target", "an encoded percent sign", &[400], |target| {
        with(target, "GET", "/prodex-doctor%252fprobe", "")
    }),
    refused("target", "an encoded NUL", &[400], |target| with(target, "GET", "/prodex-doctor%00", "")),
    refused("target", "a backslash", &[400], |target| with(target, "GET", "/prodex-doctor\\..\\probe", "")),
    refused("target", "an empty segment", &[400], |target| with(target, "GET", "//prodex-doctor/probe", "")),
    refused("target", "a fragment", &[400], |target| with(target, "GET", "/prodex-doctor#probe", "")),
    odd("target", "a letter that is not ASCII", |target| with(target, "GET", "/prodex-doctor/\u{e9}", "")),
    odd("framing", "two lengths that differ", |target| {
        smuggle(target, "Content-Length: 0\r\nContent-Length: 5\r\n", "")
    }),
    odd("framing", "the same length twice", |target| {
        smuggle(target, "Content-Length: 0\r\nContent-Length: 0\r\n", "")
    }),
    odd("framing", "a list of lengths", |target| smuggle(target, "Content-Length: 0, 0\r\n", "")),
    odd("framing", "a length with a sign", |target| smuggle(target, "Content-Length: +0\r\n", "")),
    odd("framing", "a negative length", |target| smuggle(target, "Content-Length: -1\r\n", "")),
    odd("framing", "a length of 30 digits", |target| {
        smuggle(target, "Content-Length: 100000000000000000000000000000\r\n", "")
    }),
    odd("framing", "a length before chunks", |target| {
        smuggle(target, "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")
    }),
    odd("framing", "a length behind chunks", |target| {
        smuggle(target, "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n")
    }),
    odd("framing", "chunks within chunks", |target| {
        smuggle(target, "Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")
    }),
    odd("framing", "an unknown coding", |target| {
        smuggle(target, "Transfer-Encoding: prodex\r\n", "0\r\n\r\n")
    }),
    odd("framing", "a coding that is none", |target| {
        smuggle(target, "Transfer-Encoding: identity\r\nContent-Length: 0\r\n", "")
    }),
    odd("framing", "a blank before the colon", |target| {
        smuggle(target, "Transfer-Encoding : chunked\r\n", "0\r\n\r\n")
    }),
    odd("framing", "a folded field", |target| {
        smuggle(target, "Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")
    }),
    odd("framing", "a NUL in a field", |target| get(target, "X-Probe: a\0b\r\n")),
    odd("framing", "a bare CR in a field", |target| get(target, "X-Probe: a\rContent-Length: 5\r\n")),
    Probe {
        about: "framing",
        name: "an expectation that nobody knows",
        request: |target| get(target, "Expect: prodex-doctor\r\n"),
        statuses: &[417],
        may_close: false,
    },
    Probe {
        about: "size",
        name: "a head of 1 MiB",
        request: |target| get(target, &format!("X-Probe: {}\r\n", "x".repeat(1 << 20))),
        statuses: &[400, 413, 431],
        may_close: true,
    },
    Probe {
        about: "size",
        name: "20,000 fields",
        request: |target| get(target, &"X-Probe: x\r\n".repeat(20_000)),
        statuses: &[400, 413, 431],
        may_close: true,
    },
    Probe {
        about: "size",
        name: "a path of 1 MiB",
        request: |target| with(target, "GET", &format!("{PATH}/{}", "x".repeat(1 << 20)), ""),
        statuses: &[400, 414, 431],
        may_close: true,
    },
];

/// A body that is longer than any proxy should take. It names a real route, since elsewhere nobody would look at
/// its length; nothing of it is sent.
pub(super) const LONG_BODY: Probe = Probe {
    about: "size",
    name: "a body of 1 TiB",
    request: |target| {
        with(target, "POST", "/backend-api/codex/responses", "Content-Length: 1099511627776\r\n")
    },
    statuses: &[413],
    may_close: true,
};
