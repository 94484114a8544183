//! Choices of requests that come at the same time.

use std::time::Instant;

use mock_upstream::fault::{At, End, Fault};
use mock_upstream::script::{Http, Rule, Script, Stream};
use mock_upstream::{Account, Mock};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use wire::http1::RequestHead;

use super::*;
use crate::config::Config;
use crate::metrics::{Meter, Series, Transport};
use crate::route::Routed;
use crate::server::authority::client_config;
use crate::telemetry::RunLog;

/// A proxy of profiles with these names, and where its log is.
fn proxy(names: &[&str], home: &std::path::Path) -> Proxy {
    proxy_to(None, names, home)
}

/// The same, in front of this upstream.
fn proxy_to(upstream: Option<&str>, names: &[&str], home: &std::path::Path) -> Proxy {
    let upstream = |name: &str| upstream.filter(|_| name == "PRODEX_UPSTREAM").map(str::to_owned);
    let config = Config::load(Some(home), &upstream, &Vec::new()).unwrap();
    let (log, tls) = (RunLog::open(home).unwrap(), client_config(None).unwrap());
    let state = crate::state::State::in_memory();
    let control = Control::new(config, state, Arc::new(log), Arc::new(tls), Handle::current());
    let control = Arc::new(control);
    let profile = |name: &&str| {
        let login = mock_upstream::Account::new(*name).auth_json().to_string();
        Profile::new(name, Credentials::parse(&login).unwrap())
    };
    let pool = Pool::new(names.iter().map(profile).collect(), None);
    Proxy::new(control, Guard::new(None), pool, false)
}

fn exchange() -> Exchange {
    exchange_of("POST /backend-api/codex/responses HTTP/1.1\r\n\r\n")
}

fn exchange_of(head: &str) -> Exchange {
    let (head, _) = RequestHead::parse(head.as_bytes()).unwrap().unwrap();
    let series = Series::of(Routed::find(&head, head.target()).unwrap(), Transport::Http1);
    Exchange {
        meter: Meter::new(&Arc::default(), series),
        id: 0,
        started: Instant::now(),
        target: head.target().to_owned(),
        routed: Routed::find(&head, head.target()).unwrap(),
        head,
        body: bytes::Bytes::new(),
        ties: Ties::default(),
        stripped: OnceCell::new(),
    }
}

/// Makes a profile half open for calls of this kind: it refused a while ago.
fn half_open(profile: &Profile, of: CircuitOf) {
    let now = Now::read();
    let past = Now { instant: now.instant - Duration::from_secs(20), unix: now.unix - 20 };
    profile.health().refuse(of, past);
}

/// The right to be in flight.
fn permit(proxy: &Proxy) -> Permit {
    let (gate, lane) = proxy.admission.gate(crate::route::Lane::Websocket);
    gate.try_enter(lane).unwrap()
}

#[tokio::test]
async fn a_probe_that_learns_nothing_makes_room_for_the_next() {
    let hang = Rule::new(Stream::texts([""])).fault(Fault { at: At::BeforeHead, end: End::Hang });
    for (rule, hangs) in [(Rule::new(Http::json(400, serde_json::json!({}))), false), (hang, true)] {
        let script = Script::default().account(Account::new("a")).rule(rule);
        let mock = Mock::start(mock_upstream::Config::script(script)).await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let proxy = Arc::new(proxy_to(Some(mock.base_url()), &["a"], home.path()));
        let a = &proxy.profiles.get("a").unwrap();
        half_open(a, CircuitOf::Responses);
        let (connections, exchange) = (Connections::new(&proxy.control), exchange());
        let arrived = |all: &[mock_upstream::Exchange]| {
            all.iter().any(|exchange| exchange.call == mock_upstream::script::CallName::Responses)
        };
        tokio::select! {
            _ = proxy.answer(&connections, &exchange, permit(&proxy)) => {}
            // The client goes away.
            _ = mock.journal().wait_for("the turn", Duration::from_secs(10), arrived), if hangs => {}
        }
        assert!(a.health().probe(CircuitOf::Responses, 9, Now::read()), "hangs: {hangs}");
    }
}

