//! A panic in the author's code becomes an error here, and the server goes on.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::error::{Error, Result};

/// Runs a future of the author's; a panic in it becomes an internal error.
pub(crate) fn catch_panic<T, F: Future<Output = Result<T>>>(future: F) -> CatchPanic<F> {
    CatchPanic::Future { future }
}

pin_project! {
    /// A future whose panics are errors. A type of its own instead of an `async fn`: there is one
    /// for each live subscription, and this adds no bytes to it.
    #[project = Project]
    pub(crate) enum CatchPanic<F> {
        Future {
            #[pin]
            future: F,
        },
        /// The call that was to return the future has failed.
        Failed { error: Option<Error> },
    }
}

impl<F> CatchPanic<F> {
    /// A future, or why there is none.
    pub(crate) fn of(future: Result<F>) -> Self {
        match future {
            Ok(future) => Self::Future { future },
            Err(error) => Self::Failed { error: Some(error) },
        }
    }
}

impl<T, F: Future<Output = Result<T>>> Future for CatchPanic<F> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        match self.project() {
            Project::Future { future } => poll_caught(future, context),
            Project::Failed { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                // It has been returned.
                None => Poll::Pending,
            },
        }
    }
}

/// Not generic over the future, so compiled once instead of in each author's crate.
fn poll_caught<T>(
    future: Pin<&mut dyn Future<Output = Result<T>>>,
    context: &mut Context<'_>,
) -> Poll<Result<T>> {
    // After a panic the future is only dropped. What it shares with others may be left in an
    // inconsistent state, as after a panic in any task.
    catch_unwind(AssertUnwindSafe(|| future.poll(context)))
        .unwrap_or_else(|payload| Poll::Ready(Err(panicked(payload))))
}

/// The same for a call that is not asynchronous.
pub(crate) fn catch_panic_in<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| Err(panicked(payload)))
}

fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let error = Error::internal(format!("the extension panicked: {}", panic_message(&*payload)));
    drop_panic(payload);
    error
}

/// Drops what runs the author's code when it is dropped, which may panic. `what` it is, for the
/// log.
pub(crate) fn drop_caught<T>(what: &'static str, held: T) {
    let dropped = catch_panic_in(|| {
        drop(held);
        Ok(())
    });
    if let Err(error) = dropped {
        tracing::error!(?error, "dropping {what} panicked");
    }
}

/// Drops what a panic of the author's carries. That is a value of the author's too, whose `Drop`
/// may panic: what that panic carries is not dropped.
pub(crate) fn drop_panic(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

/// The message of a panic.
pub fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
