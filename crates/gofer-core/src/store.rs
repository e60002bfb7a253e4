//! Everything that the embedded core keeps.
//!
//! [`Store`] is plain data with its rules: what may exist, what may run, which events are published
//! when something changes. An operation happens as a whole or not at all, and its errors name what
//! is wrong. What changes something for a caller, and what reads secrets or objects, checks here that
//! the caller may; for everything else, `authorize` does. Calls to extensions about a subscription
//! are up to `api`.
//!
//! What is alive is read from memory, and also written to the file if there is one (`disk`). What is
//! over, such as runs that are complete, is only there (`history`). How much is kept is in `usage`;
//! of all events, the newest [`EVENTS`].

mod access;
#[cfg(feature = "store")]
mod backing;
#[cfg_attr(not(feature = "store"), path = "store/no_backup.rs")]
mod backup;
#[cfg_attr(not(feature = "store"), path = "store/no_disk.rs")]
mod disk;
mod events;
#[cfg_attr(not(feature = "store"), path = "store/no_file.rs")]
mod file;
mod history;
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
mod usage;

pub(super) use access::{
    By, Credential, ExtensionKey, KeyGuard, KeyHolder, Needs, NewKey, not_subscribed_in,
    unknown_token,
};
#[cfg(feature = "store")]
pub use backing::Backing;
pub(super) use backup::Backup;
#[cfg(feature = "store")]
pub use backup::{Restored, WrittenBackup};
pub(super) use disk::Mark;
pub(super) use events::{EventBatch, EventKind, EventScope};
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
#[cfg(feature = "store")]
use tonic::Code;
use tonic::Status;

use crate::launcher::Recorded;
#[cfg(feature = "store")]
use crate::{caught::catch, essential::EssentialTasks, files, sync::lock};
use access::Access;
use disk::Disk;
#[cfg(feature = "store")]
use disk::Listeners;
use events::EventLog;
#[cfg(feature = "store")]
use file::StoreFile;
use gofer_net::Clock;
use gofer_proto as proto;
use gofer_sdk::Result;
#[cfg(feature = "store")]
use history::History;
#[cfg(feature = "store")]
use journal::Record;
use journal::{Flags, Journal};
use namespaces::NamespaceTable;
use pipelines::PipelineTable;
use queue::RunQueue;
#[cfg(feature = "store")]
use seal::Seal;
use secrets::Secrets;
use subscription_locks::SubscriptionLocks;
use subscriptions::ByExtension;

/// The namespace that always exists. An empty name stands for it.
const DEFAULT: &str = "default";

/// Events kept, a few hundred bytes each on disk. Every run adds two.
const EVENTS: usize = 100_000;

/// Runs that a watcher may lag behind before it misses some.
const UNWATCHED_RUNS: usize = 4096;

pub(super) struct Store {
    clock: Clock,
    /// One lock for all tables: an operation is a few look-ups, and sees them in a consistent
    /// state.
    tables: Arc<Mutex<Tables>>,
    started: broadcast::Sender<proto::Run>,
    /// Notified when there may be a run to execute.
    run_queued: Arc<Notify>,
    tokens_changed: Arc<watch::Sender<()>>,
    subscription_locks: Arc<SubscriptionLocks>,
    disk: Option<Disk>,
    /// If it is in a file.
    source: Option<backup::Source>,
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
    /// How often starting runs was turned off or on, since the store was opened.
    switched: u64,
    /// If runs are executed.
    queue: Option<RunQueue>,
    events: EventLog,
    /// Runs that the operation under way has accepted, for those that watch.
    started: Vec<proto::Run>,
    journal: Journal,
}

impl Store {
    /// A store in memory only.
    pub(super) fn new(clock: Clock) -> Result<Arc<Self>> {
        Self::with(clock, Tables::new(clock, Journal::new(None, Arc::default())), |_| Ok(None))
    }

