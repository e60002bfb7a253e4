//! All live subscriptions, and the order of changes to each.
//!
//! The promises: for one key at most one `serve` runs at any time; changes of
//! one key happen one after the other in the order of their calls, and a caller
//! that goes away does not leave one half done; different keys never wait for
//! each other.
//!
//! The common changes need no waiting and are done under the one lock: a new
//! key starts, an equal subscription is confirmed, an unknown one is ended.
//! Only what has to wait for a running `serve` to stop becomes a [`Changing`]
//! entry with a queue and a task of its own, which exist for as long as that
//! lasts. So a subscription at rest costs a pointer and a hash here, and no channel.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::contain::contain_call;
use super::erased::{Instance, Prepared};
use super::roster::{Listing, Roster};
use crate::error::{Error, ErrorKind, Result};
use crate::extension::{Context, Key, Live, Settings, log_panic};

/// Changes of one key that may wait behind one that is under way. A caller that
/// has more than these in flight for one key is not asking for anything.
const MOST_WAITING: usize = 1024;

/// How long an aborted future may take to notice, where the process must end.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct Registry {
    context: Arc<Context>,
    stop_grace: Duration,
    hasher: RandomState,
    /// Held for a lookup, an insertion and the spawn that goes with it, or one
    /// walk over all; never across an await.
    state: Mutex<State>,
    workers: TaskTracker,
}

struct State {
    entries: HashTable<Slot>,
    roster: Roster,
    closed: bool,
}

/// The hash stands beside the entry: a table that grows places it again without
/// reading every key, which for a million of them is a stall.
struct Slot {
    hash: u64,
    entry: Entry,
}

impl Slot {
    fn is(&self, hash: u64, key: &Key) -> bool {
        self.hash == hash && self.entry.key() == key
    }

    fn current(&self) -> Option<&Arc<Live>> {
        self.entry.current()
    }
}

enum Entry {
    Live(Arc<Live>),
    Changing(Box<Changing>),
}

/// A key whose subscription is being stopped or replaced.
struct Changing {
    key: Key,
    /// What runs, or is being stopped.
    current: Option<Arc<Live>>,
    waiting: VecDeque<Command>,
}

enum Command {
    Subscribe(Prepared, Reply),
    Unsubscribe(Reply),
}

type Reply = oneshot::Sender<Result<()>>;

impl Entry {
    fn key(&self) -> &Key {
        match self {
            Self::Live(live) => &live.key,
            Self::Changing(changing) => &changing.key,
        }
    }

    fn current(&self) -> Option<&Arc<Live>> {
        match self {
            Self::Live(live) => Some(live),
            Self::Changing(changing) => changing.current.as_ref(),
        }
    }
}

impl Registry {
    /// `room` is what Info's list may take, in bytes.
    pub(crate) fn new(context: Arc<Context>, stop_grace: Duration, room: usize) -> Arc<Self> {
        let (entries, roster) = (HashTable::new(), Roster::new(room));
        Arc::new(Self {
            context,
            stop_grace,
            hasher: RandomState::new(),
            state: Mutex::new(State { entries, roster, closed: false }),
            workers: TaskTracker::new(),
        })
    }

