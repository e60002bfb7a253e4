//! One live subscription, as an author sees it.
//!
//! A handle to what the registry holds; how its ticks are timed is
//! [`super::ticks`].

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::go_duration::GoDuration;
use super::live::{Live, log_panic};
use super::ticks::Ticks;
use crate::client::{Gofer, PipelineId, Run, RunInfo};
use crate::error::Result;

/// One subscription of one pipeline, alive: its parameters, who it is for, and
/// what can be done for it.
///
/// A cheap clone; [`Extension::serve`](crate::Extension::serve) gets one and is
/// the subscription's life.
///
/// ```
/// use gofer_sdk::{Declared, Result, Run, Subscription};
///
/// async fn once<P: Declared>(subscription: Subscription<P>) -> Result<()> {
///     let run = subscription
///         .start_run(Run::because("the first thing to do").variable("ATTEMPT", "1"))
///         .await?;
///     tracing::info!(run = run.id(), pipeline = subscription.pipeline(), "started");
///     subscription.cancelled().await;
///     Ok(())
/// }
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, ..) = documented!(serve: once);
/// # core.elapse(gofer_core::seconds(1)).await;
/// # assert_eq!(core.runs("ops/nightly")[0].variable("ATTEMPT"), Some("1"));
/// # core.stop().await;
/// # Ok(()) }
/// ```
pub struct Subscription<P> {
    live: Arc<Live<P>>,
}

impl<P> Subscription<P> {
    pub(crate) fn new(live: Arc<Live<P>>) -> Self {
        Self { live }
    }

    pub(crate) fn live(&self) -> &Live<P> {
        &self.live
    }
}

impl<P: Send + Sync + 'static> Subscription<P> {
    /// As the registry holds it, whatever the type of its parameters.
    pub(crate) fn shared(&self) -> Arc<Live> {
        let live: Arc<Live<P>> = Arc::clone(&self.live);
        live
    }

    /// Has Gofer asked, in the background, for the last run of this label.
    pub(super) fn ask_for_last_run(&self) {
        self.live.context.ask_for_last_run(&self.shared());
    }

    /// The parameters that the pipeline subscribed with.
    #[must_use]
    pub fn params(&self) -> &P {
        &self.live.params
    }

    /// The namespace of the pipeline.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.live.key.namespace()
    }

    /// The pipeline that is subscribed, without its namespace.
    #[must_use]
    pub fn pipeline(&self) -> &str {
        self.live.key.pipeline()
    }

    /// The label; one pipeline may subscribe many times under different ones.
    #[must_use]
    pub fn label(&self) -> &str {
        self.live.key.label()
    }

    /// The client to Gofer, for everything that is not about this pipeline.
    #[must_use]
    pub fn gofer(&self) -> &Gofer {
        &self.live.context.gofer
    }

    /// Whether the subscription has been told to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.live.is_cancelled()
    }

    /// Waits until the subscription has been told to end: by Unsubscribe, by a
    /// subscription with other parameters in its place, or by Shutdown.
    ///
    /// `serve` then has a few seconds (see
    /// [`Limits::stop_grace`](crate::Limits::stop_grace)) before it is dropped.
    pub async fn cancelled(&self) {
        self.live.cancelled().await;
    }

    /// Asks Gofer to run the pipeline, and waits out an outage of Gofer.
    ///
    /// While Gofer cannot be reached this keeps trying, with a growing, jittered
    /// pause of at most 2 s, until the subscription ends. At most 64 such calls
    /// of one extension are in flight at once, so that a Gofer that comes back
    /// is not met by a storm, and those of one subscription are made one after the
    /// other. Where an answer got lost in mid-call, Gofer is asked first whether
    /// the run has started, so that it is not started twice. A call that is on its
    /// way when the subscription ends has one more second.
    ///
    /// # Errors
    ///
    /// What Gofer refuses with, above all
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) for a disabled
    /// pipeline or one without a configuration and
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied);
    /// [`Cancelled`](crate::ErrorKind::Cancelled) where the subscription ended first;
    /// [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) or
    /// [`Unavailable`](crate::ErrorKind::Unavailable) where an answer got lost and it
    /// cannot be told whether the run has started.
    pub async fn start_run(&self, run: Run) -> Result<RunInfo> {
        // Boxed: a call's future is some kilobytes, and a subscription that
        // only waits for its next tick must not carry it.
        Box::pin(self.live.start_run(run)).await
    }

    /// Ticks once every `period`, the first time one period from now.
    ///
    /// Ticks are computed from the first one, so they do not drift; ticks that
    /// were missed, because Gofer was away or `serve` was busy, become one; and
    /// where an earlier process already started runs for this label, the
    /// cadence carries on from the last of them. See [`Ticks`].
    ///
    /// One for each subscription: a run answers whatever ticks are due when it
    /// starts, those of a second `Ticks` too.
    ///
    /// A period that comes from a pipeline wants a minimum, checked in
    /// [`validate`](crate::Extension::validate): one of a nanosecond is a storm.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](crate::ErrorKind::InvalidParameter) where `period` is not
    /// positive.
    pub fn every(&self, period: GoDuration) -> Result<Ticks<P>> {
        Ticks::new(self.clone(), period)
    }

    /// Runs a future beside `serve` that ends with the subscription: it sees
    /// the same cancellation, is dropped after the same grace, and is joined.
    ///
    /// A panic in it is logged and ends it alone.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut activity = self.live.activity();
        let tasks = activity.spawned.get_or_insert_default();
        // What has finished is let go here, so that an author who spawns for
        // every event holds no more than what is running.
        while let Some(ended) = tasks.try_join_next() {
            log_panic(&self.live.key, ended);
        }
        if self.live.is_cancelled() {
            return;
        }
        tasks.spawn(future);
    }
}

impl<P> Clone for Subscription<P> {
    fn clone(&self) -> Self {
        Self { live: Arc::clone(&self.live) }
    }
}

/// The pipeline that is subscribed.
impl<P: Send + Sync + 'static> From<&Subscription<P>> for PipelineId {
    fn from(subscription: &Subscription<P>) -> Self {
        Self::new(subscription.namespace(), subscription.pipeline())
    }
}

/// Who it is for; never the parameters, which may be secrets.
impl<P> fmt::Debug for Subscription<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({})", self.live.key)
    }
}
