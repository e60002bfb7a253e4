//! A stand-in for Gofer 0.6.2, as far as extensions call it: it behaves as a real one does, also
//! where the embedded core differs.
//!
//! - `StartRun` stores the run, pending, and holds its answer until fewer runs of the pipeline than
//!   its parallelism are incomplete, *the new one included*: at a parallelism of 1 none ever starts,
//!   and two that wait for each other do so for good. The wait goes on when the caller leaves. The
//!   answer has the run as it was stored. Nothing is known of keys: a repeat is another run.
//! - `ListRuns` has all runs, newest first.
//! - `ListEvents` with `follow` replays everything, and then sends what has happened since the call
//!   began; what happened during the replay is in both.
//! - What does not exist is `FAILED_PRECONDITION`, `INTERNAL` or `UNKNOWN`
//!   ([`not_found_is`](StandIn::not_found_is)), never `NOT_FOUND`; a missing token is
//!   `PERMISSION_DENIED`; and other methods and services are `UNIMPLEMENTED`, the embedded core's
//!   included.
//!
//! It serves on a port of the loopback address ([`StandIn::listening`]), or in memory for tests on a
//! paused clock ([`StandIn::in_memory`]). A test decides on the [`Outcome`] of calls, ends
//! connections, restarts it, and reads what it [`Recorded`]:
//!
//! ```ignore
//! let gofer = StandIn::in_memory([pipeline("nightly").parallelism(2).runs_take(MINUTE)]);
//! gofer.next("StartRun", [Outcome::ActAndDisconnect]);
//! let extension = gofer.start(probe().serve(..)).await;
//! extension.client.subscribe("nightly", &[("every", "5s")]).await.unwrap();
//! gofer.until(|recorded| recorded.runs_of("nightly").count() == 2).await;
//! assert_eq!(gofer.recorded().calls("StartRun"), 2);
//! ```

mod api;
mod calls;
mod extension;
mod script;
mod state;

pub use calls::{Call, Outcome};
pub use extension::{Running, Served};
pub use state::{Pipeline, Recorded, pipeline};

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gofer_net::memory::{MemoryListener, Network};
use gofer_net::{BoxStream, Clock};
use gofer_proto::run::{RunState, RunStatus};
use gofer_proto::{self as proto, Initiator, Run, Variable};
use gofer_sdk::PipelineId;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::serving::{Port, acceptor};
use super::{IDENTITY, NAME};
use script::Scripts;
use state::{Runs, Stored};

/// A stand-in for Gofer.
pub struct StandIn {
    shared: Arc<Shared>,
    place: Place,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// Where it serves.
enum Place {
    Port(Port),
    Memory(Network),
}

/// What the connections of a stand-in, and the runs that it has started, share.
struct Shared {
    recorded: watch::Sender<Recorded>,
    clock: Clock,
    /// How far its clock is ahead of the test's, in milliseconds.
    ahead: AtomicI64,
    scripts: Scripts,
    /// Releases held answers.
    release: Semaphore,
    replays_held: watch::Sender<bool>,
    lets_retries_through: AtomicBool,
    /// How many requests a connection may carry; 0 for any number.
    requests: AtomicUsize,
    not_found: Mutex<Code>,
    /// Ends the connections.
    connections: Mutex<CancellationToken>,
    /// Makes the starts that wait be forgotten.
    waiting: Mutex<CancellationToken>,
    tls: TlsAcceptor,
}

impl StandIn {
    /// One that listens on the loopback address.
    pub fn listening(pipelines: impl IntoIterator<Item = Pipeline>) -> Self {
        let stand_in = Self::unreachable(pipelines);
        stand_in.listen();
        stand_in
    }

    /// One whose address refuses connections.
    pub fn unreachable(pipelines: impl IntoIterator<Item = Pipeline>) -> Self {
        Self::new(Place::Port(Port::reserve()), Clock::system(), pipelines)
    }

    /// One that listens in memory, on the clock of the test, for extensions that are started with
    /// [`start`](Self::start).
    pub fn in_memory(pipelines: impl IntoIterator<Item = Pipeline>) -> Self {
        Self::in_memory_on(Clock::derived(), pipelines)
    }

