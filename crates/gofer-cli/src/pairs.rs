//! `KEY=VALUE`, the form of settings, variables and notes.

use std::collections::HashMap;

use crate::failure::Failure;

/// For clap: `KEY=VALUE`. The value may be empty and may contain `=`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// The pairs by key. A key that is given twice is an error.
pub(crate) fn unique(pairs: Vec<(String, String)>) -> Result<HashMap<String, String>, Failure> {
    let mut map = HashMap::with_capacity(pairs.len());
    for (key, value) in pairs {
        if map.keys().any(|it: &String| it.eq_ignore_ascii_case(&key)) {
            return Err(Failure::usage(format!("`{key}` is given twice")));
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
