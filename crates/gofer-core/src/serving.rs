//! Where the core's API is served: on a pipe inside this process, on the address
//! that was asked for, and on those addresses of this machine that containers
//! reach it at. All of it may be taken away, and come back.
//!
//! What is answered is the router's business; which addresses containers reach,
//! their launcher's.

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
use gofer_net::auth::Authorize;
use gofer_net::memory::Network;
use gofer_net::server::{Handler, Listener, serve};

/// The certificates that are shown.
pub(super) struct Tls {
    /// Inside this process, for a name that nobody else has.
    pub(super) inside: Arc<ServerConfig>,
    /// Outside, of an identity that may be kept or given.
    pub(super) outside: Arc<ServerConfig>,
}

pub(super) struct Serving {
    network: Network,
    address: Option<SocketAddr>,
    tls: Tls,
    /// Held while addresses are bound, so that nobody comes back to half of them.
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// Beside `address`.
    further: Vec<SocketAddr>,
    open: Option<Open>,
}

/// What answers calls, and who decides whether they are let in.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) authorize: Arc<dyn Authorize>,
    pub(super) handler: Arc<dyn Handler>,
}

/// The API, while it is there.
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

    /// The address that was asked for.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Begins to serve; `listener` is of the address where it is bound already.
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on.
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
                // A network of containers may be gone by now. Who is started
                // from here on is told of another address.
                Err(error) => tracing::warn!(%address, %error, "containers do not reach the core"),
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
                // A task of ours that panicked has nothing more to end.
                let _ = task.await;
            }
        }
    }

    /// Serves on this address of this machine too, from now on: where it is
    /// reached. The port is that of the address that was asked for, which rules
    /// of a firewall may name, or else any.
    ///
    /// # Errors
    ///
    /// Where it is no address of this machine.
    #[cfg(feature = "containers")]
    pub(super) async fn also_on(&self, ip: IpAddr) -> io::Result<SocketAddr> {
        let mut places = self.places.lock().await;
        let port = self.address.map_or(0, |address| address.port());
        if self.address.is_some_and(|address| address.ip().is_unspecified()) {
            // Served already. Binding tells whether it is of this machine.
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
        // While the API is away, the address is merely kept in mind.
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
