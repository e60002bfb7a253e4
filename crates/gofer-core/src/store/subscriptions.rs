//! Which pipelines are subscribed to which extensions, with what settings.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use serde_json::json;
use tonic::Status;

use super::events::EventScope;
use super::registrations::not_installed;
use super::usage::size;
use super::{By, EventKind, Needs, Store, Tables, or_default};
use gofer_proto::pipeline_extension_subscription::Status as State;
use gofer_proto::pipeline_extension_subscription_status_reason::PipelineExtensionSubscriptionStatusReasonKind as Kind;
use gofer_proto::{
    PipelineExtensionSubscription as Subscription,
    PipelineExtensionSubscriptionStatusReason as StatusReason,
};

/// When a subscription was made, or last enabled. That stays the same if its settings change.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Beginning {
    /// The pipeline's newest run then; 0 if there was none.
    #[prost(int64, tag = "1")]
    pub(crate) after_run: i64,
    /// In Unix milliseconds.
    #[prost(int64, tag = "2")]
    pub(crate) at: i64,
    /// When its settings were last changed, in Unix milliseconds; 0 if an earlier version stored it.
    #[prost(int64, tag = "3")]
    pub(crate) changed: i64,
}

/// The subscriptions of each extension, as namespace, pipeline and label: those in the tables of the
/// pipelines, found without looking at all of these.
#[derive(Default)]
pub(super) struct ByExtension(HashMap<String, BTreeSet<[String; 3]>>);

impl ByExtension {
    pub(super) fn insert(&mut self, it: &Subscription) {
        let names = [&it.namespace, &it.pipeline, &it.label].map(Clone::clone);
        self.0.entry(it.name.clone()).or_default().insert(names);
    }

    pub(super) fn remove(&mut self, it: &Subscription) {
        let Some(names) = self.0.get_mut(&it.name) else { return };
        names.remove(&[&it.namespace, &it.pipeline, &it.label].map(Clone::clone));
        if names.is_empty() {
            self.0.remove(&it.name);
        }
    }

    /// The first after a place.
    fn next(&self, extension: &str, after: Bound<&[String; 3]>) -> Option<&[String; 3]> {
        self.0.get(extension)?.range::<[String; 3], _>((after, Bound::Unbounded)).next()
    }

    fn of(&self, extension: &str) -> impl Iterator<Item = &[String; 3]> {
        self.0.get(extension).into_iter().flatten()
    }
}

