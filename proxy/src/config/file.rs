//! The settings file as keys and values with their places. Which keys and values there may be is not said here.

#![expect(clippy::disallowed_methods, reason = "the settings are read once, before anything listens")]

use std::io::ErrorKind;
use std::path::Path;

use super::{ConfigError, SETTINGS, Setting, excerpt, similar};

/// The keys and values of the settings file with their places; nothing if there is no file.
///
/// # Errors
/// When it cannot be read, is no TOML, or has something else than one value behind a key.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String, String)>, ConfigError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            return Err(ConfigError::Directory { path: path.to_owned() });
        }
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    let line_at = |at: usize| bytes[..at.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
    let syntax = |at: usize, problem: String| {
        let place = format!("{}:{}", path.display(), line_at(at));
        ConfigError::Syntax { place, problem }
    };
    let text =
        str::from_utf8(&bytes).map_err(|error| syntax(error.valid_up_to(), "it is not UTF-8".to_owned()))?;
    let table = toml::de::DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.lines().nth(line_at(at) - 1).unwrap_or_default();
        let key = line.split('=').next().map(|key| key.split_whitespace().next().unwrap_or_default());
        let key = key.filter(|key| !key.is_empty()).map(|key| format!("`{}`: ", excerpt(key)));
        syntax(at, format!("{}{}", key.unwrap_or_default(), error.message()))
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let place = format!("{}:{}", path.display(), line_at(key.span().start));
        let value = match value.get_ref() {
            toml::de::DeValue::String(value) => value.to_string(),
            toml::de::DeValue::Boolean(value) => value.to_string(),
            toml::de::DeValue::Integer(value) => value.to_string(),
            toml::de::DeValue::Float(value) => value.to_string(),
            toml::de::DeValue::Datetime(value) => value.to_string(),
            _ => return Err(no_value(key.get_ref(), &text[value.span()], place)),
        };
        entries.push((key.get_ref().to_string(), value, place));
    }
    // The first mistake is the one that stands first.
    entries.sort_by_key(|(_, _, place)| place.rsplit(':').next().and_then(|line| line.parse::<usize>().ok()));
    Ok(entries)
}

/// A setting is one value; what holds several is an unknown section, or a setting that is written wrongly.
fn no_value(key: &str, text: &str, place: String) -> ConfigError {
    match SETTINGS.iter().find(|setting| setting.name == key) {
        Some(Setting { name, range, .. }) => {
            let (value, problem) = (excerpt(text), "it is not one value".to_owned());
            ConfigError::Value { place, name, value, problem, range }
        }
        None => {
            let hint = similar(key, SETTINGS.iter().map(|setting| setting.name));
            ConfigError::Unknown { place, name: key.to_owned(), hint }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn what_is_no_text_file_is_named() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("prodex.toml");
        let load = || Config::load(Some(home.path()), &|_| None, &Vec::new()).unwrap_err().to_string();
        std::fs::write(&file, b"workers = 3\nlog_dir = \"\xFF\"\n").unwrap();
        assert!(load().contains("prodex.toml:2: it is not UTF-8"), "{}", load());
        std::fs::write(&file, b"\xFF\xFEw\0").unwrap();
        assert!(load().contains("prodex.toml:1: it is not UTF-8"), "{}", load());
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(load().contains("prodex.toml is a directory"), "{}", load());
    }
}