    /// A store in a file, which is created if there is none. Without a key for its secrets, one is
    /// kept in a file beside it.
    ///
    /// # Errors
    ///
    /// If the file is in use, damaged, of a newer version, or not a store. It is then left as it
    /// is.
    #[cfg(feature = "store")]
    pub(super) fn open(
        clock: Clock,
        path: &Path,
        key: Option<[u8; 32]>,
        backing: Option<Arc<dyn Backing>>,
        essential: &EssentialTasks,
    ) -> Result<Arc<Self>> {
        let on_runtime = backing.is_some();
        // The library of the file panics at some kinds of damage.
        let (tables, source) =
            catch(|| Self::read(clock, path, key, backing)).unwrap_or_else(|panic| {
                tracing::debug!(panic, "the store cannot be read");
                Err(file::damaged(path, &"its content makes no sense"))
            })?;
        if !on_runtime && let Some(warning) = exposed(path) {
            tracing::warn!("{warning}");
        }
        Self::with(clock, tables, |store| {
            let history = Arc::clone(lock(&store.tables).journal.history());
            let disk = Disk::new(history);
            let run_queued = Arc::clone(&store.run_queued);
            let tokens_changed = Arc::clone(&store.tokens_changed);
            let listeners = Listeners {
                progress: lock(&store.tables).events.announcements(),
                started: store.started.clone(),
                rolled_back: Box::new(move || tokens_changed.send_replace(())),
                writable: Box::new(move || run_queued.notify_one()),
            };
            let (tables, file) = (Arc::clone(&store.tables), Arc::clone(&source.file));
            disk.start(file, tables, listeners, essential, on_runtime)?;
            store.source = Some(source);
            Ok(Some(disk))
        })
    }

    #[cfg(feature = "store")]
    fn read(
        clock: Clock,
        path: &Path,
        key: Option<[u8; 32]>,
        backing: Option<Arc<dyn Backing>>,
    ) -> Result<(Tables, backup::Source)> {
        if backing.is_none() {
            file::check_place(path)?;
        }
        let (seal, key_file) = match key {
            Some(key) => (Seal::given(&key, path)?, None),
            None => Seal::beside(path).map(|(seal, file)| (seal, Some(file)))?,
        };
        let seal = Arc::new(seal);
        let mut tables = Tables::new(clock, Journal::new(Some(Arc::clone(&seal)), Arc::default()));
        let file = StoreFile::open(path, backing, &seal, |record| tables.restore(path, record))?;
        let file = Arc::new(file);
        let history = Arc::new(History::in_file(Arc::clone(&file)));
        tables.journal = Journal::new(Some(seal), history);
        tables.restored(path)?;
        if let Some(key_file) = &key_file {
            key_file.keep()?;
        }
        file.accept()?;
        Ok((tables, backup::Source { file, key: key_file }))
    }

    fn with(
        clock: Clock,
        tables: Tables,
        disk: impl FnOnce(&mut Self) -> Result<Option<Disk>>,
    ) -> Result<Arc<Self>> {
        let mut store = Self {
            clock,
            tables: Arc::new(Mutex::new(tables)),
            started: broadcast::Sender::new(UNWATCHED_RUNS),
            run_queued: Arc::default(),
            tokens_changed: Arc::default(),
            subscription_locks: Arc::default(),
            disk: None,
            source: None,
        };
        store.disk = disk(&mut store)?;
        store.ensure_default().map_err(|status| gofer_sdk::internal::error(&status))?;
        Ok(Arc::new(store))
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// To be taken before something is read or changed that is then waited for.
    pub(super) fn mark(&self) -> Mark {
        self.disk.as_ref().map(Disk::mark).unwrap_or_default()
    }

    /// Waits until everything is on disk that has been read or changed since the mark was taken.
    ///
    /// # Errors
    ///
    /// If it cannot be written. It has been undone then.
    pub(super) async fn durable(&self, since: Mark) -> Result<(), Status> {
        match &self.disk {
            Some(disk) => disk.durable(since).await,
            None => Ok(()),
        }
    }

    /// Makes a change and waits until it is on disk, before what depends on it is done.
    ///
    /// # Errors
    ///
    /// If it was not made, or cannot be written. It has been undone then.
    pub(super) async fn committed<T>(
        &self,
        change: impl FnOnce(&Self) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mark = self.mark();
        let changed = change(self)?;
        self.durable(mark).await?;
        Ok(changed)
    }

    /// Begins a backup, which has everything that was acknowledged before.
    ///
    /// # Errors
    ///
    /// If the store is in memory, or cannot be written at the moment.
    pub(super) async fn back_up(&self) -> Result<Backup, Status> {
        let source = self.source.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "the core keeps its store in memory, and ends with it: there is nothing to back up",
            )
        })?;
        self.durable(self.mark()).await?;
        source.begin().await
    }

    /// Ends the streams that follow events, so that stopping does not have to wait for them.
    /// Nothing else changes.
    pub(super) fn end_streams(&self) {
        self.tables().events.close();
    }

    /// Writes all pending changes. Later ones are refused, and another process may open the file.
    pub(super) async fn close(&self) {
        if let Some(disk) = &self.disk {
            let needed = self.tables().needed();
            disk.close(needed).await;
        }
    }

    /// The tables, to read them, or to change what is in memory only.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // No operation panics half-way through a change.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables, for an operation that changes them.
    ///
    /// # Errors
    ///
    /// If changes cannot be stored at the moment.
    fn change(&self) -> Result<Change<'_>, Status> {
        let tables = self.tables();
        if let Some(disk) = &self.disk {
            disk.check_writable()?;
        }
        Ok(Change { tables, store: self })
    }
}

