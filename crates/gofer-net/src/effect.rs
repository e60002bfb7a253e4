//! Whether a call that failed may have had an effect.

use tonic::{Code, Status};

use crate::channel::NotSent;

/// Whether a call that failed may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It had none, because it was not sent. Retrying is safe and may help.
    None,
    /// The peer responded that it is unavailable. Gofer does so before it does anything; a proxy
    /// also does so if it loses Gofer in the middle of a call.
    Unavailable,
    /// Gofer rejected it. Retrying would not help.
    Refused,
    /// The response was lost: the call may have had its effect.
    Unknown,
}

impl Effect {
    /// Whether a call that must not be executed twice may be retried.
    pub fn may_repeat(self) -> bool {
        matches!(self, Self::None | Self::Unavailable)
    }
}

pub fn effect(status: &Status) -> Effect {
    if not_sent(status).is_some() {
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

fn sources(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}
