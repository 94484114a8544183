//! New thresholds put into the file, with its comments, its order and its spelling left as they are.

use anyhow::{Context, Result};
use toml_edit::{DocumentMut, Item, Table, value};

use super::Threshold;

/// The file with new thresholds for these cases; cases that it lacks come last, in the order given.
pub(crate) fn written<'a>(
    content: &str,
    cases: impl IntoIterator<Item = (&'a str, Threshold)>,
) -> Result<String> {
    let mut document: DocumentMut = content.parse().context("the thresholds are no TOML")?;
    let mut implicit = Table::new();
    implicit.set_implicit(true);
    let tables = document.entry("case").or_insert(Item::Table(implicit));
    let tables = tables.as_table_mut().context("`case` is no table")?;
    for (name, threshold) in cases {
        let table = tables.entry(name).or_insert_with(|| Item::Table(Table::new()));
        let table = table.as_table_mut().with_context(|| format!("`{name}` is no table"))?;
        if let Some(time) = threshold.time {
            put(table, "ratio", time.ratio.into());
            put(table, "scale", i64::from(time.scale).into());
        }
        if let Some(count) = threshold.instructions {
            put(table, "instructions", i64::try_from(count).unwrap_or(i64::MAX).into());
        }
    }
    Ok(document.to_string())
}

/// Sets a value, and leaves what stands around it. One that is right already keeps its spelling.
fn put(table: &mut Table, key: &str, new: toml_edit::Value) {
    let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) else {
        table.insert(key, value(new));
        return;
    };
    let is_same = match (old.as_integer(), old.as_float(), new.as_integer(), new.as_float()) {
        (Some(old), _, Some(new), _) => old == new,
        (_, Some(old), _, Some(new)) => old == new,
        _ => false,
    };
    if !is_same {
        let decor = old.decor().clone();
        *old = new;
        *old.decor_mut() = decor;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::thresholds::Allowed;
    use crate::thresholds::tests::{FILE, read};

    fn threshold(ratio: f64, scale: u32, instructions: u64) -> Threshold {
        Threshold { time: Some(Allowed { ratio, scale }), instructions: Some(instructions) }
    }

    #[test]
    fn comments_stay_and_only_what_changes_is_rewritten() {
        let text = written(FILE, [("sse/one-write", threshold(2.0, 140, 1000))]).unwrap();
        assert_eq!(text, FILE.replace("scale = 125", "scale = 140"));
        let text = written(FILE, [("sse/one-write", threshold(1.5, 125, 1000))]).unwrap();
        assert_eq!(text, FILE.replace("ratio = 2.0 #", "ratio = 1.5 #"));
    }

    #[test]
    fn a_new_case_comes_last() {
        let text = written(FILE, [("a/b", threshold(1.25, 125, 7))]).unwrap();
        let added = "\n[case.\"a/b\"]\nratio = 1.25\nscale = 125\ninstructions = 7\n";
        assert_eq!(text, format!("{FILE}{added}"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ratio in 1e-6..1e6_f64, scale in 1..100_000_u32, count in 1..u64::MAX / 2, name in "[a-z]{1,4}/[a-z0-9-]{1,9}") {
            let new = threshold(ratio, scale, count);
            let read = read(&written(FILE, [(name.as_str(), new)]).unwrap());
            prop_assert_eq!(read.cases[&name], new);
            prop_assert_eq!(read.cases.len(), 2);
        }
    }
}