    /// One in memory whose clock a test sets.
    pub fn in_memory_on(clock: Clock, pipelines: impl IntoIterator<Item = Pipeline>) -> Self {
        let stand_in = Self::new(Place::Memory(Network::default()), clock, pipelines);
        stand_in.listen();
        stand_in
    }

    fn new(place: Place, clock: Clock, pipelines: impl IntoIterator<Item = Pipeline>) -> Self {
        let shared = Shared {
            recorded: watch::Sender::default(),
            clock,
            ahead: AtomicI64::new(0),
            scripts: Scripts::default(),
            release: Semaphore::new(0),
            replays_held: watch::Sender::new(false),
            lets_retries_through: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            not_found: Mutex::new(Code::FailedPrecondition),
            connections: Mutex::default(),
            waiting: Mutex::default(),
            tls: acceptor(&IDENTITY),
        };
        let stand_in = Self { shared: Arc::new(shared), place, accepting: Mutex::default() };
        for pipeline in pipelines {
            stand_in.set(pipeline);
        }
        stand_in
    }

    /// Its port.
    pub fn address(&self) -> SocketAddr {
        match &self.place {
            Place::Port(port) => port.address(),
            Place::Memory(_) => panic!("it serves in memory"),
        }
    }

    /// The network that it serves on in memory.
    pub fn network(&self) -> Network {
        match &self.place {
            Place::Memory(network) => network.clone(),
            Place::Port(_) => panic!("it serves on a port"),
        }
    }

    /// The clock that an extension in memory has to share.
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// What it has seen.
    pub fn recorded(&self) -> watch::Ref<'_, Recorded> {
        self.shared.recorded.borrow()
    }

    /// Waits until what it has seen meets the condition.
    pub async fn until(&self, condition: impl FnMut(&Recorded) -> bool) {
        let mut recorded = self.shared.recorded.subscribe();
        drop(super::within(recorded.wait_for(condition)).await.unwrap());
    }
}

/// Pipelines, runs and events.
impl StandIn {
    /// Adds a pipeline, or gives one that exists other settings.
    pub fn set(&self, pipeline: Pipeline) {
        let now = self.shared.now();
        self.shared.recorded.send_modify(|recorded| recorded.set_pipeline(pipeline, now));
    }

    /// Stores a subscription of a pipeline to the extension of the tests, under the label `l`.
    pub fn store_subscription(&self, pipeline: impl Into<PipelineId>, settings: &[(&str, &str)]) {
        let id = pipeline.into();
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let stored = proto::PipelineExtensionSubscription {
            namespace: id.namespace().to_owned(),
            pipeline: id.pipeline().to_owned(),
            name: NAME.to_owned(),
            label: "l".to_owned(),
            settings: settings.collect(),
            ..Default::default()
        };
        self.shared.recorded.send_modify(|recorded| recorded.subscriptions.push(stored));
    }

    /// Enables a pipeline.
    pub fn enable(&self, pipeline: impl Into<PipelineId>) {
        self.shared.set_active(&pipeline.into(), true).unwrap();
    }

    /// Disables a pipeline.
    pub fn disable(&self, pipeline: impl Into<PipelineId>) {
        self.shared.set_active(&pipeline.into(), false).unwrap();
    }

    /// Adds a run, with the next number of its pipeline, as if it had been started earlier; by
    /// default it started now and is complete. Returns its number.
    pub fn add_run(&self, mut run: Run) -> i64 {
        if run.started == 0 {
            run.started = self.shared.now();
        }
        if run.state() == RunState::Unknown {
            run.state = RunState::Complete.into();
        }
        let mut id = 0;
        self.shared.recorded.send_modify(|recorded| id = recorded.add_run(run).id);
        id
    }

    /// Completes a run that is pending or running.
    pub fn complete(&self, pipeline: impl Into<PipelineId>, id: i64) {
        let was_incomplete = self.shared.complete_run(&pipeline.into(), id, RunStatus::Successful);
        assert!(was_incomplete, "run {id} is complete already");
    }

    /// Publishes an event, such as `PIPELINE_DELETED`.
    pub fn publish(&self, kind: &str, details: &Value) {
        let now = self.shared.now();
        self.shared.recorded.send_modify(|recorded| recorded.publish(kind, details, now));
    }

