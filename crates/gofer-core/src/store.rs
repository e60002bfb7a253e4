//! Everything that the embedded core keeps.
//!
//! [`Store`] is plain data with its rules: what may exist, what may run, which events are published
//! when something changes. An operation happens as a whole or not at all, and its errors name what
//! is wrong. What changes something for a caller, and what reads secrets or objects, checks here that
//! the caller may; for everything else, `authorize` does. Calls to extensions about a subscription
//! are up to `api`.
//!
//! Everything is read from memory, and also written to the file if there is one (`disk`).
//!
//! Of each pipeline, [`RUNS_PER_PIPELINE`] runs are kept: the newest, and those that are not
//! complete. Of all events, the newest [`EVENTS`].

mod access;
#[cfg_attr(not(feature = "store"), path = "store/no_disk.rs")]
mod disk;
mod events;
#[cfg(feature = "store")]
mod file;
mod initiator;
mod journal;
mod launches;
mod names;
mod namespaces;
mod objects;
mod options;
mod patterns;
mod pipelines;
mod queue;
mod references;
mod registrations;
mod run_keys;
mod runs;
#[cfg_attr(not(feature = "store"), path = "store/no_seal.rs")]
mod seal;
mod secrets;
mod setup;
mod subscription_locks;
mod subscriptions;
#[cfg(test)]
mod tests;
mod tokens;

pub(super) use access::{
    By, Credential, ExtensionKey, KeyGuard, KeyHolder, Needs, NewKey, not_subscribed_in,
    unknown_token,
};
pub(super) use events::EventKind;
pub(super) use names::{Page, check_extension_name, check_name, or_default};
pub(super) use objects::{Owner, object_limit};
pub(super) use options::{Options, RESET};
pub(super) use queue::Job;
pub(super) use registrations::not_installed;
pub(super) use runs::Ending;
pub(super) use secrets::Holder;
pub(super) use setup::StoreSetup;
pub(super) use subscriptions::{Beginning, status_reason};
pub(super) use tokens::StoredToken;

use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};
#[cfg(feature = "store")]
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast, watch};
use tonic::Status;

use crate::launcher::Recorded;
#[cfg(feature = "store")]
use crate::{caught::catch, files};
use access::Access;
use disk::Disk;
use events::EventLog;
use gofer_net::Clock;
use gofer_proto as proto;
#[cfg(feature = "store")]
use gofer_sdk::Result;
#[cfg(feature = "store")]
use journal::Record;
use journal::{Flags, Journal};
use namespaces::NamespaceTable;
use pipelines::PipelineTable;
use queue::RunQueue;
use seal::Seal;
use secrets::Secrets;
use subscription_locks::SubscriptionLocks;
use subscriptions::ByExtension;

/// The namespace that always exists. An empty name stands for it.
const DEFAULT: &str = "default";

/// Runs kept of one pipeline, about half a kilobyte each. Per pipeline, so that one that runs every
/// second does not evict the daily run from which another takes its schedule.
const RUNS_PER_PIPELINE: usize = 10_000;

/// Events kept, a few hundred bytes each. Every run adds two.
const EVENTS: usize = 100_000;

/// Runs that a watcher may lag behind before it misses some.
const UNWATCHED_RUNS: usize = 4096;

pub(super) struct Store {
    clock: Clock,
    /// One lock for all tables: an operation is a few look-ups, and sees them in a consistent
    /// state.
    tables: Mutex<Tables>,
    started: broadcast::Sender<proto::Run>,
    /// Notified when there may be a run to execute.
    run_queued: Notify,
    tokens_changed: watch::Sender<()>,
    subscription_locks: Arc<SubscriptionLocks>,
    disk: Option<Disk>,
}

struct Tables {
    clock: Clock,
    namespaces: BTreeMap<String, NamespaceTable>,
    registrations: BTreeMap<String, proto::ExtensionRegistration>,
    /// Of the extensions whose options are not the default ones.
    options: BTreeMap<String, Options>,
    by_extension: ByExtension,
    /// By the SHA-256 of the token.
    tokens: HashMap<[u8; 32], Arc<StoredToken>>,
    /// The global ones.
    secrets: Secrets,
    /// By the digests of the keys that they were launched with.
    launches: BTreeMap<[u8; 32], Recorded>,
    access: Access,
    flags: Flags,
    /// If runs are executed.
    queue: Option<RunQueue>,
    events: EventLog,
    journal: Journal,
}

