//! Connections inside one process, for tests on a paused clock: a network with one listener at a
//! time and any number of clients.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::BoxStream;

/// The buffer of each direction of a pipe, in bytes: a few TLS records, like a small socket buffer.
const PIPE_BYTES: usize = 64 * 1024;

/// Connections that may wait to be accepted.
const BACKLOG: usize = 128;

/// Connects clients to the current listener.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<Option<mpsc::Sender<BoxStream>>>>);

/// Accepts the connections of a [`Network`] until it is dropped.
pub struct MemoryListener(mpsc::Receiver<BoxStream>);

impl Network {
    /// Listens, in place of the previous listener.
    pub fn listen(&self) -> MemoryListener {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        MemoryListener(receiver)
    }

    pub async fn connect(&self) -> io::Result<BoxStream> {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "no server is listening");
        let listener = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        match listener.ok_or_else(refused)?.send(Box::new(far)).await {
            Ok(()) => Ok(Box::new(near)),
            Err(_) => Err(refused()),
        }
    }
}

impl MemoryListener {
    /// The next connection. Pending forever once no client can connect anymore.
    pub async fn accept(&mut self) -> BoxStream {
        match self.0.recv().await {
            Some(stream) => stream,
            None => std::future::pending().await,
        }
    }
}
