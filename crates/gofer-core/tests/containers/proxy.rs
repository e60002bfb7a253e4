//! A proxy for the engine's socket that can be cut off.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Forwards connections to the engine's socket.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// The path of its socket.
    engine: String,
    serving: Option<AbortOnDropHandle<()>>,
}

impl Proxy {
    /// `None` if the engine has no Unix socket.
    pub(crate) async fn new() -> Option<Self> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        let engine = match host.strip_prefix("unix://") {
            Some(path) => path.to_owned(),
            None if host.is_empty() => "/var/run/docker.sock".to_owned(),
            None => return None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Some(serve(listener, engine.clone()));
        Some(Self { address, engine, serving })
    }

    /// Breaks all connections and stops listening.
    pub(crate) async fn cut(&mut self) {
        self.serving = None;
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn mend(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = Some(serve(listener, self.engine.clone()));
    }
}

fn serve(listener: TcpListener, engine: String) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        // Dropped with this task, which breaks all connections.
        let mut connections = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let engine = engine.clone();
            connections.spawn(async move {
                let mut far = UnixStream::connect(engine).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    }))
}
