//! The state of an extension, as callers see it.

use std::time::SystemTime;

use gofer_proto::embedded::extension_state::State;

/// The state of an installed extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtensionState {
    /// Being started after it was installed or enabled, or the core started.
    Starting,
    /// It responds.
    Running,
    /// It exited, stopped responding or did not become ready, and is being restarted.
    Restarting,
    /// It responds, and is about to be replaced by an updated one.
    Updating,
    /// Being stopped.
    Stopping,
    /// Disabled.
    Stopped,
}

impl ExtensionState {
    /// The state as part of a sentence.
    pub(super) fn doing(self) -> &'static str {
        match self {
            Self::Starting => "being started",
            Self::Running => "running",
            Self::Restarting => "being started again",
            Self::Updating => "being updated",
            Self::Stopping => "being stopped",
            Self::Stopped => "disabled",
        }
    }

    /// The reason as callers see it who are no managers.
    pub(super) fn outline(self) -> &'static str {
        match self {
            Self::Restarting => "it failed; a management token shows the reason",
            Self::Starting | Self::Running | Self::Updating | Self::Stopping | Self::Stopped => "",
        }
    }

    pub(super) fn to_proto(self) -> State {
        match self {
            Self::Starting => State::Starting,
            Self::Running => State::Running,
            Self::Restarting => State::Restarting,
            Self::Updating => State::Updating,
            Self::Stopping => State::Stopping,
            Self::Stopped => State::Stopped,
        }
    }
}

/// The status of an installed extension; see [`Installed`](crate::Installed) for an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtensionStatus {
    /// Its state.
    pub state: ExtensionState,
    /// A sentence: what it is waiting for, or what went wrong last; otherwise empty.
    pub reason: String,
    /// How often it was restarted by the core since it was last installed, enabled or updated, or
    /// the core started.
    pub restarts: u32,
    /// Since when it has been in this state, by the core's clock.
    pub since: SystemTime,
}
