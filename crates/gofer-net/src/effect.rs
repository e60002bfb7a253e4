//! What is known of a call that failed: whether it may have had an effect.

use tonic::{Code, Status};

use crate::channel::NotSent;

/// What is known about a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It certainly had none: it was not sent. Calling again is safe, and may
    /// help.
    None,
    /// The other side said that it is not available. Gofer says so before it
    /// does anything; a proxy also where it lost Gofer in mid-call.
    Unavailable,
    /// Gofer answered with a refusal. Calling again would not help.
    Refused,
    /// The answer got lost: it may have had its effect.
    Unknown,
}

impl Effect {
    /// Whether a call that asks for something once may simply be made again.
    pub fn may_repeat(self) -> bool {
        matches!(self, Self::None | Self::Unavailable)
    }
}

pub fn effect(status: &Status) -> Effect {
    if not_sent(status).is_some() {
        return Effect::None;
    }
    // A status with a source was made on this side, out of a broken transport.
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

fn sources(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}