impl Store {
    /// A store in memory only.
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        Self::with(clock, Tables::new(clock, None), None)
    }

    /// A store in a file, which is created if there is none. Without a key for its secrets, one is
    /// kept in a file beside it.
    ///
    /// # Errors
    ///
    /// If the file is in use, damaged, of a newer version, or not a store. It is then left as it
    /// is.
    #[cfg(feature = "store")]
    pub(super) fn open(clock: Clock, path: &Path, key: Option<[u8; 32]>) -> Result<Arc<Self>> {
        // The library of the file panics at some kinds of damage.
        let (tables, disk) = catch(|| Self::read(clock, path, key)).unwrap_or_else(|panic| {
            tracing::debug!(panic, "the store cannot be read");
            Err(file::damaged(path, &"its content makes no sense"))
        })?;
        if let Some(warning) = exposed(path) {
            tracing::warn!("{warning}");
        }
        Ok(Self::with(clock, tables, Some(disk)))
    }

    #[cfg(feature = "store")]
    fn read(clock: Clock, path: &Path, key: Option<[u8; 32]>) -> Result<(Tables, Disk)> {
        file::check_place(path)?;
        let seal = Arc::new(match key {
            Some(key) => Seal::given(&key, path)?,
            None => Seal::beside(path)?,
        });
        let mut tables = Tables::new(clock, Some(Arc::clone(&seal)));
        let progress = tables.events.announcements();
        let disk = Disk::open(path, progress, &seal, |record| {
            let restored = tables.restore(record);
            restored.ok_or_else(|| file::damaged(path, &"a record has no owner"))
        })?;
        tables.restore_run_keys();
        tables.events.restored();
        Ok((tables, disk))
    }

    fn with(clock: Clock, tables: Tables, disk: Option<Disk>) -> Arc<Self> {
        let store = Arc::new(Self {
            clock,
            tables: Mutex::new(tables),
            started: broadcast::Sender::new(UNWATCHED_RUNS),
            run_queued: Notify::new(),
            tokens_changed: watch::Sender::default(),
            subscription_locks: Arc::default(),
            disk,
        });
        store.ensure_default();
        store
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Waits until every change that a response sent now may report is on disk.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(super) async fn durable(&self) -> Result<(), Status> {
        match &self.disk {
            Some(disk) => disk.durable().await.map_err(|why| Status::unavailable(&*why)),
            None => Ok(()),
        }
    }

    /// Waits until a change is on disk, before what depends on it is done.
    ///
    /// # Errors
    ///
    /// If it was not made, or cannot be written.
    pub(super) async fn committed<T>(&self, change: Result<T, Status>) -> Result<T, Status> {
        let changed = change?;
        self.durable().await?;
        Ok(changed)
    }

    /// Ends the streams that follow events, so that stopping does not have to wait for them.
    /// Nothing else changes.
    pub(super) fn end_streams(&self) {
        self.tables().events.close();
    }

    /// Writes all pending changes. Later ones are not kept, and another process may open the file.
    pub(super) async fn close(&self) {
        if let Some(disk) = &self.disk {
            disk.close().await;
        }
    }

    fn tables(&self) -> Locked<'_> {
        // No operation panics half-way through a change.
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { tables, disk: self.disk.as_ref() }
    }
}

/// The tables, for one operation. Its changes are submitted as a whole when this is dropped.
struct Locked<'a> {
    tables: MutexGuard<'a, Tables>,
    disk: Option<&'a Disk>,
}

impl Deref for Locked<'_> {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let Tables { events, journal, .. } = &mut *self.tables;
        match self.disk {
            Some(disk) => {
                let last_event = events.journal(journal);
                disk.submit(journal, last_event);
            }
            None => events.announce(),
        }
    }
}

impl Tables {
    fn new(clock: Clock, seal: Option<Arc<Seal>>) -> Self {
        Self {
            clock,
            namespaces: BTreeMap::new(),
            registrations: BTreeMap::new(),
            options: BTreeMap::new(),
            by_extension: ByExtension::default(),
            tokens: HashMap::new(),
            secrets: BTreeMap::new(),
            launches: BTreeMap::new(),
            access: Access::default(),
            flags: Flags::default(),
            queue: None,
            events: EventLog::new(EVENTS),
            journal: Journal::new(seal),
        }
    }

