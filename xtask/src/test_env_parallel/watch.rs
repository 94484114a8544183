//! What tests can change of the process they share, looked at from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use super::environ;

/// A process at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    variables: BTreeMap<String, String>,
    directory: PathBuf,
    /// What its open files are, as the kernel names them.
    files: Vec<String>,
}

/// How many sockets, pipes and the like a process may keep: runtimes keep some for as long as they live.
const ANONYMOUS: usize = 32;

impl State {
    /// Looks at a process, whose variables are at `address`; `None` where that cannot be done any more.
    pub(super) fn of(pid: u32, address: u64) -> Option<Self> {
        // It runs on while it is looked at: what is seen twice was really there.
        let mut last = Self::look(pid, address)?;
        for _ in 0..3 {
            let now = Self::look(pid, address)?;
            if (&now.variables, &now.directory) == (&last.variables, &last.directory) {
                return Some(now);
            }
            last = now;
        }
        None
    }

    fn look(pid: u32, address: u64) -> Option<Self> {
        let variables = environ::read(pid, address).ok()?;
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let files = files.filter_map(|file| fs::read_link(file.path()).ok());
        let files = files.map(|file| file.to_string_lossy().into_owned()).collect();
        Some(Self { variables, directory, files })
    }

    /// What of variables and directory is not as it was.
    pub(super) fn changes(&self, before: &Self) -> Vec<String> {
        let names: BTreeSet<_> = before.variables.keys().chain(self.variables.keys()).collect();
        let changed =
            names.into_iter().filter(|name| self.variables.get(*name) != before.variables.get(*name));
        let mut changes: Vec<_> = changed.map(|name| format!("the variable {name}")).collect();
        if self.directory != before.directory {
            changes.push("the working directory".to_owned());
        }
        changes
    }

    /// What is open that was not, once no test runs any more.
    pub(super) fn left_open(&self, before: &Self) -> Vec<String> {
        let mut known = before.files.clone();
        let mut new: Vec<_> = self.files.iter().filter(|file| !take(&mut known, file)).cloned().collect();
        let anonymous = new.iter().filter(|file| !file.starts_with('/')).count();
        new.retain(|file| file.starts_with('/') && !file.starts_with("/dev/") && !file.starts_with("/proc/"));
        if anonymous > ANONYMOUS {
            new.push(format!("{anonymous} sockets and pipes"));
        }
        new
    }
}

/// Takes one of these out of the list.
fn take(list: &mut Vec<String>, wanted: &str) -> bool {
    let found = list.iter().position(|entry| entry == wanted);
    found.map(|index| list.swap_remove(index)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(variables: &[(&str, &str)], files: &[&str]) -> State {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        State { variables: variables.collect(), directory: PathBuf::from("/a"), files }
    }

    #[test]
    fn a_variable_that_is_new_gone_or_different_is_a_change() {
        let before = state(&[("A", "1"), ("B", "2"), ("C", "3")], &[]);
        let mut after = state(&[("A", "1"), ("B", "9"), ("D", "4")], &[]);
        assert_eq!(after.changes(&before), ["the variable B", "the variable C", "the variable D"]);
        after = State { directory: PathBuf::from("/b"), ..before.clone() };
        assert_eq!(after.changes(&before), ["the working directory"]);
        assert!(before.changes(&before).is_empty());
    }

    #[test]
    fn files_that_stay_open_are_named_and_what_runtimes_keep_is_not() {
        let before = state(&[], &["/dev/null", "pipe:[1]"]);
        let after = state(&[], &["/dev/null", "pipe:[1]", "socket:[2]", "/tmp/a", "/tmp/a"]);
        assert_eq!(after.left_open(&before), ["/tmp/a", "/tmp/a"]);
    }
}
