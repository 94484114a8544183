//! Listing and running tests with nextest-runner, said in our own words.
//!
//! This module and what is below it are the only users of nextest-runner, which promises no stability. Cargo
//! is run by the caller, who can interrupt it; what it says about the build is read here. A run takes over
//! the handling of signals until it ends, and must not be called from inside an async runtime.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use guppy::graph::PackageGraph;
use nextest_filtering::{CompiledExpr, EvalContext, Filterset, FiltersetKind, KnownGroups, ParseContext};
use nextest_metadata::{FilterMatch, MismatchReason};
use nextest_runner::cargo_config::{CargoConfigs, EnvironmentMap};
use nextest_runner::config::core::{ConfigExperimental, EvaluatableProfile, NextestConfig};
use nextest_runner::config::elements::TestThreads;
use nextest_runner::double_spawn::DoubleSpawnInfo;
use nextest_runner::helpers::{ShowTerminalProgress, ThemeCharacters, force_or_new_run_id};
use nextest_runner::input::InputHandlerKind;
use nextest_runner::list::{
    BinaryList, ListProgressOptions, RustTestArtifact, TestExecuteContext, TestInstance, TestList,
};
use nextest_runner::platform::BuildPlatforms;
use nextest_runner::record::{ComputedRerunInfo, RerunTestSuiteInfo};
use nextest_runner::reporter::ShowProgress;
use nextest_runner::reuse_build::PathMapper;
use nextest_runner::run_mode::NextestRunMode;
use nextest_runner::runner::{StressCondition, StressCount, TestRunnerBuilder, VersionEnvVars};
use nextest_runner::signal::SignalHandlerKind;
use nextest_runner::target_runner::TargetRunner;
use nextest_runner::test_filter::{FilterBound, RunIgnored, TestFilter, TestFilterPatterns};
use nextest_runner::test_output::CaptureStrategy;

use crate::case::{Case, TestId};

mod config;

mod event;

pub use event::{Attempt, End, Event, Failure, Finished};

/// Why tests cannot be listed or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Cargo does not say what the workspace is.
    #[error("ask cargo what the workspace is: {reason}")]
    Metadata {
        /// What it says instead.
        reason: String,
    },
    /// A filter is none.
    #[error("read the filter `{filter}`: {reason}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What cargo says about the build, or a test binary about its tests, is not understood.
    #[error("list the tests")]
    List(#[source] Cause),
    /// The run could not be prepared or broke off.
    #[error("run the tests")]
    Run(#[source] Cause),
}

/// An error of nextest-runner or of the system.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A workspace whose tests can be run.
#[derive(Debug)]
pub struct Workspace {
    root: Utf8PathBuf,
    target: Utf8PathBuf,
    graph: PackageGraph,
}

impl Workspace {
    /// The workspace around the current directory, as `cargo` sees it.
    ///
    /// # Errors
    /// When cargo cannot say.
    pub fn open(cargo: &Path) -> Result<Self, Error> {
        let metadata = |reason: String| Error::Metadata { reason };
        let arguments = ["metadata", "--format-version=1", "--all-features", "--locked"];
        let output = Command::new(cargo).args(arguments).output();
        let output = output.map_err(|error| metadata(error.to_string()))?;
        if !output.status.success() {
            return Err(metadata(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let graph = PackageGraph::from_json(String::from_utf8_lossy(&output.stdout))
            .map_err(|error| metadata(error.to_string()))?;
        let root = graph.workspace().root().to_owned();
        let target = graph.workspace().target_directory().to_owned();
        Ok(Self { root, target, graph })
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.as_std_path()
    }

    /// Its target directory.
    #[must_use]
    pub fn target(&self) -> &Path {
        self.target.as_std_path()
    }

    /// The test binaries that `cargo test --no-run --message-format=json-render-diagnostics` told of.
    ///
    /// # Errors
    /// When the messages are not understood.
    pub fn built(&self, messages: &str) -> Result<Built<'_>, Error> {
        let platforms = BuildPlatforms::new_with_no_target().map_err(list_error)?;
        let binaries = BinaryList::from_messages(messages.as_bytes(), &self.graph, platforms.clone());
        Ok(Built { workspace: self, binaries: Arc::new(binaries.map_err(list_error)?), platforms })
    }

    /// Whether this is a filter.
    ///
    /// # Errors
    /// When it is none.
    pub fn check(&self, filter: &str) -> Result<(), Error> {
        self.filter(filter).map(drop)
    }

    fn filter(&self, filter: &str) -> Result<Filterset, Error> {
        let context = ParseContext::new(&self.graph);
        let groups = KnownGroups::Known { custom_groups: Default::default() };
        Filterset::parse(filter.to_owned(), &context, FiltersetKind::Test, &groups).map_err(|error| {
            let reasons: Vec<_> = error.errors.iter().map(ToString::to_string).collect();
            Error::Filter { filter: filter.to_owned(), reason: reasons.join("; ") }
        })
    }
}

/// The test binaries of a workspace.
#[derive(Debug)]
pub struct Built<'w> {
    workspace: &'w Workspace,
    binaries: Arc<BinaryList>,
    platforms: BuildPlatforms,
}

/// A test binary as a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name: `wire`, `prodex::it`.
    pub binary: String,
    /// Its file.
    pub path: PathBuf,
    /// The directory that its tests are run in, which is that of its package.
    pub directory: PathBuf,
    /// The name of its package.
    pub package: String,
}

/// Which tests to run, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which tests, as a filter.
    pub filter: String,
    /// Which of them, by words in their names.
    pub words: Words,
    /// Which of them, by name; all if there is nothing here.
    pub only: Option<BTreeSet<TestId>>,
    /// How many may run at a time.
    pub threads: NonZeroUsize,
    /// How often the whole selection is run.
    pub repeats: NonZeroU32,
    /// How often a test that failed is tried again, to tell flaky from broken.
    pub retries: u32,
    /// How long all of it may take.
    pub limit: Option<Duration>,
    /// The program, and its first arguments, that each test is run by; none runs tests directly.
    pub wrapper: Vec<String>,
    /// Whether what tests print is kept for the report, instead of being shown as it comes.
    pub is_captured: bool,
}

