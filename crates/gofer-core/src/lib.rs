//! An embedded [Gofer](https://github.com/clintjedwards/gofer) core, for developing and testing
//! extensions, and for small installations.
//!
//! A [`Core`] is a Gofer server that runs inside your program. It speaks the same gRPC API over the
//! same TLS and tokens, and is small enough for a unit test:
//!
//! ```
//! use gofer_core::{Core, NO_SETTINGS, hours};
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/interval.rs"));
//!
//! # /*
//! #[tokio::test(start_paused = true)]
//! # */
//! async fn fires_twice_in_three_hours() -> gofer_sdk::Result<()> {
//!     let gofer = Core::in_memory().await?;
//!     // Your extension, by its type.
//!     let interval = gofer.install::<Interval>("interval", NO_SETTINGS).await?;
//!     interval.subscribe("default/nightly", "hourly", [("every", "1h30m")]).await?;
//!     gofer.elapse(hours(3)).await;
//!     assert_eq!(gofer.runs("default/nightly").len(), 2);
//!     Ok(())
//! }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<()> { fires_twice_in_three_hours().await }
//! ```
//!
//! Extensions are written with [`gofer_sdk`]. There are four ways to use a core:
//!
//! | for | begin with |
//! | --- | --- |
//! | a test with paused time, in which hours take milliseconds | [`Core::in_memory`], [`Core::install`] |
//! | a test with real processes or containers | [`Core::on_loopback`], [`Core::install_program`] |
//! | a service, with an address and a store in a file | [`Core::builder`], [the guide](guide::operating) |
//! | trying an extension by hand | [`run_or_demo`] |
//!
//! To run a core without writing a program, install `gofer-cli` and see [the
//! guide](guide::operating).
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! | --- | --- |
//! | `store` | a store in a file, which outlives the process: `CoreBuilder::store` |
//! | `containers` | extensions as [containers](#containers) of Docker or Podman: `Core::install_image` |
//! | `webhooks` | a listener for webhooks, which passes them to extensions: `CoreBuilder::external_events` |
//!
//! # What differs from Gofer
//!
//! The core executes no tasks. A run succeeds as soon as it is started, unless you provide a
//! function ([`run_handler`](CoreBuilder::run_handler)) or a command
//! ([`run_command`](CoreBuilder::run_command)) that executes it. So there are no task runs. A
//! configuration is live as soon as it is registered, which is shown as a deployment of each version.
//!
//! A core keeps the newest 10,000 runs of each pipeline, 50 objects per pipeline and 50 for each of
//! its newest 20 runs, and the newest 100,000 events. A run that is not complete is always kept.
//!
//! # What an extension may do
//!
//! An extension has access to the pipelines that are subscribed to it: to their runs and objects,
//! from before it is subscribed until it has been unsubscribed. It starts runs in its own name, and
//! reads what is in the namespaces of these pipelines. More is a [`Grant`] in its
//! [`InstallOptions`], which also say which namespaces may use it. [A page](guide::access) lists
//! every method and who may call it.
//!
//! Of the runs that an extension starts with the same variable `GOFER_EXTENSION_RUN_KEY` for one
//! pipeline and label, only the first is started; a repeat is answered with that run for as long as
//! it is kept.
//!
//! # Supervision
//!
//! An extension that exits is restarted, and so is a program or container that fails three health
//! checks in a row: after a delay that grows from 0.2 s to a minute, with its subscriptions.
//! [`Installed::status`] shows its state, and [`Installed::update`] changes its configuration
//! without a gap. How long an extension may take to start, to answer a call and to stop is set when
//! it is installed: [`start_timeout`](InstallOptions::start_timeout),
//! [`call_timeout`](InstallOptions::call_timeout) and
//! [`stop_timeout`](InstallOptions::stop_timeout).
//!
//! Errors of kind `Internal`, and errors returned by `serve`, appear in full only in the
//! extension's log; `tracing_subscriber::fmt().with_test_writer().init()` shows it in a test.
//!
//! # Containers
//!
//! An extension's image is the name of a container image, which is pulled if it is missing, or
//! `exec:<path>` for a program on this machine, which callers of the API may install only if the
//! core [allows it](CoreBuilder::allow_programs). The container engine must be on the same machine
//! as the core, and the core must not run in a container; [`CoreBuilder::container_engine`] sets
//! the engine's address.
//!
//! - Port 8082 of the container is mapped to a free port of loopback.
//! - A core on loopback also listens, with the same port if it is free, on an address that
//!   containers can reach: the machine's address in the network of Docker's containers; or, with
//!   Podman or a rootless engine, the address of the default route. Docker Desktop forwards to
//!   loopback by itself. A core that [listens](CoreBuilder::listen) on another address is reached
//!   there. If a firewall blocks containers from that port, extensions become ready but start no
//!   runs.
//! - A container cannot gain privileges, and has fewer capabilities than engines grant by default.
//! - It may use 512 MiB of memory and have 512 processes and threads, unless its [`InstallOptions`]
//!   say otherwise; an update keeps what they say. One that needs more memory is killed, and its
//!   reason says so. An engine that cannot limit what containers use, as some that do not run as
//!   root, runs them without these limits, with a warning.
//! - Its file system is read-only, but for 64 MiB in memory at `/tmp`, from which nothing can be
//!   executed, and for volumes that the image declares. For an image that writes elsewhere there is
//!   [`InstallOptions::writable_root`]. Whatever it writes is deleted with it.
//! - An extension that is launched for the questions of an installer has the default options.
//! - It has the labels `gofer-sdk.extension` (the name), `gofer-sdk.start` (the digest of its key)
//!   and `gofer-sdk.owner` (the core's process), and is removed when it has ended. If a core is
//!   killed, its containers are removed by the next core on the same store when that starts, and on
//!   Linux by any other core when it starts its first container.
//!
//! # Logs
//!
//! Each line that an extension writes in a process or a container of its own, to standard output or
//! standard error, is a `tracing` event with the target `gofer_core::output` and the field
//! `extension`; each line of a [command](CoreBuilder::run_command) has `pipeline` and `run`. A JSON
//! line, as extensions of gofer-sdk write them, keeps its level; any other is logged as `info`. Lines
//! are cut to 8 KiB, and one process has at most 1 MiB logged at once and 64 KiB per second after
//! that; what was left out is counted. An embedder that wants to see them installs a subscriber.
//!
//! # Processes
//!
//! An extension that is a program leads a process group of its own, which is killed as soon as the
//! extension has ended, however it ended. After a core was killed, the next one on the same store
//! kills what it has left running (on Linux): processes with the key of an extension in their
//! environment, and their process groups.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// The guide.
#[cfg(doc)]
pub mod guide {
    /// How to run a core as a service.
    #[doc = include_str!("../docs/operating.md")]
    pub mod operating {}

