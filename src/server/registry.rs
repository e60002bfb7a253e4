//! All live subscriptions, and the order of changes to each.
//!
//! The guarantees: for one key at most one `serve` runs at any time; changes of one key happen one
//! after the other in the order of their calls, and a caller that goes away does not leave a change
//! half done; different keys never wait for each other.
//!
//! The common changes do not wait and are made under the one lock: starting a new key, confirming
//! an equal subscription, ending an unknown one. Only a change that has to wait for a running
//! `serve` to stop makes a [`Changing`] entry, with a queue and a task of its own, which exist
//! until the queue is empty. So an idle subscription costs a pointer and a hash here, and no
//! channel.

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gofer_net::RandomHasher;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::erased::{Instance, Prepared};
use super::listing::{Listing, Snapshot};
use super::stored;
use super::tasks::Tasks;
use crate::catch_panic::{catch_panic_in, drop_caught};
use crate::error::{Error, ErrorKind, Result};
use crate::extension::{
    AnyLive, Beginning, Cancelled, Context, Key, Live, Settings, Standing, State, log_panic,
};

/// Changes of one key that may wait behind one that is under way: more than any sensible caller has
/// in flight for one key.
const MAX_WAITING: usize = 1024;

/// How long an aborted future may take to end when the process must exit.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Their `Drop` is the author's code, which must not end the worker of a key's queue.
const PARAMETERS: &str = "a subscription's parameters";

pub(crate) struct Registry {
    context: Arc<Context>,
    stop_grace: Duration,
    hasher: RandomHasher,
    /// Locked for a lookup, an insertion with its spawn, or one iteration over all entries; never
    /// across an await.
    state: Mutex<Subscriptions>,
    workers: Tasks,
}

struct Subscriptions {
    entries: HashTable<Slot>,
    listing: Listing,
    ended: Ended,
    closed: bool,
}

/// Hashes of the keys that were unsubscribed in this process.
#[derive(Default)]
struct Ended(HashSet<u64>);

impl Ended {
    /// More are forgotten, a megabyte of them.
    const MOST: usize = 1 << 16;

    fn add(&mut self, hash: u64) {
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0.insert(hash);
    }

    /// Starts a subscription. One that was unsubscribed in this process is a new one: what runs were
    /// started before does not matter to it. If Gofer says when it was made, Gofer knows better: it
    /// may have unsubscribed it to subscribe it with other parameters.
    fn start(&mut self, hash: u64, prepared: Prepared) -> Arc<dyn AnyLive> {
        if self.0.remove(&hash) && !prepared.live.has_beginning() {
            prepared.live.resume_from_now();
        }
        prepared.start()
    }
}

/// The hash is stored with the entry, so that a growing table need not read and hash a million keys
/// again, which would be a noticeable pause.
struct Slot {
    hash: u64,
    entry: Entry,
}

impl Slot {
    fn is(&self, hash: u64, key: &Key) -> bool {
        self.hash == hash && self.entry.key() == key
    }

    fn current(&self) -> Option<&Arc<dyn AnyLive>> {
        self.entry.current()
    }
}

enum Entry {
    Live(Arc<dyn AnyLive>),
    Changing(Box<Changing>),
}

/// A key whose subscription is being stopped or replaced.
struct Changing {
    key: Key,
    /// What runs, or is being stopped.
    current: Option<Arc<dyn AnyLive>>,
    waiting: VecDeque<Command>,
}

enum Command {
    Subscribe(Prepared, Reply),
    Unsubscribe(Cancelled, Reply),
}

type Reply = oneshot::Sender<Result<()>>;

/// What is ending while all are shutting down. Aborted if nobody waits for it any more.
struct Ending(Vec<Arc<dyn AnyLive>>);

impl Drop for Ending {
    fn drop(&mut self) {
        for live in std::mem::take(&mut self.0) {
            live.abort();
            drop_caught(PARAMETERS, live);
        }
    }
}

impl Entry {
    fn key(&self) -> &Key {
        match self {
            Self::Live(live) => &live.key,
            Self::Changing(changing) => &changing.key,
        }
    }

    fn current(&self) -> Option<&Arc<dyn AnyLive>> {
        match self {
            Self::Live(live) => Some(live),
            Self::Changing(changing) => changing.current.as_ref(),
        }
    }
}

