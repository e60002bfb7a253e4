//! Hands external events to the author.
//!
//! The guarantees: an event is handled to its end, or until the extension ends, whether or not its
//! caller still waits; the author gets all subscriptions that have been acknowledged; and there is a
//! bound on how many events are under way.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};
use tracing::Instrument as _;

use super::lifecycle::Lifecycle;
use crate::catch_panic::catch_panic;
use crate::error::{Error, ErrorKind, Result};
use crate::extension::{ExternalEvent, call_span, for_event};

pub(super) struct ExternalEvents {
    permits: Arc<Semaphore>,
}

impl ExternalEvents {
    pub(super) fn new(limit: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(limit)) }
    }

    pub(super) async fn handle(&self, lifecycle: &Lifecycle, event: ExternalEvent) -> Result<()> {
        let instance = lifecycle.instance()?;
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Err(Error::unavailable(
                "too many external events are under way; try again later",
            ));
        };
        let live = lifecycle.registry.live()?;
        let (done, outcome) = oneshot::channel();
        let context = Arc::clone(lifecycle.context());
        let handle = async move {
            let _permit = permit;
            let handled = catch_panic(for_event(instance.external_event(event, live))).await;
            // Otherwise whoever waits reports it.
            if let Err(handled) = done.send(handled) {
                context.metrics.external_event(&handled);
                if let Err(error) = handled {
                    tracing::info!(
                        ?error,
                        "an external event failed, and its caller has gone away"
                    );
                }
            }
        };
        lifecycle.tasks().spawn(handle.instrument(call_span("ExternalEvent")));
        // If the task was dropped, the extension ends.
        match outcome.await.unwrap_or_else(|_| Err(Error::shutting_down())) {
            // A subscription ended, or the extension stops: the next attempt finds what is then.
            Err(error) if error.kind() == ErrorKind::Cancelled => {
                let why = "a subscription ended while the event was handled; try again";
                Err(Error::unavailable(why).with_source(error))
            }
            Err(error) if error.is_of_gofer() => Err(not_the_senders(error)),
            handled => handled,
        }
    }
}

/// What Gofer returned to the extension says nothing about the sender: that a token of the
/// extension's is not accepted must not read as if the event were not authentic.
fn not_the_senders(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::FailedPrecondition => {
            error
        }
        ErrorKind::ResourceExhausted => {
            Error::unavailable("Gofer takes no more runs now; try again later").with_source(error)
        }
        _ => Error::internal("a call to Gofer failed").with_source(error),
    }
}
