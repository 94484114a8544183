//! Requests and whole answers: targets, methods, fields, lengths, encodings, sizes, and when they begin.

use mock_upstream::playback::{ANSWER_AFTER, HALF_CLOSE, MAX_GAP};
use wire::capture::{Answer, StreamEnd};

use super::{Made as _, Maker, exchange, fields, whole};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

pub(super) fn add(maker: &mut Maker<'_>) {
    bodies(maker);
    targets(maker);
    heads(maker);
    encodings(maker);
    continuation(maker);
    uploads(maker);
    let slow = maker.settings.slow;
    let mut answer = whole(200, JSON, r#"{"late":true}"#);
    answer.at = slow.as_secs_f64() * 1000.0;
    answer.writes[0].0 = answer.at;
    let millis = u64::try_from(slow.as_millis()).unwrap_or(u64::MAX);
    let exchange = maker.post("slow-first-byte", "{}").answered(answer).with(MAX_GAP, millis);
    maker.one("slow-first-byte", exchange);
}

/// JSON as nobody's serialiser writes it.
const ODD_JSON: &str = "{ \"b\" : 1.0e2 ,\"a\":\"\\u00e9\\/ \u{e9}\",\r\n\t\"a\": null , \"z\":[ ] }";

fn bodies(maker: &mut Maker<'_>) {
    let odd = maker.post("odd-json", ODD_JSON).answered(whole(200, JSON, ODD_JSON));
    maker.one("odd-json", odd);
    let big = b"0123456789abcde\n".repeat(maker.settings.big / 16);
    let upload = maker.post("big-request", big.clone()).answered(whole(200, JSON, "{}"));
    maker.one("big-request", upload);
    let download = maker.post("big-response", "{}").answered(whole(200, JSON, big));
    maker.one("big-response", download);
    let mut until_close =
        whole(200, &[("content-type", "text/plain"), ("connection", "close")], "to the end");
    until_close.headers.retain(|(name, _)| name != "content-length");
    let until_close = maker.post("until-close", "{}").answered(until_close);
    maker.one("until-close", until_close);
    for (name, status) in [("no-content", 204), ("not-modified", 304)] {
        let answer = Answer { headers: fields(&[("x-kept", "1")]), ..whole(status, &[], "") };
        let exchange = maker.get(name).answered(answer);
        maker.one(name, exchange);
    }
}

fn targets(maker: &mut Maker<'_>) {
    let path = maker.settings.path.clone();
    let mut odd = vec![("query", format!("{path}?a=b+c&a=%20%2f&&d=%C3%A9&e"))];
    if maker.settings.odd {
        odd.push(("escaped-slash", format!("{path}/a%2Fb%2fc?x")));
        odd.push(("double-slash", format!("{path}//a//b")));
        odd.push(("bare-query", format!("{path}/bare?")));
    }
    for (name, target) in odd {
        let mut exchange = maker.post(name, "{}").answered(whole(200, JSON, "{}"));
        exchange.request.url = target;
        maker.one(name, exchange);
    }
    let methods: &[&str] = if maker.settings.odd { &["PUT", "DELETE", "Report"] } else { &[] };
    for method in methods {
        let name = format!("method-{method}");
        let mut exchange = maker.post(&name, "{}").answered(whole(200, JSON, "{}"));
        exchange.request.method = (*method).into();
        maker.one(&name, exchange);
    }
    if !maker.settings.odd {
        return;
    }
    let mut head = maker.get("method-HEAD").answered(whole(200, JSON, "not sent"));
    head.request.method = "HEAD".into();
    maker.one("method-HEAD", head);
}

fn heads(maker: &mut Maker<'_>) {
    let duplicates = [
        ("content-type", "application/json"),
        ("Set-Cookie", "a=1; Path=/"),
        ("x-Mixed-CASE", "Value"),
        ("Set-Cookie", "b=2; Path=/"),
        ("warning", "199 - \"one\""),
        ("x-codex-primary-used-percent", "12.5"),
        ("warning", "199 - \"two, with a comma\""),
        ("x-empty", ""),
    ];
    let exchange = maker.post("duplicates", "{}").field("cookie", "of=the-client");
    let exchange = exchange.answered(whole(200, &duplicates, "{}"));
    maker.one("duplicates", exchange);
    // Three on one connection: what is kept open serves them all.
    let first = maker.post("kept", r#"{"number":1}"#).answered(whole(200, JSON, "{\"is\":1}"));
    let second = maker.post("kept", r#"{"number":2}"#).following(1).answered(whole(200, JSON, "{\"is\":2}"));
    let third = maker.post("kept", r#"{"number":1}"#).following(2).answered(whole(200, JSON, "{\"is\":3}"));
    maker.add("kept", vec![first, second, third]);
}

/// `hello, hello, hello, hello` as each coding has it.
const ENCODED: &[(&str, &[u8])] = &[
    (
        "gzip",
        // Stored, so that anybody's decoder of a few lines can undo it.
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x01\x0c\x00\xf3\xffhello, hello\xff\xc5\xcc\xf3\x0c\x00\x00\x00",
    ),
    // A skippable frame in front, which re-coding would lose.
    ("zstd", b"\x50\x2a\x4d\x18\x02\x00\x00\x00hi\x28\xb5\x2f\xfd\x20\x0c\x61\x00\x00hello, hello"),
    ("br", b"\x8b\x05\x80hello, hello\x03"),
];

fn encodings(maker: &mut Maker<'_>) {
    for (coding, bytes) in ENCODED {
        let name = format!("encoded-{coding}");
        let headers = [("content-type", "application/json"), ("content-encoding", *coding)];
        let exchange = maker.post(&name, *bytes).field("content-encoding", coding);
        maker.one(&name, exchange.answered(whole(200, &headers, *bytes)));
    }
}

/// Conversations of two turns each, the second of which is its first's account's.
fn continuation(maker: &mut Maker<'_>) {
    for number in 1..=4 {
        let name = format!("continuation-{number}");
        let id = format!("resp_{name}");
        let state = format!("turn-state-{name}");
        let headers = [("content-type", "application/json"), ("x-codex-turn-state", state.as_str())];
        let first = format!(r#"{{"id":"{id}","output":[]}}"#);
        let first =
            maker.post(&name, r#"{"model":"gpt-5.5","input":[]}"#).answered(whole(200, &headers, first));
        let body = format!(r#"{{"model":"gpt-5.5","previous_response_id":"{id}","input":[]}}"#);
        let second = maker.post(&name, body).field("x-codex-turn-state", &state).following(1);
        let second = second.answered(whole(200, JSON, format!(r#"{{"id":"{id}_2","output":[]}}"#)));
        maker.add(&name, vec![first, second]);
    }
}

fn uploads(maker: &mut Maker<'_>) {
    let body: Vec<u8> = (0..400_000_u32).map(|at| b'a' + (at % 23) as u8).collect();
    let mut chunked = maker.post("chunked-upload", body.clone()).answered(whole(200, JSON, "{}"));
    chunked.request.headers.retain(|(name, _)| name != "content-length");
    let mut chunked = chunked.field("transfer-encoding", "chunked");
    chunked.request.writes = vec![(0.0, 1), (1.0, 70_000), (2.0, 329_999)];
    maker.one("chunked-upload", chunked);
    let refusal = [("content-type", "application/json"), ("connection", "close")];
    let refusal = whole(413, &refusal, r#"{"error":"too large"}"#);
    let mut early = maker.post("early-response", body.clone()).answered(refusal).with(ANSWER_AFTER, 1000);
    early.request.writes = vec![(0.0, 2000), (5.0, 398_000)];
    maker.one("early-response", early);
    let mut broken_off = maker.post("left-in-upload", body[..1000].to_vec()).leaves(1.0);
    for (name, value) in &mut broken_off.request.headers {
        if name == "content-length" {
            *value = body.len().to_string();
        }
    }
    maker.one("left-in-upload", broken_off);
    let half_close = maker.post("half-close", "{}").answered(whole(200, JSON, r#"{"half":"closed"}"#));
    maker.one("half-close", half_close.with(HALF_CLOSE, true));
    for (name, seen) in [("left-before-head", None), ("left-in-body", Some(6))] {
        let mut exchange = maker.post(name, "{}").leaves(50.0);
        if let Some(seen) = seen {
            let mut answer = whole(200, JSON, "begun, ");
            answer.headers = fields(&[("transfer-encoding", "chunked")]);
            answer.body.truncate(seen);
            answer.writes = vec![(1.0, seen as u64)];
            answer.end = StreamEnd::ClientGone;
            exchange = exchange.answered(answer);
        }
        maker.one(name, exchange);
    }
    let bare = exchange("OPTIONS", &maker.target("options"), fields(&[("Host", "localhost")]), Vec::new());
    if maker.settings.odd {
        maker.one("options", bare.answered(whole(200, JSON, "{}")));
    }
}
