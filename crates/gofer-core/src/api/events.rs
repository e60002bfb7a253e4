//! Events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

use super::{Api, ResponseStream};
use crate::authorize::{Caller, TokenWatch};
use crate::store::{EventBatch, Store};
use gofer_net::BoxFuture;
use gofer_proto as proto;

/// Events taken out of the store at a time.
const BATCH: usize = 256;

impl Api {
    pub(super) fn get_event(
        &self,
        caller: &Caller,
        request: proto::GetEventRequest,
    ) -> Result<proto::GetEventResponse, Status> {
        // The same error whether it does not exist or belongs to another namespace, so that it
        // reveals nothing about the latter.
        match self.store.event(request.id, &caller.scopes())? {
            Some(event) => Ok(proto::GetEventResponse { event: Some(event) }),
            None => Err(Status::not_found(format!(
                "event {} does not exist, was removed, or belongs to a namespace that the token \
                 has no access to",
                request.id
            ))),
        }
    }

    /// The events that are kept, with `reverse` newest first, and with `follow` future ones.
    pub(super) fn list_events(
        &self,
        caller: Caller,
        token: TokenWatch,
        request: proto::ListEventsRequest,
    ) -> ResponseStream<proto::ListEventsResponse> {
        let last = self.store.progress().borrow().last;
        Box::pin(Reader {
            store: Arc::clone(&self.store),
            caller,
            token,
            back: request.reverse.then_some(last + 1),
            after: if request.reverse { last } else { 0 },
            // New events must not prolong the listing.
            until: if request.follow { i64::MAX } else { last },
            follow: request.follow,
            read: Vec::new().into_iter(),
            next: None,
            over: false,
        })
    }
}

/// Reads events from the store as fast as they are consumed.
struct Reader {
    store: Arc<Store>,
    caller: Caller,
    token: TokenWatch,
    /// While reading backwards: the number to continue before.
    back: Option<i64>,
    /// The number to continue after.
    after: i64,
    until: i64,
    follow: bool,
    read: vec::IntoIter<proto::Event>,
    /// Resolves to whether there may be more to read.
    next: Option<BoxFuture<'static, bool>>,
    over: bool,
}

impl Reader {
    /// Reads the next batch. `Ok(false)` if there is nothing to read now.
    fn read_on(&mut self) -> Result<bool, Status> {
        self.token.check()?;
        if self.back.is_none() && self.after >= self.until {
            return Ok(false);
        }
        let sees = self.caller.scopes();
        if let Some(before) = self.back {
            let EventBatch { events, through, .. } =
                self.store.events_before(before, BATCH, &sees)?;
            self.back = (through > 0).then_some(through);
            self.read = events.into_iter();
            return Ok(true);
        }
        let EventBatch { events, through, missed } =
            self.store.events_after(self.after, self.until, BATCH, &sees)?;
        // Only at the start may older ones be missing.
        if missed && self.after > 0 {
            return Err(Status::resource_exhausted(format!(
                "events after {} were dropped before they were read; read faster, or list again",
                self.after
            )));
        }
        if through == self.after {
            return Ok(false);
        }
        self.after = through;
        self.read = events.into_iter();
        Ok(true)
    }

    fn wait(&mut self) -> &mut BoxFuture<'static, bool> {
        let Self { store, token, after, next, .. } = self;
        next.get_or_insert_with(|| {
            let mut progress = store.progress();
            let (after, changed) = (*after, token.may_have_changed());
            Box::pin(async move {
                tokio::select! {
                    biased;
                    more = progress.wait_for(|it| it.last > after || it.closed) => {
                        more.is_ok_and(|it| it.last > after)
                    }
                    () = changed => true,
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
            // A revoked token must not receive what has already been read.
            if self.token.has_changed()
                && let Err(status) = self.token.check()
            {
                self.over = true;
                return Poll::Ready(Some(Err(status)));
            }
            if let Some(event) = self.read.next() {
                if self.caller.may_lose_access() && !self.caller.can_see(&event) {
                    continue;
                }
                return Poll::Ready(Some(Ok(proto::ListEventsResponse { event: Some(event) })));
            }
            match self.read_on() {
                Ok(true) => {
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
