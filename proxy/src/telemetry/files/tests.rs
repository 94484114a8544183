//! Parts, limits and full disks, by example.

use std::collections::BTreeSet;

use super::*;

/// A line of so many bytes.
fn line(number: usize, length: usize) -> Vec<u8> {
    let mut line = format!("{number:0width$}", width = length - 1).into_bytes();
    line.push(b'\n');
    line
}

fn files(directory: &Path, file: u64, total: u64) -> Files {
    Files::create(directory, Limits { file, total }).unwrap()
}

fn logs(directory: &Path) -> BTreeSet<String> {
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(SUFFIX)).collect()
}

#[test]
fn no_line_is_lost_or_torn_between_the_parts() {
    let home = tempfile::tempdir().unwrap();
    let mut files = files(home.path(), 1000, 1_000_000);
    let mut all = Vec::new();
    for (at, length) in [7, 300, 999, 1000, 1001, 5000, 1, 400, 400, 400].into_iter().enumerate() {
        let lines: Vec<u8> = (0..at).flat_map(|n| line(n, length + 1)).chain(line(at, length + 1)).collect();
        assert_eq!(files.write(&lines).lost, 0);
        all.extend(lines);
        let pointed = fs::read_to_string(home.path().join(POINTER)).unwrap();
        assert_eq!(Path::new(pointed.trim()), files.path(), "the pointer is right at every moment");
    }
    let parts = parts(&files.path()).unwrap();
    assert_eq!(parts.len(), usize::try_from(files.complete).unwrap() + 1);
    assert!(parts.is_sorted() && parts.len() > 20, "{}", parts.len());
    let mut read = Vec::new();
    for (at, path) in parts.iter().enumerate() {
        let text = fs::read(path).unwrap();
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let of_run = if at == 0 { &lines[..] } else { &lines[1..] };
        assert!(text.len() <= 1000 || of_run.len() == 1, "{path:?}: {}", text.len());
        assert!(at == 0 || lines[0].starts_with(b"{\"timestamp\""), "each says which part ended before it");
        read.extend(of_run.concat());
    }
    assert!(read == all, "every line in its order");
}

#[test]
fn all_files_together_have_a_limit_and_those_that_are_written_stay() {
    let home = tempfile::tempdir().unwrap();
    let quiet_path = home.path().join("prodex-runtime-2-20260101T000000000.jsonl");
    let quiet = create(&quiet_path).unwrap();
    quiet.set_modified(SystemTime::now() - 2 * KEPT).unwrap();
    let old = home.path().join("prodex-runtime-1-20260101T000000000.000001.jsonl");
    fs::write(&old, line(1, 900)).unwrap();
    let foreign = home.path().join("notes.jsonl");
    fs::write(&foreign, line(1, 900)).unwrap();
    for path in [&old, &foreign] {
        File::options().append(true).open(path).unwrap().set_modified(SystemTime::now() - 2 * KEPT).unwrap();
    }
    let mut busy = files(home.path(), 1000, 10_000);
    for number in 0..100 {
        busy.write(&line(number, 400));
        let total: u64 = logs(home.path())
            .iter()
            .filter(|name| *name != "notes.jsonl")
            .map(|name| fs::metadata(home.path().join(name)).unwrap().len())
            .sum();
        assert!(total <= 10_000, "{total}");
    }
    assert!(!old.exists() && foreign.exists() && quiet_path.exists() && busy.path().exists());
    let last = fs::read_to_string(busy.path()).unwrap();
    assert!(last.ends_with("99\n"), "{last}");
}

#[test]
fn a_directory_that_takes_no_other_file_gets_a_longer_one() {
    let home = tempfile::tempdir().unwrap();
    let mut files = files(home.path(), 1000, 10_000);
    // A part of that name can be made by nobody.
    for part in 1..=3 {
        fs::create_dir(home.path().join(part_name(&files.name, part).unwrap())).unwrap();
    }
    for number in 0..20 {
        assert_eq!(files.write(&line(number, 400)).lost, 0);
    }
    let text: Vec<u8> =
        parts(&files.path()).unwrap().iter().filter_map(|path| fs::read(path).ok()).flatten().collect();
    let numbers = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.parse::<u64>().ok());
    assert!(numbers.eq(0..20));
    assert_eq!(files.complete + 3, files.part, "what could not be begun is no part");
}

#[test]
fn what_cannot_be_begun_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut files = files(home.path(), 1000, 10_000);
    for part in 1..100 {
        fs::create_dir(home.path().join(part_name(&files.name, part).unwrap())).unwrap();
    }
    for number in 0..20 {
        assert_eq!(files.write(&line(number, 400)).lost, 0);
    }
    assert_eq!((files.complete, logs(home.path()).len()), (0, 100), "the log and the directories in its way");
}

#[test]
fn a_log_that_somebody_deletes_is_begun_anew() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("logs");
    let mut files = files(&directory, 1000, 10_000);
    for (number, deleted) in [None, Some(files.path()), Some(directory.clone()), None].into_iter().enumerate()
    {
        if let Some(path) = deleted {
            let is_directory = path.is_dir();
            if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        assert_eq!(files.write(&line(number, 400)).lost, 0);
        let pointed = fs::read_to_string(directory.join(POINTER)).unwrap();
        assert!(fs::read(pointed.trim()).unwrap().ends_with(&line(number, 400)), "{number}");
    }
    assert_eq!(fs::read(files.path()).unwrap().len(), 800, "what was written since");
}

#[test]
fn thousands_of_logs_are_looked_through_and_not_looked_through_again_at_once() {
    let home = tempfile::tempdir().unwrap();
    for number in 0..5000 {
        let name = format!("{PREFIX}{number}-20260101T000000000{SUFFIX}");
        fs::write(home.path().join(name), line(number, 100)).unwrap();
    }
    let mut files = files(home.path(), 1000, 100_000);
    let now = Now::read();
    files.tidy_if_due(now);
    assert_eq!(logs(home.path()).len(), 990 + 1, "as many as there is room for, beside a file");
    fs::write(home.path().join("prodex-runtime-0-x.jsonl"), [0; 90_000]).unwrap();
    files.tidy_if_due(now);
    assert_eq!(logs(home.path()).len(), 992);
    // By either clock.
    files.tidy_if_due(Now { unix: now.unix + 3600, ..now });
    assert!(logs(home.path()).len() < 992);
}

/// A disk with room for so many bytes.
struct Disk(Vec<u8>, usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.1 - self.0.len());
        self.0.extend_from_slice(&bytes[..count]);
        if count == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(count) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_a_full_disk_cut_off_spoils_no_other() {
    let mut output = Output { to: Disk(Vec::new(), 6), is_torn: false };
    let written = output.write(b"one\ntwo\nthree\n");
    assert_eq!((written.lost, written.error.unwrap().kind()), (2, ErrorKind::StorageFull));
    assert_eq!(output.write(b"four\n").lost, 1, "there is still no room");
    output.to.1 = 100;
    assert_eq!(output.write(b"five\n").lost, 0);
    assert_eq!(output.to.0, b"one\ntw\nfive\n");
    output.to.1 = output.to.0.len();
    assert_eq!(output.write(b"six\n").lost, 1);
    output.to.1 = 100;
    assert_eq!(output.write(b"seven\n").lost, 0);
    assert_eq!(output.to.0, b"one\ntw\nfive\nseven\n");
}
