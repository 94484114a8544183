//! The compatibility run, with a program in the place of the client that behaves and one that does not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::capture::{Options, load};
use harness::clients::Client;
use harness::clients::codex::{Endpoint, Mode, Reach};
use harness::compat::{
    Lane, Report, Runner, Scenario, Upstream, Verdict, faults, record, scenarios, write_capture,
};
use wire::capture::{Exchange, StreamEnd, exchanges};

use crate::script;

/// A client of the custom mode: one POST with `curl`, and the answer as the client says it.
const HONEST: &str = r#"
for word in "$@"; do
  case "$word" in model_providers.lab.base_url=*) url=$(echo "${word#*=}" | tr -d '"');; esac
  prompt="$word"
done
echo '{"type":"thread.started","thread_id":"t1"}'
text=$(curl -s "$url/responses" -H "authorization: Bearer $LABORATORY_KEY" -H 'thread-id: t1' \
  -d "{\"input\":[{\"type\":\"message\",\"role\":\"user\",\"content\":\"$prompt\"}]}" |
  sed -n 's/.*"type":"response.output_text.done".*"text":"\([^"]*\)".*/\1/p')
echo "{\"type\":\"item.completed\",\"item\":{\"type\":\"agent_message\",\"text\":\"$text\"}}"
"#;

/// One that says the right thing and did nothing for it, but for what it should not have done.
const LIAR: &str = r#"
echo '{"type":"thread.started","thread_id":"t1"}'
echo '{"type":"item.completed","item":{"type":"agent_message","text":"The answer is forty-two."}}'
curl -s -x "$HTTP_PROXY" http://example.invalid/ > /dev/null
sleep 65 > /dev/null 2>&1 &
"#;

fn simple() -> Vec<Scenario> {
    scenarios().into_iter().filter(|scenario| scenario.name == "simple").collect()
}

async fn run(program: PathBuf) -> Report {
    let upstream = Upstream::start(Vec::new()).await.unwrap();
    let mode = Mode::Custom;
    let reach = Reach::Endpoint(Endpoint::at(upstream.plain.base_url(), None));
    let lane = Lane { mode, mock: &upstream.plain, reach };
    let client: Client = "codex@0.0.1".parse().unwrap();
    let runner = Runner::new("no proxy", vec![lane]).patience(Duration::from_secs(10));
    let mut told = 0;
    let report = runner.run(&[(client, program)], &simple(), |_| told += 1).await.unwrap();
    assert_eq!(told, report.results.len());
    report
}

#[tokio::test]
async fn an_honest_client_passes_with_its_evidence() {
    let directory = tempfile::tempdir().unwrap();
    let report = run(script::write(directory.path(), "codex", HONEST)).await;
    assert!(report.passed(), "{}", report.table());
    let result = &report.results[0];
    assert_eq!((result.evidence.over_http, result.evidence.over_websocket), (1, 0));
    assert_eq!(result.evidence.owners["t1"].iter().collect::<Vec<_>>(), ["acct-client"]);
    assert!(result.checks.len() >= 9);
}

#[tokio::test]
async fn a_client_that_only_says_the_right_thing_does_not_pass() {
    let directory = tempfile::tempdir().unwrap();
    let report = run(script::write(directory.path(), "codex", LIAR)).await;
    let result = &report.results[0];
    assert_eq!(result.verdict, Verdict::Fail);
    let failed: Vec<&str> =
        result.checks.iter().filter(|check| !check.ok).map(|check| check.what.as_str()).collect();
    assert_eq!(
        failed,
        [
            "1 model requests served, all over SSE",
            "a request carries a question",
            "no request to any other address",
            "nothing left behind",
        ]
    );
}

#[tokio::test]
async fn every_mode_has_its_way_to_a_mock() {
    let upstream = Upstream::start(Vec::new()).await.unwrap();
    let lanes = upstream.direct();
    let modes: Vec<Mode> = lanes.iter().map(|lane| lane.mode).collect();
    assert_eq!(modes, Mode::ALL);
    for lane in &lanes {
        let Reach::Endpoint(endpoint) = &lane.reach else { panic!("{lane:?} is told no endpoint") };
        assert_eq!(endpoint.chatgpt.starts_with("https:"), lane.mode.needs_tls());
        assert_eq!(endpoint.ca_cert.is_some(), lane.mode.needs_tls());
    }
    assert!(Path::new(&upstream.certificate()).is_file());
}

/// What a capture of this scenario holds, when it is written and read again.
async fn recorded(scenario: &Scenario) -> Vec<Exchange> {
    let directory = tempfile::tempdir().unwrap();
    let program = script::write(directory.path(), "codex", HONEST);
    let upstream = Upstream::start(Vec::new()).await.unwrap();
    let reach = Reach::Endpoint(Endpoint::at(upstream.plain.base_url(), None));
    let lane = Lane { mode: Mode::Custom, mock: &upstream.plain, reach };
    let client: Client = "codex@0.0.1".parse().unwrap();
    let records = record(&client, &program, &lane, scenario, Duration::from_secs(10)).await.unwrap();
    let path = directory.path().join("a.jsonl");
    write_capture(&path, &records).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let loaded = load(&path, Options::default()).unwrap();
    assert_eq!(loaded.records, records, "what is written is what is read");
    exchanges(&loaded.records).unwrap()
}

#[tokio::test]
async fn a_recording_holds_what_a_client_sent_and_got() {
    let exchanges = recorded(&simple()[0]).await;
    let [exchange] = &exchanges[..] else { panic!("{exchanges:?}") };
    assert_eq!((exchange.request.url.as_str(), &exchange.missing), ("/v1/responses", &None));
    assert!(String::from_utf8_lossy(exchange.body()).contains("a question"));
    let answer = exchange.answer.as_ref().unwrap();
    assert_eq!((answer.status, answer.end, answer.is_stream), (200, StreamEnd::Eof, true));
    let sent: u64 = answer.writes.iter().map(|(_, length)| length).sum();
    assert_eq!(sent, answer.body.len() as u64);
}

#[tokio::test]
async fn a_recording_tells_how_an_exchange_without_an_answer_ended() {
    for (name, end) in [("reset-before-head", StreamEnd::Reset), ("fin-before-head", StreamEnd::Fin)] {
        let fault = faults().into_iter().find(|fault| fault.scenario.name == name).unwrap();
        let exchanges = recorded(&fault.scenario).await;
        let [exchange] = &exchanges[..] else { panic!("{exchanges:?}") };
        assert_eq!((exchange.unanswered, &exchange.answer, &exchange.missing), (Some(end), &None, &None));
    }
}
