//! What makes a well-behaved service of an author's extension.
//!
//! A call passes `gofer_net::server` (TLS, HTTP/2, limits), `auth` (one check before everything),
//! `router`, `service` (protobuf to plain Rust) and `lifecycle` (what is answered when), and ends
//! in `registry` (changes of each subscription, in order) or in the author's code, behind `erased`
//! and [`crate::catch_panic`].

mod auth;
mod builder;
mod clock_watch;
mod conversation;
mod erased;
mod error;
mod external_events;
mod health;
mod info;
mod inner;
mod lifecycle;
mod limits;
mod listing;
mod references;
mod registry;
mod router;
mod service;
mod signals;
mod stored;
mod subscription_states;
mod supervisor;
mod system_config;
mod tasks;
mod telemetry;

pub use builder::{Server, serve_embedded};
pub use error::RunError;
pub use limits::Limits;
pub use system_config::{LogLevel, SystemConfig, SystemConfigError};

pub use erased::misdeclared;
pub use service::{SUBSCRIBED_AFTER, SUBSCRIPTION_AGE, SUBSCRIPTION_REPLACED, SUBSCRIPTION_SINCE};
pub use signals::Signals;
pub use system_config::PREFIX;

use crate::extension::Extension;

/// Runs an extension that Gofer starts, until Shutdown or a signal asks it to stop; then `main`
/// returns and the process exits with status 0.
///
/// Reads the environment, logs JSON lines to standard error, listens, serves, and stops in bounded
/// time on Shutdown, SIGTERM and SIGINT, or at once on a second signal. A current-thread runtime is
/// all it needs:
///
/// ```
/// # use gofer_sdk::{Extension, Gofer, NoConfig, NoParams, Result};
/// # struct Interval;
/// # impl Extension for Interval {
/// #     type Config = NoConfig;
/// #     type Params = NoParams;
/// #     async fn init(_: NoConfig, _: Gofer) -> Result<Self> { Ok(Self) }
/// # }
/// # mod program {
/// # use super::Interval;
/// #[tokio::main(flavor = "current_thread")]
/// # pub
/// async fn main() -> Result<(), gofer_sdk::RunError> {
///     gofer_sdk::run::<Interval>().await
/// }
/// # }
/// # fn main() {
/// # let printed = program::main().unwrap_err().to_string();
///
/// // If Gofer did not start it, it reports what is missing and exits:
/// assert!(printed.contains("GOFER_EXTENSION_SYSTEM_KEY: is not set"));
/// # }
/// ```
///
/// A log that cannot be written, or that nobody reads any more, changes nothing else: lines that
/// would block are kept, up to 256 KiB, then left out and counted.
///
/// Blocking work belongs in `tokio::task::spawn_blocking`, and should be short: when `main`
/// returns, the runtime of `#[tokio::main]` waits for it without a timeout. A program whose
/// blocking work may take long builds its runtime itself and ends it with
/// `Runtime::shutdown_background`.
///
/// If the future is dropped, the same happens as with [`Server::serve`]. The logger stays, and
/// SIGTERM and SIGINT no longer end the process.
///
/// # Errors
///
/// [`RunError`] if the environment is incomplete, the server cannot listen on its address, or a
/// setting is declared with a type that cannot be set from text.
pub async fn run<E: Extension>() -> Result<(), RunError> {
    let config = SystemConfig::from_env()?;
    let log = telemetry::install(config.log_level, &config.name);
    let outcome = Server::<E>::new(config).stop_on_signals()?.serve().await;
    log.finish();
    outcome
}

#[cfg(test)]
mod tests;