    /// Removes an event, or the one that will have this number: others keep theirs.
    pub fn remove_event(&self, id: i64) {
        self.shared.recorded.send_modify(|recorded| {
            recorded.missing.insert(id);
        });
    }

    /// Forgets all events, as with another store: the next one has the number 1.
    pub fn forget_events(&self) {
        self.shared.recorded.send_modify(|recorded| recorded.events.clear());
    }

    /// Sets its clock ahead of the test's, or behind it.
    pub fn set_clock_ahead(&self, millis: i64) {
        self.shared.ahead.store(millis, Ordering::SeqCst);
    }

    /// `RetryRun` copies the variables of a run to a new one without an initiator. Otherwise it is
    /// always refused: that no initiator is passed on makes the start fail.
    pub fn let_retries_through(&self) {
        self.shared.lets_retries_through.store(true, Ordering::SeqCst);
    }

    /// The code with which what does not exist is answered; by default `FAILED_PRECONDITION`.
    pub fn not_found_is(&self, code: Code) {
        *self.shared.not_found.lock().unwrap() = code;
    }
}

/// Failures. A method is named as in `StartRun`, or as in `EmbeddedCore/GetCapabilities` if it is
/// not Gofer's.
impl StandIn {
    /// Decides on each call of a method from now on.
    pub fn decide(&self, method: &str, decide: impl FnMut(&Call<'_>) -> Outcome + Send + 'static) {
        self.shared.scripts.decide(method, Box::new(decide));
    }

    /// Decides on the next calls of a method, before [`decide`](Self::decide) is asked again.
    pub fn next(&self, method: &str, outcomes: impl IntoIterator<Item = Outcome>) {
        self.shared.scripts.next(method, outcomes);
    }

    /// Releases one answer that is held, or the next one that would be.
    pub fn release_one(&self) {
        self.shared.release.add_permits(1);
    }

    /// Releases all answers that are held, and all that would be from now on.
    pub fn release(&self) {
        self.shared.release.close();
    }

    /// Each replay of events stops after those that had happened when it began, until
    /// [`resume_replays`](Self::resume_replays): what happens meanwhile is sent twice.
    pub fn hold_replays(&self) {
        self.shared.replays_held.send_replace(true);
    }

    pub fn resume_replays(&self) {
        self.shared.replays_held.send_replace(false);
    }

    /// New connections carry this number of requests, as through nginx: then it says which was the
    /// last that is processed, and closes them.
    pub fn limit_requests(&self, requests: usize) {
        self.shared.requests.store(requests, Ordering::SeqCst);
    }

    /// Ends all connections, also during calls.
    pub fn disconnect(&self) {
        renew(&self.shared.connections);
    }

    /// Listens from now on.
    pub fn listen(&self) {
        let mut listener = match &self.place {
            Place::Port(port) => Listener::Port(port.listen()),
            Place::Memory(network) => Listener::Memory(network.listen()),
        };
        let shared = Arc::clone(&self.shared);
        let accepting = tokio::spawn(async move {
            loop {
                tokio::spawn(calls::serve(listener.accept().await, Arc::clone(&shared)));
            }
        });
        let before = self.accepting.lock().unwrap().replace(accepting);
        assert!(before.is_none(), "it listens already");
    }

    /// Refuses new connections from now on, until it listens again.
    pub async fn stop_listening(&self) {
        let accepting = self.accepting.lock().unwrap().take();
        let accepting = accepting.expect("it listens");
        accepting.abort();
        assert!(accepting.await.unwrap_err().is_cancelled());
    }

    /// Ends and starts again: connections are lost, and starts that wait are forgotten, so that
    /// their runs stay pending for good. Everything else is kept, and it listens if it did before.
    pub fn restart(&self) {
        renew(&self.shared.waiting);
        self.disconnect();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            accepting.abort();
        }
    }
}

/// Cancels a token, and puts another in its place.
fn renew(token: &Mutex<CancellationToken>) {
    std::mem::take(&mut *token.lock().unwrap()).cancel();
}

enum Listener {
    Port(TcpListener),
    Memory(MemoryListener),
}

impl Listener {
    async fn accept(&mut self) -> BoxStream {
        match self {
            Self::Port(listener) => {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                Box::new(stream)
            }
            Self::Memory(listener) => listener.accept().await,
        }
    }
}

