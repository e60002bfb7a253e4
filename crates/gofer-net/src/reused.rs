//! Futures of calls, in memory that is used again.
//!
//! The future of a call is some kilobytes. On the heap of a process with a million subscriptions, an
//! allocator needs longer to find a place for it, and to take that back, than the rest of the call
//! takes. So a few are kept for the calls that follow.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::LocalKey;

use tokio_util::sync::ReusableBoxFuture;

/// What a future does that is used again.
pub trait Job: Send + 'static {
    type Output: Send + 'static;

    /// Does it. Without a job it holds nothing and is never polled.
    fn run(job: Option<Self>) -> impl Future<Output = Self::Output> + Send + 'static
    where
        Self: Sized;

    /// Those of this thread that are at rest.
    fn at_rest() -> &'static LocalKey<AtRest<Self::Output>>;
}

/// Futures that hold nothing.
pub struct AtRest<T>(RefCell<Vec<ReusableBoxFuture<'static, T>>>);

/// As many as there are calls in flight at most, but in a burst of webhooks.
const AT_REST: usize = 64;

impl<T> AtRest<T> {
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }
}

impl<T> Default for AtRest<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The future of a job. If it is dropped, so is what it holds.
pub struct Reused<J: Job>(
    /// `None` once it has completed.
    Option<ReusableBoxFuture<'static, J::Output>>,
);

impl<J: Job> Reused<J> {
    pub fn new(job: J) -> Self {
        let kept = J::at_rest().try_with(|at_rest| at_rest.0.borrow_mut().pop());
        let run = J::run(Some(job));
        Self(Some(match kept {
            Ok(Some(mut future)) => {
                future.set(run);
                future
            }
            Ok(None) | Err(_) => ReusableBoxFuture::new(run),
        }))
    }

    /// Keeps a future that holds nothing.
    fn keep(future: ReusableBoxFuture<'static, J::Output>) {
        // If the thread ends, it is dropped.
        let _ = J::at_rest().try_with(|at_rest| {
            let mut at_rest = at_rest.0.borrow_mut();
            if at_rest.len() < AT_REST {
                at_rest.push(future);
            }
        });
    }
}

impl<J: Job> Future for Reused<J> {
    type Output = J::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<J::Output> {
        // As any other future, it is not polled once it has completed.
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let polled = future.poll(context);
        if polled.is_ready()
            && let Some(future) = self.0.take()
        {
            // What has completed holds nothing.
            Self::keep(future);
        }
        polled
    }
}

// What it holds is behind a pointer.
impl<J: Job> Unpin for Reused<J> {}

impl<J: Job> Drop for Reused<J> {
    fn drop(&mut self) {
        if let Some(mut future) = self.0.take() {
            // Drops what it holds, which may make calls of its own.
            future.set(J::run(None));
            Self::keep(future);
        }
    }
}

impl<J: Job> fmt::Debug for Reused<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reused")
    }
}

#[cfg(test)]
mod tests;
