//! Streams of events that are written as lists: put together as the bytes that were sent.

use wire::json::Value;

/// A body and the writes that it was sent in.
type Written = (Vec<u8>, Vec<(f64, u64)>);

/// Appends an event. Data that is an object names its event by its `type`, as the vendors do; data that is
/// text and looks like the lines of a stream is taken for them.
pub(super) fn event(name: Option<&str>, data: &[u8], out: &mut Vec<u8>) {
    let value = Value::new(data);
    let text = String::from_utf8_lossy(data);
    if name.is_none() && !value.is_object() && is_lines(&text) {
        out.extend_from_slice(data);
        return;
    }
    let kind = value.is_object().then(|| value.get("type").and_then(Value::as_str)).flatten();
    let name = name.map(str::to_owned).or_else(|| kind.map(std::borrow::Cow::into_owned));
    let name = name.filter(|name| !name.contains(['\r', '\n']));
    // The name has no line end, so it can be written.
    let _ = wire::sse::encode_event(name.as_deref(), None, &text, out);
}

fn is_lines(text: &str) -> bool {
    let names = ["data:", "event:", "id:", "retry:", ":"];
    text.ends_with(['\n', '\r']) || names.iter().any(|name| text.starts_with(name))
}

/// The stream of `[{"t_ms": …, "data": …}]`; `data` is an event as an object, or the text that was written.
pub(super) fn of_events(events: &[u8], at: f64) -> Option<Written> {
    let list = Value::new(events);
    if !events.starts_with(b"[") {
        return None;
    }
    let (mut stream, mut writes) = (Vec::new(), Vec::new());
    let mut time = at;
    for one in list.elements() {
        let start = stream.len();
        let data = if one.is_object() {
            time = one.get("t_ms").and_then(Value::as_f64).unwrap_or(time);
            ["data", "event", "text", "body"].into_iter().find_map(|name| one.get(name))
        } else {
            Some(one)
        };
        // An object that is no wrapper is the event itself.
        let data = data.unwrap_or(one);
        match data.as_str() {
            Some(text) => stream.extend_from_slice(text.as_bytes()),
            None => event(None, data.raw(), &mut stream),
        }
        if stream.len() > start {
            writes.push((time, (stream.len() - start) as u64));
        }
    }
    Some((stream, writes))
}

/// The stream of a string, of `{"base64": …}`, or of an array of strings, each of which was one write.
pub(super) fn of_pieces(raw: &[u8], at: f64) -> Option<Written> {
    if raw.starts_with(b"[") {
        return of_events(raw, at);
    }
    let payload: wire::capture::Payload = serde_json::from_slice(raw).ok()?;
    let length = payload.0.len() as u64;
    let writes = if length == 0 { Vec::new() } else { vec![(at, length)] };
    Some((payload.0, writes))
}
