//! Reads a request's body, at a minimum rate and within a memory quota.
//!
//! A body of up to [`SMALL`] bytes needs no reservation, since the limit of connections bounds what
//! half-sent requests hold. A longer one reserves memory for all of it before it is read on: bodies
//! that hold a part and wait for the rest would deadlock.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use super::Shared;
use super::answer::Answer;
use super::payload::Payload;
use super::quota::Reservation;
use super::state::ConnectionState;

/// Larger bodies need a reservation, in bytes.
const SMALL: usize = 32 * 1024;

/// The minimum rate after the first [`body_timeout`], in bytes per second: a bad mobile network is
/// faster.
///
/// [`body_timeout`]: super::ExternalEventLimits::body_timeout
const MIN_RATE: u32 = 64 * 1024;

/// The minimum rate while others wait for memory, in bytes per second, after a grace period.
const CONTENDED_MIN_RATE: u32 = 256 * 1024;
const CONTENDED_GRACE: Duration = Duration::from_secs(2);

/// How often a body that holds a reservation checks whether others wait.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Reads the whole body. Returns the reservation of its memory unless it is small.
pub(super) async fn receive(
    shared: &Shared,
    state: &ConnectionState,
    extension: &Arc<str>,
    body: &mut Incoming,
    payload: &mut Payload,
) -> Result<Option<Reservation>, Answer> {
    let limits = &shared.limits;
    // Without a length it may become as long as allowed.
    let limit = match body.size_hint().exact() {
        None => limits.body_bytes(),
        Some(length) => usize::try_from(length)
            .ok()
            .filter(|length| *length <= limits.body_bytes())
            .ok_or(Answer::TooLarge)?,
    };
    let mut reservation: Option<Reservation> = None;
    let mut since = Instant::now();
    loop {
        let arrived = payload.body_bytes();
        let mut until = since + limits.body_timeout() + time_at_rate(arrived, MIN_RATE);
        if reservation.is_some() && shared.memory.is_contended(extension) {
            until = until.min(since + CONTENDED_GRACE + time_at_rate(arrived, CONTENDED_MIN_RATE));
        }
        let now = Instant::now();
        if now >= until {
            return Err(Answer::TooSlow);
        }
        state.expect_body(since, time_at_rate(arrived, MIN_RATE));
        let Ok(frame) = tokio::time::timeout_at(until.min(now + CHECK_EVERY), body.frame()).await
        else {
            continue;
        };
        let data = match frame {
            None => break,
            Some(Err(_)) => return Err(Answer::Malformed),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // Trailers are ignored.
                Err(_) => continue,
            },
        };
        let needed = arrived + data.len();
        if needed > limit {
            return Err(Answer::TooLarge);
        }
        if needed > SMALL && reservation.is_none() {
            let requested = Instant::now();
            state.expect_nothing();
            let memory = shared.memory.reserve(extension, payload.bytes_with(limit));
            match tokio::time::timeout(limits.queue_timeout(), memory).await {
                Ok(reserved) => reservation = Some(reserved),
                Err(_) => return Err(Answer::Busy),
            }
            // The sender did not cause this wait.
            since += requested.elapsed();
        }
        payload.push(&data, if reservation.is_some() { limit } else { SMALL });
    }
    state.expect_nothing();
    if let Some(reservation) = &mut reservation {
        reservation.shrink(payload.held());
    }
    Ok(reservation)
}

/// The time that so many bytes take at a rate.
fn time_at_rate(bytes: usize, per_second: u32) -> Duration {
    let nanos = bytes as u128 * 1_000_000_000 / u128::from(per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
