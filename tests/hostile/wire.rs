//! Hand-written HTTP/2, for what no client library sends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{IDENTITY, TOKEN, within};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const INFO: &str = "/proto.ExtensionService/Info";
pub const SUBSCRIBE: &str = "/proto.ExtensionService/Subscribe";
pub const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The TLS configuration of a client that offers these protocols.
pub fn tls(protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// A frame, valid or not.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Literal header fields without indexing.
pub fn hpack(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        bytes.push(0);
        for text in [name, value] {
            // Seven bits of the length; if it does not fit, the rest follows, seven bits at a time.
            let mut length = text.len();
            if length < 127 {
                bytes.push(length.to_le_bytes()[0]);
            } else {
                bytes.push(127);
                length -= 127;
                while length > 127 {
                    bytes.push(length.to_le_bytes()[0] | 128);
                    length >>= 7;
                }
                bytes.push(length.to_le_bytes()[0]);
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// The headers of a valid call.
pub fn call(path: &str, token: Option<&str>) -> Vec<u8> {
    let mut headers = vec![
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let token = token.map(|token| format!("Bearer {token}"));
    headers.extend(token.iter().map(|token| ("authorization", token.as_str())));
    hpack(&headers)
}

/// A message in its gRPC frame.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    framed.extend(bytes);
    framed
}

#[expect(dead_code, reason = "parsed, but not needed")]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection that can send anything.
pub struct Raw<S = TlsStream<TcpStream>>(pub S);

impl Raw<TcpStream> {
    pub async fn tcp(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }
}

impl Raw {
    pub async fn tls(address: SocketAddr, protocols: &[&[u8]]) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(within(TlsConnector::from(tls(protocols)).connect(server_name(), stream)).await?))
    }

    /// Opens an HTTP/2 connection with these settings, without making a call.
    pub async fn http2(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::tls(address, &[b"h2"]).await.unwrap();
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()).await.unwrap();
        raw
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// Sends the same bytes repeatedly. Returns how many were sent before the server closed the
    /// connection or stopped reading, or all were sent.
    pub async fn flood(&mut self, bytes: &[u8], times: usize) -> usize {
        let mut sent = 0;
        for _ in 0..times {
            let one = tokio::time::timeout(Duration::from_secs(1), self.send(bytes));
            match one.await {
                Ok(Ok(())) => sent += bytes.len(),
                _ => break,
            }
        }
        sent
    }

    /// Waits until the server has closed the connection.
    pub async fn until_closed(&mut self) {
        let mut sink = vec![0; 16 << 10];
        within(async { while matches!(self.0.read(&mut sink).await, Ok(1..)) {} }).await;
    }

    /// The next frame; `None` once the server has closed the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        within(async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            Some(Frame { kind: head[3], flags: head[4], stream, payload })
        })
        .await
    }

    /// Makes a call, and waits for the end of its response. False if the server resets it or closes
    /// the connection instead.
    pub async fn answered(&mut self, stream: u32, headers: &[u8], body: &[u8]) -> bool {
        let head = frame(HEADERS, END_HEADERS, stream, headers);
        let sent = [head, frame(DATA, END_STREAM, stream, body)].concat();
        if self.send(&sent).await.is_err() {
            return false;
        }
        loop {
            match self.frame().await {
                Some(frame) if frame.stream != stream => {}
                None | Some(Frame { kind: RST_STREAM, .. }) => return false,
                Some(Frame { kind: HEADERS | DATA, flags, .. }) if flags & END_STREAM != 0 => {
                    return true;
                }
                Some(_) => {}
            }
        }
    }

    /// Asserts that the connection still serves calls with the token.
    pub async fn assert_served(&mut self, stream: u32) {
        let served = self.answered(stream, &call(INFO, Some(TOKEN)), &message(&[])).await;
        assert!(served, "the connection no longer serves calls");
    }
}
