//! What all subscriptions of an extension share: the client to Gofer, the queue of subscriptions
//! whose last run Gofer is to be asked for, and what wakes them for their ticks.

use gofer_net::Throttle;

use super::alarms::Alarms;
use super::resume;
use crate::client::Gofer;
use crate::metrics::Metrics;

/// Failures of subscriptions that are logged in a minute.
const FAILURES: u32 = 60;

pub(crate) struct Context {
    pub(crate) gofer: Gofer,
    pub(super) resumes: resume::Queue,
    pub(super) alarms: Alarms,
    /// Failures of subscriptions, as they are logged.
    pub(crate) failures: Throttle,
    pub(crate) metrics: Metrics,
}

impl Context {
    pub(crate) fn new(gofer: Gofer) -> Self {
        let failures = Throttle::lines(FAILURES);
        let metrics = Metrics::new(gofer.name());
        let (resumes, alarms) = (resume::Queue::default(), Alarms::default());
        Self { gofer, resumes, alarms, failures, metrics }
    }

    /// Wakes subscriptions when their next tick is due. Does not return.
    pub(crate) async fn wake_when_due(&self) {
        self.alarms.run().await;
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
