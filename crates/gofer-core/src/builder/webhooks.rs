//! The options for the listener for external events.

use std::net::SocketAddr;

use super::CoreBuilder;
use crate::external::ExternalEventLimits;

/// External events.
#[cfg_attr(docsrs, doc(cfg(feature = "webhooks")))]
impl CoreBuilder {
    /// Accepts external events on this address; port 0 chooses a free one. A request to `POST
    /// /external/<extension>`, such as a webhook, is passed to
    /// [`Extension::external_event`](gofer_sdk::Extension::external_event) of the extension that is
    /// installed under that name.
    ///
    /// Senders need no token: the extension checks a signature or a token in the headers itself.
    /// The listener uses plain HTTP, for development or behind a reverse proxy, unless
    /// [`external_events_tls`](Self::external_events_tls) makes it HTTPS. The answer is
    ///
    /// | | |
    /// | --- | --- |
    /// | 200 | if the extension has accepted the event |
    /// | 400, 401, 404, 501 | if the extension returns `INVALID_ARGUMENT`, `PERMISSION_DENIED`, `NOT_FOUND` or `UNIMPLEMENTED` |
    /// | 500 | if the extension returns any other error |
    /// | 503 | if the extension is starting, stopping, disabled or unreachable, does not have all of its subscriptions yet, or returns `UNAVAILABLE`; if starting runs is turned off; if too many events are in progress; or if the core is stopping; with `Retry-After` |
    /// | 504 | if the extension does not answer within its [call timeout](crate::InstallOptions::call_timeout); it may have handled the event |
    /// | 404, 405 | for an unknown extension or path, and for other methods |
    /// | 413, 431 | if the body, or the request line and headers, are too large |
    /// | 408 | if the request takes too long to arrive |
    /// | 400, 501 | if it is malformed, or has an unknown transfer coding |
    ///
    /// An event that has arrived in full is delivered even if its sender does not wait for the
    /// answer. [`Core::close_api`](crate::Core::close_api) does not close this listener, and
    /// [`Core::stop`](crate::Core::stop) closes it first, giving extensions 5 s to answer the
    /// events in progress.
    ///
    /// ```
    /// use gofer_core::{Core, NO_SETTINGS};
    /// use gofer_sdk::{
    ///     Extension, ExternalEvent, Gofer, NoConfig, NoParams, Result, Subscriptions,
    /// };
    /// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// struct Greeter;
    ///
    /// impl Extension for Greeter {
    ///     type Config = NoConfig;
    ///     type Params = NoParams;
    ///
    ///     async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
    ///         Ok(Self)
    ///     }
    ///
    ///     async fn external_event(
    ///         &self,
    ///         event: ExternalEvent,
    ///         _: Subscriptions<NoParams>,
    ///     ) -> Result<()> {
    ///         assert_eq!(event.body(), "hello");
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let gofer = Core::builder().external_events(([127, 0, 0, 1], 0)).start().await?;
    /// gofer.install::<Greeter>("greeter", NO_SETTINGS).await?;
    /// let address = gofer.external_events_address().unwrap();
    /// // As `curl --data hello http://<address>/external/greeter` does:
    /// let mut sender = tokio::net::TcpStream::connect(address).await?;
    /// sender
    ///     .write_all(
    ///         b"POST /external/greeter HTTP/1.1\r\nHost: localhost\r\n\
    ///           Content-Length: 5\r\nConnection: close\r\n\r\nhello",
    ///     )
    ///     .await?;
    /// let mut answer = String::new();
    /// sender.read_to_string(&mut answer).await?;
    /// assert!(answer.starts_with("HTTP/1.1 200 OK"));
    /// gofer.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn external_events(mut self, address: impl Into<SocketAddr>) -> Self {
        self.external.address = Some(address.into());
        self
    }

    /// Accepts external events only over HTTPS, with this certificate chain and its key, both as
    /// PEM.
    pub fn external_events_tls(
        mut self,
        certificate: impl Into<String>,
        key: impl Into<String>,
    ) -> Self {
        self.external.tls = Some((certificate.into(), key.into()));
        self
    }

    /// Sets the limits of external events.
    pub fn external_event_limits(mut self, limits: ExternalEventLimits) -> Self {
        self.external.limits = limits;
        self
    }
}
