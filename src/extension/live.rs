//! One live subscription, as the registry holds it.
//!
//! A million of these may be alive at once, so [`Live`] is one allocation, besides its key and
//! settings, and the one [`Signal`] in it is for both cancellation and the result of `resume`.
//! Authors see it as [`super::subscription`]; `server::registry` starts and stops it.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::task::{JoinError, JoinHandle, JoinSet};

use super::context::Context;
use super::key::Key;
use super::settings::Settings;
use super::signal::Signal;

/// What is known about the last run that this subscription started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LastRun {
    /// Gofer has not been asked, or has not responded yet.
    Unknown,
    /// There was none.
    Never,
    /// It started at this time, in nanoseconds of [`Gofer::monotonic`](crate::Gofer); before the
    /// start of this process it is negative.
    At(i64),
}

/// Packed into one number, so that the later of two states is the greater one, and an update is an
/// atomic maximum.
impl LastRun {
    const UNKNOWN: i64 = i64::MIN;
    const NEVER: i64 = i64::MIN + 1;

    fn packed(self) -> i64 {
        match self {
            Self::Unknown => Self::UNKNOWN,
            Self::Never => Self::NEVER,
            Self::At(at) => at,
        }
    }

    fn unpacked(number: i64) -> Self {
        match number {
            Self::UNKNOWN => Self::Unknown,
            Self::NEVER => Self::Never,
            at => Self::At(at),
        }
    }
}

/// Why a subscription's `serve` ended before its time, for Info and health.
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) restarts: u32,
    /// True while it is waiting to be restarted.
    pub(crate) waiting: bool,
    /// When it failed, in nanoseconds of [`Gofer::monotonic`](crate::Gofer).
    pub(crate) at: i64,
}

/// The parts that change under a lock, which is held for a few instructions, never across an await.
#[derive(Default)]
pub(crate) struct Activity {
    /// The task that runs the author's `serve`, until it is joined.
    pub(crate) task: Option<JoinHandle<()>>,
    /// What the author spawned, until it is joined; boxed, since most never spawn.
    pub(crate) spawned: Option<Box<JoinSet<()>>>,
    pub(crate) failure: Option<Box<Failure>>,
}

/// One live subscription.
pub(crate) struct Live<P: ?Sized = dyn Send + Sync> {
    pub(crate) key: Key,
    pub(crate) settings: Settings,
    pub(crate) context: Arc<Context>,
    activity: Mutex<Activity>,
    /// Wakes tasks that wait in `cancelled` or in `Ticks::next`.
    changed: Signal,
    /// When the last run started: according to Gofer, or as started by this process.
    last_run_at: AtomicI64,
    /// Its number; 0 if there was none, negative if it is not known.
    last_run_id: AtomicI64,
    cancelled: AtomicBool,
    /// Whether `serve` runs, to which what is spawned belongs. Changed while the activity is
    /// locked; here, since it needs no room here.
    serving: AtomicBool,
    /// Whether a run is being started, as [`UNLOCKED`], [`LOCKED`] or [`CONTENDED`].
    starting: AtomicU8,
    /// Whether Gofer has been, or is being, asked for the last run.
    asked: AtomicBool,
    pub(crate) params: P,
}

const UNLOCKED: u8 = 0;
const LOCKED: u8 = 1;
/// Locked, and another task is waiting for it.
const CONTENDED: u8 = 2;

/// Held while a run is being started.
pub(crate) struct StartGuard<'a, P: ?Sized>(&'a Live<P>);

impl<P: ?Sized> Drop for StartGuard<'_, P> {
    fn drop(&mut self) {
        if self.0.starting.swap(UNLOCKED, Ordering::AcqRel) == CONTENDED {
            self.0.changed.notify();
        }
    }
}

impl<P> Live<P> {
    pub(crate) fn new(key: Key, settings: Settings, context: Arc<Context>, params: P) -> Self {
        Self {
            key,
            settings,
            context,
            activity: Mutex::default(),
            changed: Signal::default(),
            last_run_at: AtomicI64::new(LastRun::Unknown.packed()),
            last_run_id: AtomicI64::new(-1),
            cancelled: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            starting: AtomicU8::new(UNLOCKED),
            asked: AtomicBool::new(false),
            params,
        }
    }
}

impl<P: ?Sized> AsRef<Signal> for Live<P> {
    fn as_ref(&self) -> &Signal {
        &self.changed
    }
}

impl<P: ?Sized> Live<P> {
    pub(crate) fn activity(&self) -> MutexGuard<'_, Activity> {
        // Nothing panics while it is held, and the data would be consistent if it did.
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.changed.notify();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    pub(crate) async fn cancelled(&self) {
        Signal::wait(self, Self::is_cancelled).await;
    }

