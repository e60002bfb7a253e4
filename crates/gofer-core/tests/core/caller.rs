//! A gRPC client of a core on loopback, with any token or none, that shares no code with the SDK's
//! client.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use gofer_core::Core;
use gofer_proto as proto;
use gofer_proto::gofer_client::GoferClient;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tonic::body::Body;
use tonic::{Status, Streaming};

/// What sends requests on a connection. Gone when that has ended: hyper answers a request that is
/// sent at that very moment when the last of these is gone.
type Calls = Arc<Mutex<Option<http2::SendRequest<Body>>>>;

#[derive(Clone)]
pub(crate) struct Caller {
    calls: Calls,
    authorization: Option<HeaderValue>,
}

impl Caller {
    pub(crate) async fn of(core: &Core) -> Self {
        Self::connect(core).await.expect("the core accepts a connection")
    }

    /// An error if the connection is closed before it can be used.
    pub(crate) async fn connect(core: &Core) -> Result<Self, Box<dyn std::error::Error>> {
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
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(core.certificate().as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(core.address().unwrap()).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
        let (calls, connection) = http.handshake(TokioIo::new(stream)).await?;
        // Ends with the last clone of the sender, or with the core.
        let calls = Arc::new(Mutex::new(Some(calls)));
        let last = Arc::downgrade(&calls);
        tokio::spawn(async move {
            drop(connection.await);
            drop(last.upgrade().and_then(|calls| calls.lock().unwrap().take()));
        });
        Ok(Self { calls, authorization: None })
    }

    /// Whether the core has closed the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.calls.lock().unwrap().as_ref().is_none_or(http2::SendRequest::is_closed)
    }

    /// Begins a call that stays open until the result is dropped: it follows events.
    pub(crate) async fn begin(&self) -> OpenCall {
        let message = proto::ListEventsRequest { follow: true, ..Default::default() };
        OpenCall(self.api().list_events(message).await.unwrap().into_inner())
    }

    /// The same connection, calling with this token.
    pub(crate) fn with(&self, token: &str) -> Self {
        let authorization = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        Self { authorization: Some(authorization), ..self.clone() }
    }

    pub(crate) fn api(&self) -> GoferClient<Self> {
        GoferClient::new(self.clone())
    }

    /// Calls a method by its name, with an empty message.
    pub(crate) async fn call(&self, method: &str) -> Result<(), Status> {
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = PathAndQuery::try_from(format!("/proto.Gofer/{method}")).unwrap();
        let mut grpc = tonic::client::Grpc::new(self.clone());
        grpc.unary(tonic::Request::new(()), path, codec).await.map(drop)
    }
}

/// A call that has not ended.
pub(crate) struct OpenCall(
    #[expect(dead_code, reason = "dropped with it")] Streaming<proto::ListEventsResponse>,
);

impl tower_service::Service<Request<Body>> for Caller {
    type Response = Response<Incoming>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        *request.uri_mut() = Uri::try_from(format!("https://localhost{path}")).unwrap();
        if let Some(authorization) = &self.authorization {
            request.headers_mut().append(AUTHORIZATION, authorization.clone());
        }
        let sent = self.calls.lock().unwrap().as_mut().map(|calls| calls.send_request(request));
        Box::pin(async move {
            match sent {
                Some(sent) => Ok(sent.await?),
                None => Err(Status::unavailable("the connection has ended").into()),
            }
        })
    }
}
