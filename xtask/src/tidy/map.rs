//! The map in ARCHITECTURE.md: one line for every source file, which is the file's own first line.
//!
//! The map stands between two markers and is written by `tidy --bless`; by hand it is never right for long.
//! Files come in the order in which their crate declares them, which is the order to read them in.

use std::collections::BTreeMap;

use super::project::Project;
use super::source::line_at;
use super::{Finding, arrows, modules};

pub(super) const NAME: &str = "map";

/// The document that holds the map.
pub(super) const DOCUMENT: &str = "ARCHITECTURE.md";

const BEGIN: &str = "<!-- map: written by `cargo xtask tidy --bless` -->";
const END: &str = "<!-- end of the map -->";

/// Compares the map with the files.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    let Some(text) = project.text(DOCUMENT) else {
        let right = format!("a document with the lines `{BEGIN}` and `{END}`, then {BLESS}");
        return vec![finding(None, "there is no map of the project".to_owned(), right)];
    };
    let Some(block) = Block::find(text) else {
        let right = format!("the lines `{BEGIN}` and `{END}`, in this order, then {BLESS}");
        return vec![finding(None, "the document has no place for the map".to_owned(), right)];
    };
    let expected = render(project);
    if block.body == expected {
        return Vec::new();
    }
    let mut findings = compare(&block, &expected);
    if findings.is_empty() {
        let problem = "the map's order or headings are not what the crates declare".to_owned();
        findings.push(finding(Some(block.line), problem, BLESS.to_owned()));
    }
    findings
}

/// The document with the map as the files have it; `None` when it is so already or has no place for one.
pub(super) fn blessed(project: &Project) -> Option<String> {
    let text = project.text(DOCUMENT)?;
    let block = Block::find(text)?;
    let map = render(project);
    (block.body != map).then(|| format!("{}{map}{}", block.before, block.after))
}

/// A document cut at the markers: `before` ends with the first, `after` begins with the second.
struct Block<'a> {
    before: &'a str,
    body: &'a str,
    after: &'a str,
    /// The line that the body begins at.
    line: usize,
}

impl<'a> Block<'a> {
    fn find(text: &'a str) -> Option<Self> {
        let begin = text.find(BEGIN)? + BEGIN.len() + 1;
        let (before, rest) = text.split_at_checked(begin)?;
        let (body, after) = rest.split_at(rest.find(END)?);
        Some(Self { before, body, after, line: line_at(text, begin) })
    }
}

/// The map: a heading for every crate, a line for every file.
fn render(project: &Project) -> String {
    let mut members: Vec<_> = project.members().iter().collect();
    members.sort_by_key(|member| arrows::folders().position(|folder| folder == member.folder));
    let mut map = String::new();
    for member in members {
        let name = &member.name;
        let of = if *name == member.folder { String::new() } else { format!(", the crate `{name}`") };
        map += &format!("\n### `{}/`{of}\n\n", member.folder);
        for path in modules::in_reading_order(project, member) {
            let sentence = modules::sentence(project, &path).unwrap_or("says nothing about itself.");
            map += &format!("- `{path}`: {sentence}\n");
        }
    }
    map + "\n"
}

/// What differs, file by file.
fn compare(block: &Block<'_>, expected: &str) -> Vec<Finding> {
    let mut wanted: BTreeMap<_, _> = expected.lines().filter_map(entry).collect();
    let mut findings = Vec::new();
    for (index, line) in block.body.lines().enumerate() {
        let Some((path, sentence)) = entry(line) else { continue };
        let place = Some(block.line + index);
        match wanted.remove(path) {
            Some(said) if said == sentence => {}
            Some(said) => {
                let problem = format!("the map's line for `{path}` is stale");
                findings.push(finding(place, problem, format!("\"{said}\": {BLESS}")));
            }
            None => {
                let problem =
                    format!("the map lists `{path}`, which is no file of a crate, or lists it twice");
                findings.push(finding(place, problem, BLESS.to_owned()));
            }
        }
    }
    let missing = wanted
        .keys()
        .map(|path| finding(Some(block.line), format!("`{path}` is missing from the map"), BLESS.to_owned()));
    findings.extend(missing);
    findings
}

