//! Settings that refer to a secret or an object.

use std::collections::HashMap;

use tonic::Status;

use super::{By, Holder, Owner, Store};
use gofer_proto::PipelineExtensionSubscription as Subscription;

/// What a setting may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReferenceKind {
    PipelineSecret,
    GlobalSecret,
    PipelineObject,
}

const KINDS: [(&str, ReferenceKind); 3] = [
    ("pipeline_secret{{", ReferenceKind::PipelineSecret),
    ("global_secret{{", ReferenceKind::GlobalSecret),
    ("pipeline_object{{", ReferenceKind::PipelineObject),
];

/// `kind{{ key }}`, the spaces being optional; `None` for a value.
fn reference(setting: &str) -> Option<(ReferenceKind, &str)> {
    let inner = setting.trim().strip_suffix("}}")?;
    KINDS.iter().find_map(|(prefix, kind)| Some((*kind, inner.strip_prefix(prefix)?.trim())))
}

impl Store {
    /// The settings of a subscription as its extension receives them.
    ///
    /// # Errors
    ///
    /// If a setting refers to something that does not exist, or that its namespace may not use.
    pub(crate) fn resolved(
        &self,
        subscription: &Subscription,
    ) -> Result<HashMap<String, String>, Status> {
        let Subscription { namespace, pipeline, settings, .. } = subscription;
        let value = |(key, setting): (&String, &String)| {
            // The reference is shown, never the value.
            let problem = |problem| {
                let which = format!("the setting `{key}` refers to `{setting}`, which {problem}");
                Status::failed_precondition(which)
            };
            let missing =
                || problem("does not exist or is not available to this namespace; create it first");
            let value = match reference(setting) {
                None => setting.clone(),
                Some((ReferenceKind::PipelineSecret, name)) => {
                    let of = Holder::Pipeline { namespace, pipeline, by: &By::Core };
                    self.secret(of, name).map_err(|_| missing())?.1
                }
                Some((ReferenceKind::GlobalSecret, name)) => {
                    self.global_secret_for(namespace, name).ok_or_else(missing)?
                }
                Some((ReferenceKind::PipelineObject, name)) => {
                    let of = Owner { namespace, pipeline, run: None, by: &By::Core };
                    let content = self.object(of, name).map_err(|_| missing())?;
                    String::from_utf8(content.into()).map_err(|_| problem("is not UTF-8 text"))?
                }
            };
            Ok((key.clone(), value))
        };
        settings.iter().map(value).collect()
    }
}

#[cfg(test)]
mod tests;
