//! Following events: one reader for all followers of a client.
//!
//! The reader is in a task that starts with the first follower and ends with the last. It hands each
//! event to those that want it, each of which has a short queue. A follower whose queue is full is
//! left behind: it gets no more from the task, and once it has read its queue, it reads on with a
//! reader of its own, until that is where the task's is. So nothing is lost, memory is bounded, and
//! no follower waits for another.

mod reader;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use gofer_net::{Promise, Promised, promise};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::pipelines::lock;
use super::{Event, Gofer, PipelineId};
use crate::error::{Error, ErrorKind, Result};
use reader::{Reader, Step};

/// Events that wait for one follower.
const QUEUE: usize = 64;

/// Which events a follower gets: those of certain kinds, of certain pipelines, or both.
///
/// ```
/// use gofer_sdk::EventFilter;
///
/// // The runs of two pipelines, when they start and when they end.
/// let filter = EventFilter::all()
///     .kind("RUN_STARTED")
///     .kind("RUN_COMPLETED")
///     .pipeline("ops/nightly")
///     .pipeline("ops/weekly");
/// # assert!(format!("{filter:?}").contains("RUN_STARTED"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct EventFilter {
    kinds: Vec<String>,
    pipelines: Vec<PipelineId>,
}

impl EventFilter {
    /// Every event that the client may see.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only events of this kind, such as `RUN_COMPLETED`, and of others that are added.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kinds.push(kind.into());
        self
    }

    /// Only events about this pipeline, and about others that are added.
    pub fn pipeline(mut self, pipeline: impl Into<PipelineId>) -> Self {
        self.pipelines.push(pipeline.into());
        self
    }

    /// `pipeline` is that of the event.
    fn matches(&self, event: &Event, pipeline: Option<&PipelineId>) -> bool {
        let is_wanted = |wanted: &PipelineId| Some(wanted) == pipeline;
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && (self.pipelines.is_empty() || self.pipelines.iter().any(is_wanted))
    }
}

/// Follows events; made by [`Gofer::follow`].
///
/// All followers of a client share one stream from Gofer. What arrives while a follower does not
/// read waits for it, up to 64 events; it reads more than that from Gofer again, as long as Gofer
/// keeps them, so a slow follower delays no other and loses nothing.
pub struct EventFollower {
    gofer: Gofer,
    filter: EventFilter,
    number: u64,
    wake: Arc<Notify>,
    /// Reads what was not queued.
    catching_up: Option<Box<Reader>>,
}

/// The followers of a client.
#[derive(Default)]
pub(super) struct Followers {
    state: Mutex<State>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    /// By their numbers, so that they are woken in the order in which they came.
    followers: BTreeMap<u64, Follower>,
    number: u64,
    task: Option<Task>,
    /// Asks for the newest number, for those who come while another answer is awaited.
    next_question: Option<Question>,
    is_asking: bool,
}

/// The newest number, for all who have come before it was asked for.
struct Question {
    promise: Promise<Answer>,
    answer: Promised<Answer>,
}

type Answer = Result<i64, Status>;

/// How a task has started.
type Start = Result<(), Status>;

/// The task that reads.
struct Task {
    started: Promised<Start>,
    /// The number of the last event that it has handed out; `None` before it has started.
    position: Option<i64>,
    /// Cancelled while the state is locked, unless the client is closed.
    ends: CancellationToken,
}

/// One follower, as the task sees it.
struct Follower {
    filter: EventFilter,
    wake: Arc<Notify>,
    queue: VecDeque<Item>,
    /// It gets the events after this number; all of them as long as it is not known.
    after: i64,
    /// It was left behind after this number, and reads the rest itself.
    left_behind: Option<i64>,
    /// Since it was left behind, the task has found that events are missing.
    missed_gap: bool,
    failure: Option<Status>,
}

enum Item {
    Event(Event),
    Gap,
}