impl Store {
    /// Stores a subscription, replacing one with the same names. `beginning` is what
    /// [`beginning`](Self::beginning) returned before the extension was called.
    ///
    /// Refused if the extension is not registered: it may have been uninstalled meanwhile, and then
    /// keeps no subscriptions.
    pub(crate) fn put_subscription(
        &self,
        subscription: Subscription,
        beginning: Option<Beginning>,
        by: &By,
    ) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Namespace(&subscription.namespace))?;
        if !tables.registrations.contains_key(&subscription.name) {
            return Err(not_installed(&subscription.name));
        }
        let namespace = tables.namespace(&subscription.namespace)?;
        let pipeline = tables.pipeline(&subscription.namespace, &subscription.pipeline)?;
        let key = (subscription.name.clone(), subscription.label.clone());
        let replaced = pipeline.subscriptions.get(&key).map_or(0, subscription_size);
        let bytes = subscription_size(&subscription);
        namespace.usage.check_content(&namespace.namespace.id, replaced, bytes)?;
        let details = subscription_details(&subscription, pipeline.live_version());
        tables.journal.put_subscription(&subscription, beginning);
        let scope = subscription.namespace.clone();
        tables.namespace_mut(&scope)?.usage.replace_live(replaced, bytes);
        tables.by_extension.insert(&subscription);
        let pipeline = tables.pipeline_mut(&subscription.namespace, &subscription.pipeline)?;
        pipeline.beginnings.extend(beginning.map(|it| (key.clone(), it)));
        pipeline.subscriptions.insert(key, subscription);
        let scope = EventScope::Namespace(or_default(&scope));
        tables.events.publish(now, EventKind::PipelineExtensionSubscription, scope, &details);
        Ok(())
    }

    pub(crate) fn subscription(
        &self,
        namespace: &str,
        pipeline: &str,
        extension: &str,
        label: &str,
    ) -> Result<Subscription, Status> {
        let tables = self.tables();
        let table = tables.pipeline(namespace, pipeline)?;
        let key = (extension.to_owned(), label.to_owned());
        let found = table.subscriptions.get(&key).cloned();
        found.ok_or_else(|| no_subscription(namespace, pipeline, extension, label))
    }

    /// When a subscription began, which is now if it is not stored or is disabled; `None` if an
    /// earlier version stored it.
    pub(crate) fn beginning(&self, subscription: &Subscription) -> Option<Beginning> {
        let at = self.clock.unix_millis();
        let tables = self.tables();
        let table = tables.pipeline(&subscription.namespace, &subscription.pipeline).ok()?;
        let key = (subscription.name.clone(), subscription.label.clone());
        match table.subscriptions.get(&key) {
            Some(stored) if stored.status() != State::Disabled => {
                let mut beginning = table.beginnings.get(&key).copied()?;
                if stored.settings != subscription.settings {
                    beginning.changed = at;
                }
                Some(beginning)
            }
            _ => Some(Beginning { after_run: table.usage.last_run, at, changed: at }),
        }
    }

    /// By extension and label.
    pub(crate) fn subscriptions(
        &self,
        namespace: &str,
        pipeline: &str,
    ) -> Result<Vec<Subscription>, Status> {
        let tables = self.tables();
        Ok(tables.pipeline(namespace, pipeline)?.subscriptions.values().cloned().collect())
    }

    pub(crate) fn subscriptions_of_extension(&self, extension: &str) -> Vec<Subscription> {
        let tables = self.tables();
        let found = tables.by_extension.of(extension).filter_map(|[namespace, pipeline, label]| {
            let key = (extension.to_owned(), label.clone());
            tables.pipeline(namespace, pipeline).ok()?.subscriptions.get(&key)
        });
        found.cloned().collect()
    }

    /// The subscriptions of an extension after a place, given as namespace, pipeline and label, in
    /// that order and without their settings; those in namespaces that the caller may read.
    pub(crate) fn subscriptions_after(
        &self,
        extension: &str,
        after: Option<[String; 3]>,
        limit: usize,
        readable: impl Fn(&str) -> bool,
    ) -> Vec<Subscription> {
        let tables = self.tables();
        let mut found = Vec::new();
        let mut place = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut entered: Option<&str> = None;
        while found.len() < limit
            && let Some(names) = tables.by_extension.next(extension, place.as_ref())
        {
            let [namespace, pipeline, label] = names;
            if entered != Some(namespace) && !readable(namespace) {
                // The next namespace, however many subscriptions this one has.
                let next = format!("{namespace}\0");
                place = Bound::Included([next, String::new(), String::new()]);
                continue;
            }
            entered = Some(namespace);
            place = Bound::Excluded(names.clone());
            let key = (extension.to_owned(), label.clone());
            let stored = tables.pipeline(namespace, pipeline).ok();
            if let Some(stored) = stored.and_then(|it| it.subscriptions.get(&key)) {
                found.push(Subscription {
                    namespace: stored.namespace.clone(),
                    pipeline: stored.pipeline.clone(),
                    name: stored.name.clone(),
                    label: stored.label.clone(),
                    settings: HashMap::new(),
                    status: stored.status,
                    status_reason: stored.status_reason.clone(),
                });
            }
        }
        found
    }

    pub(crate) fn remove_subscription(
        &self,
        [namespace, pipeline, extension, label]: [&str; 4],
        by: &By,
    ) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Namespace(namespace))?;
        let table = tables.pipeline_mut(namespace, pipeline)?;
        let key = (extension.to_owned(), label.to_owned());
        let removed = table.subscriptions.remove(&key);
        table.beginnings.remove(&key);
        let removed =
            removed.ok_or_else(|| no_subscription(namespace, pipeline, extension, label))?;
        let version = table.live_version();
        tables.namespace_mut(namespace)?.usage.replace_live(subscription_size(&removed), 0);
        tables.by_extension.remove(&removed);
        tables.journal.remove_subscription(&removed);
        tables.publish_unsubscription(now, &removed, version);
        Ok(())
    }

    /// `reason` is a sentence; the kind of the reason follows from the status.
    pub(crate) fn set_subscription_status(
        &self,
        [namespace, pipeline, extension, label]: [&str; 4],
        status: State,
        reason: &str,
        by: &By,
    ) -> Result<(), Status> {
        let at = self.clock.unix_millis();
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Namespace(namespace))?;
        let table = tables.pipeline_mut(namespace, pipeline)?;
        let key = (extension.to_owned(), label.to_owned());
        let after_run = table.usage.last_run;
        let subscription = table
            .subscriptions
            .get_mut(&key)
            .ok_or_else(|| no_subscription(namespace, pipeline, extension, label))?;
        if subscription.status() == State::Disabled && status == State::Active {
            table.beginnings.insert(key.clone(), Beginning { after_run, at, changed: at });
        }
        subscription.set_status(status);
        subscription.status_reason = Some(status_reason(status, reason));
        let changed = subscription.clone();
        let beginning = table.beginnings.get(&key).copied();
        tables.journal.put_subscription(&changed, beginning);
        Ok(())
    }
}

