//! A gRPC client of a core on loopback, with any token or none, that shares no code with the SDK's
//! client.

use gofer_core::Core;
use gofer_proto as proto;
use gofer_proto::gofer_client::GoferClient;
use http::HeaderValue;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpStream;
use tonic::{Status, Streaming};

use crate::connection::Connection;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Connection);

impl Caller {
    pub(crate) async fn of(core: &Core) -> Self {
        Self::connect(core).await.expect("the core accepts a connection")
    }

    /// An error if the connection is closed before it can be used.
    pub(crate) async fn connect(core: &Core) -> Result<Self, Error> {
        Self::connect_with(core, &http2::Builder::new(TokioExecutor::new())).await
    }

    /// One that reads the heads of responses, and none of their messages.
    pub(crate) async fn unread(core: &Core) -> Self {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.initial_stream_window_size(0);
        Self::connect_with(core, &http).await.expect("the core accepts a connection")
    }

    async fn connect_with(
        core: &Core,
        http: &http2::Builder<TokioExecutor>,
    ) -> Result<Self, Error> {
        let stream = TcpStream::connect(core.address().unwrap()).await?;
        stream.set_nodelay(true)?;
        Ok(Self(Connection::handshake(stream, core.certificate(), http).await?))
    }

    /// Whether the core has closed the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Begins a call that stays open until the result is dropped: it follows events.
    pub(crate) async fn begin(&self) -> OpenCall {
        let message = proto::ListEventsRequest { follow: true, ..Default::default() };
        OpenCall(self.api().list_events(message).await.unwrap().into_inner())
    }

    /// The same connection, calling with this token.
    pub(crate) fn with(&self, token: &str) -> Self {
        Self(self.0.with([HeaderValue::try_from(format!("Bearer {token}")).unwrap()]))
    }

    pub(crate) fn api(&self) -> GoferClient<Connection> {
        GoferClient::new(self.0.clone())
    }

    /// Calls a method by its name, with an empty message.
    pub(crate) async fn call(&self, method: &str) -> Result<(), Status> {
        self.0.call(&format!("/proto.Gofer/{method}")).await
    }
}

/// A call that has not ended.
pub(crate) struct OpenCall(
    #[expect(dead_code, reason = "dropped with it")] Streaming<proto::ListEventsResponse>,
);
