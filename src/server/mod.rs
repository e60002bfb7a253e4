//! What wraps an author's extension into a well-behaved service.
//!
//! A call passes `connections` (TLS, HTTP/2, bounds), `auth` (one layer over
//! everything), `service` (protobuf to plain Rust) and `lifecycle` (what is
//! answered when), and ends in `registry` (changes of each subscription, in
//! order) or in the author's code, behind `erased` and `contain`.

mod auth;
mod builder;
mod contain;
mod conversation;
mod core;
mod embedded;
mod erased;
mod error;
mod health;
mod info;
mod lifecycle;
mod limits;
mod registry;
mod roster;
mod router;
mod service;
mod signals;
mod supervisor;
mod system_config;
mod telemetry;

pub use builder::Server;
pub use error::RunError;
pub use limits::Limits;
pub use system_config::{LogLevel, SystemConfig, SystemConfigError};

pub use contain::panic_message;
pub use embedded::serve_embedded;
pub use erased::misdeclared;
pub use signals::Signals;
pub use system_config::PREFIX;

use crate::extension::Extension;

/// Runs an extension as Gofer starts it, until Shutdown or a signal asks it to
/// stop; then `main` returns and the process ends with status 0.
///
/// Reads the environment, logs JSON lines to standard error, listens, serves,
/// and stops within a bound on Shutdown, SIGTERM and SIGINT; a second signal
/// does not wait. A current-thread runtime is all it needs:
///
/// ```no_run
/// # use gofer_sdk::{Extension, Gofer, NoConfig, NoParams, Result};
/// # struct Interval;
/// # impl Extension for Interval {
/// #     type Config = NoConfig;
/// #     type Params = NoParams;
/// #     async fn init(_: NoConfig, _: Gofer) -> Result<Self> { Ok(Self) }
/// # }
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), gofer_sdk::RunError> {
///     gofer_sdk::run::<Interval>().await
/// }
/// ```
///
/// Work that blocks belongs in `tokio::task::spawn_blocking`, and should be short:
/// a runtime that `#[tokio::main]` made waits for it without end once `main`
/// returns. A program whose blocking work may take long builds its runtime
/// itself and ends it with `Runtime::shutdown_background`.
///
/// # Errors
///
/// [`RunError`] where the environment is not complete, the address cannot be
/// listened on, or a setting is declared with a type that nobody could set.
pub async fn run<E: Extension>() -> Result<(), RunError> {
    let config = SystemConfig::from_env()?;
    telemetry::install(config.log_level, &config.name);
    Server::<E>::new(config).stop_on_signals()?.serve().await
}
