//! What the tests of the server's side share: an extension that serves on a real TLS socket, and a
//! raw gRPC client for it that has none of the SDK's own client in it.
//!
//! [`probe`] is an extension that does what a test sets up, [`gofer`] the small part of Gofer that
//! an extension calls, and [`stand_in`] one that behaves as Gofer 0.6.2 does.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "what fails here fails a test"
)]

pub mod connection;
pub mod conversation;
pub mod gofer;
pub mod log;
pub mod probe;
pub mod requests;
pub mod serving;
pub mod stand_in;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use gofer_proto::extension_service_client::ExtensionServiceClient;
use gofer_proto::{
    ExtensionExternalEventRequest, ExtensionInfoRequest, ExtensionInfoResponse,
    ExtensionInitRequest, ExtensionShutdownRequest, ExtensionSubscribeRequest,
    ExtensionUnsubscribeRequest,
};
use gofer_sdk::{Extension, Limits, RunError, Server, SystemConfig};
use http::HeaderValue;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic_health::pb::health_client::HealthClient;

pub use connection::Connection;

/// The token that the extension under test is started with.
pub const TOKEN: &str = "the-token-of-the-tests";

/// The name under which the extension under test is installed.
pub const NAME: &str = "probe";

/// Longer than anything here takes on a busy machine, so that only what hangs fails.
const HANG_TIMEOUT: Duration = Duration::from_secs(60);

/// The outcome of a future that must not hang.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANG_TIMEOUT, future).await.expect("it hangs")
}

/// A certificate for the loopback address, and its key.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    pub fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }
}

/// The certificate of both the extension and Gofer, which each of them trusts.
pub static IDENTITY: LazyLock<Identity> = LazyLock::new(Identity::new);

/// How an extension is started.
#[derive(Default)]
pub struct Setup {
    pub limits: Limits,
    /// Where Gofer is; a closed port by default.
    pub gofer: Option<SocketAddr>,
}

impl Setup {
    /// The settings in the environment of the extension.
    pub fn system_config(&self) -> SystemConfig {
        let gofer = self.gofer.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 1)));
        let vars = [
            ("KEY", TOKEN.to_owned()),
            ("NAME", NAME.to_owned()),
            ("TLS_CERT", IDENTITY.certificate.clone()),
            ("TLS_KEY", IDENTITY.key.clone()),
            ("GOFER_HOST", gofer.to_string()),
        ];
        let vars = vars.map(|(name, value)| (format!("GOFER_EXTENSION_SYSTEM_{name}"), value));
        SystemConfig::from_vars(vars).unwrap()
    }

    /// Starts an extension in the runtime of the test.
    pub fn start<E: Extension>(self) -> Started {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = Server::<E>::new(self.system_config())
            .with_listener(listener)
            .with_limits(self.limits)
            .with_gofer_ca(&IDENTITY.certificate)
            .unwrap()
            .stop_when(async {
                // Dropped unsent, it never stops the server.
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            });
        Started { address, stop: Some(stop), serving: tokio::spawn(server.serve()) }
    }
}

/// Limits with a grace that is longer than [`within`] waits: a test that waits for it fails.
pub fn long_grace() -> Limits {
    Limits::default().with_stop_grace(10 * HANG_TIMEOUT)
}

/// Limits with a grace that a test may wait for.
pub fn short_grace() -> Limits {
    Limits::default().with_stop_grace(Duration::from_millis(200))
}

/// An extension that serves.
pub struct Started {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), RunError>>,
}

impl Started {
    /// A client with the token, on a connection of its own.
    pub async fn client(&self) -> Client {
        Client::new(Connection::open(self.address, [bearer(TOKEN)]).await)
    }

    /// A connection without any token.
    pub async fn unauthenticated(&self) -> Connection {
        Connection::open(self.address, []).await
    }

    /// Stops as a signal would, also one that comes when the server has stopped already.
    pub fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Drops the server while it serves.
    pub fn abandon(self) {
        self.serving.abort();
    }

    /// What `serve` returned.
    pub async fn stopped(self) -> Result<(), RunError> {
        within(self.serving).await.unwrap()
    }
}

pub fn bearer(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).unwrap()
}

impl Connection {
    /// To an extension or a Gofer with [`IDENTITY`].
    pub async fn open<const N: usize>(
        address: SocketAddr,
        authorization: [HeaderValue; N],
    ) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, authorization).await
    }

    /// Over a stream that is already connected.
    pub async fn over<const N: usize>(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        authorization: [HeaderValue; N],
    ) -> Self {
        let http = http2::Builder::new(TokioExecutor::new());
        let opened = Self::handshake(stream, &IDENTITY.certificate, &http);
        within(opened).await.unwrap().with(authorization)
    }

    pub fn health(&self) -> HealthClient<Self> {
        HealthClient::new(self.clone())
    }
}

/// Gofer's side of the contract, call by call.
#[derive(Clone)]
pub struct Client {
    pub connection: Connection,
}

/// A payload that is an HTTP request.
pub const EVENT: &str = "POST /external/probe HTTP/1.1\r\nHost: example.com\r\n\r\nbody";

pub type Settings<'a> = &'a [(&'a str, &'a str)];

fn map(settings: Settings<'_>) -> HashMap<String, String> {
    settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Client {
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    pub fn raw(&self) -> ExtensionServiceClient<Connection> {
        ExtensionServiceClient::new(self.connection.clone())
    }

    pub async fn init(&self, config: Settings<'_>) -> Result<(), Status> {
        let request = ExtensionInitRequest { config: map(config) };
        within(self.raw().init(request)).await.map(drop)
    }

    pub async fn info(&self) -> Result<ExtensionInfoResponse, Status> {
        within(self.raw().info(ExtensionInfoRequest {})).await.map(tonic::Response::into_inner)
    }

    /// What Info lists, sorted.
    pub async fn registered(&self) -> Vec<String> {
        let mut registered = self.info().await.unwrap().registered;
        registered.sort_unstable();
        registered
    }

    /// Subscribes a pipeline of the namespace `default` under the label `l`.
    pub async fn subscribe(&self, pipeline: &str, params: Settings<'_>) -> Result<(), Status> {
        self.subscribe_as(pipeline, "l", params).await
    }

    /// Subscribes under another label.
    pub async fn subscribe_as(
        &self,
        pipeline: &str,
        label: &str,
        params: Settings<'_>,
    ) -> Result<(), Status> {
        let request = ExtensionSubscribeRequest {
            namespace_id: String::new(),
            pipeline_id: pipeline.to_owned(),
            pipeline_extension_label: label.to_owned(),
            config: map(params),
        };
        within(self.raw().subscribe(request)).await.map(drop)
    }

    /// Ends what [`subscribe`](Self::subscribe) began.
    pub async fn unsubscribe(&self, pipeline: &str) -> Result<(), Status> {
        let request = ExtensionUnsubscribeRequest {
            namespace_id: "default".to_owned(),
            pipeline_id: pipeline.to_owned(),
            pipeline_extension_label: "l".to_owned(),
        };
        within(self.raw().unsubscribe(request)).await.map(drop)
    }

    pub async fn external_event(&self, payload: impl Into<bytes::Bytes>) -> Result<(), Status> {
        let request = ExtensionExternalEventRequest { payload: payload.into() };
        within(self.raw().external_event(request)).await.map(drop)
    }

    pub async fn shutdown(&self) -> Result<(), Status> {
        within(self.raw().shutdown(ExtensionShutdownRequest {})).await.map(drop)
    }
}
