//! How the files of a run log are named, so that they sort as they were written.
//!
//! A run writes `prodex-runtime-PID-START.jsonl`, and that is where its newest lines are at every moment. When
//! the file has its size, what is in it becomes a part, `prodex-runtime-PID-START.000001.jsonl`, and an empty
//! one takes its place: the parts of a run sort by their number, and before the file that is written.

/// How the name of a log begins.
pub const PREFIX: &str = "prodex-runtime-";

/// How the name of a log ends.
pub const SUFFIX: &str = ".jsonl";

/// The file that names the newest run log of its directory.
pub const POINTER: &str = "prodex-runtime-latest.path";

/// How many digits the number of a part has.
const DIGITS: usize = 6;

/// The name of a part of the log with this name. None if that is no log's.
#[must_use]
pub fn part_name(log: &str, number: u32) -> Option<String> {
    Some(format!("{}.{number:0DIGITS$}{SUFFIX}", log.strip_suffix(SUFFIX)?))
}

/// Which part of the log with this name a file is, by its own name. None if it is none.
#[must_use]
pub fn part_number(log: &str, name: &str) -> Option<u32> {
    let number = name.strip_prefix(log.strip_suffix(SUFFIX)?)?.strip_prefix('.')?.strip_suffix(SUFFIX)?;
    let is_number = number.len() >= DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_run_sort_as_it_was_written() {
        let log = "prodex-runtime-12-20261120T055640692.jsonl";
        let part = |number| part_name(log, number).unwrap();
        assert_eq!(part(1), "prodex-runtime-12-20261120T055640692.000001.jsonl");
        let names = [part(1), part(2), part(10), part(123_456), log.to_owned()];
        assert!(names.is_sorted(), "{names:?}");
        let numbers: Vec<_> = names.iter().map(|name| part_number(log, name)).collect();
        assert_eq!(numbers, [Some(1), Some(2), Some(10), Some(123_456), None]);
        for other in
            ["prodex-runtime-12-20261120T055640692.1.jsonl", "prodex-runtime-1.000001.jsonl", "", "é"]
        {
            assert_eq!(part_number(log, other), None, "{other}");
        }
        assert_eq!(part_name("notes.txt", 1), None);
    }
}
