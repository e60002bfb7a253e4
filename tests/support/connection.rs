//! A client's side of one HTTP/2 connection over TLS, which has none of the SDK's own client in it.

#![allow(unreachable_pub, reason = "each test that includes it is a crate of its own")]

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tonic::Status;
use tonic::body::Body;

/// What sends requests on a connection. Gone when that has ended: hyper answers a request that is
/// sent at that very moment when the last of these is gone.
type Calls = Arc<Mutex<Option<http2::SendRequest<Body>>>>;

/// Sends the same `authorization` headers, none, one or several, with each call.
#[derive(Clone)]
pub struct Connection {
    calls: Calls,
    authorization: Arc<[HeaderValue]>,
}

impl Connection {
    /// To a peer with this certificate (PEM), over a stream that is connected to it. Sends no
    /// header. An error if the connection ends before it can be used.
    pub async fn handshake(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        certificate: &str,
        http: &http2::Builder<TokioExecutor>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let name = ServerName::try_from("localhost")?;
        let stream = trusting(certificate)?.connect(name, stream).await?;
        let (calls, connection) = http.handshake(TokioIo::new(stream)).await?;
        // Ends with the last clone of the sender, or with the peer.
        let calls = Arc::new(Mutex::new(Some(calls)));
        let last = Arc::downgrade(&calls);
        tokio::spawn(async move {
            drop(connection.await);
            drop(last.upgrade().and_then(|calls| calls.lock().unwrap().take()));
        });
        Ok(Self { calls, authorization: Arc::default() })
    }

    /// The same connection, calling with other headers.
    pub fn with<const N: usize>(&self, authorization: [HeaderValue; N]) -> Self {
        Self { authorization: authorization.into(), ..self.clone() }
    }

    /// Calls a method by its path, with an empty message.
    pub async fn call(&self, path: &str) -> Result<(), Status> {
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = PathAndQuery::try_from(path).unwrap();
        let mut grpc = tonic::client::Grpc::new(self.clone());
        grpc.unary(tonic::Request::new(()), path, codec).await.map(drop)
    }

    /// Whether the peer has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.calls.lock().unwrap().as_ref().is_none_or(http2::SendRequest::is_closed)
    }
}

/// Trusts this certificate and nothing else.
fn trusting(certificate: &str) -> Result<TlsConnector, Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

impl tower_service::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        *request.uri_mut() = Uri::try_from(format!("https://localhost{path}")).unwrap();
        for value in self.authorization.iter() {
            request.headers_mut().append(AUTHORIZATION, value.clone());
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
