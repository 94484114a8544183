//! The arguments that a person would give to `cargo test`, by whom they are for: cargo or the choice of tests.

use manifest::run::{Ignored, Words};

/// The arguments, by whom they are for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// For cargo: packages, targets, features.
    pub(super) cargo: Vec<String>,
    /// Which tests.
    pub(super) words: Words,
    /// Whether what tests print is kept for the report.
    pub(super) is_captured: bool,
}

/// Options of `cargo test` whose value is a word of its own.
const VALUED: &[&str] = &[
    "-p",
    "--package",
    "--exclude",
    "--test",
    "--bin",
    "--example",
    "--bench",
    "-F",
    "--features",
    "--target",
    "--target-dir",
    "--manifest-path",
    "--profile",
    "--config",
    "--color",
    "-Z",
];

impl Request {
    /// Sorts the arguments; gives back one that nobody understands.
    pub(super) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut request = Self { cargo: Vec::new(), words: Words::default(), is_captured: true };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                break;
            }
            if !argument.starts_with('-') {
                request.words.some.push(argument.clone());
                continue;
            }
            request.cargo.push(argument.clone());
            if VALUED.contains(&argument.as_str()) {
                request.cargo.extend(arguments.next().cloned());
            }
        }
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => request.words.is_exact = true,
                "--ignored" => request.words.ignored = Ignored::Only,
                "--include-ignored" => request.words.ignored = Ignored::Included,
                "--nocapture" | "--no-capture" => request.is_captured = false,
                "--skip" => request.words.skip.extend(arguments.next().cloned()),
                word if word.starts_with('-') => return Err(word.to_owned()),
                word => request.words.some.push(word.to_owned()),
            }
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Result<Request, String> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        Request::parse(&words)
    }

    #[test]
    fn cargo_gets_its_own_and_the_rest_chooses_tests() {
        let parsed = request("-p wire --test it sse -- bom --skip slow --nocapture").unwrap();
        assert_eq!(parsed.cargo, ["-p", "wire", "--test", "it"]);
        assert_eq!(
            (parsed.words.some, parsed.words.skip),
            (vec!["sse".into(), "bom".into()], vec!["slow".into()])
        );
        assert!(!parsed.is_captured);
        assert_eq!(request("--package=wire").unwrap().cargo, ["--package=wire"]);
        let exact = request("-- --exact a::b --include-ignored").unwrap();
        assert_eq!((exact.words.is_exact, exact.words.ignored), (true, Ignored::Included));
    }

    #[test]
    fn what_a_test_binary_would_not_understand_is_refused() {
        assert_eq!(request("sse -- --tset-threads"), Err("--tset-threads".to_owned()));
    }
}
