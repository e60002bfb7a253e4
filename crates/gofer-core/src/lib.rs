//! An embedded Gofer core, for developing and testing extensions.
//!
//! [`Core`] is a Gofer server small enough to live inside a test: the same gRPC
//! API over the same TLS and tokens, with everything in memory or in a file. There
//! are four ways to work with it:
//!
//! - **In a test with paused time**: [`Core::in_memory`] and
//!   [`Core::install`]. Everything runs on the test's own runtime, so days of
//!   ticks pass in milliseconds.
//! - **In a test with real processes**: [`Core::on_loopback`] and
//!   [`Core::install_program`], or containers and [`Core::install_image`].
//! - **Left running**: [`Core::builder`], with an address and a store that
//!   outlives the process.
//! - **At the keyboard**: [`run_or_demo`] makes any extension's program show
//!   itself when a person starts it.
//!
//! The core executes no tasks. A run succeeds as soon as it is started, or is
//! executed by what the embedder gives: a function
//! ([`run_handler`](CoreBuilder::run_handler)) or a command
//! ([`run_command`](CoreBuilder::run_command)). It is pending while it waits, within
//! the parallelism of its pipeline, then running, then complete. Of Gofer's API it
//! has no deployments, no task runs, and not `RepairOrphan`; those answer
//! `UNIMPLEMENTED` and name themselves. Of a pipeline the newest 10,000 runs and
//! 50 objects are kept (and no run is forgotten that is not complete), of its
//! newest 20 runs 50 objects each, and of all events the newest 100,000.
//!
//! Webhooks reach extensions through a listener of its own, where
//! [`CoreBuilder::external_events`] asks for one.
//!
//! Extensions are kept up: one in a process of its own that ends, or fails three
//! health checks in a row, is started again after a pause that grows from 0.2 s to
//! a minute, and subscribed again. [`Installed::status`] tells how it fares.
//! [`Installed::update`] puts another configuration in place without a gap.
//!
//! # Containers
//!
//! An extension whose image is the name of a container image is started by Docker
//! or Podman, as Gofer would; an image `exec:<path>` is a program on this machine.
//! An image that is not there is pulled. The engine must be on the machine that the
//! core runs on, and not in another container:
//! [`CoreBuilder::container_engine`] says where it is looked for.
//!
//! - Port 8082 of the container is mapped to a free one of loopback.
//! - The core is reached on an address that it listens on besides its own, with
//!   the same port where that is free: the machine's address in the network of
//!   Docker's containers; or where the engine's network is out of sight, as with
//!   Podman and without root, the machine's address towards the outside. Docker
//!   Desktop brings containers to loopback by itself. A core that
//!   [listens](CoreBuilder::listen) on an address that is not loopback is reached
//!   there. A firewall of the machine must let containers through to that port:
//!   where it does not, extensions come up and start no runs.
//! - What a container writes is an event of `tracing` for each line, with the
//!   target `gofer_sdk::container` and the field `extension`.
//! - A container may gain no privileges, and has not all capabilities that engines
//!   allow to root. Its files can be written; they are gone with it.
//! - It has the labels `gofer-sdk.extension` (the name), `gofer-sdk.owner` and
//!   `gofer-sdk.start`, and is removed when it has ended. Those of a core that was
//!   killed are removed by the next one on the same store at its start, and on
//!   Linux by any other when it starts its first container.
//!
//! An error that is not about settings is told in full in the extension's log and
//! nowhere else; `tracing_subscriber::fmt().with_test_writer().init()` shows it in
//! a test.

/// The guide: how to operate a core.
#[cfg(doc)]
pub mod guide {
    #[doc = include_str!("../docs/operating.md")]
    pub mod operating {}
}

mod api;
mod authorize;
mod builder;
mod certificates;
mod command;
mod conversations;
mod core;
mod demo;
mod executor;
mod extensions;
#[cfg_attr(not(feature = "webhooks"), path = "no_external.rs")]
mod external;
mod files;
mod handle;
mod handler;
mod identity;
mod installed;
mod launcher;
mod router;
mod serving;
mod state;
mod store;
mod sync;

/// What the members of this workspace share: internal, without any promise of
/// stability. It may change or go with any version.
#[doc(hidden)]
pub mod internal {
    pub mod files {
        pub use crate::files::*;
    }
}

pub use self::core::Core;
pub use builder::CoreBuilder;
pub use conversations::Conversation;
pub use demo::{Demo, DemoError, run_or_demo};
#[cfg(feature = "webhooks")]
#[cfg_attr(docsrs, doc(cfg(feature = "webhooks")))]
pub use external::ExternalEventLimits;
pub use installed::{ExtensionInfo, Installed};
pub use state::{ExtensionState, ExtensionStatus};

use std::time::Duration;

/// No configuration, or no parameters, where a function takes pairs of them.
///
/// ```
/// assert!(gofer_core::NO_SETTINGS.is_empty());
/// ```
pub const NO_SETTINGS: [(&str, &str); 0] = [];

/// So many hours, for [`Core::elapse`].
///
/// ```
/// assert_eq!(gofer_core::hours(2), std::time::Duration::from_secs(7200));
/// ```
#[must_use]
pub const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 60 * 60)
}

/// So many minutes, for [`Core::elapse`].
///
/// ```
/// assert_eq!(gofer_core::minutes(2), std::time::Duration::from_secs(120));
/// ```
#[must_use]
pub const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// So many seconds, for [`Core::elapse`].
///
/// ```
/// assert_eq!(gofer_core::seconds(2), std::time::Duration::from_secs(2));
/// ```
#[must_use]
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
