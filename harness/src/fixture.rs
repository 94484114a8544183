//! Fixtures: scrubbed captures of real clients, below `fixtures/replay/<client>/`, each with its certificate.
//!
//! A fixture is JSON lines as `wire::capture` has them, packed if there are many; the first record of ours says
//! where it comes from. One whose certificate is missing or does not match its bytes does not load: it may hold
//! somebody's secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use wire::capture::{Entry, Exchange, ExchangeError, Meta, Record, exchanges};

use crate::capture::normal::Records;
use crate::capture::{CaptureError, Format, Options, Reader, packed};
use crate::scrub::{Certificate, Mismatch};

/// Why fixtures cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// A file or directory cannot be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is asked for is no pattern.
    #[error("read {pattern:?} as a pattern of fixtures' names")]
    Pattern {
        /// What was asked for.
        pattern: String,
        /// Why.
        #[source]
        source: globset::Error,
    },
    /// There are two of one name.
    #[error("tell which is {name}: {path} lies beside the same without `.zst`; remove one")]
    Twice {
        /// The name.
        name: String,
        /// The packed one.
        path: PathBuf,
    },
    /// Its certificate is none.
    #[error("read {path} as a certificate")]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is not what was certified.
    #[error("trust {path}: it is not what was scrubbed; pass the recording through compat-capture again")]
    Uncertified {
        /// The fixture.
        path: PathBuf,
        /// Why.
        #[source]
        source: Mismatch,
    },
    /// A line is no record.
    #[error(transparent)]
    Record(#[from] CaptureError),
    /// Records do not belong together.
    #[error("put {path} together")]
    Exchanges {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ExchangeError,
    },
}

/// A fixture.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// Its path below the library, without its ending: `codex/0.169.0/chatgpt-tls-simple`.
    pub name: String,
    /// Where it comes from, as far as it says.
    pub meta: Meta,
    /// What it holds.
    pub exchanges: Vec<Exchange>,
}

/// A directory of fixtures.
#[derive(Debug, Clone)]
pub struct Library {
    root: PathBuf,
    /// The names of its fixtures, in order.
    names: Vec<String>,
    /// Of them, those whose file is packed.
    packed: BTreeSet<String>,
}

impl Library {
    /// Finds the fixtures below a directory: `NAME.jsonl`, or `NAME.jsonl.zst` where it is packed.
    ///
    /// # Errors
    /// When a directory cannot be read, or a fixture is there in both forms.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, FixtureError> {
        let root = root.into();
        let mut found = BTreeMap::new();
        let mut open = vec![root.clone()];
        while let Some(directory) = open.pop() {
            let failed = |source| FixtureError::Read { path: directory.clone(), source };
            for entry in std::fs::read_dir(&directory).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.is_dir() {
                    open.push(path);
                } else if let Some(name) = name_of(&path, &root)
                    && found.insert(name.clone(), packed::is_packed(&path)).is_some()
                {
                    let path = root.join(format!("{name}{PACKED}"));
                    return Err(FixtureError::Twice { name, path });
                }
            }
        }
        let packed =
            found.iter().filter(|(_, is_packed)| **is_packed).map(|(name, _)| name.clone()).collect();
        Ok(Self { root, names: found.into_keys().collect(), packed })
    }

    /// The names of all fixtures, in order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The names that match one of these patterns; all without a pattern. `*` matches within a part of the
    /// name, `**` over several; a plain name matches itself.
    ///
    /// # Errors
    /// When a pattern is none.
    pub fn select(&self, patterns: &[String]) -> Result<Vec<&str>, FixtureError> {
        let set = pattern(patterns)?;
        let names = self.names.iter().map(String::as_str);
        Ok(names.filter(|name| patterns.is_empty() || set.is_match(name)).collect())
    }

    /// Where a fixture is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        let ending = if self.packed.contains(name) { PACKED } else { PLAIN };
        self.root.join(format!("{name}{ending}"))
    }

    fn certificate(&self, name: &str) -> Result<Certificate, FixtureError> {
        let path = self.root.join(format!("{name}{CERTIFICATE}"));
        let text =
            std::fs::read(&path).map_err(|source| FixtureError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| FixtureError::Certificate { path, source })
    }

    /// Loads a fixture.
    ///
    /// # Errors
    /// When it cannot be read, has no valid certificate, or is no capture.
    pub fn load(&self, name: &str) -> Result<Fixture, FixtureError> {
        let path = self.path(name);
        let certificate = self.certificate(name)?;
        // It is read twice, so that nothing is made of what nobody vouches for, and nothing is held whole.
        let bytes =
            packed::open(&path).map_err(|source| FixtureError::Read { path: path.clone(), source })?;
        certificate
            .check(bytes)
            .map_err(|source| FixtureError::Uncertified { path: path.clone(), source })?;
        let options = Options { format: Some(Format::JsonLines), ..Options::default() };
        let reader = Reader::open(&path, options)?;
        let records = Records::new(reader, false).collect::<Result<Vec<Record>, _>>()?;
        let meta = match records.first() {
            Some(Record { entry: Entry::Meta(meta), .. }) => meta.clone(),
            _ => Meta::default(),
        };
        let exchanges =
            exchanges(&records).map_err(|source| FixtureError::Exchanges { path: path.clone(), source })?;
        Ok(Fixture { name: name.to_owned(), meta, exchanges })
    }
}

/// What the names of files end in: of a fixture as it is, of a packed one, and of the certificate of both, which
/// speaks of the bytes as they are.
const PLAIN: &str = ".jsonl";
const PACKED: &str = ".jsonl.zst";
const CERTIFICATE: &str = ".jsonl.cert.json";