/// The path and the sentence of one line of the map.
fn entry(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("- `")?.split_once("`: ")
}

fn finding(line: Option<usize>, problem: String, right: String) -> Finding {
    Finding { path: DOCUMENT.to_owned(), line, check: NAME, problem, right }
}

const BLESS: &str = "`cargo xtask tidy --bless`";

#[cfg(test)]
mod tests {
    use super::super::project::Member;
    use super::*;

    fn house(document: &str) -> Project {
        let files = [
            (DOCUMENT, document),
            ("proxy/src/lib.rs", "//! A proxy for coding agents.\nmod route;\nmod guard;\n"),
            ("proxy/src/guard.rs", "//! What may enter.\n"),
            ("proxy/src/route.rs", "//! Which call it is.\n"),
            ("wire/src/lib.rs", "//! Names and shapes.\n"),
        ];
        let proxy = Member::sketch("prodex", "proxy");
        Project::sketch(&files).with(proxy).with(Member::sketch("wire", "wire"))
    }

    fn empty() -> String {
        format!("# Map\n{BEGIN}\n{END}\nmore\n")
    }

    fn found(project: &Project) -> Vec<String> {
        let findings = check(project).into_iter();
        findings.map(|found| format!("{}: {}", found.line.unwrap_or(0), found.problem)).collect()
    }

    #[test]
    fn a_blessed_map_lists_every_file_in_reading_order_and_is_right() {
        let text = blessed(&house(&empty())).expect("an empty map is not right");
        insta::assert_snapshot!(text, @r"
        # Map
        <!-- map: written by `cargo xtask tidy --bless` -->

        ### `wire/`

        - `wire/src/lib.rs`: Names and shapes.

        ### `proxy/`, the crate `prodex`

        - `proxy/src/lib.rs`: A proxy for coding agents.
        - `proxy/src/route.rs`: Which call it is.
        - `proxy/src/guard.rs`: What may enter.

        <!-- end of the map -->
        more
        ");
        let project = house(&text);
        assert_eq!(found(&project), Vec::<String>::new());
        assert_eq!(blessed(&project), None);
    }

    #[test]
    fn every_difference_is_named_with_its_line() {
        let text = blessed(&house(&empty())).expect("an empty map is not right");
        let text = text.replace("Names and shapes", "Shapes").replace("guard", "gone");
        let expected = [
            "6: the map's line for `wire/src/lib.rs` is stale",
            "12: the map lists `proxy/src/gone.rs`, which is no file of a crate, or lists it twice",
            "3: `proxy/src/guard.rs` is missing from the map",
        ];
        assert_eq!(found(&house(&text)), expected);
    }

    #[test]
    fn a_wrong_order_and_a_line_too_many_are_differences() {
        let text = blessed(&house(&empty())).expect("an empty map is not right");
        let (route, guard) =
            ("- `proxy/src/route.rs`: Which call it is.\n", "- `proxy/src/guard.rs`: What may enter.\n");
        let swapped = text.replace(&format!("{route}{guard}"), &format!("{guard}{route}"));
        assert_eq!(
            found(&house(&swapped)),
            ["3: the map's order or headings are not what the crates declare"]
        );
        assert_eq!(found(&house(&text.replace(guard, &guard.repeat(2)))).len(), 1);
        assert_eq!(found(&house(&text.replace("### ", "## "))).len(), 1);
    }

    #[test]
    fn a_missing_document_and_missing_markers_are_findings() {
        assert_eq!(found(&Project::sketch(&[])), ["0: there is no map of the project"]);
        let reversed = format!("{END}\n{BEGIN}");
        for text in ["# Map\n", BEGIN, &reversed] {
            assert_eq!(found(&house(text)), ["0: the document has no place for the map"], "{text}");
            assert_eq!(blessed(&house(text)), None);
        }
    }
}