    /// Cancels it and drops what runs for it, without waiting.
    pub(crate) fn abort(&self) {
        self.cancel();
        let mut activity = self.activity();
        if let Some(task) = &activity.task {
            task.abort();
        }
        if let Some(spawned) = &mut activity.spawned {
            spawned.abort_all();
        }
    }

    /// Just before `serve` is called, and as soon as it has ended.
    pub(crate) fn set_serving(&self, serving: bool) {
        let _activity = self.activity();
        self.serving.store(serving, Ordering::Relaxed);
    }

    /// Spawns what ends with the subscription, or drops it if no `serve` runs that it belongs to.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut ended = Vec::new();
        {
            let mut activity = self.activity();
            // Cancelled first, then joined: what is spawned before that is joined too.
            if !self.serving.load(Ordering::Relaxed) || self.is_cancelled() {
                // The future, which is the author's, is dropped after the lock.
                return;
            }
            let spawned = activity.spawned.get_or_insert_default();
            spawned.spawn(future);
            // An author that spawns for every event holds only what is running.
            while let Some(end) = spawned.try_join_next() {
                if end.is_err() {
                    ended.push(end);
                }
            }
        }
        for end in ended {
            log_panic(&self.key, end);
        }
    }

    /// Aborts what a `serve` that has failed spawned, and waits for its end. It stays where a
    /// change of the subscription finds it; then this may not complete.
    pub(crate) async fn end_spawned(&self) {
        if let Some(spawned) = &mut self.activity().spawned {
            spawned.abort_all();
        }
        let next = || {
            poll_fn(|context| match &mut self.activity().spawned {
                Some(spawned) => spawned.poll_join_next(context),
                None => Poll::Ready(None),
            })
        };
        while let Some(ended) = next().await {
            log_panic(&self.key, ended);
        }
        self.activity().spawned = None;
    }

    /// Waits until no other run is being started; `None` if the subscription is cancelled.
    pub(crate) async fn lock_starts(&self) -> Option<StartGuard<'_, P>> {
        Signal::wait(self, |live| live.is_cancelled() || live.try_lock_starts()).await;
        // If it was cancelled first, another task may hold the lock.
        (!self.is_cancelled()).then(|| StartGuard(self))
    }

    fn try_lock_starts(&self) -> bool {
        let change = |from, to| {
            let (both, order) = (Ordering::AcqRel, Ordering::Acquire);
            self.starting.compare_exchange(from, to, both, order)
        };
        loop {
            if change(UNLOCKED, LOCKED).is_ok() {
                return true;
            }
            // If it was unlocked in between, try again.
            match change(LOCKED, CONTENDED) {
                Ok(_) | Err(CONTENDED) => return false,
                Err(_) => {}
            }
        }
    }

    /// Whether Gofer still has to be asked for the last run; true for one caller.
    pub(crate) fn mark_asked(&self) -> bool {
        !self.asked.swap(true, Ordering::AcqRel)
    }

    /// Completes once it is cancelled, or the last run is no longer `last`.
    pub(crate) fn changed_since(&self, last: LastRun) -> impl Future<Output = ()> {
        let seen = last.packed();
        Signal::wait(self, move |live| {
            live.is_cancelled() || live.last_run_at.load(Ordering::Acquire) != seen
        })
    }

    pub(crate) fn last_run(&self) -> LastRun {
        LastRun::unpacked(self.last_run_at.load(Ordering::Acquire))
    }

    pub(crate) fn last_run_id(&self) -> Option<i64> {
        let id = self.last_run_id.load(Ordering::Acquire);
        (id >= 0).then_some(id)
    }

    /// Records a run that this process started.
    pub(crate) fn run_started(&self, id: i64, at: i64) {
        self.last_run_id.fetch_max(id, Ordering::AcqRel);
        self.last_run_at.fetch_max(at, Ordering::AcqRel);
    }

    /// Records Gofer's answer about the time before this process; a run that was started in the
    /// meantime is newer, and stays.
    pub(crate) fn resume(&self, last: Option<(i64, i64)>) {
        let (id, at) = last.unwrap_or((0, LastRun::Never.packed()));
        self.last_run_id.fetch_max(id, Ordering::AcqRel);
        self.last_run_at.fetch_max(at, Ordering::AcqRel);
        self.changed.notify();
    }
}

pub(crate) fn log_panic(key: &Key, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(payload) = error.try_into_panic()
    {
        tracing::error!(subscription = %key, "a task of the subscription panicked");
        drop_panic(payload);
    }
}

/// Drops what a panic of the author's carries. That is a value of the author's too, whose `Drop`
/// may panic: what that panic carries is not dropped.
pub(crate) fn drop_panic(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}
