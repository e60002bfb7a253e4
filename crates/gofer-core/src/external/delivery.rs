//! Delivers requests that have arrived in full to their extensions.
//!
//! Each delivery runs in its own task, so an event reaches its extension even if the sender does
//! not wait for the response. The number of deliveries is limited per extension and, by a quota, in
//! total, so that an extension that hangs leaves room for the others.

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
use super::quota::{Quota, Reservation};
use crate::extensions::Extensions;
use crate::sync::lock;

pub(super) struct Deliveries {
    /// Events that extensions are handling or that wait for one. An extension may have at most half
    /// as many as there are connections, so that some are left for the others.
    in_progress: Arc<Quota>,
    calls_per_extension: usize,
    /// Call permits of the extensions that are being called. Locked only to look one up.
    permits: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    tasks: TaskTracker,
    /// Aborts what is still in progress.
    abort: CancellationToken,
}

/// An event, and the memory that is reserved for it until it is answered.
pub(super) struct Event {
    pub(super) extension: Arc<str>,
    pub(super) payload: Bytes,
    pub(super) memory: Option<Reservation>,
}

/// Whether an event for this extension can be accepted now. Checked before its body is read, and by
/// the core, so a `NotFound` that an extension returns isn't confused with it.
pub(super) fn check(extensions: &Extensions, name: &str) -> Result<(), Answer> {
    match extensions.event_receiver(name) {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Err(Answer::UnknownExtension),
        Err(_) => Err(Answer::NotReady),
    }
}

impl Deliveries {
    pub(super) fn new(limit: usize, calls_per_extension: usize) -> Arc<Self> {
        Arc::new(Self {
            // With two, an extension may have one.
            in_progress: Quota::new(limit.max(2)),
            calls_per_extension,
            permits: Mutex::default(),
            tasks: TaskTracker::new(),
            abort: CancellationToken::new(),
        })
    }

    /// Delivers an event, and waits for the answer.
    pub(super) async fn deliver(
        self: &Arc<Self>,
        extensions: &Arc<Extensions>,
        event: Event,
        queue_timeout: Duration,
    ) -> Answer {
        let Some(reservation) = self.in_progress.try_reserve(&event.extension, 1) else {
            return Answer::Busy;
        };
        let (this, extensions) = (Arc::clone(self), Arc::clone(extensions));
        let task = self.tasks.spawn(async move {
            let _reservation = reservation;
            tokio::select! {
                answer = this.call(&extensions, event, queue_timeout) => answer,
                () = this.abort.cancelled() => Answer::Stopping,
            }
        });
        // It fails only by a panic, which the panic hook reports.
        task.await.unwrap_or(Answer::Failed)
    }

    async fn call(&self, extensions: &Extensions, event: Event, queue_timeout: Duration) -> Answer {
        let Event { extension, payload, memory } = event;
        let permits = self.permits_of(&extension);
        let Ok(Ok(_permit)) = tokio::time::timeout(queue_timeout, permits.acquire()).await else {
            return Answer::Busy;
        };
        let Ok(receiver) = extensions.event_receiver(&extension) else {
            return Answer::NotReady;
        };
        let bytes = payload.len();
        let outcome = receiver.send(payload).await;
        drop(memory);
        match outcome {
            Ok(()) => Answer::Accepted,
            Err(status) => {
                let (code, answer) = (status.code(), Answer::of(&status, bytes));
                // The extension logs it too, and knows more.
                tracing::debug!(
                    extension = &*extension,
                    ?code,
                    reason = status.message(),
                    ?answer,
                    "an external event was not accepted"
                );
                answer
            }
        }
    }

    fn permits_of(&self, extension: &Arc<str>) -> Arc<Semaphore> {
        let mut all = lock(&self.permits);
        if let Some(permits) = all.get(extension) {
            return Arc::clone(permits);
        }
        // Extensions come and go: the entries of those that are not being called are removed.
        all.retain(|_, permits| Arc::strong_count(permits) > 1);
        let new = Arc::new(Semaphore::new(self.calls_per_extension));
        all.insert(Arc::clone(extension), Arc::clone(&new));
        new
    }

    /// Waits for what is in progress, and aborts what is left at the deadline.
    pub(super) async fn end(&self, deadline: Instant) {
        self.tasks.close();
        if tokio::time::timeout_at(deadline, self.tasks.wait()).await.is_err() {
            self.abort.cancel();
            self.tasks.wait().await;
        }
    }
}
