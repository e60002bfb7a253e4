//! Reads events after one, in order, over any number of connections, from either kind of Gofer.
//!
//! An embedded core has a stream that begins after an event and says where it does. A full Gofer's
//! stream replays the whole history and repeats what happens meanwhile. There, the reader asks for
//! the event with the next number, once a second while that does not exist. Whether it is not there
//! yet or missing for good shows the newest number, which the reader looks up now and then: what is
//! smaller, and still not there a second later, never will be.

use std::time::Duration;

use gofer_net::{Backoff, Effect, effect};
use gofer_proto as proto;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::embedded::follow_events_response::Part;
use gofer_proto::embedded::{FollowEventsRequest, FollowEventsResponse};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use super::super::{BACKOFF, Event, Gofer, meaning};

/// How often a full Gofer is asked for the next event.
const POLL: Duration = Duration::from_secs(1);

/// How often it is asked for the newest number, as long as the next event is not there.
const LOOK: Duration = Duration::from_secs(10);

/// An event that exists, for all that is known, and cannot be read is asked for this often.
const ATTEMPTS: u32 = 5;

/// After so many missing events in a row, the rest is not asked for one by one.
const MISSING: u32 = 1000;

/// What a reader does.
pub(super) enum Step {
    /// It has begun, or nothing can be seen up to where it is.
    Position,
    Event(Event),
    /// Events are missing before its position.
    Gap,
}

/// Reads events. Its position is kept if a future of [`next`](Self::next) is dropped.
pub(super) struct Reader {
    gofer: Gofer,
    /// The number of the last event; `None` if it has yet to begin, with the newest.
    after: Option<i64>,
    source: Source,
    backoff: Backoff,
    /// When it tries again, after a failure.
    again: Option<Instant>,
}

enum Source {
    None,
    Core(Box<Streaming<FollowEventsResponse>>),
    Full(Polls),
}

/// What a reader knows of a full Gofer.
struct Polls {
    /// The number of the connection on which it was found to be one.
    connection: u64,
    /// The newest number that is known.
    newest: i64,
    /// Numbers up to this one that are not there are missing for good.
    settled: i64,
    next: Instant,
    look: Instant,
    attempts: u32,
    /// How many in a row have been missing.
    missing: u32,
}

impl Reader {
    /// Begins after the newest event.
    pub(super) fn from_now(gofer: Gofer) -> Self {
        Self { gofer, after: None, source: Source::None, backoff: BACKOFF, again: None }
    }

    /// Begins after an event.
    pub(super) fn after(gofer: Gofer, event: i64) -> Self {
        Self { after: Some(event), ..Self::from_now(gofer) }
    }

    /// The number up to which it has read.
    pub(super) fn position(&self) -> i64 {
        self.after.unwrap_or(i64::MIN)
    }

    /// Waits until there is something to do, whatever happens to the connection.
    pub(super) async fn next(&mut self) -> Result<Step, Status> {
        loop {
            if let Some(again) = self.again {
                tokio::time::sleep_until(again).await;
                self.again = None;
            }
            let outcome = match &mut self.source {
                Source::None => self.open().await,
                Source::Core(stream) => match stream.message().await {
                    Ok(Some(FollowEventsResponse { part })) => Ok(self.received(part)),
                    Ok(None) => Err(Status::unavailable("the stream of events has ended")),
                    Err(status) => Err(status),
                },
                // Boxed: it is rare, and its future large.
                Source::Full(_) => Box::pin(self.poll()).await,
            };
            match outcome {
                Ok(Some(step)) => {
                    // After a gap there may be another one at once.
                    if !matches!(step, Step::Gap) {
                        self.backoff = BACKOFF;
                    }
                    return Ok(step);
                }
                Ok(None) => {}
                Err(status) => self.failed(status)?,
            }
        }
    }

    /// An error if trying again is of no use.
    fn failed(&mut self, status: Status) -> Result<(), Status> {
        self.source = Source::None;
        let effect = effect(&status);
        let code = meaning(&status).0;
        let is_permanent = effect == Effect::Refused
            && matches!(code, Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented);
        if is_permanent || self.gofer.inner.transport.channel().is_closed() {
            return Err(status);
        }
        tracing::debug!(after = self.after, %status, "the stream of events was lost");
        // All that wait for the connection try again together.
        let next = self.gofer.next_attempt().filter(|_| effect == Effect::None);
        self.again = Some(next.unwrap_or_else(|| Instant::now() + self.backoff.pause()));
        Ok(())
    }