    /// Who may call what.
    #[doc = include_str!("../docs/access.md")]
    pub mod access {}

    /// What a core defends, and what it does not.
    #[doc = include_str!("../docs/security.md")]
    pub mod security {}
}

mod allowed;
mod api;
mod authorize;
mod builder;
#[cfg(feature = "store")]
mod caught;
mod certificates;
mod command;
mod conversations;
mod core;
mod demo;
mod essential;
mod executor;
mod extensions;
#[cfg_attr(not(feature = "webhooks"), path = "no_external.rs")]
mod external;
mod files;
mod grants;
mod handle;
mod handler;
mod health;
mod identity;
mod installed;
mod launcher;
mod limits;
mod output;
mod router;
mod serving;
mod size;
mod state;
mod store;
mod sync;

/// Internal: shared by the crates of this workspace, without any promise of stability. It may
/// change or disappear in any version.
#[doc(hidden)]
pub mod internal {
    #[cfg(feature = "store")]
    pub use crate::caught::is_caught;
    pub use crate::files::*;
    pub use crate::size::Size;
    #[cfg(feature = "store")]
    pub use crate::store::{Backing, Restored, WrittenBackup};
}

pub use self::core::Core;
pub use builder::CoreBuilder;
pub use conversations::Conversation;
pub use demo::{Demo, DemoError, run_or_demo};
#[cfg(feature = "webhooks")]
#[cfg_attr(docsrs, doc(cfg(feature = "webhooks")))]
pub use external::ExternalEventLimits;
pub use grants::{Grant, InstallOptions};
pub use installed::{ExtensionInfo, Installed};
pub use state::{ExtensionState, ExtensionStatus};

use std::time::Duration;

/// No configuration or no parameters, for functions that take pairs of them.
///
/// ```
/// assert!(gofer_core::NO_SETTINGS.is_empty());
/// ```
pub const NO_SETTINGS: [(&str, &str); 0] = [];

/// A number of hours, for [`Core::elapse`].
///
/// ```
/// assert_eq!(gofer_core::hours(2), std::time::Duration::from_secs(7200));
/// ```
pub const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 60 * 60)
}

/// A number of minutes, for [`Core::elapse`].
///
/// ```
/// assert_eq!(gofer_core::minutes(2), std::time::Duration::from_secs(120));
/// ```
pub const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// A number of seconds, for [`Core::elapse`].
///
/// ```
/// assert_eq!(gofer_core::seconds(2), std::time::Duration::from_secs(2));
/// ```
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
