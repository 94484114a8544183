//! What all `test-*` tasks share: one build, a selection by the manifest, a run, a report, an exit code.
//!
//! Each task is a file that says which tests and in which way. Nothing here knows a test by its name.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use manifest::case::{Case, Tag, TestId};
use manifest::file::Manifest;
use manifest::run::{Built, Error, Plan, Program, Selection, Workspace};
use manifest::shard;
use manifest::timings;

use crate::exit::Exit;
use crate::step::Steps;
use crate::{isolate, terminal};

mod junit;

mod report;

mod show;

mod words;

pub(crate) use report::Outcome;
use report::Report;
pub(crate) use show::diagnostic;
use words::Request;

/// What every `test-*` task takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Options {
    /// How many compilers and how many tests run at a time [default: the processors, at most 6]
    #[arg(long, short, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the slowest tests.
    #[arg(long)]
    pub(crate) timings: bool,
    /// Print the times of all tests as one line of JSON.
    #[arg(long)]
    pub(crate) timings_json: bool,
    /// How many of the slowest tests are shown.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) timings_limit: usize,
    /// Build in a step of its own first, which shows the errors of all crates [default: not in CI]
    #[arg(long, overrides_with = "no_prebuild")]
    pub(crate) prebuild: bool,
    /// Build only once.
    #[arg(long, overrides_with = "prebuild")]
    pub(crate) no_prebuild: bool,
    /// Show how the tests would be dealt out to the jobs, and run nothing.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Arguments for `cargo test`; with `-p`, only these packages are built and tested.
    #[arg(last = true, value_name = "CARGO ARGS")]
    pub(crate) extra: Vec<String>,
}

/// Which tests a task runs, and in which way.
pub(crate) struct Suite {
    /// The task, as its closing line begins.
    pub(crate) name: &'static str,
    /// Which cases of the manifest are in it.
    pub(crate) has: fn(&Case) -> bool,
    /// Whether tests without a case are run as well; they fail the task in any case.
    pub(crate) takes_unowned: bool,
    /// Which of these tests, as a filter.
    pub(crate) filter: Option<String>,
    /// How many run at a time; what `--jobs` says if nothing stands here.
    pub(crate) threads: Option<NonZeroUsize>,
    /// How often all of them are run.
    pub(crate) repeats: NonZeroU32,
    /// How long all of them may take.
    pub(crate) limit: Option<Duration>,
    /// The part of the tests that is run: which, of how many, dealt out how.
    pub(crate) part: Option<Part>,
}

/// One shard of a suite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) index: usize,
    pub(crate) count: NonZeroUsize,
    pub(crate) dealing: shard::Dealing,
}

impl Suite {
    /// All tests of the cases with this property, as many at a time as jobs are asked for.
    pub(crate) fn new(name: &'static str, has: fn(&Case) -> bool) -> Self {
        let (filter, threads, limit, part) = (None, None, None, None);
        Self { name, has, takes_unowned: false, filter, threads, repeats: NonZeroU32::MIN, limit, part }
    }

    /// One test at a time.
    pub(crate) fn one_at_a_time(self) -> Self {
        Self { threads: Some(NonZeroUsize::MIN), ..self }
    }

    /// The manifest's cases of this suite as one filter; `None` when there are none.
    fn filter(&self, manifest: &Manifest) -> Option<String> {
        let union = |cases: Vec<&Case>| {
            let filters: Vec<_> = cases.into_iter().map(|case| format!("({})", case.filter)).collect();
            (!filters.is_empty()).then(|| filters.join(" | "))
        };
        let mut filter = union(manifest.cases.iter().filter(|case| (self.has)(case)).collect());
        if self.takes_unowned {
            let unowned = union(manifest.cases.iter().collect()).map(|all| format!("not ({all})"));
            let unowned = unowned.unwrap_or_else(|| "all()".to_owned());
            filter = Some(filter.map_or_else(|| unowned.clone(), |filter| format!("{filter} | {unowned}")));
        }
        match (filter, &self.filter) {
            (Some(filter), Some(part)) => Some(format!("({filter}) & ({part})")),
            (filter, _) => filter,
        }
    }
}

