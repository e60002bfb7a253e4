//! Serves the core's API: on a pipe inside this process, on the configured address, and on
//! addresses of this machine that containers can reach. All of them can be closed and opened again.
//!
//! Requests are handled by the router. Which addresses containers can reach is determined by their
//! launcher.

use std::io;
#[cfg(feature = "containers")]
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use gofer_net::Limits;
use gofer_net::Listener;
use gofer_net::auth::Authorize;
use gofer_net::memory::Network;
use gofer_net::server::{Handler, serve};

/// The certificates that are used.
pub(super) struct Tls {
    /// Inside this process.
    pub(super) inside: Arc<ServerConfig>,
    /// On addresses; kept beside the store, or given.
    pub(super) outside: Arc<ServerConfig>,
}

pub(super) struct Serving {
    network: Network,
    address: Option<SocketAddr>,
    tls: Tls,
    /// Held while addresses are bound, so that either all of them are open or none.
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// In addition to `address`.
    further: Vec<SocketAddr>,
    open: Option<Open>,
}

/// Handles calls, and decides which are allowed.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) authorize: Arc<dyn Authorize>,
    pub(super) handler: Arc<dyn Handler>,
}

/// The API, while it is open.
struct Open {
    service: Service,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Serving {
    pub(super) fn new(network: Network, address: Option<SocketAddr>, tls: Tls) -> Arc<Self> {
        Arc::new(Self { network, address, tls, places: Mutex::default() })
    }

    /// The configured address.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Starts serving. `listener` is that of the address, if it is already bound.
    ///
    /// # Errors
    ///
    /// If it cannot listen on the address.
    pub(super) async fn open(
        &self,
        service: Service,
        listener: Option<TcpListener>,
    ) -> io::Result<()> {
        let mut places = self.places.lock().await;
        let mut listeners = vec![Listener::Memory(self.network.listen())];
        match (listener, self.address) {
            (Some(listener), _) => listeners.push(Listener::Tcp(listener)),
            (None, Some(address)) => {
                listeners.push(Listener::Tcp(TcpListener::bind(address).await?));
            }
            (None, None) => {}
        }
        for address in &places.further {
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(Listener::Tcp(listener)),
                // A container network may be gone by now. Containers that are started from here on
                // get another address.
                Err(error) => tracing::warn!(%address, %error, "containers cannot reach the core"),
            }
        }
        let mut open = Open { service, stop: CancellationToken::new(), tasks: Vec::new() };
        for listener in listeners {
            self.accept(&mut open, listener);
        }
        places.open = Some(open);
        Ok(())
    }

    /// Breaks all connections and refuses new ones, until it is opened again.
    pub(super) async fn close(&self) {
        let open = self.places.lock().await.open.take();
        if let Some(mut open) = open {
            open.stop.cancel();
            for task in &mut open.tasks {
                // A task that panicked has nothing left to end.
                let _ = task.await;
            }
        }
    }

    /// Also serves on this address of this machine from now on, and returns it with its port: that
    /// of the configured address if it is free, since firewall rules may name it, or any other.
    ///
    /// # Errors
    ///
    /// If this machine does not have the address.
    #[cfg(feature = "containers")]
    pub(super) async fn also_on(&self, ip: IpAddr) -> io::Result<SocketAddr> {
        let mut places = self.places.lock().await;
        let port = self.address.map_or(0, |address| address.port());
        if self.address.is_some_and(|address| address.ip().is_unspecified()) {
            // Served already. Binding checks that the machine has the address.
            TcpListener::bind((ip, 0)).await?;
            return Ok((ip, port).into());
        }
        if let Some(known) = places.further.iter().find(|known| known.ip() == ip) {
            return Ok(*known);
        }
        let listener = match TcpListener::bind((ip, port)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((ip, 0)).await?,
        };
        let address = listener.local_addr()?;
        places.further.push(address);
        // While the API is closed, the address is only recorded.
        if let Some(open) = &mut places.open {
            self.accept(open, Listener::Tcp(listener));
        }
        Ok(address)
    }

    fn accept(&self, open: &mut Open, listener: Listener) {
        let stopped = open.stop.clone().cancelled_owned();
        let tls = match &listener {
            Listener::Memory(_) => &self.tls.inside,
            Listener::Tcp(_) => &self.tls.outside,
        };
        let Service { authorize, handler } = open.service.clone();
        let serving =
            serve(listener, Arc::clone(tls), authorize, handler, Limits::default(), stopped);
        open.tasks.push(tokio::spawn(serving));
    }
}
