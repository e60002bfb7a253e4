//! What all subscriptions of an extension share: the client to Gofer, the limit on runs that are
//! being started, and the queue of subscriptions whose last run Gofer is to be asked for.

use tokio::sync::Semaphore;

use super::resume;
use crate::client::Gofer;

/// Calls to start a run that may be in flight at once. Fewer saturate one connection, and after an
/// outage, not every subscription calls Gofer at once.
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