    /// Starts a subscription, confirms an equal one, or replaces another.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        instance: Arc<dyn Instance>,
        key: Key,
        settings: Settings,
    ) -> Result<()> {
        if self.is_live(&key, &settings) {
            return Ok(());
        }
        let context = Arc::clone(&self.context);
        // The author's code: outside the lock, and contained.
        let prepared = contain_call(|| instance.prepare(key, settings, context))?;
        let Some(outcome) = self.accept(prepared)? else { return Ok(()) };
        outcome.await.unwrap_or_else(|_| Err(Error::shutting_down()))
    }

    /// Ends a subscription and answers once it has ended; one that is not there
    /// has.
    pub(crate) async fn unsubscribe(self: &Arc<Self>, key: Key) -> Result<()> {
        let outcome = {
            let mut state = self.state();
            let hash = self.hasher.hash_one(&key);
            let Some(slot) = state.entries.find_mut(hash, |slot| slot.is(hash, &key)) else {
                return Ok(());
            };
            has_room(&slot.entry)?;
            let (reply, outcome) = oneshot::channel();
            self.change(&mut slot.entry, Command::Unsubscribe(reply));
            outcome
        };
        outcome.await.unwrap_or_else(|_| Err(Error::shutting_down()))
    }

    /// What Info lists.
    pub(crate) fn list(&self) -> Listing {
        let State { entries, roster, .. } = &mut *self.state();
        roster.list(entries.iter().filter_map(Slot::current).map(|live| &live.key))
    }

    /// One line for each subscription that waits to be started again, the first
    /// few.
    pub(crate) fn failing(&self) -> Vec<String> {
        /// More than a person reads; the log has all.
        const MOST: usize = 20;
        let state = self.state();
        let line = |live: &Arc<Live>| {
            let activity = live.activity();
            let failure = activity.failure.as_ref().filter(|failure| failure.waiting)?;
            let restarted = match failure.restarts {
                0 => String::new(),
                1 => " (restarted once so far)".to_owned(),
                restarts => format!(" (restarted {restarts} times so far)"),
            };
            Some(format!("`{}`: {}{restarted}", live.key, failure.message))
        };
        state.entries.iter().filter_map(Slot::current).filter_map(line).take(MOST).collect()
    }

    /// Ends all subscriptions and accepts no more. Bounded in time: the grace,
    /// and a second for what has to be aborted.
    pub(crate) async fn drain(&self) {
        let entries = self.close();
        let live: Vec<Arc<Live>> =
            entries.iter().filter_map(Slot::current).map(Arc::clone).collect();
        for live in &live {
            live.cancel();
        }
        // Dropping a waiting command answers its caller that we are stopping.
        // One by one: each may panic by itself.
        entries.into_iter().for_each(let_go);
        // One deadline for all: a thousand that ignore it take no longer.
        let deadline = Instant::now() + self.stop_grace;
        let patience = deadline + ABORT_PATIENCE;
        for live in live {
            join(&live, deadline, Some(patience)).await;
            let_go(live);
        }
        self.workers.close();
        if tokio::time::timeout_at(patience, self.workers.wait()).await.is_err() {
            tracing::error!("a subscription does not end; the process ends without it");
        }
    }

    /// Aborts all subscriptions and accepts no more.
    pub(crate) fn abandon(&self) {
        let entries = self.close();
        for live in entries.iter().filter_map(Slot::current) {
            live.cancel();
            let mut activity = live.activity();
            if let Some(task) = &activity.task {
                task.abort();
            }
            if let Some(spawned) = &mut activity.spawned {
                spawned.abort_all();
            }
        }
        entries.into_iter().for_each(let_go);
    }

    /// Accepts no more, and gives all that there are.
    fn close(&self) -> HashTable<Slot> {
        let mut state = self.state();
        state.closed = true;
        state.roster.invalidate();
        std::mem::take(&mut state.entries)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of an author's runs under the lock, and nothing in it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_live(&self, key: &Key, settings: &Settings) -> bool {
        let hash = self.hasher.hash_one(key);
        let state = self.state();
        let slot = state.entries.find(hash, |slot| slot.is(hash, key));
        matches!(slot, Some(Slot { entry: Entry::Live(live), .. }) if live.settings == *settings)
    }

    /// Does it at once, or gives the receiver of its outcome.
    fn accept(
        self: &Arc<Self>,
        prepared: Prepared,
    ) -> Result<Option<oneshot::Receiver<Result<()>>>> {
        let mut state = self.state();
        let State { entries, roster, closed } = &mut *state;
        if *closed {
            return Err(Error::shutting_down());
        }
        let hash = self.hasher.hash_one(&prepared.live.key);
        let key = &prepared.live.key;
        let place = entries.entry(hash, |slot| slot.is(hash, key), |slot| slot.hash);
        match place {
            Place::Vacant(vacant) => {
                roster.add(key);
                vacant.insert(Slot { hash, entry: Entry::Live(prepared.start()) });
                Ok(None)
            }
            Place::Occupied(mut occupied) => {
                if let Entry::Live(live) = &occupied.get().entry
                    && live.settings == prepared.live.settings
                {
                    return Ok(None);
                }
                let entry = &mut occupied.get_mut().entry;
                // Before the parameters are part of a command: what is refused
                // drops them, and that is the author's code.
                has_room(entry)?;
                let (reply, outcome) = oneshot::channel();
                self.change(entry, Command::Subscribe(prepared, reply));
                Ok(Some(outcome))
            }
        }
    }

    /// Queues a command, and sees to it that somebody works the queue off.
    fn change(self: &Arc<Self>, entry: &mut Entry, command: Command) {
        match entry {
            Entry::Changing(changing) => changing.waiting.push_back(command),
            Entry::Live(live) => {
                let (key, current) = (live.key.clone(), Arc::clone(live));
                *entry = Entry::Changing(Box::new(Changing {
                    key: key.clone(),
                    current: Some(current),
                    waiting: VecDeque::from([command]),
                }));
                self.workers.spawn(Arc::clone(self).work(key));
            }
        }
    }

    /// Works off the queue of one key, then puts the key to rest.
    async fn work(self: Arc<Self>, key: Key) {
        while let Some((current, command)) = self.next(&key) {
            match command {
                Command::Unsubscribe(reply) => {
                    if let Some(current) = &current {
                        self.stop(current).await;
                    }
                    let outcome = self.set_current(&key, None);
                    let_go(current);
                    // The caller may have gone away.
                    let _ = reply.send(outcome.or(Ok(())));
                }
                Command::Subscribe(prepared, reply) => {
                    let outcome = match &current {
                        Some(current) if current.settings == prepared.live.settings => {
                            let_go(prepared);
                            Ok(())
                        }
                        Some(current) => {
                            self.stop(current).await;
                            self.set_current(&key, Some(prepared))
                        }
                        None => self.set_current(&key, Some(prepared)),
                    };
                    let_go(current);
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    /// The next command of a key and what runs now; `None` once there is none,
    /// and the entry is at rest.
    fn next(&self, key: &Key) -> Option<(Option<Arc<Live>>, Command)> {
        let mut state = self.state();
        let hash = self.hasher.hash_one(key);
        // Gone where everything is being ended.
        let mut place = state.entries.find_entry(hash, |slot| slot.is(hash, key)).ok()?;
        let Entry::Changing(changing) = &mut place.get_mut().entry else { return None };
        if let Some(command) = changing.waiting.pop_front() {
            return Some((changing.current.clone(), command));
        }
        match changing.current.take() {
            Some(live) => place.get_mut().entry = Entry::Live(live),
            None => drop(place.remove()),
        }
        // A burst of subscriptions that has passed gives its memory back.
        let (len, capacity) = (state.entries.len(), state.entries.capacity());
        if capacity > 1024 && len < capacity / 8 {
            state.entries.shrink_to(len * 2, |slot| slot.hash);
        }
        None
    }

    /// Starts what comes next, unless everything is being ended.
    fn set_current(&self, key: &Key, next: Option<Prepared>) -> Result<()> {
        let State { entries, roster, .. } = &mut *self.state();
        let hash = self.hasher.hash_one(key);
        let slot = entries.find_mut(hash, |slot| slot.is(hash, key));
        let Some(Slot { entry: Entry::Changing(changing), .. }) = slot else {
            return Err(Error::shutting_down());
        };
        match (&changing.current, &next) {
            (None, Some(_)) => roster.add(key),
            (Some(_), None) => roster.invalidate(),
            _ => {}
        }
        changing.current = next.map(Prepared::start);
        Ok(())
    }

    /// Cancels, waits for the grace, aborts, joins. What cannot be aborted is
    /// waited for without end: its successor must not run beside it.
    async fn stop(&self, live: &Live) {
        live.cancel();
        join(live, Instant::now() + self.stop_grace, None).await;
    }
}

fn has_room(entry: &Entry) -> Result<()> {
    match entry {
        Entry::Changing(changing) if changing.waiting.len() >= MOST_WAITING => Err(Error::new(
            ErrorKind::ResourceExhausted,
            "too many changes of this subscription are under way",
        )),
        Entry::Changing(_) | Entry::Live(_) => Ok(()),
    }
}

/// Joins everything that runs for a cancelled subscription. What has not ended
/// by the deadline is aborted; what an abort does not end, because it never
/// awaits, is left behind once patience is over.
async fn join(live: &Live, deadline: Instant, patience: Option<Instant>) {
    let (task, spawned) = {
        let mut activity = live.activity();
        (activity.task.take(), activity.spawned.take())
    };
    let aborted = async {
        if let Some(mut task) = task
            && tokio::time::timeout_at(deadline, &mut task).await.is_err()
        {
            tracing::warn!(subscription = %live.key, "ignored its cancellation and is aborted");
            task.abort();
            // Aborted is how it ended; a panic was contained and logged.
            let _ = task.await;
        }
        let Some(mut spawned) = spawned else { return };
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, spawned.join_next()).await {
            log_panic(&live.key, ended);
        }
        spawned.shutdown().await;
    };
    match patience {
        None => aborted.await,
        Some(patience) => {
            if tokio::time::timeout_at(patience, aborted).await.is_err() {
                tracing::error!(subscription = %live.key, "blocks its thread and cannot be ended");
            }
        }
    }
}

/// Drops what holds an author's parameters. They may panic at that, and the one
/// who works off a key's queue must live.
fn let_go<T>(held: T) {
    if let Err(error) = contain_call(|| {
        drop(held);
        Ok(())
    }) {
        tracing::error!(?error, "parameters panicked when they were dropped");
    }
}
