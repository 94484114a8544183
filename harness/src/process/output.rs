//! What a program writes, collected while it runs so that it never blocks, and bounded.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::task::JoinHandle;

/// The bytes of one stream; of a long one the start and the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Output {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    start: Vec<u8>,
    end: Vec<u8>,
    /// How many bytes between the two are gone.
    gap: usize,
}

/// Bytes kept of the start and of the end, each.
const HALF: usize = 8 << 20;

/// Bytes shown of an end.
const TAIL: usize = 2000;

impl Output {
    /// Collects a stream to its end.
    pub(super) fn collect(&self, mut stream: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
        let output = self.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                output.push(&buffer[..read]);
            }
        })
    }

    pub(super) fn push(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = HALF - kept.start.len();
        let (start, rest) = bytes.split_at(room.min(bytes.len()));
        kept.start.extend_from_slice(start);
        kept.end.extend_from_slice(rest);
        if kept.end.len() > HALF {
            let surplus = kept.end.len() - HALF / 2;
            kept.end.drain(..surplus);
            kept.gap += surplus;
        }
    }

    /// Everything that is kept, with a note where something is missing.
    pub(super) fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = match kept.gap {
            0 => String::new(),
            gap => format!("\n[{gap} bytes are not kept]\n"),
        };
        let parts = [&kept.start[..], gap.as_bytes(), &kept.end[..]];
        String::from_utf8_lossy(&parts.concat()).into_owned()
    }

    /// The last lines.
    pub(super) fn tail(&self) -> String {
        let text = self.text();
        let mut from = text.len().saturating_sub(TAIL);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        text[from..].trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_output_start_and_end_are_kept() {
        let output = Output::default();
        output.push(b"first ");
        let filler = vec![b'x'; 1 << 20];
        (0..40).for_each(|_| output.push(&filler));
        output.push(b" last");
        let text = output.text();
        assert!(text.starts_with("first x") && text.ends_with("x last"));
        assert!(text.contains(" bytes are not kept]") && text.len() <= 2 * HALF + 100);
        assert!(output.tail().ends_with(" last") && output.tail().len() <= TAIL);
    }
}
