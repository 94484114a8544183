//! A report as Markdown, short enough for the summary of a CI job.

use std::fmt::Write as _;

use super::Report;

/// Most fixtures that are listed one by one.
const LISTED: usize = 20;

/// Renders a report as Markdown.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut text = format!("### {}\n\n", escape(&report.verdict()));
    let clients = report.clients();
    let _ = writeln!(text, "| check | {} |", clients.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(clients.len()));
    for row in report.matrix() {
        let cells: Vec<String> = row.cells.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "| `{}` | {} |", row.check, cells.join(" | "));
    }
    let failed: Vec<_> = report.fixtures.iter().filter(|fixture| !fixture.passed()).collect();
    if !failed.is_empty() {
        text.push_str("\n| fixture | what does not hold | again |\n|---|---|---|\n");
    }
    for fixture in failed.iter().take(LISTED) {
        let what = match (&fixture.error, fixture.broken().next()) {
            (Some(error), _) => error.clone(),
            (None, Some(first)) => {
                let more = fixture.broken().count() - 1;
                let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                format!("{}: {}{more}", first.check, first.what)
            }
            (None, None) => String::new(),
        };
        let _ = writeln!(text, "| {} | {} | `{}` |", escape(&fixture.name), escape(&what), fixture.again);
    }
    if failed.len() > LISTED {
        let _ = writeln!(text, "\n… and {} fixtures more.", failed.len() - LISTED);
    }
    text
}

/// Text for a cell of a table.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '|' | '*' | '_' | '`' | '<' | '[' | '\\' => escaped.extend(['\\', letter]),
            '\n' | '\r' => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}
