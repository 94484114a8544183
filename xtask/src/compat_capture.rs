//! `cargo xtask compat-capture`: recorded traffic becomes a fixture that holds no secret of anyone.
//!
//! What is sensitive and how it is replaced stands in `harness::scrub`; here are files and the verdict. A
//! fixture is written beside its place and renamed only once the verification has found nothing; a big one is
//! packed.

use std::io::{BufWriter, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use harness::capture::{self, CaptureError, Format, RawRecord, Reader, packed};
use harness::scrub::{Certificate, Finding, Learner, Options, Report, Rule};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::exit::Exit;
use crate::terminal;

mod self_test;

/// Scrub recorded traffic, so that it can be kept as a fixture.
///
/// Replaces credentials, identities, personal data and times by placeholders of the same length, in every
/// encoding, and free text by filler; then looks at the result in another way, and writes nothing if
/// anything is left. Beside the fixture stands a certificate, without which it does not load. A fixture of
/// more than 1 MiB is packed with zstd; `zstdcat` shows it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The recording: JSON lines, JSON, HAR or SSE text, packed or not, or a directory that `--record` wrote.
    #[arg(long, short, value_name = "FILE", required_unless_present = "self_test")]
    input: Option<PathBuf>,
    /// Name of the fixture [default: that of the recording].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where the fixture goes; it is packed if the name ends in `.zst`.
    #[arg(long, value_name = "FILE", group = "target")]
    output: Option<PathBuf>,
    /// The folder that the fixture goes to, by its name.
    #[arg(long, value_name = "DIR", group = "target", default_value = "fixtures/replay")]
    out_dir: PathBuf,
    /// Print the fixture instead of writing it; there is no certificate then.
    #[arg(long, group = "target")]
    stdout: bool,
    /// Compare with the fixture that is there, and write nothing.
    #[arg(long, conflicts_with = "stdout")]
    check: bool,
    /// Leave free text as it is: prompts, answers, outputs of tools.
    #[arg(long)]
    keep_content: bool,
    /// Leave out records that cannot be read, and say how many.
    #[arg(long)]
    skip_bad: bool,
    /// Scrub a session that holds every kind of secret in every encoding, and look for them.
    #[arg(long, conflicts_with_all = ["input", "check", "stdout"])]
    self_test: bool,
    /// Say what a rule replaced, or which rules replaced something in a place.
    #[arg(long, value_name = "RULE_OR_PLACE")]
    explain: Option<String>,
    /// Print the report as JSON.
    #[arg(long, conflicts_with = "stdout")]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask compat-capture -i a.jsonl --out-dir fixtures/replay/codex
  cargo xtask compat-capture -i a.jsonl --stdout | less
  cargo xtask compat-capture -i a.jsonl --stdout --explain user-name > /dev/null
  cargo xtask compat-capture --self-test

Exit codes: 0 written, or the same as what is there; 1 something is left, or differs;
2 usage; 3 a file cannot be read or written.";

/// What came of a run.
#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    skipped: u64,
    findings: &'a [Finding],
    report: &'a Report,
}

/// What came of a recording.
struct Outcome {
    scrubbed: NamedTempFile,
    report: Report,
    findings: Vec<Finding>,
    skipped: u64,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    if args.self_test {
        return self_test::run();
    }
    let input = args.input.as_deref().context("there is no input")?;
    let plain = target(args, input)?;
    let folder = if args.stdout || args.check { std::env::temp_dir() } else { folder_of(&plain)? };
    let options = Options { keep_content: args.keep_content };
    let outcome = match scrub(input, &folder, options, args.skip_bad)? {
        Ok(outcome) => outcome,
        Err(problem) => {
            terminal::progress(&format!("{}: {problem}; nothing was written", input.display()));
            return Ok(Exit::Findings);
        }
    };
    if outcome.skipped > 0 {
        terminal::progress(&format!("{} records were left out", outcome.skipped));
    }
    tell(args, &outcome)?;
    if !outcome.findings.is_empty() {
        terminal::progress("something sensitive is left, nothing was written:");
        outcome
            .findings
            .iter()
            .take(20)
            .for_each(|found| terminal::progress(&format!("  {}: {found}", input.display())));
        return Ok(Exit::Findings);
    }
    if args.stdout {
        std::io::copy(&mut outcome.scrubbed.reopen()?, &mut std::io::stdout().lock())
            .context("failed to write to standard output")?;
        return Ok(Exit::Good);
    }
    let certificate = Certificate::new(outcome.scrubbed.reopen()?, options, &outcome.report)?;
    let certificate = serde_json::to_string_pretty(&certificate)? + "\n";
    let target = if args.output.is_none() && outcome.scrubbed.as_file().metadata()?.len() > PACK_ABOVE {
        with_ending(&plain, packed::ENDING)
    } else {
        plain
    };
    if args.check {
        return check(&target, &std::fs::read(outcome.scrubbed.path())?, &certificate);
    }
    write(&certificate_of(&target), certificate.as_bytes())?;
    put(outcome.scrubbed, &target, &folder)
        .with_context(|| format!("failed to write {}", target.display()))?;
    terminal::progress(&format!("{}: {} values replaced", target.display(), outcome.report.values));
    Ok(Exit::Good)
}

