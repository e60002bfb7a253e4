//! Events, in order, numbered from 1.

use std::collections::VecDeque;

use serde::Serialize;
use tokio::sync::watch;

use super::Store;
use super::journal::Journal;
use gofer_proto as proto;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    NamespaceCreated,
    NamespaceDeleted,
    PipelineDisabled,
    PipelineEnabled,
    PipelineRegistered,
    PipelineDeleted,
    PipelineConfigRegistered,
    PipelineConfigDeleted,
    PipelineExtensionSubscription,
    PipelineExtensionUnsubscription,
    RunStarted,
    RunCompleted,
    ExtensionInstalled,
    ExtensionUninstalled,
    ExtensionEnabled,
    ExtensionDisabled,
}

impl EventKind {
    /// As the contract spells it.
    fn name(self) -> &'static str {
        match self {
            Self::NamespaceCreated => "NAMESPACE_CREATED",
            Self::NamespaceDeleted => "NAMESPACE_DELETED",
            Self::PipelineDisabled => "PIPELINE_DISABLED",
            Self::PipelineEnabled => "PIPELINE_ENABLED",
            Self::PipelineRegistered => "PIPELINE_REGISTERED",
            Self::PipelineDeleted => "PIPELINE_DELETED",
            Self::PipelineConfigRegistered => "PIPELINE_CONFIG_REGISTERED",
            Self::PipelineConfigDeleted => "PIPELINE_CONFIG_DELETED",
            Self::PipelineExtensionSubscription => "PIPELINE_EXTENSION_SUBSCRIPTION",
            Self::PipelineExtensionUnsubscription => "PIPELINE_EXTENSION_UNSUBSCRIPTION",
            Self::RunStarted => "RUN_STARTED",
            Self::RunCompleted => "RUN_COMPLETED",
            Self::ExtensionInstalled => "EXTENSION_INSTALLED",
            Self::ExtensionUninstalled => "EXTENSION_UNINSTALLED",
            Self::ExtensionEnabled => "EXTENSION_ENABLED",
            Self::ExtensionDisabled => "EXTENSION_DISABLED",
        }
    }
}

/// How many events there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventProgress {
    /// The number of the newest event; 0 before the first.
    pub(crate) last: i64,
    /// The core is stopping: no more events follow.
    pub(crate) closed: bool,
}

pub(super) struct EventLog {
    /// Without gaps, so that an event's position follows from its number.
    kept: VecDeque<proto::Event>,
    most: usize,
    /// The number of the newest event, announced or not.
    last: i64,
    /// The numbers of the newest and the oldest that have been written.
    written: (i64, i64),
    progress: watch::Sender<EventProgress>,
}

impl EventLog {
    pub(super) fn new(most: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            most,
            last: 0,
            written: (0, 1),
            progress: watch::Sender::default(),
        }
    }

    pub(super) fn publish(&mut self, now: i64, kind: EventKind, details: &impl Serialize) {
        let id = self.last + 1;
        if self.kept.len() >= self.most {
            self.kept.pop_front();
        }
        self.kept.push_back(proto::Event {
            id,
            r#type: kind.name().to_owned(),
            // Details are strings and numbers, which cannot fail to serialize.
            details: serde_json::to_string(details).unwrap_or_default(),
            emitted: now,
        });
        self.last = id;
    }

    /// Announces what has been published. Called while the tables are locked, so that numbers are
    /// announced in order.
    pub(super) fn announce(&self) {
        self.progress.send_if_modified(|progress| {
            let new = progress.last < self.last;
            progress.last = self.last;
            new
        });
    }

    /// Announces events once they are on disk.
    #[cfg(feature = "store")]
    pub(super) fn announcements(&self) -> watch::Sender<EventProgress> {
        self.progress.clone()
    }

    /// Writes new events and removes dropped ones. Returns the number of the newest.
    pub(super) fn journal(&mut self, journal: &mut Journal) -> i64 {
        let first = self.last + 1 - i64::try_from(self.kept.len()).unwrap_or(i64::MAX);
        let (newest, oldest) = self.written;
        for id in oldest..first.min(newest + 1) {
            journal.remove_event(id);
        }
        for event in self.kept.range(self.up_to(newest)..) {
            journal.put_event(event);
        }
        self.written = (self.last, first);
        self.last
    }

    /// Adds an event that was read. They arrive in order.
    #[cfg(feature = "store")]
    pub(super) fn restore(&mut self, event: proto::Event) {
        self.last = event.id;
        self.kept.push_back(event);
    }

    /// Called once all have been read.
    #[cfg(feature = "store")]
    pub(super) fn restored(&mut self) {
        let first = self.kept.front().map_or(1, |event| event.id);
        self.written = (self.last, first);
        self.announce();
    }

    /// Ends the streams that follow events.
    pub(super) fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// How many of the kept events have been announced.
    fn announced(&self) -> usize {
        self.up_to(self.progress.borrow().last)
    }

    /// How many of the kept events have at most this number.
    fn up_to(&self, id: i64) -> usize {
        let Some(first) = self.kept.front() else { return 0 };
        let count = id.saturating_sub(first.id).saturating_add(1);
        usize::try_from(count).unwrap_or(0).min(self.kept.len())
    }
}

impl Store {
    #[cfg(test)]
    pub(crate) fn publish(&self, kind: EventKind, details: &serde_json::Value) {
        let now = self.clock.unix_millis();
        self.tables().events.publish(now, kind, details);
    }

    /// `None` if there is no such event, or it has been dropped.
    pub(crate) fn event(&self, id: i64) -> Option<proto::Event> {
        let tables = self.tables();
        let announced = tables.events.announced();
        let to = tables.events.up_to(id).min(announced);
        let found = tables.events.kept.range(..to).next_back();
        found.filter(|event| event.id == id).cloned()
    }

    /// The oldest events with a greater number, in order. If the first does not have the next
    /// number, those in between have been dropped.
    pub(crate) fn events_after(&self, id: i64, limit: usize) -> Vec<proto::Event> {
        let tables = self.tables();
        let to = tables.events.announced();
        let from = tables.events.up_to(id).min(to);
        tables.events.kept.range(from..to).take(limit).cloned().collect()
    }

    /// The newest events with a smaller number, newest first.
    pub(crate) fn events_before(&self, id: i64, limit: usize) -> Vec<proto::Event> {
        let tables = self.tables();
        let to = tables.events.up_to(id.saturating_sub(1)).min(tables.events.announced());
        tables.events.kept.range(..to).rev().take(limit).cloned().collect()
    }

    /// For waiting for the next event. Do not hold a borrow of it while calling the store.
    pub(crate) fn progress(&self) -> watch::Receiver<EventProgress> {
        self.tables().events.progress.subscribe()
    }
}