/// Whether a case has a tag, for suites that are a tag.
pub(crate) fn is_safe(case: &Case) -> bool {
    case.tags.contains(&Tag::ParallelSafe)
}

/// As many as there are processors; more than six would not make a test sooner, but each takes memory.
pub(crate) fn default_jobs() -> NonZeroUsize {
    let most = NonZeroUsize::MIN.saturating_add(5);
    available_parallelism().unwrap_or(NonZeroUsize::MIN).min(most)
}

/// The manifest of a workspace, with filters that are filters; otherwise what is wrong was shown.
pub(crate) fn manifest(workspace: &Workspace) -> Result<Option<Manifest>> {
    match Manifest::open(workspace.root()) {
        Ok(manifest) => {
            for case in &manifest.cases {
                if let Err(error) = workspace.check(&case.filter) {
                    terminal::progress(&format!(
                        "{}:{}: case `{}`: {error}",
                        manifest::file::PATH,
                        case.line,
                        case.id
                    ));
                    return Ok(None);
                }
            }
            Ok(Some(manifest))
        }
        Err(error) => {
            show::diagnostic(&error);
            Ok(None)
        }
    }
}

/// Builds the tests of a workspace; what came of it when there are none.
pub(crate) fn build<'w>(
    workspace: &'w Workspace,
    jobs: NonZeroUsize,
    arguments: &[String],
    is_prebuilt: bool,
) -> Result<std::result::Result<Built<'w>, Outcome>> {
    let steps = Steps::new()?;
    let failure = |ended: &crate::step::Ended| match ended.status.code() {
        _ if ended.is_interrupted => Some(Outcome::Interrupted),
        Some(0) => None,
        Some(REFUSED) => Some(Outcome::Refused),
        _ => Some(Outcome::BuildFailed),
    };
    if is_prebuilt {
        let ended = steps.show(&mut cargo(&["build", "--tests", "--keep-going"], jobs, arguments))?;
        if let Some(outcome) = failure(&ended) {
            return Ok(Err(outcome));
        }
    }
    let mut messages = String::new();
    let stage = ["test", "--no-run", "--message-format=json-render-diagnostics"];
    let mut command = cargo(&stage, jobs, arguments);
    let ended = steps.read(&mut command, |line| {
        messages.push_str(line);
        messages.push('\n');
    })?;
    if let Some(outcome) = failure(&ended) {
        return Ok(Err(outcome));
    }
    Ok(Ok(workspace.built(&messages).context("failed to read what cargo built")?))
}

/// What cargo exits with when it does not understand its arguments; for all other trouble it is 101.
const REFUSED: i32 = 1;

/// Cargo over the workspace, or over the packages that the arguments select.
fn cargo(stage: &[&str], jobs: NonZeroUsize, arguments: &[String]) -> Command {
    let mut command = crate::cargo::command();
    command.args(stage).arg("--locked").arg(format!("--jobs={jobs}"));
    // Cargo ignores `-p` beside `--workspace`, silently.
    if !arguments.iter().any(|argument| argument.starts_with("-p") || argument.starts_with("--package")) {
        command.arg("--workspace");
    }
    command.args(arguments);
    command
}

/// Whether to build in a step of its own first; `ci` is the variable that every CI sets.
fn is_prebuilt(args: &Options, ci: Option<&str>) -> bool {
    let is_ci = !matches!(ci, None | Some("" | "0" | "false"));
    args.prebuild || !(args.no_prebuild || is_ci)
}

/// The variable that says whether this is CI.
fn ci() -> Option<String> {
    env::var("CI").ok()
}

