//! The time in which the message of a call has to arrive.
//!
//! A call keeps its connection open, and its token may be revoked meanwhile. So a message that never
//! arrives must not keep the call open.

use std::pin::Pin;
use std::task::{self, Poll};

use bytes::Bytes;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

use crate::STREAMS_REQUESTS;

/// The body of a request with a single message. It fails if it has not arrived in time.
pub(super) struct Timed {
    body: Incoming,
    until: Instant,
    /// Made when it has to be waited for: the message of most calls is there already.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    /// Bounds the time of the request's message. Requests that are streams are not bounded.
    pub(super) fn wrap(request: Request<Incoming>, until: Instant) -> Request<Body> {
        if STREAMS_REQUESTS.contains(&request.uri().path()) {
            return request.map(Body::new);
        }
        request.map(|body| Body::new(Self { body, until, sleep: None }))
    }
}

impl hyper::body::Body for Timed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(task) {
            return Poll::Ready(
                frame.map(|frame| frame.map_err(|error| Status::from_error(error.into()))),
            );
        }
        let until = self.until;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if sleep.as_mut().poll(task).is_pending() {
            return Poll::Pending;
        }
        let late = "the request message did not arrive in time";
        Poll::Ready(Some(Err(Status::deadline_exceeded(late))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
