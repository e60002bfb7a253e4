//! A proxy that lets a connection carry a number of requests, as nginx does with
//! `keepalive_requests`: with the last one it says (GOAWAY) that it processes no later one, answers
//! those that it has, and closes the connection. What is on its way beyond them is never processed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

/// Serves what comes from a connection as it would be behind such a proxy.
pub fn limited(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    requests: usize,
) -> DuplexStream {
    let (near, far) = duplex(64 * 1024);
    tokio::spawn(async move {
        let (mut from_client, to_client) = split(stream);
        let (mut from_server, mut to_server) = split(far);
        let proxy = Proxy {
            requests,
            seen: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            last: AtomicU32::new(0),
            closed: CancellationToken::new(),
        };
        let proxy = Arc::new(proxy);
        let to_client = Mutex::new(to_client);
        let _ended = tokio::select! {
            ended = proxy.requests(&mut from_client, &mut to_server, &to_client) => ended,
            ended = proxy.responses(&mut from_server, &to_client) => ended,
            () = proxy.closed.cancelled() => Ok(()),
        };
        let _ended = to_client.into_inner().shutdown().await;
    });
    near
}

struct Proxy {
    requests: usize,
    seen: AtomicUsize,
    /// Requests without a whole response.
    open: AtomicUsize,
    /// The stream of the last request that is processed; 0 before there is one.
    last: AtomicU32,
    closed: CancellationToken,
}

struct Frame {
    head: [u8; 9],
    payload: Vec<u8>,
}

impl Frame {
    async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut head = [0; 9];
        from.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload).await?;
        Ok(Self { head, payload })
    }

    async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&[&self.head, &*self.payload].concat()).await?;
        to.flush().await
    }

    /// No more requests than those up to this stream.
    fn goaway(last: u32) -> Self {
        let payload = [last.to_be_bytes(), [0; 4]].concat();
        Self { head: [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0], payload }
    }

    fn kind(&self) -> u8 {
        self.head[3]
    }

    fn stream(&self) -> u32 {
        u32::from_be_bytes([self.head[5], self.head[6], self.head[7], self.head[8]])
    }

    fn ends_stream(&self) -> bool {
        let ends = self.head[4] & END_STREAM != 0;
        self.kind() == RST_STREAM || matches!(self.kind(), DATA | HEADERS) && ends
    }
}

impl Proxy {
    async fn requests(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        server: &mut (impl AsyncWrite + Unpin),
        client: &Mutex<impl AsyncWrite + Unpin>,
    ) -> io::Result<()> {
        let mut preface = [0; PREFACE];
        from.read_exact(&mut preface).await?;
        server.write_all(&preface).await?;
        loop {
            let frame = Frame::read(from).await?;
            let last = self.last.load(Ordering::SeqCst);
            if last > 0 && frame.stream() > last {
                continue;
            }
            if frame.kind() == HEADERS {
                self.open.fetch_add(1, Ordering::SeqCst);
                if self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.requests {
                    self.last.store(frame.stream(), Ordering::SeqCst);
                    Frame::goaway(frame.stream()).write(&mut *client.lock().await).await?;
                }
            }
            frame.write(server).await?;
        }
    }

    async fn responses(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        client: &Mutex<impl AsyncWrite + Unpin>,
    ) -> io::Result<()> {
        loop {
            let frame = Frame::read(from).await?;
            frame.write(&mut *client.lock().await).await?;
            if frame.ends_stream()
                && self.open.fetch_sub(1, Ordering::SeqCst) == 1
                && self.last.load(Ordering::SeqCst) > 0
            {
                self.closed.cancel();
            }
        }
    }
}
