//! The option for the container engine's address.

use super::CoreBuilder;

/// Containers.
#[cfg_attr(docsrs, doc(cfg(feature = "containers")))]
impl CoreBuilder {
    /// The address of Docker or Podman: `unix:///path` of its socket, or `tcp://127.0.0.1:port`. It
    /// must be on this machine.
    ///
    /// By default the core uses `DOCKER_HOST` or, if that is not set, the Docker context that
    /// `DOCKER_CONTEXT` or Docker's configuration chooses, or else the first of the usual
    /// sockets of Docker and then Podman that answers. It connects when it launches the first
    /// container.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// use gofer_core::{Core, NO_SETTINGS};
    ///
    /// let core = Core::builder().container_engine("unix:///nonexistent").start().await?;
    /// let refused = core.install_image("interval", "interval:1.0", NO_SETTINGS).await;
    /// assert!(refused.unwrap_err().to_string().contains("no container engine is reachable"));
    /// # Ok(()) }
    /// ```
    pub fn container_engine(mut self, address: impl Into<String>) -> Self {
        self.container_engine = Some(address.into());
        self
    }
}
