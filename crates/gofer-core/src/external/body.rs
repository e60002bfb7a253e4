//! Reading a request's body: as fast as it must be, and into memory that there
//! is.
//!
//! A body of up to [`SMALL`] bytes needs no room of its own, so that half-sent
//! requests, however many, hold next to nothing. A longer one gets room for all
//! of it before it goes on: bodies that hold a part and wait for the rest would
//! wait for each other.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use super::Shared;
use super::answer::Answer;
use super::guests::Guest;
use super::payload::Payload;
use super::shares::Share;

/// What a connection's place pays for.
const SMALL: usize = 32 * 1024;

/// The slowest pace, after the first [`body_timeout`]: a bad mobile network
/// does better.
///
/// [`body_timeout`]: super::ExternalEventLimits::body_timeout
const PACE: u32 = 64 * 1024;

/// The slowest pace while others wait for room, after a start-up time.
const BRISK_PACE: u32 = 256 * 1024;
const BRISK_START: Duration = Duration::from_secs(2);

/// How often a body that holds room looks whether others wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Reads the whole body. The share is what pays for it, where it is not small.
pub(super) async fn receive(
    shared: &Shared,
    guest: &Guest,
    extension: &Arc<str>,
    body: &mut Incoming,
    payload: &mut Payload,
) -> Result<Option<Share>, Answer> {
    let limits = &shared.limits;
    // Without a length it may become as long as any.
    let most = match body.size_hint().exact() {
        None => limits.body_bytes(),
        Some(length) => usize::try_from(length)
            .ok()
            .filter(|length| *length <= limits.body_bytes())
            .ok_or(Answer::TooLarge)?,
    };
    let mut share: Option<Share> = None;
    let mut since = Instant::now();
    loop {
        let arrived = payload.body_bytes();
        let mut until = since + limits.body_timeout() + at_pace(arrived, PACE);
        if share.is_some() && shared.memory.is_wanted_of(extension) {
            until = until.min(since + BRISK_START + at_pace(arrived, BRISK_PACE));
        }
        let now = Instant::now();
        if now >= until {
            return Err(Answer::TooSlow);
        }
        guest.keeps_waiting(since, at_pace(arrived, PACE));
        let Ok(frame) = tokio::time::timeout_at(until.min(now + LOOK_EVERY), body.frame()).await
        else {
            continue;
        };
        let data = match frame {
            None => break,
            Some(Err(_)) => return Err(Answer::Malformed),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // Trailers: nobody reads them.
                Err(_) => continue,
            },
        };
        let needed = arrived + data.len();
        if needed > most {
            return Err(Answer::TooLarge);
        }
        if needed > SMALL && share.is_none() {
            let asked = Instant::now();
            guest.waits();
            let room = shared.memory.wait(extension, payload.bytes_with(most));
            match tokio::time::timeout(limits.patience(), room).await {
                Ok(room) => share = Some(room),
                Err(_) => return Err(Answer::Busy),
            }
            // That time was not the sender's.
            since += asked.elapsed();
        }
        payload.push(&data, if share.is_some() { most } else { SMALL });
    }
    guest.waits();
    if let Some(share) = &mut share {
        share.shrink(payload.held());
    }
    Ok(share)
}

/// The time that so many bytes take at so many a second.
fn at_pace(bytes: usize, per_second: u32) -> Duration {
    let nanos = bytes as u128 * 1_000_000_000 / u128::from(per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
