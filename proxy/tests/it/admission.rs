//! Who is in flight, who waits for a place, and who gives way: seen by the clients that do.

use mock_upstream::fault::{End, Fault};
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{CallName, Http, Rule, Script, Turn};
use mock_upstream::{Exchange, Mock};
use serde_json::json;

use crate::connection::{CODEX, Connection, TURN, begin_turn, head, request, turn, user};
use crate::http2::Http2;
use crate::rig::{LIMIT, Proxy, Setting, asked, until};
use crate::selecting::why;
use crate::socket::{Socket, create, said};

/// With a token of its own: without one the upstream is asked without any.
const LOGGED_IN: &str = "user-agent: codex_exec/0.169.0 (Linux)\r\nauthorization: Bearer mine\r\n";

const MODELS: &str = "/backend-api/codex/models?client_version=0.169.0";

/// What every client sees of the output.
const OUTPUT: &str = "output_item.added\"";

/// Turns with the text `hang` do so once they have put something out.
fn hanging() -> Script {
    Script::rules([Rule::new(Turn::text("a")).user_text("hang").fault(Fault::after_events(5, End::Hang))])
}

/// Room for one model call, and one beside it.
fn narrow() -> Setting {
    Setting::new(&["one"], hanging()).set("PRODEX_MAX_ACTIVE", "2")
}

/// A turn that is in flight until it is dropped.
async fn in_flight(proxy: &Proxy) -> Connection {
    let mut client = begin_turn(proxy, "", &user("hang")).await;
    client.read_through(OUTPUT).await;
    client
}

/// Waits until so many have said that they wait.
async fn waiting(proxy: &Proxy, count: usize) {
    let event = "runtime_proxy_admission_wait_started";
    until("the wait", || proxy.log().events(event).count() == count).await;
}

#[tokio::test]
async fn a_request_waits_for_a_place_and_gets_it() {
    let (_mock, proxy) = narrow().start().await;
    let first = in_flight(&proxy).await;
    let mut second = begin_turn(&proxy, "", &user("hi")).await;
    waiting(&proxy, 1).await;
    drop(first);
    assert_eq!(second.response().await.said(), "Hello from the mock.");
    drop(second);
    let log = proxy.stop().await;
    let started = log.events("runtime_proxy_admission_wait_started").next().unwrap();
    assert_eq!((&started.fields["lane"], &started.fields["position"]), (&json!("responses"), &json!(0)));
    let recovered = log.events("runtime_proxy_admission_wait_recovered").next().unwrap();
    assert!(recovered.fields["ms"].as_u64().unwrap() >= 250);
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let (mock, proxy) = narrow().set("PRODEX_ADMISSION_WAIT", "300ms").start().await;
    let first = in_flight(&proxy).await;
    let refused = turn(&proxy, "", &user("hi")).await;
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    let message =
        "prodex: 1 model calls are in flight, and 1 may be (max_active, less max_standard); none ended";
    assert!(refused.text().contains(message), "{}", refused.text());
    assert_eq!(asked(&mock).len(), 1);
    drop(first);
    let log = proxy.stop().await;
    for event in ["runtime_proxy_admission_wait_exhausted", "runtime_proxy_active_limit_reached"] {
        assert_eq!(log.events(event).count(), 1, "{event}");
    }
}