/// Runs a suite.
pub(crate) fn run(suite: &Suite, args: &Options) -> Result<Exit> {
    let since = Instant::now();
    let request = match Request::parse(&args.extra) {
        Ok(request) => request,
        Err(word) => {
            terminal::progress(&format!("error: `{word}` is no argument for tests"));
            return Ok(Exit::Usage);
        }
    };
    let workspace = Workspace::open(&crate::cargo::program())?;
    let Some(manifest) = manifest(&workspace)? else { return Ok(Exit::Usage) };
    let jobs = args.jobs.unwrap_or_else(default_jobs);
    let built = match build(&workspace, jobs, &request.cargo, is_prebuilt(args, ci().as_deref()))? {
        Ok(built) => built,
        Err(outcome) => {
            return report::end(&Report::without_tests(suite.name, outcome, since.elapsed()), args);
        }
    };
    let Some(filter) = suite.filter(&manifest) else {
        let outcome = Outcome::NothingSelected;
        return report::end(&Report::without_tests(suite.name, outcome, since.elapsed()), args);
    };
    let folder = workspace.target().join(RUNS).join(suite.name);
    let kept = folder.join("failed");
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let mut plan = Plan {
        threads: suite.threads.unwrap_or(jobs),
        repeats: suite.repeats,
        retries: RETRIES,
        limit: suite.limit,
        wrapper: isolate::wrapper(&kept)?,
        is_captured: request.is_captured,
        ..Plan::new(filter, request.words)
    };
    let mut selection = select(&built, &plan, &manifest)?;
    let store = workspace.target().join(timings::PATH);
    if args.explain || suite.part.is_some() {
        let weights = weights(&selection, &manifest, &store)?;
        let part =
            suite.part.unwrap_or(Part { index: 0, count: plan.threads, dealing: shard::Dealing::Weighted });
        let dealt = shard::Plan::new(weights, part.count, part.dealing);
        if args.explain {
            terminal::result(&dealt.explain())?;
            return Ok(Exit::Good);
        }
        terminal::progress(dealt.explain().trim_end());
        let tests = dealt.shards.into_iter().nth(part.index).map(|shard| shard.tests);
        plan.only = Some(tests.into_iter().flatten().collect());
        selection = select(&built, &plan, &manifest)?;
    }
    for test in selection.chosen() {
        let old = isolate::folder(&kept, &test);
        if old.exists() {
            fs::remove_dir_all(&old).with_context(|| format!("failed to remove {}", old.display()))?;
        }
    }
    let ran = show::run(&selection, &manifest, &folder, &kept, args.json)?;
    let mut report = Report::new(suite.name, &ran, selection.ignored(), since.elapsed());
    if suite.takes_unowned {
        report.without_case = unowned(&selection, &manifest)?.iter().map(ToString::to_string).collect();
    }
    report.settle(ran.end);
    timings::append(&store, &report::records(&ran)).context("failed to keep the timings")?;
    report::write(&report, &ran, &folder)?;
    report::timings(&report, &ran, args)?;
    report::end(&report, args)
}

/// Tests that were chosen, by the binaries that hold them.
pub(crate) struct Chosen<'w> {
    built: Built<'w>,
    pub(crate) tests: BTreeMap<String, BTreeSet<String>>,
}

impl Chosen<'_> {
    /// The binaries.
    pub(crate) fn programs(&self) -> Vec<Program> {
        self.built.programs()
    }
}

/// Builds and chooses the tests of a suite, for a task that runs them in its own way.
pub(crate) fn choose<'w>(
    suite: &Suite,
    workspace: &'w Workspace,
    args: &Options,
) -> Result<std::result::Result<Chosen<'w>, Exit>> {
    let Some(manifest) = manifest(workspace)? else { return Ok(Err(Exit::Usage)) };
    let Ok(request) = Request::parse(&args.extra) else { return Ok(Err(Exit::Usage)) };
    let jobs = args.jobs.unwrap_or_else(default_jobs);
    let built = match build(workspace, jobs, &request.cargo, is_prebuilt(args, ci().as_deref()))? {
        Ok(built) => built,
        Err(outcome) => return Ok(Err(outcome.exit())),
    };
    let Some(filter) = suite.filter(&manifest) else { return Ok(Err(Exit::NothingSelected)) };
    let plan = Plan::new(filter, request.words);
    let mut tests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for id in select(&built, &plan, &manifest)?.chosen() {
        tests.entry(id.binary).or_default().insert(id.test);
    }
    Ok(Ok(Chosen { built, tests }))
}

