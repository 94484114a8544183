//! Events as the bytes that decode to them.

/// Why something cannot be written as an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A name or id with a line end in it would start another field.
    #[error("the {0} of an event cannot hold a line end")]
    LineEnd(&'static str),
    /// Readers ignore an id with NUL.
    #[error("the id of an event cannot hold NUL")]
    NulInId,
}

/// Appends an event to `out`: one `data:` line per line of `data`, LF line ends.
///
/// # Errors
/// When the name or the id cannot be written so that it is read back.
pub fn encode_event(
    name: Option<&str>,
    id: Option<&str>,
    data: &str,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if let Some(name) = name {
        field("event", reject_line_end("name", name)?, out);
    }
    if let Some(id) = id {
        if id.contains('\0') {
            return Err(EncodeError::NulInId);
        }
        field("id", reject_line_end("id", id)?, out);
    }
    for line in lines(data) {
        field("data", line, out);
    }
    out.push(b'\n');
    Ok(())
}

/// Appends a comment to `out`, one line per line of `text`, without an empty line behind it.
pub fn encode_comment(text: &str, out: &mut Vec<u8>) {
    for line in lines(text) {
        field("", line, out);
    }
}

fn field(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

fn reject_line_end<'a>(what: &'static str, text: &'a str) -> Result<&'a str, EncodeError> {
    if text.contains(['\n', '\r']) { Err(EncodeError::LineEnd(what)) } else { Ok(text) }
}

/// The lines of a text whose line ends may be LF, CR or CRLF; one empty line for an empty text.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let next = if text[end..].starts_with("\r\n") { end + 2 } else { end + 1 };
        rest = Some(&text[next..]);
        Some(&text[..end])
    })
}
