//! What happened on the server.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

use super::{Api, BoxFuture, Messages};
use crate::authorize::{Caller, Lease};
use crate::store::Store;
use gofer_proto as proto;

/// Events taken out of the store at a time.
const BATCH: usize = 256;

impl Api {
    pub(super) fn get_event(
        &self,
        caller: &Caller,
        request: proto::GetEventRequest,
    ) -> Result<proto::GetEventResponse, Status> {
        // The same answer for what is not there and what is another's, so that
        // nothing is learned of the latter.
        match self.store.event(request.id).filter(|event| caller.may_see(event)) {
            Some(event) => Ok(proto::GetEventResponse { event: Some(event) }),
            None => Err(Status::not_found(format!(
                "there is no event {}, or no more, or the token gives no access to its namespace",
                request.id
            ))),
        }
    }

    /// Those that are kept, newest first where `reverse` says so, and with
    /// `follow`, those to come.
    pub(super) fn list_events(
        &self,
        caller: Caller,
        lease: Lease,
        request: proto::ListEventsRequest,
    ) -> Messages<proto::ListEventsResponse> {
        let last = self.store.progress().borrow().last;
        Box::pin(Reader {
            store: Arc::clone(&self.store),
            caller,
            lease,
            back: request.reverse.then_some(last + 1),
            after: if request.reverse { last } else { 0 },
            // What happens while somebody reads must not keep him reading.
            until: if request.follow { i64::MAX } else { last },
            follow: request.follow,
            read: Vec::new().into_iter(),
            next: None,
            over: false,
        })
    }
}

/// Reads events out of the store as fast as somebody takes them.
struct Reader {
    store: Arc<Store>,
    caller: Caller,
    lease: Lease,
    /// Going back first: the number before which to go on.
    back: Option<i64>,
    /// The number after which to go on.
    after: i64,
    until: i64,
    follow: bool,
    read: vec::IntoIter<proto::Event>,
    /// Completes with whether it is worth reading on.
    next: Option<BoxFuture<bool>>,
    over: bool,
}

impl Reader {
    /// Reads on. `Ok(false)` where there is nothing to be read now.
    fn read_on(&mut self) -> Result<bool, Status> {
        self.lease.check()?;
        if self.back.is_none() && self.after >= self.until {
            return Ok(false);
        }
        let events = if let Some(before) = self.back {
            let events = self.store.events_before(before, BATCH);
            self.back = events.last().map(|oldest| oldest.id);
            events
        } else {
            let mut events = self.store.events_after(self.after, BATCH);
            // At the start, and nowhere else, older ones may be missing.
            if self.after > 0 && events.first().is_some_and(|it| it.id > self.after + 1) {
                return Err(Status::resource_exhausted(format!(
                    "events after {} were dropped before they were read; read faster, or list \
                     again",
                    self.after
                )));
            }
            events.retain(|event| event.id <= self.until);
            let Some(newest) = events.last() else { return Ok(false) };
            self.after = newest.id;
            events
        };
        let seen: Vec<_> = events.into_iter().filter(|it| self.caller.may_see(it)).collect();
        self.read = seen.into_iter();
        Ok(true)
    }

    fn wait(&mut self) -> &mut BoxFuture<bool> {
        let Self { store, lease, after, next, .. } = self;
        next.get_or_insert_with(|| {
            let mut progress = store.progress();
            let (after, doubt) = (*after, lease.doubt());
            Box::pin(async move {
                tokio::select! {
                    more = progress.wait_for(|it| it.last > after || it.closed) => {
                        more.is_ok_and(|it| it.last > after)
                    }
                    () = doubt => true,
                }
            })
        })
    }
}

impl Stream for Reader {
    type Item = Result<proto::ListEventsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            // What has been read already is not for a token that was withdrawn.
            if self.lease.is_doubtful()
                && let Err(status) = self.lease.check()
            {
                self.over = true;
                return Poll::Ready(Some(Err(status)));
            }
            if let Some(event) = self.read.next() {
                return Poll::Ready(Some(Ok(proto::ListEventsResponse { event: Some(event) })));
            }
            match self.read_on() {
                Ok(true) => {
                    if self.read.len() == 0 {
                        // None of them is for this caller: others get their
                        // turn before the next ones are looked through.
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    continue;
                }
                Ok(false) if !self.follow => return Poll::Ready(None),
                Ok(false) => {}
                Err(status) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
            let more = ready!(self.wait().as_mut().poll(context));
            self.next = None;
            if !more {
                self.over = true;
                return Poll::Ready(Some(Err(Status::unavailable("the core is stopping"))));
            }
        }
    }
}
