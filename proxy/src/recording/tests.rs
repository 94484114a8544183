//! The recorder without a server: what is too much, and what the disk does not take.

use super::*;
use wire::capture::{Entry, Record};

fn event(at: f64, what: What) -> Event {
    Event { key: 1, at, what }
}

/// What the files of a directory say, in the order of their names.
fn records(directory: &Path) -> Vec<Record> {
    let mut files: Vec<_> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: std::path::PathBuf| {
        #[expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Record>>()
    };
    files.into_iter().flat_map(read).collect()
}

fn ends(records: &[Record]) -> Vec<(bool, Option<String>)> {
    let end = |record: &Record| match &record.entry {
        Entry::ExchangeEnd(end) => Some((end.partial, end.reason.clone())),
        _ => None,
    };
    records.iter().filter_map(end).collect()
}

const ASKED: &[u8] = b"GET /k/cap/v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer cap\r\n\r\n";

/// Writes these events and nothing else.
fn written(events: Vec<Event>, directory: &Path) {
    let shared = Shared::default();
    for event in events {
        assert!(shared.push(event, 1, false));
    }
    shared.waiting().is_closed = true;
    writer::run(&shared, Files::open(directory).unwrap().0, Some(&Secret::new("cap")));
}

#[test]
fn what_there_is_no_room_for_is_not_taken_and_said() {
    let shared = Shared::default();
    let bytes = || What::Received(Bytes::from_static(ASKED));
    assert!(shared.push(event(0.0, bytes()), MAX_WAITING, false));
    assert!(!shared.push(event(1.0, bytes()), 1, false), "there is no room");
    assert!(shared.push(event(1.0, What::Lost), 1, true), "but for this");
    let directory = tempfile::tempdir().unwrap();
    written(
        vec![
            event(0.0, bytes()),
            event(1.0, What::Lost),
            event(2.0, What::Sent(Bytes::from_static(b"HTTP/1.1 204 No Content\r\n\r\n"))),
            event(3.0, What::Closed(Closing::ByClient)),
        ],
        directory.path(),
    );
    let records = records(directory.path());
    let reason = "the recorder could not keep up with the traffic".to_owned();
    assert_eq!(ends(&records), [(true, Some(reason))]);
    let Entry::Request(request) = &records[1].entry else { panic!("{records:?}") };
    assert_eq!((request.url.as_str(), request.headers[1].1.as_str()), ("/v1/models", "Bearer ***"));
    let head = String::from_utf8(request.head.clone().unwrap().0).unwrap();
    assert_eq!(head, "GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ***\r\n\r\n");
}

#[test]
fn a_connection_that_finds_no_room_goes_on_and_is_partial() {
    let shared = Arc::new(Shared::default());
    let (of_recorder, writer) = (Arc::clone(&shared), Mutex::new(None));
    let (started, connections) = (Instant::now(), AtomicU64::new(0));
    let recorder = Arc::new(Recorder { shared: of_recorder, started, connections, writer });
    let mut tap = Tap::new(&recorder, recorder.connection(), Closing::ByServer);
    tap.received(b"POST / HTTP/1.1\r\nContent-Length: 900000000\r\n\r\n");
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        tap.received(&megabyte);
    }
    let events = shared.waiting().events.len();
    assert!(tap.is_lost && (60..66).contains(&events), "{events}");
    drop(tap);
    shared.waiting().is_closed = true;
    let directory = tempfile::tempdir().unwrap();
    writer::run(&shared, Files::open(directory.path()).unwrap().0, None);
    let reason = "the recorder could not keep up with the traffic".to_owned();
    assert_eq!(ends(&records(directory.path())), [(true, Some(reason))]);
}

#[test]
fn what_is_open_at_the_end_is_partial() {
    let directory = tempfile::tempdir().unwrap();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    let sent = What::Sent(Bytes::from_static(answer));
    written(vec![event(0.0, What::Received(Bytes::from_static(ASKED))), event(1.0, sent)], directory.path());
    let reason = "the program was told to end and did not wait any longer".to_owned();
    assert_eq!(ends(&records(directory.path())), [(true, Some(reason))]);
}

#[test]
fn a_directory_that_is_gone_stops_nothing() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("recordings");
    let mut files = Files::open(&directory).unwrap().0;
    let request = |id| {
        let limits = wire::capture::Limits { exchange: 9, cut_is_missing: true };
        let (mut draft, mut notes) = (wire::capture::Draft::new(id, 1, 0.0, limits), Vec::new());
        draft.finish(1.0, Closing::ByClient, &mut notes);
        notes
    };
    std::fs::remove_dir_all(&directory).unwrap();
    request(1).into_iter().for_each(|note| files.note(1, note));
    assert_eq!(files.failed(), 1);
    std::fs::create_dir(&directory).unwrap();
    request(2).into_iter().for_each(|note| files.note(2, note));
    assert_eq!(files.failed(), 1);
    assert_eq!(ends(&records(&directory)).len(), 1, "only of what has a beginning");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
fn a_disk_that_was_full_for_a_while_leaves_a_partial_file() {
    let home = tempfile::tempdir().unwrap();
    let mut files = Files::open(home.path()).unwrap().0;
    let limits = wire::capture::Limits { exchange: 99, cut_is_missing: true };
    let (mut draft, mut notes) = (wire::capture::Draft::new(1, 1, 0.0, limits), Vec::new());
    draft.request_fields("GET", "/", "2", Headers::new());
    draft.end_request();
    draft.tell(&mut notes);
    notes.drain(..).for_each(|note| files.note(1, note));
    files.write();
    let path = home.path().read_dir().unwrap().next().unwrap().unwrap().path();
    let aside = home.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    draft.response_fields(1.0, 200, Headers::new());
    draft.end_answer();
    draft.tell(&mut notes);
    notes.drain(..).for_each(|note| files.note(1, note));
    files.write();
    std::fs::rename(&aside, &path).unwrap();
    draft.finish(2.0, Closing::ByServer, &mut notes);
    notes.drain(..).for_each(|note| files.note(1, note));
    assert_eq!(files.failed(), 1);
    let records = records(home.path());
    assert_eq!(records.len(), 3, "{records:?}");
    let reason = ends(&records).remove(0).1.unwrap();
    assert!(reason.starts_with("it could not be written: No space left"), "{reason}");
}

#[test]
fn a_place_that_takes_no_file_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    #[expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
    std::fs::write(&file, "").unwrap();
    assert!(Files::open(&file.join("below")).is_err());
    assert!(Files::open(&file).is_err());
}
