//! The admin side of a running proxy: found by its home, asked for its state, told to read the profiles anew.

use harness::run_log::RunLog;
use mock_upstream::pacing::Pacing;
use mock_upstream::script::{Rule, Script, Turn};
use mock_upstream::{Account, Mock};
use prodex::admin::client::{Running, running};
use prodex::profile::store::{Pause, Store};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::UnixStream;

use crate::connection::{Connection, begin_turn, head, turn, user};
use crate::rig::{Proxy, Setting, add_profile, asked, mode};
use crate::socket::{Socket, create, said};

/// The only proxy of this home that runs.
pub(crate) fn only(proxy: &Proxy) -> Running {
    let [one] = running(&proxy.home()).try_into().unwrap();
    one
}

pub(crate) fn status(proxy: &Proxy) -> Value {
    let status: Value = only(proxy).get_json("/status").unwrap();
    assert_eq!((&status["version"], &status["pid"]), (&json!(1), &proxy.ready["pid"]));
    status
}

/// Tells the proxy to read the profiles anew. What that changed, without the empty lists.
fn reload(proxy: &Proxy) -> Value {
    let answer: Value = serde_json::from_slice(&only(proxy).post("/reload").unwrap()).unwrap();
    let changes = answer["changes"].as_object().unwrap();
    changes
        .iter()
        .filter(|(_, names)| **names != json!([]))
        .map(|(key, names)| (key.clone(), names.clone()))
        .collect()
}

fn store(proxy: &Proxy) -> Store {
    Store::new(&proxy.home())
}

/// The port for scrapers, as a proxy says on standard error.
pub(crate) async fn admin_port(proxy: &Proxy) -> u16 {
    let told = || {
        let told = proxy.server.stderr();
        let port = told.split("http://127.0.0.1:").nth(1)?.split_once('/')?.0.parse();
        port.ok()
    };
    crate::rig::until("the port is told", || told().is_some()).await;
    told().unwrap()
}

/// Adds a profile without telling the proxy, as its command would.
async fn add(proxy: &Proxy, id: &str) {
    store(proxy).add(id, &Account::new(id).auth_json().to_string(), None).unwrap();
}

async fn two(rules: impl IntoIterator<Item = Rule>) -> (Mock, Proxy) {
    let script = Script::rules(rules).account(Account::new("two"));
    Setting::new(&["one"], script).start().await
}