impl Registry {
    /// `budget` is what Info's list may take, in bytes.
    pub(crate) fn new(context: Arc<Context>, stop_grace: Duration, budget: usize) -> Arc<Self> {
        let (entries, listing) = (HashTable::new(), Listing::new(budget));
        Arc::new(Self {
            context,
            stop_grace,
            hasher: RandomHasher::default(),
            state: Mutex::new(Subscriptions {
                entries,
                listing,
                ended: Ended::default(),
                closed: false,
            }),
            workers: Tasks::default(),
        })
    }

    /// Starts a subscription, confirms an equal one, or replaces another. `beginning` is when
    /// it was made, if Gofer says so.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        instance: Arc<dyn Instance>,
        key: Key,
        settings: Settings,
        beginning: Option<Beginning>,
    ) -> Result<()> {
        if self.is_live(&key, &settings) {
            return Ok(());
        }
        let context = Arc::clone(&self.context);
        // The author's code: outside the lock, and its panics are caught.
        let span = key.span();
        let prepared =
            span.in_scope(|| catch_panic_in(|| instance.prepare(key, settings, context)))?;
        prepared.live.keep_span_for_start(span);
        if let Some(beginning) = beginning {
            prepared.live.set_beginning(beginning);
        }
        let Some(outcome) = self.accept(prepared)? else { return Ok(()) };
        outcome.await.unwrap_or_else(|_| Err(Error::shutting_down()))
    }

    /// Ends a subscription and returns once it has ended; an unknown one has already.
    pub(crate) async fn unsubscribe(self: &Arc<Self>, key: Key, why: Cancelled) -> Result<()> {
        let outcome = {
            let Subscriptions { entries, closed, .. } = &mut *self.state();
            let hash = self.hasher.hash_one(&key);
            let Some(slot) = entries.find_mut(hash, |slot| slot.is(hash, &key)) else {
                // While all are shutting down, it may still be ending.
                return if *closed { Err(Error::shutting_down()) } else { Ok(()) };
            };
            check_queue(&slot.entry)?;
            let (reply, outcome) = oneshot::channel();
            self.change(&mut slot.entry, Command::Unsubscribe(why, reply));
            outcome
        };
        outcome.await.unwrap_or_else(|_| Err(Error::shutting_down()))
    }

    /// Has every subscription compute anew when its next tick is due.
    pub(crate) fn reschedule(&self) {
        let state = self.state();
        state.entries.iter().filter_map(Slot::current).for_each(|live| live.reschedule());
    }

    /// What Info lists.
    pub(crate) fn list(&self) -> Snapshot {
        let Subscriptions { entries, listing, .. } = &mut *self.state();
        listing.snapshot(entries.iter().filter_map(Slot::current).map(|live| &live.key))
    }

    /// All that are live, those that are being replaced too. Refused once they are shutting down:
    /// then an empty list would look as if there were none.
    pub(crate) fn live(&self) -> Result<Vec<Arc<dyn AnyLive>>> {
        let state = self.state();
        if state.closed {
            return Err(Error::shutting_down());
        }
        Ok(state.entries.iter().filter_map(Slot::current).map(Arc::clone).collect())
    }

    /// How a subscription is doing; `None` if there is none. Refused once they are shutting down.
    pub(crate) fn standing(&self, key: &Key) -> Result<Option<Standing>> {
        let hash = self.hasher.hash_one(key);
        let state = self.state();
        if state.closed {
            return Err(Error::shutting_down());
        }
        let slot = state.entries.find(hash, |slot| slot.is(hash, key));
        Ok(slot.and_then(Slot::current).map(|live| live.standing()))
    }

    /// One line for each subscription that is waiting to be restarted, up to a limit.
    pub(crate) fn failing(&self) -> Vec<String> {
        /// The log has all.
        const MAX_LINES: usize = 20;
        let state = self.state();
        let line = |live: &Arc<dyn AnyLive>| {
            let activity = live.activity();
            let failure = activity.failure.as_ref().filter(|failure| failure.waiting)?;
            let restarted = match failure.restarts {
                0 => String::new(),
                1 => " (restarted once so far)".to_owned(),
                restarts => format!(" (restarted {restarts} times so far)"),
            };
            Some(format!("`{}`: {}{restarted}", live.key, failure.message))
        };
        state.entries.iter().filter_map(Slot::current).filter_map(line).take(MAX_LINES).collect()
    }

    /// Ends all subscriptions and refuses new ones. Takes at most the grace period, and one second
    /// for what has to be aborted.
    pub(crate) async fn drain(&self) {
        let entries = self.close();
        let live = entries.iter().filter_map(Slot::current).map(Arc::clone);
        let mut ending = Ending(live.collect());
        for live in &ending.0 {
            live.cancel(Cancelled::Stopping);
        }
        // Dropping a waiting command answers its caller that the extension is shutting down. One by
        // one, since each may panic.
        entries.into_iter().for_each(|slot| drop_caught(PARAMETERS, slot));
        // One deadline for all: a thousand that ignore it take no longer than one.
        let deadline = Instant::now() + self.stop_grace;
        let abort_deadline = deadline + ABORT_TIMEOUT;
        while let Some(live) = ending.0.pop() {
            join(&live, deadline, Some(abort_deadline)).await;
            drop_caught(PARAMETERS, live);
        }
        if tokio::time::timeout_at(abort_deadline, self.workers.ended()).await.is_err() {
            tracing::error!("a subscription has not stopped; not waiting for it");
        }
    }

    /// Aborts all subscriptions and refuses new ones.
    pub(crate) fn abandon(&self) {
        let entries = self.close();
        // What they wait for to end is aborted when they are dropped.
        self.workers.abandon();
        entries.iter().filter_map(Slot::current).for_each(|live| live.abort());
        entries.into_iter().for_each(|slot| drop_caught(PARAMETERS, slot));
    }

    /// Refuses new subscriptions from now on, and returns all entries.
    fn close(&self) -> HashTable<Slot> {
        let mut state = self.state();
        state.closed = true;
        state.listing.invalidate();
        std::mem::take(&mut state.entries)
    }

    fn state(&self) -> MutexGuard<'_, Subscriptions> {
        // No code of the author's runs under the lock, and nothing in it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_live(&self, key: &Key, settings: &Settings) -> bool {
        let hash = self.hasher.hash_one(key);
        let state = self.state();
        let slot = state.entries.find(hash, |slot| slot.is(hash, key));
        matches!(slot, Some(Slot { entry: Entry::Live(live), .. }) if live.settings == *settings)
    }

    /// Makes the change at once, or returns the receiver of its outcome.
    fn accept(
        self: &Arc<Self>,
        prepared: Prepared,
    ) -> Result<Option<oneshot::Receiver<Result<()>>>> {
        let mut state = self.state();
        let Subscriptions { entries, listing, ended, closed } = &mut *state;
        if *closed {
            return Err(Error::shutting_down());
        }
        let hash = self.hasher.hash_one(&prepared.live.key);
        let key = &prepared.live.key;
        let place = entries.entry(hash, |slot| slot.is(hash, key), |slot| slot.hash);
        match place {
            Place::Vacant(vacant) => {
                listing.add(key);
                vacant.insert(Slot { hash, entry: Entry::Live(ended.start(hash, prepared)) });
                Ok(None)
            }
            Place::Occupied(mut occupied) => {
                if let Entry::Live(live) = &occupied.get().entry
                    && live.settings == prepared.live.settings
                {
                    return Ok(None);
                }
                let entry = &mut occupied.get_mut().entry;
                // Before the parameters are part of a command: refusing it would drop them under
                // the lock, which is the author's code.
                check_queue(entry)?;
                let (reply, outcome) = oneshot::channel();
                self.change(entry, Command::Subscribe(prepared, reply));
                Ok(Some(outcome))
            }
        }
    }

    /// Queues a command, and spawns a worker for the queue if there is none.
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
                self.workers.spawn(Arc::clone(self).process(key));
            }
        }
    }

    /// Processes the queue of one key until it is empty.
    async fn process(self: Arc<Self>, key: Key) {
        while let Some((current, command)) = self.next(&key) {
            match command {
                Command::Unsubscribe(why, reply) => {
                    if let Some(current) = &current {
                        self.stop(current, why).await;
                    }
                    let outcome = self.set_current(&key, None);
                    drop_caught(PARAMETERS, current);
                    // The caller may have gone away.
                    let _ = reply.send(outcome.or(Ok(())));
                }
                Command::Subscribe(prepared, reply) => {
                    let outcome = match &current {
                        Some(current) if current.settings == prepared.live.settings => {
                            drop_caught(PARAMETERS, prepared);
                            Ok(())
                        }
                        Some(current) => {
                            match stored::check_change(current, &prepared.live.settings).await {
                                Ok(()) => {
                                    self.stop(current, Cancelled::Replaced).await;
                                    self.set_current(&key, Some(prepared))
                                }
                                Err(refusal) => {
                                    drop_caught(PARAMETERS, prepared);
                                    Err(refusal)
                                }
                            }
                        }
                        None => self.set_current(&key, Some(prepared)),
                    };
                    drop_caught(PARAMETERS, current);
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    /// The next command of a key and what runs now; `None` if the queue is empty, and then the
    /// entry is no longer a changing one.
    fn next(&self, key: &Key) -> Option<(Option<Arc<dyn AnyLive>>, Command)> {
        let mut state = self.state();
        let hash = self.hasher.hash_one(key);
        // Gone if everything is shutting down.
        let mut place = state.entries.find_entry(hash, |slot| slot.is(hash, key)).ok()?;
        let Entry::Changing(changing) = &mut place.get_mut().entry else { return None };
        if let Some(command) = changing.waiting.pop_front() {
            return Some((changing.current.clone(), command));
        }
        match changing.current.take() {
            Some(live) => place.get_mut().entry = Entry::Live(live),
            None => drop(place.remove()),
        }
        // After a burst of subscriptions, return the memory.
        let (len, capacity) = (state.entries.len(), state.entries.capacity());
        if capacity > 1024 && len < capacity / 8 {
            state.entries.shrink_to(len * 2, |slot| slot.hash);
        }
        None
    }

    /// Starts what comes next, unless everything is shutting down.
    fn set_current(&self, key: &Key, next: Option<Prepared>) -> Result<()> {
        let Subscriptions { entries, listing, ended, .. } = &mut *self.state();
        let hash = self.hasher.hash_one(key);
        let slot = entries.find_mut(hash, |slot| slot.is(hash, key));
        let Some(Slot { entry: Entry::Changing(changing), .. }) = slot else {
            return Err(Error::shutting_down());
        };
        match (&changing.current, &next) {
            (None, Some(_)) => listing.add(key),
            (Some(_), None) => {
                listing.invalidate();
                ended.add(hash);
            }
            // With other parameters, it is as new as it was.
            (Some(current), Some(next)) if current.is_new() && !next.live.has_beginning() => {
                next.live.resume_from_now();
            }
            _ => {}
        }
        changing.current = next.map(|next| ended.start(hash, next));
        Ok(())
    }

    /// Cancels, waits for the grace period, aborts, joins. Waits without a timeout for what cannot
    /// be aborted: its successor must not run at the same time.
    async fn stop(&self, live: &Live, why: Cancelled) {
        live.cancel(why);
        join(live, Instant::now() + self.stop_grace, None).await;
    }
}

fn check_queue(entry: &Entry) -> Result<()> {
    match entry {
        Entry::Changing(changing) if changing.waiting.len() >= MAX_WAITING => Err(Error::new(
            ErrorKind::ResourceExhausted,
            "too many changes of this subscription are under way; try again later",
        )),
        Entry::Changing(_) | Entry::Live(_) => Ok(()),
    }
}

/// Joins everything that runs for a cancelled subscription. What has not ended by the deadline is
/// aborted; what an abort does not end, because it never awaits, is given up at the abort deadline,
/// if there is one. If nobody waits any more, it is aborted at once.
async fn join(live: &Live, deadline: Instant, abort_deadline: Option<Instant>) {
    let (task, spawned) = {
        let mut activity = live.activity();
        (activity.task.take().map(AbortOnDropHandle::new), activity.spawned.take())
    };
    let aborted = async {
        if let Some(mut task) = task {
            let ended = if let Ok(ended) = tokio::time::timeout_at(deadline, &mut task).await {
                ended
            } else {
                live.key.span().in_scope(|| {
                    tracing::warn!("the subscription did not stop when cancelled; aborting it");
                });
                task.abort();
                task.await
            };
            log_panic(&live.key, ended);
        }
        let Some(mut spawned) = spawned else { return };
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, spawned.join_next()).await {
            log_panic(&live.key, ended);
        }
        spawned.abort_all();
        while let Some(ended) = spawned.join_next().await {
            log_panic(&live.key, ended);
        }
    };
    match abort_deadline {
        None => aborted.await,
        Some(abort_deadline) => {
            if tokio::time::timeout_at(abort_deadline, aborted).await.is_err() {
                live.key.span().in_scope(|| {
                    tracing::error!("the subscription blocks its thread and cannot be aborted");
                });
            }
        }
    }
    live.set_state(State::Ended);
}