    /// Opens the stream of an embedded core, or finds out that it is none.
    async fn open(&mut self) -> Result<Option<Step>, Status> {
        let transport = self.gofer.inner.transport.clone();
        let connection = transport.connected().await?;
        let request = FollowEventsRequest { after: self.after };
        let open = async {
            let mut core = EmbeddedCoreClient::new(transport.clone());
            let mut stream = core.follow_events(request).await?.into_inner();
            let first = stream.message().await?;
            Ok((stream, first))
        };
        match within(transport.deadline(), open).await {
            Ok((stream, Some(FollowEventsResponse { part: Some(Part::Position(begins)) }))) => {
                self.source = Source::Core(Box::new(stream));
                Ok(self.begins(begins))
            }
            Ok(_) => Err(Status::internal("the stream does not say where it begins")),
            Err(status) if status.code() == Code::Unimplemented => {
                let (now, known) = (Instant::now(), self.after.unwrap_or(0));
                self.source = Source::Full(Polls {
                    connection,
                    newest: known,
                    settled: known,
                    next: now,
                    look: now,
                    attempts: 0,
                    missing: 0,
                });
                Ok(None)
            }
            Err(status) => Err(status),
        }
    }

    /// What follows are the events after this one.
    fn begins(&mut self, position: i64) -> Option<Step> {
        match self.after.replace(position) {
            None => Some(Step::Position),
            Some(after) if after == position => None,
            Some(after) if after < position => {
                tracing::warn!(after, position, "events were removed before they were read");
                Some(Step::Gap)
            }
            Some(after) => {
                tracing::warn!(
                    after,
                    position,
                    "Gofer has fewer events than before, so its store is another one; following \
                     what happens from now on"
                );
                Some(Step::Gap)
            }
        }
    }

    fn received(&mut self, part: Option<Part>) -> Option<Step> {
        match part? {
            Part::Event(event) if event.id > self.position() => {
                self.after = Some(event.id);
                Some(Step::Event(event.into()))
            }
            Part::Event(_) => None,
            Part::Position(position) => {
                self.after = Some(position.max(self.position()));
                Some(Step::Position)
            }
        }
    }

    /// Asks a full Gofer.
    async fn poll(&mut self) -> Result<Option<Step>, Status> {
        let Source::Full(polls) = &mut self.source else { return Ok(None) };
        if self.gofer.inner.transport.channel().opened() != polls.connection {
            // It may be another server.
            self.source = Source::None;
            return Ok(None);
        }
        let Some(after) = self.after else {
            return Ok(self.begins(newest(&self.gofer).await?));
        };
        let next = after.saturating_add(1);
        if next > polls.settled {
            tokio::time::sleep_until(polls.next).await;
            polls.settled = polls.newest;
        }
        let status = match event(&self.gofer, next).await {
            Ok(Some(event)) if event.id == next => {
                polls.newest = polls.newest.max(next);
                (polls.attempts, polls.missing) = (0, 0);
                self.after = Some(next);
                return Ok(Some(Step::Event(event.into())));
            }
            Ok(_) => Status::not_found("the answer has no such event"),
            Err(status) => status,
        };
        let code = meaning(&status).0;
        let denied =
            matches!(code, Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented);
        if denied || effect(&status) != Effect::Refused {
            return Err(status);
        }
        if next > polls.settled {
            polls.next = Instant::now() + POLL;
            if Instant::now() >= polls.look {
                polls.look = Instant::now() + LOOK;
                let newest = newest(&self.gofer).await?;
                if newest < after {
                    (polls.newest, polls.settled) = (newest, newest);
                    return Ok(self.begins(newest));
                }
                polls.newest = newest;
            }
            return Ok(None);
        }
        let settled = polls.settled;
        polls.attempts += 1;
        if code != Code::NotFound && polls.attempts < ATTEMPTS {
            // It may be there, whatever this means.
            polls.settled = after;
            polls.next = Instant::now() + POLL;
            return Ok(None);
        }
        tracing::debug!(event = next, %status, "there is no event of this number");
        polls.attempts = 0;
        polls.missing += 1;
        if polls.missing > MISSING {
            // They were removed: what is left may be a million numbers ahead.
            polls.missing = 0;
            return Ok(self.begins(settled));
        }
        self.after = Some(next);
        Ok(Some(Step::Position))
    }
}

async fn within<T>(
    time: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let late = |_| Err(Status::deadline_exceeded(format!("no answer within {time:?}")));
    // Boxed: a call's future is some kilobytes.
    tokio::time::timeout(time, Box::pin(call)).await.unwrap_or_else(late)
}

/// One event of a full Gofer.
async fn event(gofer: &Gofer, id: i64) -> Result<Option<proto::Event>, Status> {
    let answer = gofer.raw().get_event(proto::GetEventRequest { id }).await?;
    Ok(answer.into_inner().event)
}

/// The newest number of a full Gofer: of its stream, only the first event is read.
async fn newest(gofer: &Gofer) -> Result<i64, Status> {
    let request = proto::ListEventsRequest { reverse: true, follow: false };
    let first = async {
        let mut events = gofer.raw().list_events(request).await?.into_inner();
        events.message().await
    };
    let first = within(gofer.inner.transport.deadline(), first).await?;
    Ok(first.and_then(|first| first.event).map_or(0, |event| event.id))
}
