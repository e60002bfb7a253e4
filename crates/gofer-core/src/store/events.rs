//! Events, in order, numbered from 1.

use std::collections::{HashMap, VecDeque};
#[cfg(feature = "store")]
use std::ops::{ControlFlow, Range};

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tonic::Status;

use super::history::unreadable;
#[cfg(feature = "store")]
use super::history::{History, Order, beginning_with};
use super::journal::{Journal, RecordKind};
use super::{Store, Tables};
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

/// What an event is about, on which depends who may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventScope<'a> {
    Namespace(&'a str),
    Extension(&'a str),
    /// The core as a whole.
    Core,
}

impl EventScope<'_> {
    fn of(text: &str) -> EventScope<'_> {
        match text.split_at_checked(1) {
            Some(("n", namespace)) => EventScope::Namespace(namespace),
            Some(("x", extension)) => EventScope::Extension(extension),
            _ => EventScope::Core,
        }
    }

    fn text(scope: EventScope<'_>) -> String {
        match scope {
            EventScope::Namespace(namespace) => format!("n{namespace}"),
            EventScope::Extension(extension) => format!("x{extension}"),
            EventScope::Core => String::new(),
        }
    }

    /// From the details of an event, for `ask`; `None` if they cannot be read.
    pub(crate) fn of_details<T>(details: &str, ask: impl FnOnce(EventScope<'_>) -> T) -> Option<T> {
        #[derive(Deserialize)]
        struct Details {
            namespace_id: Option<String>,
            name: Option<String>,
        }
        let details: Details = serde_json::from_str(details).ok()?;
        Some(ask(match &details {
            Details { namespace_id: Some(namespace), .. } => EventScope::Namespace(namespace),
            Details { name: Some(name), .. } => EventScope::Extension(name),
            Details { .. } => EventScope::Core,
        }))
    }

    #[cfg(feature = "store")]
    pub(super) fn text_of_details(details: &str) -> String {
        Self::of_details(details, Self::text).unwrap_or_default()
    }
}

/// About how many bytes an event takes.
const EVENT_BYTES: u64 = 400;

/// The events that are kept, of which only the scopes are in memory.
pub(super) struct EventLog {
    most: usize,
    /// The number of the newest event, announced or not.
    last: i64,
    scopes: Scopes,
    /// Published by the operation under way.
    new: Vec<(proto::Event, String)>,
    progress: watch::Sender<EventProgress>,
}

/// The scope of each event that is kept, four bytes each.
#[derive(Default)]
struct Scopes {
    /// Of the oldest event first, as places in `texts`.
    of: VecDeque<u32>,
    /// With the number of events.
    texts: Vec<(String, usize)>,
    places: HashMap<String, u32>,
    free: Vec<u32>,
}

impl Scopes {
    fn push(&mut self, text: &str) {
        let place = self.places.get(text).copied().unwrap_or_else(|| self.add(text));
        if let Some((_, count)) = self.texts.get_mut(place as usize) {
            *count += 1;
        }
        self.of.push_back(place);
    }

    fn add(&mut self, text: &str) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.texts.push(Default::default());
            // There are no more texts than events.
            u32::try_from(self.texts.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(it) = self.texts.get_mut(place as usize) {
            *it = (text.to_owned(), 0);
        }
        self.places.insert(text.to_owned(), place);
        place
    }

    fn released(&mut self, place: Option<u32>) {
        let Some(place) = place else { return };
        let Some((text, count)) = self.texts.get_mut(place as usize) else { return };
        *count -= 1;
        if *count == 0 {
            self.places.remove(text);
            self.free.push(place);
        }
    }

    /// For each place, whether its scope is seen.
    fn seen(&self, sees: &dyn Fn(EventScope<'_>) -> bool) -> Vec<bool> {
        self.texts.iter().map(|(text, count)| *count > 0 && sees(EventScope::of(text))).collect()
    }
}

/// Events that were read.
#[derive(Debug, Default)]
pub(crate) struct EventBatch {
    pub(crate) events: Vec<proto::Event>,
    /// The number of the last event that was looked at, seen or not.
    pub(crate) through: i64,
    /// Whether some were dropped before they were looked at.
    pub(crate) missed: bool,
}

impl EventLog {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            last: 0,
            scopes: Scopes::default(),
            new: Vec::new(),
            progress: watch::Sender::default(),
        }
    }

    pub(super) fn publish(
        &mut self,
        now: i64,
        kind: EventKind,
        scope: EventScope<'_>,
        details: &impl Serialize,
    ) {
        self.last += 1;
        let event = proto::Event {
            id: self.last,
            r#type: kind.name().to_owned(),
            // Details are strings and numbers, which cannot fail to serialize.
            details: serde_json::to_string(details).unwrap_or_default(),
            emitted: now,
        };
        self.new.push((event, EventScope::text(scope)));
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

    /// The number of the oldest that is kept.
    fn first(&self) -> i64 {
        self.last + 1 - i64::try_from(self.scopes.of.len()).unwrap_or(i64::MAX)
    }

    /// Writes new events and drops the oldest. Returns the number of the newest.
    pub(super) fn journal(&mut self, journal: &mut Journal) -> i64 {
        for (event, scope) in std::mem::take(&mut self.new) {
            if self.scopes.of.len() >= self.most {
                // Those that are new and not journaled yet are not among the scopes.
                let oldest = event.id - i64::try_from(self.scopes.of.len()).unwrap_or(i64::MAX);
                journal.write_history(key(oldest), None);
                let place = self.scopes.of.pop_front();
                self.scopes.released(place);
            }
            self.scopes.push(&scope);
            let mut record = event.encode_to_vec();
            record.extend(StoredScope { scope }.encode_to_vec());
            journal.write_history(key(event.id), Some(record.into()));
        }
        self.last
    }

    /// Reads the scopes of the events on disk.
    #[cfg(feature = "store")]
    pub(super) fn restore(&mut self, history: &History) -> Result<(), Status> {
        let (mut scopes, mut last) = (Scopes::default(), 0);
        history.visit(all(), Order::OldestFirst, |key, record| {
            last = number(key);
            scopes.push(&StoredScope::decode(record).unwrap_or_default().scope);
            ControlFlow::Continue(())
        })?;
        (self.scopes, self.last) = (scopes, last);
        self.new.clear();
        self.announce();
        Ok(())
    }

    /// Ends the streams that follow events.
    pub(super) fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// About how many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.scopes.of.len() as u64 * EVENT_BYTES
    }

    /// The numbers of the events that are kept and announced, and seen.
    fn seen_in<'a>(
        &'a self,
        from: i64,
        to: i64,
        seen: &'a [bool],
    ) -> impl DoubleEndedIterator<Item = (i64, bool)> + 'a {
        let first = self.first();
        let (from, to) = (from.max(first), to.min(self.progress.borrow().last));
        let place = |id: i64| usize::try_from(id - first).unwrap_or(0).min(self.scopes.of.len());
        let range = place(from)..place(to.saturating_add(1)).max(place(from));
        let places = range.clone().zip(self.scopes.of.range(range));
        places.map(move |(at, scope)| {
            let id = first + i64::try_from(at).unwrap_or(i64::MAX);
            (id, seen.get(*scope as usize).copied().unwrap_or(false))
        })
    }
}