impl Plan {
    /// These tests one at a time, once, without a wrapper.
    #[must_use]
    pub fn new(filter: String, words: Words) -> Self {
        Self {
            filter,
            words,
            only: None,
            threads: NonZeroUsize::MIN,
            repeats: NonZeroU32::MIN,
            retries: 0,
            limit: None,
            wrapper: Vec::new(),
            is_captured: true,
        }
    }
}

/// Words that choose tests by their names, as the command line of a test binary has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// Parts of names; a test needs one of them. None at all is every test.
    pub some: Vec<String>,
    /// Parts of names of tests that are left out.
    pub skip: Vec<String>,
    /// Whether these are whole names.
    pub is_exact: bool,
    /// Whether tests with `#[ignore]` are run, and whether only those.
    pub ignored: Ignored,
}

/// What becomes of tests with `#[ignore]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ignored {
    /// They are counted.
    #[default]
    Skipped,
    /// They are run as the others are.
    Included,
    /// They are run, and the others are not.
    Only,
}

impl Words {
    fn patterns(&self) -> TestFilterPatterns {
        let mut patterns = TestFilterPatterns::new(Vec::new());
        for word in self.some.iter().cloned() {
            if self.is_exact {
                patterns.add_exact_pattern(word);
            } else {
                patterns.add_substring_pattern(word);
            }
        }
        for word in self.skip.iter().cloned() {
            if self.is_exact {
                patterns.add_skip_exact_pattern(word);
            } else {
                patterns.add_skip_pattern(word);
            }
        }
        patterns
    }
}

