//! From the first call to the last: what the extension answers, and when.
//!
//! One state machine, entered by Init and left by Shutdown or a signal: *uninitialized*,
//! *initializing*, *ready*, *draining*, *stopped*. No state transition depends on a handler's
//! future, which is dropped when its caller goes away: Init and the drain run in tasks of their
//! own, and handlers await them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gofer_net::{Outage, Promised, promise};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::erased::{Definition, Instance};
use super::listing;
use super::registry::Registry;
use super::tasks::Tasks;
use crate::catch_panic::{catch_panic, drop_caught};
use crate::client::Gofer;
use crate::error::{Error, ErrorKind, Result};
use crate::extension::{Context, Settings, call_span};

/// How far the extension is, for health and for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Uninitialized,
    Initializing,
    Ready,
    Draining,
    Stopped,
}

/// How one attempt at Init ended.
type Outcome = Promised<Result<(), Arc<Error>>>;

enum State {
    Uninitialized,
    Initializing {
        config: Settings,
        outcome: Outcome,
    },
    Ready {
        config: Settings,
        instance: Arc<dyn Instance>,
    },
    /// The instance is being or has been shut down, or there never was one.
    Ended,
}

/// What may panic when it is dropped.
const EXTENSION: &str = "the extension";

pub(crate) struct Lifecycle {
    pub(crate) definition: Arc<dyn Definition>,
    pub(crate) registry: Arc<Registry>,
    context: Arc<Context>,
    stop_grace: Duration,
    /// Locked to read or change it; never across an await.
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    failing: watch::Sender<usize>,
    /// Cancelled when draining begins; ends conversations and a pending Init.
    draining: CancellationToken,
    /// Init and conversations. The drain waits for them, and so is not one of them.
    tasks: Tasks,
}

impl Lifecycle {
    pub(crate) fn new(
        definition: Arc<dyn Definition>,
        gofer: Gofer,
        stop_grace: Duration,
    ) -> Arc<Self> {
        let context = Arc::new(Context::new(gofer));
        let budget = listing::budget(definition.documentation());
        Arc::new(Self {
            definition,
            registry: Registry::new(Arc::clone(&context), stop_grace, budget),
            context,
            stop_grace,
            state: Mutex::new(State::Uninitialized),
            phase: watch::Sender::new(Phase::Uninitialized),
            failing: watch::Sender::new(0),
            draining: CancellationToken::new(),
            tasks: Tasks::default(),
        })
    }

    /// Wakes subscriptions for their ticks, until everything is [abandoned](Self::abandon).
    pub(super) fn wake_subscriptions(&self) {
        let context = Arc::clone(&self.context);
        self.tasks.spawn_untracked(async move { context.wake_when_due().await });
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// How many subscriptions are waiting to be restarted.
    pub(crate) fn failing(&self) -> watch::Receiver<usize> {
        self.failing.subscribe()
    }

    /// The outage of Gofer's API that there is now.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.context.gofer.outage()
    }