#[tokio::test]
async fn whoever_leaves_while_it_waits_leaves_the_queue() {
    let (mock, proxy) = narrow().set("PRODEX_MAX_WAITING", "1").start().await;
    let first = in_flight(&proxy).await;
    // More than is read ahead of a place: the end is noticed behind what nobody reads.
    let mut impatient = proxy.connect().await;
    let body = user(&"x".repeat(120_000));
    impatient.send(head(&proxy, "POST", TURN, CODEX, body.len()) + &body).await;
    waiting(&proxy, 1).await;
    assert_eq!(turn(&proxy, "", &user("hi")).await.status(), 503, "one may wait");
    drop(impatient);
    let mut patient = begin_turn(&proxy, "", &user("hi")).await;
    let waits = async {
        loop {
            tokio::select! {
                // It came before the other had left.
                refused = patient.response() => assert_eq!(refused.status(), 503),
                () = waiting(&proxy, 2) => return,
            }
            patient = begin_turn(&proxy, "", &user("hi")).await;
        }
    };
    tokio::time::timeout(LIMIT, waits).await.expect("room in the queue");
    drop(first);
    assert_eq!(patient.response().await.status(), 200);
    assert_eq!(asked(&mock).len(), 2, "nobody asked for the one that left");
}

#[tokio::test]
async fn over_http2_a_stream_that_is_reset_leaves_the_queue() {
    let (_mock, proxy) = narrow().argument("--tls").start().await;
    let target = format!("{}{TURN}", proxy.prefix());
    let fields = [("user-agent", "codex_exec/0.169.0")];
    let (mut one, mut two) = (Http2::open(&proxy).await, Http2::open(&proxy).await);
    let mut first = one.send("POST", &target, &fields, user("hang")).await.unwrap();
    crate::http2::data(first.body_mut()).await.unwrap().unwrap();
    let waits = async {
        tokio::select! {
            _ = two.send("POST", &target, &fields, user("hi")) => panic!("there is no place"),
            () = waiting(&proxy, 1) => {}
        }
    };
    waits.await;
    // The stream has been dropped, and the next to wait gets the place.
    let third = async {
        let second = two.send("POST", &target, &fields, user("hi"));
        let release = async {
            waiting(&proxy, 2).await;
            drop(first);
        };
        tokio::join!(second, release).0.unwrap()
    };
    assert_eq!(third.await.status().as_u16(), 200);
    drop((one, two));
    let log = proxy.stop().await;
    let waited: Vec<_> = log.events("runtime_proxy_admission_wait_started").collect();
    assert!(waited.iter().all(|line| line.fields["waiting"] == 1), "{waited:?}");
}

#[tokio::test]
async fn a_conversation_that_goes_on_is_not_refused_for_a_fresh_one() {
    let (_mock, proxy) = narrow().set("PRODEX_MAX_WAITING", "1").start().await;
    turn(&proxy, "session-id: s\r\n", &user("hi")).await;
    let first = in_flight(&proxy).await;
    let mut fresh = begin_turn(&proxy, "session-id: new\r\n", &user("hi")).await;
    waiting(&proxy, 1).await;
    let mut continuing = begin_turn(&proxy, "session-id: s\r\n", &user("on")).await;
    let displaced = fresh.response().await;
    assert_eq!(displaced.status(), 503);
    assert!(displaced.text().contains("a conversation that goes on"), "{}", displaced.text());
    let refused = turn(&proxy, "session-id: other\r\n", &user("hi")).await;
    assert!(refused.text().contains("max_waiting"), "{}", refused.text());
    drop(first);
    assert_eq!(continuing.response().await.status(), 200);
    drop((fresh, continuing));
    let log = proxy.stop().await;
    let overloaded: Vec<_> = log.events("runtime_proxy_queue_overloaded").collect();
    let displaced: Vec<_> = overloaded.iter().map(|line| line.fields["displaced"].clone()).collect();
    assert_eq!(displaced, [true, false]);
}

#[tokio::test]
async fn compactions_give_way_to_turns() {
    let (_mock, proxy) = narrow().start().await;
    let first = in_flight(&proxy).await;
    let mut second = begin_turn(&proxy, "", &user("hi")).await;
    waiting(&proxy, 1).await;
    let compact = format!("{TURN}/compact");
    let shed = request(&proxy, "POST", &compact, CODEX, user("hi").as_bytes()).await;
    assert_eq!(shed.status(), 503);
    assert!(shed.text().contains("compactions give way"), "{}", shed.text());
    drop(first);
    assert_eq!(second.response().await.status(), 200);
    assert_eq!(request(&proxy, "POST", &compact, CODEX, user("hi").as_bytes()).await.status(), 200);
    drop(second);
    assert_eq!(proxy.stop().await.events("compact_pressure_shed").count(), 1);
}

