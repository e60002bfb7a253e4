//! Settings that refer to a secret or an object.
//!
//! A reference is the whole of a setting. Whoever misspells one means a secret, and would otherwise
//! get a key that anybody can guess: so what looks like a reference and is none is refused, and is
//! never used as a value.

use std::collections::HashMap;

use tonic::Status;

use super::{By, Holder, Owner, Store};
use gofer_proto::{ExtensionRegistration, PipelineExtensionSubscription as Subscription};

/// What a setting may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReferenceKind {
    PipelineSecret,
    GlobalSecret,
    PipelineObject,
}

const KINDS: [(&str, ReferenceKind); 3] = [
    ("pipeline_secret", ReferenceKind::PipelineSecret),
    ("global_secret", ReferenceKind::GlobalSecret),
    ("pipeline_object", ReferenceKind::PipelineObject),
];

/// What a setting is.
#[derive(Debug, PartialEq, Eq)]
enum Setting<'a> {
    Value,
    /// `kind{{ key }}`, the spaces being optional.
    Reference(ReferenceKind, &'a str),
    /// What looks like a reference and is none.
    Malformed,
}

impl<'a> Setting<'a> {
    fn of(text: &'a str) -> Self {
        match reference(text) {
            Some((kind, key)) => Self::Reference(kind, key),
            None if looks_like_a_reference(text) => Self::Malformed,
            None => Self::Value,
        }
    }
}

fn reference(text: &str) -> Option<(ReferenceKind, &str)> {
    let (kind, rest) = text.trim().split_once("{{")?;
    let key = rest.strip_suffix("}}")?.trim();
    let found = KINDS.iter().find(|(name, _)| *name == kind)?;
    (!key.is_empty() && !key.contains(['{', '}'])).then_some((found.1, key))
}

/// Whether somebody may have meant a reference: the text is nothing but an expression in braces, with
/// or without a word right before it, or has a word such as `secret` before braces anywhere. Other texts
/// with braces, such as templates and JSON, are values.
fn looks_like_a_reference(text: &str) -> bool {
    let mut before = text;
    while let Some(braces) = before.rfind('{').and_then(|last| before.get(..=last)) {
        before = braces.trim_end_matches('{');
        let is_double = braces.len() - before.len() >= 2;
        if names_a_kind(&last_word(before, is_double), is_double) {
            return true;
        }
    }
    is_only_an_expression(text)
}

/// `word{{ anything }}`, or parts of it.
fn is_only_an_expression(text: &str) -> bool {
    let Some((word, rest)) = text.trim().split_once("{{") else { return false };
    let inner = rest.trim_start_matches('{').trim_end_matches('}');
    word.chars().all(is_of_word) && !inner.contains(['{', '}'])
}

/// The word that a text before braces ends with, without case and separators. Spaces after it do not
/// count, and before double braces nothing does that is neither a letter nor a digit: before a single
/// one, that may be JSON.
fn last_word(text: &str, is_double: bool) -> String {
    let is_between = |it: char| it.is_whitespace() || is_double && !it.is_alphanumeric();
    let text = text.trim_end_matches(is_between);
    let start = text.rfind(|it| !is_of_word(it)).map_or(0, |at| {
        at + text.get(at..).and_then(|it| it.chars().next()).map_or(1, char::len_utf8)
    });
    let word = text.get(start..).unwrap_or_default();
    word.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '-'
}

/// Whether a word, normalized, before braces says that a reference is meant.
fn names_a_kind(word: &str, is_double: bool) -> bool {
    let is_kind = KINDS.iter().any(|(kind, _)| kind.replace('_', "") == word);
    is_kind || is_double && (word.contains("secret") || word.contains("object"))
}

/// Why a setting cannot be used. The value is never shown; a reference is.
fn problem(key: &str, refers_to: &str, what: &str) -> Status {
    Status::failed_precondition(format!(
        "the setting `{key}` refers to `{refers_to}`, which {what}"
    ))
}

fn malformed(key: &str, kinds: &str) -> Status {
    Status::invalid_argument(format!(
        "the setting `{key}` looks like a reference and is none: write {kinds}, and nothing else in \
         that setting; a value that really is such a text can be kept in a secret"
    ))
}

impl Store {
    /// The settings of a subscription as its extension receives them.
    ///
    /// # Errors
    ///
    /// If a setting refers to something that does not exist, or that its namespace may not use, or
    /// only looks like a reference.
    pub(crate) fn resolved(
        &self,
        subscription: &Subscription,
    ) -> Result<HashMap<String, String>, Status> {
        let Subscription { namespace, pipeline, settings, .. } = subscription;
        resolve(settings, |key, setting| {
            let (kind, name) = match Setting::of(setting) {
                Setting::Value => return Ok(setting.to_owned()),
                Setting::Reference(kind, name) => (kind, name),
                Setting::Malformed => {
                    return Err(malformed(
                        key,
                        "`pipeline_secret{{ key }}`, `global_secret{{ key }}` or \
                         `pipeline_object{{ key }}`",
                    ));
                }
            };
            let problem = |what| problem(key, setting.trim(), what);
            let missing = || problem("does not exist; create it first");
            match kind {
                ReferenceKind::PipelineSecret => {
                    let of = Holder::Pipeline { namespace, pipeline, by: &By::Core };
                    self.secret(of, name).map(|(_, content)| content).map_err(|_| missing())
                }
                ReferenceKind::GlobalSecret => self
                    .global_secret_for(namespace, name)
                    .ok_or_else(|| problem("does not exist or is not available to this namespace")),
                ReferenceKind::PipelineObject => {
                    let of = Owner { namespace, pipeline, run: None, by: &By::Core };
                    let content = self.object(of, name).map_err(|_| missing())?;
                    String::from_utf8(content.into()).map_err(|_| problem("is not UTF-8 text"))
                }
            }
        })
    }

    /// The configuration of an extension as it receives it. Only a manager sets one, and a manager
    /// may read all global secrets: so it may refer to any, whatever namespaces the secret is for.
    ///
    /// # Errors
    ///
    /// If a setting refers to a secret that does not exist, or to something of a pipeline, or only
    /// looks like a reference.
    pub(crate) fn resolved_configuration(
        &self,
        registration: &ExtensionRegistration,
    ) -> Result<HashMap<String, String>, Status> {
        resolve(&registration.variables, |key, setting| match Setting::of(setting) {
            Setting::Value => Ok(setting.to_owned()),
            Setting::Malformed => Err(malformed(key, "`global_secret{{ key }}`")),
            Setting::Reference(ReferenceKind::GlobalSecret, name) => self
                .secret(Holder::Global { by: &By::Core }, name)
                .map(|(_, content)| content)
                .map_err(|_| problem(key, setting.trim(), "does not exist; create it first")),
            Setting::Reference(..) => Err(Status::invalid_argument(format!(
                "the setting `{key}` refers to `{}`, which belongs to a pipeline; the configuration \
                 of an extension is for all pipelines: use `global_secret{{{{ key }}}}`",
                setting.trim()
            ))),
        })
    }
}

fn resolve(
    settings: &HashMap<String, String>,
    value: impl Fn(&str, &str) -> Result<String, Status>,
) -> Result<HashMap<String, String>, Status> {
    let mut sorted: Vec<_> = settings.iter().collect();
    // So that of several errors it is always the same.
    sorted.sort_unstable();
    let resolved = sorted.into_iter().map(|(key, setting)| Ok((key.clone(), value(key, setting)?)));
    resolved.collect()
}

#[cfg(test)]
mod tests;
