//! The labels of the shards, as `manifest/tests.toml` lists them; all else in that file is not read here.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use super::mistake::Mistake;
use super::rules::is_id;

/// Where the shards stand in the repository.
pub const FILE: &str = "manifest/tests.toml";

/// A part of the tests that CI runs in a job of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardLabel {
    /// Its name in the matrix.
    pub label: String,
    /// The crates whose tests are in it; none: it may hold tests of any crate.
    pub packages: BTreeSet<String>,
}

/// Reads the `[[shard]]` entries of the file, in their order.
///
/// # Errors
///
/// The first mistake, with its place: not TOML, a label that needs quoting somewhere, or one given twice.
pub fn read(text: &str) -> Result<Vec<ShardLabel>, Box<Mistake>> {
    let file: File = toml::from_str(text).map_err(|error| Mistake::of_toml((FILE, text), &error))?;
    let mut seen = BTreeSet::new();
    let mut shards = Vec::new();
    for Entry { label, packages } in file.shards {
        let (place, label) = (label.span(), label.into_inner());
        if !is_id(&label) {
            let right = "a lower-case letter, then such letters, digits, `-`, `_` and `.`";
            return Err(Mistake::new((FILE, text), place, format!("`{label}` is no label"), right));
        }
        if !seen.insert(label.clone()) {
            let problem = format!("the label `{label}` is taken");
            return Err(Mistake::new((FILE, text), place, problem, "a label of its own"));
        }
        shards.push(ShardLabel { label, packages });
    }
    Ok(shards)
}

#[derive(Deserialize)]
struct File {
    #[serde(default, rename = "shard")]
    shards: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    label: Spanned<String>,
    #[serde(default)]
    packages: BTreeSet<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_read_in_their_order_and_all_else_is_left_alone() {
        let text = "version = 1\n[[case]]\nid = 3\n[[shard]]\nlabel = \"b\"\nfilter = \"all()\"\n\
                    [[shard]]\nlabel = \"a\"\npackages = [\"wire\"]\n";
        let shards = read(text).expect("the file is right");
        let shown: Vec<_> = shards.iter().map(|shard| (shard.label.as_str(), shard.packages.len())).collect();
        assert_eq!(shown, [("b", 0), ("a", 1)]);
        assert_eq!(read("").expect("the file is right"), []);
    }

    #[test]
    fn a_label_that_cannot_stand_in_a_matrix_is_refused_with_its_place() {
        let cases = [
            ("[[shard]]\nlabel = \"$(id)\"\n", "`$(id)` is no label", "\"$(id)\""),
            ("[[shard]]\nlabel = \"a\"\n[[shard]]\nlabel = \"a\"\n", "the label `a` is taken", "\"a\""),
            ("[[shard]]\nlabel = 1\n", "invalid type", "1"),
        ];
        for (text, problem, place) in cases {
            let error = read(text).expect_err(text);
            assert!(error.problem.starts_with(problem), "{}", error.problem);
            assert_eq!(&text[error.place.offset()..][..error.place.len()], place);
        }
    }
}