impl Gofer {
    /// Follows what happens in Gofer, as far as a filter lets it through: each event once and in
    /// order, also if the connection is lost or Gofer restarts, as long as Gofer keeps the events.
    ///
    /// It begins with what happens after this has returned. To miss nothing of something that can be
    /// listed, follow first and then list.
    ///
    /// All followers of this client and its clones share one stream. An embedded core says where it
    /// begins. On a full Gofer, whose own stream replays the whole history and may repeat events, the
    /// client asks once a second for the event with the next number, and passes over numbers that
    /// are missing.
    ///
    /// While Gofer cannot be reached, this waits. If the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) or
    /// [`Unauthenticated`](ErrorKind::Unauthenticated) if the token may not see events at all, and
    /// [`Unavailable`](ErrorKind::Unavailable) once the extension stops. What the token may not see is
    /// left out: see [`follow_events`](Self::follow_events).
    ///
    /// ```
    /// use gofer_sdk::{EventFilter, Run};
    ///
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// # let (core, ..) = documented!(); let gofer = core.client();
    /// let ends = EventFilter::all().kind("RUN_COMPLETED").pipeline("ops/nightly");
    /// let mut ended = gofer.follow(ends).await?;
    /// let run = gofer.start_run("ops/nightly", "docs", Run::because("of it")).await?;
    /// let event = ended.next().await?;
    /// assert_eq!(event.pipeline(), Some("ops/nightly".into()));
    /// assert_eq!(event.run(), Some(run.id()));
    /// # Ok(()) }
    /// ```
    pub async fn follow(&self, filter: EventFilter) -> Result<EventFollower> {
        let (follower, started, is_first) = self.register(filter)?;
        let Some(started) = started.wait().await else { return Err(follower.failure()) };
        started.map_err(|status| self.error(&status))?;
        if !is_first {
            // The task may be anywhere, so Gofer is asked what the newest event is.
            let Some(newest) = self.ask_for_newest() else { return Err(follower.failure()) };
            let Some(newest) = newest.wait().await else { return Err(follower.failure()) };
            follower.begins_after(newest.map_err(|status| self.error(&status))?);
        }
        Ok(follower)
    }

    /// The number of the newest event, asked for from now on; `None` if the task has ended.
    fn ask_for_newest(&self) -> Option<Promised<Answer>> {
        let followers = self.followers();
        let mut state = followers.state();
        let ends = state.task.as_ref()?.ends.clone();
        let question = state.next_question.get_or_insert_with(|| {
            let (promise, answer) = promise();
            Question { promise, answer }
        });
        let answer = question.answer.clone();
        if !std::mem::replace(&mut state.is_asking, true) {
            followers.tasks.spawn(ask(self.clone(), ends));
        }
        Some(answer)
    }

    fn followers(&self) -> &Followers {
        &self.inner.followers
    }

    /// Adds a follower, and starts the task if there is none. Whether it did, and when that has
    /// started.
    fn register(&self, filter: EventFilter) -> Result<(EventFollower, Promised<Start>, bool)> {
        let followers = self.followers();
        let mut state = followers.state();
        if followers.closed.is_cancelled() {
            return Err(self.error(&closed()));
        }
        state.number += 1;
        let (number, wake) = (state.number, Arc::new(Notify::new()));
        let (queue, after) = (VecDeque::new(), i64::MIN);
        let follower = Follower {
            filter: filter.clone(),
            wake: Arc::clone(&wake),
            queue,
            after,
            left_behind: None,
            missed_gap: false,
            failure: None,
        };
        state.followers.insert(number, follower);
        let is_first = state.task.is_none();
        let task = state.task.get_or_insert_with(|| {
            let (outcome, started) = promise();
            let ends = followers.closed.child_token();
            followers.tasks.spawn(read(self.clone(), outcome, ends.clone()));
            Task { started, position: None, ends }
        });
        let started = task.started.clone();
        drop(state);
        let gofer = self.clone();
        Ok((EventFollower { gofer, filter, number, wake, catching_up: None }, started, is_first))
    }
}

