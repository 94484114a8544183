//! What commands print: results on standard output, questions and warnings on standard error.
//!
//! A reader that stops early (`| head`) is nobody's failure; a file that cannot be written is one.

use std::fmt;
use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _, Write as _};
use std::path::Path;

use super::wording::{printable, shortened};
use super::{Exit, Failure};
use crate::config::process_environment;

pub(super) use crate::notice::tell;

/// Prints a result with a line end behind it.
///
/// # Errors
/// When it cannot be written; a quiet end when nobody reads it.
pub(super) fn print(text: impl fmt::Display) -> Result<(), Failure> {
    let mut text = text.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::quiet()),
        Err(error) => {
            let problem = format!("cannot write to standard output: {error}; write it to another place");
            Err(Failure::new(Exit::Environment, problem))
        }
    }
}

/// Prints what a command with `--watch` shows anew: a screen is redrawn, a file gets one after the other.
///
/// # Errors
/// As [`print`].
pub(super) fn redraw(text: impl fmt::Display) -> Result<(), Failure> {
    let clear = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    print(format_args!("{clear}{text}"))
}

/// Shows on a terminal how far something is; the next call takes its place.
pub(super) fn progress(text: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
    }
}

/// Whether a person can be asked, and sees what it is about.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question that an empty answer affirms. Without an answer it is no.
pub(super) fn ask(question: &str) -> bool {
    let mut answer = String::new();
    for _ in 0..3 {
        let _ = write!(io::stderr().lock(), "{question} [Y/n] ");
        answer.clear();
        match io::stdin().lock().read_line(&mut answer) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        match answer.trim().to_ascii_lowercase().as_str() {
            "" | "y" | "yes" => return true,
            "n" | "no" => return false,
            _ => {}
        }
    }
    let _ = writeln!(io::stderr().lock());
    false
}

/// A text that somebody else wrote, for one line: without control characters, and not for ever.
pub(super) fn shown(text: &str) -> String {
    shortened(&printable(text), 60)
}

/// A path as a person writes it: with `~` for the home directory.
pub(super) fn short(path: &Path) -> String {
    let home = process_environment("HOME").filter(|home| home.len() > 1);
    let below = home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned));
    match below {
        Some(below) if below.as_os_str().is_empty() => "~".to_owned(),
        Some(below) => format!("~/{}", below.display()),
        None => path.display().to_string(),
    }
}

/// A moment for people.
pub(super) fn at(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => format!("{seconds} s after 1970"),
    }
}

/// A text in lines of at most 80 columns, each behind so many spaces. A word that is longer has its own line.
pub(super) fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut width = 81;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width + 1 + length > 80 {
            lines += if lines.is_empty() { "" } else { "\n" };
            lines += &" ".repeat(indent);
            width = indent;
        } else {
            lines.push(' ');
            width += 1;
        }
        lines += word;
        width += length;
    }
    lines
}

/// Lines with their columns below each other, two spaces apart. The last column has no end.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a".to_owned(), "b".to_owned()], ["ccc".to_owned(), String::new()]];
        assert_eq!(columns(&rows), "a    b\nccc\n");
    }

    #[test]
    fn a_text_is_wrapped_at_words() {
        let text = wrapped(&"word ".repeat(40), 4);
        assert!(text.lines().all(|line| line.starts_with("    word") && line.len() <= 80), "{text}");
        assert_eq!(wrapped(&"x".repeat(90), 1).lines().count(), 1);
    }

    #[test]
    fn what_others_wrote_cannot_move_the_cursor() {
        assert_eq!(shown("a\x1b[2Jb\n"), "a[2Jb");
        assert_eq!(shown(&"x".repeat(90)).chars().count(), 60);
    }
}
