//! What tasks print: results on standard output, life signs on standard error.
//!
//! A reader that has gone away, as `head` does, changes no verdict and ends no task: `println!` would panic
//! there, and leave a running step to itself.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};

/// Prints a part of the result.
pub(crate) fn result(text: &str) -> Result<()> {
    print(&mut io::stdout().lock(), text).context("failed to write to standard output")
}

/// Prints a life sign. What cannot be shown is dropped: nothing depends on it.
pub(crate) fn progress(line: &str) {
    let _ = print(&mut io::stderr().lock(), line);
}

/// Shows a life sign in the place of the last one, on a terminal.
pub(crate) fn rewrite(line: &str) {
    let mut stream = io::stderr().lock();
    let _ = write!(stream, "\r\x1b[K{line}").and_then(|()| stream.flush());
}

fn print(stream: &mut dyn Write, text: &str) -> io::Result<()> {
    let written = stream.write_all(text.trim_end().as_bytes()).and_then(|()| stream.write_all(b"\n"));
    match written.and_then(|()| stream.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Refusing(ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_text_is_whole_lines() {
        for text in ["a\nb", "a\nb\n"] {
            let mut written = Vec::new();
            print(&mut written, text).expect("a vector takes everything");
            assert_eq!(written, b"a\nb\n");
        }
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_error_and_a_full_disk_is() {
        assert!(print(&mut Refusing(ErrorKind::BrokenPipe), "a").is_ok());
        assert!(print(&mut Refusing(ErrorKind::StorageFull), "a").is_err());
    }
}
