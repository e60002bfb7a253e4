//! An extension's server for those who bring their own parts.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use gofer_net::server::Listener;
use gofer_net::tls::certificates;
use tokio::net::TcpListener;

use super::core::Core;
use super::error::RunError;
use super::limits::Limits;
use super::signals::Signals;
use super::{SystemConfig, erased};
use crate::extension::Extension;

/// An extension's server, for those who bring their own runtime, listener,
/// logger, limits or stop; everyone else uses [`run`](crate::run).
///
/// ```no_run
/// # use gofer_sdk::{Extension, Gofer, Limits, NoConfig, NoParams, Result, Server, SystemConfig};
/// # struct Interval;
/// # impl Extension for Interval {
/// #     type Config = NoConfig;
/// #     type Params = NoParams;
/// #     async fn init(_: NoConfig, _: Gofer) -> Result<Self> { Ok(Self) }
/// # }
/// # async fn example(stop: tokio::sync::oneshot::Receiver<()>) -> Result<(), gofer_sdk::RunError> {
/// let config = SystemConfig::from_env()?;
/// Server::<Interval>::new(config)
///     .with_limits(Limits::default().with_connections(64))
///     .stop_when(async { drop(stop.await) })
///     .serve()
///     .await
/// # }
/// ```
#[must_use = "a server does nothing until it serves"]
pub struct Server<E> {
    core: Core,
    extension: PhantomData<fn() -> E>,
}

impl<E: Extension> Server<E> {
    /// A server with what Gofer told by the environment.
    pub fn new(config: SystemConfig) -> Self {
        let mut core = Core::new(config, erased::definition::<E>());
        core.misdeclared = erased::misdeclared::<E>();
        Self { core, extension: PhantomData }
    }

    /// Replaces the default limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.core.limits = limits;
        self
    }

    /// Serves on a listener that is already bound, instead of the configured
    /// address.
    pub fn with_listener(mut self, listener: TcpListener) -> Self {
        self.core.listener = Some(Listener::Tcp(listener));
        self
    }

    /// Trusts the certificates in a PEM text, beside the system's, when Gofer
    /// shows its own: for a Gofer with a private authority.
    ///
    /// # Errors
    ///
    /// [`InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) where
    /// the text holds no certificate.
    pub fn with_gofer_ca(mut self, pem: &str) -> crate::Result<Self> {
        let certificates = certificates(pem).map_err(|problem| {
            crate::Error::invalid_configuration("gofer_ca", problem.to_string())
        })?;
        self.core.trust.extra.extend(certificates);
        Ok(self)
    }

    /// Stops, gracefully, when the future completes. Of several such futures
    /// the first one counts.
    pub fn stop_when(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.core.stop.push(Box::pin(stop));
        self
    }

    /// Stops on SIGTERM and SIGINT; a second signal does not wait. Needs to be
    /// called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`RunError::Signals`] where the signals cannot be watched.
    pub fn stop_on_signals(mut self) -> Result<Self, RunError> {
        self.core.signals = Some(Signals::watch().map_err(RunError::Signals)?);
        Ok(self)
    }

    /// Serves until Shutdown, a signal or a stop future, and returns once all
    /// subscriptions, connections and tasks have ended, or their bounds are
    /// over.
    ///
    /// # Errors
    ///
    /// [`RunError::Listen`] where the address cannot be listened on.
    pub async fn serve(self) -> Result<(), RunError> {
        self.core.serve().await
    }

    pub(super) fn into_core(self) -> Core {
        self.core
    }
}

impl<E> fmt::Debug for Server<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.core.config).finish_non_exhaustive()
    }
}
