//! What all subscriptions of an extension share: the client to Gofer, the bound on runs that are
//! being started, and the queue of those whose last run is still to be asked for.

use tokio::sync::Semaphore;

use super::resume;
use crate::client::Gofer;

/// Runs that may be on their way to Gofer at once. One connection is saturated with less, and a
/// Gofer that comes back after an outage is not met by every subscription at once.
const STARTS_IN_FLIGHT: usize = 64;

pub(crate) struct Context {
    pub(crate) gofer: Gofer,
    pub(super) starts: Semaphore,
    pub(super) resumes: resume::Queue,
}

impl Context {
    pub(crate) fn new(gofer: Gofer) -> Self {
        Self { gofer, starts: Semaphore::new(STARTS_IN_FLIGHT), resumes: resume::Queue::default() }
    }

    /// Ends every task and the connection to Gofer. Calls fail from now on.
    pub(crate) async fn close(&self) {
        self.resumes.close().await;
        self.gofer.close().await;
    }

    /// The same without waiting for the tasks to notice.
    pub(crate) fn abandon(&self) {
        self.resumes.abandon();
        self.gofer.abandon();
    }
}