impl EventFollower {
    /// The next event. Waits for it, also while Gofer cannot be reached.
    ///
    /// If the future is dropped, no event is lost: the next call returns it.
    ///
    /// # Errors
    ///
    /// [`ResourceExhausted`](ErrorKind::ResourceExhausted) if events are missing before the next one:
    /// Gofer had removed them before they were read, or its store is another one, which has fewer
    /// events. The follower goes on after that; list again what they were about.
    ///
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) or
    /// [`Unauthenticated`](ErrorKind::Unauthenticated) if the token may no longer see events, and
    /// [`Unavailable`](ErrorKind::Unavailable) once the extension stops: for good, each further call
    /// returns the same.
    ///
    /// ```
    /// use gofer_sdk::{ErrorKind, EventFilter, EventFollower, Result};
    ///
    /// async fn print(mut events: EventFollower) -> Result<()> {
    ///     loop {
    ///         match events.next().await {
    ///             Ok(event) => println!("{}: {}", event.kind, event.details),
    ///             Err(error) if error.kind() == ErrorKind::ResourceExhausted => println!("…"),
    ///             Err(error) => return Err(error),
    ///         }
    /// #       break Ok(());
    ///     }
    /// }
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<()> {
    /// # let (core, ..) = documented!(); let gofer = core.client();
    /// # let events = gofer.follow(EventFilter::all()).await?;
    /// # gofer.start_run("ops/nightly", "docs", gofer_sdk::Run::because("of it")).await?;
    /// # print(events).await
    /// # }
    /// ```
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(reader) = &mut self.catching_up {
                let step = reader.next().await.map_err(|status| self.gofer.error(&status))?;
                if self.has_caught_up() {
                    return Err(gap());
                }
                match step {
                    Step::Event(event) if self.wants(&event) => return Ok(event),
                    Step::Gap => return Err(gap()),
                    Step::Event(_) | Step::Position => {}
                }
                continue;
            }
            match self.queued()? {
                Some(Item::Event(event)) => return Ok(event),
                Some(Item::Gap) => return Err(gap()),
                None if self.catching_up.is_some() => {}
                // One that was notified before is notified at once.
                None => self.wake.notified().await,
            }
        }
    }

    fn begins_after(&self, number: i64) {
        let mut state = self.gofer.followers().state();
        if let Some(this) = state.followers.get_mut(&self.number) {
            this.begins_after(number);
        }
    }

    /// Why the task has ended.
    fn failure(&self) -> Error {
        let state = self.gofer.followers().state();
        let failure = state.followers.get(&self.number).and_then(|this| this.failure.clone());
        self.gofer.error(&failure.unwrap_or_else(closed))
    }

    fn wants(&self, event: &Event) -> bool {
        self.filter.matches(event, event.pipeline().as_ref())
    }

    /// The first in the queue. If that is empty and more has happened, there is a reader now.
    fn queued(&mut self) -> Result<Option<Item>> {
        let mut state = self.gofer.followers().state();
        let State { followers, task, .. } = &mut *state;
        // It is there until this is dropped.
        let Some(this) = followers.get_mut(&self.number) else { return Ok(None) };
        if let Some(item) = this.queue.pop_front() {
            return Ok(Some(item));
        }
        if let Some(failure) = &this.failure {
            return Err(self.gofer.error(failure));
        }
        if this.missed_gap {
            this.goes_on_after(task.as_ref().and_then(|task| task.position));
            return Ok(Some(Item::Gap));
        }
        if let Some(after) = this.left_behind {
            self.catching_up = Some(Box::new(Reader::after(self.gofer.clone(), after)));
        }
        Ok(None)
    }

    /// Gets its events from the task again, if its reader is where the task is. Returns whether
    /// events are missing: the task may follow another store now.
    fn has_caught_up(&mut self) -> bool {
        let Some(reader) = &self.catching_up else { return false };
        let mut state = self.gofer.followers().state();
        let State { followers, task, .. } = &mut *state;
        let Some(this) = followers.get_mut(&self.number) else { return false };
        let position = task.as_ref().and_then(|task| task.position);
        if this.missed_gap {
            // What its reader has is of the store before.
            this.goes_on_after(position);
            self.catching_up = None;
            return true;
        }
        let is_there = position.is_some_and(|position| reader.position() >= position);
        // A failure of the task's is reported as well.
        if is_there || this.failure.is_some() {
            (this.left_behind, this.after) = (None, reader.position());
            self.catching_up = None;
        }
        false
    }
}

impl Drop for EventFollower {
    fn drop(&mut self) {
        let mut state = self.gofer.followers().state();
        state.followers.remove(&self.number);
        if state.followers.values().all(|follower| follower.failure.is_some()) {
            state.end();
        }
    }
}

