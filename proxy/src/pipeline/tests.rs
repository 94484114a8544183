//! Choices of requests that come at the same time.

use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use wire::http1::RequestHead;

use super::*;
use crate::config::Config;
use crate::route::Routed;
use crate::server::authority::client_config;
use crate::telemetry::RunLog;

/// A proxy of profiles with these names, and where its log is.
fn proxy(names: &[&str], home: &std::path::Path) -> Proxy {
    let config = Config::load(Some(home), &|_| None, &Vec::new()).unwrap();
    let (log, tls) = (RunLog::open(home).unwrap(), client_config(None).unwrap());
    let state = crate::state::State::in_memory();
    let control = Control::new(config, state, Arc::new(log), Arc::new(tls), Handle::current());
    let control = Arc::new(control);
    let profile = |name: &&str| {
        let login = format!(r#"{{"tokens":{{"access_token":"t","account_id":"{name}"}}}}"#);
        Profile::new(name, Credentials::parse(&login).unwrap())
    };
    let pool = Pool::new(names.iter().map(profile).collect(), None);
    Proxy::new(control, Guard::new(None), pool, false)
}

fn exchange() -> Exchange {
    let (head, _) =
        RequestHead::parse(b"POST /backend-api/codex/responses HTTP/1.1\r\n\r\n").unwrap().unwrap();
    Exchange {
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

#[tokio::test]
async fn one_request_at_a_time_tries_a_profile_that_refused() {
    let home = tempfile::tempdir().unwrap();
    let proxy = proxy(&["a", "b"], home.path());
    let now = Now::read();
    let past = Now { instant: now.instant - Duration::from_secs(20), unix: now.unix - 20 };
    for profile in proxy.profiles.profiles() {
        profile.health().refuse(CircuitOf::Responses, past);
    }
    let (gate, lane) = proxy.admission.gate(crate::route::Lane::Websocket);
    let permit = gate.try_enter(lane).unwrap();
    let (exchange, tries) = (exchange(), Tries::of_turn(&proxy.control.config, permit));
    let before = proxy.snapshot(Api::Chatgpt);
    let choose = |request, snapshot| {
        let chosen = proxy.choose(&exchange, request, snapshot, None, true, &tries);
        chosen.unwrap().name.to_string()
    };
    assert_eq!(choose(1, before.clone()), "a");
    assert_eq!(choose(2, before), "b", "its snapshot is from before the first was faster");
    assert_eq!(choose(3, proxy.snapshot(Api::Chatgpt)), "a", "both are being tried, and there is no other");
    let a = proxy.profiles.get("a").unwrap();
    let error = Error::Timeout { origin: "http://x".to_owned(), limit: Duration::ZERO };
    proxy.record_failure(3, a, &error);
    assert!(!a.health().probe(CircuitOf::Responses, 4, Now::read()), "that was not the one that tries");
    proxy.record_failure(1, a, &error);
    assert_eq!(choose(4, proxy.snapshot(Api::Chatgpt)), "a", "it has learnt nothing, and the next one tries");
    proxy.note_success(2, "responses", proxy.profiles.get("b").unwrap(), Instant::now());
    assert_eq!(choose(5, proxy.snapshot(Api::Chatgpt)), "b", "it serves again");
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
            exchange.ties.thread = Some("t".to_owned());
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
        let tries = Tries::of_turn(&proxy.control.config, gate.try_enter(lane).unwrap());
        let mut selecting = std::pin::pin!(proxy.select(&exchange, &tries));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let polled = selecting.as_mut().poll(&mut context);
        assert_eq!(polled.is_pending(), may_wait);
        let chosen = match polled {
            std::task::Poll::Ready(chosen) => chosen,
            std::task::Poll::Pending => selecting.await,
        };
        assert_eq!(&*chosen.unwrap().name, if may_wait { "a" } else { "b" });
        let a = proxy.profiles.get("a").unwrap();
        proxy.control.tasks.end(Duration::from_secs(20)).await;
        assert_eq!(
            (a.health().parked(), a.credentials().bearer().expose()),
            (None, "new"),
            "it is looked at"
        );
    }
}
