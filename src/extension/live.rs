//! One live subscription, as the registry holds it.
//!
//! A million of these may be alive at once, so [`Live`] is one allocation, besides its key and
//! settings, and the one [`Signal`] in it is for both cancellation and the result of `resume`.
//! Authors see it as [`super::subscription`]; `server::registry` starts and stops it.

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle, JoinSet};
use tracing::Span;

use super::context::Context;
use super::in_span::in_span;
use super::key::Key;
use super::settings::Settings;
use super::signal::Signal;
use crate::client::{RunInfo, unique};
use crate::error::{Error, ErrorKind};

/// Why a subscription was cancelled; see [`Subscription::cancelled`](crate::Subscription::cancelled).
///
/// ```
/// use gofer_sdk::{Cancelled, Declared, Result, Subscription};
///
/// async fn registered<P: Declared>(subscription: Subscription<P>) -> Result<()> {
///     // Register a webhook with another server, for example.
///     if subscription.cancelled().await == Cancelled::Unsubscribed {
///         // Remove it: nothing comes back that needs it.
/// #       subscription.gofer().pipeline_objects(&subscription).put("removed", "").await?;
///     }
///     Ok(())
/// }
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, docs, _) = documented!(serve: registered);
/// # docs.restart().await?;
/// # core.elapse(gofer_core::seconds(1)).await;
/// # let objects = core.client();
/// # let objects = objects.pipeline_objects("ops/nightly");
/// # assert!(objects.list().await?.is_empty());
/// # docs.unsubscribe("ops/nightly", "docs").await?;
/// # assert_eq!(objects.list().await?, ["removed"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cancelled {
    /// The pipeline was unsubscribed, or the subscription disabled.
    Unsubscribed = 1,
    /// A subscription with other parameters takes its place.
    Replaced = 2,
    /// The extension stops. The subscription goes on once it is started again.
    Stopping = 3,
}

/// What is known of the runs that this subscription started, by which its ticks are resumed. Times
/// are in Unix nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastRun {
    pub(crate) scheduled: LastTick,
    /// The latest time that a run was scheduled for: that of an earlier run, if the clock was ahead.
    pub(crate) latest: i64,
    /// By when the last run had started: it counts for all ticks up to then.
    pub(crate) covered: i64,
}

/// The time that the last run was scheduled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LastTick {
    /// Gofer has not been asked, or has not responded yet.
    Unknown,
    /// There was none.
    Never,
    At(i64),
}

/// Packed into one number, so that the later of two states is the greater one, and an update is an
/// atomic maximum.
impl LastTick {
    const UNKNOWN: i64 = i64::MIN;
    pub(crate) const NEVER: i64 = i64::MIN + 1;

    fn unpacked(number: i64) -> Self {
        match number {
            Self::UNKNOWN => Self::Unknown,
            Self::NEVER => Self::Never,
            at => Self::At(at),
        }
    }
}

/// When a subscription was made, according to Gofer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Beginning {
    /// The newest run of the pipeline then; 0 if there was none.
    pub(crate) after_run: i64,
    /// How long ago.
    pub(crate) age: Duration,
    /// Since when it has had its parameters, in Unix milliseconds by Gofer's clock; 0 if Gofer does
    /// not say.
    pub(crate) since: i64,
}

/// What Gofer reports of a label's runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    /// The newest run of the pipeline, whoever started it; 0 if there is none.
    pub(crate) newest: i64,
    /// The label's last run if it is pending, or 0.
    pub(crate) queued: i64,
    /// The time that the label's last run was scheduled for, and when it started, both in Unix
    /// nanoseconds.
    pub(crate) last: Option<(i64, i64)>,
}

