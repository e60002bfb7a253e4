//! Calls of peers that have shown no valid token.
//!
//! Each may be a health check, or one of very many calls that never end. So their number and their
//! time are bounded, in classes that do not take places from each other: whatever others do, a
//! health check of a load balancer is answered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, Request, Response, Uri};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

use super::peer::{Close, OpenCall, Peer};
use super::{Context, ResponseFuture};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Concurrent calls of one connection, of each class: more than a load balancer makes.
const PER_CONNECTION: usize = 8;

/// Concurrent Watches of all connections, and calls that are neither a Check nor a Watch: few
/// enough to hold some megabytes at most. Checks hold next to nothing, and have no limit together:
/// whoever took all places would make everybody else's fail.
const WATCHES: usize = 512;
const OTHERS: usize = 512;

/// How long a Watch may take. The caller may then watch again.
const WATCH_TIME: Duration = Duration::from_secs(5 * 60);

/// How long the end of a response may wait for a peer that doesn't read it.
const UNREAD_TIME: Duration = Duration::from_secs(10);

/// The headers that gRPC itself needs.
const NEEDED: [HeaderName; 4] = [
    CONTENT_TYPE,
    TE,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Check,
    Watch,
    Other,
}

impl Class {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        match request.uri().path() {
            CHECK => Self::Check,
            WATCH => Self::Watch,
            _ => Self::Other,
        }
    }

    /// Removes what a health check doesn't need: a peer may send long headers, and the message
    /// late.
    pub(super) fn trim(self, request: &mut Request<Incoming>) {
        if self == Self::Check {
            *request.uri_mut() = Uri::from_static(CHECK);
            let mut headers = std::mem::take(request.headers_mut());
            let needed = NEEDED.into_iter().filter_map(|name| {
                let value = headers.remove(&name)?;
                Some((name, value))
            });
            *request.headers_mut() = needed.collect::<HeaderMap>();
        }
    }
}

/// How many calls of each class a connection has.
#[derive(Default)]
pub(super) struct Held([usize; 3]);

/// Places for the calls of all connections.
pub(super) struct Places {
    watches: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            watches: Arc::new(Semaphore::new(WATCHES)),
            others: Arc::new(Semaphore::new(OTHERS)),
        }
    }
}

/// A place of a call.
struct Taken {
    peer: Arc<Peer>,
    class: Class,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Places {
    fn take(&self, peer: &Arc<Peer>, class: Class) -> Option<Taken> {
        let of_all = match class {
            Class::Check => None,
            Class::Watch => Some(Arc::clone(&self.watches).try_acquire_owned().ok()?),
            Class::Other => Some(Arc::clone(&self.others).try_acquire_owned().ok()?),
        };
        peer.with_held(|Held(held)| {
            let held = held.get_mut(class as usize).filter(|held| **held < PER_CONNECTION)?;
            *held += 1;
            Some(())
        })?;
        Some(Taken { peer: Arc::clone(peer), class, _of_all: of_all })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.peer.with_held(|Held(held)| {
            if let Some(held) = held.get_mut(self.class as usize) {
                *held -= 1;
            }
        });
    }
}

/// Responds if there is a place, which is held until the response has been read.
pub(super) async fn respond(
    context: &Context,
    peer: &Arc<Peer>,
    class: Class,
    open: OpenCall,
    call: ResponseFuture,
) -> Response<Body> {
    let Some(taken) = context.places.take(peer, class) else {
        let why =
            "too many calls without a token are in progress; send a token, or try again later";
        return Status::resource_exhausted(why).into_http();
    };
    let timeout = context.service.limits.first_call_timeout;
    let Ok(Ok(response)) = tokio::time::timeout(timeout, call).await else {
        return Status::deadline_exceeded("the call did not complete in time").into_http();
    };
    let until = Instant::now() + if class == Class::Watch { WATCH_TIME } else { timeout };
    response.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        let unread = context.calls.spawn(close_at(until + UNREAD_TIME, Arc::clone(peer)));
        let end = Box::pin(tokio::time::sleep_until(until));
        Body::new(Bounded { body, end, unread: unread.abort_handle(), _taken: taken, _open: open })
    })
}

/// Closes the connection of a peer that doesn't read even the end of its response.
async fn close_at(time: Instant, peer: Arc<Peer>) {
    tokio::time::sleep_until(time).await;
    peer.close(Close::Now);
}

/// A response body that ends in time.
struct Bounded {
    body: Body,
    end: Pin<Box<Sleep>>,
    unread: AbortHandle,
    _taken: Taken,
    _open: OpenCall,
}

impl Drop for Bounded {
    fn drop(&mut self) {
        self.unread.abort();
    }
}

impl hyper::body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(task) {
            return Poll::Ready(frame);
        }
        if self.end.as_mut().poll(task).is_pending() {
            return Poll::Pending;
        }
        self.body = Body::empty();
        let mut trailers = HeaderMap::new();
        Status::unavailable("without a token the response ends here; send one, or call again")
            .add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
