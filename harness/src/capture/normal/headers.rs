//! Header fields in the spellings of captures. Order, case and duplicates stay.
//!
//! What is said of mistakes names no value: it could be a secret.

use serde_json::{Map, Value};
use wire::capture::Headers;

/// The fields that a value of any of the spellings stands for.
pub(super) fn read(value: Value) -> Result<Headers, String> {
    let mut headers = Headers::new();
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (name, value) in members {
                push(&mut headers, &name, value)?;
            }
        }
        Value::Array(items) => {
            for item in items {
                one(&mut headers, item)?;
            }
        }
        Value::String(block) => {
            for line in block.lines().filter(|line| !line.is_empty()) {
                push_line(&mut headers, line)?;
            }
        }
        _ => return Err("`headers` is neither a list nor an object".to_owned()),
    }
    Ok(headers)
}

fn one(headers: &mut Headers, item: Value) -> Result<(), String> {
    match item {
        Value::String(line) => push_line(headers, &line),
        Value::Array(mut pair) if pair.len() == 2 => {
            let value = pair.pop().unwrap_or_default();
            match pair.pop() {
                Some(Value::String(name)) => push(headers, &name, value),
                _ => Err("the name of a header is no text".to_owned()),
            }
        }
        Value::Object(mut members) => {
            let name = ["name", "key", "header"].into_iter().find_map(|name| members.remove(name));
            let Some(Value::String(name)) = name else {
                return single(headers, members);
            };
            let value = ["value", "values"].into_iter().find_map(|name| members.remove(name));
            push(headers, &name, value.unwrap_or_default())
        }
        _ => Err("a header is neither a text, nor a pair, nor an object".to_owned()),
    }
}

/// `{"Name": "value"}` within a list.
fn single(headers: &mut Headers, members: Map<String, Value>) -> Result<(), String> {
    if members.len() != 1 {
        return Err("a header has no `name`, `key` or `header`".to_owned());
    }
    members.into_iter().try_for_each(|(name, value)| push(headers, &name, value))
}

fn push_line(headers: &mut Headers, line: &str) -> Result<(), String> {
    let (name, value) = line.split_once(':').ok_or("a header has no colon")?;
    headers.push((name.trim().to_owned(), value.trim().to_owned()));
    Ok(())
}

/// A field with one value, or as many fields as there are values.
fn push(headers: &mut Headers, name: &str, value: Value) -> Result<(), String> {
    match value {
        Value::String(value) => headers.push((name.to_owned(), value)),
        Value::Number(_) | Value::Bool(_) => headers.push((name.to_owned(), value.to_string())),
        Value::Null => headers.push((name.to_owned(), String::new())),
        Value::Array(values) => {
            for value in values {
                if value.is_array() {
                    return Err(format!("the header {name:?} has a list within its list of values"));
                }
                push(headers, name, value)?;
            }
        }
        Value::Object(_) => return Err(format!("the value of the header {name:?} is an object")),
    }
    Ok(())
}
