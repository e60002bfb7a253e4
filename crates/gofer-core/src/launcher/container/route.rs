//! How a container reaches the core's API.
//!
//! The API usually listens on loopback, and a container has its own loopback. So the core also
//! listens on an address of this machine that containers can reach: this machine's address in the
//! containers' network or, if that network is not visible from this machine, the address of its
//! default route. An engine in a virtual machine forwards a host name to this machine's loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use bollard::models::NetworkInspect;
use tonic::Status;

use super::engine::{Engine, EngineKind};
use crate::serving::Serving;

/// Stands for this machine in a container's list of hosts.
const HOST_GATEWAY: &str = "host-gateway";

/// This machine's name in containers of Docker Desktop and similar engines.
const DESKTOP_HOST: &str = "host.docker.internal";

/// This machine's name in containers of rootless Podman.
const PODMAN_HOST: &str = "host.containers.internal";

/// An address reserved for documentation, to find the default route.
const OUTSIDE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// How a container reaches the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) gofer_host: String,
    /// Entries for the container's list of hosts.
    pub(super) extra_hosts: Vec<String>,
}

/// How containers reach this machine, which depends on the kind of engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// Through this machine's address in the containers' network.
    Gateway,
    /// Through the address of this machine's default route; under a name if that address means the
    /// container itself.
    DefaultRoute(Option<&'static str>),
    /// Through this machine's loopback, under a name.
    Loopback,
}

pub(super) fn route_kind(kind: EngineKind, linux: bool) -> RouteKind {
    if kind.desktop || !linux {
        RouteKind::Loopback
    } else if kind.podman && kind.rootless {
        RouteKind::DefaultRoute(Some(PODMAN_HOST))
    } else if kind.podman || kind.rootless {
        // Podman's network only exists while a container uses it.
        RouteKind::DefaultRoute(None)
    } else {
        RouteKind::Gateway
    }
}

/// # Errors
///
/// If the core does not listen, or containers can reach no address of this machine.
pub(super) async fn to_core(engine: &Engine, serving: &Serving) -> Result<Route, Status> {
    let Some(address) = serving.address() else {
        return Err(Status::failed_precondition(
            "an extension in a container needs a core that listens: use `Core::on_loopback` or \
             `CoreBuilder::listen`",
        ));
    };
    if !address.ip().is_loopback() && !address.ip().is_unspecified() {
        return Ok(plain(address));
    }
    match route_kind(engine.kind, cfg!(target_os = "linux")) {
        RouteKind::Loopback => Ok(Route {
            gofer_host: format!("{DESKTOP_HOST}:{}", address.port()),
            extra_hosts: vec![format!("{DESKTOP_HOST}:{HOST_GATEWAY}")],
        }),
        RouteKind::Gateway => {
            let network = engine.call(engine.docker.inspect_network("bridge", None)).await.ok();
            if let Some(gateway) = network.as_ref().and_then(gateway)
                && let Ok(address) = serving.also_on(gateway).await
            {
                return Ok(plain(address));
            }
            default_route(serving, None).await
        }
        RouteKind::DefaultRoute(name) => default_route(serving, name).await,
    }
}

fn plain(address: SocketAddr) -> Route {
    Route { gofer_host: address.to_string(), extra_hosts: Vec::new() }
}

async fn default_route(serving: &Serving, name: Option<&str>) -> Result<Route, Status> {
    let found = async {
        // Sends nothing: connecting a UDP socket only selects a route.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(OUTSIDE)?;
        serving.also_on(socket.local_addr()?.ip()).await
    };
    let address = found.await.map_err(|error| {
        Status::failed_precondition(format!(
            "containers cannot reach this core: it cannot listen on an address of this machine \
             other than loopback ({error}); use `CoreBuilder::listen` with one that they can reach"
        ))
    })?;
    Ok(match name {
        Some(name) => {
            Route { gofer_host: format!("{name}:{}", address.port()), extra_hosts: Vec::new() }
        }
        None => plain(address),
    })
}

/// This machine's address in a network. Engines omit it if they have chosen it themselves; it is
/// then the network's first address.
pub(super) fn gateway(network: &NetworkInspect) -> Option<IpAddr> {
    let configs = network.ipam.as_ref()?.config.as_ref()?;
    configs.iter().find_map(|config| {
        if let Some(gateway) = &config.gateway
            && let Ok(gateway) = gateway.parse::<Ipv4Addr>()
        {
            return Some(gateway.into());
        }
        let (network, _) = config.subnet.as_ref()?.split_once('/')?;
        let network: Ipv4Addr = network.parse().ok()?;
        Some(Ipv4Addr::from_bits(network.to_bits().checked_add(1)?).into())
    })
}
