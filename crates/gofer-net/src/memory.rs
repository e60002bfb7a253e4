//! Connections inside one process, for tests on a paused clock: a network with one listener at a
//! time and any number of clients.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::{BoxFuture, BoxStream};

/// The buffer of each direction of a pipe, in bytes: a few TLS records, like a small socket buffer.
const PIPE_BYTES: usize = 64 * 1024;

/// Connections that may wait to be accepted.
const BACKLOG: usize = 128;

/// What a test does to connections, and to what serves on them.
pub trait Faults: Send + Sync {
    /// Both ends of a new connection, the client's and the server's.
    fn connect(&self, from: &str, to: &str) -> (BoxStream, BoxStream);

    /// Completes when what serves under this name is to end at once.
    fn crash(&self, name: &str) -> BoxFuture<'static, ()>;
}

/// Connects clients to the current listener.
#[derive(Clone, Default)]
pub struct Network {
    listener: Arc<Mutex<Option<mpsc::Sender<BoxStream>>>>,
    faulty: Option<Faulty>,
}

/// Whose connections have faults.
#[derive(Clone)]
struct Faulty {
    faults: Arc<dyn Faults>,
    from: Arc<str>,
    to: Arc<str>,
}

/// Accepts the connections of a [`Network`] until it is dropped.
pub struct MemoryListener {
    connections: mpsc::Receiver<BoxStream>,
    is_faulty: bool,
}

impl Network {
    /// The same network, whose connections have these faults from now on.
    #[must_use]
    pub fn with_faults(&self, faults: Option<&Arc<dyn Faults>>, from: &str, to: &str) -> Self {
        let listener = Arc::clone(&self.listener);
        let wired =
            faults.cloned().map(|faults| Faulty { faults, from: from.into(), to: to.into() });
        Self { listener, faulty: wired }
    }

    /// Whether its connections may have faults.
    pub(crate) fn is_faulty(&self) -> bool {
        self.faulty.is_some()
    }

    /// Listens, in place of the previous listener.
    pub fn listen(&self) -> MemoryListener {
        let (sender, connections) = mpsc::channel(BACKLOG);
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        MemoryListener { connections, is_faulty: self.is_faulty() }
    }

    pub async fn connect(&self) -> io::Result<BoxStream> {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "no server is listening");
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (near, far): (BoxStream, BoxStream) =
            if let Some(Faulty { faults, from, to }) = &self.faulty {
                faults.connect(from, to)
            } else {
                let (near, far) = tokio::io::duplex(PIPE_BYTES);
                (Box::new(near), Box::new(far))
            };
        match listener.ok_or_else(refused)?.send(far).await {
            Ok(()) => Ok(near),
            Err(_) => Err(refused()),
        }
    }
}

impl MemoryListener {
    /// Whether peers may vanish, as on a network between machines.
    pub(crate) fn is_faulty(&self) -> bool {
        self.is_faulty
    }

    /// The next connection. Pending forever once no client can connect anymore.
    pub async fn accept(&mut self) -> BoxStream {
        match self.connections.recv().await {
            Some(stream) => stream,
            None => std::future::pending().await,
        }
    }
}
