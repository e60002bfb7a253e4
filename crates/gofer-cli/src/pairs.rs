//! `KEY=VALUE`, the form of settings, variables and notes.

use std::collections::HashMap;

use crate::failure::Failure;

/// Key and value of a flag's argument, such as `--set KEY=VALUE`, which is `form`. The value may be
/// empty and may contain `=`.
pub(crate) fn pair(argument: &str, form: &str) -> Result<(String, String), Failure> {
    match argument.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        // Without the argument itself, which may be a secret.
        _ => Err(Failure::usage(format!("invalid argument: expected `{form}`"))),
    }
}

/// The pairs by key. A key that is given twice is an error; `is_same` compares keys.
pub(crate) fn unique(
    arguments: &[String],
    form: &str,
    is_same: fn(&str, &str) -> bool,
) -> Result<HashMap<String, String>, Failure> {
    let mut map: HashMap<String, String> = HashMap::with_capacity(arguments.len());
    for argument in arguments {
        let (key, value) = pair(argument, form)?;
        if let Some(other) = map.keys().find(|other| is_same(other, &key)) {
            let note = if *other == key { "" } else { " (keys are case-insensitive)" };
            return Err(Failure::usage(format!("`{key}` is given twice{note}; give it once")));
        }
        map.insert(key, value);
    }
    Ok(map)
}

/// The settings from a conversation and those from flags, which win.
pub(crate) fn merge(
    answered: Vec<(String, String)>,
    given: HashMap<String, String>,
) -> HashMap<String, String> {
    let mut map: HashMap<_, _> = answered
        .into_iter()
        .filter(|(key, _)| !given.keys().any(|it| it.eq_ignore_ascii_case(key)))
        .collect();
    map.extend(given);
    map
}

#[cfg(test)]
mod tests;
