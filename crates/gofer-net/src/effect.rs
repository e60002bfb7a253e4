//! Whether a call that failed may have had an effect.

use tonic::{Code, Status};

use crate::channel::NotSent;

/// Whether a call that failed may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It had none: it was not sent, or the peer has not processed it. Retrying is safe and may
    /// help.
    None,
    /// The response says that the peer is unavailable. Gofer sends it before it does anything; a
    /// proxy also sends it if it loses Gofer in the middle of a call.
    Unavailable,
    /// Gofer rejected it. Retrying would not help.
    Refused,
    /// The response was lost: the call may have had its effect.
    Unknown,
}

impl Effect {
    /// Whether a call that may be executed twice should be retried.
    pub fn may_repeat(self) -> bool {
        matches!(self, Self::None | Self::Unavailable)
    }
}

pub fn effect(status: &Status) -> Effect {
    if not_sent(status).is_some() || std::error::Error::source(status).is_some_and(is_unprocessed) {
        return Effect::None;
    }
    // A status with a source was created on this side, from a transport error.
    let broken = sources(status).next().is_some();
    match status.code() {
        Code::DeadlineExceeded => Effect::Unknown,
        Code::Unavailable if !broken => Effect::Unavailable,
        _ if broken => Effect::Unknown,
        _ => Effect::Refused,
    }
}

pub fn not_sent(status: &Status) -> Option<&NotSent> {
    sources(status).find_map(|source| source.downcast_ref())
}

/// Whether a call failed because its connection ended. A response that is too long, for example,
/// would be so again.
pub fn is_lost(status: &Status) -> bool {
    sources(status).any(|error| error.is::<hyper::Error>() || error.is::<h2::Error>())
}

/// Whether the peer has reported that it has not processed a stream, and will not: it refused it,
/// or it said at the end of the connection (GOAWAY) which was the last that it has processed.
pub(crate) fn is_unprocessed(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut errors = std::iter::successors(Some(error), |error| error.source());
    errors.any(|error| {
        error.downcast_ref::<h2::Error>().is_some_and(|error| {
            error.is_remote()
                && (error.is_go_away()
                    || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
        })
    })
}

fn sources(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}
