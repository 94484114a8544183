//! `prodex serve --replace`: another process takes the place of a running one, and no client notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use harness::process::{Exit, Program};
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Rule, Script, Turn};
use nix::sys::signal::Signal;
use prodex::admin::client::running;
use prodex::admin::handover;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::admin::admin_port;
use crate::connection::{Connection, TURN, begin_turn, head, turn, user};
use crate::rig::{LIMIT, Proxy, Setting, program};
use crate::socket::{Socket, create, said};

/// The proxy that takes the place of the running one.
async fn replaced(proxy: &Proxy, arguments: &[&str]) -> Proxy {
    let arguments = [&["--replace"], arguments].concat();
    proxy.another_that("PRODEX_WORKERS", "2", &arguments).await
}

/// How a replacement ends that does not take place.
async fn refused(proxy: &Proxy, arguments: &[&str]) -> (Option<i32>, String) {
    let program = proxy.another_with("PRODEX_WORKERS", "2").args(arguments.iter().copied());
    let finished = program.run(LIMIT).await.unwrap();
    (finished.exit.and_then(Exit::code), finished.stderr)
}

/// Waits for the end of a proxy whose place was taken.
async fn ended(mut proxy: Proxy) {
    assert_eq!(proxy.server.wait(LIMIT).await.unwrap(), Some(Exit::Code(0)));
    let log = proxy.log();
    assert_eq!(log.events("runtime_proxy_superseded").count(), 1);
    assert_eq!(log.events("drain_finished").next().unwrap().fields["aborted"], 0);
}

/// A client that asks for turns until it is told to stop, on one connection for as long as that is kept or on
/// a new one for each. It panics when one is refused or cut.
async fn client(proxy: Arc<(u16, String)>, is_kept: bool, stop: Arc<AtomicBool>, served: Arc<AtomicUsize>) {
    let (port, prefix) = &*proxy;
    let mut kept: Option<Connection> = None;
    let body = user("x");
    while !stop.load(Ordering::Relaxed) {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => Connection::open(*port).await,
        };
        let fields = format!("host: localhost\r\ncontent-length: {}\r\n", body.len());
        connection.send(format!("POST {prefix}{TURN} HTTP/1.1\r\n{fields}\r\n{body}")).await;
        let response = connection.response().await;
        assert_eq!((response.status(), response.said().as_str()), (200, "a b c"));
        served.fetch_add(1, Ordering::Relaxed);
        let goes_on = response.field("connection").is_none_or(|value| value != "close");
        kept = Some(connection).filter(|_| is_kept && goes_on);
    }
}

#[tokio::test]
async fn no_request_is_refused_or_cut_across_several_replacements() {
    let long = Rule::new(Turn::text("held until after them all")).user_text("long");
    let long = long.pacing(Pacing::gap(Duration::from_millis(250)));
    let script = Script::rules([long, Rule::new(Turn::text("a b c"))]);
    let (_mock, proxy) = Setting::new(&["one", "two"], script).set("PRODEX_WORKERS", "2").start().await;
    let url = proxy.base_url().to_owned();
    let place = Arc::new((proxy.port(), proxy.prefix()));
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = [true, false, true, false]
        .map(|is_kept| client(Arc::clone(&place), is_kept, Arc::clone(&stop), Arc::clone(&served)))
        .into_iter()
        .map(tokio::spawn)
        .collect();
    let mut held = begin_turn(&proxy, "", &user("long")).await;
    held.read_through("output_item.added\"").await;
    let mut busy = Socket::open(&proxy, &[]).await.unwrap();
    busy.send(&create("long")).await;
    let mut events = vec![busy.event().await];
    let mut past = Vec::new();
    let mut current = proxy;
    for _ in 0..3 {
        // Each is replaced in the middle of things, and from its ready line on the next one serves.
        let before = served.load(Ordering::Relaxed);
        let more = async {
            while served.load(Ordering::Relaxed) < before + 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIMIT, more).await.expect("turns are served all the time");
        let mut idle = Socket::open(&current, &[]).await.unwrap();
        idle.turn(&create("x")).await;
        let next = replaced(&current, &[]).await;
        assert_eq!(next.base_url(), url);
        let (messages, error) = idle.rest().await;
        assert!(matches!(&messages[..], [Message::Close(Some(frame))] if u16::from(frame.code) == 1001));
        assert!(error.is_none(), "{error:?}");
        let mut again = Socket::open(&next, &[]).await.unwrap();
        assert_eq!(said(&again.turn(&create("x")).await), "a b c");
        past.push(std::mem::replace(&mut current, next));
    }
    events.extend(busy.events().await);
    assert_eq!(said(&events), "held until after them all");
    held.read_through("response.completed").await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no request is refused or cut");
    }
    // What served the first streams ends when they have.
    drop(held);
    for old in past {
        ended(old).await;
    }
    assert_eq!(running(&current.home()).len(), 1);
    assert_eq!(turn(&current, "", &user("x")).await.status(), 200);
    current.stop().await;
}

