//! Where the engine is: the builder's part.

use crate::CoreBuilder;

/// Containers.
#[cfg_attr(docsrs, doc(cfg(feature = "containers")))]
impl CoreBuilder {
    /// Where Docker or Podman is: `unix:///path` of its socket, or
    /// `tcp://127.0.0.1:port`. It must be on this machine.
    ///
    /// Without it, the first that answers is taken of `DOCKER_HOST`, or where that
    /// is not set, of the usual sockets of Docker and then Podman. It is looked for
    /// when the first container is to be started.
    pub fn container_engine(mut self, address: impl Into<String>) -> Self {
        self.container_engine = Some(address.into());
        self
    }
}
