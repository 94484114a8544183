//! Where in a text something stands: lines from offsets, and TOML values with their lines.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The line, from 1, that the byte at `offset` of `text` is in.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// A table of a TOML file that knows the lines of its entries.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    text: &'a str,
    entries: &'a DeTable<'a>,
}

/// An entry of a TOML table.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    /// The key.
    pub(super) key: &'a str,
    /// The line of the key, from 1.
    pub(super) line: usize,
    text: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Table<'a> {
    /// The root table of `text`, parsed into `entries`.
    pub(super) fn new(text: &'a str, entries: &'a DeTable<'a>) -> Self {
        Self { text, entries }
    }

    /// All entries, sorted by key.
    pub(super) fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        self.entries.iter().map(move |(key, value)| Entry {
            key: key.get_ref(),
            line: line_at(self.text, key.span().start),
            text: self.text,
            value,
        })
    }

    /// The entry with this key.
    pub(super) fn entry(self, key: &str) -> Option<Entry<'a>> {
        self.entries().find(|entry| entry.key == key)
    }

    /// The table with this key.
    pub(super) fn table(self, key: &str) -> Option<Table<'a>> {
        self.entry(key)?.table()
    }
}

impl<'a> Entry<'a> {
    /// The value as a table.
    pub(super) fn table(self) -> Option<Table<'a>> {
        Some(Table { text: self.text, entries: self.value.get_ref().as_table()? })
    }

    /// Whether the value is `{ workspace = true, … }`.
    pub(super) fn is_inherited(self) -> bool {
        let workspace = self.table().and_then(|table| table.entry("workspace"));
        workspace.is_some_and(|entry| entry.value.get_ref().as_bool() == Some(true))
    }
}
