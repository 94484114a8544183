//! A report as one HTML page: no script, no other file, readable on a phone and in print.
//!
//! Everything that was on the wire is hostile here: it is escaped once, in `text`.

use std::fmt::Write as _;

use super::{Excerpt, FixtureReport, Problem, Report, Severity};

/// Renders a report as a page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut html = String::new();
    let passed = report.passed();
    let _ = writeln!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{} – conformance</title><style>{}</style></head><body>",
        text(&report.target),
        include_str!("page.css"),
    );
    let (class, word) = if passed { ("good", "conforms") } else { ("bad", "does not conform") };
    let _ =
        write!(html, "<header><h1>{}</h1><p class=\"verdict {class}\">{word}</p><dl>", text(&report.target));
    let fixtures = report.fixtures.len();
    let good = report.fixtures.iter().filter(|fixture| fixture.passed()).count();
    let made: usize = report.fixtures.iter().flat_map(|fixture| fixture.made.values()).sum();
    let facts = [
        ("expected to be", report.expect.clone()),
        ("fixtures", format!("{good} of {fixtures} pass")),
        ("checks made", made.to_string()),
        ("took", format!("{:.1} s", report.seconds)),
        ("at", report.at.clone()),
    ];
    for (name, value) in facts {
        let _ = write!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", text(&value));
    }
    html.push_str("</dl></header>\n<main>\n");
    matrix(report, &mut html);
    let (failed, rest): (Vec<_>, Vec<_>) = report.fixtures.iter().partition(|fixture| !fixture.passed());
    if !failed.is_empty() {
        let _ = writeln!(html, "<h2>What does not hold</h2>");
        failed.iter().for_each(|fixture| details(fixture, true, &mut html));
    }
    let _ = writeln!(html, "<h2>What holds</h2>");
    if rest.is_empty() {
        html.push_str("<p>No fixture passes.</p>\n");
    }
    rest.iter().for_each(|fixture| details(fixture, false, &mut html));
    html.push_str("</main></body></html>\n");
    html
}

fn matrix(report: &Report, html: &mut String) {
    html.push_str(
        "<h2>Checks by client</h2><div class=\"wide\"><table class=\"matrix\"><thead><tr><th>check</th>",
    );
    for client in report.clients() {
        let _ = write!(html, "<th>{}</th>", text(client));
    }
    html.push_str("<th class=\"meaning\">what it means</th></tr></thead><tbody>\n");
    for row in report.matrix() {
        let _ = write!(html, "<tr><th><code>{}</code></th>", text(row.check));
        for cell in &row.cells {
            let class = match (cell.made, cell.broken, cell.lawful) {
                (0, 0, 0) => "none",
                (_, 0, 0) => "good",
                (_, 0, _) => "lawful",
                _ => "bad",
            };
            let _ = write!(html, "<td class=\"{class}\">{}</td>", text(&cell.to_string()));
        }
        let _ = writeln!(html, "<td class=\"meaning\">{}</td></tr>", text(row.meaning));
    }
    html.push_str("</tbody></table></div>\n");
}

fn details(fixture: &FixtureReport, open: bool, html: &mut String) {
    let class = if fixture.passed() { "good" } else { "bad" };
    let made: usize = fixture.made.values().sum();
    let _ = writeln!(
        html,
        "<details{}><summary><span class=\"dot {class}\"></span><b>{}</b> <span class=\"quiet\">{} {} · {} · \
         {} exchange{} · {made} checks · {:.2} s</span></summary>",
        if open { " open" } else { "" },
        text(&fixture.name),
        text(&fixture.client),
        text(fixture.version.as_deref().unwrap_or("")),
        text(&fixture.protocol),
        fixture.exchanges,
        if fixture.exchanges == 1 { "" } else { "s" },
        fixture.seconds,
    );
    if let Some(error) = &fixture.error {
        let _ = writeln!(html, "<p class=\"error\">Could not be replayed: {}</p>", text(error));
    }
    for problem in fixture.findings.iter().take(SHOWN) {
        show(problem, html);
    }
    if fixture.findings.len() > SHOWN {
        let _ = writeln!(html, "<p>… and {} more in the JSON report.</p>", fixture.findings.len() - SHOWN);
    }
    let _ = writeln!(
        html,
        "<p class=\"again\">See it again: <code>{}</code></p></details>",
        text(&fixture.again)
    );
}

/// Most problems of a fixture that the page shows.
const SHOWN: usize = 30;

fn show(problem: &Problem, html: &mut String) {
    let class = if problem.severity == Severity::Broken { "bad" } else { "lawful" };
    let _ = writeln!(
        html,
        "<section class=\"{class}\"><h3><code>{}</code> {}</h3><p class=\"quiet\">exchange {}: {}</p>\
         <div class=\"sides\"><figure><figcaption>expected{}</figcaption><pre>{}</pre></figure>\
         <figure><figcaption>seen{}</figcaption><pre>{}</pre></figure></div></section>",
        text(&problem.check),
        text(&problem.what),
        problem.exchange,
        text(&problem.request),
        place(&problem.expected),
        marked(&problem.expected),
        place(&problem.seen),
        marked(&problem.seen),
    );
}

fn place(excerpt: &Excerpt) -> String {
    if excerpt.offset == 0 { String::new() } else { format!(" from byte {}", excerpt.offset) }
}

/// The text with what differs marked.
fn marked(excerpt: &Excerpt) -> String {
    let whole = &excerpt.text;
    if whole.is_empty() {
        return "<i>nothing</i>".to_owned();
    }
    let Some((begin, end)) = excerpt.differs else { return text(whole) };
    match (whole.get(..begin), whole.get(begin..end), whole.get(end..)) {
        (Some(before), Some(between), Some(after)) => {
            format!("{}<mark>{}</mark>{}", text(before), text(between), text(after))
        }
        // Offsets that fall into a character, or behind the end: the text is worth more than its mark.
        _ => text(whole),
    }
}

/// Text as HTML, with the control characters that matter made visible.
fn text(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => html.push_str("<span class=\"control\">\\n</span>\n"),
            '\r' => html.push_str("<span class=\"control\">\\r</span>"),
            '\t' => html.push_str("<span class=\"control\">\\t</span>"),
            letter if letter.is_control() => {
                let _ = write!(html, "<span class=\"control\">\\u{{{:x}}}</span>", u32::from(letter));
            }
            letter => push_escaped(letter, &mut html),
        }
    }
    html
}

/// Appends a character as it is written in HTML and in XML, between quotation marks too.
pub(crate) fn push_escaped(letter: char, out: &mut String) {
    match letter {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        letter => out.push(letter),
    }
}