/// The tables, for one operation. Its changes are submitted as a whole when this is dropped.
struct Change<'a> {
    tables: MutexGuard<'a, Tables>,
    store: &'a Store,
}

impl Deref for Change<'_> {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}

impl DerefMut for Change<'_> {
    fn deref_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let Tables { events, journal, started, .. } = &mut *self.tables;
        let last_event = events.journal(journal);
        if let Some(disk) = &self.store.disk {
            disk.submit(journal, last_event, started);
        } else {
            for run in started.drain(..) {
                // Nobody may be watching any more.
                let _ = self.store.started.send(run);
            }
            events.announce();
        }
    }
}

impl Tables {
    fn new(clock: Clock, journal: Journal) -> Self {
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
            switched: 0,
            queue: None,
            events: EventLog::new(EVENTS),
            started: Vec::new(),
            journal,
        }
    }

    /// Makes these what the file holds. What is in memory only stays.
    #[cfg(feature = "store")]
    fn roll_back(&mut self, file: &StoreFile) -> Result<()> {
        let Some(seal) = self.journal.seal().cloned() else { return Ok(()) };
        let journal = Journal::new(Some(Arc::clone(&seal)), Arc::clone(self.journal.history()));
        let mut stored = Self::new(self.clock, journal);
        file.alive(&seal, |record| stored.restore(file.path(), record))?;
        self.exchange_memory(&mut stored);
        if let Err(error) = stored.restored(file.path()) {
            self.exchange_memory(&mut stored);
            return Err(error);
        }
        stored.restore_queue();
        *self = stored;
        Ok(())
    }

    /// Exchanges what is in memory only.
    #[cfg(feature = "store")]
    fn exchange_memory(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.access, &mut other.access);
        std::mem::swap(&mut self.queue, &mut other.queue);
        std::mem::swap(&mut self.events, &mut other.events);
    }

    /// After all records that are alive.
    #[cfg(feature = "store")]
    fn restored(&mut self, path: &Path) -> Result<()> {
        for NamespaceTable { pipelines, usage, .. } in self.namespaces.values_mut() {
            for pipeline in pipelines.values() {
                usage.add(&pipeline.usage);
                usage.replace_live(0, pipeline.live_bytes());
            }
        }
        let history = Arc::clone(self.journal.history());
        let restored = self.events.restore(&history);
        restored.map_err(|status| match status.code() {
            Code::DataLoss => file::damaged(path, &"an event cannot be read"),
            _ => file::cannot_read(path, &status.message()),
        })
    }

    /// About how many bytes the file needs.
    fn needed(&self) -> u64 {
        let namespaces = self.namespaces.values().map(|it| &it.usage);
        let all: u64 = namespaces.map(|it| it.run_bytes + it.content_bytes).sum();
        // Keys, and pages that are not full.
        (all + self.events.bytes()) * 2
    }

    /// Inserts a record that was read. Records arrive in the order of their kinds.
    #[cfg(feature = "store")]
    fn restore(&mut self, path: &Path, record: Record) -> Result<()> {
        let inserted = self.insert(record);
        inserted.ok_or_else(|| file::damaged(path, &"a record has no owner"))
    }

    /// `None` if its owner is missing.
    #[cfg(feature = "store")]
    fn insert(&mut self, record: Record) -> Option<()> {
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
                pipeline.live = Some(it);
            }
            Record::Run(it) => {
                let pipeline = self.pipeline_mut(&it.run.namespace, &it.run.pipeline).ok()?;
                pipeline.unfinished.runs.insert(it.run.id, it);
            }
            Record::Usage(namespace, pipeline, it) => {
                self.pipeline_mut(&namespace, &pipeline).ok()?.usage = it;
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
