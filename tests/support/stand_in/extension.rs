//! An extension in memory, which calls a stand-in.

use std::sync::Arc;

use gofer_net::memory::Network;
use gofer_net::tls::{Trust, certificates};
use gofer_sdk::internal::serve_embedded;
use gofer_sdk::{Extension, RunError};
use tokio::task::JoinHandle;

use super::super::probe::{Builder, Probe, Probed};
use super::super::{Client, Connection, IDENTITY, Setup, TOKEN, bearer, within};
use super::StandIn;

/// An extension that runs, with the default limits, on the clock of the test.
pub struct Running {
    pub probe: Arc<Probe>,
    pub client: Client,
    network: Network,
    serving: JoinHandle<Result<(), RunError>>,
}

/// An extension that runs, which is no probe.
pub struct Served {
    pub client: Client,
    network: Network,
    serving: JoinHandle<Result<(), RunError>>,
}

impl Served {
    /// Ends it as if its process was killed.
    pub async fn kill(self) {
        self.serving.abort();
        drop(within(self.serving).await);
    }
}

impl StandIn {
    /// Starts and initializes an extension in memory, whose Gofer this is.
    pub async fn start(&self, extension: Builder) -> Running {
        let probe = extension.build();
        let Served { client, network, serving } = self.serve::<Probed>(&probe.config()).await;
        Running { probe, client, network, serving }
    }

    /// The same for any extension.
    pub async fn serve<E: Extension>(&self, settings: &[(&str, &str)]) -> Served {
        let trust = Trust {
            extra: certificates(&IDENTITY.certificate).unwrap(),
            only_extra: true,
            ..Trust::default()
        };
        let config = Setup::default().system_config();
        let (network, clock) = (Network::default(), self.clock());
        let (listener, to_gofer) = (network.listen(), self.network());
        let server = serve_embedded::<E>(config, listener, to_gofer, trust, clock);
        let serving = tokio::spawn(server);
        let client = connect(&network).await;
        client.init(settings).await.unwrap();
        Served { client, network, serving }
    }

    /// A client for its API, with the token, on a connection in memory of its own.
    pub async fn connect(&self) -> Connection {
        let stream = self.network().connect().await.unwrap();
        Connection::over(stream, [bearer(TOKEN)]).await
    }
}

impl Running {
    /// A client for the extension, with the token, on a connection of its own.
    pub async fn client(&self) -> Client {
        connect(&self.network).await
    }

    /// Ends it as if its process was killed.
    pub async fn kill(self) -> Arc<Probe> {
        self.serving.abort();
        drop(within(self.serving).await);
        self.probe
    }

    /// Shuts it down.
    pub async fn shut_down(self) -> Arc<Probe> {
        self.client.shutdown().await.unwrap();
        within(self.serving).await.unwrap().unwrap();
        self.probe
    }
}

async fn connect(network: &Network) -> Client {
    let stream = network.connect().await.unwrap();
    Client::new(Connection::over(stream, [bearer(TOKEN)]).await)
}
