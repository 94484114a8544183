//! The token of the admin port: a file that a scraper is given, such as Prometheus' `credentials_file`.

#![expect(clippy::disallowed_methods, reason = "read once, before anything listens")]

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::profile::store::{make_directory, replace};
use crate::secret::Secret;

/// Where the token of a home is.
#[must_use]
pub fn path(home: &Path) -> PathBuf {
    home.join("admin-token")
}

/// The token of a home, made if there is none.
///
/// # Errors
/// When it can be neither read nor written, is too short, or others may read it.
pub fn open(home: &Path) -> io::Result<Secret> {
    let path = path(home);
    let problem = |problem: &str| io::Error::other(format!("{}: {problem}", path.display()));
    match fs::read_to_string(&path) {
        Ok(text) => {
            if fs::metadata(&path)?.permissions().mode() & 0o077 != 0 {
                return Err(problem("others may read it: remove it, and a new one is made"));
            }
            let token = text.trim();
            let is_good = token.len() >= 32 && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let advice = "it needs at least 32 letters and digits: remove it, and a new one is made";
            if is_good { Ok(Secret::new(token)) } else { Err(problem(advice)) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = Secret::random().map_err(|error| problem(&error.to_string()))?;
            let write = || {
                make_directory(home)?;
                replace(&path, format!("{}\n", token.expose()).as_bytes())
            };
            write().map_err(|error| problem(&crate::control::describe(&error)))?;
            Ok(token)
        }
        Err(error) => Err(problem(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_must_be_its_owners_alone() {
        let home = tempfile::tempdir().unwrap();
        let token = open(home.path()).unwrap();
        assert_eq!(open(home.path()).unwrap(), token);
        let path = path(home.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(open(home.path()).unwrap_err().to_string().contains("others may read it"));
        replace(&path, b"short\n").unwrap();
        assert!(open(home.path()).unwrap_err().to_string().contains("at least 32"));
    }
}