/// The longest fixture that stays as it is, in bytes: it can be read and compared without a tool.
const PACK_ABOVE: u64 = 1 << 20;

/// Puts what was scrubbed in its place, packed if the place is called so, and removes the other form of it.
fn put(scrubbed: NamedTempFile, target: &Path, folder: &Path) -> Result<()> {
    let other = if packed::is_packed(target) {
        let (from, to) = (scrubbed.reopen()?, NamedTempFile::new_in(folder)?);
        packed::pack(from, to)?.persist(target)?;
        packed::plain_name(target).into_owned()
    } else {
        scrubbed.persist(target)?;
        with_ending(target, packed::ENDING)
    };
    match std::fs::remove_file(&other) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", other.display()))
        }
        _ => Ok(()),
    }
}

/// Where the fixture goes.
fn target(args: &Args, input: &Path) -> Result<PathBuf> {
    if let Some(output) = &args.output {
        return Ok(output.clone());
    }
    let name = match (&args.name, packed::plain_name(input).file_stem()) {
        (Some(name), _) => name.clone(),
        (None, Some(stem)) => stem.to_string_lossy().into_owned(),
        (None, None) => bail!("{} has no name", input.display()),
    };
    let slug: String = name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || ".-_".contains(letter) { letter } else { '-' })
        .collect();
    Ok(args.out_dir.join(format!("{slug}.jsonl")))
}

fn folder_of(target: &Path) -> Result<PathBuf> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    Ok(folder.to_owned())
}

/// The certificate is that of what a fixture holds, so its name does not say whether that is packed.
fn certificate_of(fixture: &Path) -> PathBuf {
    with_ending(&packed::plain_name(fixture), "cert.json")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))
}

/// Both passes and the verification. The inner error is of the recording, the outer one of the machine.
fn scrub(input: &Path, folder: &Path, options: Options, skip_bad: bool) -> Result<Result<Outcome, String>> {
    let mut learner = Learner::new(options);
    let mut bad = Vec::new();
    let read = records(input, skip_bad);
    let mut first = match read {
        Ok(records) => records,
        Err(error) => return refused(error),
    };
    for (number, record) in first.by_ref().enumerate() {
        let record = match record {
            Ok(record) => record,
            Err(error) => return refused(error),
        };
        match learner.learn(&record.bytes) {
            Err(_) if skip_bad => bad.push(number),
            Err(error) => return Ok(Err(format!("{}: {error}", record.place))),
            Ok(()) => {}
        }
    }
    let skipped = first.skipped() + bad.len() as u64;
    let mut scrubber = match learner.finish() {
        Err(error) => return Ok(Err(error.to_string())),
        Ok(scrubber) => scrubber,
    };
    let scrubbed = NamedTempFile::new_in(folder)
        .with_context(|| format!("failed to write into {}", folder.display()))?;
    let mut writer = BufWriter::new(scrubbed.as_file());
    for (number, record) in records(input, skip_bad)?.enumerate() {
        let RawRecord { place, mut bytes } = record?;
        if bad.binary_search(&number).is_ok() {
            continue;
        }
        if let Err(error) = scrubber.scrub(&mut bytes) {
            return Ok(Err(format!("{place}: {error}")));
        }
        bytes.push(b'\n');
        writer.write_all(&bytes)?;
    }
    writer.flush()?;
    drop(writer);
    let mut verifier = scrubber.verifier();
    let mut findings = Vec::new();
    let options = capture::Options { format: Some(Format::JsonLines), ..capture::Options::default() };
    for record in Reader::open(scrubbed.path(), options)? {
        let record = record?;
        let found = verifier.check(&record.bytes);
        findings.extend(
            found.with_context(|| format!("the scrubbed line {} cannot be read back", record.place.line))?,
        );
    }
    findings.extend(verifier.finish());
    let report = scrubber.report();
    Ok(Ok(Outcome { scrubbed, report, findings, skipped }))
}

/// A recording that cannot be opened is the machine's; one that cannot be read is its own fault.
fn refused<T>(error: CaptureError) -> Result<Result<T, String>> {
    match error {
        CaptureError::Open { .. } | CaptureError::Read { .. } => Err(error.into()),
        CaptureError::Format { .. } | CaptureError::Bad { .. } => Ok(Err(error.to_string())),
    }
}