#[tokio::test]
async fn compactions_on_the_route_of_turns_give_way_as_well() {
    let (_mock, proxy) = narrow().start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    let first = in_flight(&proxy).await;
    let mut second = begin_turn(&proxy, "", &user("hi")).await;
    waiting(&proxy, 1).await;
    let kind = "x-codex-turn-metadata: {\"request_kind\":\"compaction\"}\r\n";
    let shed = turn(&proxy, kind, &user("hi")).await;
    assert!(shed.status() == 503 && shed.text().contains("compactions give way"), "{}", shed.text());
    let mut trigger = create("x");
    trigger["input"].as_array_mut().unwrap().push(json!({ "type": "compaction_trigger" }));
    let shed = socket.turn(&trigger).await;
    let message = shed[0]["error"]["message"].as_str().unwrap();
    assert!(shed[0]["status"] == 503 && message.contains("compactions give way"), "{message}");
    drop(first);
    assert_eq!(second.response().await.status(), 200);
    assert_eq!(turn(&proxy, kind, &user("hi")).await.status(), 200);
    assert_eq!(socket.turn(&trigger).await.last().unwrap()["type"], "response.completed");
    drop((second, socket));
    assert_eq!(proxy.stop().await.events("compact_pressure_shed").count(), 2);
}

#[tokio::test]
async fn turns_and_side_routes_have_places_of_their_own() {
    let slow = Rule::new(Http::json(200, json!({ "models": [] }))).call(CallName::Models).times(1);
    let script = hanging().rule(slow.fault(Fault::before_head(End::Hang)));
    let setting = Setting::new(&["one"], script).set("PRODEX_MAX_ACTIVE", "2");
    let (mock, proxy) = setting.set("PRODEX_ADMISSION_WAIT", "0s").start().await;
    let first = in_flight(&proxy).await;
    let mut models = proxy.connect().await;
    models.send(head(&proxy, "GET", MODELS, LOGGED_IN, 0)).await;
    let both = |all: &[Exchange]| all.iter().any(|exchange| exchange.call == CallName::Models);
    mock.journal().wait_for("the models", LIMIT, both).await.unwrap();
    assert_eq!(turn(&proxy, "", &user("hi")).await.status(), 503, "the turns' place is taken");
    let refused = request(&proxy, "GET", MODELS, LOGGED_IN, b"").await;
    assert!(refused.status() == 503 && refused.text().contains("max_standard"), "{}", refused.text());
    drop(first);
    until("the place to be free", || proxy.log().events("stream_complete").count() == 1).await;
    assert_eq!(turn(&proxy, "", &user("hi")).await.status(), 200, "a side route keeps no turn");
    drop(models);
}

/// Two accounts of which the first serves one request at a time, and has begun the conversation `s`.
async fn pair(limit: &str) -> (Mock, Proxy) {
    let setting = Setting::new(&["a", "b"], hanging()).set(limit, "1");
    let (mock, proxy) = setting.start().await;
    turn(&proxy, "session-id: s\r\n", &user("hi")).await;
    assert_eq!(asked(&mock), ["a"]);
    (mock, proxy)
}

