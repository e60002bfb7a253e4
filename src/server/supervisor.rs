//! Runs the author's `serve` for one subscription, and restarts it after a delay if it fails.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::erased::Initialized;
use crate::catch_panic::{CatchPanic, catch_panic_in, drop_caught};
use crate::error::{Error, ErrorKind, Result};
use crate::extension::{Extension, Failure, Live, State, Subscription, Warning, brief, in_span};
use gofer_net::{Backoff, BoxFuture};

/// The first pause is short, since most failures are transient; the longest is about as long as an
/// operator waits in front of a dashboard.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The longest pause if Gofer refused to start a run and there are no ticks. That is over when
/// someone enables the pipeline, for example, and they expect the next run soon.
const MAX_PAUSE_IF_REFUSED: Duration = Duration::from_secs(30);

/// A `serve` that ran this long has recovered: the next failure counts as the first.
const RECOVERED: i64 = 10 * 60 * 1_000_000_000;

/// Kept small: there is one of these futures for each live subscription (a test below checks its
/// size). What only a failure needs is boxed.
pub(super) struct Supervised<E: Extension> {
    pub(super) ready: Arc<Initialized<E>>,
    pub(super) live: Arc<Live<E::Params>>,
}

impl<E: Extension> Supervised<E> {
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would store its argument twice, for each subscription"
    )]
    pub(super) fn supervise(self) -> impl Future<Output = ()> + Send {
        async move {
            loop {
                self.live.set_state(State::Serving);
                let outcome = serve(&self.ready.extension, &self.live).await;
                self.live.set_state(match outcome {
                    Ok(()) => State::Idle,
                    Err(_) => State::Restarting,
                });
                if !again(&*self.live, outcome, &self.ready.failing).await {
                    return;
                }
            }
        }
    }
}

/// Calls it. No `async fn`, which would store its arguments twice, for each subscription.
fn serve<'a, E: Extension>(
    extension: &'a E,
    live: &'a Arc<Live<E::Params>>,
) -> impl Future<Output = Result<()>> + Send + 'a {
    let subscription = Subscription::new(Arc::clone(live));
    let span = live.kept_span().unwrap_or_else(|| live.key.span());
    // It may panic before it returns its future too.
    let serve = span.in_scope(|| catch_panic_in(|| Ok(extension.serve(subscription))));
    if serve.is_ok() {
        live.keep_span_for_start(span);
    }
    // In this order, what is in the span and a failure are told apart by the reference to `live`.
    CatchPanic::of(serve.map(|serve| in_span(&**live, serve)))
}

/// Returns whether to call `serve` again. After a failure it waits before it does.
///
/// Boxed: a subscription that has not failed must not hold what only a failure needs.
fn again<'a>(
    live: &'a Live,
    outcome: Result<()>,
    failing: &'a watch::Sender<usize>,
) -> BoxFuture<'a, bool> {
    Box::pin(async move {
        let Err(error) = outcome else { return false };
        if !live.is_cancelled() {
            recover(live, error, failing).await;
        } else if error.kind() != ErrorKind::Cancelled {
            let _entered = live.key.span().entered();
            let _ = catch_panic_in(|| {
                tracing::debug!(?error, "the subscription failed while it ended");
                Ok(())
            });
            drop_caught("an error", error);
        }
        !live.is_cancelled()
    })
}

/// Records the failure, ends what `serve` spawned, and waits.
async fn recover(live: &Live, error: Error, failing: &watch::Sender<usize>) {
    let kind = error.kind();
    // Formatting an error runs the author's code, or another crate's.
    let texts = catch_panic_in(|| Ok((brief(&error), format!("{error:?}"))));
    drop_caught("an error", error);
    let (reason, error) = texts.unwrap_or_else(|_| {
        let unknown = "an error that panics when it is formatted";
        (unknown.to_owned(), unknown.to_owned())
    });
    let Recorded { restarts, pause, is_news } = record(live, reason, kind, &error);
    let restart_in_seconds = pause.as_secs_f64();
    live.key.span().in_scope(|| {
        if is_news {
            tracing::warn!(
                error,
                restarts,
                restart_in_seconds,
                "the subscription failed and will be restarted; the same error is not logged again"
            );
        } else {
            tracing::debug!(
                error,
                restarts,
                restart_in_seconds,
                "the subscription failed again and will be restarted"
            );
        }
    });
    let _counted = CountedAsFailing::new(failing);
    let pause = async {
        // What it spawned must not run beside what the next one spawns.
        live.end_spawned().await;
        tokio::time::sleep(pause).await;
    };
    tokio::select! {
        biased;
        () = pause => {}
        _ = live.cancelled() => {}
    }
    if let Some(failure) = &mut live.activity().failure {
        failure.waiting = false;
        failure.at = live.context.gofer.monotonic();
    }
}

struct Recorded {
    /// How often it has been restarted before.
    restarts: u32,
    /// How long to wait before it is restarted.
    pause: Duration,
    /// Whether the log should say so.
    is_news: bool,
}

/// `error` is all that is known of it, for the log.
fn record(live: &Live, message: String, kind: ErrorKind, error: &str) -> Recorded {
    let now = live.context.gofer.monotonic();
    // Logged once for all.
    let is_outage = is_of_outages(kind) && live.context.gofer.has_outage();
    let mut activity = live.activity();
    let last = activity.failure.take().filter(|last| now - last.at < RECOVERED);
    let restarts = last.as_ref().map_or(0, |last| last.restarts.saturating_add(1));
    let growing = growing_pause(restarts, MAX_PAUSE);
    let error = hash(error);
    let last = last.and_then(|last| last.warning);
    let is_known = last.is_some_and(|last| {
        // However short the pauses are, there are no more warnings than if they were growing.
        last.error == error && !last.is_over || now - last.at < nanos(growing)
    });
    let is_news = !is_known && !is_outage && live.context.failures.record().is_some();
    let warning = if is_news { Some(Warning { error, at: now, is_over: false }) } else { last };
    let since = live.context.gofer.now_nanos();
    let (waiting, is_over) = (true, false);
    let failure = Failure { message, restarts, waiting, since, is_over, at: now, warning };
    activity.set_failure(failure);
    let pause = match live.until_next_tick() {
        // An ordinary tick would do the same again: there is no reason to wait longer than for that.
        Some(left) => growing.min(left.max(FIRST_PAUSE)),
        None if live.is_refused() => growing_pause(restarts, MAX_PAUSE_IF_REFUSED),
        None => growing,
    };
    Recorded { restarts, pause, is_news }
}

/// The kinds of errors that calls fail with during an outage of Gofer.
fn is_of_outages(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable
            | ErrorKind::DeadlineExceeded
            | ErrorKind::Unauthenticated
            | ErrorKind::PermissionDenied
            | ErrorKind::ResourceExhausted
    )
}

fn growing_pause(restarts: u32, most: Duration) -> Duration {
    let mut backoff = Backoff::new(FIRST_PAUSE, most);
    for _ in 0..restarts.min(16) {
        backoff.pause();
    }
    backoff.pause()
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Counts a subscription as failing while it waits, also if its future is dropped.
struct CountedAsFailing<'a>(&'a watch::Sender<usize>);

impl<'a> CountedAsFailing<'a> {
    fn new(failing: &'a watch::Sender<usize>) -> Self {
        failing.send_modify(|count| *count += 1);
        Self(failing)
    }
}

impl Drop for CountedAsFailing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests;