impl<'w> Built<'w> {
    /// How many test binaries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.binaries.rust_binaries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.binaries.rust_binaries.is_empty()
    }

    /// The test binaries.
    #[must_use]
    pub fn programs(&self) -> Vec<Program> {
        let programs = self.binaries.rust_binaries.iter().filter_map(|binary| {
            let package = guppy::PackageId::new(binary.package_id.as_str());
            let package = self.workspace.graph.metadata(&package).ok()?;
            Some(Program {
                binary: binary.id.to_string(),
                path: binary.path.clone().into(),
                directory: package.manifest_path().parent()?.to_owned().into(),
                package: package.name().to_owned(),
            })
        });
        programs.collect()
    }

    /// Every test there is, whatever a manifest says, those with `#[ignore]` too.
    ///
    /// # Errors
    /// When a test binary does not list its tests.
    pub fn tests(&self) -> Result<Selection<'w>, Error> {
        let words = Words { ignored: Ignored::Included, ..Words::default() };
        let plan = Plan::new("all()".to_owned(), words);
        self.select(&plan, &[])
    }

    /// The tests that a plan chooses; `cases` say how long each may take and what runs alone.
    ///
    /// # Errors
    /// When a filter is none, or a test binary does not list its tests.
    pub fn select(&self, plan: &Plan, cases: &[Case]) -> Result<Selection<'w>, Error> {
        let workspace = self.workspace;
        let filter = workspace.filter(&plan.filter)?;
        let ignored = match plan.words.ignored {
            Ignored::Skipped => RunIgnored::Default,
            Ignored::Included => RunIgnored::All,
            Ignored::Only => RunIgnored::Only,
        };
        let patterns = plan.words.patterns();
        let mut filter =
            TestFilter::new(NextestRunMode::Test, ignored, patterns, vec![filter]).map_err(list_error)?;
        let config = self.config(plan, cases)?;
        if let Some(only) = &plan.only {
            let others = self.list(&filter, &config)?;
            filter.set_outstanding_tests(all_but(only, &others));
        }
        let list = self.list(&filter, &config)?;
        Ok(Selection { plan: plan.clone(), list, config, platforms: self.platforms.clone(), workspace })
    }

    /// Our configuration, which replaces any that the repository has.
    fn config(&self, plan: &Plan, cases: &[Case]) -> Result<NextestConfig, Error> {
        let text = config::render(plan, cases);
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().map_err(run_error)?;
        file.write_all(text.as_bytes()).map_err(run_error)?;
        let path = camino::Utf8Path::from_path(file.path());
        let context = ParseContext::new(&self.workspace.graph);
        let experimental = BTreeSet::from([ConfigExperimental::WrapperScripts]);
        NextestConfig::from_sources(&self.workspace.root, &context, path, &[], &experimental)
            .map_err(run_error)
    }

    fn list(&self, filter: &TestFilter, config: &NextestConfig) -> Result<TestList<'w>, Error> {
        let workspace = self.workspace;
        let mapper = PathMapper::noop();
        let meta = self.binaries.rust_build_meta.map_paths(&mapper);
        let artifacts = RustTestArtifact::from_binary_list(
            &workspace.graph,
            Arc::clone(&self.binaries),
            &meta,
            &mapper,
            None,
        );
        let profile = profile(config, &self.platforms)?;
        let configs = CargoConfigs::new(Vec::<String>::new()).map_err(list_error)?;
        let context = TestExecuteContext {
            run_id: force_or_new_run_id(),
            version_env_vars: &versions(),
            profile_name: profile.name(),
            double_spawn: &DoubleSpawnInfo::disabled(),
            target_runner: &TargetRunner::empty(),
        };
        let progress = ListProgressOptions::new(
            ShowProgress::None,
            ShowTerminalProgress::No,
            ThemeCharacters::default(),
            false,
        );
        TestList::new(
            &context,
            artifacts.map_err(list_error)?,
            meta,
            filter,
            None,
            workspace.root.clone(),
            EnvironmentMap::new(&configs),
            &profile,
            FilterBound::DefaultSet,
            LISTERS,
            progress,
        )
        .map_err(list_error)
    }
}

/// How many test binaries are asked for their tests at a time.
const LISTERS: usize = 4;

/// Tests that were chosen from all that there are.
#[derive(Debug)]
pub struct Selection<'w> {
    plan: Plan,
    list: TestList<'w>,
    config: NextestConfig,
    platforms: BuildPlatforms,
    workspace: &'w Workspace,
}

