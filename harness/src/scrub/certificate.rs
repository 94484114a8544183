//! The certificate of a scrubbed fixture: what was replaced where, and which bytes it speaks of.
//!
//! It lies beside its fixture as `<fixture>.cert.json` and holds no value, no time and no name of a
//! machine, so that the same capture gives the same certificate.

use std::fmt::Write as _;
use std::io::{self, Read};

use ring::digest::{Context, Digest, SHA256};
use serde::{Deserialize, Serialize};

use super::{Options, Report, RuleReport, detect};

/// Says that bytes were scrubbed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The version of this format.
    pub format: u32,
    /// The version of the scrubber.
    pub scrubber: u32,
    /// SHA-256 of the scrubbed bytes, in hex.
    pub sha256: String,
    /// What was left as it was.
    pub options: Options,
    /// How many records the fixture has.
    pub records: u64,
    /// What was replaced.
    pub rules: Vec<RuleReport>,
    /// The detectors that looked at the scrubbed bytes and found nothing.
    pub detectors: Vec<String>,
}

/// Bytes are not those that a certificate speaks of.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// The bytes cannot be read to their end.
    #[error("it cannot be read to its end")]
    Read(#[from] io::Error),
    /// The format is one of another version of this program.
    #[error("the certificate has format {0}, which this program does not read")]
    Format(u32),
    /// The bytes were changed after they were scrubbed.
    #[error("the certificate is not that of these bytes")]
    Bytes,
}

/// The version of the certificate's format.
const FORMAT: u32 = 1;

/// The version of what the scrubber does: higher when an older fixture must be looked at again.
const SCRUBBER: u32 = 1;

impl Certificate {
    /// Certifies scrubbed bytes that a verification found nothing in. They are read piece by piece.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(scrubbed: impl Read, options: Options, report: &Report) -> io::Result<Self> {
        let mut detectors: Vec<String> =
            detect::DETECTORS.iter().map(|detector| detector.rule.id().to_owned()).collect();
        detectors.sort();
        detectors.dedup();
        Ok(Self {
            format: FORMAT,
            scrubber: SCRUBBER,
            sha256: sha256(scrubbed)?,
            options,
            records: report.records,
            rules: report.rules.clone(),
            detectors,
        })
    }

    /// Whether the bytes are those that were certified. They are read piece by piece.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn check(&self, scrubbed: impl Read) -> Result<(), Mismatch> {
        if self.format != FORMAT {
            return Err(Mismatch::Format(self.format));
        }
        if self.sha256 == sha256(scrubbed)? { Ok(()) } else { Err(Mismatch::Bytes) }
    }
}

fn sha256(mut bytes: impl Read) -> io::Result<String> {
    let mut digest = Context::new(&SHA256);
    let mut piece = vec![0; 64 * 1024];
    loop {
        match bytes.read(&mut piece) {
            Ok(0) => return Ok(hex(&digest.finish())),
            Ok(length) => digest.update(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hex(digest: &Digest) -> String {
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
