//! Looking for what only one account can read: in requests, and in the events of a response.

use std::hint::black_box;

use bytes::Bytes;
use prodex::exchange::contents;
use prodex::state::digest;
use serde_json::{Value, json};
use wire::responses::{EventKind, EventView, RequestView};

use super::runtime;
use crate::case::{Amount, Case, Prepared};

pub(super) const CASES: &[Case] = &[
    Case { name: "lineage/request-without", prepare: || request(100, false) },
    Case { name: "lineage/request-with-100", prepare: || request(100, true) },
    Case { name: "lineage/short-request-with-one", prepare: || request(1, true) },
    Case { name: "lineage/delta", prepare: || event(&delta()) },
    Case { name: "lineage/reasoning-of-2-kib", prepare: || event(&reasoning()) },
];

/// A conversation of so many steps: what a model said, and with it 2 KiB of encrypted reasoning, if any.
fn conversation(steps: usize, is_sealed: bool) -> Bytes {
    let step = |n: usize| -> Vec<Value> {
        let text = json!({ "type": "message", "role": "assistant", "content": [
            { "type": "output_text", "text": "word ".repeat(400) }] });
        let secret = json!({ "type": "reasoning", "id": format!("rs_{n}"), "summary": [],
            "encrypted_content": format!("gAAAA{n:05}{}", "Zm9v".repeat(510)) });
        [Some(secret).filter(|_| is_sealed), Some(text)].into_iter().flatten().collect()
    };
    let input: Vec<Value> = (0..steps).flat_map(step).collect();
    json!({ "model": "gpt-5.5", "stream": true, "input": input }).to_string().into()
}

fn request(steps: usize, is_sealed: bool) -> Prepared {
    let text = conversation(steps, is_sealed);
    let runtime = runtime();
    Prepared::new(Amount::Bytes(text.len() as u64), move || {
        runtime.block_on(contents(RequestView::new(black_box(&text)), &text))
    })
}

fn delta() -> Value {
    json!({ "type": "response.output_text.delta", "item_id": "m", "delta": "word" })
}

fn reasoning() -> Value {
    let item = json!({ "type": "reasoning", "encrypted_content": "Zm9v".repeat(512) });
    json!({ "type": "response.output_item.done", "output_index": 0, "item": item })
}

fn event(event: &Value) -> Prepared {
    // The type stands first, as the backend writes it.
    let kind = event["type"].as_str().expect("an event has a type");
    let text = format!(r#"{{"type":"{kind}",{}"#, &event.to_string()[1..]);
    Prepared::new(Amount::One, move || {
        let view = EventView::new(black_box(text.as_bytes()));
        if view.kind != EventKind::ItemDone {
            return 0;
        }
        view.encrypted_contents().map(|content| u64::from(digest(&content)[0])).sum::<u64>()
    })
}
