//! What hyper spawns for a connection, without a task of its own for each call.
//!
//! Hyper has one future for all that it spawns, as large as the one that drives the connection. As
//! tasks, each call would take two blocks of more than a kilobyte from the allocator and return
//! them. The GNU C library then merges all the small blocks that were freed since, and takes the
//! next ones from among those that were free for longest: with a million subscriptions these lie
//! between theirs, in memory that no cache holds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::rt;
use pin_project_lite::pin_project;
use tokio::sync::mpsc;
use tokio_util::sync::ReusableBoxFuture;

/// For 64 calls, each of which has two. Rarely are more in flight on one connection.
const AT_REST: usize = 2 * 64;

/// For one connection.
#[derive(Clone)]
pub(crate) struct Executor {
    of_calls: mpsc::UnboundedSender<Running>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// The first future drives the connection, and is in a task of its own.
    has_first: bool,
    /// Memory of futures that have completed.
    at_rest: Vec<ReusableBoxFuture<'static, ()>>,
}

impl Executor {
    /// Spawns the task of all calls, which ends after the last of the executors.
    pub(super) fn spawn() -> Self {
        let (of_calls, added) = mpsc::unbounded_channel();
        let shared = Arc::default();
        tokio::spawn(run(added, Arc::clone(&shared)));
        Self { of_calls, shared }
    }
}

impl<F: Future<Output = ()> + Send + 'static> rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        let mut shared = lock(&self.shared);
        if !std::mem::replace(&mut shared.has_first, true) {
            drop(shared);
            tokio::spawn(future);
            return;
        }
        let at_rest = shared.at_rest.pop();
        drop(shared);
        let future = DropWhenComplete { future: Some(future) };
        let future = match at_rest {
            Some(mut memory) => {
                memory.set(future);
                memory
            }
            None => ReusableBoxFuture::new(future),
        };
        // If the runtime has shut down, it is dropped.
        let _ = self.of_calls.send(Running(Some(future)));
    }
}

async fn run(mut added: mpsc::UnboundedReceiver<Running>, shared: Arc<Mutex<Shared>>) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(memory) = running.next() => {
                let mut shared = lock(&shared);
                if shared.at_rest.len() < AT_REST {
                    shared.at_rest.extend(memory);
                }
            }
            Some(future) = added.recv() => running.push(future),
            else => return,
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nothing panics while it is held.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Completes with its memory.
struct Running(Option<ReusableBoxFuture<'static, ()>>);

impl Future for Running {
    type Output = Option<ReusableBoxFuture<'static, ()>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(future) = &mut self.0 {
            ready!(future.poll(context));
        }
        Poll::Ready(self.0.take())
    }
}

pin_project! {
    /// Drops the future once it has completed or panicked.
    struct DropWhenComplete<F> {
        #[pin]
        future: Option<F>,
    }
}

impl<F: Future<Output = ()>> Future for DropWhenComplete<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut future = self.project().future;
        if let Some(future) = future.as_mut().as_pin_mut() {
            // As in a task of its own, a panic ends this call alone. The hook has reported it.
            let polled = catch_unwind(AssertUnwindSafe(|| future.poll(context)));
            ready!(polled.unwrap_or(Poll::Ready(())));
        }
        future.set(None);
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
