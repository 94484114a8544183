//! Scopes: a directory may be tied to profiles, and then no other serves what runs in it.
//!
//! They stand in `scopes.toml` in the home, for people to read and to write. Whatever is wrong there is an
//! error, as is a profile that is not there: a scope that cannot be kept never means all profiles.

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::store::{self, Store, StoreError, is_name};

const FILE: &str = "scopes.toml";

const HEAD: &str = "\
# Which profiles may serve what runs in a directory and below it. The nearest scope counts.
# `prodex profile scope` shows, writes and removes them.
";

/// What is wrong with scopes.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file says something that it cannot.
    #[error("{path}:{line}: {problem}; repair the file, or write it anew with `prodex profile scope`")]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A scope names a profile that is not there.
    #[error(
        "the scope of {directory} names profile {profile:?}, which is not there; take it back with `prodex \
         profile restore {profile}`, or name others with `prodex profile scope {directory} --only NAMES`"
    )]
    Missing {
        /// The directory.
        directory: String,
        /// The profile.
        profile: String,
    },
    /// A directory cannot be resolved, so nobody knows which scope it is in.
    #[error("cannot find out in which scope {path} is; name a directory that is there")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A directory that is tied to profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The directory, absolute.
    pub directory: PathBuf,
    /// The names of the profiles; at least one.
    pub profiles: Vec<String>,
}

/// The scopes of a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes {
    path: PathBuf,
    scopes: Vec<Scope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    scope: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    directory: PathBuf,
    profiles: Vec<String>,
}

impl Scopes {
    /// Reads the scopes of a home.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or anything in it is not as it should be.
    pub fn read(home: &Path) -> Result<Self, ScopeError> {
        let path = home.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(StoreError::Io { action: "read", path, source }.into()),
        };
        let scopes = parse(&text).map_err(|(at, problem)| {
            let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
            ScopeError::Broken { path: path.clone(), line, problem }
        })?;
        Ok(Self { path, scopes })
    }

    /// All of them, in the order of the file.
    #[must_use]
    pub fn all(&self) -> &[Scope] {
        &self.scopes
    }

    /// The scope of a directory: that of the nearest one above it, or of itself. Links are followed.
    ///
    /// # Errors
    /// When the directory cannot be resolved.
    pub fn of(&self, directory: &Path) -> Result<Option<&Scope>, ScopeError> {
        if self.scopes.is_empty() {
            return Ok(None);
        }
        let directory = resolve(directory)?;
        // A directory that became a link since is still meant.
        let depth = |scope: &&Scope| {
            let real = scope.directory.canonicalize().unwrap_or_else(|_| scope.directory.clone());
            let places = [&real, &scope.directory];
            places
                .into_iter()
                .filter(|place| directory.starts_with(place))
                .map(|place| place.components().count())
                .max()
        };
        Ok(self.scopes.iter().filter(|scope| depth(scope).is_some()).max_by_key(depth))
    }

    /// The directories that a profile is named for.
    #[must_use]
    pub fn of_profile(&self, name: &str) -> Vec<String> {
        let names = |scope: &&Scope| scope.profiles.iter().any(|profile| profile == name);
        self.scopes.iter().filter(names).map(|scope| scope.directory.display().to_string()).collect()
    }

    /// Ties a directory to profiles, and to no others than before if it was tied.
    ///
    /// # Errors
    /// When the directory or a profile is not there, or the disk refuses.
    pub fn set(&mut self, directory: &Path, profiles: &[String], store: &Store) -> Result<Scope, ScopeError> {
        let scope = Scope { directory: resolve(directory)?, profiles: profiles.to_vec() };
        scope.check(store)?;
        self.scopes.retain(|known| known.directory != scope.directory);
        self.scopes.push(scope.clone());
        self.scopes.sort_by(|one, two| one.directory.cmp(&two.directory));
        self.write()?;
        Ok(scope)
    }

    /// Unties a directory; whether it was tied.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear(&mut self, directory: &Path) -> Result<bool, ScopeError> {
        // One that is not there any more can be untied, too.
        let directory = resolve(directory).unwrap_or_else(|_| directory.to_owned());
        let before = self.scopes.len();
        self.scopes.retain(|scope| scope.directory != directory);
        let is_change = self.scopes.len() < before;
        if is_change {
            self.write()?;
        }
        Ok(is_change)
    }

    fn write(&self) -> Result<(), ScopeError> {
        if let Some(home) = self.path.parent() {
            store::make_directory(home)?;
        }
        Ok(store::replace(&self.path, self.text().as_bytes())?)
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for scope in &self.scopes {
            let directory = toml::Value::from(scope.directory.display().to_string());
            let profiles = toml::Value::from(scope.profiles.clone());
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[[scope]]\ndirectory = {directory}\nprofiles = {profiles}\n");
        }
        text
    }
}

impl Scope {
    /// Whether all its profiles are there.
    ///
    /// # Errors
    /// For the first that is not.
    pub fn check(&self, store: &Store) -> Result<(), ScopeError> {
        let names = store.names()?;
        match self.profiles.iter().find(|profile| !names.contains(profile)) {
            None => Ok(()),
            Some(profile) => Err(ScopeError::Missing {
                directory: self.directory.display().to_string(),
                profile: profile.clone(),
            }),
        }
    }
}

fn resolve(directory: &Path) -> Result<PathBuf, ScopeError> {
    let resolved = directory.canonicalize();
    resolved.map_err(|source| ScopeError::Directory { path: directory.to_owned(), source })
}

