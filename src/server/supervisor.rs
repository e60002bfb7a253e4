//! The life of one subscription: run the author's `serve`, and where it fails,
//! run it again after a pause.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::contain::{contain, contain_call};
use super::erased::Ready;
use crate::error::{Error, ErrorKind};
use crate::extension::{Extension, Failure, Live, Subscription, log_panic};
use gofer_net::Backoff;

/// The first pause is short, since most failures pass; the longest is as long
/// as an operator who looks at a dashboard waits.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// A `serve` that lasted this long has recovered: the next failure is a first.
const RECOVERED: i64 = 10 * 60 * 1_000_000_000;

/// Of a failure's sentence this much is kept for Info, which is bounded. An
/// author may have put the whole of what another server said into it.
const MOST_REASON_CHARS: usize = 500;

/// Kept small: there is one of these futures for each live subscription, and
/// each word of it counts (a test below holds it to its size). Whatever only a
/// failure needs is boxed.
pub(super) struct Supervised<E: Extension> {
    pub(super) ready: Arc<Ready<E>>,
    pub(super) live: Arc<Live<E::Params>>,
}

impl<E: Extension> Supervised<E> {
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` holds its argument twice, for each subscription"
    )]
    pub(super) fn supervise(self) -> impl Future<Output = ()> + Send {
        async move {
            let this = &self;
            // Called inside the contained future: a `serve` that panics before
            // it gives a future is contained too.
            while let Err(error) = contain(async move {
                this.ready.extension.serve(Subscription::new(Arc::clone(&this.live))).await
            })
            .await
            {
                if this.live.is_cancelled() {
                    if error.kind() != ErrorKind::Cancelled {
                        let subscription = &this.live.key;
                        tracing::debug!(%subscription, ?error, "failed while it ended");
                    }
                    return;
                }
                Box::pin(recover(&*this.live, &error, &this.ready.failing)).await;
                if this.live.is_cancelled() {
                    return;
                }
            }
        }
    }
}

/// Notes the failure, ends what `serve` left behind, and waits.
async fn recover(live: &Live, error: &Error, failing: &watch::Sender<usize>) {
    // What an error says is the author's code, or another crate's.
    let message = contain_call(|| Ok(told(error)))
        .unwrap_or_else(|_| "an error that panics when it is told".to_owned());
    let restarts = note(live, message);
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut pause = backoff.pause();
    for _ in 0..restarts.min(16) {
        pause = backoff.pause();
    }
    let log = contain_call(|| {
        tracing::warn!(
            subscription = %live.key, ?error, restarts,
            again_in_seconds = pause.as_secs_f64(),
            "a subscription failed and will be started again"
        );
        Ok(())
    });
    if log.is_err() {
        let subscription = &live.key;
        tracing::warn!(%subscription, restarts, "a subscription failed; its error cannot be told");
    }
    // What it spawned ends with it, or it would run twice after the restart.
    let spawned = live.activity().spawned.take();
    if let Some(mut spawned) = spawned {
        spawned.abort_all();
        while let Some(ended) = spawned.join_next().await {
            log_panic(&live.key, ended);
        }
    }
    let _counted = Counted::new(failing);
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = live.cancelled() => {}
    }
    if let Some(failure) = &mut live.activity().failure {
        failure.waiting = false;
        failure.at = live.context.gofer.monotonic();
    }
}

/// Returns how often it was restarted before.
fn note(live: &Live, message: String) -> u32 {
    let now = live.context.gofer.monotonic();
    let mut activity = live.activity();
    let restarts = match &activity.failure {
        Some(last) if now - last.at < RECOVERED => last.restarts.saturating_add(1),
        _ => 0,
    };
    activity.failure = Some(Box::new(Failure { message, restarts, waiting: true, at: now }));
    restarts
}

/// What Info tells of a failure.
fn told(error: &Error) -> String {
    let mut message = match error.kind() {
        // May name what nobody outside should see; the log has it.
        ErrorKind::Internal => "internal error, see the extension's log".to_owned(),
        _ => error.to_string(),
    };
    if let Some((end, _)) = message.char_indices().nth(MOST_REASON_CHARS) {
        // A new text: a cut one would keep the memory of the whole.
        message = format!("{}…", &message[..end]);
    }
    message
}

/// Counts a subscription among the failing ones for as long as it waits, also
/// where its future is dropped.
struct Counted<'a>(&'a watch::Sender<usize>);

impl<'a> Counted<'a> {
    fn new(failing: &'a watch::Sender<usize>) -> Self {
        failing.send_modify(|count| *count += 1);
        Self(failing)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extension::{GoDuration, NoConfig};
    use crate::{Gofer, Result, Run};

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Params {
        every: GoDuration,
    }

    struct Ticking;

    impl Extension for Ticking {
        type Config = NoConfig;
        type Params = Params;

        async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
            Ok(Self)
        }

        async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
            let mut ticks = subscription.every(subscription.params().every)?;
            while ticks.next().await {
                subscription.start_run(Run::because("the interval elapsed")).await?;
            }
            Ok(())
        }
    }

    fn size_of_output<A, R>(_: fn(A) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_subscription_that_ticks_fits_into_384_bytes_of_task() {
        // The task around it takes 104 bytes, and tokio rounds to 128.
        let size = size_of_output(Supervised::<Ticking>::supervise);
        assert!(size <= 280, "the future has grown to {size} bytes");
    }
}