    /// The outage of Gofer's API that there is now, and each change.
    pub(crate) fn outages(&self) -> watch::Receiver<Option<Outage>> {
        self.context.gofer.watch_outages()
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The initialized extension.
    pub(crate) fn instance(&self) -> Result<Arc<dyn Instance>> {
        match &*self.state() {
            State::Ready { instance, .. } => Ok(Arc::clone(instance)),
            State::Uninitialized | State::Initializing { .. } => {
                Err(Error::unavailable("the extension is not initialized yet; call Init first"))
            }
            State::Ended => Err(Error::shutting_down()),
        }
    }

    /// Initializes; a repeat with the same configuration, also while the first is under way, shares
    /// its outcome.
    pub(crate) async fn init(self: &Arc<Self>, config: Settings) -> Result<(), Arc<Error>> {
        let outcome = {
            let mut state = self.state();
            match &*state {
                State::Ready { config: ready, .. } if *ready == config => return Ok(()),
                State::Initializing { config: first, outcome } if *first == config => {
                    outcome.clone()
                }
                State::Ready { .. } | State::Initializing { .. } => {
                    return Err(Arc::new(Error::new(
                        ErrorKind::FailedPrecondition,
                        "the extension is already initialized with another configuration; \
                         restart it to change its configuration",
                    )));
                }
                State::Ended => return Err(Arc::new(Error::shutting_down())),
                State::Uninitialized => self.start_init(&mut state, config),
            }
        };
        // If the attempt was dropped, the extension is shutting down.
        outcome.wait().await.unwrap_or_else(|| Err(Arc::new(Error::shutting_down())))
    }

    fn start_init(self: &Arc<Self>, state: &mut State, config: Settings) -> Outcome {
        let (done, outcome) = promise();
        *state = State::Initializing { config: config.clone(), outcome: outcome.clone() };
        self.advance(Phase::Initializing);
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let attempt = catch_panic(this.definition.init(
                &config,
                this.context.gofer.clone(),
                this.failing.clone(),
            ));
            let attempt = tokio::select! {
                biased;
                attempt = attempt.instrument(call_span("Init")) => attempt,
                () = this.draining.cancelled() => Err(Error::shutting_down()),
            };
            let (outcome, late) = this.finish_init(config, attempt);
            done.keep(outcome.map_err(Arc::new));
            if let Some(instance) = late {
                clean_up(instance).await;
            }
        });
        outcome
    }

    /// Returns the extension too if it was initialized while it had to shut down: the drain has not
    /// seen it.
    fn finish_init(
        &self,
        config: Settings,
        attempt: Result<Arc<dyn Instance>>,
    ) -> (Result<()>, Option<Arc<dyn Instance>>) {
        let mut state = self.state();
        if matches!(*state, State::Ended) {
            return (Err(Error::shutting_down()), attempt.ok());
        }
        match attempt {
            Ok(instance) => {
                *state = State::Ready { config, instance };
                self.advance(Phase::Ready);
                drop(state);
                tracing::info!("initialized");
                (Ok(()), None)
            }
            Err(error) => {
                // Init may be tried again, also with another configuration.
                *state = State::Uninitialized;
                self.advance(Phase::Uninitialized);
                (Err(error), None)
            }
        }
    }

    /// Ends all subscriptions, then the extension; returns once that is done. Further calls wait
    /// for the same end.
    pub(crate) async fn shutdown(self: &Arc<Self>) {
        let mut phase = self.phase();
        self.start_drain();
        // The sender is part of self, so only the phase ends this.
        let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
    }

    /// The one call that ends the state takes what was initialized, and drains.
    fn start_drain(self: &Arc<Self>) {
        let before = {
            let mut state = self.state();
            if matches!(*state, State::Ended) {
                return;
            }
            self.advance(Phase::Draining);
            std::mem::replace(&mut *state, State::Ended)
        };
        tracing::info!("shutting down");
        self.draining.cancel();
        let this = Arc::clone(self);
        self.tasks.spawn_untracked(async move { this.drain(before).await });
    }

    async fn drain(&self, before: State) {
        // Also if the author's code panics, in a `Drop` for example: the server waits for this.
        let _stopped = Stopped(self);
        let drained = catch_panic(async {
            self.registry.drain().await;
            Ok(())
        });
        if let Err(error) = drained.await {
            tracing::error!(?error, "the subscriptions failed to end");
        }
        let cleanup = async {
            if let State::Ready { instance, .. } = before {
                clean_up(instance).await;
            }
            self.tasks.ended().await;
            self.context.close().await;
        };
        if tokio::time::timeout(self.stop_grace, cleanup).await.is_err() {
            tracing::error!("the extension did not clean up in time");
        }
    }

    /// Ends everything at once without waiting: for a server that is dropped, or that is asked to
    /// stop a second time.
    pub(crate) fn abandon(&self) {
        let before = std::mem::replace(&mut *self.state(), State::Ended);
        self.draining.cancel();
        self.tasks.abandon();
        self.registry.abandon();
        self.context.abandon();
        drop_caught(EXTENSION, before);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a phase; false if it has passed already. Only a failed Init goes back.
    fn advance(&self, next: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let back = *phase == Phase::Initializing && next == Phase::Uninitialized;
            let modified = next > *phase || back;
            if modified {
                *phase = next;
            }
            modified
        })
    }
}

/// Calls the author's `shutdown`.
async fn clean_up(instance: Arc<dyn Instance>) {
    let done = catch_panic(async {
        instance.shutdown().await;
        Ok(())
    });
    if let Err(error) = done.instrument(call_span("Shutdown")).await {
        tracing::error!(?error, "the extension failed to clean up");
    }
    drop_caught(EXTENSION, instance);
}

/// Announces the end when it is dropped.
struct Stopped<'a>(&'a Lifecycle);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.advance(Phase::Stopped);
    }
}