/// The name of the fixture that this file is, if it is one.
fn name_of(path: &Path, root: &Path) -> Option<String> {
    let name = path.strip_prefix(root).ok()?.to_str()?;
    name.strip_suffix(PLAIN).or_else(|| name.strip_suffix(PACKED)).map(str::to_owned)
}

/// One matcher for all of these patterns of names.
///
/// # Errors
/// When a pattern is none.
pub fn pattern(patterns: &[String]) -> Result<GlobSet, FixtureError> {
    let failed = |pattern: &str| {
        let pattern = pattern.to_owned();
        move |source| FixtureError::Pattern { pattern, source }
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(failed(pattern))?);
    }
    set.build().map_err(failed(&patterns.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrub::{self, Learner, Mismatch};

    const META: &str = r#"{"ts":"2026-11-20T05:56:40.692Z","t_ms":0.0,"type":"meta","client":"codex"}"#;

    /// A library of one fixture `a/b`, scrubbed from this text.
    fn library(text: &str) -> (tempfile::TempDir, Library) {
        let root = tempfile::tempdir().unwrap();
        let mut learner = Learner::new(scrub::Options { keep_content: false });
        learner.learn(text.as_bytes()).unwrap();
        let mut line = text.as_bytes().to_vec();
        let mut scrubber = learner.finish().unwrap();
        scrubber.scrub(&mut line).unwrap();
        line.push(b'\n');
        let certificate = Certificate::new(&line[..], scrubber.options(), &scrubber.report()).unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        std::fs::write(root.path().join("a/b.jsonl"), &line).unwrap();
        let certificate = serde_json::to_vec(&certificate).unwrap();
        std::fs::write(root.path().join("a/b.jsonl.cert.json"), certificate).unwrap();
        let library = Library::open(root.path()).unwrap();
        (root, library)
    }

    #[test]
    fn a_fixture_loads_with_its_certificate_and_not_without() {
        let (root, library) = library(META);
        assert_eq!(library.names(), ["a/b"]);
        let fixture = library.load("a/b").unwrap();
        assert_eq!((fixture.meta.client.as_deref(), fixture.exchanges.len()), (Some("codex"), 0));
        let path = root.path().join("a/b.jsonl");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.push(b'\n');
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(library.load("a/b"), Err(FixtureError::Uncertified { .. })));
        std::fs::write(root.path().join("a/b.jsonl.cert.json"), "{").unwrap();
        assert!(matches!(library.load("a/b"), Err(FixtureError::Certificate { .. })));
        std::fs::remove_file(root.path().join("a/b.jsonl.cert.json")).unwrap();
        assert!(matches!(library.load("a/b"), Err(FixtureError::Read { .. })));
    }

    #[test]
    fn a_packed_fixture_loads_with_the_certificate_of_what_it_holds() {
        let (root, library) = library(META);
        let (plain, packed) = (root.path().join("a/b.jsonl"), root.path().join("a/b.jsonl.zst"));
        let bytes = packed::pack(&std::fs::read(&plain).unwrap()[..], Vec::new()).unwrap();
        std::fs::write(&packed, &bytes).unwrap();
        let both = Library::open(root.path()).unwrap_err().to_string();
        assert!(both.contains("a/b.jsonl.zst lies beside"), "{both}");
        std::fs::remove_file(plain).unwrap();
        assert!(matches!(library.load("a/b"), Err(FixtureError::Read { .. })));
        let library = Library::open(root.path()).unwrap();
        assert_eq!((library.names(), library.path("a/b")), (&["a/b".to_owned()][..], packed.clone()));
        assert_eq!(library.load("a/b").unwrap().meta.client.as_deref(), Some("codex"));
        for damaged in [&bytes[..bytes.len() / 2], b"{}\n"] {
            std::fs::write(&packed, damaged).unwrap();
            let error = library.load("a/b").unwrap_err();
            assert!(matches!(&error, FixtureError::Uncertified { source: Mismatch::Read(_), .. }), "{error}");
        }
    }

    #[test]
    fn a_recording_of_ones_own_loads_without_a_name_of_its_client() {
        let (_root, library) = library(&META.replace("client", "who"));
        assert_eq!(library.load("a/b").unwrap().meta.client, None);
    }

    #[test]
    fn every_fixture_of_ours_says_where_it_comes_from() {
        let ours = Library::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/replay")).unwrap();
        assert!(ours.names().len() >= 30, "{}", ours.names().len());
        for name in ours.names() {
            let fixture = ours.load(name).unwrap();
            let meta = &fixture.meta;
            assert!(meta.client.is_some() && meta.version.is_some() && meta.scenario.is_some(), "{name}");
            assert!(["recorded", "made", "mode"].iter().all(|key| meta.rest.contains_key(*key)), "{name}");
            assert!(!fixture.exchanges.is_empty(), "{name}");
            let missing: Vec<_> = fixture.exchanges.iter().filter_map(|one| one.missing.as_ref()).collect();
            assert!(missing.is_empty(), "{name}: {missing:?}");
        }
    }

    #[test]
    fn names_are_chosen_by_patterns() {
        let (_root, library) = library(META);
        let select = |pattern: &str| library.select(&[pattern.to_owned()]).map(|names| names.len()).ok();
        assert_eq!(select("a/b"), Some(1));
        assert_eq!(select("a/*"), Some(1));
        assert_eq!(select("*"), Some(0), "one star stays within a part");
        assert_eq!(select("**"), Some(1));
        assert_eq!(select("["), None);
        assert_eq!(library.select(&[]).unwrap(), ["a/b"]);
    }
}