#[tokio::test]
async fn a_profile_that_is_full_keeps_its_conversations_and_gets_no_other() {
    let (mock, proxy) = pair("PRODEX_PROFILE_HARD_LIMIT").await;
    let first = in_flight(&proxy).await;
    let mut owned = begin_turn(&proxy, "session-id: s\r\n", &user("on")).await;
    waiting(&proxy, 1).await;
    assert_eq!(turn(&proxy, "session-id: new\r\n", &user("hi")).await.status(), 200);
    assert_eq!(asked(&mock), ["a", "a", "b"]);
    drop(first);
    assert_eq!(owned.response().await.status(), 200);
    assert_eq!(asked(&mock), ["a", "a", "b", "a"], "it waited for its owner");
    drop(owned);
    let log = proxy.stop().await;
    let saturated = log.events("profile_inflight_saturated").next().unwrap();
    assert_eq!((&saturated.fields["profile"], &saturated.fields["limit"]), (&json!("a"), &json!(1)));
}

#[tokio::test]
async fn an_owner_that_stays_full_is_named() {
    let setting = Setting::new(&["a"], hanging()).set("PRODEX_PROFILE_HARD_LIMIT", "1");
    let (_mock, proxy) = setting.set("PRODEX_ADMISSION_WAIT", "300ms").start().await;
    let _first = in_flight(&proxy).await;
    let refused = turn(&proxy, "", &user("hi")).await;
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    assert!(refused.text().contains("profile a: 1 requests are in flight"), "{}", refused.text());
}

#[tokio::test]
async fn a_profile_that_is_busy_is_left_alone_while_another_is_not() {
    let (mock, proxy) = pair("PRODEX_PROFILE_SOFT_LIMIT").await;
    let _first = in_flight(&proxy).await;
    turn(&proxy, "session-id: new\r\n", &user("hi")).await;
    turn(&proxy, "session-id: s\r\n", &user("on")).await;
    assert_eq!(asked(&mock), ["a", "a", "b", "a"], "what an owner has it keeps");
}

/// What `prodex why` says of the request whose wait or response the log tells of by now.
async fn decided(proxy: &Proxy) -> serde_json::Value {
    let mut told = why(proxy, &["last"]).await;
    assert!(told["decisions"][0]["agrees"] == true, "{told:#}");
    told["decisions"][0].take()
}

#[tokio::test]
async fn limits_decide_and_why_tells_so() {
    for (limit, of_a) in [("PRODEX_PROFILE_SOFT_LIMIT", "busy"), ("PRODEX_PROFILE_HARD_LIMIT", "full")] {
        let (_mock, proxy) = pair(limit).await;
        let _first = in_flight(&proxy).await;
        turn(&proxy, "session-id: new\r\n", &user("hi")).await;
        until("it is logged", || proxy.log().events("profile_commit").count() == 3).await;
        let decision = decided(&proxy).await;
        assert_eq!(decision["choice"], json!({ "profile": "b", "reason": "ranked" }));
        let [a, b] = &decision["candidates"].as_array().unwrap()[..] else { panic!("{decision:#}") };
        assert_eq!((&a["in_flight"], &a[of_a], &b[of_a]), (&json!(1), &json!(true), &json!(false)));
        let skipped = proxy.log();
        let skipped = skipped.events("selection_skip_current").next().unwrap();
        assert_eq!(skipped.fields["reason"], of_a);
    }
}

#[tokio::test]
async fn a_fresh_request_waits_for_a_profile_when_all_are_full() {
    let (mock, proxy) = pair("PRODEX_PROFILE_HARD_LIMIT").await;
    let (first, second) = (in_flight(&proxy).await, in_flight(&proxy).await);
    let mut third = begin_turn(&proxy, "", &user("hi")).await;
    waiting(&proxy, 1).await;
    let decision = decided(&proxy).await;
    assert_eq!(decision["choice"]["reason"], "queue");
    let page = crate::rig::prodex(&proxy.sandbox, &["why", "last"]).await.stdout;
    assert!(page.contains("1 full") && page.lines().all(|line| line.chars().count() <= 80), "{page}");
    // Whichever it waits for.
    drop((first, second));
    assert_eq!(third.response().await.status(), 200);
    assert_eq!(asked(&mock)[3..], [decision["choice"]["profile"].as_str().unwrap()]);
    assert_eq!(proxy.log().events("selection_none").count(), 0);
}

