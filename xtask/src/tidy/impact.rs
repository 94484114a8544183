//! The rules of `manifest/impact.toml`: they parse, and one of them knows every file of the checkout.

use manifest::impact::path::RepoPath;
use manifest::impact::rules::{self, Rules};

use super::Finding;
use super::project::Project;
use super::source::line_at;

pub(super) const NAME: &str = "impact";

/// Reads the rules, and looks every file up.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    match project.rules() {
        None => {
            let problem = "there are no rules that say what a change can reach".to_owned();
            let right = "rules as `manifest::impact::rules` reads them".to_owned();
            vec![Finding { path: rules::FILE.to_owned(), line: None, check: NAME, problem, right }]
        }
        Some(Ok(rules)) => unknown(project, &rules),
        Some(Err(finding)) => vec![finding],
    }
}

impl Project {
    /// The rules, or what is wrong with them; `None` when the project has none.
    pub(super) fn rules(&self) -> Option<Result<Rules, Finding>> {
        let text = self.text(rules::FILE)?;
        let crates = self.members().iter().map(|member| member.name.clone()).collect();
        let parsed = Rules::parse(text, &crates);
        Some(parsed.map_err(|mistake| Finding {
            path: rules::FILE.to_owned(),
            line: Some(line_at(text, mistake.offset())),
            check: NAME,
            problem: mistake.to_string(),
            right: mistake.right().to_owned(),
        }))
    }
}

/// Files that no rule knows: each change to one runs everything, and nobody decided that it should.
fn unknown(project: &Project, rules: &Rules) -> Vec<Finding> {
    let is_known = |path: &str| RepoPath::parse(path).is_ok_and(|path| rules.decide(&path).is_some());
    let found = project.paths().filter(|path| !is_known(path)).map(|path| Finding {
        path: path.to_owned(),
        line: None,
        check: NAME,
        problem: "no rule says what a change to it can reach".to_owned(),
        right: format!("a rule of {} that matches it", rules::FILE),
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::project::Member;

    const RULES: &str = "version = 1\n\n[[rule]]\nid = \"documents\"\npaths = [\"*.md\"]\n\
                         effect = \"nothing\"\nbecause = \"prose\"\n";

    fn found(rules: &str, path: &str) -> Vec<String> {
        let project =
            Project::sketch(&[(rules::FILE, rules), (path, "")]).with(Member::sketch("wire", "wire"));
        let show = |it: Finding| format!("{}:{}: {}", it.path, it.line.unwrap_or(0), it.problem);
        check(&project).into_iter().map(show).collect()
    }

    #[test]
    fn every_file_is_known_to_a_rule() {
        assert_eq!(found(RULES, "README.md"), [""; 0]);
        assert_eq!(found(RULES, "Cargo.lock"), [""; 0], "what is guarded is known");
        assert_eq!(found(RULES, "a/b.md"), ["a/b.md:0: no rule says what a change to it can reach"]);
    }

    #[test]
    fn a_mistake_in_the_rules_is_a_finding_with_its_line() {
        let rules = RULES.replace("\"nothing\"", "{ crates = [\"wier\"] }");
        assert_eq!(found(&rules, "README.md"), ["manifest/impact.toml:6: there is no crate `wier`"]);
    }

    #[test]
    fn a_project_without_rules_cannot_be_judged() {
        let problems: Vec<_> =
            check(&Project::sketch(&[("a", "")])).into_iter().map(|it| it.problem).collect();
        assert_eq!(problems, ["there are no rules that say what a change can reach"]);
    }
}
