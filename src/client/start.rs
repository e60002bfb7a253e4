//! Starting the runs of an extension: each once, whatever happens to its calls.
//!
//! A run is recognized by its key. A core that enforces keys answers a repeat with the run that
//! exists, so there a call is repeated until it is answered. A full Gofer stores keys and enforces
//! nothing: there, a call that may have taken effect is repeated only once the run was looked up.
//!
//! A full Gofer also holds its response back while as many runs of the pipeline as its parallelism
//! allows are incomplete, and counts the run that is being started. So an extension has at most one
//! start per pipeline that is unanswered or whose run is pending, see
//! [`pipelines`](super::pipelines).

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use gofer_net::{Effect, SentOn, effect};
use gofer_proto::embedded::GetCapabilitiesRequest;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::pipelines::{Turn, Unsettled};
use super::run::Key;
use super::start_call::StartCall;
use super::{BACKOFF, Gofer, PipelineId, PipelineRef, Run, RunInfo, RunState, error, is_permanent};
use crate::error::{Error, Result};

/// Starts without a response after this time are looked up, those that are in the way of others
/// sooner: Gofer may be holding it back.
const HELD_AFTER: Duration = Duration::from_secs(2);

/// A start that a full Gofer has not answered by then no longer counts as one in flight, so that
/// pipelines at their limit do not delay others.
const IN_FLIGHT_FOR: Duration = Duration::from_millis(100);

/// How many of a pipeline's newest runs are searched if it is not known which was the newest before
/// the first attempt.
const HORIZON: i64 = 1000;

/// A start that is repeated for longer than this is logged.
const LOGGED_AFTER: Duration = Duration::from_secs(10);

/// A search that has been refused for this long is given up.
const SEARCH_FOR: Duration = Duration::from_secs(10 * 60);

/// Runs in the first page of a search, and in each further one. The first is small: what is looked
/// for is mostly among the newest few.
const FIRST_PAGE: i64 = 20;
const PAGE: i64 = 200;

/// When a start is cancelled.
pub(crate) trait Cancellation: Send + Sync {
    /// Completes when it is cancelled while no call is in flight.
    fn while_waiting(&self) -> impl Future<Output = ()> + Send;

    /// Completes when it is cancelled while a call is in flight.
    fn while_calling(&self) -> impl Future<Output = ()> + Send;

    /// What is held while a call is in flight that may start the run.
    fn calling(&self) -> impl Send {}

    /// The error to report then. `last` is how the last attempt failed.
    fn error(&self, last: Option<&Status>) -> Error;
}

/// What is known before a run is started.
#[derive(Clone, Copy, Default)]
pub(crate) struct Known {
    /// The newest run of the pipeline.
    pub(crate) newest: Option<i64>,
    /// This process may have started it before.
    pub(crate) is_repeat: bool,
}

/// A run that was started, or that existed.
pub(crate) struct Started {
    pub(crate) run: RunInfo,
    /// By which time it had started for certain, in Unix nanoseconds: the ticks up to then are
    /// covered by it.
    pub(crate) at: i64,
    /// Whether it waits for others to end, and another start of its pipeline would not wait for it.
    pub(crate) is_queued: bool,
}

/// A run of one label with one key.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) pipeline: PipelineId,
    pub(super) initiator: String,
    pub(super) key: String,
    /// The newest run of the pipeline before the first attempt.
    pub(super) newest: Option<i64>,
}

impl Wanted {
    /// A run of a pipeline that is not known by its key.
    pub(super) fn none(pipeline: PipelineId) -> Self {
        Self { pipeline, initiator: String::new(), key: String::new(), newest: None }
    }

    /// Whether it is the same run.
    pub(super) fn is(&self, other: &Self) -> bool {
        (&self.pipeline, &self.initiator, &self.key)
            == (&other.pipeline, &other.initiator, &other.key)
    }

    /// Unique among all runs.
    pub(super) fn name(&self) -> String {
        format!("{}\n{}\n{}", self.pipeline, self.initiator, self.key)
    }
}

