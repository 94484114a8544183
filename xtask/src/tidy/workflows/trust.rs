//! What a workflow may do and whose code it runs: permissions, actions, secrets, foreign input, time.

use super::super::Finding;
use super::file::Workflow;
use super::finding;

/// Everything about trust.
pub(super) fn check(workflow: &Workflow<'_>) -> Vec<Finding> {
    let mut findings = permissions(workflow);
    findings.extend(actions(workflow));
    findings.extend(events(workflow));
    findings.extend(expressions(workflow));
    findings.extend(secrets(workflow));
    findings.extend(limits(workflow));
    findings.extend(hidden(workflow));
    findings.extend(installs(workflow));
    findings
}

/// The workflow starts with the right to read the contents and no other, and no job takes more.
fn permissions(workflow: &Workflow<'_>) -> Vec<Finding> {
    let right = "`permissions:` with `contents: read` and nothing else";
    if workflow.top("permissions").is_none() {
        let problem = "the workflow takes whatever permissions the repository gives".to_owned();
        return vec![finding(workflow.path, None, problem, right)];
    }
    let mut findings = Vec::new();
    for (_, granted) in workflow.values("permissions") {
        let Some(rights) = granted.data.as_mapping() else {
            let problem = "permissions are given wholesale".to_owned();
            findings.push(workflow.finding(granted.span.start.line(), problem, right));
            continue;
        };
        for (scope, level) in rights {
            let name = scope.data.as_str().unwrap_or("?");
            let level = level.data.as_str().unwrap_or("?");
            if (name, level) != ("contents", "read") && level != "none" {
                let problem = format!("takes the permission `{name}: {level}`");
                findings.push(workflow.finding(scope.span.start.line(), problem, right));
            }
        }
    }
    findings
}

/// Every action is the workspace's own, or named by the hash of a commit with its tag beside it.
fn actions(workflow: &Workflow<'_>) -> Vec<Finding> {
    let used = workflow.values("uses").into_iter();
    let used = used.filter_map(|(line, value)| Some((line, value.data.as_str()?)));
    let loose = used.filter(|(line, action)| !is_pinned(action, workflow.text.lines().nth(line - 1)));
    let found = loose.map(|(line, action)| {
        let right = "`uses: owner/name@` and the 40 digits of the commit, then `# ` and its tag";
        workflow.finding(line, format!("`{action}` is not pinned"), right)
    });
    found.collect()
}

/// Whether an action is ours, an image by digest, or a commit by hash with a comment that names its tag.
fn is_pinned(action: &str, line: Option<&str>) -> bool {
    let is_hex =
        |digits: &str, count| digits.len() == count && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if action.starts_with("./") {
        return true;
    }
    if let Some(image) = action.strip_prefix("docker://") {
        return image.split_once("@sha256:").is_some_and(|(_, digest)| is_hex(digest, 64));
    }
    let is_by_hash = action.split_once('@').is_some_and(|(_, commit)| is_hex(commit, 40));
    let tag = line.and_then(|line| line.split_once(action)?.1.split_once("# "));
    is_by_hash && tag.is_some_and(|(_, tag)| !tag.trim().is_empty())
}

/// No event runs a stranger's code with the repository's rights.
fn events(workflow: &Workflow<'_>) -> Vec<Finding> {
    let trusting = workflow.events().into_iter();
    let trusting = trusting.filter(|(_, event)| ["pull_request_target", "workflow_run"].contains(event));
    let found = trusting.map(|(line, event)| {
        let problem = format!("`{event}` runs with the repository's rights for a stranger's change");
        workflow.finding(line, problem, "`pull_request`")
    });
    found.collect()
}

/// No expression is pasted into a script: what a title or a branch is called would be run as code.
fn expressions(workflow: &Workflow<'_>) -> Vec<Finding> {
    let runs = workflow.values("run").into_iter();
    let pasted = runs.filter(|(_, run)| run.data.as_str().is_some_and(|run| run.contains("${{")));
    let found = pasted.map(|(line, _)| {
        let right = "an entry of `env:` with the expression, and `\"$NAME\"` in the script";
        workflow.finding(line, "an expression is pasted into a script".to_owned(), right)
    });
    found.collect()
}

/// No workflow needs a secret.
fn secrets(workflow: &Workflow<'_>) -> Vec<Finding> {
    let texts = workflow.texts().into_iter().filter(|(_, text)| is_asking(text)).map(|(line, _)| line);
    let keys = workflow.values("secrets").into_iter().map(|(line, _)| line);
    let found = texts.chain(keys).map(|line| {
        workflow.finding(line, "asks for a secret".to_owned(), "nothing here has an account or publishes")
    });
    found.collect()
}

/// Whether an expression of the text reads the context `secrets`.
fn is_asking(text: &str) -> bool {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
    let inside = text.split("${{").skip(1).filter_map(|rest| rest.split("}}").next());
    let mut words = inside.flat_map(|inside| inside.split(|letter| !is_word(letter)));
    words.any(|word| word.split('.').next() == Some("secrets"))
}

/// Every job has a limit of time.
fn limits(workflow: &Workflow<'_>) -> Vec<Finding> {
    let is_limited = |minutes: i64| (1..=120).contains(&minutes);
    let jobs = workflow.jobs().into_iter();
    let endless = jobs.filter(|job| {
        !job.entry("timeout-minutes").and_then(|(_, value)| value.data.as_integer()).is_some_and(is_limited)
    });
    let found = endless.map(|job| {
        let problem = format!("the job `{}` has no limit of time", job.id);
        workflow.finding(job.line, problem, "`timeout-minutes:` and a number from 1 to 120")
    });
    found.collect()
}

/// No job and no step fails unseen.
fn hidden(workflow: &Workflow<'_>) -> Vec<Finding> {
    let found = workflow.values("continue-on-error").into_iter().map(|(line, _)| {
        let right = "no `continue-on-error`: what may fail says so by its exit code";
        workflow.finding(line, "a failure here goes unseen".to_owned(), right)
    });
    found.collect()
}

/// What is installed is a version with its lock file.
fn installs(workflow: &Workflow<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, command) in workflow.commands() {
        let Some((_, arguments)) =
            command.cargo().and_then(<[_]>::split_first).filter(|(it, _)| *it == "install")
        else {
            continue;
        };
        let is_exact = |name: &String| {
            name.split_once('@').is_some_and(|(_, version)| {
                let numbers: Vec<_> = version.split('.').collect();
                numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
            })
        };
        let mut names = arguments.iter().filter(|word| !word.starts_with('-')).peekable();
        let is_locked = arguments.iter().any(|word| word == "--locked");
        if !is_locked || names.peek().is_none() || !names.all(is_exact) {
            let problem = format!("`cargo install {}` installs what is newest", arguments.join(" "));
            findings.push(workflow.finding(line, problem, "`cargo install --locked NAME@1.2.3`"));
        }
    }
    findings
}