#[tokio::test]
async fn an_upgrade_leaves_the_probe_to_the_first_turn() {
    let mock = Mock::start(mock_upstream::Config::script(Script::default().account(Account::new("a")))).await;
    let (mock, home) = (mock.unwrap(), tempfile::tempdir().unwrap());
    let proxy = Arc::new(proxy_to(Some(mock.base_url()), &["a"], home.path()));
    let a = &proxy.profiles.get("a").unwrap();
    half_open(a, CircuitOf::Websocket);
    let exchange = exchange_of(
        "GET /backend-api/codex/responses HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let mut tries = Tries::new(&proxy.control, &exchange, permit(&proxy));
    let upgraded = proxy.upgrade(&Connections::new(&proxy.control), &exchange, &mut tries).await;
    assert!(matches!(upgraded, Upgraded::Opened(..)), "{upgraded:?}");
    drop(tries);
    assert!(a.health().probe(CircuitOf::Websocket, 9, Now::read()));
}

#[tokio::test]
async fn one_request_at_a_time_tries_a_profile_that_refused() {
    let home = tempfile::tempdir().unwrap();
    let proxy = proxy(&["a", "b"], home.path());
    for profile in &proxy.profiles.profiles() {
        half_open(profile, CircuitOf::Responses);
    }
    let exchange = exchange();
    let before = proxy.snapshot(Api::Chatgpt);
    let choose = |request, snapshot| {
        let mut tries = Tries::of_turn(&proxy.control, &exchange, permit(&proxy));
        let chosen = proxy.choose(&exchange, request, snapshot, None, true, &mut tries);
        (chosen.unwrap().name.to_string(), tries)
    };
    let (first, one) = choose(1, before.clone());
    assert_eq!(first, "a");
    let (second, _two) = choose(2, before);
    assert_eq!(second, "b", "its snapshot is from before the first was faster");
    let (third, three) = choose(3, proxy.snapshot(Api::Chatgpt));
    assert_eq!(third, "a", "both are being tried, and there is no other");
    let a = &proxy.profiles.get("a").unwrap();
    drop(three);
    assert!(!a.health().probe(CircuitOf::Responses, 4, Now::read()), "that was not the one that tries");
    drop(one);
    let (fourth, _four) = choose(4, proxy.snapshot(Api::Chatgpt));
    assert_eq!(fourth, "a", "it has learnt nothing, and the next one tries");
    proxy.note_success(2, "responses", &proxy.profiles.get("b").unwrap(), Instant::now());
    assert_eq!(choose(5, proxy.snapshot(Api::Chatgpt)).0, "b", "it serves again");
    proxy.control.log.close();
    let text = std::fs::read_to_string(proxy.control.log.path().unwrap()).unwrap();
    let count = |event: &str| text.lines().filter(|line| line.contains(event)).count();
    assert_eq!((count("profile_circuit_half_open_probe"), count("profile_health")), (3, 1), "{text}");
}

#[tokio::test]
async fn a_parked_profile_is_waited_for_only_where_nobody_else_can_serve() {
    let login = |token: &str, account: &str| {
        format!(r#"{{"tokens":{{"access_token":"{token}","account_id":"{account}"}}}}"#)
    };
    for (may_wait, with_owner, all) in [(false, false, false), (true, true, false), (true, false, true)] {
        let home = tempfile::tempdir().unwrap();
        let proxy = proxy(&["a", "b"], home.path());
        let mut exchange = exchange();
        if with_owner {
            exchange.ties.thread = Some(crate::state::digest("t"));
            proxy.control.state.bind(Tie::Thread, "t", &"a".into());
        }
        for name in ["a", "b"] {
            // Its file has a new login.
            proxy.control.store.add(name, &login("new", name), None).unwrap();
            if name == "a" || all {
                proxy.profiles.get(name).unwrap().health().park("rejected".to_owned());
            }
        }
        let (gate, lane) = proxy.admission.gate(crate::route::Lane::Responses);
        let mut tries = Tries::of_turn(&proxy.control, &exchange, gate.try_enter(lane).unwrap());
        let mut selecting = std::pin::pin!(proxy.select(&exchange, &mut tries));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let polled = selecting.as_mut().poll(&mut context);
        assert_eq!(polled.is_pending(), may_wait);
        let chosen = match polled {
            std::task::Poll::Ready(chosen) => chosen,
            std::task::Poll::Pending => selecting.await,
        };
        assert_eq!(&*chosen.unwrap().name, if may_wait { "a" } else { "b" });
        let a = &proxy.profiles.get("a").unwrap();
        proxy.control.tasks.end(Duration::from_secs(20)).await;
        assert_eq!(
            (a.health().parked(), a.credentials().bearer().expose()),
            (None, "new"),
            "it is looked at"
        );
    }
}
