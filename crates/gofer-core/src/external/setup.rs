//! What is asked of the listener before anything is opened: the builder's part.

use std::net::SocketAddr;

use super::limits::ExternalEventLimits;
use crate::builder::CoreBuilder;

#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(super) address: Option<SocketAddr>,
    /// Certificate chain and key, as PEM.
    pub(super) tls: Option<(String, String)>,
    pub(super) limits: ExternalEventLimits,
}

/// External events.
#[cfg_attr(docsrs, doc(cfg(feature = "webhooks")))]
impl CoreBuilder {
    /// Takes external events on this address; port 0 is any that is free. What is
    /// sent to `POST /external/<extension>`, a webhook say, reaches
    /// [`Extension::external_event`](gofer_sdk::Extension::external_event) of the
    /// extension that is installed under that name.
    ///
    /// Who sends needs no token: an extension checks a signature or a token in the
    /// headers itself. It is plain HTTP, for a reverse proxy in front or for
    /// development, unless [`external_events_tls`](Self::external_events_tls)
    /// makes it HTTPS. The sender is answered
    ///
    /// | | |
    /// | --- | --- |
    /// | 200 | when the extension has accepted the event |
    /// | 500 | when it has not, for whatever reason |
    /// | 503 | when it is starting, stopping, disabled or gone, when it says so itself, or when too much is under way; with `Retry-After` |
    /// | 504 | when it does not answer within 30 s: it may have handled it |
    /// | 404, 405 | for an unknown extension or path, and for other methods |
    /// | 413, 431 | when the body, or the line and the headers, are too large |
    /// | 408 | when the request takes too long to arrive |
    /// | 400, 501 | when it is malformed, or in an unknown transfer coding |
    ///
    /// An event that has arrived in full is handed on even where its sender does
    /// not wait for the answer. The listener is no part of the API: it stays
    /// through [`Core::go_away`](crate::Core::go_away), and [`Core::stop`](crate::Core::stop) ends it first, giving events
    /// that are with their extension 5 s.
    ///
    /// ```
    /// use gofer_core::{Core, NO_SETTINGS};
    /// use gofer_sdk::{Extension, ExternalEvent, Gofer, NoConfig, NoParams, Result};
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
    ///     async fn external_event(&self, event: ExternalEvent) -> Result<()> {
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

    /// Takes external events over HTTPS alone, with this certificate chain and
    /// its key, both as PEM.
    pub fn external_events_tls(
        mut self,
        certificate: impl Into<String>,
        key: impl Into<String>,
    ) -> Self {
        self.external.tls = Some((certificate.into(), key.into()));
        self
    }

    /// The bounds within which external events are taken.
    pub fn external_event_limits(mut self, limits: ExternalEventLimits) -> Self {
        self.external.limits = limits;
        self
    }
}
