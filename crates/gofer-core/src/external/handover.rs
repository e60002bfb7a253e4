//! From a request that has arrived in full to the extension's answer.
//!
//! An event that was taken in full reaches its extension, whether its sender
//! waits for the answer or not: it has a task of its own. These are bounded for
//! each extension and, by shares, for all, so that one extension that hangs
//! leaves the others their turn.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;

use super::answer::Answer;
use super::shares::{Share, Shares};
use crate::extensions::Extensions;
use crate::sync::lock;
use gofer_proto as proto;

pub(super) struct Handover {
    /// Events that are with their extension or wait for their turn: no more than
    /// there are connections, so that some are left for other extensions.
    under_way: Arc<Shares>,
    calls_per_extension: usize,
    /// The turns of those extensions that are being called. Held to look one up.
    turns: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    tasks: TaskTracker,
    /// Ends what is still under way.
    end: CancellationToken,
}

/// One event, and what it takes of memory until it is answered.
pub(super) struct Event {
    pub(super) extension: Arc<str>,
    pub(super) payload: Bytes,
    pub(super) memory: Option<Share>,
}

/// Whether an event for this extension can be taken now. Asked before its body
/// is read, and told by the core itself: what an extension says of something
/// else that it does not find is not confused with it.
pub(super) fn check(extensions: &Extensions, name: &str) -> Result<(), Answer> {
    match extensions.running_client(name) {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Err(Answer::UnknownExtension),
        Err(_) => Err(Answer::NotReady),
    }
}

impl Handover {
    pub(super) fn new(most: usize, calls_per_extension: usize) -> Arc<Self> {
        Arc::new(Self {
            // Of two, one may have one.
            under_way: Shares::new(most.max(2)),
            calls_per_extension,
            turns: Mutex::default(),
            tasks: TaskTracker::new(),
            end: CancellationToken::new(),
        })
    }

    /// Hands an event on, and waits for the answer.
    pub(super) async fn hand_on(
        self: &Arc<Self>,
        extensions: &Arc<Extensions>,
        event: Event,
        patience: Duration,
    ) -> Answer {
        let Some(place) = self.under_way.take(&event.extension, 1) else { return Answer::Busy };
        let (this, extensions) = (Arc::clone(self), Arc::clone(extensions));
        let task = self.tasks.spawn(async move {
            let _place = place;
            tokio::select! {
                answer = this.call(&extensions, event, patience) => answer,
                () = this.end.cancelled() => Answer::Stopping,
            }
        });
        // It fails only where it panics, and then it says so itself.
        task.await.unwrap_or(Answer::Failed)
    }

    async fn call(&self, extensions: &Extensions, event: Event, patience: Duration) -> Answer {
        let Event { extension, payload, memory } = event;
        let turns = self.turns_of(&extension);
        let Ok(Ok(_turn)) = tokio::time::timeout(patience, turns.acquire()).await else {
            return Answer::Busy;
        };
        let Ok(mut client) = extensions.running_client(&extension) else {
            return Answer::NotReady;
        };
        let bytes = payload.len();
        let request = proto::ExtensionExternalEventRequest { payload };
        let outcome = client.external_event(request).await;
        drop(memory);
        match outcome {
            Ok(_) => Answer::Taken,
            Err(status) => {
                let code = status.code();
                tracing::debug!(extension = &*extension, ?code, "an external event was not taken");
                Answer::of(&status, bytes)
            }
        }
    }

    fn turns_of(&self, extension: &Arc<str>) -> Arc<Semaphore> {
        let mut turns = lock(&self.turns);
        if let Some(turns) = turns.get(extension) {
            return Arc::clone(turns);
        }
        // Extensions come and go: of those that are not being called nothing is
        // kept.
        turns.retain(|_, turns| Arc::strong_count(turns) > 1);
        let new = Arc::new(Semaphore::new(self.calls_per_extension));
        turns.insert(Arc::clone(extension), Arc::clone(&new));
        new
    }

    /// Waits for what is under way, and then ends it.
    pub(super) async fn end(&self, until: Instant) {
        self.tasks.close();
        if tokio::time::timeout_at(until, self.tasks.wait()).await.is_err() {
            self.end.cancel();
            self.tasks.wait().await;
        }
    }
}
