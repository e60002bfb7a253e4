//! How an extension fares, as it is shown.

use gofer_proto::embedded::extension_state::State;

/// What is being done with an installed extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtensionState {
    /// On its way up: after an installation, an enabling or the core's start.
    Starting,
    /// It answers.
    Running,
    /// It ended or stopped answering, or did not come up, and is started again.
    Restarting,
    /// It answers, and another one is about to take its place.
    Updating,
    /// On its way down.
    Stopping,
    /// Disabled.
    Stopped,
}

impl ExtensionState {
    /// In the words of a sentence.
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

/// How an installed extension fares.
///
/// ```
/// # async fn example(interval: gofer_core::Installed) {
/// use gofer_core::ExtensionState;
///
/// let status = interval.wait_for(|status| status.restarts > 0).await;
/// assert_eq!(status.state, ExtensionState::Restarting);
/// println!("{}", status.reason);
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtensionStatus {
    /// What is being done with it.
    pub state: ExtensionState,
    /// A sentence: what is waited for, or what went wrong last; empty where
    /// there is nothing to say.
    pub reason: String,
    /// How often it was started again without being asked to, since it was last
    /// installed, enabled or updated, or the core started.
    pub restarts: u32,
    /// Since when it has been in this state, in Unix milliseconds.
    pub since_unix_millis: i64,
}