/// A run that is being started.
struct Start<'a> {
    gofer: &'a Gofer,
    pipeline: PipelineRef<'a>,
    label: &'a str,
    key: Key,
    /// The newest run of the pipeline before the first attempt.
    newest: Option<i64>,
    call: StartCall,
    /// Whether the run may exist already.
    may_exist: bool,
    /// If the last attempt got no response: the connection on which it was sent, or a later one.
    unanswered: Option<u64>,
}

/// Why an attempt failed.
enum Failure {
    /// Gofer was asked for the run that may exist.
    Search(Status),
    /// Gofer was asked to start the run.
    Start(Status),
    Cancelled,
}

impl Gofer {
    /// Starts a run of an extension.
    pub(crate) async fn start_once(
        &self,
        label: &str,
        pipeline: PipelineRef<'_>,
        run: Run,
        Known { newest, is_repeat }: Known,
        cancellation: &impl Cancellation,
    ) -> Result<Started> {
        let run = run.keyed()?;
        let call = StartCall::new(&self.inner.name, label, pipeline, &run);
        let key = run.key;
        let may_exist = key.is_authors || is_repeat;
        // It may be older than the newest run that is known now.
        let newest = newest.filter(|_| !may_exist);
        let gofer = self;
        let mut start =
            Start { gofer, pipeline, label, key, newest, call, may_exist, unanswered: None };
        let mut turn = None;
        let mut backoff = BACKOFF;
        let mut last = None;
        let mut repeats = Repeats::default();
        // Since when a search is refused.
        let mut refused = None;
        loop {
            let (status, is_search) = match start.attempt(&mut turn, cancellation).await {
                Ok(started) => {
                    repeats.are_over(pipeline);
                    return Ok(started);
                }
                Err(Failure::Cancelled) => return Err(cancellation.error(last.as_ref())),
                Err(Failure::Search(status)) => (status, true),
                Err(Failure::Start(status)) => (status, false),
            };
            let effect = effect(&status);
            if effect == Effect::Refused {
                if !is_search || !may_pass(&status) {
                    return Err(error(&status));
                }
                if refused.get_or_insert_with(Instant::now).elapsed() >= SEARCH_FOR {
                    return Err(error(&status));
                }
            }
            repeats.failed(self, pipeline, &status);
            let pause = Instant::now() + backoff.pause();
            // All that wait for the connection try again together, and share the attempt.
            let next = self.inner.transport.channel().next_attempt();
            let until = next.filter(|_| effect == Effect::None).unwrap_or(pause);
            let pause = tokio::time::sleep_until(until);
            if or(|| cancellation.while_waiting(), pin!(pause)).await.is_err() {
                return Err(cancellation.error(Some(&status)));
            }
            last = Some(status);
        }
    }

    /// Whether a repeat of a run's key is answered with the run that exists. Asked once for each
    /// connection.
    async fn enforces_keys(&self) -> Result<bool, Status> {
        let starts = &self.inner.starts;
        let number = self.inner.transport.connected().await?;
        if let Some(enforced) = starts.enforces_keys(number) {
            return Ok(enforced);
        }
        // One call in a task of its own, whose outcome all wait for: none of them has to go on.
        let answer = starts.ask(number, || {
            let gofer = self.clone();
            async move {
                let outcome = gofer.ask_for_capabilities().await;
                let starts = &gofer.inner.starts;
                outcome.map(|enforced| match enforced {
                    Some(enforced) => starts.learned(number, enforced),
                    None => starts.assumed(number),
                })
            }
        });
        let lost = || Status::unavailable("the call to Gofer was dropped");
        answer.wait().await.unwrap_or_else(|| Err(lost()))
    }

