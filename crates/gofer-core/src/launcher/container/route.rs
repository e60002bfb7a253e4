//! The way from a container to the core's API.
//!
//! The API usually listens on loopback, which is another one inside a container.
//! So the core also listens on an address of this machine that containers reach:
//! of their own network's, where the engine runs beside the core; of the
//! machine's own towards the outside, where the engine has a network that this
//! machine does not see. Where the engine runs in a virtual machine, it brings
//! containers to loopback under a name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use bollard::models::NetworkInspect;
use tonic::Status;

use super::engine::{Engine, Kind};
use crate::serving::Serving;

/// What a name for this machine stands for in a container's list of hosts.
const HOST_GATEWAY: &str = "host-gateway";

/// What Docker Desktop and its like call this machine.
const DESKTOP_HOST: &str = "host.docker.internal";

/// What Podman calls this machine, in containers of users other than root.
const PODMAN_HOST: &str = "host.containers.internal";

/// An address of documentation, behind whatever leads to the outside.
const OUTSIDE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// How a container reaches the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) gofer_host: String,
    /// For the container's list of hosts.
    pub(super) extra_hosts: Vec<String>,
}

/// What the kind of engine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The address that this machine has in the network of the containers.
    Gateway,
    /// The address that this machine has towards the outside, under a name where
    /// that very address means the container itself.
    Outward(Option<&'static str>),
    /// Loopback of this machine, under a name.
    Loopback,
}

pub(super) fn way(kind: Kind, linux: bool) -> Way {
    if kind.desktop || !linux {
        Way::Loopback
    } else if kind.podman && kind.rootless {
        Way::Outward(Some(PODMAN_HOST))
    } else if kind.podman || kind.rootless {
        // Podman's network is only there while a container uses it.
        Way::Outward(None)
    } else {
        Way::Gateway
    }
}

/// # Errors
///
/// Where the core does not listen, or no address serves.
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
    match way(engine.kind, cfg!(target_os = "linux")) {
        Way::Loopback => Ok(Route {
            gofer_host: format!("{DESKTOP_HOST}:{}", address.port()),
            extra_hosts: vec![format!("{DESKTOP_HOST}:{HOST_GATEWAY}")],
        }),
        Way::Gateway => {
            let network = engine.call(engine.docker.inspect_network("bridge", None)).await.ok();
            if let Some(gateway) = network.as_ref().and_then(gateway)
                && let Ok(address) = serving.also_on(gateway).await
            {
                return Ok(plain(address));
            }
            outward(serving, None).await
        }
        Way::Outward(name) => outward(serving, name).await,
    }
}

fn plain(address: SocketAddr) -> Route {
    Route { gofer_host: address.to_string(), extra_hosts: Vec::new() }
}

async fn outward(serving: &Serving, name: Option<&str>) -> Result<Route, Status> {
    let found = async {
        // Sends nothing: it only asks for the way.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(OUTSIDE)?;
        serving.also_on(socket.local_addr()?.ip()).await
    };
    let address = found.await.map_err(|error| {
        Status::failed_precondition(format!(
            "containers do not reach this core: no address of this machine serves ({error}); let \
             the core listen on one that they reach, with `CoreBuilder::listen`"
        ))
    })?;
    Ok(match name {
        Some(name) => {
            Route { gofer_host: format!("{name}:{}", address.port()), extra_hosts: Vec::new() }
        }
        None => plain(address),
    })
}

/// The address that this machine has in a network. Engines leave out what they
/// have chosen by themselves, which is the network's first.
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
