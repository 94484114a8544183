//! Text for a terminal of 80 columns: paragraphs, names and durations that fit, and nothing that it obeys.

use std::time::Duration;

/// How wide a page is.
pub(super) const WIDTH: usize = 80;

/// Adds a paragraph, its lines after the first behind `indent`.
pub(super) fn push(out: &mut String, text: &str, indent: &str) {
    let lead: String = text.chars().take_while(|c| *c == ' ').collect();
    let mut line = lead;
    let mut is_empty = true;
    for word in text.split_ascii_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            indent.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(&line);
    out.push('\n');
}

/// So many seconds, in the largest unit that tells them well.
pub(super) fn duration(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A name in so many columns.
pub(super) fn shorten(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    name.chars().take(width - 1).chain(['…']).collect()
}

/// A text without what a terminal could take for a command.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Reads a span of time that a person gives, such as `30s`, `10m`, `2h` or `7d`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "it is a number and a unit: 30s, 10m, 2h or 7d".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(factor)
        .filter(|seconds| *seconds <= CENTURY)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// Longer ago nothing was logged.
const CENTURY: u64 = 100 * 366 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_or_told_how_they_are_written() {
        assert_eq!(span("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(span("2d"), Ok(Duration::from_secs(172_800)));
        for text in ["", "m", "10", "10 m", "-1s", "1.5h", "99999999999999999999s", "9999999999999d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paragraphs_fit_the_page() {
        let mut out = String::new();
        push(&mut out, &format!("  {}", "word ".repeat(40)), "    ");
        assert!(out.lines().all(|line| line.len() <= WIDTH));
        assert!(out.lines().nth(1).unwrap().starts_with("    word"));
    }
}
