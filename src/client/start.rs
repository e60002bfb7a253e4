//! Starting the runs of an extension: each once, whatever happens to its calls.
//!
//! A run is recognized by its key. A core that enforces keys answers a repeat with the run that
//! exists, so there a call is repeated until it is answered. A full Gofer stores keys and enforces
//! nothing: there, a call that may have taken effect is repeated only once the run was looked up.
//!
//! A full Gofer also holds its response back while as many runs of the pipeline as its parallelism
//! allows are incomplete, and counts the run that is being started. So an extension has at most one
//! start per pipeline that is unanswered or whose run is pending (see [`pipelines`](super::pipelines)).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use gofer_net::{BoxFuture, Effect, SentOn, effect};
use gofer_proto::embedded::GetCapabilitiesRequest;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::{ListRunsRequest, StartRunRequest};
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use super::pipelines::{Left, Turn};
use super::run::Key;
use super::{BACKOFF, Gofer, PipelineId, Run, RunInfo, RunState, error};
use crate::error::{Error, Result};

/// Starts without a response after this time are looked up: Gofer may be holding it back.
const HELD_AFTER: Duration = Duration::from_secs(2);

/// A start that a full Gofer has not answered by then no longer counts as one in flight, so that
/// pipelines at their limit do not delay others.
const IN_FLIGHT_FOR: Duration = Duration::from_millis(100);

/// How many of a pipeline's newest runs are searched if it is not known which was the newest before
/// the first attempt.
const HORIZON: i64 = 1000;

/// A search that has been refused for this long is given up.
const SEARCH_FOR: Duration = Duration::from_secs(10 * 60);

/// Runs in the first page of a search, and in each further one. The first is small: what is looked
/// for is mostly among the newest few.
const FIRST_PAGE: i64 = 20;
const PAGE: i64 = 200;

/// For how long whoever starts a run waits for it.
pub(crate) trait Patience: Send + Sync {
    /// Completes when it gives up while no call is in flight.
    fn waiting(&self) -> BoxFuture<'_, ()>;

    /// Completes when it gives up while a call is in flight.
    fn calling(&self) -> BoxFuture<'_, ()>;

    /// The error to report then. `last` is how the last attempt failed.
    fn over(&self, last: Option<&Status>) -> Error;
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
    wanted: Wanted,
    request: StartRunRequest,
    /// The author may have used the key before.
    is_authors_key: bool,
    /// Whether the run may exist already.
    may_exist: bool,
    /// If the last attempt got no response: the connection on which it was sent.
    unanswered: Option<u64>,
    sent_on: SentOn,
}

/// Why an attempt failed.
enum Failure {
    /// Gofer was asked for the run that may exist.
    Search(Status),
    /// Gofer was asked to start the run.
    Start(Status),
    /// The patience is over.
    Over,
}

impl Gofer {
    /// Starts a run of an extension.
    pub(crate) async fn start_once(
        &self,
        label: &str,
        pipeline: PipelineId,
        run: Run,
        Known { newest, is_repeat }: Known,
        patience: &dyn Patience,
    ) -> Result<Started> {
        let (reason, Key { text: key, is_authors }, variables) = run.keyed()?;
        let request = self.start_request(label, &pipeline, reason, variables);
        let may_exist = is_authors || is_repeat;
        // It may be older than the newest run that is known now.
        let newest = newest.filter(|_| !may_exist);
        let wanted = Wanted { pipeline, initiator: self.initiator(label), key, newest };
        let mut start = Start {
            gofer: self,
            wanted,
            request,
            is_authors_key: is_authors,
            may_exist,
            unanswered: None,
            sent_on: SentOn::default(),
        };
        let mut turn = None;
        let mut backoff = BACKOFF;
        let mut last = None;
        let mut searching = None;
        loop {
            let (status, may_pass) = match start.attempt(&mut turn, patience).await {
                Ok(started) => return Ok(started),
                Err(Failure::Over) => return Err(patience.over(last.as_ref())),
                Err(Failure::Start(status)) => (status, false),
                Err(Failure::Search(status)) => {
                    let since = *searching.get_or_insert_with(|| {
                        tracing::warn!(
                            pipeline = %start.wanted.pipeline, error = ?error(&status),
                            "cannot look up whether a run has been started; trying again"
                        );
                        Instant::now()
                    });
                    let may_pass = may_pass(&status) && since.elapsed() < SEARCH_FOR;
                    (status, may_pass)
                }
            };
            let effect = effect(&status);
            if effect == Effect::Refused && !may_pass {
                return Err(error(&status));
            }
            let pause = Instant::now() + backoff.pause();
            // All that wait for the connection try again together, and share the attempt.
            let next = self.inner.transport.channel().next_attempt();
            let until = next.filter(|_| effect == Effect::None).unwrap_or(pause);
            let pause = tokio::time::sleep_until(until);
            if or(|| patience.waiting(), pause).await.is_err() {
                return Err(patience.over(Some(&status)));
            }
            last = Some(status);
        }
    }