    /// Whether keys are enforced; `None` if this does not say.
    async fn ask_for_capabilities(&self) -> Result<Option<bool>, Status> {
        let mut core = EmbeddedCoreClient::new(self.inner.transport.clone());
        match core.get_capabilities(GetCapabilitiesRequest {}).await {
            Ok(response) => Ok(Some(response.into_inner().run_keys_enforced)),
            // A full Gofer does not know the method.
            Err(status) if status.code() == Code::Unimplemented => Ok(Some(false)),
            Err(status) => match effect(&status) {
                // By a proxy, or because the server is busy.
                Effect::Refused | Effect::Unavailable => Ok(None),
                Effect::None | Effect::Unknown => Err(status),
            },
        }
    }

    /// Waits for a place among the starts in flight, for another call.
    pub(crate) async fn turn_among_starts(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.inner.starts.permits.acquire().await.ok()
    }

    /// A run of this extension that is pending, among the newest of a pipeline.
    pub(super) async fn pending_run(&self, pipeline: &PipelineId) -> Result<Option<i64>, Status> {
        let runs = self.runs_page(pipeline.namespace(), pipeline.pipeline(), 0, FIRST_PAGE).await?;
        let is_own = |run: &RunInfo| {
            let label = run.initiator().strip_prefix(&*self.inner.name);
            run.key().is_some() && label.is_some_and(|label| label.starts_with(" ("))
        };
        let mut pending = runs.iter().filter(|run| run.state() == RunState::Pending);
        Ok(pending.find(|run| is_own(run)).map(RunInfo::id))
    }

    /// The newest run of a pipeline; 0 if it has none.
    pub(crate) async fn newest_run(&self, pipeline: PipelineRef<'_>) -> Result<i64, Status> {
        let runs = self.runs_page(pipeline.namespace, pipeline.pipeline, 0, 1).await?;
        Ok(runs.first().map_or(0, RunInfo::id))
    }

    /// The run, if it is among those that are searched.
    pub(super) async fn find(&self, wanted: &Wanted) -> Result<Option<RunInfo>, Status> {
        let (namespace, pipeline) = (wanted.pipeline.namespace(), wanted.pipeline.pipeline());
        let mut floor = None;
        let mut offset = 0;
        let mut limit = FIRST_PAGE;
        loop {
            let runs = self.runs_page(namespace, pipeline, offset, limit).await?;
            let Some(first) = runs.first() else { return Ok(None) };
            // A pipeline that was deleted and made again counts from one.
            let known = wanted.newest.filter(|newest| *newest <= first.id());
            let floor = *floor.get_or_insert(known.unwrap_or(first.id() - HORIZON).max(0));
            // Runs that start meanwhile move others to the next page, where they are seen again.
            offset += i64::try_from(runs.len()).unwrap_or(limit);
            for run in runs {
                if run.id() <= floor {
                    return Ok(None);
                }
                if run.key() == Some(&wanted.key) && run.initiator() == wanted.initiator {
                    return Ok(Some(run));
                }
                if run.id() == 1 {
                    return Ok(None);
                }
            }
            limit = PAGE;
        }
    }
}

impl<'a> Start<'a> {
    async fn attempt(
        &mut self,
        turn: &mut Option<Turn>,
        cancellation: &impl Cancellation,
    ) -> Result<Started, Failure> {
        let enforces_keys =
            or(|| cancellation.while_calling(), pin!(self.gofer.enforces_keys())).await?;
        if !enforces_keys.map_err(Failure::Search)? {
            // Boxed: it is larger than all the rest.
            return Box::pin(self.attempt_unenforced(turn, cancellation)).await;
        }
        // On such a core nothing has to wait for its turn.
        turn.take();
        let _permit = self.permit(cancellation).await?;
        let _calling = cancellation.calling();
        let outcome =
            or(|| cancellation.while_calling(), pin!(self.call.send(self.gofer, None))).await?;
        match outcome {
            Ok(run) => {
                let is_queued = run.state() == RunState::Pending;
                Ok(Started { is_queued, ..self.started(run) })
            }
            Err(status) => {
                self.failed(&status, self.gofer.inner.transport.channel().opened());
                Err(Failure::Start(status))
            }
        }
    }