/// Why a subscription's `serve` ended before its time, for Info, health and operators.
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) restarts: u32,
    /// True while it is waiting to be restarted.
    pub(crate) waiting: bool,
    /// When it failed, in Unix nanoseconds.
    pub(crate) since: i64,
    /// Whether a run has been started since.
    pub(crate) is_over: bool,
    /// When it failed, in nanoseconds of [`Gofer::monotonic`](crate::Gofer).
    pub(crate) at: i64,
    /// `None` if there was none, as during an outage of Gofer.
    pub(crate) warning: Option<Warning>,
}

/// The last warning about a failure.
#[derive(Clone, Copy)]
pub(crate) struct Warning {
    /// A hash of the error.
    pub(crate) error: u64,
    /// When, in nanoseconds of [`Gofer::monotonic`](crate::Gofer).
    pub(crate) at: i64,
    /// Whether a run has been started since.
    pub(crate) is_over: bool,
}

/// What the task of a subscription does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// It has not begun.
    Starting = 0,
    /// `serve` runs.
    Serving = 1,
    /// `serve` has failed and will be called again.
    Restarting = 2,
    /// `serve` has returned; external events still reach the subscription.
    Idle = 3,
    /// It has been joined or aborted.
    Ended = 4,
}

impl State {
    fn unpacked(number: u8) -> Self {
        match number {
            0 => Self::Starting,
            1 => Self::Serving,
            2 => Self::Restarting,
            3 => Self::Idle,
            _ => Self::Ended,
        }
    }
}

/// The parts that change under a lock, which is held for a few instructions, never across an await.
#[derive(Default)]
pub(crate) struct Activity {
    /// The task that runs the author's `serve`, until it is joined.
    pub(crate) task: Option<JoinHandle<()>>,
    /// What the author spawned, until it is joined; boxed, since most never spawn.
    pub(crate) spawned: Option<Box<JoinSet<()>>>,
    pub(crate) failure: Option<Box<Failure>>,
    /// While calls are in flight that start runs, and before the first poll of `serve`.
    calls: Option<Box<Calls>>,
    rare: Option<Box<Rare>>,
}

/// Calls in flight.
#[derive(Default)]
struct Calls {
    count: usize,
    /// For the next poll of `serve`.
    span: Option<Span>,
}

/// Held while a call is in flight that starts a run.
pub(super) struct Calling<'a>(&'a Live);

impl<'a> Calling<'a> {
    pub(super) fn new(live: &'a Live) -> Self {
        live.activity().calls.get_or_insert_default().count += 1;
        Self(live)
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        let mut activity = self.0.activity();
        let over = activity.calls.take_if(|calls| {
            calls.count -= 1;
            calls.count == 0
        });
        // A subscriber's code may run for the span, with no lock held.
        drop(activity);
        drop(over);
    }
}

impl Activity {
    /// `serve` has failed, after any start of a run that failed.
    pub(crate) fn set_failure(&mut self, failure: Failure) {
        self.failure = Some(Box::new(failure));
        if let Some(rare) = &mut self.rare {
            rare.not_started = None;
        }
    }
}

/// What most subscriptions never have.
#[derive(Default)]
struct Rare {
    /// If the clock was set back.
    second: Option<Second>,
    /// The last runs with keys of the author's, as they were started, oldest first.
    recent: VecDeque<RunInfo>,
    /// Newer than the failure, if there is one.
    not_started: Option<NotStarted>,
}

/// Why the last run that was asked for was not started.
struct NotStarted {
    message: String,
    /// In Unix nanoseconds.
    at: i64,
}

/// How a subscription is doing. Times are in Unix nanoseconds.
pub(crate) struct Standing {
    /// The time that the last tick with a run was scheduled for.
    pub(crate) last_tick: Option<i64>,
    pub(crate) next_tick: Option<i64>,
    pub(crate) last_error: Option<LastError>,
    /// Whether `serve` has returned.
    pub(crate) has_returned: bool,
}

/// The last error, unless a run has been started since.
pub(crate) struct LastError {
    pub(crate) message: String,
    pub(crate) at: i64,
    /// Whether `serve` has failed and waits to be restarted.
    pub(crate) is_waiting: bool,
    pub(crate) restarts: u32,
}