    /// Whether a repeat of a run's key is answered with the run that exists. Asked once for each
    /// connection.
    async fn enforces_keys(&self) -> Result<bool, Status> {
        let starts = &self.inner.starts;
        let channel = self.inner.transport.channel();
        let number = channel.connected().await.map_err(gofer_net::NotSent::into_status)?;
        if let Some(enforced) = starts.enforces_keys(number) {
            return Ok(enforced);
        }
        // One call in a task of its own, whose outcome all wait for: none of them has to go on.
        let mut answer = starts.ask(number, || {
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
        let lost = || Status::unavailable("the question to Gofer was dropped");
        let answer = answer.wait_for(Option::is_some).await.map_err(|_| lost())?.clone();
        answer.unwrap_or_else(|| Err(lost()))
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

    /// A run of this extension that is pending, among the newest of a pipeline.
    pub(super) async fn pending_run(&self, pipeline: &PipelineId) -> Result<Option<i64>, Status> {
        let request = ListRunsRequest {
            offset: 0,
            limit: FIRST_PAGE,
            namespace_id: pipeline.namespace().to_owned(),
            pipeline_id: pipeline.pipeline().to_owned(),
        };
        let runs = self.raw().list_runs(request).await?.into_inner().runs;
        let mut runs = runs.into_iter().map(RunInfo::new);
        let is_own = |run: &RunInfo| {
            let label = run.initiator().strip_prefix(&*self.inner.name);
            run.key().is_some() && label.is_some_and(|label| label.starts_with(" ("))
        };
        Ok(runs.find(|run| run.state() == RunState::Pending && is_own(run)).map(|run| run.id()))
    }

    /// The run, if it is among those that are searched.
    pub(super) async fn find(&self, wanted: &Wanted) -> Result<Option<RunInfo>, Status> {
        let mut floor = None;
        let mut offset = 0;
        let mut limit = FIRST_PAGE;
        loop {
            let request = ListRunsRequest {
                offset,
                limit,
                namespace_id: wanted.pipeline.namespace().to_owned(),
                pipeline_id: wanted.pipeline.pipeline().to_owned(),
            };
            let runs = self.raw().list_runs(request).await?.into_inner().runs;
            let Some(first) = runs.first() else { return Ok(None) };
            // A pipeline that was deleted and made again counts from one.
            let known = wanted.newest.filter(|newest| *newest <= first.id);
            let floor = *floor.get_or_insert(known.unwrap_or(first.id - HORIZON).max(0));
            // Runs that start meanwhile move others to the next page, where they are seen again.
            offset += i64::try_from(runs.len()).unwrap_or(limit);
            for run in runs.into_iter().map(RunInfo::new) {
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
        patience: &dyn Patience,
    ) -> Result<Started, Failure> {
        let enforces_keys = or(|| patience.calling(), self.gofer.enforces_keys()).await?;
        if !enforces_keys.map_err(Failure::Search)? {
            return self.attempt_unenforced(turn, patience).await;
        }
        // On such a core nothing has to wait for its turn.
        turn.take();
        let _permit = self.permit(patience).await?;
        let run = or(|| patience.calling(), self.call()).await?.map_err(Failure::Start)?;
        Ok(self.started(run))
    }

    async fn attempt_unenforced(
        &mut self,
        turn: &mut Option<Turn>,
        patience: &dyn Patience,
    ) -> Result<Started, Failure> {
        let gofer = self.gofer;
        let channel = gofer.inner.transport.channel();
        let turn = if let Some(turn) = turn {
            turn
        } else {
            let next = gofer.inner.starts.pipelines.turn(&self.wanted.pipeline);
            let next = turn.insert(or(|| patience.waiting(), next).await?);
            if let Some(left) = next.left_by(&self.wanted) {
                // An earlier call for the same run, whose future was dropped.
                self.may_exist = true;
                self.wanted.newest = None;
                self.unanswered = left.unanswered_on();
            } else {
                or(|| patience.waiting(), next.settle(gofer)).await?;
            }
            next
        };
        if let Some(connection) = self.unanswered {
            // What was sent has arrived by then, or never will.
            or(|| patience.waiting(), channel.replace(connection)).await?;
            self.unanswered = None;
        }
        let permit = self.permit(patience).await?;
        if self.may_exist {
            let existing = or(|| patience.calling(), self.existing()).await?;
            match existing.map_err(Failure::Search)? {
                Some(run) => return Ok(self.found(run, turn)),
                None => self.may_exist = false,
            }
        }
        // If this is dropped, the next start of the pipeline finds out what became of it.
        turn.leave(Left::unanswered(self.wanted.clone(), channel.opened()));
        match or(|| patience.calling(), self.call_or_find(permit)).await? {
            Ok(Outcome::Answered(run)) => {
                turn.leave_nothing();
                Ok(self.started(run))
            }
            Ok(Outcome::Found(run)) => Ok(self.found(run, turn)),
            Err(status) => {
                if !self.may_exist {
                    turn.leave_nothing();
                }
                Err(Failure::Start(status))
            }
        }
    }

    async fn permit(&self, patience: &dyn Patience) -> Result<SemaphorePermit<'a>, Failure> {
        let permits = &self.gofer.inner.starts.permits;
        // Never closed.
        or(|| patience.waiting(), permits.acquire()).await?.map_err(|_| Failure::Over)
    }

    /// The run, if this process or another has started it before.
    async fn existing(&self) -> Result<Option<RunInfo>, Status> {
        let starts = &self.gofer.inner.starts;
        if let Some(id) = starts.seen(&self.wanted) {
            let pipeline = &self.wanted.pipeline;
            match self.gofer.raw_run(pipeline, id).await {
                Ok(run) if run.key() == Some(&self.wanted.key) => return Ok(Some(run)),
                Ok(_) => {}
                // What does not exist has many codes.
                Err(status) if effect(&status) == Effect::Refused => {}
                Err(status) => return Err(status),
            }
        }
        self.gofer.find(&self.wanted).await
    }

    /// Calls Gofer, and looks the run up if there is no response after some time.
    async fn call_or_find(&mut self, permit: SemaphorePermit<'_>) -> Result<Outcome, Status> {
        let (gofer, wanted) = (self.gofer, self.wanted.clone());
        let mut call = pin!(self.call());
        let called = Instant::now();
        tokio::select! {
            outcome = &mut call => return outcome.map(Outcome::Answered),
            () = tokio::time::sleep_until(called + IN_FLIGHT_FOR) => {}
        }
        // Its place among those in flight is free, unless too many are held: a connection has room
        // for a limited number of calls.
        let _held = match gofer.inner.starts.held.try_acquire() {
            Ok(held) => {
                drop(permit);
                held
            }
            Err(_) => permit,
        };
        let mut look = called + HELD_AFTER;
        loop {
            let find = async {
                tokio::time::sleep_until(look).await;
                gofer.find(&wanted).await
            };
            tokio::select! {
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

    /// Calls Gofer once.
    async fn call(&mut self) -> Result<RunInfo, Status> {
        let mut request = Request::new(self.request.clone());
        request.extensions_mut().insert(self.sent_on.clone());
        let outcome = self.gofer.raw().start_run(request).await;
        let status = match outcome {
            Ok(response) => return Ok(RunInfo::new(response.into_inner().run.unwrap_or_default())),
            Err(status) => status,
        };
        match effect(&status) {
            Effect::None | Effect::Refused => {}
            Effect::Unavailable => self.may_exist = true,
            Effect::Unknown => {
                self.may_exist = true;
                self.unanswered = Some(self.sent_on.number());
            }
        }
        Err(status)
    }

    fn started(&self, run: RunInfo) -> Started {
        self.remember(&run);
        let now = self.gofer.inner.clock.unix_nanos();
        // A run that existed does not cover ticks that fell due since it started. Gofer's clock may
        // be ahead.
        let at = if self.may_exist { run.started_at().min(now) } else { now };
        Started { run, at }
    }

    fn found(&self, run: RunInfo, turn: &mut Turn) -> Started {
        self.remember(&run);
        turn.leave_nothing();
        if run.state() == RunState::Pending {
            let opened = self.gofer.inner.transport.channel().opened();
            turn.leave(Left::pending(self.wanted.clone(), opened, run.id()));
        }
        let at = run.started_at().min(self.gofer.inner.clock.unix_nanos());
        Started { run, at }
    }

    fn remember(&self, run: &RunInfo) {
        if self.is_authors_key {
            self.gofer.inner.starts.remember(&self.wanted, run.id());
        }
    }
}

enum Outcome {
    Answered(RunInfo),
    Found(RunInfo),
}

/// Whether a search that was refused may succeed later.
pub(super) fn may_pass(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

/// The future's output, unless the patience ends first. What is ready at once costs nothing more.
async fn or<'a, T>(
    patience: impl FnOnce() -> BoxFuture<'a, ()>,
    future: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut future = pin!(future);
    if let Poll::Ready(output) = poll_fn(|task| Poll::Ready(future.as_mut().poll(task))).await {
        return Ok(output);
    }
    tokio::select! {
        biased;
        output = future => Ok(output),
        () = patience() => Err(Failure::Over),
    }
}
