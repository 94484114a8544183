//! Package registries are the machine's business: no committed file names a registry's host.
//!
//! A mirror, an offline cache or a company's registry is set up once, in cargo's and npm's own configuration;
//! a host in a file of ours would go past it. Cargo.lock is cargo's and exempt.

use super::Finding;
use super::project::Project;

pub(super) const NAME: &str = "registries";

/// The hosts, in pieces: this file is committed as well.
const HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("yarnpkg", ".com"),
    concat!("pypi", ".org"),
    concat!("npm", ".pkg.github.com"),
    concat!("ghcr", ".io"),
];

/// Looks for the hosts in every line of every file.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in project.texts().filter(|(path, _)| *path != "Cargo.lock") {
        for (index, line) in text.lines().enumerate() {
            let line = line.to_ascii_lowercase();
            let named = HOSTS.iter().find(|host| line.contains(**host));
            findings.extend(named.map(|host| Finding {
                path: path.to_owned(),
                line: Some(index + 1),
                check: NAME,
                problem: format!("names the registry host `{host}`"),
                right: "the tool's own configuration decides where packages come from".to_owned(),
            }));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_host_is_found_in_any_file_but_the_lock_file() {
        let host = HOSTS[1].to_uppercase();
        let text = format!("a\nregistry=https://registry.{host}/\n");
        let project = Project::sketch(&[(".npmrc", &text), ("Cargo.lock", &text), ("a.rs", "npm install")]);
        let [found] = check(&project).try_into().expect("one finding");
        assert_eq!((found.path.as_str(), found.line), (".npmrc", Some(2)));
    }
}
