//! Asks and replies as text, and what must hold of both.

use super::*;

const SHAPE: Shape =
    Shape { events: 3, bytes: 40, line_end: LineEnd::CrLf, in_one_write: false, content: Content::Answer };

fn values() -> Values {
    Values {
        nonce: *b"0123456789abcdef0123456789abcdef",
        account: account_field(b"load-001"),
        received: time_field(17),
    }
}

#[test]
fn an_ask_is_found_as_it_was_written() {
    for fault in Fault::ALL {
        let ask =
            Ask { fault, rate: 5_000, gap: Duration::from_millis(7), ..Ask::new(SHAPE, values().nonce) };
        let body = format!(r#"{{"model":"load","instructions":"{}","input":[]}}"#, ask.text());
        assert_eq!(Ask::find(body.as_bytes()), Some(ask));
        let cut_off = body.find("0123").unwrap() + NONCE - 1;
        assert_eq!(Ask::find(&body.as_bytes()[..cut_off]), None);
    }
    for in_one_write in [false, true] {
        let shape = Shape { in_one_write, content: Content::Compaction, ..SHAPE };
        let ask = Ask::new(shape, values().nonce);
        assert_eq!(Ask::find(ask.text().as_bytes()), Some(ask));
    }
    let huge = Shape { events: MAX_EVENTS, bytes: MAX_BYTES, ..SHAPE };
    assert_eq!(Ask::find(Ask::new(huge, values().nonce).text().as_bytes()), None);
}

#[test]
fn a_rendered_stream_is_events_of_valid_json() {
    let mut out = Vec::new();
    let template = Template::sse(SHAPE);
    template.render(0, template.ends.len(), &values(), &time_field(42), &mut out);
    let mut decoder = wire::sse::Decoder::default();
    let mut kinds = Vec::new();
    let each = |event: wire::sse::Event<'_>| {
        let json: serde_json::Value = serde_json::from_str(&event.text()).unwrap();
        assert_eq!(json["type"], event.kind().as_ref());
        assert_eq!(json["sequence_number"], kinds.len());
        assert_eq!(json["sent"], "0000000000000000042");
        kinds.push(event.kind().into_owned());
    };
    decoder.feed(&out, each).unwrap();
    assert_eq!((kinds.len(), kinds[4].as_str()), (5, "response.completed"));
    assert!(!out.contains(&0));
}

#[test]
fn a_compaction_is_one_sealed_item_whatever_the_route() {
    let shape = Shape { content: Content::Compaction, ..SHAPE };
    let template = Template::messages(shape);
    assert_eq!((template.ends.len(), Template::sse(shape).ends.len()), (3, 3));
    let mut out = Vec::new();
    template.render(1, 2, &values(), &time_field(42), &mut out);
    let event: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&event["type"], &event["output_index"]), (&"response.output_item.done".into(), &0.into()));
    let (mut out, unary) = (Vec::new(), Template::unary(SHAPE.bytes));
    unary.render(0, 1, &values(), &time_field(42), &mut out);
    let unary: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(event["item"], unary["output"][0]);
    assert_eq!(event["item"]["type"], "compaction");
    let mut out = Vec::new();
    template.render(2, 3, &values(), &time_field(42), &mut out);
    let last: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&last["type"], &last["sequence_number"]), (&"response.completed".into(), &2.into()));
}

#[test]
fn messages_and_unary_replies_are_json() {
    let template = Template::messages(SHAPE);
    for event in 0..template.ends.len() {
        let mut out = Vec::new();
        template.render(event, event + 1, &values(), &time_field(42), &mut out);
        serde_json::from_slice::<serde_json::Value>(&out).unwrap();
    }
    let (mut out, template) = (Vec::new(), Template::unary(100));
    template.render(0, 1, &values(), &time_field(42), &mut out);
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["id"], "resp_0123456789abcdef0123456789abcdef_load-001........");
}

#[test]
fn a_fault_strikes_at_its_rate_and_each_account_by_itself() {
    let struck = |account: &[u8]| -> Vec<bool> {
        let nonce = |number: u32| *format!("{number:032x}").as_bytes().first_chunk().unwrap();
        let ask = |number| Ask { fault: Fault::Cut, rate: 100_000, ..Ask::new(SHAPE, nonce(number)) };
        (0..10_000).map(|number| ask(number).is_struck(account)).collect()
    };
    let (one, other) = (struck(b"a"), struck(b"b"));
    let count = one.iter().filter(|struck| **struck).count();
    assert!((900..1_100).contains(&count), "{count}");
    assert_ne!(one, other);
}

#[test]
fn a_time_is_read_as_it_was_written() {
    for time in [0, 1, 1_234_567_890_123_456_789] {
        assert_eq!(time_of(&time_field(time)), Some(time));
    }
    assert!(now() > 0);
}