    /// Inserts a record that was read from a file; `None` if its owner is missing. Records arrive
    /// in the order of their kinds.
    #[cfg(feature = "store")]
    fn restore(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Version => {}
            Record::Flags(flags) => self.flags = flags,
            Record::Namespace(it) => {
                self.namespaces.insert(it.id.clone(), NamespaceTable::new(it));
            }
            Record::Pipeline(it) => {
                let namespace = self.namespaces.get_mut(&it.namespace)?;
                namespace.pipelines.insert(it.id.clone(), PipelineTable::new(it));
            }
            Record::Config(it) => {
                let pipeline = self.pipeline_mut(&it.namespace, &it.pipeline).ok()?;
                pipeline.configs.insert(it.version, it);
            }
            Record::Run(it) => {
                let pipeline = self.pipeline_mut(&it.namespace, &it.pipeline).ok()?;
                pipeline.last_run = it.id;
                pipeline.runs.push_back(it);
            }
            Record::Subscription(it, beginning) => {
                self.by_extension.insert(&it);
                let pipeline = self.pipeline_mut(&it.namespace, &it.pipeline).ok()?;
                let key = (it.name.clone(), it.label.clone());
                pipeline.beginnings.extend(beginning.map(|it| (key.clone(), it)));
                pipeline.subscriptions.insert(key, it);
            }
            Record::Registration(it) => {
                self.registrations.insert(it.name.clone(), it);
            }
            Record::Options(name, it) => {
                self.options.insert(name, Options::restore(it));
            }
            Record::Token(digest, it) => {
                self.tokens.insert(digest, Arc::new(StoredToken::restore(it)));
            }
            Record::Launch(it) => {
                self.launches.insert(it.digest, it);
            }
            Record::Event(it) => self.events.restore(it),
            Record::Object(it) => {
                let pipeline = self.pipeline_mut(&it.namespace, &it.pipeline).ok()?;
                pipeline.objects.insert((it.run, it.key.clone()), it);
            }
            Record::Secret(it) if it.pipeline.is_empty() => {
                self.secrets.insert(it.key.clone(), it);
            }
            Record::Secret(it) => {
                let pipeline = self.pipeline_mut(&it.namespace, &it.pipeline).ok()?;
                pipeline.secrets.insert(it.key.clone(), it);
            }
        }
        Some(())
    }

    fn namespace(&self, id: &str) -> Result<&NamespaceTable, Status> {
        let id = or_default(id);
        self.namespaces.get(id).ok_or_else(|| no_namespace(id))
    }

    fn namespace_mut(&mut self, id: &str) -> Result<&mut NamespaceTable, Status> {
        let id = or_default(id);
        self.namespaces.get_mut(id).ok_or_else(|| no_namespace(id))
    }

    fn pipeline(&self, namespace: &str, id: &str) -> Result<&PipelineTable, Status> {
        let pipelines = &self.namespace(namespace)?.pipelines;
        pipelines.get(id).ok_or_else(|| no_pipeline(namespace, id))
    }

    fn pipeline_mut(&mut self, namespace: &str, id: &str) -> Result<&mut PipelineTable, Status> {
        let pipelines = &mut self.namespace_mut(namespace)?.pipelines;
        pipelines.get_mut(id).ok_or_else(|| no_pipeline(namespace, id))
    }
}

/// A warning if others can read a store or its key. The files are left as they are, since a group
/// may be meant to make backups.
#[cfg(feature = "store")]
fn exposed(store: &Path) -> Option<String> {
    let key = files::with_suffix(store, ".key");
    let exposed = [store, &key].into_iter().filter(|it| files::is_public(it).unwrap_or(false));
    let exposed: Vec<_> = exposed.map(|it| format!("`{}`", it.display())).collect();
    (!exposed.is_empty()).then(|| {
        let exposed = exposed.join(" and ");
        format!("other users can read {exposed}; `chmod 600` makes that private to its owner")
    })
}

fn no_namespace(id: &str) -> Status {
    Status::not_found(format!("there is no namespace `{id}`"))
}

fn no_pipeline(namespace: &str, id: &str) -> Status {
    Status::not_found(format!("there is no pipeline `{}/{id}`", or_default(namespace)))
}
