//! Connections inside one process, for tests on a paused clock: a network of
//! one listener, which may go and come back, and any number of dialers.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::BoxStream;

/// Bytes that one direction of a pipe holds before the writer waits; a few TLS
/// records, like a small socket buffer.
const PIPE_BYTES: usize = 64 * 1024;

/// Connections that may wait to be accepted, like a listener's backlog.
const BACKLOG: usize = 128;

/// Makes connections to whoever listens on the network at the time.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<Option<mpsc::Sender<BoxStream>>>>);

/// Accepts what is connected, until it is dropped.
pub struct Listener(mpsc::Receiver<BoxStream>);

impl Network {
    /// Listens, in place of whoever did before.
    pub fn listen(&self) -> Listener {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Listener(receiver)
    }

    pub async fn connect(&self) -> io::Result<BoxStream> {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody is listening");
        let listener = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        match listener.ok_or_else(refused)?.send(Box::new(far)).await {
            Ok(()) => Ok(Box::new(near)),
            Err(_) => Err(refused()),
        }
    }
}

impl Listener {
    /// The next connection; pends for ever once nobody can connect any more.
    pub async fn accept(&mut self) -> BoxStream {
        match self.0.recv().await {
            Some(stream) => stream,
            None => std::future::pending().await,
        }
    }
}