impl Selection<'_> {
    /// The chosen tests.
    #[must_use]
    pub fn chosen(&self) -> Vec<TestId> {
        self.list.iter_tests().filter(is_chosen).map(|test| id(&test)).collect()
    }

    /// Every test of the binaries that hold a chosen one, chosen or not.
    #[must_use]
    pub fn listed(&self) -> Vec<TestId> {
        self.list.iter_tests().map(|test| id(&test)).collect()
    }

    /// How many tests would have been chosen without their `#[ignore]`.
    #[must_use]
    pub fn ignored(&self) -> usize {
        let reason = FilterMatch::Mismatch { reason: MismatchReason::Ignored };
        self.list.iter_tests().filter(|test| test.test_info.filter_match == reason).count()
    }

    /// Which of the listed tests a filter matches, as indices.
    ///
    /// # Errors
    /// When the filter is none.
    pub fn matching(&self, filter: &str) -> Result<Vec<usize>, Error> {
        let filter = self.workspace.filter(filter)?;
        let context = EvalContext { default_filter: &CompiledExpr::ALL };
        let tests = self.list.iter_tests().enumerate();
        let matched = tests.filter(|(_, test)| filter.matches_test(&test.to_test_query(), &context));
        Ok(matched.map(|(index, _)| index).collect())
    }

    /// Runs the chosen tests, each in a process of its own, and tells what happens.
    ///
    /// # Errors
    /// When the run cannot be prepared, or breaks off.
    pub fn run(&self, mut tell: impl FnMut(Event) + Send) -> Result<End, Error> {
        let profile = profile(&self.config, &self.platforms)?;
        let mut builder = TestRunnerBuilder::default();
        builder.set_capture_strategy(match self.plan.is_captured {
            true => CaptureStrategy::Combined,
            false => CaptureStrategy::None,
        });
        builder.set_test_threads(TestThreads::Count(self.plan.threads.get()));
        if self.plan.repeats > NonZeroU32::MIN {
            let count = StressCount::Count { count: self.plan.repeats };
            builder.set_stress_condition(StressCondition::Count(count));
        }
        let runner = builder.build(
            force_or_new_run_id(),
            versions(),
            &self.list,
            &profile,
            Vec::new(),
            SignalHandlerKind::Standard,
            InputHandlerKind::Noop,
            DoubleSpawnInfo::disabled(),
            TargetRunner::empty(),
        );
        let mut end = None;
        let outcome = runner.map_err(run_error)?.execute(|event| {
            end = end.or(event::cancelled(&event));
            event::translate(event, self.plan.is_captured).into_iter().for_each(&mut tell);
        });
        let outcome = outcome.map_err(|error| run_error(std::io::Error::other(error.to_string())))?;
        Ok(end.unwrap_or_else(|| End::of(outcome)))
    }
}

fn profile<'c>(
    config: &'c NextestConfig,
    platforms: &BuildPlatforms,
) -> Result<EvaluatableProfile<'c>, Error> {
    let profile = config.profile(NextestConfig::DEFAULT_PROFILE).map_err(run_error)?;
    Ok(profile.apply_build_platforms(platforms))
}

/// What tells nextest's runner to leave out all tests but these.
fn all_but(only: &BTreeSet<TestId>, list: &TestList<'_>) -> ComputedRerunInfo {
    let suites = list.iter().map(|suite| {
        let names = suite.status.test_cases().map(|case| case.name.clone());
        let (outstanding, passing) = names.partition(|name| {
            only.contains(&TestId { binary: suite.binary_id.to_string(), test: name.to_string() })
        });
        RerunTestSuiteInfo { binary_id: suite.binary_id.clone(), passing, outstanding }
    });
    ComputedRerunInfo { test_suites: suites.collect() }
}

fn is_chosen(test: &TestInstance<'_>) -> bool {
    test.test_info.filter_match.is_match()
}

fn id(test: &TestInstance<'_>) -> TestId {
    TestId { binary: test.suite_info.binary_id.to_string(), test: test.name.to_string() }
}

/// What tests are told about the version of nextest that runs them.
fn versions() -> VersionEnvVars {
    let current_version = semver::Version::new(0, 9, 129);
    VersionEnvVars { current_version, required_version: None, recommended_version: None }
}

fn list_error(error: impl Into<Cause>) -> Error {
    Error::List(error.into())
}

fn run_error(error: impl Into<Cause>) -> Error {
    Error::Run(error.into())
}