    async fn attempt_unenforced(
        &mut self,
        turn: &mut Option<Turn>,
        cancellation: &impl Cancellation,
    ) -> Result<Started, Failure> {
        let gofer = self.gofer;
        let channel = gofer.inner.transport.channel();
        let turn = if let Some(turn) = turn {
            turn
        } else {
            let next = pin!(gofer.inner.starts.pipelines.turn(self.pipeline.into()));
            let next = turn.insert(or(|| cancellation.while_waiting(), next).await?);
            if let Some(earlier) = next.unsettled_of(&self.wanted()) {
                // An earlier call for the same run, whose future was dropped.
                self.may_exist = true;
                self.newest = None;
                self.unanswered = earlier.unanswered_on();
            } else {
                or(|| cancellation.while_waiting(), pin!(next.settle(gofer))).await?;
            }
            next
        };
        if let Some(connection) = self.unanswered {
            // What was sent has arrived by then, or never will.
            or(|| cancellation.while_waiting(), pin!(channel.replace(connection))).await?;
            self.unanswered = None;
        }
        let permit = self.permit(cancellation).await?;
        let wanted = self.wanted();
        if self.may_exist {
            let existing =
                or(|| cancellation.while_calling(), pin!(self.existing(&wanted))).await?;
            match existing.map_err(Failure::Search)? {
                Some(run) => return Ok(self.found(run, turn)),
                None => self.may_exist = false,
            }
        }
        turn.set_unsettled(Unsettled::unanswered(wanted.clone(), channel.opened()));
        let _calling = cancellation.calling();
        let sent_on = SentOn::default();
        let outcome =
            or(|| cancellation.while_calling(), pin!(self.call_or_find(&wanted, permit, &sent_on)))
                .await?;
        match outcome {
            Ok(Outcome::Answered(run)) => {
                turn.set_settled();
                turn.set_free();
                Ok(self.started(run))
            }
            Ok(Outcome::Found(run)) => Ok(self.found(run, turn)),
            Err(status) => {
                self.failed(&status, sent_on.number());
                if !self.may_exist {
                    turn.set_settled();
                }
                Err(Failure::Start(status))
            }
        }
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            pipeline: self.pipeline.into(),
            initiator: self.gofer.initiator(self.label),
            key: self.key.text.clone(),
            newest: self.newest,
        }
    }

    async fn permit(
        &self,
        cancellation: &impl Cancellation,
    ) -> Result<SemaphorePermit<'a>, Failure> {
        let turn = pin!(self.gofer.turn_among_starts());
        or(|| cancellation.while_waiting(), turn).await?.ok_or(Failure::Cancelled)
    }

    /// The run, if this process or another has started it before.
    async fn existing(&self, wanted: &Wanted) -> Result<Option<RunInfo>, Status> {
        let starts = &self.gofer.inner.starts;
        if let Some(id) = starts.seen(wanted) {
            match self.gofer.raw_run(&wanted.pipeline, id).await {
                Ok(run) if run.key() == Some(&wanted.key) => return Ok(Some(run)),
                Ok(_) => {}
                // What does not exist has many codes.
                Err(status) if effect(&status) == Effect::Refused => {}
                Err(status) => return Err(status),
            }
        }
        self.gofer.find(wanted).await
    }

    /// Calls Gofer, and looks the run up if there is no response after some time.
    async fn call_or_find(
        &self,
        wanted: &Wanted,
        permit: SemaphorePermit<'_>,
        sent_on: &SentOn,
    ) -> Result<Outcome, Status> {
        let gofer = self.gofer;
        let mut call = pin!(self.call.send(gofer, Some(sent_on)));
        let called = Instant::now();
        tokio::select! {
            biased;
            outcome = &mut call => return outcome.map(Outcome::Answered),
            () = tokio::time::sleep_until(called + IN_FLIGHT_FOR) => {}
        }
        // Its place among those in flight is free, unless too many are held: a connection has room
        // for a limited number of calls. Then it is looked up at once.
        let (_held, mut look) = match gofer.inner.starts.held.try_acquire() {
            Ok(held) => {
                drop(permit);
                (held, called + HELD_AFTER)
            }
            Err(_) => (permit, Instant::now()),
        };
        loop {
            let find = async {
                tokio::time::sleep_until(look).await;
                gofer.find(wanted).await
            };
            tokio::select! {
                biased;
                outcome = &mut call => return outcome.map(Outcome::Answered),
                // If it cannot be looked up, or is not there yet, the call goes on.
                found = find => match found {
                    // The call is dropped, which resets its stream.
                    Ok(Some(run)) => return Ok(Outcome::Found(run)),
                    Ok(None) | Err(_) => look = Instant::now() + HELD_AFTER,
                },
            }
        }
    }

    /// Concludes from a call that failed what became of the run. It was sent on this connection or
    /// an earlier one.
    fn failed(&mut self, status: &Status, connection: u64) {
        match effect(status) {
            Effect::None | Effect::Refused => {}
            Effect::Unavailable => self.may_exist = true,
            Effect::Unknown => {
                self.may_exist = true;
                self.unanswered = Some(connection);
            }
        }
    }

    fn started(&self, run: RunInfo) -> Started {
        self.remember(&run);
        let now = self.gofer.inner.clock.unix_nanos();
        // A run that existed does not cover ticks that fell due since it started. Gofer's clock may
        // be ahead.
        let at = if self.may_exist { run.started_at().min(now) } else { now };
        Started { run, at, is_queued: false }
    }

    fn found(&self, run: RunInfo, turn: &mut Turn) -> Started {
        self.remember(&run);
        turn.set_settled();
        if run.state() == RunState::Pending {
            let opened = self.gofer.inner.transport.channel().opened();
            turn.set_unsettled(Unsettled::pending(self.wanted(), opened, run.id()));
            turn.waits_for(run.id());
        }
        let at = run.started_at().min(self.gofer.inner.clock.unix_nanos());
        Started { run, at, is_queued: false }
    }

    fn remember(&self, run: &RunInfo) {
        if self.key.is_authors {
            self.gofer.inner.starts.remember(&self.wanted(), run.id());
        }
    }
}