#[tokio::test]
async fn a_running_proxy_is_found_by_its_home_and_tells_its_state() {
    let slow = Rule::new(Turn::text("a b")).pacing(Pacing::gap(Duration::from_millis(50)));
    let (_mock, proxy) = two([slow]).await;
    let mut client = begin_turn(&proxy, "", &user("x")).await;
    client.read_through("output_item.added\"").await;
    let status = status(&proxy);
    assert_eq!((&status["state"], &status["in_flight"]), (&json!("serving"), &json!(1)));
    assert_eq!(status["listen"], proxy.ready["listen"]);
    let lanes = status["lanes"].as_array().unwrap();
    let of = |name: &str| lanes.iter().find(|lane| lane["name"] == name).unwrap()["in_flight"].clone();
    assert_eq!((of("responses"), of("standard")), (json!(1), json!(0)));
    let [profile] = &status["profiles"].as_array().unwrap()[..] else { panic!("{status}") };
    assert_eq!((&profile["name"], &profile["state"]), (&json!("one"), &json!("ready")));
    assert_eq!((&profile["in_flight"], &profile["current"]), (&json!(1), &json!(true)));
    let capability = proxy.prefix();
    assert!(!status.to_string().contains(capability.trim_start_matches("/k/")), "{status}");
    let socket = only(&proxy).path().to_owned();
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    let health: Value = only(&proxy).get_json("/healthz").unwrap();
    assert_eq!(health, json!({"state": "serving"}));
    let launch: Value = only(&proxy).get_json("/launch").unwrap();
    assert_eq!(launch["ready"]["base_url"], proxy.base_url());
    client.read_through("response.completed").await;
    proxy.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn profiles_come_and_go_while_it_serves() {
    let slow = Rule::new(Turn::text("held to its end")).user_text("slow");
    let slow = slow.pacing(Pacing::gap(Duration::from_millis(60)));
    let (mock, proxy) = two([slow]).await;
    assert_eq!(reload(&proxy), json!({}));
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    add(&proxy, "two").await;
    assert_eq!(reload(&proxy), json!({"added": ["two"]}));
    // A pause is for those that come; what is in flight goes on.
    let mut held = begin_turn(&proxy, "", &user("slow")).await;
    held.read_through("output_item.added\"").await;
    let pause = Pause { until: None, reason: Some("the invoice".to_owned()) };
    store(&proxy).set_pause("one", Some(&pause)).unwrap();
    assert_eq!(reload(&proxy), json!({"paused": ["one"]}));
    assert_eq!(status(&proxy)["profiles"][0]["state"], "paused");
    assert_eq!(turn(&proxy, "", &user("y")).await.status(), 200);
    store(&proxy).remove("one").unwrap();
    assert_eq!(reload(&proxy), json!({"removed": ["one"]}));
    held.read_through("response.completed").await;
    store(&proxy).set_pause("two", Some(&Pause::default())).unwrap();
    reload(&proxy);
    let nobody = turn(&proxy, "", &user("z")).await;
    assert_eq!(nobody.status(), 503);
    assert!(
        nobody.text().contains("two is paused; `prodex profile resume two` ends that"),
        "{}",
        nobody.text()
    );
    store(&proxy).set_pause("two", None).unwrap();
    assert_eq!(reload(&proxy), json!({"resumed": ["two"]}));
    assert_eq!(turn(&proxy, "", &user("z")).await.status(), 200);
    assert_eq!(asked(&mock), ["one", "one", "two", "two"]);
    let log = proxy.stop().await;
    let counts = |log: &RunLog, key: &str| -> u64 {
        log.events("profiles_reloaded").map(|line| line.fields[key].as_u64().unwrap()).sum()
    };
    assert_eq!((counts(&log, "added"), counts(&log, "removed"), counts(&log, "paused")), (1, 1, 2));
}

#[tokio::test]
async fn a_pause_ends_by_itself() {
    let (mock, proxy) = Setting::new(&["one", "two"], Script::default()).start().await;
    let until = jiff::Timestamp::now().as_second() + 2;
    store(&proxy).set_pause("one", Some(&Pause { until: Some(until), reason: None })).unwrap();
    reload(&proxy);
    assert_eq!(status(&proxy)["profiles"][0]["until"], until);
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    let over = async {
        while status(&proxy)["profiles"][0]["state"] != "ready" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::rig::LIMIT, over).await.unwrap();
    store(&proxy).set_preferred(Some("one")).unwrap();
    assert_eq!(reload(&proxy), json!({"preferred": ["one"]}));
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(asked(&mock), ["two", "one"], "who is preferred gets the next fresh conversation");
}

#[tokio::test]
async fn what_is_said_of_the_profiles_holds_from_the_start() {
    let (mock, proxy) = Setting::new(&["one", "two"], Script::default()).start().await;
    store(&proxy).set_preferred(Some("two")).unwrap();
    let proxy = proxy.restarted().await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    store(&proxy).set_pause("two", Some(&Pause::default())).unwrap();
    let proxy = proxy.restarted().await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(asked(&mock), ["two", "one"]);
}

#[tokio::test]
async fn a_newer_login_is_taken_and_a_profile_that_was_added_anew_is_another() {
    let (mock, proxy) = Setting::new(&["one"], Script::default().account(Account::new("two"))).start().await;
    let path = proxy.home().join("profiles/one/auth.json");
    // The same account with another token, as a login by hand leaves it.
    let mut auth = proxy.auth("one");
    auth["tokens"]["refresh_token"] = json!("another");
    std::fs::write(&path, auth.to_string()).unwrap();
    assert_eq!(reload(&proxy), json!({"renewed": ["one"]}));
    assert_eq!(reload(&proxy), json!({}));
    // Another account's login in its place is not taken: what the profile owns is not that one's.
    std::fs::write(&path, Account::new("two").auth_json().to_string()).unwrap();
    assert!(reload(&proxy)["failed"][0][1].as_str().unwrap().contains("another account"));
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    // Broken, it goes on with what it has.
    std::fs::write(&path, "{").unwrap();
    assert!(reload(&proxy)["failed"][0][1].as_str().unwrap().contains("it is not JSON"));
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    store(&proxy).remove("one").unwrap();
    store(&proxy).add("one", &Account::new("two").auth_json().to_string(), None).unwrap();
    assert_eq!(reload(&proxy), json!({"added": ["one"]}));
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert_eq!(asked(&mock), ["one", "one", "two"]);
}

#[tokio::test]
async fn an_open_websocket_goes_on_when_its_profile_is_removed() {
    let (mock, proxy) = Setting::new(&["one"], Script::default().account(Account::new("two"))).start().await;
    let mut socket = Socket::open(&proxy, &[]).await.unwrap();
    socket.turn(&create("a")).await;
    add(&proxy, "two").await;
    store(&proxy).remove("one").unwrap();
    assert_eq!(reload(&proxy), json!({"added": ["two"], "removed": ["one"]}));
    let events = socket.turn(&create("b")).await;
    assert!(!said(&events).is_empty());
    assert_eq!(asked(&mock), ["one", "two"]);
}

#[tokio::test]
async fn only_its_owner_may_ask_and_only_in_the_right_form() {
    let (_mock, proxy) = Setting::new(&["one"], Script::default()).start().await;
    let path = only(&proxy).path().to_owned();
    let cases = [
        ("GET /status HTTP/1.1\r\nhost: localhost\r\n\r\n", 200),
        ("GET /status HTTP/1.1\r\nhost: evil.com\r\n\r\n", 403),
        ("GET /status HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\n\r\n", 403),
        ("GET /status HTTP/1.0\r\n\r\n", 400),
        ("POST /status HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n", 405),
        ("GET /reload HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
        ("GET /nothing HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
        ("GET / status HTTP/1.1\r\n\r\n", 400),
    ];
    for (request, expected) in cases {
        let mut connection = Connection::over(UnixStream::connect(&path).await.unwrap());
        connection.send(request).await;
        assert_eq!(connection.response().await.status(), expected, "{request}");
    }
    // None of this is on the data plane.
    let mut client = proxy.connect().await;
    client.send(head(&proxy, "GET", "/status", "", 0)).await;
    assert_eq!(client.response().await.status(), 404);
}

#[tokio::test]
async fn a_scraper_shows_the_token_and_gets_no_more_than_it_needs() {
    let setting = Setting::new(&["one"], Script::default()).set("PRODEX_ADMIN_LISTEN", "127.0.0.1:0");
    let (_mock, proxy) = setting.start().await;
    let port = admin_port(&proxy).await;
    let file = proxy.home().join("admin-token");
    assert_eq!(mode(&file), 0o600);
    let token = std::fs::read_to_string(&file).unwrap();
    let right = format!("authorization: Bearer {}\r\n", token.trim());
    let wrong = "authorization: Bearer x\r\n".to_owned();
    for (path, fields, expected) in [
        ("/status", &right, 200),
        ("/healthz", &right, 200),
        ("/status", &wrong, 401),
        ("/status", &String::new(), 401),
        ("/launch", &right, 404),
        ("/reload", &right, 404),
        ("/watch", &right, 404),
    ] {
        let mut connection = Connection::open(port).await;
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\n{fields}\r\n")).await;
        let response = connection.response().await;
        assert_eq!(response.status(), expected, "{path} {fields}");
        assert_eq!(response.field("www-authenticate"), (expected == 401).then_some("Bearer"));
    }
}

#[tokio::test]
async fn a_home_that_takes_no_socket_does_not_keep_it_from_serving() {
    let sandbox = crate::rig::sandbox();
    let mock = Mock::start(mock_upstream::Config::script(Script::default().account(Account::new("one"))))
        .await
        .unwrap();
    add_profile(&sandbox, "one", &Account::new("one").auth_json().to_string()).await;
    std::fs::write(sandbox.home().join("prodex/run"), "").unwrap();
    let arguments = vec!["--upstream".to_owned(), mock.base_url().to_owned()];
    let proxy = Proxy::start(std::sync::Arc::new(sandbox), arguments).await;
    assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
    assert!(proxy.server.stderr().contains("no command will find this proxy"), "{}", proxy.server.stderr());
    assert!(running(&proxy.home()).is_empty());
}
