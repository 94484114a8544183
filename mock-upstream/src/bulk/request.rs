//! What of a request a bulk reply depends on, found in one pass over its head and without allocating.
//!
//! Only the plain form of a model call is read here. Whatever else there is in HTTP/1.1 goes to the scripted
//! mock's parser, which is strict.

/// The most of a head that is looked at.
const MAX_HEAD: usize = 64 * 1024;

/// Which model call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// A turn over SSE.
    Responses,
    /// A unary compaction.
    Compact,
    /// The opening of a WebSocket.
    Upgrade,
}

/// The head of a model call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) call: Call,
    /// How many bytes the head has.
    pub(super) length: usize,
    /// How many bytes the body has.
    pub(super) body: u64,
    /// The credential; empty without one.
    pub(super) bearer: &'a [u8],
    /// The account that is named; empty without one.
    pub(super) account: &'a [u8],
    /// The turn state that the client returns; empty without one.
    pub(super) turn_state: &'a [u8],
    /// `Sec-WebSocket-Key`.
    pub(super) key: &'a [u8],
    /// Whether the body is compressed with zstd.
    pub(super) is_zstd: bool,
    /// Whether the client wants the connection closed behind the reply.
    pub(super) closes: bool,
}

/// What the bytes of a connection begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start<'a> {
    /// Not yet a head.
    Partial,
    /// A model call.
    Model(Head<'a>),
    /// Something else, or a form of a model call that is not read here.
    Other,
}

/// Looks at the bytes that a connection has.
pub(super) fn look(bytes: &[u8]) -> Start<'_> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { Start::Other } else { Start::Partial };
    };
    match read(&bytes[..end + 2], end + 4) {
        Some(head) => Start::Model(head),
        None => Start::Other,
    }
}

/// Reads the lines of a head, each with its end.
fn read(lines: &[u8], length: usize) -> Option<Head<'_>> {
    let (first, mut rest) = line(lines)?;
    let target = first.strip_suffix(b" HTTP/1.1")?;
    let (is_post, path) = match target.strip_prefix(b"POST ") {
        Some(path) => (true, path),
        None => (false, target.strip_prefix(b"GET ")?),
    };
    let mut call = model_call(path)?;
    let mut head = Head {
        call,
        length,
        body: 0,
        bearer: b"",
        account: b"",
        turn_state: b"",
        key: b"",
        is_zstd: false,
        closes: false,
    };
    let (mut has_length, mut upgrades) = (false, false);
    while let Some((field, others)) = line(rest) {
        rest = others;
        let (name, value) = field.split_at(memchr::memchr(b':', field)?);
        let value = value[1..].trim_ascii();
        // By length first: most names are told apart by that.
        match name.len() {
            6 if name.eq_ignore_ascii_case(b"expect") => return None,
            7 if name.eq_ignore_ascii_case(b"upgrade") => upgrades = value.eq_ignore_ascii_case(b"websocket"),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                head.closes |= value.eq_ignore_ascii_case(b"close");
            }
            13 if name.eq_ignore_ascii_case(b"authorization") => {
                head.bearer = value.strip_prefix(b"Bearer ")?;
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if has_length {
                    return None;
                }
                has_length = true;
                head.body = number(value)?;
            }
            16 if name.eq_ignore_ascii_case(b"content-encoding") => {
                if value != b"zstd" {
                    return None;
                }
                head.is_zstd = true;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => return None,
            17 if name.eq_ignore_ascii_case(b"sec-websocket-key") => head.key = value,
            18 if name.eq_ignore_ascii_case(b"x-codex-turn-state") => head.turn_state = value,
            18 if name.eq_ignore_ascii_case(b"chatgpt-account-id") => head.account = value,
            _ => {}
        }
    }
    if !is_post {
        // A GET of the responses is a WebSocket or nothing that there is.
        let opens = call == Call::Responses && upgrades && !head.key.is_empty() && head.body == 0;
        call = opens.then_some(Call::Upgrade)?;
    } else if !has_length {
        return None;
    }
    Some(Head { call, ..head })
}

/// The first line without its end, and the rest.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((bytes[..end].strip_suffix(b"\r")?, &bytes[end + 1..]))
}

fn model_call(path: &[u8]) -> Option<Call> {
    let (call, base) = if let Some(base) = path.strip_suffix(b"/responses") {
        (Call::Responses, base)
    } else {
        (Call::Compact, path.strip_suffix(b"/responses/compact")?)
    };
    (base.ends_with(b"/codex") || base.ends_with(b"/v1")).then_some(call)
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TURN: &str = "POST /backend-api/codex/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\
                        ChatGPT-Account-Id:  a \r\ncontent-length: 12\r\n\r\n";

    fn model(text: &str) -> Option<Head<'_>> {
        match look(text.as_bytes()) {
            Start::Model(head) => Some(head),
            Start::Other => None,
            Start::Partial => panic!("partial: {text}"),
        }
    }

    #[test]
    fn a_turn_is_read() {
        let head = model(TURN).unwrap();
        assert_eq!((head.call, head.length, head.body), (Call::Responses, TURN.len(), 12));
        assert_eq!((head.bearer, head.account), (&b"t"[..], &b"a"[..]));
        assert!(!head.closes && !head.is_zstd);
        for end in 0..TURN.len() {
            assert_eq!(look(&TURN.as_bytes()[..end]), Start::Partial, "{end}");
        }
    }

    #[test]
    fn the_other_calls_are_told_apart() {
        let call = |text: &str| model(&text.replace('|', "\r\n")).map(|head| head.call);
        assert_eq!(call("POST /v1/responses/compact HTTP/1.1|content-length: 0||"), Some(Call::Compact));
        let upgrade = "GET /v1/responses HTTP/1.1|upgrade: WebSocket|sec-websocket-key: k||";
        assert_eq!(call(upgrade), Some(Call::Upgrade));
        for other in [
            "GET /v1/responses HTTP/1.1|upgrade: websocket||",
            "GET /v1/models HTTP/1.1||",
            "POST /v1/responses HTTP/1.0|content-length: 0||",
            "POST /v1/responses HTTP/1.1|transfer-encoding: chunked||",
            "POST /v1/responses HTTP/1.1|content-length: 1|content-length: 1||",
            "POST /v1/responses HTTP/1.1|content-length: 1x||",
            "POST /v1/responses HTTP/1.1|content-length: 1|expect: 100-continue||",
            "POST /v1/responses HTTP/1.1|content-length: 1|content-encoding: br||",
            "POST /v1/responses HTTP/1.1||",
            "POST /elsewhere/responses HTTP/1.1|content-length: 0||",
            "POST /v1/responses HTTP/1.1|no field||",
            "||",
        ] {
            assert_eq!(call(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..170) {
            let _ = look(&bytes);
            let mut turn = TURN.as_bytes().to_vec();
            let at = at.min(turn.len());
            turn.splice(at..at, bytes);
            let _ = look(&turn);
        }
    }
}
