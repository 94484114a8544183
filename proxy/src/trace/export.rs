//! Sends spans that have ended to a collector, in batches, beside everything else.
//!
//! Requests put a span into a bounded queue and go on; what finds no room there, or is not taken by the collector,
//! is counted, and the run log tells how many those were. The JSON is that of
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use wire::run_event::RunEvent;

use super::spans::TARGET;
use crate::control::Control;

/// How many spans may wait.
const QUEUE: usize = 4096;

/// Most spans of one message to the collector.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// Where spans of requests go.
#[derive(Debug)]
pub struct Exporter {
    ending: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Exporter {
    /// Begins to send spans to the collector of the settings, if there is one. Once in a process.
    #[must_use]
    pub fn start(control: &Arc<Control>) -> Option<Self> {
        let endpoint = control.config.otlp_endpoint.as_ref()?.join("/v1/traces").to_string();
        let (sender, receiver) = channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let layer = Collecting { sender, dropped: Arc::clone(&dropped) };
        // There is one already where two proxies are in one process, as in a test: that one gets the spans.
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).ok()?;
        let ending = CancellationToken::new();
        let sending = send(Arc::clone(control), endpoint, receiver, dropped, ending.clone());
        Some(Self { ending, task: tokio::spawn(sending) })
    }

    /// Sends what is waiting, but for no longer than `limit`.
    pub async fn end(self, limit: Duration) {
        self.ending.cancel();
        // What is not sent by then is lost, as spans may be.
        let _ = tokio::time::timeout(limit, self.task).await;
    }
}

async fn send(
    control: Arc<Control>,
    endpoint: String,
    mut receiver: Receiver<Value>,
    dropped: Arc<AtomicU64>,
    ending: CancellationToken,
) {
    let mut is_last = false;
    while !is_last {
        let mut batch = Vec::new();
        tokio::select! {
            count = receiver.recv_many(&mut batch, BATCH) => is_last = count == 0,
            () = ending.cancelled() => is_last = true,
        }
        // While few come there is one message a second.
        let gathered = tokio::time::Instant::now() + GATHER;
        while batch.len() < BATCH && !is_last {
            let room = BATCH - batch.len();
            tokio::select! {
                more = tokio::time::timeout_at(gathered, receiver.recv_many(&mut batch, room)) => {
                    if !matches!(more, Ok(1..)) {
                        break;
                    }
                }
                () = ending.cancelled() => is_last = true,
            }
        }
        if is_last {
            while let Ok(span) = receiver.try_recv() {
                batch.push(span);
            }
        }
        let mut error = "there was no room for them on their way".to_owned();
        let mut lost = dropped.swap(0, Ordering::Relaxed);
        let count = batch.len() as u64;
        if count > 0
            && let Err(problem) = post(&control, &endpoint, batch).await
        {
            lost += count;
            error = problem;
        }
        if lost > 0 {
            control.log.record(&RunEvent::SpansDropped { spans: lost, error: error.into() });
        }
    }
}

async fn post(control: &Control, endpoint: &str, spans: Vec<Value>) -> Result<(), String> {
    let service = json!([
        { "key": "service.name", "value": { "stringValue": "prodex" } },
        { "key": "service.version", "value": { "stringValue": env!("CARGO_PKG_VERSION") } },
        { "key": "process.pid", "value": { "intValue": std::process::id().to_string() } },
    ]);
    let message = json!({ "resourceSpans": [{
        "resource": { "attributes": service },
        "scopeSpans": [{ "scope": { "name": "prodex", "version": env!("CARGO_PKG_VERSION") }, "spans": spans }],
    }] });
    let sent = control.client()?.post(endpoint).json(&message).send().await;
    let response = sent.map_err(|error| crate::control::describe(&error.without_url()))?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("the collector answered {}", status.as_u16())) }
}

/// Puts spans that end into the queue.
struct Collecting {
    sender: Sender<Value>,
    dropped: Arc<AtomicU64>,
}

/// A span that has not ended.
struct Open {
    trace: String,
    id: String,
    parent: Option<String>,
    name: &'static str,
    begun: SystemTime,
    fields: Fields,
}

/// What is known of a span.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!({ "doubleValue": value }));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!({ "intValue": value.to_string() }));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!({ "intValue": value.to_string() }));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!({ "stringValue": value }));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, json!({ "stringValue": format!("{value:?}") }));
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        // A field that is a keyword of the language has a mark before its last word.
        self.0.insert(field.name().replace("r#", ""), value);
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(|value| value["stringValue"].as_str()).unwrap_or_default()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collecting {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Decided once for each place: those of libraries cost nothing from then on.
        if metadata.target() == TARGET { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == TARGET
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let parent = span.parent();
        let inherited = parent.as_ref().and_then(|parent| {
            parent.extensions().get::<Open>().map(|open| (open.trace.clone(), open.id.clone()))
        });
        let (trace, parent) = match inherited {
            Some((trace, parent)) => (trace, Some(parent)),
            None => (random::<16>(), None),
        };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let name = attributes.metadata().name();
        let open = Open { trace, id: random::<8>(), parent, name, begun: SystemTime::now(), fields };
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            values.record(&mut open.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<Open>() else { return };
        if self.sender.try_send(open.end()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Open {
    /// The span as the collector takes it, ended now.
    fn end(self) -> Value {
        // Of a server and of a client, in the words of the protocol.
        let (kind, name) = match self.name {
            "request" => {
                let Fields(fields) = &self.fields;
                debug_assert!(fields.contains_key("http.route"));
                (2, format!("{} {}", self.fields.text("http.request.method"), self.fields.text("http.route")))
            }
            _ => (3, format!("attempt {}", self.fields.text("prodex.profile"))),
        };
        let is_error = self.fields.0.contains_key("error.type");
        let attributes = self.fields.0.into_iter().map(|(key, value)| json!({ "key": key, "value": value }));
        json!({
            "traceId": self.trace,
            "spanId": self.id,
            "parentSpanId": self.parent.unwrap_or_default(),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": nanoseconds(self.begun),
            "endTimeUnixNano": nanoseconds(SystemTime::now().max(self.begun)),
            "attributes": attributes.collect::<Vec<_>>(),
            "status": { "code": if is_error { 2 } else { 0 } },
        })
    }
}

fn nanoseconds(at: SystemTime) -> String {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// So many random bytes in hexadecimal digits.
fn random<const N: usize>() -> String {
    let mut bytes = [0; N];
    // Without randomness the id is all zeros, which a collector does not take; nothing depends on it.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