#[tokio::test]
async fn a_websocket_is_in_flight_while_a_turn_runs_on_it() {
    let setting = narrow().set("PRODEX_ADMISSION_WAIT", "300ms");
    let (_mock, proxy) = setting.start().await;
    let (mut one, mut two) =
        (Socket::open(&proxy, &[]).await.unwrap(), Socket::open(&proxy, &[]).await.unwrap());
    for _ in 0..2 {
        assert_eq!(said(&one.turn(&create("x")).await), "Hello from the mock.");
        assert_eq!(said(&two.turn(&create("x")).await), "Hello from the mock.");
    }
    one.send(&create("hang")).await;
    while one.event().await["type"] != "response.output_item.added" {}
    let refused = two.turn(&create("x")).await;
    let (error, message) = (&refused[0], refused[0]["error"]["message"].as_str().unwrap());
    assert_eq!((&error["type"], &error["status"]), (&json!("error"), &json!(503)));
    assert_eq!(
        (&error["error"]["type"], &error["headers"]["retry-after"]),
        (&json!("service_unavailable"), &json!("1"))
    );
    assert!(message.contains("max_active"), "{message}");
    one.vanish();
    until("the place to be free", || proxy.log().events("stream_complete").count() == 5).await;
    assert_eq!(said(&two.turn(&create("x")).await), "Hello from the mock.", "the WebSocket goes on");
}

#[tokio::test]
async fn a_client_on_a_websocket_that_leaves_while_its_turn_waits_leaves_the_queue() {
    let (mock, proxy) = narrow().start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    let first = in_flight(&proxy).await;
    socket.send(&create("x")).await;
    waiting(&proxy, 1).await;
    socket.vanish();
    let upgrade = |all: &[Exchange]| {
        all.iter().any(|exchange| exchange.header("upgrade").is_some() && exchange.end.is_some())
    };
    mock.journal().wait_for("the upstream to be told", LIMIT, upgrade).await.unwrap();
    drop(first);
    assert_eq!(turn(&proxy, "", &user("hi")).await.status(), 200);
}

#[tokio::test]
async fn one_websocket_too_many_is_sent_to_http() {
    let (_mock, proxy) = narrow().set("PRODEX_MAX_WEBSOCKETS", "1").start().await;
    let one = Socket::open(&proxy, &[]).await.unwrap();
    let refusal = Socket::refusal(&proxy).await;
    assert_eq!(refusal.status().as_u16(), 426);
    one.vanish();
    let open = async { while Socket::open(&proxy, &[]).await.is_err() {} };
    tokio::time::timeout(LIMIT, open).await.expect("a place for another");
}

#[tokio::test]
async fn who_waits_when_the_proxy_ends_is_told() {
    let (_mock, proxy) = narrow().set("PRODEX_DRAIN_TIMEOUT", "10s").start().await;
    let first = in_flight(&proxy).await;
    let mut second = begin_turn(&proxy, "", &user("hi")).await;
    waiting(&proxy, 1).await;
    proxy.server.signal(nix::sys::signal::Signal::SIGTERM);
    let refused = second.response().await;
    assert!(refused.status() == 503 && refused.text().contains("shutting down"), "{}", refused.text());
    drop((first, second));
    proxy.ended().await;
}

#[tokio::test]
async fn slow_turns_are_no_reason_to_wait() {
    let rule = Rule::new(Turn::text("a b c")).pacing(Pacing::gap(std::time::Duration::from_millis(50)));
    let (_mock, proxy) = Setting::new(&["one"], Script::rules([rule])).start().await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(begin_turn(&proxy, "", &user("hi")).await);
    }
    for client in &mut clients {
        assert_eq!(client.response().await.status(), 200);
    }
    drop(clients);
    let log = proxy.stop().await;
    assert_eq!(log.events("runtime_proxy_admission_wait_started").count(), 0);
}
