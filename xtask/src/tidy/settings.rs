//! The reference of the proxy's settings, `proxy/SETTINGS.md`: what `settings!` in its `config.rs` says.
//!
//! The macro's text is read, because this crate may not import the proxy. The reader knows the one form that a
//! setting is written in and refuses any other, so that none can be left out of the reference.

use super::Finding;
use super::project::Project;

pub(super) const NAME: &str = "settings";

/// Where the settings are declared.
const SOURCE: &str = "proxy/src/config.rs";

/// The reference.
pub(super) const DOCUMENT: &str = "proxy/SETTINGS.md";

const BEGIN: &str = "settings! {";

const BLESS: &str = "run `cargo xtask tidy --bless`";

const HEAD: &str = "\
# Settings

<!-- Written by `cargo xtask tidy --bless` from `proxy/src/config.rs`. -->

A setting stands in `prodex.toml` in the home (`$PRODEX_HOME`, or `~/.prodex`), a line each:

```toml
max_active = 2000
keep_alive = \"5m\"
```

A variable of the environment wins over the file, and a flag over both; an empty variable counts as unset. An unknown
key, a value that is not allowed, or two values that contradict each other are errors that name their place before
anything listens. A variable that begins with `PRODEX_` and is no setting is told and not used.

Times are written `250ms`, `30s`, `5m` or `1h`, sizes `512B`, `256KiB`, `64MiB` or `1GiB`.
";

/// A setting as it is declared.
#[derive(Debug, PartialEq, Eq)]
struct Setting<'a> {
    name: &'a str,
    variable: &'a str,
    default: &'a str,
    range: &'a str,
    doc: String,
}

/// Compares the reference with the declarations.
pub(super) fn check(project: &Project) -> Vec<Finding> {
    let Some(source) = project.text(SOURCE) else { return Vec::new() };
    let settings = match parse(source) {
        Ok(settings) => settings,
        Err((line, problem)) => {
            let right = "`name: Type = \"default\", \"VARIABLE\", \"range\";` below its doc lines".to_owned();
            return vec![Finding { path: SOURCE.to_owned(), line: Some(line), check: NAME, problem, right }];
        }
    };
    let expected = render(&settings);
    let found = project.text(DOCUMENT).unwrap_or_default();
    if found == expected {
        return Vec::new();
    }
    let line = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    let problem = "is not what `settings!` in proxy/src/config.rs says".to_owned();
    let line = line.map(|line| line + 1);
    vec![Finding { path: DOCUMENT.to_owned(), line, check: NAME, problem, right: BLESS.to_owned() }]
}

/// The reference as the declarations have it; `None` when it is so already, or they cannot be read.
pub(super) fn blessed(project: &Project) -> Option<String> {
    let expected = render(&parse(project.text(SOURCE)?).ok()?);
    (project.text(DOCUMENT) != Some(&*expected)).then_some(expected)
}

fn render(settings: &[Setting<'_>]) -> String {
    let mut text = HEAD.to_owned();
    for Setting { name, variable, default, range, doc } in settings {
        let default = if default.is_empty() { "not set".to_owned() } else { format!("`{default}`") };
        // A range is a value of the setting's own form; what is described in words is no code.
        let range = if range.contains("..=") { format!("`{range}`") } else { (*range).to_owned() };
        text += &format!("\n## `{name}`\n\n{doc}\n\n");
        text += &format!("- default: {default}\n- allowed: {range}\n- variable: `{variable}`\n");
    }
    text
}

/// Reads the declarations. An error names the line that is not understood.
fn parse(source: &str) -> Result<Vec<Setting<'_>>, (usize, String)> {
    let mut lines = source.lines().enumerate().skip_while(|(_, line)| *line != BEGIN);
    let mut settings = Vec::new();
    let mut doc: Vec<&str> = Vec::new();
    let (begin, _) = lines.next().ok_or_else(|| (1, format!("has no line `{BEGIN}`")))?;
    while let Some((at, line)) = lines.next() {
        let problem = |problem: &str| (at + 1, format!("a setting that is not understood: {problem}"));
        let text = line.trim();
        if line == "}" {
            let is_done = doc.is_empty() && !settings.is_empty();
            return if is_done { Ok(settings) } else { Err(problem("it ends too early")) };
        }
        if let Some(said) = text.strip_prefix("///") {
            doc.push(said.trim());
            continue;
        }
        // What does not fit one line goes on in the next.
        let mut rest = vec![text];
        while rest.last().is_some_and(|last| !last.ends_with(';')) {
            match lines.next() {
                Some((_, more)) if more != "}" => rest.push(more.trim()),
                _ => return Err(problem("no `;` ends it")),
            }
        }
        let (name, literals) = declaration(&rest).ok_or_else(|| problem(&rest.join(" ")))?;
        let [default, variable, range] = literals;
        if doc.is_empty() {
            return Err(problem("no doc line says what it means"));
        }
        settings.push(Setting { name, variable, default, range, doc: doc.join("\n") });
        doc.clear();
    }
    Err((begin + 1, "`settings!` has no end".to_owned()))
}

