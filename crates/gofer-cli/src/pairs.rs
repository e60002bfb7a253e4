//! `KEY=VALUE`, as settings, variables and notes are given.

use std::collections::HashMap;

use crate::failure::Failure;

/// For clap: `KEY=VALUE`; the value may be empty and hold more `=`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// The pairs by key. A key that is given twice is a mistake: which one is meant?
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

/// What was concluded in a conversation, with what was given beside it, which
/// counts where both say something.
pub(crate) fn merge(
    concluded: Vec<(String, String)>,
    given: HashMap<String, String>,
) -> HashMap<String, String> {
    let mut map: HashMap<_, _> = concluded
        .into_iter()
        .filter(|(key, _)| !given.keys().any(|it| it.eq_ignore_ascii_case(key)))
        .collect();
    map.extend(given);
    map
}
