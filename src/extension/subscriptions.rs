//! The live subscriptions, as an author sees them when an external event arrives.

use std::fmt;
use std::sync::Arc;

use gofer_net::BoxFuture;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::live::{AnyLive, Cancelled};
use super::start::{Start, for_event};
use super::subscription::Subscription;
use crate::client::{Run, RunInfo};
use crate::error::{Error, ErrorKind, Result};

/// The subscriptions that are live when an external event arrives, in no particular order.
///
/// [`Extension::external_event`](crate::Extension::external_event) gets them. They can be iterated,
/// and [`start_runs`](Self::start_runs) starts runs for those that an event is for.
pub struct Subscriptions<P> {
    all: Vec<Subscription<P>>,
}

impl<P: Send + Sync + 'static> Subscriptions<P> {
    pub(crate) fn new(all: Vec<Subscription<P>>) -> Self {
        Self { all }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Subscription<P>> {
        self.all.iter()
    }

    /// Starts a run for each subscription for which `run` returns one, many at a time, and returns
    /// the runs. Give each a [key](Run::key) from the event, such as the ID of its delivery, so that
    /// an event that is sent again starts none a second time.
    ///
    /// A subscription that has been unsubscribed meanwhile is left out, and so is one whose run Gofer
    /// [refuses to start](ErrorKind::FailedPrecondition), since its pipeline is disabled or deleted:
    /// that is logged, and sending the event again would not help.
    ///
    /// If the future is dropped, each of the runs may have been started.
    ///
    /// # Errors
    ///
    /// Those of [`Subscription::start_run`], after all have been tried. If there are several, one that
    /// says to try again comes first.
    ///
    /// ```
    /// use gofer_sdk::{
    ///     Error, ErrorKind, Extension, ExternalEvent, Gofer, NoConfig, Result, Run, Subscriptions,
    /// };
    ///
    /// /// What a pipeline sets when it subscribes.
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct Params {
    ///     /// The branch whose pushes run the pipeline.
    ///     branch: String,
    /// }
    ///
    /// struct Pushes;
    ///
    /// impl Extension for Pushes {
    ///     type Config = NoConfig;
    ///     type Params = Params;
    ///
    ///     async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
    ///         Ok(Self)
    ///     }
    ///
    ///     async fn external_event(
    ///         &self,
    ///         event: ExternalEvent,
    ///         subscriptions: Subscriptions<Params>,
    ///     ) -> Result<()> {
    ///         let Some(delivery) = event.header("x-delivery") else {
    ///             return Err(Error::new(ErrorKind::InvalidParameter, "`X-Delivery` is missing"));
    ///         };
    ///         let runs = subscriptions.start_runs(|subscription| {
    ///             let is_for_it = event.header("x-branch") == Some(&subscription.params().branch);
    ///             is_for_it.then(|| Run::because("a push").key(delivery))
    ///         });
    ///         runs.await.map(drop)
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<()> {
    /// # let core = gofer_core::Core::in_memory().await?;
    /// # let pushes = core.install::<Pushes>("pushes", gofer_core::NO_SETTINGS).await?;
    /// # pushes.subscribe("ops/one", "x", [("branch", "main")]).await?;
    /// # pushes.subscribe("ops/other", "x", [("branch", "next")]).await?;
    /// # for delivery in ["1", "2", "2"] {
    /// #     pushes.post([("X-Delivery", delivery), ("X-Branch", "main")], "").await?;
    /// # }
    /// # assert_eq!((core.runs("ops/one").len(), core.runs("ops/other").len()), (2, 0));
    /// # Ok(()) }
    /// ```
    pub async fn start_runs(
        &self,
        mut run: impl FnMut(&Subscription<P>) -> Option<Run> + Send,
    ) -> Result<Vec<RunInfo>> {
        let wanted = self.all.iter().filter_map(|subscription| {
            let run = run(subscription)?;
            Some((subscription.any(), run))
        });
        start_all(wanted.collect()).await
    }
}

/// Boxed: it is compiled once, whatever the parameters.
fn start_all(wanted: Vec<(Arc<dyn AnyLive>, Run)>) -> BoxFuture<'static, Result<Vec<RunInfo>>> {
    Box::pin(async move {
        // Dropped with this future.
        let mut starts = JoinSet::new();
        for (live, run) in wanted {
            let span = live.key.span();
            let start = async move { (Start::new(Arc::clone(&live).shared(), run).await, live) };
            starts.spawn(for_event(start.instrument(span)));
        }
        let mut runs = Vec::with_capacity(starts.len());
        let mut failed: Option<Error> = None;
        while let Some(start) = starts.join_next().await {
            let (outcome, live) = start?;
            let error = match outcome {
                Ok(run) => {
                    runs.push(run);
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::FailedPrecondition | ErrorKind::NotFound => {
                    live.key.span().in_scope(|| {
                        tracing::info!(%error, "Gofer refuses to run the pipeline");
                    });
                }
                ErrorKind::Cancelled if live.why_cancelled() == Some(Cancelled::Unsubscribed) => {}
                _ if failed.as_ref().is_none_or(|failed| !is_transient(failed)) => {
                    failed = Some(error);
                }
                _ => {}
            }
        }
        match failed {
            None => Ok(runs),
            Some(error) => Err(error),
        }
    })
}

/// Whether the same may succeed later.
fn is_transient(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled)
}

impl<P> IntoIterator for Subscriptions<P> {
    type Item = Subscription<P>;
    type IntoIter = std::vec::IntoIter<Subscription<P>>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

impl<'a, P> IntoIterator for &'a Subscriptions<P> {
    type Item = &'a Subscription<P>;
    type IntoIter = std::slice::Iter<'a, Subscription<P>>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

/// Pipelines and labels; never the parameters, which may be secrets.
impl<P> fmt::Debug for Subscriptions<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.all).finish()
    }
}