/// Where runs leave their reports, below the target directory.
pub(crate) const RUNS: &str = "test-runs";

/// How often a test that failed is tried again, to tell flaky from broken.
const RETRIES: u32 = 1;

fn select<'w>(built: &Built<'w>, plan: &Plan, manifest: &Manifest) -> Result<Selection<'w>> {
    built.select(plan, &manifest.cases).map_err(|error| match error {
        Error::Filter { reason, .. } => anyhow::anyhow!("failed to read a filter: {reason}"),
        error => error.into(),
    })
}

/// What to expect of each chosen test: what was measured, else what its case says, else the mean of all.
fn weights(selection: &Selection<'_>, manifest: &Manifest, store: &Path) -> Result<Vec<(TestId, Duration)>> {
    let measured = timings::weights(&timings::read(store)?);
    let cases = owners(selection, manifest)?;
    let known: Vec<Duration> = measured.values().copied().collect();
    let count = u32::try_from(known.len()).unwrap_or(u32::MAX).max(1);
    let mean = known.iter().sum::<Duration>() / count;
    let usual = if mean.is_zero() { UNMEASURED } else { mean };
    let weigh = |id: TestId| {
        let case = cases.get(&id).and_then(|index| manifest.cases.get(*index));
        let said = case.and_then(|case| case.weight);
        let weight = measured.get(&id).copied().or(said).unwrap_or(usual);
        (id, weight)
    };
    Ok(selection.chosen().into_iter().map(weigh).collect())
}

/// What a test is expected to take where nothing at all is known.
const UNMEASURED: Duration = Duration::from_millis(50);

/// For each listed test, its case.
fn owners(selection: &Selection<'_>, manifest: &Manifest) -> Result<BTreeMap<TestId, usize>> {
    let listed = selection.listed();
    let mut owners = BTreeMap::new();
    for (index, case) in manifest.cases.iter().enumerate() {
        for test in selection.matching(&case.filter)? {
            owners.entry(listed[test].clone()).or_insert(index);
        }
    }
    Ok(owners)
}

/// The chosen tests that have no case.
fn unowned(selection: &Selection<'_>, manifest: &Manifest) -> Result<Vec<TestId>> {
    let owners = owners(selection, manifest)?;
    Ok(selection.chosen().into_iter().filter(|test| !owners.contains_key(test)).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_build_is_a_step_of_its_own_but_in_ci_unless_asked_for() {
        let cases = [
            ("", None, true),
            ("", Some("true"), false),
            ("", Some("0"), true),
            ("--prebuild", Some("true"), true),
            ("--no-prebuild", None, false),
            ("--prebuild --no-prebuild", None, false),
            ("--no-prebuild --prebuild", Some("true"), true),
        ];
        for (line, ci, expected) in cases {
            let words = std::iter::once("test").chain(line.split_whitespace());
            let options = Line::try_parse_from(words).expect(line).options;
            assert_eq!(is_prebuilt(&options, ci), expected, "{line} with {ci:?}");
        }
    }

    #[test]
    fn a_suite_is_the_union_of_its_cases_and_may_take_what_no_case_has() {
        let text = "[[case]]\nid = \"a\"\nfilter = \"package(a)\"\ntags = [\"parallel-safe\"]\n\
            [[case]]\nid = \"b\"\nfilter = \"package(b)\"\ntags = [\"serial\"]\nreason = \"port\"\n";
        let (manifest, _) = Manifest::read(&manifest::file::Text::new("tests.toml", text));
        let fast = Suite::new("test-fast", is_safe);
        assert_eq!(fast.filter(&manifest).as_deref(), Some("(package(a))"));
        let fast = Suite { takes_unowned: true, filter: Some("test(x)".to_owned()), ..fast };
        let expected = "((package(a)) | not ((package(a)) | (package(b)))) & (test(x))";
        assert_eq!(fast.filter(&manifest).as_deref(), Some(expected));
        assert_eq!(Suite::new("test-stress", |_| false).filter(&manifest), None);
    }
}
