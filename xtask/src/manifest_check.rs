//! `cargo xtask manifest-check`: whether the manifest owns every test, and everything wrong with how it does.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result};
use manifest::case::TestId;
use manifest::coverage::{self, Facts, Matches, Workflow};
use manifest::file::{self, Manifest, Mistake, Text};
use manifest::run::{Error, Selection, Workspace};
use manifest::timings;

use crate::exit::Exit;
use crate::suite;
use crate::terminal;

/// Check that the manifest owns every test.
///
/// Builds and lists the tests, and says at once everything that is wrong with manifest/tests.toml.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Add a parallel-safe case for every test that has none, then check.
    #[arg(long)]
    fix: bool,
    /// How many compilers run at a time [default: the processors, at most 6]
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Print one JSON document on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

/// Where the workflows of CI stand.
const WORKFLOWS: &str = ".github/workflows";

/// Checks, and repairs first if asked to.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    let workspace = Workspace::open(&crate::cargo::program())?;
    let built = match suite::build(&workspace, args.jobs.unwrap_or_else(suite::default_jobs), &[], false)? {
        Ok(built) => built,
        Err(outcome) => {
            terminal::result("manifest-check: the build failed")?;
            return Ok(outcome.exit());
        }
    };
    let selection = built.tests()?;
    let mut house = House::look(&workspace, &selection)?;
    let mut added = 0;
    if args.fix {
        added = house.fix()?;
        house = House::look(&workspace, &selection)?;
    }
    let mistakes = house.mistakes();
    for mistake in &mistakes {
        if !args.json {
            suite::diagnostic(mistake);
        }
    }
    let (tests, cases) = (house.tests.len(), house.manifest.cases.len());
    let mut line = format!("manifest-check: {tests} tests in {cases} cases, {} mistakes", mistakes.len());
    if added > 0 {
        line += &format!("; {added} cases added");
    }
    if args.json {
        let listed: Vec<_> = mistakes
            .iter()
            .map(|mistake| serde_json::json!({"problem": mistake.problem, "right": mistake.right}))
            .collect();
        let document = serde_json::json!({
            "version": 1, "tests": tests, "cases": cases, "added": added, "mistakes": listed,
        });
        terminal::progress(&line);
        terminal::result(&serde_json::to_string_pretty(&document)?)?;
    } else {
        terminal::result(&line)?;
    }
    Ok(if mistakes.is_empty() { Exit::Good } else { Exit::Findings })
}

/// The manifest and everything that it is compared with.
struct House {
    path: std::path::PathBuf,
    content: String,
    text: Text,
    manifest: Manifest,
    /// What is wrong with the file by itself.
    wrong: Vec<Mistake>,
    tests: Vec<TestId>,
    cases: Vec<Matches>,
    shards: Vec<Matches>,
    workflows: Vec<Workflow>,
    summaries: Vec<timings::Summary>,
}

impl House {
    fn look(workspace: &Workspace, selection: &Selection<'_>) -> Result<Self> {
        let path = workspace.root().join(file::PATH);
        let content = fs::read_to_string(&path).with_context(|| format!("failed to read {}", file::PATH))?;
        let text = Text::new(file::PATH, &content);
        let (manifest, wrong) = Manifest::read(&text);
        let matches = |filter: &String| {
            selection.matching(filter).map_err(|error| match error {
                Error::Filter { reason, .. } => reason,
                error => error.to_string(),
            })
        };
        let cases = manifest.cases.iter().map(|case| matches(&case.filter)).collect();
        let shards = manifest.shards.iter().map(|shard| matches(&shard.filter)).collect();
        let records = timings::read(&workspace.target().join(timings::PATH))?;
        Ok(Self {
            tests: selection.listed(),
            workflows: workflows(workspace.root())?,
            summaries: timings::summarize(&records),
            path,
            content,
            text,
            manifest,
            wrong,
            cases,
            shards,
        })
    }

    fn with_facts<T>(&self, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        let passes = |id: &TestId| {
            let summary = self.summaries.iter().find(|summary| summary.id == *id);
            summary.map_or(0, |summary| summary.passes)
        };
        look(&Facts {
            tests: &self.tests,
            cases: &self.cases,
            shards: &self.shards,
            workflows: &self.workflows,
            passes: &passes,
            today: jiff::Zoned::now().date(),
        })
    }

    fn mistakes(&self) -> Vec<Mistake> {
        let found = self.with_facts(|facts| coverage::check(&self.manifest, &self.text, facts));
        self.wrong.iter().cloned().chain(found).collect()
    }

    /// Adds the cases that can be added, and says how many.
    fn fix(&self) -> Result<usize> {
        let unowned = self.with_facts(coverage::unowned);
        if unowned.is_empty() {
            return Ok(0);
        }
        let text = file::with_cases(&self.content, &unowned).context("failed to read the manifest")?;
        let part = self.path.with_extension("part");
        fs::write(&part, text).with_context(|| format!("failed to write {}", part.display()))?;
        fs::rename(&part, &self.path).context("failed to put the manifest in place")?;
        Ok(unowned.len())
    }
}

/// The workflows below a root; none where there is no CI.
fn workflows(root: &Path) -> Result<Vec<Workflow>> {
    let Ok(files) = fs::read_dir(root.join(WORKFLOWS)) else { return Ok(Vec::new()) };
    let mut workflows = Vec::new();
    for file in files {
        let path = file.context("failed to list the workflows")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".yml") || name.ends_with(".yaml") {
            let text = fs::read_to_string(&path).with_context(|| format!("failed to read {name}"))?;
            workflows.push(Workflow::read(&format!("{WORKFLOWS}/{name}"), &text));
        }
    }
    Ok(workflows)
}
