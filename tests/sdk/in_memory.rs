//! An extension and a Gofer in memory, with the default limits, for tests on a paused clock: it
//! advances only while nothing is left to do, so times are exact however busy the machine is.

use std::sync::Arc;
use std::time::Duration;

use crate::support::gofer::{Behavior, Gofer};
use crate::support::probe::{Builder, Probe, Probed};
use crate::support::{Client, Connection, IDENTITY, Setup, TOKEN, bearer, within};
use gofer_net::Clock;
use gofer_net::memory::Network;
use gofer_net::tls::{Trust, certificates};
use gofer_proto::StartRunRequest;
use gofer_sdk::RunError;
use gofer_sdk::internal::serve_embedded;
use tokio::task::JoinHandle;

/// Always the same, so that nothing depends on when a test runs; not a round number.
const START: Duration = Duration::from_nanos(1_764_485_565_432_100_987);

pub(crate) struct InMemory {
    /// That of the extension and of Gofer. Clocks that are made one after the other differ.
    pub(crate) clock: Clock,
    pub(crate) probe: Arc<Probe>,
    pub(crate) gofer: Arc<Gofer>,
    pub(crate) client: Client,
    network: Network,
    /// Accepts the connections of the extension.
    accepting: JoinHandle<()>,
    serving: JoinHandle<Result<(), RunError>>,
}

impl InMemory {
    /// Starts and initializes the extension. `script` decides on each start of a run, as in
    /// [`Gofer::listening`].
    pub(crate) async fn start(
        extension: Builder,
        script: impl Fn(&StartRunRequest, usize) -> Behavior + Send + Sync + 'static,
    ) -> Self {
        let started = Self::start_bare(extension, script).await;
        started.client.init(&started.probe.config()).await.unwrap();
        started
    }

    /// Starts the extension; not initialized.
    pub(crate) async fn start_bare(
        extension: Builder,
        script: impl Fn(&StartRunRequest, usize) -> Behavior + Send + Sync + 'static,
    ) -> Self {
        let clock = Clock::derived_from(START);
        let gofer = Arc::new(Gofer::in_memory(move || clock.unix_millis(), script));
        let (network, to_gofer) = (Network::default(), Network::default());
        let mut connections = to_gofer.listen();
        let accepting = tokio::spawn({
            let gofer = Arc::clone(&gofer);
            async move {
                loop {
                    gofer.serve(connections.accept().await);
                }
            }
        });
        let trust = Trust {
            extra: certificates(&IDENTITY.certificate).unwrap(),
            only_extra: true,
            ..Trust::default()
        };
        let (probe, config) = (extension.build(), Setup::default().system_config());
        let server = serve_embedded::<Probed>(config, network.listen(), to_gofer, trust, clock);
        let serving = tokio::spawn(server);
        let client = connect(&network).await;
        Self { clock, probe, gofer, client, network, accepting, serving }
    }

    /// A client with the token, on a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.network).await
    }

    /// Drops the server while it serves; Gofer and the client end too.
    pub(crate) fn abandon(self) -> Arc<Probe> {
        self.serving.abort();
        self.accepting.abort();
        self.probe
    }

    /// What `serve` returned.
    pub(crate) async fn stopped(self) -> Result<(), RunError> {
        within(self.serving).await.unwrap()
    }
}

async fn connect(network: &Network) -> Client {
    let stream = network.connect().await.unwrap();
    Client::new(Connection::over(stream, [bearer(TOKEN)]).await)
}
