//! What a person is told beside a result, on standard error. Nobody may be there to hear it.
//!
//! A terminal that was closed, a pipe whose reader has gone and a full disk are no reason to end: the macros of
//! the standard library would panic there, in the middle of whatever had something to tell.

use std::fmt;
use std::io::{self, Write as _};

/// Tells it, in one piece. What cannot be written is lost.
pub fn tell(text: impl fmt::Display) {
    let text = format!("prodex: {text}\n");
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
