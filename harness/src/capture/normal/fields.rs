//! The fields of a foreign record, taken one by one; what is not taken is kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use wire::capture::{Direction, Headers, Payload, Rest, StreamEnd};

use super::{CaptureError, Members, RawRecord, TYPES, bad, headers, type_named};
use crate::capture::json::compact;

/// The fields of our records.
const OWN: [&str; 26] = [
    "ts",
    "t_ms",
    "type",
    "direction",
    "id",
    "connection",
    "method",
    "url",
    "http_version",
    "headers",
    "head",
    "body",
    "wire_len",
    "writes",
    "upgrade",
    "status",
    "end",
    "stream",
    "binary",
    "control",
    "message",
    "frames",
    "client",
    "version",
    "scenario",
    "recorder",
];

pub(super) struct Fields<'a> {
    raw: &'a RawRecord,
    members: Members,
}

impl<'a> Fields<'a> {
    /// The fields of a record that was checked to be an object.
    pub(super) fn new(raw: &'a RawRecord) -> Self {
        Self { raw, members: serde_json::from_slice(&raw.bytes).unwrap_or_default() }
    }

    pub(super) fn bad(&self, problem: &str, advice: &str) -> CaptureError {
        bad(&self.raw.place, problem, advice)
    }

    /// The type in our spelling; a request without one.
    pub(super) fn kind(&mut self) -> Result<String, CaptureError> {
        let Some(name) =
            ["type", "kind", "record_type"].into_iter().find(|name| self.members.contains_key(*name))
        else {
            return Ok("request".to_owned());
        };
        let kind = self.take(name);
        let Some(kind) = kind.as_ref().and_then(Value::as_str) else {
            return Err(
                self.bad(&format!("`{name}` is no text"), &format!("it is one of {}", TYPES.join(", ")))
            );
        };
        type_named(kind).map(str::to_owned).ok_or_else(|| {
            let problem = format!("there is no type of records {kind:?}");
            self.bad(&problem, &format!("it is one of {}", TYPES.join(", ")))
        })
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name)
    }

    pub(super) fn keep(&mut self, name: &str, value: Value) {
        self.members.insert(name.to_owned(), value);
    }

    /// Everything that was not taken. What has the name of a field of ours, which this record has no use
    /// for, is kept under another.
    pub(super) fn rest(&mut self) -> Rest {
        let name = |(name, value): (String, Value)| {
            let name = if OWN.contains(&&*name) { format!("foreign_{name}") } else { name };
            (name, value)
        };
        std::mem::take(&mut self.members).into_iter().map(name).collect()
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, CaptureError> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(self.bad(&format!("`{name}` is no text"), "it is a string")),
        }
    }

    /// The first of these fields that there is.
    pub(super) fn first_text(&mut self, names: &[&str]) -> Result<Option<String>, CaptureError> {
        for name in names {
            if let Some(text) = self.text(name)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, CaptureError> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number =
                    value.as_u64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
                number
                    .map(Some)
                    .ok_or_else(|| self.bad(&format!("`{name}` is no number"), "it is a whole number"))
            }
        }
    }

    pub(super) fn numbers(&mut self, name: &str) -> Result<Vec<u64>, CaptureError> {
        let value = self.take(name).unwrap_or(Value::Null);
        let numbers = serde_json::from_value::<Option<Vec<u64>>>(value);
        numbers.map(Option::unwrap_or_default).map_err(|_| {
            self.bad(&format!("`{name}` is no list of numbers"), "it holds the length of each frame in bytes")
        })
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, CaptureError> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.bad(&format!("`{name}` is neither true nor false"), "it is one of the two")),
        }
    }

    pub(super) fn status(&mut self) -> Result<Option<u16>, CaptureError> {
        let Some(status) = self.number("status")? else { return Ok(None) };
        let status = u16::try_from(status).ok().filter(|status| (100..1000).contains(status));
        let advice = "a response that was never sent is left out";
        status.map(Some).ok_or_else(|| self.bad("`status` is not from 100 to 999", advice))
    }

    pub(super) fn writes(&mut self) -> Result<Vec<(f64, u64)>, CaptureError> {
        let value = self.take("writes").unwrap_or(Value::Null);
        let writes = serde_json::from_value::<Option<Vec<(f64, u64)>>>(value);
        writes
            .map(Option::unwrap_or_default)
            .map_err(|_| self.bad("`writes` is no list of writes", "each is [milliseconds, length in bytes]"))
    }

    pub(super) fn stream_end(&mut self, name: &str) -> Result<Option<StreamEnd>, CaptureError> {
        let value = self.take(name).unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|_| {
            self.bad(&format!("`{name}` is no way to end"), "it is eof, reset, fin, hang or client_gone")
        })
    }

    pub(super) fn direction(&mut self) -> Result<Option<Direction>, CaptureError> {
        let Some(text) = self.text("direction")? else { return Ok(None) };
        let name = text.to_ascii_lowercase().replace(['-', ' '], "_");
        match name.as_str() {
            "client_to_upstream" | "client_to_server" | "client" | "send" | "sent" | "outgoing" | "out" => {
                Ok(Some(Direction::ClientToUpstream))
            }
            "upstream_to_client" | "server_to_client" | "upstream" | "server" | "receive" | "received"
            | "incoming" | "in" => Ok(Some(Direction::UpstreamToClient)),
            _ => Err(self.bad(
                &format!("there is no direction {text:?}"),
                "it is client_to_upstream or upstream_to_client",
            )),
        }
    }

    pub(super) fn headers(&mut self) -> Result<Headers, CaptureError> {
        let value = self.take("headers").unwrap_or(Value::Null);
        headers::read(value).map_err(|problem| {
            let advice =
                "write [[name, value], …], {name: value}, [{\"name\": …, \"value\": …}] or [\"Name: value\"]";
            self.bad(&problem, advice)
        })
    }

    /// A field's JSON as it is written, but without whitespace between its tokens.
    pub(super) fn raw(&mut self, name: &str) -> Option<Vec<u8>> {
        self.take(name).filter(|value| !value.is_null())?;
        Some(compact(wire::json::Value::new(&self.raw.bytes).get(name)?.raw()))
    }

    /// The same of the first of these fields that there is.
    pub(super) fn raw_of(&mut self, names: &[&str]) -> Option<Vec<u8>> {
        names.iter().find_map(|name| self.raw(name))
    }

    /// The text of a JSON string, or the JSON of anything else.
    pub(super) fn json(&mut self, names: &[&str]) -> Option<Vec<u8>> {
        let raw = self.raw_of(names)?;
        match serde_json::from_slice::<Value>(&raw) {
            Ok(Value::String(text)) => Some(text.into_bytes()),
            _ => Some(raw),
        }
    }

    /// A body: text as it is, `{"base64": …}` decoded, any other JSON as clients send it.
    pub(super) fn body(&mut self, names: &[&str]) -> Result<Option<Payload>, CaptureError> {
        let Some(raw) = self.raw_of(names) else { return Ok(None) };
        match serde_json::from_slice::<Value>(&raw) {
            Ok(Value::String(text)) => Ok(Some(Payload(text.into_bytes()))),
            Ok(Value::Object(members)) if members.len() == 1 => match members.get("base64") {
                Some(Value::String(text)) => match STANDARD.decode(text) {
                    Ok(bytes) => Ok(Some(Payload(bytes))),
                    Err(error) => {
                        let problem = format!("what is said to be base64 is none: {error}");
                        Err(self.bad(&problem, "it has the standard alphabet, with padding"))
                    }
                },
                _ => Ok(Some(Payload(raw))),
            },
            _ => Ok(Some(Payload(raw))),
        }
    }
}