/// The name and the three literals of a declaration, whose lines these are.
fn declaration<'a>(lines: &[&'a str]) -> Option<(&'a str, [&'a str; 3])> {
    let (head, first) = lines.first()?.split_once(" = ")?;
    let (name, kind) = head.split_once(": ")?;
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b))
    };
    let is_kind = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"<>".contains(&b))
    };
    let mut literals = Vec::new();
    for line in [first].iter().chain(&lines[1..]) {
        let mut rest = *line;
        while !rest.is_empty() {
            let (literal, behind) = rest.strip_prefix('"')?.split_once('"')?;
            // An escape would end at another quote than this reader thinks.
            if literal.contains('\\') {
                return None;
            }
            literals.push(literal);
            rest = behind.strip_prefix([',', ';'])?.trim_start();
        }
    }
    let literals: [&str; 3] = literals.try_into().ok()?;
    (is_name(name) && is_kind(kind)).then_some((name, literals))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "macro_rules! settings {}\nsettings! {\n    /// How long\n    /// it takes.\n    \
        keep_alive: Duration = \"2m\", \"PRODEX_KEEP_ALIVE\", \"100ms..=1h\";\n    /// Where.\n    \
        log_dir: Option<PathBuf> = \"\",\n        \"PRODEX_LOG_DIR\",\n        \"a path\";\n}\n";

    #[test]
    fn settings_are_read_whether_they_fit_a_line_or_not() {
        let settings = parse(GOOD).unwrap();
        let names: Vec<_> =
            settings.iter().map(|one| (one.name, one.default, one.variable, one.range)).collect();
        assert_eq!(
            names,
            [
                ("keep_alive", "2m", "PRODEX_KEEP_ALIVE", "100ms..=1h"),
                ("log_dir", "", "PRODEX_LOG_DIR", "a path")
            ]
        );
        assert_eq!(settings[0].doc, "How long\nit takes.");
        let text = render(&settings);
        assert!(text.contains("- default: not set\n- allowed: a path\n"), "{text}");
        assert!(text.contains("- default: `2m`\n- allowed: `100ms..=1h`\n"), "{text}");
    }

    #[test]
    fn whatever_else_is_written_is_refused_with_its_line() {
        for (from, to, line) in [
            ("    /// How long\n    /// it takes.\n", "", 3),
            (": Duration", "", 5),
            ("\"2m\"", "TWO", 5),
            ("\"2m\"", "\"2\\\"m\"", 5),
            (", \"100ms..=1h\"", "", 5),
            ("\"100ms..=1h\";", "\"100ms..=1h\", 3;", 5),
            ("\"a path\";\n", "\"a path\"\n", 7),
            ("keep_alive:", "#[cfg(unix)] keep_alive:", 5),
            ("}\nsettings! {", "}\nsettings!{", 1),
            ("\"a path\";\n}\n", "\"a path\";\n    /// More\n}\n", 11),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            assert_eq!(parse(&text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn a_stale_reference_is_found_and_blessed() {
        let good = render(&parse(GOOD).unwrap());
        let stale = good.replace("2m", "3m");
        let project = |text: &str| Project::sketch(&[(SOURCE, GOOD), (DOCUMENT, text)]);
        assert!(check(&project(&good)).is_empty() && blessed(&project(&good)).is_none());
        let found = check(&project(&stale));
        assert!(found.len() == 1 && found[0].line.is_some(), "{found:?}");
        assert_eq!(blessed(&project(&stale)), Some(good));
        assert_eq!(check(&Project::sketch(&[(SOURCE, GOOD)])).len(), 1, "there must be one");
    }
}
