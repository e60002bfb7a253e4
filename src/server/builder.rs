//! An extension's server for programs that bring parts of their own.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::net::TcpListener;

use gofer_net::memory::{MemoryListener, Network};
use gofer_net::tls::{Trust, certificates};
use gofer_net::{BoxFuture, Clock};

use super::error::RunError;
use super::inner::ServerInner;
use super::limits::Limits;
use super::signals::Signals;
use super::{SystemConfig, erased};
use crate::extension::Extension;

/// An extension's server, for a program with its own runtime, listener, logger, limits or way to
/// stop; all others use [`run`](crate::run).
///
/// ```
/// # use gofer_sdk::{Extension, Gofer, Limits, NoConfig, NoParams, Result, Server, SystemConfig};
/// # struct Interval;
/// # impl Extension for Interval {
/// #     type Config = NoConfig;
/// #     type Params = NoParams;
/// #     async fn init(_: NoConfig, _: Gofer) -> Result<Self> { Ok(Self) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
/// # let variables = [
/// #     ("KEY", "6b8f".to_owned()),
/// #     ("NAME", "interval".to_owned()),
/// #     ("TLS_CERT", pair.cert.pem()),
/// #     ("TLS_KEY", pair.signing_key.serialize_pem()),
/// # ]
/// # .map(|(name, value)| (format!("GOFER_EXTENSION_SYSTEM_{name}"), value));
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let config = SystemConfig::from_vars(variables)?; // or from_env()
/// let server = Server::<Interval>::new(config)
///     .with_listener(std::net::TcpListener::bind("127.0.0.1:0")?)
///     .with_limits(Limits::default().with_connections(64))
///     .stop_when(async { drop(stopped.await) });
/// let serving = tokio::spawn(server.serve());
///
/// drop(stop); // elsewhere, when it is time
/// serving.await??;
/// # Ok(()) }
/// ```
#[must_use = "a server does nothing until it serves"]
pub struct Server<E> {
    inner: ServerInner,
    extension: PhantomData<fn() -> E>,
}

impl<E: Extension> Server<E> {
    /// A server with the settings that Gofer passes in the environment.
    pub fn new(config: SystemConfig) -> Self {
        let mut inner = ServerInner::new(config, erased::definition::<E>());
        inner.misdeclared = erased::misdeclared::<E>();
        Self { inner, extension: PhantomData }
    }

    /// Replaces the default limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.inner.limits = limits;
        self
    }

    /// Serves on a listener that is already bound, instead of the configured address.
    pub fn with_listener(mut self, listener: TcpListener) -> Self {
        self.inner.bound = Some(listener);
        self
    }

    /// Trusts the certificates in a PEM text, in addition to the system's, to verify Gofer's: for a
    /// Gofer with a private certificate authority.
    ///
    /// # Errors
    ///
    /// [`InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the text holds no
    /// certificate.
    pub fn with_gofer_ca(mut self, pem: &str) -> crate::Result<Self> {
        let certificates = certificates(pem).map_err(|problem| {
            crate::Error::invalid_configuration("gofer_ca", problem.to_string())
        })?;
        self.inner.trust.extra.extend(certificates);
        Ok(self)
    }

    /// Stops gracefully when the future completes; with several such futures, when the first one
    /// does. Then, and if the server ends for another reason, they are dropped.
    pub fn stop_when(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.inner.stop.push(Box::pin(stop));
        self
    }

    /// Stops gracefully on SIGTERM and SIGINT, and at once on a second signal. Must be called on a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// [`RunError::Signals`] if the signal handlers cannot be installed.
    pub fn stop_on_signals(mut self) -> Result<Self, RunError> {
        self.inner.signals = Some(Signals::watch().map_err(RunError::Signals)?);
        Ok(self)
    }

    /// Serves until Shutdown, a signal or a stop future, and returns once all subscriptions,
    /// connections and tasks have ended or timed out.
    ///
    /// If the future is dropped, everything that it started is: each future of the author's at its
    /// next `await`, without a grace period and without [`Extension::shutdown`]. Connections are
    /// closed, and calls with the client that `init` was given fail from then on.
    ///
    /// # Errors
    ///
    /// [`RunError::Listen`] if it cannot listen on the address, and [`RunError::Declaration`] if a
    /// setting is declared with a type that cannot be set from text.
    pub async fn serve(self) -> Result<(), RunError> {
        self.inner.serve().await
    }
}

impl<E> fmt::Debug for Server<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// Serves an extension inside the process of a core: over pipes, trusting the core's certificate,
/// on its clock.
///
/// If the future is dropped, the same happens as with [`Server::serve`].
///
/// # Errors
///
/// As for [`Server::serve`].
pub fn serve_embedded<E: Extension>(
    config: SystemConfig,
    listener: MemoryListener,
    gofer: Network,
    trust: Trust,
    clock: Clock,
) -> BoxFuture<'static, Result<(), RunError>> {
    Server::<E>::new(config).inner.embedded(listener, gofer, trust, clock).serve()
}
