//! Which known name an unknown key was probably meant to be.

use super::MAX_KEY_CHARS;

/// The name that `key` is most likely a misspelling of.
pub(super) fn nearest<'a>(key: &str, names: &[&'a str]) -> Option<&'a str> {
    let length = key.chars().take(MAX_KEY_CHARS + 1).count();
    if length > MAX_KEY_CHARS {
        return None;
    }
    let fold = |text: &str| -> String {
        text.chars().take(MAX_KEY_CHARS + 1).map(|c| c.to_ascii_lowercase()).collect()
    };
    let key = fold(key);
    // Letters added, removed, changed or swapped with their neighbour.
    let distances = names.iter().map(|name| (strsim::osa_distance(&key, &fold(name)), *name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    // One typo in three letters is accepted; with more it is another word.
    (distance <= length / 3).then_some(name)
}