/// Logs once that a start is repeated for a while, and once that it is over.
#[derive(Default)]
struct Repeats {
    since: Option<Instant>,
    is_logged: bool,
}

impl Repeats {
    fn failed(&mut self, gofer: &Gofer, pipeline: PipelineRef<'_>, status: &Status) {
        let since = *self.since.get_or_insert_with(Instant::now);
        // An outage is logged once for all.
        if self.is_logged || since.elapsed() < LOGGED_AFTER || gofer.has_outage() {
            return;
        }
        self.is_logged = true;
        tracing::warn!(%pipeline, error = ?error(status), "a run cannot be started yet; trying again");
    }

    fn are_over(&self, pipeline: PipelineRef<'_>) {
        if let Some(since) = self.since.filter(|_| self.is_logged) {
            let seconds = since.elapsed().as_secs();
            tracing::info!(%pipeline, seconds, "the run that could not be started has been started");
        }
    }
}

enum Outcome {
    Answered(RunInfo),
    Found(RunInfo),
}

/// Whether a search that was refused may succeed later. Not if what it is about does not exist, for
/// which a full Gofer has this code too.
pub(super) fn may_pass(status: &Status) -> bool {
    !is_permanent(status) && status.code() != Code::FailedPrecondition
}

/// The future's output, unless it is cancelled first. What is ready at once costs nothing more.
///
/// Pinned by the caller: a future that is moved here would take its place twice.
async fn or<T, C: Future<Output = ()>>(
    cancelled: impl FnOnce() -> C,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Failure> {
    if let Poll::Ready(output) = poll_fn(|task| Poll::Ready(future.as_mut().poll(task))).await {
        return Ok(output);
    }
    tokio::select! {
        biased;
        output = future => Ok(output),
        () = cancelled() => Err(Failure::Cancelled),
    }
}