/// What the record of an event holds besides the API's message, whose fields have other numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredScope {
    #[prost(string, tag = "1001")]
    pub(super) scope: String,
}

pub(super) fn key(id: i64) -> Vec<u8> {
    RecordKind::Event.key(&[], Some(id))
}

#[cfg(feature = "store")]
fn all() -> Range<Vec<u8>> {
    beginning_with(RecordKind::Event.key(&[], None))
}

/// The number at the end of a key.
pub(super) fn number(key: &[u8]) -> i64 {
    key.last_chunk().map_or(0, |it| i64::from_be_bytes(*it))
}

impl Tables {
    /// Publishes what has happened to an extension.
    pub(super) fn publish_extension(
        &mut self,
        now: i64,
        kind: EventKind,
        of: &proto::ExtensionRegistration,
    ) {
        let details = serde_json::json!({ "name": of.name, "image": of.image });
        self.events.publish(now, kind, EventScope::Extension(&of.name), &details);
    }

    fn read_events(&self, ids: &[i64]) -> Result<Vec<proto::Event>, Status> {
        let read = |id: &i64| {
            let record = self.journal.history().get(&key(*id))?;
            let event = record.and_then(|it| proto::Event::decode(it).ok());
            event.ok_or_else(|| unreadable("an event"))
        };
        ids.iter().map(read).collect()
    }
}

impl Store {
    #[cfg(test)]
    pub(crate) fn publish_extension(
        &self,
        kind: EventKind,
        of: &proto::ExtensionRegistration,
    ) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        self.change()?.publish_extension(now, kind, of);
        Ok(())
    }

    /// `None` if there is no such event, or it has been dropped.
    pub(crate) fn event(
        &self,
        id: i64,
        sees: &dyn Fn(EventScope<'_>) -> bool,
    ) -> Result<Option<proto::Event>, Status> {
        let tables = self.tables();
        let scopes = tables.events.scopes.seen(sees);
        let found = tables.events.seen_in(id, id, &scopes).any(|(_, is_seen)| is_seen);
        Ok(if found { tables.read_events(&[id])?.pop() } else { None })
    }

    /// The oldest events with a greater number, in order, as far as they are seen.
    pub(crate) fn events_after(
        &self,
        id: i64,
        until: i64,
        limit: usize,
        sees: &dyn Fn(EventScope<'_>) -> bool,
    ) -> Result<EventBatch, Status> {
        let tables = self.tables();
        let scopes = tables.events.scopes.seen(sees);
        let from = id.saturating_add(1);
        let mut batch = EventBatch { through: id, ..EventBatch::default() };
        let mut found = Vec::new();
        for (id, is_seen) in tables.events.seen_in(from, until, &scopes) {
            batch.through = id;
            if is_seen {
                found.push(id);
            }
            if found.len() == limit {
                break;
            }
        }
        batch.missed = from < tables.events.first();
        batch.events = tables.read_events(&found)?;
        Ok(batch)
    }

    /// The newest events with a smaller number, newest first, as far as they are seen.
    pub(crate) fn events_before(
        &self,
        id: i64,
        limit: usize,
        sees: &dyn Fn(EventScope<'_>) -> bool,
    ) -> Result<EventBatch, Status> {
        let tables = self.tables();
        let scopes = tables.events.scopes.seen(sees);
        let until = id.saturating_sub(1);
        let found = tables.events.seen_in(0, until, &scopes).rev().filter(|(_, is_seen)| *is_seen);
        let found: Vec<_> = found.map(|(id, _)| id).take(limit).collect();
        let through = found.last().copied().filter(|_| found.len() == limit).unwrap_or(0);
        Ok(EventBatch { events: tables.read_events(&found)?, through, missed: false })
    }

    /// The numbers before the oldest event that is kept, and of the newest.
    pub(crate) fn kept_events(&self) -> (i64, i64) {
        let tables = self.tables();
        let newest = tables.events.progress.borrow().last;
        ((tables.events.first() - 1).min(newest), newest)
    }

    /// For waiting for the next event. Do not hold a borrow of it while calling the store.
    pub(crate) fn progress(&self) -> watch::Receiver<EventProgress> {
        self.tables().events.progress.subscribe()
    }
}