/// Runs with keys of the author's that are remembered: senders repeat what they sent a moment ago.
const RECENT: usize = 16;

/// A run for a time that comes a second time, since the clock was set back.
struct Second {
    scheduled: i64,
    /// Of all calls for it.
    key: String,
    is_answered: bool,
}

/// Beside a [`State`]: the `serve` that runs, or ran last, has got a tick.
const GOT_TICK: u8 = 1 << 7;

/// One live subscription.
pub(crate) struct Live<P: ?Sized = dyn Send + Sync> {
    pub(crate) key: Key,
    pub(crate) settings: Settings,
    pub(crate) context: Arc<Context>,
    activity: Mutex<Activity>,
    /// Wakes tasks that wait in `cancelled` or in `Ticks::next`.
    changed: Signal,
    /// A [`LastTick`]: according to Gofer, or of a run that this process started.
    scheduled: AtomicI64,
    /// See [`LastRun::latest`].
    latest: AtomicI64,
    /// See [`LastRun::covered`].
    covered: AtomicI64,
    /// The newest run of the pipeline that is known; negative if none is.
    newest_run: AtomicI64,
    /// The last run if it was pending when Gofer reported it, or 0.
    queued: AtomicI64,
    /// See [`Live::is_earlier`]: the newest such run; negative if none is known.
    earlier_runs: AtomicI64,
    /// Where the grid of ticks starts if there has been no run, in Unix nanoseconds: when the
    /// subscription was made or, if that is not known, the first `Ticks`. 0 if there is none yet.
    origin: AtomicI64,
    /// See [`Beginning::since`].
    since: AtomicI64,
    /// The latest time that a run was asked for, in Unix nanoseconds.
    tried: AtomicI64,
    /// When the next tick is due, in Unix nanoseconds; 0 if that is not known, and `i64::MAX` if there
    /// is none.
    next_tick: AtomicI64,
    /// Counts what a task that waits for the next tick has to know of.
    changes: AtomicU32,
    /// A [`Cancelled`], or 0.
    cancelled: AtomicU8,
    /// A [`State`] and [`GOT_TICK`]. Changed while the activity is locked; here, since it needs no
    /// room here.
    state: AtomicU8,
    /// Whether Gofer has been, or is being, asked for the last run.
    asked: AtomicBool,
    /// Whether Gofer refused to start the last run that was asked for.
    refused: AtomicBool,
    pub(crate) params: P,
}

/// A live subscription whose parameters can be had again, with their type.
pub(crate) trait AnyLive: Any + Send + Sync {
    fn live(&self) -> &Live;

    fn shared(self: Arc<Self>) -> Arc<Live>;
}

impl<P: Send + Sync + 'static> AnyLive for Live<P> {
    fn live(&self) -> &Live {
        self
    }

    fn shared(self: Arc<Self>) -> Arc<Live> {
        self
    }
}

impl Deref for dyn AnyLive {
    type Target = Live;

    fn deref(&self) -> &Live {
        self.live()
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
            scheduled: AtomicI64::new(LastTick::UNKNOWN),
            latest: AtomicI64::new(i64::MIN),
            covered: AtomicI64::new(i64::MIN),
            newest_run: AtomicI64::new(-1),
            queued: AtomicI64::new(0),
            earlier_runs: AtomicI64::new(-1),
            origin: AtomicI64::new(0),
            since: AtomicI64::new(0),
            tried: AtomicI64::new(i64::MIN),
            next_tick: AtomicI64::new(0),
            changes: AtomicU32::new(0),
            cancelled: AtomicU8::new(0),
            state: AtomicU8::new(State::Starting as u8),
            asked: AtomicBool::new(false),
            refused: AtomicBool::new(false),
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

    /// Cancels it; the first reason stays.
    pub(crate) fn cancel(&self, why: Cancelled) {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let _ = self.cancelled.compare_exchange(0, why as u8, order.0, order.1);
        self.changed.notify();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) != 0
    }

