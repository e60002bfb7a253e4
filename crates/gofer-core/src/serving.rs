//! Serves the core's API: on a pipe inside this process, on the configured address, and on
//! addresses of this machine that containers can reach. All of them can be closed and opened again.
//!
//! Requests are handled by the router. Which addresses containers can reach is determined by their
//! launcher.

use std::io;
#[cfg(feature = "containers")]
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::essential::EssentialTasks;
use gofer_net::memory::Network;
use gofer_net::server::{Service, serve};
use gofer_net::{Listener, OwnListener};

/// The certificates that are used.
pub(super) struct Tls {
    /// On the pipe inside this process.
    pub(super) in_memory: Arc<ServerConfig>,
    /// On addresses: kept beside the store, or given.
    pub(super) tcp: Arc<ServerConfig>,
}

pub(super) struct Serving {
    network: Network,
    address: Option<SocketAddr>,
    port: Port,
    tls: Tls,
    essential: EssentialTasks,
    /// Held while addresses are bound, so that either all of them are open or none.
    listeners: Mutex<Listeners>,
}

#[derive(Default)]
struct Listeners {
    /// The addresses in addition to the configured one.
    additional: Vec<SocketAddr>,
    current: Option<Open>,
}

/// Keeps a port from being given to others while nothing listens on it. A socket that is bound and
/// does not listen does that on Linux; elsewhere nothing does.
#[derive(Default)]
pub(super) struct Port(std::sync::Mutex<Option<TcpSocket>>);

impl Port {
    /// Listens on an address, if there is one. Connections are refused whenever the listener is
    /// closed.
    pub(super) async fn listen(
        address: Option<SocketAddr>,
    ) -> gofer_sdk::Result<(Option<TcpListener>, Self)> {
        let Some(address) = address else { return Ok((None, Self::default())) };
        let (listener, port) = Self::listen_on(address).await.map_err(|error| {
            gofer_sdk::Error::internal(format!("cannot listen on {address}: {error}"))
        })?;
        Ok((Some(listener), port))
    }

    async fn listen_on(address: SocketAddr) -> io::Result<(TcpListener, Self)> {
        if cfg!(not(target_os = "linux")) {
            return Ok((TcpListener::bind(address).await?, Self::default()));
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As the listener has it, so that both may be bound.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = TcpListener::bind(socket.local_addr()?).await?;
        Ok((listener, Self(std::sync::Mutex::new(Some(socket)))))
    }

    fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What is served on which listeners.
#[derive(Clone)]
pub(super) struct Served {
    /// On the configured address.
    pub(super) configured: Service,
    /// On the pipe, and on the additional addresses.
    pub(super) elsewhere: Service,
}

/// The API, while it is open.
struct Open {
    served: Served,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// Closes the API. If this is dropped, it is closed all the same, and the next call waits for that.
async fn end(current: &mut Option<Open>) {
    let Some(open) = current else { return };
    open.stop.cancel();
    while let Some(task) = open.tasks.last_mut() {
        // A task that panicked has nothing left to end.
        let _ = task.await;
        open.tasks.pop();
    }
    *current = None;
}

/// The core starts children, and may be opened again, or another core on its address, at any time.
fn own(listener: TcpListener) -> Listener {
    Listener::Own(OwnListener::new(listener))
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Serving {
    /// `port` is that of the address.
    pub(super) fn new(
        network: Network,
        address: Option<SocketAddr>,
        port: Port,
        tls: Tls,
        essential: EssentialTasks,
    ) -> Arc<Self> {
        Arc::new(Self { network, address, port, tls, essential, listeners: Mutex::default() })
    }

    #[cfg(test)]
    pub(super) fn network(&self) -> Network {
        self.network.clone()
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
        served: Served,
        listener: Option<TcpListener>,
    ) -> io::Result<()> {
        let mut locked = self.listeners.lock().await;
        if locked.current.as_ref().is_some_and(|open| open.stop.is_cancelled()) {
            end(&mut locked.current).await;
        }
        let configured = match (listener, self.address) {
            (Some(listener), _) => Some(listener),
            (None, Some(address)) => Some(TcpListener::bind(address).await?),
            (None, None) => None,
        };
        let mut listeners = vec![Listener::Memory(self.network.listen())];
        for address in &locked.additional {
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(own(listener)),
                // A container network may be gone by now. Containers that are started from here on
                // get another address.
                Err(error) => tracing::warn!(%address, %error, "containers cannot reach the core"),
            }
        }
        let mut open = Open { served, stop: CancellationToken::new(), tasks: Vec::new() };
        let Served { configured: service, elsewhere } = open.served.clone();
        if let Some(listener) = configured {
            self.accept(&mut open, own(listener), service);
        }
        for listener in listeners {
            self.accept(&mut open, listener, elsewhere.clone());
        }
        locked.current = Some(open);
        Ok(())
    }

    /// Breaks all connections and refuses new ones, until it is opened again.
    pub(super) async fn close(&self) {
        end(&mut self.listeners.lock().await.current).await;
    }

    /// Gives the port back. The API is not opened any more.
    pub(super) fn release_port(&self) {
        self.port.release();
    }

    /// Also serves on this address of this machine from now on, and returns it with its port: that
    /// of the configured address if it is free, since firewall rules may name it, or any other.
    ///
    /// # Errors
    ///
    /// If this machine does not have the address.
    #[cfg(feature = "containers")]
    pub(super) async fn also_on(&self, ip: IpAddr) -> io::Result<SocketAddr> {
        let mut listeners = self.listeners.lock().await;
        let port = self.address.map_or(0, |address| address.port());
        if self.address.is_some_and(|address| address.ip().is_unspecified()) {
            // Served already. Binding checks that the machine has the address.
            TcpListener::bind((ip, 0)).await?;
            return Ok((ip, port).into());
        }
        if let Some(known) = listeners.additional.iter().find(|known| known.ip() == ip) {
            return Ok(*known);
        }
        let listener = match TcpListener::bind((ip, port)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((ip, 0)).await?,
        };
        let address = listener.local_addr()?;
        listeners.additional.push(address);
        // While the API is closed, the address is only recorded.
        if let Some(open) = &mut listeners.current {
            let service = open.served.elsewhere.clone();
            self.accept(open, own(listener), service);
        }
        Ok(address)
    }

    fn accept(&self, open: &mut Open, listener: Listener, service: Service) {
        let stopped = open.stop.clone().cancelled_owned();
        let tls = match &listener {
            Listener::Memory(_) => &self.tls.in_memory,
            Listener::Tcp(_) | Listener::Own(_) => &self.tls.tcp,
        };
        let serving = serve(listener, Arc::clone(tls), service, stopped);
        open.tasks.push(self.essential.spawn("the listener of the API", serving));
    }
}

#[cfg(all(test, feature = "containers", target_os = "linux"))]
mod tests;
