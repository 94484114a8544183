//! The files that captures are in: as they are, or packed with zstd (RFC 8878) where the name ends in `.zst`.
//!
//! A message of many megabytes is mostly filler once it is scrubbed, and packs a thousandfold. Nothing is ever
//! unpacked as a whole here, and what a file unpacks to is bounded, so that a small one cannot become a big one
//! without end.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

/// What the name of a packed file ends in.
pub const ENDING: &str = "zst";

/// Most bytes that a packed file may hold.
pub const MAX_UNPACKED: u64 = 1 << 30;

/// How hard it is packed: a fixture is packed once and unpacked often.
const LEVEL: i32 = 19;

/// How much is read at once.
const PIECE: usize = 1 << 20;

/// Whether this is the name of a packed file.
#[must_use]
pub fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == ENDING)
}

/// The name that the file has when it is not packed.
#[must_use]
pub fn plain_name(path: &Path) -> Cow<'_, Path> {
    if is_packed(path) { path.with_extension("").into() } else { path.into() }
}

/// Opens a file for reading what is in it.
///
/// # Errors
/// When it cannot be opened. Reading fails where it is not what its name says, or holds more than
/// [`MAX_UNPACKED`] bytes.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let file = File::open(path)?;
    if !is_packed(path) {
        return Ok(Box::new(BufReader::with_capacity(PIECE, file)));
    }
    Ok(Box::new(BufReader::with_capacity(PIECE, unpacked(file, MAX_UNPACKED)?)))
}

/// Packs what is read. Gives the writer back, to which everything is written.
///
/// # Errors
/// When it cannot be read or written.
pub fn pack<W: Write>(mut from: impl Read, to: W) -> io::Result<W> {
    let mut encoder = zstd::Encoder::new(to, LEVEL)?;
    // With a checksum damage is noticed by whoever unpacks it, whatever they do.
    encoder.include_checksum(true)?;
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()
}

fn unpacked<R: Read + Send>(packed: R, limit: u64) -> io::Result<impl Read + Send> {
    Ok(Unpacked { decoder: zstd::Decoder::new(packed)?, limit, left: limit })
}

/// What a packed file holds, up to a limit.
struct Unpacked<R: Read> {
    decoder: zstd::Decoder<'static, BufReader<R>>,
    limit: u64,
    left: u64,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer).map_err(|error| {
            io::Error::new(error.kind(), format!("it does not unpack with zstd: {error}"))
        })?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            let problem = format!("it unpacks to more than {} bytes", self.limit);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        };
        self.left = left;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unpack(bytes: &[u8], limit: u64) -> Result<Vec<u8>, String> {
        let mut plain = Vec::new();
        let read = unpacked(io::Cursor::new(bytes.to_vec()), limit)
            .and_then(|mut unpacked| unpacked.read_to_end(&mut plain));
        read.map(|_| plain).map_err(|error| error.to_string())
    }

    #[test]
    fn filler_packs_well() {
        let filler = b"xxxx ".repeat(1 << 20);
        let packed = pack(&filler[..], Vec::new()).unwrap();
        assert!(packed.len() < filler.len() / 1000, "{}", packed.len());
        assert_eq!(unpack(&packed, filler.len() as u64).unwrap(), filler);
    }

    #[test]
    fn what_is_no_whole_packed_file_is_refused() {
        let packed = pack(&b"a record\n".repeat(100)[..], Vec::new()).unwrap();
        let damaged = [&packed[..packed.len() - 1], b"?"].concat();
        let refused = [
            unpack(b"{\"type\":\"meta\"}\n", 1000),
            unpack(&packed[..packed.len() / 2], 1000),
            unpack(&damaged, 1000),
            unpack(&packed, 899),
        ]
        .map(Result::unwrap_err);
        insta::assert_snapshot!(refused.join("\n"), @r"
        it does not unpack with zstd: Unknown frame descriptor
        it does not unpack with zstd: incomplete frame
        it does not unpack with zstd: Restored data doesn't match checksum
        it unpacks to more than 899 bytes
        ");
    }

    #[test]
    fn a_name_says_whether_it_is_packed() {
        assert_eq!(plain_name(Path::new("a/b.jsonl.zst")), Path::new("a/b.jsonl"));
        assert_eq!(plain_name(Path::new("a/b.jsonl")), Path::new("a/b.jsonl"));
        assert!(!is_packed(Path::new("zst")));
    }

    proptest! {
        // Packing this hard takes tens of milliseconds, however short the text.
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            let packed = pack(&bytes[..], Vec::new()).unwrap();
            prop_assert_eq!(unpack(&packed, 4000).unwrap(), bytes);
        }

    }

    proptest! {
        #[test]
        fn no_input_is_unpacked_beyond_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let magic = [&[0x28, 0xB5, 0x2F, 0xFD][..], &bytes].concat();
            prop_assert!(unpack(&magic, 1000).map_or(true, |plain| plain.len() <= 1000));
        }
    }
}
