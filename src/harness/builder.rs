//! How a core is set up. What comes of it is made in [`core`](super::core).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::core::Core;
use crate::extension::Result;
use crate::server::LogLevel;

/// An extension that hangs is noticed within half a minute, and a health check
/// costs it next to nothing.
const HEALTH_CHECK_PERIOD: Duration = Duration::from_secs(5);

/// How a [`Core`] is set up; made by [`Core::builder`].
///
/// Without more it is in memory alone, and reached from inside this process.
#[derive(Clone)]
#[must_use]
pub struct CoreBuilder {
    pub(super) listen: Option<SocketAddr>,
    pub(super) store: Option<PathBuf>,
    pub(super) key: Option<String>,
    pub(super) log_level: LogLevel,
    pub(super) health_check_period: Duration,
    /// Certificate and key of the owner's own.
    pub(super) tls: Option<(String, String)>,
}

/// Without the keys.
impl fmt::Debug for CoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listen, store, key: _, log_level, health_check_period, tls: _ } = self;
        f.debug_struct("CoreBuilder")
            .field("listen", listen)
            .field("store", store)
            .field("log_level", log_level)
            .field("health_check_period", health_check_period)
            .finish_non_exhaustive()
    }
}

impl CoreBuilder {
    pub(super) fn new() -> Self {
        Self {
            listen: None,
            store: None,
            key: None,
            log_level: LogLevel::Warn,
            health_check_period: HEALTH_CHECK_PERIOD,
            tls: None,
        }
    }

    /// Also listens on this address; port 0 is any that is free. Extensions in
    /// processes of their own need it.
    pub fn listen(mut self, address: impl Into<SocketAddr>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Keeps everything in this file, which is made where there is none: what
    /// has been acknowledged is there again after the process ended, however it
    /// did. Extensions that are enabled are started again, and their
    /// subscriptions restored, in the background.
    ///
    /// Runs and events are kept as in memory, the newest of them.
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store = Some(path.into());
        self
    }

    /// Encrypts the secrets in the store with this key, 64 hexadecimal digits.
    ///
    /// Without it, a key is made and kept in a file beside the store, of the same
    /// name with `.key` added, which its owner alone can read.
    pub fn encryption_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// How much extensions in processes of their own log, to this process's
    /// standard error; default [`LogLevel::Warn`].
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = level;
        self
    }

    /// The time between two health checks of an extension in a process of its
    /// own; default 5 s. One that fails three in a row is started again, as is one
    /// that ends.
    pub fn health_check_period(mut self, period: Duration) -> Self {
        self.health_check_period = period;
        self
    }

    /// Shows this certificate to those who call from outside, and not one of
    /// the core's making: PEM text of a chain, and of its key.
    ///
    /// Without it, a certificate is made for `localhost`, the addresses of
    /// loopback and the one that is listened on. Where there is a store it is
    /// kept beside it, in a file of the same name with `.crt` added, for callers
    /// to trust, and its key in one with `.crt.key` added, which its owner alone
    /// can read. It is valid for ten years and made anew before that, or where
    /// the core listens on another address.
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some((certificate.into(), key.into()));
        self
    }

    /// Starts the core.
    ///
    /// # Errors
    ///
    /// [`InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) where the
    /// key is not one, or the certificate and its key are not a pair; where the
    /// address cannot be listened on; and
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) where the
    /// store's file is in use, damaged, of a newer version, or no store. The
    /// file is left as it is then.
    pub async fn start(self) -> Result<Core> {
        Core::start(self).await
    }
}
