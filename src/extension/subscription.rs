//! One live subscription, as an author sees it.
//!
//! A handle to what the registry holds; how its ticks are timed is [`super::ticks`].

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use gofer_net::from_unix_millis;

use super::go_duration::GoDuration;
use super::live::{AnyLive, Cancelled, Live};
use super::schedule::{Every, Schedule};
use super::start::Start;
use super::ticks::Ticks;
use crate::client::{Gofer, PipelineId, Run, RunInfo};
use crate::error::Result;

/// A live subscription of a pipeline: its parameters, and the calls that act on its pipeline.
///
/// Cheap to clone. [`Extension::serve`](crate::Extension::serve) gets one and runs for as long as
/// the subscription lasts.
///
/// ```
/// use gofer_sdk::{Declared, Result, Run, Subscription};
///
/// async fn once<P: Declared>(subscription: Subscription<P>) -> Result<()> {
///     let run = subscription
///         .start_run(Run::because("the first thing to do").key("once").variable("ATTEMPT", "1"))
///         .await?;
///     tracing::info!(run = run.id(), pipeline = subscription.pipeline(), "started");
///     subscription.cancelled().await;
///     Ok(())
/// }
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, docs, _) = documented!(serve: once);
/// # core.elapse(gofer_core::seconds(1)).await;
/// # restarts_and_unsubscribes(&core, &docs).await?;
/// # assert_eq!(core.runs("ops/nightly").len(), 1, "once, although it was restarted");
/// # assert_eq!(core.runs("ops/nightly")[0].variable("ATTEMPT"), Some("1"));
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
    /// As the registry holds it, without the type of its parameters.
    pub(crate) fn shared(&self) -> Arc<Live> {
        let live: Arc<Live<P>> = Arc::clone(&self.live);
        live
    }

    /// As the registry holds it.
    pub(super) fn any(&self) -> Arc<dyn AnyLive> {
        let live: Arc<Live<P>> = Arc::clone(&self.live);
        live
    }

    /// Queues a question to Gofer for the last run of this label.
    pub(super) fn ask_for_last_run(&self) {
        self.live.context.ask_for_last_run(&self.shared());
    }

    /// The parameters that the pipeline subscribed with.
    pub fn params(&self) -> &P {
        &self.live.params
    }

    /// The namespace of the pipeline.
    pub fn namespace(&self) -> &str {
        self.live.key.namespace()
    }

    /// The subscribed pipeline, without its namespace.
    pub fn pipeline(&self) -> &str {
        self.live.key.pipeline()
    }

    /// The label; one pipeline may subscribe several times, with different labels.
    pub fn label(&self) -> &str {
        self.live.key.label()
    }

    /// The client for Gofer, for everything that is not about this pipeline.
    pub fn gofer(&self) -> &Gofer {
        &self.live.context.gofer
    }

    /// Whether the subscription has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.live.is_cancelled()
    }

    /// Waits until the subscription is cancelled: by Unsubscribe, by a subscription with other
    /// parameters in its place, or by Shutdown; returns which of them.
    ///
    /// `serve` then has a few seconds (see [`Limits::stop_grace`](crate::Limits::stop_grace))
    /// before it is dropped.
    ///
    /// If the future is dropped, nothing has happened: it may be waited for again, by any number of
    /// tasks.
    pub async fn cancelled(&self) -> Cancelled {
        self.live.cancelled().await
    }

    /// The time by the clock that its ticks follow; see [`Gofer::now`].
    pub fn now(&self) -> SystemTime {
        self.gofer().now()
    }

    /// Since when the pipeline has been subscribed with these parameters, by Gofer's clock, to the
    /// millisecond, like [`RunInfo::ended`]; `None` on a full Gofer, which does not say. A restart of
    /// the extension or of Gofer does not change it.
    ///
    /// ```
    /// use gofer_sdk::{Declared, Result, Run, Subscription};
    ///
    /// async fn greet<P: Declared>(subscription: Subscription<P>) -> Result<()> {
    ///     if let Some(since) = subscription.since() {
    ///         let age = subscription.now().duration_since(since).unwrap_or_default();
    ///         tracing::info!(?subscription, ?age, "the subscription is served");
    /// #       assert!(age.as_secs() < 2 || subscription.gofer().runs(&subscription, 1).await?.len() == 1);
    ///     }
    ///     let hello = Run::because("the pipeline has subscribed").key("hello");
    ///     subscription.start_run(hello).await?;
    ///     Ok(())
    /// }
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (core, docs, _) = documented!(serve: greet);
    /// # core.elapse(gofer_core::minutes(1)).await;
    /// # restarts_and_unsubscribes(&core, &docs).await?;
    /// # Ok(()) }
    /// ```
    pub fn since(&self) -> Option<SystemTime> {
        self.live.since().map(from_unix_millis)
    }

    /// The newest run of the pipeline that this extension started under this label, also for an
    /// earlier subscription with the same label; `None` if there is none among the newest thousand
    /// of the pipeline.
    ///
    /// If the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// As for every call of the [client](Gofer#errors).
    pub async fn last_run(&self) -> Result<Option<RunInfo>> {
        Ok(self.runs(1).await?.pop())
    }

    /// The newest runs of the pipeline that this extension started under this label, newest first,
    /// at most `limit`. Searched are the newest thousand of the pipeline.
    ///
    /// If the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// As for every call of the [client](Gofer#errors).
    ///
    /// ```
    /// use gofer_sdk::{Declared, Result, Run, Subscription};
    ///
    /// async fn until_three<P: Declared>(subscription: Subscription<P>) -> Result<()> {
    ///     while subscription.runs(3).await?.len() < 3 {
    ///         subscription.start_run(Run::because("there are not three yet")).await?;
    ///     }
    ///     let last = subscription.last_run().await?;
    ///     assert_eq!(last.map(|run| run.id()), Some(3));
    ///     Ok(())
    /// }
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (core, docs, _) = documented!(serve: until_three);
    /// # core.elapse(gofer_core::seconds(1)).await;
    /// # restarts_and_unsubscribes(&core, &docs).await?;
    /// # assert_eq!(core.runs("ops/nightly").len(), 3);
    /// # Ok(()) }
    /// ```
    pub async fn runs(&self, limit: u32) -> Result<Vec<RunInfo>> {
        self.gofer().runs_of_label(self.into(), self.label(), limit).await
    }

    /// Asks Gofer to run the pipeline, and keeps trying during an outage of Gofer.
    ///
    /// While Gofer cannot be reached, this retries with a growing, jittered delay of at most 2 s,
    /// until the subscription is cancelled. At most 64 such calls of one extension are in flight at
    /// once, so that they do not overload a Gofer that comes back. A call that is in flight when
    /// the subscription is cancelled has one more second.
    ///
    /// The run is started once, whatever happens to the calls: by its [key](Run::key), which the
    /// SDK makes unless the run has one. A full Gofer holds its response back while the pipeline is
    /// at its limit of parallel runs; there, this returns once the run is pending, and starts no
    /// other run of the pipeline until it no longer is. See [the
    /// guarantees](crate::guide::authors#every-run-once).
    ///
    /// Await it to its end or drop it: on a full Gofer, other starts of the pipeline wait for it.
    ///
    /// If the future is dropped, the run may have started; a later call starts another one, unless
    /// it has the same key or is for the same tick.
    ///
    /// # Errors
    ///
    /// The error that Gofer returns, above all
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) for a disabled pipeline or one
    /// without a configuration and [`PermissionDenied`](crate::ErrorKind::PermissionDenied);
    /// [`Cancelled`](crate::ErrorKind::Cancelled) if the subscription ended first;
    /// [`InvalidParameter`](crate::ErrorKind::InvalidParameter) if the run's key or a variable is
    /// not acceptable.
    pub fn start_run(&self, run: Run) -> impl Future<Output = Result<RunInfo>> + Send {
        // No `async fn`, whose future would hold the run: it is part of that of each subscription.
        Start::new(self.shared(), run)
    }

    /// Ticks once every `period`, the first time one period after the subscription was made (on a full
    /// Gofer, one period from now). There is no tick before Gofer has answered, or has failed to for
    /// ten minutes, what the label's last run was scheduled for: it might not be on the grid.
    ///
    /// Ticks are computed from the first one, so they do not drift; ticks that were missed, because
    /// of an outage or because `serve` was busy, become one; and if an earlier process started runs
    /// for this label, the cadence continues from the time that the last of them was [scheduled
    /// for](crate::Tick::scheduled), whenever it started. If `serve` is restarted after it failed, the
    /// tick that it failed for is due again. See [`Ticks`] for an example.
    ///
    /// Use one `Ticks` per subscription: a run counts for all ticks that are due when it starts,
    /// also those of a second `Ticks`.
    ///
    /// A period that a pipeline sets needs a minimum, checked in
    /// [`validate`](crate::Extension::validate): a nanosecond would keep Gofer busy with nothing
    /// else.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](crate::ErrorKind::InvalidParameter) if `period` is not positive.
    pub fn every(&self, period: GoDuration) -> Result<Ticks<P>> {
        self.schedule(Every::new(period)?)
    }

    /// Ticks at the times of a schedule, the first time after the subscription was made, with the
    /// guarantees of [`every`](Self::every).
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::ErrorKind::Internal) if the schedule has a next time that is not after the
    /// given one.
    pub fn schedule<S: Schedule>(&self, schedule: S) -> Result<Ticks<P, S>> {
        Ticks::new(self.clone(), schedule)
    }

    /// Spawns a future that runs concurrently with `serve` and ends with the subscription, with the
    /// same grace period.
    ///
    /// It belongs to the `serve` that is running. If that fails, it is aborted before `serve` is
    /// called again; if that returns `Ok`, it goes on until the subscription ends. While no `serve`
    /// is running, that is during the pause before a restart, after `Ok` and once the subscription
    /// is cancelled, the future is dropped instead of started.
    ///
    /// A panic in it is logged, and ends only this future.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.live.spawn(future);
    }
}

impl<P> Clone for Subscription<P> {
    fn clone(&self) -> Self {
        Self { live: Arc::clone(&self.live) }
    }
}

/// The subscribed pipeline.
impl<P: Send + Sync + 'static> From<&Subscription<P>> for PipelineId {
    fn from(subscription: &Subscription<P>) -> Self {
        Self::new(subscription.namespace(), subscription.pipeline())
    }
}

/// The pipeline and the label; never the parameters, which may be secrets.
impl<P> fmt::Debug for Subscription<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({})", self.live.key)
    }
}
