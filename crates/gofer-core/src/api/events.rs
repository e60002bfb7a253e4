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
use gofer_proto::embedded::follow_events_response::Part;
use gofer_proto::embedded::{FollowEventsRequest, FollowEventsResponse};

/// Events taken out of the store at a time.
const BATCH: usize = 256;

/// A follower learns its position after this many events that it may not see.
const POSITION_AFTER: i64 = 256;

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

    /// The events after one, and those that follow.
    pub(super) fn follow_events(
        &self,
        caller: Caller,
        token: TokenWatch,
        request: FollowEventsRequest,
    ) -> ResponseStream<FollowEventsResponse> {
        let (before_oldest, newest) = self.store.kept_events();
        let after = match request.after {
            Some(after) if after <= newest => after.max(before_oldest),
            // There have never been that many.
            Some(_) | None => newest,
        };
        let reader = Reader {
            store: Arc::clone(&self.store),
            caller,
            token,
            back: None,
            after,
            until: i64::MAX,
            follow: true,
            read: Vec::new().into_iter(),
            next: None,
            over: false,
        };
        Box::pin(Follower { reader, told: None })
    }
}

/// Reads on, and says where it is.
struct Follower {
    reader: Reader,
    /// The number up to which its reader knows that it has everything.
    told: Option<i64>,
}

impl Stream for Follower {
    type Item = Result<FollowEventsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { reader, told } = &mut *self;
        let part = if told.is_some() {
            match reader.poll_event(context) {
                Poll::Ready(Some(Ok(event))) => {
                    *told = Some(event.id);
                    Part::Event(event)
                }
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(None) => return Poll::Ready(None),
                // It waits, so all that it has looked at has been sent.
                Poll::Pending => match *told {
                    Some(told) if reader.after - told < POSITION_AFTER => return Poll::Pending,
                    _ => Part::Position(reader.after),
                },
            }
        } else {
            Part::Position(reader.after)
        };
        if let Part::Position(position) = part {
            *told = Some(position);
        }
        Poll::Ready(Some(Ok(FollowEventsResponse { part: Some(part) })))
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

    fn poll_event(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<proto::Event, Status>>> {
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
                return Poll::Ready(Some(Ok(event)));
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

impl Stream for Reader {
    type Item = Result<proto::ListEventsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = ready!(self.poll_event(context));
        Poll::Ready(event.map(|event| Ok(proto::ListEventsResponse { event: Some(event?) })))
    }
}