impl fmt::Debug for EventFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventFollower").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Followers {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Ends the task, and all followers with an error.
    pub(super) async fn close(&self) {
        self.abandon();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The same without waiting for it.
    pub(super) fn abandon(&self) {
        self.closed.cancel();
        self.state().fail(&closed());
    }

    /// A task has come this far, unless it has ended meanwhile.
    fn reached(&self, ends: &CancellationToken, position: i64, step: Step) {
        let mut state = self.state();
        let State { followers, task, .. } = &mut *state;
        let Some(task) = task.as_mut().filter(|_| !ends.is_cancelled()) else { return };
        task.position = Some(position);
        match step {
            Step::Event(event) => {
                let pipeline = event.pipeline();
                for follower in followers.values_mut() {
                    if event.id > follower.after
                        && follower.filter.matches(&event, pipeline.as_ref())
                    {
                        follower.push(event.clone());
                    }
                }
            }
            Step::Gap => {
                // The numbers may be those of another store.
                for follower in followers.values_mut() {
                    follower.after = follower.after.min(position);
                    follower.push_gap();
                }
            }
            Step::Position => {}
        }
    }

    /// A task has failed, unless it has ended meanwhile.
    fn failed(&self, ends: &CancellationToken, status: &Status) {
        let mut state = self.state();
        if !ends.is_cancelled() {
            state.fail(status);
        }
    }
}

impl State {
    /// Ends the tasks.
    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.ends.cancel();
        }
        (self.next_question, self.is_asking) = (None, false);
    }

    /// Ends the tasks, and all followers with an error.
    fn fail(&mut self, status: &Status) {
        self.end();
        for follower in self.followers.values_mut() {
            if follower.failure.is_none() {
                follower.failure = Some(status.clone());
                follower.wake.notify_one();
            }
        }
    }
}

impl Follower {
    fn push(&mut self, event: Event) {
        if self.failure.is_some() || self.left_behind.is_some() {
            return;
        }
        if self.queue.len() < QUEUE {
            self.queue.push_back(Item::Event(event));
        } else {
            self.left_behind = Some(event.id - 1);
        }
        self.wake.notify_one();
    }

    /// Also into a queue that is full. One that is left behind finds it when it has read its queue:
    /// the positions before and after a gap may be those of two stores.
    fn push_gap(&mut self) {
        self.missed_gap |= self.left_behind.is_some();
        let is_known = matches!(self.queue.back(), Some(Item::Gap));
        if self.failure.is_some() || self.left_behind.is_some() || is_known {
            return;
        }
        self.queue.push_back(Item::Gap);
        self.wake.notify_one();
    }

    /// Gets from the task what comes after its position. What was missed before that is gone.
    fn goes_on_after(&mut self, position: Option<i64>) {
        (self.missed_gap, self.left_behind) = (false, None);
        self.after = position.unwrap_or(self.after);
    }

    /// What has been queued so far may have happened before.
    fn begins_after(&mut self, number: i64) {
        self.after = number;
        self.left_behind = self.left_behind.map(|after| after.max(number));
        self.queue.retain(|item| match item {
            Item::Event(event) => event.id > number,
            Item::Gap => false,
        });
    }
}

/// The task: reads for all followers, until the last one has left.
async fn read(gofer: Gofer, started: Promise<Start>, ends: CancellationToken) {
    let mut reader = Box::new(Reader::from_now(gofer.clone()));
    let mut started = Some(started);
    loop {
        let step = tokio::select! {
            biased;
            () = ends.cancelled() => return,
            step = reader.next() => step,
        };
        let outcome = match step {
            Ok(step) => {
                gofer.followers().reached(&ends, reader.position(), step);
                Ok(())
            }
            Err(status) => {
                gofer.followers().failed(&ends, &status);
                Err(status)
            }
        };
        let is_over = outcome.is_err();
        if let Some(started) = started.take() {
            started.keep(outcome);
        }
        if is_over {
            return;
        }
    }
}

/// Asks for the newest number as long as somebody waits for it: once for all who have come since it
/// was last asked for.
async fn ask(gofer: Gofer, ends: CancellationToken) {
    loop {
        let question = {
            let mut state = gofer.followers().state();
            // Then another task may be asking.
            if ends.is_cancelled() {
                return;
            }
            let Some(question) = state.next_question.take() else {
                state.is_asking = false;
                return;
            };
            question
        };
        let mut reader = Box::new(Reader::from_now(gofer.clone()));
        let outcome = tokio::select! {
            biased;
            () = ends.cancelled() => return,
            outcome = reader.next() => outcome,
        };
        question.promise.keep(outcome.map(|_| reader.position()));
    }
}

fn gap() -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        "events are missing: Gofer removed them before they were read, or has another store",
    )
}

fn closed() -> Status {
    Status::unavailable("the client is closed")
}