/// A run that was stored.
struct Started {
    run: Run,
    admitted: oneshot::Receiver<()>,
}

impl Started {
    /// The run as it was stored, once it may start; never if the wait for that was forgotten.
    async fn admitted(self) -> Run {
        match self.admitted.await {
            Ok(()) => self.run,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Shared {
    /// In Unix milliseconds.
    fn now(&self) -> i64 {
        self.clock.unix_millis() + self.ahead.load(Ordering::SeqCst)
    }

    fn not_found(&self, what: &str) -> Status {
        Status::new(*self.not_found.lock().unwrap(), format!("{what} not found"))
    }

    fn lets_retries_through(&self) -> bool {
        self.lets_retries_through.load(Ordering::SeqCst)
    }

    async fn released(&self) {
        // Closed once all are released.
        if let Ok(permit) = self.release.acquire().await {
            permit.forget();
        }
    }

    async fn replays_go_on(&self) {
        let mut held = self.replays_held.subscribe();
        drop(held.wait_for(|held| !held).await);
    }

    /// Changes a pipeline.
    fn change<T>(
        &self,
        id: &PipelineId,
        change: impl FnOnce(&mut Stored) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut outcome = Err(self.not_found("pipeline"));
        self.recorded.send_modify(|recorded| {
            if let Some(stored) = recorded.pipelines.get_mut(id) {
                outcome = change(stored);
            }
        });
        outcome
    }

    fn set_active(&self, id: &PipelineId, is_active: bool) -> Result<(), Status> {
        let (mut exists, now) = (false, self.now());
        self.recorded.send_modify(|recorded| exists = recorded.set_active(id, is_active, now));
        if exists { Ok(()) } else { Err(self.not_found("pipeline")) }
    }

    /// Stores a run, which starts as soon as it may, whether or not anybody waits for that.
    fn start_run(
        self: &Arc<Self>,
        id: &PipelineId,
        initiator: Option<Initiator>,
        variables: Vec<Variable>,
    ) -> Result<Started, Status> {
        let mut stored = Err(self.not_found("pipeline"));
        let now = self.now();
        self.recorded.send_modify(|recorded| {
            let Some(pipeline) = recorded.pipelines.get(id) else { return };
            let changed = Arc::clone(&pipeline.changed);
            stored = match recorded.obstacle(id) {
                Some(obstacle) => Err(Status::failed_precondition(obstacle)),
                None => Ok((recorded.store_run(id, initiator, variables, now), changed)),
            };
        });
        let (run, changed) = stored?;
        let (admit, admitted) = oneshot::channel();
        let forgotten = self.waiting.lock().unwrap().clone();
        let (shared, pipeline, id) = (Arc::clone(self), id.clone(), run.id);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = forgotten.cancelled() => {}
                () = shared.may_start(&pipeline, id, changed) => {
                    shared.execute(&pipeline, id, admit).await;
                }
            }
        });
        Ok(Started { run, admitted })
    }

    /// Completes once a run may start.
    async fn may_start(&self, pipeline: &PipelineId, id: i64, changed: Arc<Notify>) {
        loop {
            let change = changed.notified();
            if self.recorded.borrow().may_start(pipeline, id) {
                return;
            }
            change.await;
        }
    }

    async fn execute(&self, pipeline: &PipelineId, id: i64, admit: oneshot::Sender<()>) {
        let mut runs = Runs::Stay;
        self.recorded.send_modify(|recorded| {
            recorded.run_running(pipeline, id);
            runs = recorded.pipelines[pipeline].settings.runs;
        });
        // An error if the caller has left.
        let _ = admit.send(());
        if let Runs::Take(duration) = runs {
            if !duration.is_zero() {
                tokio::time::sleep(duration).await;
            }
            self.complete_run(pipeline, id, RunStatus::Successful);
        }
    }

    fn complete_run(&self, pipeline: &PipelineId, id: i64, status: RunStatus) -> bool {
        let (mut was_incomplete, now) = (false, self.now());
        self.recorded.send_modify(|recorded| {
            was_incomplete = recorded.complete_run(pipeline, id, status, now);
        });
        was_incomplete
    }
}
