//! Adding to the manifest what can be added: cases for tests that have none.
//!
//! The rest of the file stays as it was written.

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, TomlError, value};

use crate::case::Tag;

/// Tests that need a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unowned {
    /// A name for the case.
    pub id: String,
    /// A filter that matches them and no other test.
    pub filter: String,
}

/// The manifest with a parallel-safe case for each of these.
///
/// # Errors
/// When the text is not TOML.
pub fn with_cases(text: &str, unowned: &[Unowned]) -> Result<String, TomlError> {
    let mut document: DocumentMut = text.parse()?;
    let cases = document.entry("case").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(cases) = cases.as_array_of_tables_mut() else { return Ok(text.to_owned()) };
    let taken: Vec<String> =
        cases.iter().filter_map(|case| Some(case.get("id")?.as_str()?.to_owned())).collect();
    for new in unowned {
        let ids = std::iter::once(new.id.clone()).chain((2..).map(|number| format!("{}-{number}", new.id)));
        let id = ids.into_iter().find(|id| !taken.contains(id)).unwrap_or_default();
        let mut table = Table::new();
        table.insert("id", value(id));
        table.insert("filter", value(&new.filter));
        table.insert("tags", value(Array::from_iter([Tag::ParallelSafe.name()])));
        table.decor_mut().set_prefix("\n");
        cases.push(table);
    }
    Ok(document.to_string())
}
