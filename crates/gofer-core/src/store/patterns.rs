//! The namespaces that a client token, a global secret or an extension is for, as regular expressions. Each has
//! to match a name as a whole.

use regex_lite::{Regex, RegexBuilder};
use tonic::Status;

/// Bounds on what one caller can make the core compile, and match on every call with such a token.
/// Names of namespaces are a good deal shorter.
const MAX_PATTERNS: usize = 100;
const MAX_PATTERN_BYTES: usize = 500;
const MAX_COMPILED_BYTES: usize = 32 * 1024;

/// Patterns, compiled once.
#[derive(Clone, Debug)]
pub(crate) struct Patterns(Vec<Regex>);

impl Patterns {
    pub(crate) fn new(patterns: &[String]) -> Result<Self, Status> {
        if patterns.len() > MAX_PATTERNS {
            return Err(Status::invalid_argument(format!(
                "`namespaces` has {} patterns; at most {MAX_PATTERNS} are accepted",
                patterns.len()
            )));
        }
        let compiled = patterns.iter().enumerate().map(|(index, pattern)| {
            check(pattern).map_err(|problem| {
                Status::invalid_argument(format!("`namespaces[{index}]` {problem}"))
            })
        });
        compiled.collect::<Result<_, _>>().map(Self)
    }

    /// Matches nothing.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Patterns that were accepted when they were stored, perhaps by another version: without
    /// bounds. One that does not compile matches nothing.
    pub(super) fn restore(patterns: &[String]) -> Self {
        let compiled = patterns.iter().filter_map(|pattern| {
            let ignoring = "ignoring an invalid stored namespace pattern";
            compile(pattern, usize::MAX)
                .inspect_err(|error| tracing::warn!(pattern, %error, "{ignoring}"))
                .ok()
        });
        Self(compiled.collect())
    }

    pub(crate) fn matches(&self, namespace: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(namespace))
    }
}

/// Whether a pattern matches itself and nothing else, as most names do.
pub(super) fn is_name(pattern: &str) -> bool {
    !pattern.contains(|it: char| r"\.+*?()|[]{}^$".contains(it))
}

fn check(pattern: &str) -> Result<Regex, String> {
    if pattern.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if pattern.len() > MAX_PATTERN_BYTES {
        let length = pattern.len();
        return Err(format!("has {length} bytes; at most {MAX_PATTERN_BYTES} are accepted"));
    }
    compile(pattern, MAX_COMPILED_BYTES)
        .map_err(|error| format!("is not a regular expression that can be used: {error}"))
}

fn compile(pattern: &str, limit: usize) -> Result<Regex, regex_lite::Error> {
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(limit).build();
    // Alone first: `a)|(?:b` must not break out of the group around it.
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}
