//! `KEY=VALUE`, the form of settings, variables and notes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::failure::Failure;

/// The longest value that is read from a file or standard input, in bytes: more than any server
/// accepts.
const MAX_VALUE: u64 = 4 * 1024 * 1024;

/// Keys and values of a flag's arguments, such as `--set KEY=VALUE`, which is `form`. A value may be
/// empty and may contain `=`.
pub(crate) fn pairs<'a>(
    arguments: &'a [String],
    form: &str,
) -> impl Iterator<Item = Result<(&'a str, &'a str), Failure>> {
    arguments.iter().zip(1..).map(move |(argument, number)| {
        let what = match argument.split_once('=') {
            Some(("", _)) => "has nothing before its `=`",
            Some(pair) => return Ok(pair),
            None => "has no `=`",
        };
        // Without the argument itself, which may be a secret.
        let which =
            if arguments.len() == 1 { "the".to_owned() } else { format!("number {number} of the") };
        Err(Failure::usage(format!("{which} `{form}` {what}")))
    })
}

/// The pairs by key. A key that is given twice is an error; `is_same` compares keys.
pub(crate) fn unique(
    arguments: &[String],
    form: &str,
    is_same: fn(&str, &str) -> bool,
) -> Result<HashMap<String, String>, Failure> {
    let mut map: HashMap<String, String> = HashMap::with_capacity(arguments.len());
    for pair in pairs(arguments, form) {
        let (key, value) = pair?;
        if let Some(other) = map.keys().find(|other| is_same(other, key)) {
            let note = if other == key { "" } else { " (keys are case-insensitive)" };
            return Err(Failure::usage(format!("`{key}` is given twice{note}; give it once")));
        }
        map.insert(key.to_owned(), value.to_owned());
    }
    Ok(map)
}

/// The pairs by key, with the values that are in files or on standard input; `stdin_is` is the flag
/// that reads it already.
pub(crate) fn settings(
    arguments: &[String],
    form: &str,
    is_same: fn(&str, &str) -> bool,
    mut stdin_is: Option<&str>,
) -> Result<HashMap<String, String>, Failure> {
    let mut map = unique(arguments, form, is_same)?;
    for (key, value) in &mut map {
        let from = match &**value {
            "-" | "@-" => {
                if let Some(flag) = stdin_is.replace("another value") {
                    let why = format!("standard input is read for {flag}, not for `{key}`");
                    return Err(Failure::usage(why).hint(format!("use a file: `{key}=@FILE`")));
                }
                read(key, "standard input", io::stdin().lock())
            }
            given => match given.strip_prefix('@') {
                None => continue,
                Some(rest) if rest.starts_with('@') => Ok(rest.to_owned()),
                Some(path) => match File::open(path) {
                    Ok(file) => read(key, &format!("`{path}`"), file),
                    Err(error) => {
                        Err(Failure::file("read", Path::new(path), &error).hint(format!(
                            "the value of `{key}` begins with `@`, which names a file; `@@` stands \
                         for an `@`"
                        )))
                    }
                },
            },
        };
        *value = from?;
    }
    Ok(map)
}

/// A value without one line break at the end.
fn read(key: &str, source: &str, from: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = from.take(MAX_VALUE + 1).read_to_string(&mut text);
    read.map_err(|error| {
        Failure::usage(format!("cannot read the value of `{key}` from {source}: {error}"))
    })?;
    if text.len() as u64 > MAX_VALUE {
        let why = format!("the value of `{key}` in {source} is longer than {MAX_VALUE} bytes");
        return Err(Failure::usage(why));
    }
    Ok(without_line_break(text))
}

/// Without one line break at the end, which an editor or `echo` adds.
pub(crate) fn without_line_break(mut text: String) -> String {
    let end = text.strip_suffix('\n').map_or(text.len(), str::len);
    let end = text[..end].strip_suffix('\r').map_or(end, str::len);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests;
