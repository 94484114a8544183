//! The state over a database on the disk: what a later run finds, what other processes see, what fails.

#![expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
#![expect(clippy::disallowed_macros, reason = "what a test prints goes to its runner, which always reads")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use wire::run_event::RawLine;

use super::*;

fn open(directory: &Path) -> State {
    State::open(directory, Durability::Normal, &Arc::new(RunLog::none())).unwrap().0
}

fn profile(name: &str) -> Arc<str> {
    name.into()
}

async fn settle(state: &State, ticket: Ticket) {
    let Some(mut gate) = state.gate(ticket) else { return };
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

#[tokio::test]
async fn what_another_process_binds_is_found() {
    let (_home, directory) = home();
    let (one, two) = (open(&directory), open(&directory));
    let ticket = one.bind(Tie::Response, "r", &profile("a"));
    settle(&one, ticket).await;
    two.recall([(Tie::Response, digest("r")), (Tie::Session, digest("s"))]).await;
    assert_eq!(two.owner(Tie::Response, "r").as_deref(), Some("a"));
    // What moved meanwhile is known as soon as anything is written.
    let ticket = two.bind(Tie::Response, "r", &profile("b"));
    settle(&two, ticket).await;
    let ticket = one.bind(Tie::Response, "other", &profile("a"));
    settle(&one, ticket).await;
    assert_eq!(one.owner(Tie::Response, "r").as_deref(), Some("b"));
}

#[tokio::test]
async fn what_nobody_else_can_have_written_is_not_looked_for() {
    let (_home, directory) = home();
    let one = open(&directory);
    let has_read = |state: &State| state.writer.as_ref().is_some_and(Writer::has_read);
    for number in 0..50 {
        let ticket = one.bind(Tie::Response, &number.to_string(), &profile("a"));
        settle(&one, ticket).await;
        while !one.writer.as_ref().is_some_and(Writer::is_up_to_date) {
            tokio::task::yield_now().await;
        }
        one.recall([(Tie::Response, digest("none")), (Tie::Thread, digest("t"))]).await;
    }
    assert!(!has_read(&one));
    let two = open(&directory);
    for number in 0..200 {
        let id = format!("theirs {number}");
        let ticket = two.bind(Tie::Thread, &id, &profile("b"));
        settle(&two, ticket).await;
        if number % 3 == 0 {
            // One's own commit between theirs and the look.
            let ticket = one.bind(Tie::Response, &id, &profile("a"));
            settle(&one, ticket).await;
        }
        one.recall([(Tie::Thread, digest(&id))]).await;
        assert_eq!(one.owner(Tie::Thread, &id).as_deref(), Some("b"), "{id}");
    }
    assert!(has_read(&one));
}

/// Opens a state whose run log can be read.
fn open_logged(directory: &Path) -> (State, Arc<RunLog>) {
    let log = Arc::new(RunLog::open(&directory.join("logs")).unwrap());
    (State::open(directory, Durability::Normal, &log).unwrap().0, log)
}

/// A state over this database, which is empty.
fn over(database: Database, log: &Arc<RunLog>) -> State {
    let memory = Arc::new(Memory::default());
    let writer = Writer::start(database, 0, Arc::clone(&memory), Arc::clone(log)).unwrap();
    State { memory, facts: Mutex::default(), writer: Some(writer) }
}

fn events(log: &RunLog) -> Vec<(String, Option<String>)> {
    log.close();
    let text = std::fs::read_to_string(log.path().unwrap()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<RawLine>(line).unwrap());
    let cause = |line: &RawLine| line.fields.get("cause").and_then(|cause| cause.as_str().map(str::to_owned));
    lines.map(|line| (line.event.clone(), cause(&line))).collect()
}

#[tokio::test]
async fn a_disk_that_fails_stops_nothing_and_is_tried_again() {
    let (_home, directory) = home();
    let (state, log) = open_logged(&directory);
    let other = Connection::open(directory.join("state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = state.bind(Tie::Response, "first", &profile("a"));
    settle(&state, first).await;
    let second = state.bind(Tie::Response, "second", &profile("a"));
    assert!(state.gate(second).is_none(), "while it fails nobody waits");
    assert_eq!(state.owner(Tie::Response, "second").as_deref(), Some("a"));
    other.execute_batch("ROLLBACK").unwrap();
    state.close();
    let later = open(&directory);
    assert!(["first", "second"].into_iter().all(|id| later.owner(Tie::Response, id).is_some()));
    let events = events(&log);
    let names: Vec<_> = events.iter().map(|(event, cause)| (event.as_str(), cause.as_deref())).collect();
    assert_eq!(
        names,
        [("state_save_queued", None), ("state_save_error", Some("busy")), ("state_save_ok", None)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_stops_nothing_for_long() {
    let (_home, directory) = home();
    let log = Arc::new(RunLog::open(&directory.join("logs")).unwrap());
    let (database, _) = Database::open(&directory, Durability::Normal).unwrap();
    database.hang();
    let state = over(database, &log);
    let other = Connection::open(directory.join("state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = state.bind(Tie::Response, "first", &profile("a"));
    settle(&state, first).await;
    let second = state.bind(Tie::Response, "second", &profile("a"));
    assert!(state.gate(second).is_none(), "while it hangs nobody waits");
    other.execute_batch("ROLLBACK").unwrap();
    state.close();
    let later = open(&directory);
    assert!(["first", "second"].into_iter().all(|id| later.owner(Tie::Response, id).is_some()));
    assert!(events(&log).contains(&("state_save_error".to_owned(), Some("stuck".to_owned()))));
}

#[tokio::test]
async fn a_disk_that_hangs_keeps_nobody_who_looks_something_up() {
    let (_home, directory) = home();
    let (state, log) = open_logged(&directory);
    let state = Arc::new(state);
    let hanging = state.writer.as_ref().unwrap().hang_reader();
    // What nobody else can have written is not looked for.
    let other = open(&directory);
    settle(&other, other.bind(Tie::Response, "zero", &profile("a"))).await;
    let look = async |id: &str| {
        let recall = state.recall([(Tie::Response, digest(id))]);
        tokio::time::timeout(Duration::from_secs(20), recall).await.expect("nobody waits for ever");
    };
    tokio::join!(look("one"), look("two"));
    let began = std::time::Instant::now();
    look("three").await;
    assert!(began.elapsed() < Duration::from_secs(1), "what does not answer is not asked again");
    drop(hanging);
    settle(&other, other.bind(Tie::Response, "four", &profile("a"))).await;
    let found = async {
        while state.owner(Tie::Response, "four").is_none() {
            look("four").await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("it is asked when it answers again");
    state.close();
    let stuck = ("state_save_error".to_owned(), Some("stuck".to_owned()));
    assert_eq!(events(&log).into_iter().filter(|event| *event == stuck).count(), 1);
}

#[test]
fn a_disk_that_hangs_does_not_keep_the_run_from_its_end() {
    let (_home, directory) = home();
    let log = Arc::new(RunLog::open(&directory.join("logs")).unwrap());
    let (database, _) = Database::open(&directory, Durability::Normal).unwrap();
    database.hang();
    let state = Arc::new(over(database, &log));
    let other = Connection::open(directory.join("state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    state.bind(Tie::Response, "r", &profile("a"));
    let (closing, closed) = (Arc::clone(&state), std::sync::mpsc::channel());
    let thread = std::thread::spawn(move || {
        closing.close();
        closed.0.send(()).unwrap();
    });
    assert!(closed.1.recv_timeout(Duration::from_secs(30)).is_ok(), "it is still waiting for the disk");
    thread.join().unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    assert!(events(&log).contains(&("state_save_error".to_owned(), Some("stuck".to_owned()))));
}

#[tokio::test]
async fn a_full_disk_is_told_once_and_what_is_given_up_is_counted() {
    let (_home, directory) = home();
    let log = Arc::new(RunLog::open(&directory.join("logs")).unwrap());
    let (database, _) = Database::open(&directory, Durability::Normal).unwrap();
    database.limit(1);
    let state = over(database, &log);
    for number in 0..1000 {
        let ticket = state.bind(Tie::Response, &number.to_string(), &profile("a"));
        settle(&state, ticket).await;
        assert!(state.owner(Tie::Response, &number.to_string()).is_some());
    }
    state.close();
    let events = events(&log);
    let errors: Vec<_> = events.iter().filter(|(event, _)| event == "state_save_error").collect();
    assert_eq!(errors.iter().map(|(_, cause)| cause.as_deref()).collect::<Vec<_>>(), [Some("full")]);
    assert_eq!(events.last().unwrap().0, "state_save_skipped", "the end of the run gave up the rest");
}

#[tokio::test]
async fn the_number_of_bindings_and_the_log_are_bounded() {
    let (_home, directory) = home();
    let state = open(&directory);
    let mut ticket = Ticket::DURABLE;
    for number in 0..4 * Tie::Session.capacity() {
        ticket = ticket.max(state.bind(Tie::Session, &number.to_string(), &profile("a")));
        if number % 64 == 0 {
            settle(&state, ticket).await;
        }
    }
    state.close();
    let later = Connection::open(directory.join("state.db")).unwrap();
    let count: usize = later.query_row("SELECT count(*) FROM binding", [], |row| row.get(0)).unwrap();
    assert!((Tie::Session.capacity()..Tie::Session.capacity() + 2000).contains(&count), "{count} bindings");
    let size = std::fs::metadata(directory.join("state.db")).unwrap().len();
    assert!(size < 4 << 20, "{size} bytes");
    let reopened = open(&directory);
    assert!(reopened.owner(Tie::Session, &(4 * Tie::Session.capacity() - 1).to_string()).is_some());
    assert!(reopened.owner(Tie::Session, "0").is_none());
}

#[tokio::test]
async fn the_write_ahead_log_of_a_busy_run_is_bounded() {
    let (_home, directory) = home();
    let state = open(&directory);
    let log = directory.join("state.db-wal");
    let mut longest = 0;
    for number in 0..1500 {
        let mut ticket = Ticket::DURABLE;
        for row in 0..40 {
            ticket = ticket.max(state.bind(Tie::Response, &format!("{number} {row}"), &profile("a")));
        }
        settle(&state, ticket).await;
        longest = longest.max(std::fs::metadata(&log).map_or(0, |log| log.len()));
    }
    assert!(longest < 40 << 20, "{longest} bytes");
}

#[test]
fn old_bindings_go_at_the_next_start() {
    let (_home, directory) = home();
    let binding =
        |id: &str, at: i64| Binding { tie: Tie::Session, id: id.to_owned(), profile: profile("a"), at };
    let now = Now::read().unix;
    let bindings = vec![binding("ancient", now - database::KEPT - 1), binding("new", now + 1000)];
    assert_eq!(import(&directory, Durability::Normal, bindings.clone()).unwrap(), 1);
    assert_eq!(import(&directory, Durability::Normal, bindings).unwrap(), 0, "it is there already");
    let (state, recovery) = State::open(&directory, Durability::Normal, &Arc::new(RunLog::none())).unwrap();
    assert!(state.owner(Tie::Session, "new").is_some() && state.owner(Tie::Session, "ancient").is_none());
    state.close();
    let connection = Connection::open(directory.join("state.db")).unwrap();
    connection.execute("UPDATE binding SET at = 0", []).unwrap();
    connection
        .execute("INSERT INTO binding (tie, id, profile, at) VALUES (1, randomblob(16), 'b', 0)", [])
        .unwrap();
    drop(connection);
    let (_, second) = State::open(&directory, Durability::Normal, &Arc::new(RunLog::none())).unwrap();
    assert_eq!((recovery.pruned, second.pruned, second.bindings), (0, 1, 1), "the last one keeps its place");
}

#[test]
fn the_files_are_their_owners_alone() {
    let (_home, directory) = home();
    let state = open(&directory);
    state.put(Fact::Health, &profile("a"), &1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_left_as_it_is() {
    let (_home, directory) = home();
    let path = directory.join("state.db");
    let mut errors = Vec::new();
    let mut expect = |what: &str, text: &[u8]| {
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(&path, text).unwrap();
        let error = State::open(&directory, Durability::Normal, &Arc::new(RunLog::none())).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), text, "{what}");
        let told = crate::control::describe(&error).replace(&directory.display().to_string(), "STATE");
        errors.push(format!("{what}: {told}"));
    };
    expect("text", b"this is a letter");
    let mut header = b"SQLite format 3\0".to_vec();
    header.resize(4096, 0xAA);
    expect("damaged", &header);
    std::fs::remove_file(&path).unwrap();
    let binding = |number: i64| Binding {
        tie: Tie::Session,
        id: number.to_string(),
        profile: profile("a"),
        at: Now::read().unix,
    };
    import(&directory, Durability::Normal, (0..1000).map(binding).collect()).unwrap();
    let mut pages = std::fs::read(&path).unwrap();
    pages[2 * 4096..].fill(0xAA);
    expect("damaged within", &pages);
    std::fs::remove_file(&path).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let newer = std::fs::read(&path).unwrap();
    expect("newer", &newer);
    insta::assert_snapshot!(errors.join("\n"));
}

#[tokio::test]
async fn what_is_too_old_goes_while_a_run_lasts_and_a_little_with_each_commit() {
    const OLD: usize = 5000;
    let (_home, directory) = home();
    let state = open(&directory);
    let old = Now::read().unix - database::KEPT - 1;
    let database = Connection::open(directory.join("state.db")).unwrap();
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {OLD})
         INSERT INTO binding (tie, id, profile, at) SELECT 1, randomblob(16), 'one', {old} FROM n"
    );
    database.execute(&fill, []).unwrap();
    let left = || -> usize {
        let count = "SELECT count(*) FROM binding WHERE at = ?1";
        database.query_row(count, [old], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
    };
    let (mut before, mut longest) = (left(), Duration::ZERO);
    for number in 0.. {
        let began = std::time::Instant::now();
        let ticket = state.bind(Tie::Response, &format!("r{number}"), &profile("one"));
        settle(&state, ticket).await;
        longest = longest.max(began.elapsed());
        let now = left();
        assert!(before - now <= 256, "one transaction takes no more: {}", before - now);
        before = now;
        if now == 0 {
            break;
        }
        assert!(number < 100, "{now} are left");
    }
    println!("the longest wait for a commit while {OLD} were pruned: {longest:?}");
}
