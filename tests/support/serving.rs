//! What the fixtures that serve Gofer's API share: a port, TLS, HTTP/2, and gRPC for one call.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::tokio_stream::Stream;

use super::Identity;

/// TLS with a certificate, for HTTP/2.
pub fn acceptor(identity: &Identity) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(tls))
}

/// A port of the loopback address, which refuses connections unless something listens, and is kept
/// from other programs in the meantime.
pub struct Port {
    address: SocketAddr,
    reserved: Mutex<TcpSocket>,
}

impl Port {
    pub fn reserve() -> Self {
        let reserved = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self { address: reserved.local_addr().unwrap(), reserved: Mutex::new(reserved) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens until the listener is dropped.
    pub fn listen(&self) -> TcpListener {
        let mut reserved = self.reserved.lock().unwrap();
        std::mem::replace(&mut *reserved, bound(self.address)).listen(1024).unwrap()
    }
}

/// Two of them may be bound to one address: that which listens, and that which reserves it.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// Answers one call with one message for one message.
pub async fn unary<Q, A, F, Fut>(request: Request<Incoming>, answer: F) -> Response<Body>
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
    F: FnOnce(Q) -> Fut + Send + 'static,
    Fut: Future<Output = Result<A, Status>> + Send + 'static,
{
    let codec = tonic_prost::ProstCodec::<A, Q>::default();
    tonic::server::Grpc::new(codec).unary(Once(Some(answer)), request).await
}

/// Answers one call with a stream of messages for one message.
pub async fn streaming<Q, A, F, Fut>(request: Request<Incoming>, answer: F) -> Response<Body>
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
    F: FnOnce(Q) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Messages<A>, Status>> + Send + 'static,
{
    let codec = tonic_prost::ProstCodec::<A, Q>::default();
    tonic::server::Grpc::new(codec).server_streaming(Once(Some(answer)), request).await
}

/// The messages of a stream, from the task that sends them.
pub struct Messages<A>(pub mpsc::Receiver<A>);

impl<A> Stream for Messages<A> {
    type Item = Result<A, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|message| message.map(Ok))
    }
}

/// A service that answers one call.
struct Once<F>(Option<F>);

impl<Q, A, F, Fut> tower_service::Service<tonic::Request<Q>> for Once<F>
where
    F: FnOnce(Q) -> Fut,
    Fut: Future<Output = Result<A, Status>> + Send + 'static,
{
    type Response = tonic::Response<A>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<A>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = (self.0.take().unwrap())(request.into_inner());
        Box::pin(async move { answer.await.map(tonic::Response::new) })
    }
}
