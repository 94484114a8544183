//! What a client sends and gets in a scenario, as a capture: the mock's journal with where it comes from.
//!
//! Nothing is judged here, and nothing is hidden: the client's own prompt texts stand in a capture until it
//! is scrubbed.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use mock_upstream::journal::{HowEnded, Kind};
use mock_upstream::{Config, Exchange, Mock};
use wire::capture::{Direction, Entry, ExchangeEnd, Meta, Record, Rest, StreamEnd, WebsocketClose};

use super::run::{Player, settled};
use super::{CompatError, Lane, Scenario, Session};
use crate::clients::Client;

/// Drives a client through a scenario and gives what was received and sent meanwhile.
///
/// # Errors
/// When the laboratory itself does not work. What the client makes of the scenario stands in the records.
pub async fn record(
    client: &Client,
    program: &Path,
    lane: &Lane<'_>,
    scenario: &Scenario,
    patience: Duration,
) -> Result<Vec<Record>, CompatError> {
    let mut player = Player::begin(client, program, lane, scenario, patience).await?;
    while player.step().await? {}
    let exchanges = settled(lane.mock, player.begun, patience).await;
    Ok(capture(client, lane.mock, &exchanges, lane.mode.name(), scenario.name))
}

/// Drives a client of another kind through a session and gives what was received and sent meanwhile.
///
/// # Errors
/// When the laboratory itself does not work. What the client makes of the session stands in the records.
pub async fn record_session(
    client: &Client,
    program: &Path,
    session: &Session,
    patience: Duration,
) -> Result<Vec<Record>, CompatError> {
    let mock = Mock::start(Config::script(session.script())).await?;
    session
        .play(program, mock.base_url(), patience)
        .await
        .map_err(|source| CompatError::Drive { client: client.clone(), source })?;
    let exchanges = settled(&mock, Duration::ZERO, patience).await;
    Ok(capture(client, &mock, &exchanges, session.mode, session.name))
}

/// The journal as a capture: where it comes from first, and of every exchange how far it was seen.
fn capture(client: &Client, mock: &Mock, exchanges: &[Exchange], mode: &str, scenario: &str) -> Vec<Record> {
    let first = exchanges.first().map_or(0, |exchange| exchange.id);
    let mut records = mock.journal().records(first.saturating_sub(1));
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    let rest = Rest::from_iter([
        ("mode".to_owned(), mode.into()),
        // The day alone: times are shifted when a capture is scrubbed, and this is to stay.
        ("recorded".to_owned(), now[..10].into()),
        ("made".to_owned(), "cargo xtask compat-clients --record".into()),
    ]);
    let meta = Meta {
        client: Some(client.kind.name().to_owned()),
        version: Some(client.version.clone()),
        scenario: Some(scenario.to_owned()),
        recorder: Some(concat!("mock-upstream ", env!("CARGO_PKG_VERSION")).to_owned()),
        rest,
    };
    let began = records.first().map_or_else(|| now.clone(), |record| record.ts.clone());
    records.insert(0, Record { ts: began, t_ms: 0.0, entry: Entry::Meta(meta) });
    let last = records.last().map_or(0.0, |record| record.t_ms);
    for exchange in exchanges {
        let id = exchange.id;
        let closed = exchange.messages.iter().any(|message| matches!(message.kind, Kind::Close(_)));
        let how = exchange.end.as_ref().map(|end| end.how);
        // To the microsecond, as the journal has it: a longer number may not be read back as it was.
        let milliseconds = |end: Duration| (end.as_secs_f64() * 1_000_000.0).round() / 1000.0;
        let t_ms = exchange.end.as_ref().map_or(last, |end| milliseconds(end.at));
        let mut push = |entry| records.push(Record { ts: now.clone(), t_ms, entry });
        if exchange.is_websocket() && !closed && matches!(how, Some(HowEnded::Reset | HowEnded::Fin)) {
            let direction = Direction::UpstreamToClient;
            push(Entry::WebsocketClose(WebsocketClose { direction, id, code: 1006, reason: String::new() }));
        }
        let partial = how.is_none();
        let reason = partial.then(|| "the exchange had not ended when the client had".to_owned());
        let unanswered = match how {
            Some(HowEnded::Reset) => Some(StreamEnd::Reset),
            Some(HowEnded::Fin) => Some(StreamEnd::Fin),
            Some(HowEnded::Hang) => Some(StreamEnd::Hang),
            Some(HowEnded::Complete | HowEnded::ClientGone) | None => None,
        };
        let unanswered = unanswered.filter(|_| exchange.answer.is_none());
        push(Entry::ExchangeEnd(ExchangeEnd { id, partial, reason, unanswered }));
    }
    records
}

/// Writes a capture that only its owner can read.
///
/// # Errors
/// When the file cannot be written.
pub fn write_capture(path: &Path, records: &[Record]) -> Result<(), CompatError> {
    let write = || -> std::io::Result<()> {
        let mut text = Vec::new();
        for record in records {
            serde_json::to_writer(&mut text, record)?;
            text.push(b'\n');
        }
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&text)
    };
    write().map_err(|source| CompatError::Write { path: path.to_owned(), source })
}
