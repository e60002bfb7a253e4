//! Which namespaces a client token's patterns name.
//!
//! Gofer has regular expressions here. What this core understands of them are
//! names as they are and `.*` for anything, with `^` and `$` around them where
//! somebody is used to writing those; a pattern always has to match the whole
//! name. Anything else is refused when the token is made, rather than taken for
//! something that it does not mean.

use tonic::Status;

pub(super) fn check(patterns: &[String]) -> Result<(), Status> {
    for (index, pattern) in patterns.iter().enumerate() {
        let literal = bare(pattern).replace(".*", "");
        if pattern.is_empty() || literal.contains(|it: char| r"\.+*?()|[]{}^$".contains(it)) {
            return Err(Status::invalid_argument(format!(
                "`namespaces[{index}]`: this core understands a namespace's name, with `.*` for \
                 any characters, and no other regular expressions"
            )));
        }
    }
    Ok(())
}

/// Whether a pattern that passed [`check`] matches.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let Some((pattern, end)) = bare(pattern).rsplit_once(".*") else {
        return bare(pattern) == name;
    };
    let mut parts = pattern.split(".*");
    let start = parts.next().unwrap_or_default();
    let middle = name.strip_suffix(end).and_then(|name| name.strip_prefix(start));
    // The first place is as good as any: it leaves the most for the others.
    let rest = parts.try_fold(middle, |rest, part| {
        let rest = rest?;
        Some(rest.find(part).map(|at| &rest[at + part.len()..]))
    });
    rest.flatten().is_some()
}

fn bare(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    pattern.strip_suffix('$').unwrap_or(pattern)
}
