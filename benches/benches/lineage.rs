//! What it costs to look for what only one account can read: in requests, and in the events of a response.

#![allow(missing_docs, reason = "criterion's macros make a function without any")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prodex::exchange::contents;
use prodex::state::digest;
use serde_json::{Value, json};
use wire::responses::{EventKind, EventView, RequestView};

/// A conversation of so many steps: what a model said, and with it 2 KiB of encrypted reasoning, if any.
fn request(steps: usize, is_sealed: bool) -> Bytes {
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

fn requests(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built");
    let mut group = criterion.benchmark_group("items of a request");
    for (name, steps, is_sealed) in
        [("200 KiB, none", 100, false), ("400 KiB, 100 items", 100, true), ("4 KiB, one item", 1, true)]
    {
        let text = request(steps, is_sealed);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(contents(RequestView::new(black_box(&text)), &text)));
        });
    }
    group.finish();
}

fn events(criterion: &mut Criterion) {
    let item = |item: Value| json!({ "type": "response.output_item.done", "output_index": 0, "item": item });
    let delta = json!({ "type": "response.output_text.delta", "item_id": "m", "delta": "word" });
    let message = item(json!({ "type": "message", "content": [{ "text": "word ".repeat(400) }] }));
    let secret = item(json!({ "type": "reasoning", "encrypted_content": "Zm9v".repeat(512) }));
    let mut group = criterion.benchmark_group("items of an event");
    for (name, event) in [("a delta", delta), ("a message", message), ("2 KiB of reasoning", secret)] {
        // The type stands first, as the backend writes it.
        let text = event.to_string();
        let kind = event["type"].as_str().expect("an event has a type");
        let text = format!(r#"{{"type":"{kind}",{}"#, &text[1..]);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let view = EventView::new(black_box(text.as_bytes()));
                if view.kind != EventKind::ItemDone {
                    return 0;
                }
                view.encrypted_contents().map(|content| u64::from(digest(&content)[0])).sum::<u64>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, requests, events);
criterion_main!(benches);