/// Reads the file. An error says where in the text it is.
fn parse(text: &str) -> Result<Vec<Scope>, (usize, String)> {
    let file: File = toml::from_str(text)
        .map_err(|error| (error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
    let mut scopes: Vec<Scope> = Vec::new();
    for entry in file.scope {
        let at = entry.span().start;
        let Entry { directory, profiles } = entry.into_inner();
        let shown = directory.display();
        let problem = if !directory.is_absolute() {
            Some(format!("the directory {shown} does not begin with /"))
        } else if scopes.iter().any(|scope| scope.directory == directory) {
            Some(format!("the directory {shown} has a scope already"))
        } else if profiles.is_empty() {
            Some(format!("the scope of {shown} names no profile"))
        } else {
            profiles
                .iter()
                .find(|name| !is_name(name))
                .map(|name| format!("{name:?} cannot be a profile's name"))
        };
        if let Some(problem) = problem {
            return Err((at, problem));
        }
        scopes.push(Scope { directory, profiles });
    }
    Ok(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home with two profiles, and a tree of directories beside it.
    fn setting() -> (tempfile::TempDir, Store, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(&root.path().join("home"));
        for name in ["a", "b"] {
            store.add(name, r#"{"OPENAI_API_KEY":"k"}"#, None).unwrap();
        }
        let tree = root.path().join("tree").join("inner").join("most");
        fs::create_dir_all(&tree).unwrap();
        let tree = root.path().join("tree").canonicalize().unwrap();
        (root, store, tree)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_nearest_scope_counts_whichever_way_one_comes() {
        let (root, store, tree) = setting();
        let home = root.path().join("home");
        let mut scopes = Scopes::read(&home).unwrap();
        assert_eq!(scopes.of(&tree).unwrap(), None);
        scopes.set(&tree, &names(&["a", "b"]), &store).unwrap();
        scopes.set(&tree.join("inner"), &names(&["b"]), &store).unwrap();
        let scopes = Scopes::read(&home).unwrap();
        let of = |path: &Path| scopes.of(path).unwrap().map(|scope| scope.profiles.clone());
        assert_eq!(of(&tree), Some(names(&["a", "b"])));
        assert_eq!(of(&tree.join("inner/most")), Some(names(&["b"])));
        assert_eq!(of(root.path()), None);
        std::os::unix::fs::symlink(tree.join("inner/most"), root.path().join("link")).unwrap();
        assert_eq!(of(&root.path().join("link")), Some(names(&["b"])));
        assert_eq!(of(&root.path().join("link/../..")), Some(names(&["a", "b"])));
        let beside = root.path().join("tree-beside");
        fs::create_dir(&beside).unwrap();
        assert_eq!(of(&beside), None, "a name that begins alike is another directory");
        assert!(matches!(scopes.of(&tree.join("none")), Err(ScopeError::Directory { .. })));
        assert_eq!(scopes.of_profile("a"), [tree.display().to_string()]);
    }

    #[test]
    fn a_directory_that_became_a_link_is_still_meant() {
        let (root, store, tree) = setting();
        let mut scopes = Scopes::read(&root.path().join("home")).unwrap();
        scopes.set(&tree, &names(&["a"]), &store).unwrap();
        fs::rename(&tree, root.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(root.path().join("moved"), &tree).unwrap();
        assert!(scopes.of(&tree.join("inner")).unwrap().is_some());
    }

    #[test]
    fn a_scope_is_set_again_and_cleared() {
        let (root, store, tree) = setting();
        let mut scopes = Scopes::read(&root.path().join("home")).unwrap();
        scopes.set(&tree, &names(&["a"]), &store).unwrap();
        scopes.set(&tree, &names(&["b"]), &store).unwrap();
        assert_eq!(scopes.all().len(), 1);
        let error = scopes.set(&tree, &names(&["b", "c"]), &store).unwrap_err();
        assert!(error.to_string().contains("\"c\""), "{error}");
        assert!(scopes.clear(&tree).unwrap() && !scopes.clear(&tree).unwrap());
        assert_eq!(Scopes::read(&root.path().join("home")).unwrap().all(), []);
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named_with_its_line() {
        let (root, ..) = setting();
        let home = root.path().join("home");
        let scope = |directory: &str, profiles: &str| {
            format!("[[scope]]\ndirectory = {directory}\nprofiles = {profiles}\n")
        };
        for (text, line, part) in [
            ("scope = 3".to_owned(), 1, "invalid type"),
            ("[[scop]]".to_owned(), 1, "unknown field"),
            ("\n[[scope]]\ndirectory = \"/x\"\n".to_owned(), 2, "missing field `profiles`"),
            (scope("\"/x\"", "[]"), 1, "names no profile"),
            (scope("\"x\"", "[\"a\"]"), 1, "does not begin with /"),
            (scope("\"/x\"", "[\"..\"]"), 1, "cannot be a profile's name"),
            (scope("\"/x\"", "\"a\""), 3, "invalid type"),
            (scope("\"/x\"", "[\"a\"]") + &scope("\"/x\"", "[\"b\"]"), 4, "has a scope already"),
            (scope("\"/x\"", "[\"a\"]") + "other = 1\n", 4, "unknown field"),
        ] {
            fs::write(home.join(FILE), &text).unwrap();
            let error = Scopes::read(&home).unwrap_err().to_string();
            assert!(
                error.contains(&format!("scopes.toml:{line}: ")) && error.contains(part),
                "{text}: {error}"
            );
        }
        fs::write(home.join(FILE), [0xFF]).unwrap();
        assert!(matches!(Scopes::read(&home), Err(ScopeError::Store(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read_again(directory in "/[^\0]{0,30}", profile in "[a-z][a-z0-9._-]{0,9}") {
            let scope = Scope { directory: directory.into(), profiles: vec![profile] };
            let scopes = Scopes { path: PathBuf::new(), scopes: vec![scope] };
            proptest::prop_assert_eq!(parse(&scopes.text()).unwrap(), scopes.scopes);
        }
    }
}
