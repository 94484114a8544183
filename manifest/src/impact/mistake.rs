//! A mistake in a file that a person wrote, with its place and what would be right there.

use std::ops::Range;

use miette::{Diagnostic, NamedSource, SourceSpan};

/// A mistake, with its place.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{problem}")]
pub struct Mistake {
    pub(super) problem: String,
    #[help]
    right: &'static str,
    #[source_code]
    text: NamedSource<String>,
    #[label("here")]
    pub(super) place: SourceSpan,
}

impl Mistake {
    /// Boxed, because it carries the whole file.
    pub(super) fn new(
        (file, text): (&str, &str),
        place: Range<usize>,
        problem: impl Into<String>,
        right: &'static str,
    ) -> Box<Self> {
        let text = NamedSource::new(file, text.to_owned());
        Box::new(Self { problem: problem.into(), right, text, place: place.into() })
    }

    /// Where in the file it stands, in bytes.
    pub fn offset(&self) -> usize {
        self.place.offset()
    }

    /// What would be right.
    pub fn right(&self) -> &str {
        self.right
    }

    /// What TOML has against the file.
    pub(super) fn of_toml(file: (&str, &str), error: &toml::de::Error) -> Box<Self> {
        let right = "the keys and values that the other entries have";
        Self::new(file, error.span().unwrap_or_default(), error.message(), right)
    }
}