impl Tables {
    pub(super) fn end_subscriptions(&mut self, now: i64, extension: &str) {
        for [namespace, pipeline, label] in
            self.by_extension.0.remove(extension).unwrap_or_default()
        {
            let Ok(table) = self.pipeline_mut(&namespace, &pipeline) else { continue };
            let key = (extension.to_owned(), label);
            table.beginnings.remove(&key);
            let Some(removed) = table.subscriptions.remove(&key) else { continue };
            let version = table.live_version();
            if let Ok(table) = self.namespace_mut(&namespace) {
                table.usage.replace_live(subscription_size(&removed), 0);
            }
            self.journal.remove_subscription(&removed);
            self.publish_unsubscription(now, &removed, version);
        }
    }

    /// With the version of its pipeline's live configuration.
    pub(super) fn publish_unsubscription(
        &mut self,
        now: i64,
        subscription: &Subscription,
        version: i64,
    ) {
        let kind = EventKind::PipelineExtensionUnsubscription;
        let scope = EventScope::Namespace(or_default(&subscription.namespace));
        self.events.publish(now, kind, scope, &subscription_details(subscription, version));
    }
}

/// What a subscription counts as. Without its status, which the core changes.
pub(super) fn subscription_size(it: &Subscription) -> u64 {
    let settings: usize = it.settings.iter().map(|(key, value)| key.len() + value.len()).sum();
    size(it.name.len() + it.label.len() + settings)
}

pub(crate) fn status_reason(status: State, description: &str) -> StatusReason {
    let kind = match status {
        State::Unknown => Kind::PipelineExtensionStatusReasonUnknown,
        State::Active => Kind::Active,
        State::Error => Kind::Error,
        State::Disabled => Kind::Disabled,
    };
    StatusReason { reason: kind.into(), description: description.to_owned() }
}

/// Without the settings, which may be secrets. The extension and the label are `name` and `label`, as
/// in the subscription itself, and also what earlier versions called them.
fn subscription_details(subscription: &Subscription, version: i64) -> serde_json::Value {
    json!({
        "namespace_id": subscription.namespace,
        "pipeline_id": subscription.pipeline,
        "version": version,
        "name": subscription.name,
        "label": subscription.label,
        "extension_name": subscription.name,
        "extension_label": subscription.label,
    })
}

fn no_subscription(namespace: &str, pipeline: &str, extension: &str, label: &str) -> Status {
    Status::not_found(format!(
        "the pipeline `{}/{pipeline}` has no subscription `{label}` to the extension `{extension}`",
        or_default(namespace)
    ))
}