/// The records of a recording, or of a directory of them.
fn records(input: &Path, skip_bad: bool) -> Result<Records, CaptureError> {
    if input.is_dir() {
        return Ok(Records::Directory(capture::directory(input)?));
    }
    let options = capture::Options { skip_bad, ..capture::Options::default() };
    Ok(Records::File(Box::new(Reader::open(input, options)?)))
}

/// Where records come from.
enum Records {
    /// A file of any format.
    File(Box<Reader>),
    /// What a recorder wrote, a file for each exchange.
    Directory(capture::Directory),
}

impl Records {
    /// How many were left out.
    fn skipped(&self) -> u64 {
        match self {
            Self::File(reader) => reader.skipped(),
            Self::Directory(directory) => directory.torn(),
        }
    }
}

impl Iterator for Records {
    type Item = Result<RawRecord, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::File(reader) => reader.next(),
            Self::Directory(directory) => directory.next(),
        }
    }
}

/// Says what was replaced, as far as it was asked for.
fn tell(args: &Args, outcome: &Outcome) -> Result<()> {
    let report = &outcome.report;
    if args.json {
        let document = Document { version: 1, skipped: outcome.skipped, findings: &outcome.findings, report };
        terminal::result(&serde_json::to_string(&document)?)?;
    }
    let Some(asked) = &args.explain else { return Ok(()) };
    let mut is_any = false;
    for rule in &report.rules {
        for (place, count) in &rule.places {
            if rule.rule == *asked || place.contains(asked.as_str()) {
                is_any = true;
                terminal::progress(&format!("{count:8} x {:20} {place}", rule.rule));
            }
        }
    }
    if let Some(rule) = Rule::ALL.iter().find(|rule| rule.id() == asked) {
        terminal::progress(&format!("{asked}: {}", rule.about().trim()));
    } else if !is_any {
        terminal::progress(&format!("nothing was replaced in a place like {asked}"));
    }
    Ok(())
}

/// Compares with what is there.
fn check(target: &Path, bytes: &[u8], certificate: &str) -> Result<Exit> {
    let mut old = Vec::new();
    let opened = packed::open(target).and_then(|mut file| file.read_to_end(&mut old));
    opened.with_context(|| format!("failed to read {}", target.display()))?;
    if let Some(difference) = difference(&old, bytes) {
        terminal::progress(&format!("{}: stale: {difference}", target.display()));
        return Ok(Exit::Findings);
    }
    let beside = certificate_of(target);
    let old = std::fs::read(&beside).with_context(|| format!("failed to read {}", beside.display()))?;
    if old != certificate.as_bytes() {
        terminal::progress(&format!("{}: stale", beside.display()));
        return Ok(Exit::Findings);
    }
    Ok(Exit::Good)
}

/// Where two texts of records differ first: by record, byte and JSON pointer.
fn difference(old: &[u8], new: &[u8]) -> Option<String> {
    if old == new {
        return None;
    }
    let mut lines = old.split(|byte| *byte == b'\n').zip(new.split(|byte| *byte == b'\n'));
    let record = lines.position(|(old, new)| old != new);
    let Some(record) = record else { return Some("one has more records than the other".to_owned()) };
    let line = |text: &[u8]| text.split(|byte| *byte == b'\n').nth(record).unwrap_or_default().to_vec();
    let (old, new) = (line(old), line(new));
    let byte = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let parse = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).unwrap_or_default();
    let pointer = pointer(&parse(&old), &parse(&new), String::new());
    Some(format!("record {}, byte {}, {pointer}", record + 1, byte + 1))
}

/// The first place where two values differ.
fn pointer(old: &serde_json::Value, new: &serde_json::Value, at: String) -> String {
    use serde_json::Value::{Array, Object};
    match (old, new) {
        (Object(old), Object(new)) => {
            let changed = old.iter().find(|(key, value)| new.get(*key) != Some(value));
            match changed {
                Some((key, value)) => match new.get(key) {
                    Some(other) => pointer(value, other, format!("{at}/{key}")),
                    None => format!("{at}/{key}"),
                },
                None => at,
            }
        }
        (Array(old), Array(new)) => match old.iter().zip(new).position(|(old, new)| old != new) {
            Some(index) => pointer(&old[index], &new[index], format!("{at}/{index}")),
            None => at,
        },
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_by_record_byte_and_pointer() {
        let old = b"{\"a\":1}\n{\"b\":[1,{\"c\":\"x\"}]}\n";
        let new = b"{\"a\":1}\n{\"b\":[1,{\"c\":\"y\"}]}\n";
        assert_eq!(difference(old, new).as_deref(), Some("record 2, byte 15, /b/1/c"));
        assert_eq!(difference(old, old), None);
        assert_eq!(difference(old, &[&old[..], new].concat()).as_deref(), Some("record 3, byte 1, "));
    }
}
