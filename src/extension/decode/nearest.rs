//! Which known name an unknown key was probably meant to be.

use super::MAX_KEY_CHARS;

/// The name that `key` is most likely a slip of.
pub(super) fn nearest<'a>(key: &str, names: &[&'a str]) -> Option<&'a str> {
    let fold = |text: &str| -> Vec<char> {
        text.chars().take(MAX_KEY_CHARS + 1).map(|c| c.to_ascii_lowercase()).collect()
    };
    let key = fold(key);
    if key.len() > MAX_KEY_CHARS {
        return None;
    }
    let distances = names.iter().map(|name| (distance(&key, &fold(name)), *name));
    let (slips, name) = distances.min_by_key(|(slips, _)| *slips)?;
    // One slip in three letters is a typo; more is another word.
    (slips <= key.len() / 3).then_some(name)
}

/// How many letters must be added, removed, changed or swapped with their
/// neighbour to make one word of the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (above[j - 1] + change).min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or_default()
}
