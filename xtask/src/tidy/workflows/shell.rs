//! The commands of a shell script, as words: enough of the grammar that layout and quoting hide none.
//!
//! Not a shell: variables stay as they are written, and here-documents are read like code. What stands in
//! quotes and holds more than one word is read as a script too, for it may be one (`bash -c`, `$(…)`); that
//! finds too much rather than too little.

/// A command: its words, without their quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command(pub(super) Vec<String>);

impl Command {
    /// What follows `words` where they stand next to each other.
    pub(super) fn after(&self, words: &[&str]) -> Option<&[String]> {
        let place = self.0.windows(words.len()).position(|found| found == words)?;
        Some(&self.0[place + words.len()..])
    }

    /// What cargo is asked, without a toolchain's name.
    pub(super) fn cargo(&self) -> Option<&[String]> {
        let place = self.0.iter().position(|word| word == "cargo" || word.ends_with("/cargo"))?;
        let rest = &self.0[place + 1..];
        Some(if rest.first().is_some_and(|word| word.starts_with('+')) { &rest[1..] } else { rest })
    }

    /// What `cargo xtask` is asked.
    pub(super) fn xtask(&self) -> Option<&[String]> {
        self.cargo()?.split_first().filter(|(first, _)| *first == "xtask").map(|(_, rest)| rest)
    }
}

/// Every command of a script.
pub(super) fn commands(script: &str) -> Vec<Command> {
    let mut reader = Reader::default();
    let mut letters = script.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('\n') | None => {}
                Some(escaped) => reader.push(escaped),
            },
            '\'' => {
                let text: String = letters.by_ref().take_while(|letter| *letter != '\'').collect();
                reader.quoted(&text);
            }
            '"' => {
                let mut text = String::new();
                while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
                    text.extend(if letter == '\\' { letters.next() } else { Some(letter) });
                }
                reader.quoted(&text);
            }
            '#' if reader.word.is_none() => while letters.next_if(|letter| *letter != '\n').is_some() {},
            '\n' | ';' | '&' | '|' | '(' | ')' | '`' => reader.end_command(),
            letter if letter.is_whitespace() => reader.end_word(),
            letter => reader.push(letter),
        }
    }
    reader.end_command();
    reader.commands
}

#[derive(Default)]
struct Reader {
    /// The word so far; `None` between words.
    word: Option<String>,
    words: Vec<String>,
    commands: Vec<Command>,
}

impl Reader {
    fn push(&mut self, letter: char) {
        self.word.get_or_insert_default().push(letter);
    }

    fn quoted(&mut self, text: &str) {
        if text.contains(char::is_whitespace) {
            self.commands.extend(commands(text));
        }
        self.word.get_or_insert_default().push_str(text);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self) {
        self.end_word();
        if !self.words.is_empty() {
            self.commands.push(Command(std::mem::take(&mut self.words)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(script: &str) -> Vec<String> {
        commands(script).into_iter().map(|command| command.0.join("|")).collect()
    }

    #[test]
    fn commands_end_at_lines_and_operators_and_words_keep_what_was_quoted() {
        let script = "a 'b c' \"d\" # e\nif f && g; then h|i \\\n  j; fi";
        assert_eq!(words(script), ["b|c", "a|b c|d", "if|f", "g", "then|h", "i|j", "fi"]);
        assert_eq!(words("x#y \"\" ''"), ["x#y||"]);
        assert_eq!(words(""), [""; 0]);
    }

    #[test]
    fn no_quoting_hides_a_command() {
        for script in [
            "cargo xtask tidy",
            "cargo  'xtask' \"tidy\"",
            "A=b cargo xtask tidy",
            "cargo +1.95.0 xtask tidy",
            "x || \\\n cargo xtask \\\n tidy",
            "bash -c 'cargo xtask tidy'",
            "echo \"$(cargo xtask tidy)\"",
            "echo $(cargo xtask tidy)",
            "/root/.cargo/bin/cargo xtask tidy",
            "if ! cargo xtask tidy; then x; fi",
        ] {
            let found = commands(script).into_iter().find_map(|command| Some(command.xtask()?.join(" ")));
            assert_eq!(found.as_deref(), Some("tidy"), "{script}");
        }
        assert!(commands("# cargo xtask tidy").is_empty());
    }

    proptest! {
        #[test]
        fn a_script_never_panics_and_never_loses_a_plain_command(script in "[ a'\"\\\\#\n;&|()$`-]{0,30}") {
            let _ = commands(&script);
            let found = commands(&format!("true\ncargo xtask tidy\n{script}"));
            prop_assert!(found.iter().any(|command| command.xtask().is_some()));
        }
    }
}