    /// Why it was cancelled; `None` if it was not.
    pub(crate) fn why_cancelled(&self) -> Option<Cancelled> {
        match self.cancelled.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Cancelled::Unsubscribed),
            2 => Some(Cancelled::Replaced),
            _ => Some(Cancelled::Stopping),
        }
    }

    pub(crate) async fn cancelled(&self) -> Cancelled {
        Signal::wait(self, Self::is_cancelled).await;
        // It has been cancelled.
        self.why_cancelled().unwrap_or(Cancelled::Stopping)
    }

    /// Cancels it, since the extension stops, and drops what runs for it, without waiting.
    pub(crate) fn abort(&self) {
        self.cancel(Cancelled::Stopping);
        let mut activity = self.activity();
        if let Some(task) = &activity.task {
            task.abort();
        }
        if let Some(spawned) = &mut activity.spawned {
            spawned.abort_all();
        }
        drop(activity);
        self.set_state(State::Ended);
    }

    /// Just before `serve` is called, as soon as it has ended, and at the end.
    pub(crate) fn set_state(&self, state: State) {
        let activity = self.activity();
        let before = self.state();
        if before == State::Ended {
            return;
        }
        let got_tick = self.state.load(Ordering::Relaxed) & GOT_TICK;
        if state == State::Serving {
            self.state.store(state as u8, Ordering::Relaxed);
            self.next_tick.store(0, Ordering::Release);
        } else {
            self.state.store(state as u8 | got_tick, Ordering::Relaxed);
        }
        // What it calls is not this crate's.
        drop(activity);
        self.context.metrics.subscription(before, state);
    }

    fn state(&self) -> State {
        State::unpacked(self.state.load(Ordering::Relaxed) & !GOT_TICK)
    }

    /// Spawns what ends with the subscription, or drops it if no `serve` runs that it belongs to.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut ended = Vec::new();
        {
            let mut activity = self.activity();
            // Cancelled first, then joined: what is spawned before that is joined too.
            if self.state() != State::Serving || self.is_cancelled() {
                // The future, which is the author's, is dropped after the lock.
                return;
            }
            let spawned = activity.spawned.get_or_insert_default();
            spawned.spawn(in_span(self.key.clone(), future));
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

    /// Whether Gofer still has to be asked for the last run; true for one caller.
    pub(crate) fn mark_asked(&self) -> bool {
        !self.asked.swap(true, Ordering::AcqRel)
    }

    /// How many changes there have been, to be read before what may have changed.
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }

    /// Completes once it is cancelled, or there have been more changes than those.
    pub(crate) fn changed_since(&self, changes: u32) -> impl Future<Output = ()> {
        Signal::wait(self, move |live| live.has_changed_since(changes))
    }

    /// The same for a future that holds nothing for it; `None` if another task waits, for which that
    /// is not enough.
    pub(crate) fn poll_changed_since(
        &self,
        changes: u32,
        context: &task::Context<'_>,
    ) -> Option<Poll<()>> {
        // Registered before the check, so that no change is missed.
        let is_first = self.changed.register(context.waker());
        if self.has_changed_since(changes) {
            return Some(Poll::Ready(()));
        }
        is_first.then_some(Poll::Pending)
    }

    fn has_changed_since(&self, changes: u32) -> bool {
        self.is_cancelled() || self.changes() != changes
    }

    /// Wakes what waits for the next tick: when that is due has changed.
    pub(crate) fn reschedule(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.changed.notify();
    }

    pub(crate) fn last_run(&self) -> LastRun {
        LastRun {
            scheduled: LastTick::unpacked(self.scheduled.load(Ordering::Acquire)),
            latest: self.latest.load(Ordering::Acquire),
            covered: self.covered.load(Ordering::Acquire),
        }
    }

    /// After the clock was set back, takes the last run for one of the time `to`, unless there has
    /// been another.
    pub(crate) fn rewind(&self, last: LastRun, now: i64, to: i64) {
        let LastTick::At(scheduled) = last.scheduled else { return };
        for (time, known) in [(&self.scheduled, scheduled), (&self.covered, last.covered)] {
            if known > now {
                let _ = time.compare_exchange(known, to, Ordering::AcqRel, Ordering::Acquire);
            }
        }
    }

    pub(crate) fn newest_run(&self) -> Option<i64> {
        let id = self.newest_run.load(Ordering::Acquire);
        (id >= 0).then_some(id)
    }

    /// Records that Gofer refused to start a run.
    pub(crate) fn run_refused(&self) {
        self.refused.store(true, Ordering::Release);
    }

    /// Records why a run was not started, until one is.
    pub(crate) fn run_not_started(&self, error: &Error) {
        let (message, at) = (brief(error), self.context.gofer.now_nanos());
        let mut activity = self.activity();
        let rare = activity.rare.get_or_insert_default();
        rare.not_started = Some(NotStarted { message, at });
    }

    pub(crate) fn standing(&self) -> Standing {
        let last_tick = match self.last_run().scheduled {
            LastTick::At(at) => Some(at),
            LastTick::Unknown | LastTick::Never => None,
        };
        let activity = self.activity();
        let failure = activity.failure.as_ref();
        let waiting = failure.filter(|failure| failure.waiting);
        let not_started = activity.rare.as_ref().and_then(|rare| rare.not_started.as_ref());
        let last_error = match (not_started, failure) {
            (Some(error), _) => Some(LastError {
                message: error.message.clone(),
                at: error.at,
                is_waiting: waiting.is_some(),
                restarts: waiting.map_or(0, |failure| failure.restarts),
            }),
            (None, Some(failure)) if failure.waiting || !failure.is_over => Some(LastError {
                message: failure.message.clone(),
                at: failure.since,
                is_waiting: failure.waiting,
                restarts: failure.restarts,
            }),
            (None, _) => None,
        };
        // A `serve` that has returned gets none.
        let next_tick = Some(self.next_tick.load(Ordering::Acquire))
            .filter(|at| *at != 0 && *at != i64::MAX)
            .filter(|_| self.state() == State::Serving || waiting.is_some());
        let has_returned = self.state() == State::Idle;
        Standing { last_tick, next_tick, last_error, has_returned }
    }

    /// Whether Gofer refused to start the last run that was asked for.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// Records a run that this process started.
    ///
    /// `is_queued`: see [`Started`](crate::client::Started).
    pub(crate) fn run_started(&self, id: i64, scheduled: Option<i64>, at: i64, is_queued: bool) {
        self.refused.store(false, Ordering::Release);
        self.queued.store(if is_queued { id } else { 0 }, Ordering::Release);
        self.errors_are_over();
        self.newest_run.fetch_max(id, Ordering::AcqRel);
        let now = self.context.gofer.now_nanos();
        // What is later than now was by a clock that has been set back since.
        let advance = |time: &AtomicI64, to: i64| {
            let later = |known: i64| Some(if known > now { to } else { known.max(to) });
            // Never fails, since there always is a new value.
            let _ = time.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
        };
        advance(&self.covered, at);
        if let Some(scheduled) = scheduled {
            advance(&self.scheduled, scheduled);
            self.latest.fetch_max(scheduled, Ordering::AcqRel);
        }
    }

    /// A run has been started.
    fn errors_are_over(&self) {
        let mut activity = self.activity();
        if let Some(rare) = &mut activity.rare {
            rare.not_started = None;
        }
        let Some(failure) = &mut activity.failure else { return };
        failure.is_over = true;
        let restarts = failure.restarts.saturating_add(1);
        if let Some(warning) = &mut failure.warning
            && !std::mem::replace(&mut warning.is_over, true)
        {
            drop(activity);
            let _entered = self.key.span().entered();
            tracing::info!(restarts, "the subscription starts runs again");
        }
    }

    /// The last run, if it was pending when Gofer reported it.
    pub(crate) fn queued_run(&self) -> Option<i64> {
        Some(self.queued.load(Ordering::Acquire)).filter(|id| *id > 0)
    }

    /// Records that it no longer is, and covers the ticks up to then.
    pub(crate) fn queued_run_started(&self, id: i64, covered: i64) {
        let _ = self.queued.compare_exchange(id, 0, Ordering::AcqRel, Ordering::Acquire);
        self.covered.fetch_max(covered, Ordering::AcqRel);
    }

    /// Records Gofer's answer about the time before this process; a run that was started in the
    /// meantime is newer, and stays.
    pub(crate) fn resume(&self, Report { newest, queued, last }: Report) {
        let _ = self.queued.compare_exchange(0, queued, Ordering::AcqRel, Ordering::Acquire);
        let (scheduled, covered) = last.unwrap_or((LastTick::NEVER, i64::MIN));
        self.newest_run.fetch_max(newest, Ordering::AcqRel);
        self.earlier_runs.fetch_max(newest, Ordering::AcqRel);
        // If Gofer's clock is ahead, it is not known when the run started.
        if covered <= self.context.gofer.now_nanos() {
            self.covered.fetch_max(covered, Ordering::AcqRel);
        }
        self.scheduled.fetch_max(scheduled, Ordering::AcqRel);
        self.latest.fetch_max(scheduled, Ordering::AcqRel);
        self.reschedule();
    }

    /// Counts ticks from the first `Ticks`: Gofer could not be asked, or need not be.
    pub(crate) fn resume_from_now(&self) {
        self.scheduled.fetch_max(LastTick::NEVER, Ordering::AcqRel);
        self.reschedule();
    }

    /// Records when it was made, before it is started.
    pub(crate) fn set_beginning(&self, Beginning { after_run, age, since }: Beginning) {
        let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        // Zero stands for none.
        let origin = self.context.gofer.now_nanos().saturating_sub(age).max(1);
        self.origin.store(origin, Ordering::Release);
        self.since.store(since, Ordering::Release);
        self.earlier_runs.store(after_run, Ordering::Release);
    }

    /// Since when it has had its parameters, in Unix milliseconds by Gofer's clock, if Gofer says so.
    pub(crate) fn since(&self) -> Option<i64> {
        Some(self.since.load(Ordering::Acquire)).filter(|since| *since != 0)
    }

    /// Whether it is known when it was made.
    pub(crate) fn has_beginning(&self) -> bool {
        self.earlier_runs.load(Ordering::Acquire) >= 0
    }

    /// Whether there has been no run that its ticks are resumed from.
    pub(crate) fn is_new(&self) -> bool {
        self.last_run().scheduled == LastTick::Never
    }

    /// Whether a run was started before the subscription was made, or before its ticks were resumed.
    pub(crate) fn is_earlier(&self, run: i64) -> bool {
        run <= self.earlier_runs.load(Ordering::Acquire)
    }

    /// Where the grid starts: `now`, unless it has one.
    pub(crate) fn origin(&self, now: i64) -> i64 {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        self.origin.compare_exchange(0, now, order.0, order.1).map_or_else(|origin| origin, |_| now)
    }

    /// Records that a run is asked for that was scheduled for this time; true if one may have been
    /// before.
    pub(crate) fn is_tried(&self, scheduled: i64) -> bool {
        self.tried.fetch_max(scheduled, Ordering::AcqRel) >= scheduled
    }

    /// A tick is handed out; the one after it is due then.
    pub(crate) fn tick_taken(&self, next: i64) {
        self.expect_tick(next);
        let mut activity = self.activity();
        self.state.store(self.state.load(Ordering::Relaxed) | GOT_TICK, Ordering::Relaxed);
        // It may be for the same time, which then comes a third time.
        if let Some(rare) = &mut activity.rare {
            rare.second.take_if(|second| second.is_answered);
        }
    }

    /// The next tick is due then; `i64::MAX` if there is none.
    pub(crate) fn expect_tick(&self, at: i64) {
        self.next_tick.store(at, Ordering::Release);
    }

    /// The key of the run for a time that comes a second time: the same until it is answered, and
    /// for later calls for the same tick.
    pub(crate) fn second_key(&self, scheduled: i64) -> String {
        let mut activity = self.activity();
        let second = &mut activity.rare.get_or_insert_default().second;
        match second {
            Some(second) if second.scheduled == scheduled => second.key.clone(),
            _ => {
                let key = unique();
                *second = Some(Second { scheduled, key: key.clone(), is_answered: false });
                key
            }
        }
    }

    /// A run for this time has been started.
    pub(crate) fn second_is_answered(&self, scheduled: Option<i64>) {
        if let Some(rare) = &mut self.activity().rare
            && let Some(second) = &mut rare.second
        {
            second.is_answered |= Some(second.scheduled) == scheduled;
        }
    }

    /// A run that this subscription started a short while ago with a key of the author's, as it was
    /// then.
    pub(crate) fn recent_run(&self, key: &str) -> Option<RunInfo> {
        let activity = self.activity();
        let recent = &activity.rare.as_ref()?.recent;
        recent.iter().rev().find(|run| run.key() == Some(key)).cloned()
    }

    /// A run with a key of the author's has been started.
    pub(crate) fn remember_run(&self, run: &RunInfo) {
        let mut activity = self.activity();
        let recent = &mut activity.rare.get_or_insert_default().recent;
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(run.clone());
    }

    /// The span for the next poll of `serve`, if there is one: that of the last poll, or the one that
    /// the settings were validated in.
    pub(crate) fn kept_span(&self) -> Option<Span> {
        let mut activity = self.activity();
        let span = activity.calls.as_mut()?.span.take();
        activity.calls.take_if(|calls| calls.count == 0);
        span
    }

    /// Keeps a span for the first poll of `serve`.
    pub(crate) fn keep_span_for_start(&self, span: Span) {
        let replaced = self.activity().calls.get_or_insert_default().span.replace(span);
        drop(replaced);
    }

    /// Keeps the span of a poll for the next one, if a call is in flight: there will be one soon.
    pub(super) fn keep_span(&self, span: Span) {
        let mut activity = self.activity();
        let unused = match &mut activity.calls {
            Some(calls) => calls.span.replace(span),
            None => Some(span),
        };
        drop(activity);
        drop(unused);
    }

    /// How long it is until the next tick; `None` if the `serve` that ran has got none.
    pub(crate) fn until_next_tick(&self) -> Option<Duration> {
        let at = self.next_tick.load(Ordering::Acquire);
        let left = at.saturating_sub(self.context.gofer.now_nanos());
        let got_one = self.state.load(Ordering::Relaxed) & GOT_TICK != 0;
        got_one.then(|| Duration::from_nanos(u64::try_from(left).unwrap_or(0)))
    }
}

/// As much of an error message is kept. An author may have put the whole response of another server
/// into it.
const MAX_CHARS: usize = 500;

/// What callers see of an error.
pub(crate) fn brief(error: &Error) -> String {
    let mut message = match error.kind() {
        // May contain what callers must not see; the log has it.
        ErrorKind::Internal => "internal error, see the extension's log".to_owned(),
        _ => error.to_string(),
    };
    let mut ends = message.char_indices().map(|(end, _)| end).skip(MAX_CHARS - 1);
    if let (Some(end), Some(_)) = (ends.next(), ends.next()) {
        // A new string: a truncated one would keep its capacity.
        message = format!("{}…", &message[..end]);
    }
    message
}

pub(crate) fn log_panic(key: &Key, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(payload) = error.try_into_panic()
    {
        key.span().in_scope(|| tracing::error!("a task of the subscription panicked"));
        crate::catch_panic::drop_panic(payload);
    }
}