#[tokio::test]
async fn who_waits_in_the_queue_of_the_socket_is_served_by_the_next() {
    let (_mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let sent = head(&proxy, "POST", TURN, "", user("x").len()) + &user("x");
    // A stopped process accepts nothing, so these wait; what is told on its socket it cannot answer either.
    let [one] = running(&proxy.home()).try_into().unwrap();
    let taken = handover::take(one.path()).await.unwrap();
    proxy.server.signal(Signal::SIGSTOP);
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut connection = proxy.connect().await;
        connection.send(&sent).await;
        waiting.push(connection);
    }
    proxy.server.signal(Signal::SIGCONT);
    let (confirm, sockets, port) = taken.confirm();
    assert_eq!((sockets.len(), port.is_none()), (2, true));
    confirm.ready().await.unwrap();
    // Whoever has the sockets now serves those that the old one did not accept before.
    for socket in sockets {
        socket.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(socket).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut connection = Connection::over(stream);
                tokio::spawn(async move {
                    connection.request().await;
                    connection.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                });
            }
        });
    }
    for mut connection in waiting {
        assert_eq!(connection.response().await.status(), 200);
    }
}

#[tokio::test]
async fn a_successor_that_does_not_get_ready_leaves_all_as_it_was() {
    let (_mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let [one] = running(&proxy.home()).try_into().unwrap();
    for _ in 0..3 {
        let taken = handover::take(one.path()).await.unwrap();
        assert_eq!(taken.listen.port(), proxy.port());
        let second = handover::take(one.path()).await.unwrap_err();
        assert!(second.to_string().contains("another process is taking over"), "{second}");
        assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
        drop(taken);
        let free = async {
            loop {
                // Let go again at once: whoever asks next is the first.
                if let Ok(taken) = handover::take(one.path()).await {
                    break drop(taken);
                }
            }
        };
        tokio::time::timeout(LIMIT, free).await.unwrap();
        let free = async { while handover::take(one.path()).await.is_err() {} };
        tokio::time::timeout(LIMIT, free).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(crate::admin::status(&proxy)["state"], "serving");
    // One whose own port is taken fails before it is ready.
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let program = proxy.another_with("PRODEX_ADMIN_LISTEN", &address).args(["--replace"]);
    let finished = program.run(LIMIT).await.unwrap();
    assert_eq!(finished.exit.and_then(Exit::code), Some(3), "{}", finished.stderr);
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let next = replaced(&proxy, &[]).await;
    assert_eq!(turn(&next, "", &user("x")).await.status(), 200);
    ended(proxy).await;
}

#[tokio::test]
async fn what_clients_see_is_taken_over_and_cannot_be_changed_on_the_way() {
    for (arguments, wrong) in [(&["--tls"][..], &["--no-auth"][..]), (&["--no-auth"], &["--tls"])] {
        let mut setting = Setting::new(&["one"], Script::default());
        for argument in arguments {
            setting = setting.argument(argument);
        }
        let (mock, proxy) = setting.start().await;
        let (code, stderr) = refused(&proxy, &[wrong, &["--replace"]].concat()).await;
        assert!(code == Some(2) && stderr.contains("cannot be with --replace"), "{stderr}");
        let (code, stderr) = refused(&proxy, &["--replace", "--listen", "127.0.0.1:1"]).await;
        assert!(code == Some(2) && stderr.contains("--listen"), "{stderr}");
        // Without the flags: they come with the place.
        let program = Program::new(program()).args(["serve", "--print-ready", "--replace", "--upstream"]);
        let program = program.args([mock.base_url()]).envs(proxy.sandbox.environment());
        let (_server, ready) = program.start_ready("prodex-ready ", LIMIT).await.unwrap();
        assert_eq!(
            (&ready["base_url"], &ready["ca_cert"]),
            (&proxy.ready["base_url"], &proxy.ready["ca_cert"])
        );
        ended(proxy).await;
    }
}

#[tokio::test]
async fn who_is_replaced_is_plain_or_has_to_be_said() {
    let (_mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let (code, stderr) = refused(&proxy, &["--replace=2147483646"]).await;
    assert!(code == Some(1) && stderr.contains("`prodex status` shows those that run"), "{stderr}");
    let other = proxy.another().await;
    let (code, stderr) = refused(&proxy, &["--replace"]).await;
    let pids = [&proxy, &other].map(|proxy| proxy.ready["pid"].to_string());
    assert!(code == Some(2) && pids.iter().all(|pid| stderr.contains(pid)), "{stderr}");
    let chosen = format!("--replace={}", pids[1]);
    let next = other.another_that("PRODEX_WORKERS", "2", &[&chosen]).await;
    assert_eq!((next.base_url(), next.port() == proxy.port()), (other.base_url(), false));
    ended(other).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    // On an address that is taken by one of ours, what to do is said.
    let listen = format!("127.0.0.1:{}", proxy.port());
    let (code, stderr) = refused(&proxy, &["--listen", &listen]).await;
    assert!(code == Some(3) && stderr.contains("prodex serve --replace"), "{stderr}");
    let (home, sandbox) = (proxy.home(), Arc::clone(&proxy.sandbox));
    proxy.stop().await;
    next.stop().await;
    assert!(running(&home).is_empty());
    let first = Proxy::start(sandbox, vec!["--replace".to_owned()]).await;
    let told = async {
        while !first.server.stderr().contains("starting one") {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, told).await.is_ok(), "{}", first.server.stderr());
}

#[tokio::test]
async fn settings_that_change_with_the_place_are_told() {
    let setting = Setting::new(&["one", "two"], Script::default()).set("PRODEX_WORKERS", "2");
    let (_mock, proxy) = setting.start().await;
    let next = replaced(&proxy, &[]).await;
    let told = next.server.stderr();
    assert!(told.contains("taking over from process") && told.lines().count() == 1, "{told}");
    ended(proxy).await;
    // Without --upstream it goes to the vendors from now on, which is worth a line.
    let home = next.home().display().to_string();
    let program = Program::new(program()).args(["serve", "--print-ready", "--replace", "--home", &home]);
    let program = program.args(["--only", "two"]).envs(next.sandbox.environment());
    let program = program.envs([("PRODEX_WORKERS", "1"), ("PRODEX_KEEP_ALIVE", "2m")]);
    let (server, _) = program.start_ready("prodex-ready ", LIMIT).await.unwrap();
    let told = server.stderr().replace(next.upstream(), "MOCK");
    let lines: Vec<&str> = told.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "  upstream: not set, instead of MOCK",
            "  workers: 1, instead of 2",
            "  --only: two, instead of all profiles"
        ],
        "{told}"
    );
    ended(next).await;
}

#[tokio::test]
async fn the_admin_port_goes_with_the_place() {
    let setting = Setting::new(&["one"], Script::default()).set("PRODEX_ADMIN_LISTEN", "127.0.0.1:0");
    let (_mock, proxy) = setting.start().await;
    let token = std::fs::read_to_string(proxy.home().join("admin-token")).unwrap();
    let before = admin_port(&proxy).await;
    let next = replaced(&proxy, &[]).await;
    assert_eq!(admin_port(&next).await, before);
    let mut connection = Connection::open(before).await;
    let fields = format!("host: localhost\r\nauthorization: Bearer {}\r\n", token.trim());
    connection.send(format!("GET /status HTTP/1.1\r\n{fields}\r\n")).await;
    assert_eq!(connection.response().await.json()["pid"], json!(next.ready["pid"]));
    ended(proxy).await;
}
