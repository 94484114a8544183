//! The state over a database on the disk: what a later run finds, what other processes see, what fails.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn open(directory: &Path) -> State {
    State::open(directory, Durability::Normal, &Arc::new(RunLog::none())).unwrap().0
}

fn profile(name: &str) -> Arc<str> {
    name.into()
}

async fn settle(state: &State, ticket: Ticket) {
    let Some(gate) = state.gate(ticket) else { return };
    let open = std::future::poll_fn(|context| gate.poll_open(context));
    tokio::time::timeout(Duration::from_secs(20), open).await.unwrap();
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("state");
    (home, directory)
}

#[test]
fn an_id_is_owned_by_who_was_bound_last() {
    let state = State::in_memory();
    let (one, two) = (profile("one"), profile("two"));
    assert_eq!(state.bind(Tie::Response, "a", &one), Ticket::DURABLE);
    state.bind(Tie::Session, "a", &two);
    assert_eq!(state.owner(Tie::Response, "a"), Some(Arc::clone(&one)));
    assert_eq!(state.owner(Tie::Session, "a"), Some(Arc::clone(&two)));
    assert_eq!(state.owner(Tie::TurnState, "a"), None);
    state.bind(Tie::Response, "a", &two);
    assert_eq!(state.owner(Tie::Response, "a"), Some(two));
}

#[tokio::test]
async fn what_was_waited_for_is_there_though_nothing_was_closed() {
    let (_home, directory) = home();
    let state = open(&directory);
    let ticket = state.bind(Tie::Response, "r", &profile("one"));
    assert_eq!(state.bind(Tie::Response, "r", &profile("one")), ticket, "it is the same change");
    settle(&state, ticket).await;
    assert!(state.gate(ticket).is_none());
    // Another run that begins while this one is still there.
    let (later, recovery) = State::open(&directory, Durability::Full, &Arc::new(RunLog::none())).unwrap();
    assert_eq!(later.owner(Tie::Response, "r").as_deref(), Some("one"));
    assert_eq!((recovery.frames, recovery.bindings), (0, 1));
}

#[tokio::test]
async fn a_clean_end_writes_what_waits() {
    let (_home, directory) = home();
    let state = open(&directory);
    for number in 0..100 {
        state.bind(Tie::TurnState, &number.to_string(), &profile("one"));
    }
    state.put(Fact::Quota, &profile("one"), &vec![1, 2]);
    state.close();
    assert_eq!(state.bind(Tie::Session, "s", &profile("one")), Ticket::DURABLE, "nobody waits any more");
    let later = open(&directory);
    assert!((0..100).all(|number| later.owner(Tie::TurnState, &number.to_string()).is_some()));
    assert_eq!(later.get(Fact::Quota, &profile("one")), Some(vec![1, 2]));
    assert_eq!(later.get::<String>(Fact::Quota, &profile("one")), None, "it is no text");
    assert_eq!(later.get::<Vec<i32>>(Fact::Health, &profile("one")), None);
}
