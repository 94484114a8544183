//! `cargo xtask compat-capture`: recorded traffic becomes a fixture that holds no secret of anyone.
//!
//! What is sensitive and how it is replaced stands in `harness::scrub`; here are files and the verdict. A
//! fixture is written beside its place and renamed only once the verification has found nothing; a big one is
//! packed.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufWriter, ErrorKind, Write as _};
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
    /// Say what a rule replaced, which rules replaced something in a place, or, as `RECORD:PLACE`, which of
    /// them did so in one record of the fixture. No value is shown.
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
  cargo xtask compat-capture -i a.jsonl --stdout --explain 12:/headers/authorization > /dev/null
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
    /// What was replaced in the record that was asked for, by rule and place.
    asked: BTreeMap<(String, String), u64>,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    if args.self_test {
        return self_test::run();
    }
    let input = args.input.as_deref().context("there is no input")?;
    let plain = target(args, input)?;
    let folder = if args.stdout || args.check { std::env::temp_dir() } else { folder_of(&plain)? };
    let options = Options { keep_content: args.keep_content };
    let asked = args.explain.as_deref().and_then(one_value).map(|(record, _)| record);
    let outcome = match scrub(input, &folder, options, args.skip_bad, asked)? {
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
        return check(&target, outcome.scrubbed.path(), &certificate);
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
fn scrub(
    input: &Path,
    folder: &Path,
    options: Options,
    skip_bad: bool,
    asked: Option<u64>,
) -> Result<Result<Outcome, String>> {
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
    let (mut written, mut replaced_there) = (0_u64, BTreeMap::new());
    for (number, record) in records(input, skip_bad)?.enumerate() {
        let RawRecord { place, mut bytes } = record?;
        if bad.binary_search(&number).is_ok() {
            continue;
        }
        let before = asked.filter(|asked| *asked == written + 1).map(|_| scrubber.report());
        if let Err(error) = scrubber.scrub(&mut bytes) {
            return Ok(Err(format!("{place}: {error}")));
        }
        written += 1;
        if let Some(before) = before {
            replaced_there = replaced_between(&before, &scrubber.report());
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
    Ok(Ok(Outcome { scrubbed, report, findings, skipped, asked: replaced_there }))
}

/// The record and the place that are asked for as `RECORD:PLACE`.
fn one_value(asked: &str) -> Option<(u64, &str)> {
    let (record, place) = asked.split_once(':')?;
    Some((record.parse().ok()?, place))
}

/// What was replaced between two reports, by rule and place.
fn replaced_between(before: &Report, after: &Report) -> BTreeMap<(String, String), u64> {
    let all = |report: &Report| -> BTreeMap<(String, String), u64> {
        let places = report.rules.iter().flat_map(|rule| {
            rule.places.iter().map(|(place, count)| ((rule.rule.clone(), place.clone()), *count))
        });
        places.collect()
    };
    let before = all(before);
    let mut all = all(after);
    all.retain(|key, count| {
        *count -= before.get(key).copied().unwrap_or_default();
        *count > 0
    });
    all
}

/// A JSON pointer as the pattern that reports have for it: elements of arrays are `*`.
fn pattern(pointer: &str) -> String {
    let is_element = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    pointer.split('/').map(|part| if is_element(part) { "*" } else { part }).collect::<Vec<_>>().join("/")
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
    if let Some((record, place)) = one_value(asked) {
        tell_value(record, &pattern(place), outcome);
        return Ok(());
    }
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

/// Says what was replaced in a place of one record, or in which places of it anything was.
fn tell_value(record: u64, place: &str, outcome: &Outcome) {
    if record == 0 || record > outcome.report.records {
        return terminal::progress(&format!("there are records 1 to {}", outcome.report.records));
    }
    let within =
        |of: &str| of.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_any = outcome.asked.keys().any(|(_, of)| within(of));
    if !is_any {
        terminal::progress(&format!("nothing was replaced in {place} of record {record}; elsewhere in it:"));
    }
    for ((rule, of), count) in outcome.asked.iter().filter(|((_, of), _)| !is_any || within(of)) {
        terminal::progress(&format!("{count:8} x {rule:20} {of}"));
    }
}

/// Compares with what is there.
fn check(target: &Path, scrubbed: &Path, certificate: &str) -> Result<Exit> {
    let open = |path: &Path| packed::open(path).with_context(|| format!("failed to read {}", path.display()));
    let difference = difference(open(target)?, open(scrubbed)?);
    if let Some(difference) = difference.with_context(|| format!("failed to read {}", target.display()))? {
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

/// Where two texts of records differ first: by record, byte and JSON pointer. One record of each is held.
fn difference(mut old: impl BufRead, mut new: impl BufRead) -> io::Result<Option<String>> {
    let (mut old_line, mut new_line) = (Vec::new(), Vec::new());
    let mut record = 0;
    loop {
        old_line.clear();
        new_line.clear();
        let ends = (old.read_until(b'\n', &mut old_line)? == 0, new.read_until(b'\n', &mut new_line)? == 0);
        record += 1;
        match ends {
            (true, true) => return Ok(None),
            (false, false) if old_line == new_line => {}
            (false, false) => return Ok(Some(difference_of(record, &old_line, &new_line))),
            _ => return Ok(Some(format!("record {record}: one has more records than the other"))),
        }
    }
}

/// Where two records differ first.
fn difference_of(record: u64, old: &[u8], new: &[u8]) -> String {
    let byte = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let parse = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).unwrap_or_default();
    let pointer = pointer(&parse(old), &parse(new), String::new());
    format!("record {record}, byte {}, {pointer}", byte + 1)
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
    fn one_value_is_explained_by_its_place_in_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let secret = ["Winter", "-mango-", "7719"].concat();
        let record =
            |name: &str| format!("{{\"type\":\"request\",\"headers\":[[\"{name}\",\"{secret}\"]]}}\n");
        let input = folder.path().join("a.jsonl");
        std::fs::write(&input, record("x-api-key") + &record("x-other")).unwrap();
        let asked = one_value("2:/headers/0/1").unwrap();
        assert_eq!((asked.0, pattern(asked.1)), (2, "/headers/*/*".to_owned()));
        assert_eq!(one_value("user-name"), None);
        let outcome = scrub(&input, folder.path(), Options::default(), false, Some(2)).unwrap().unwrap();
        let expected = [(("api-key".to_owned(), "/headers/x-other".to_owned()), 1)];
        assert_eq!(outcome.asked, expected.into());
    }

    #[test]
    fn a_difference_is_named_by_record_byte_and_pointer() {
        let old = b"{\"a\":1}\n{\"b\":[1,{\"c\":\"x\"}]}\n";
        let new = b"{\"a\":1}\n{\"b\":[1,{\"c\":\"y\"}]}\n";
        let difference = |old: &[u8], new: &[u8]| difference(old, new).unwrap();
        assert_eq!(difference(old, new).as_deref(), Some("record 2, byte 15, /b/1/c"));
        assert_eq!(difference(old, old), None);
        let longer = [&old[..], new].concat();
        assert_eq!(
            difference(old, &longer).as_deref(),
            Some("record 3: one has more records than the other")
        );
    }
}
