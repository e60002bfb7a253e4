//! A byte stream that can be ended from outside, and that says when it has ended.
//!
//! HTTP/2 spreads a connection over several tasks, which end at their own pace. The stream is what
//! they share: once it is dropped, nothing is on its way any more.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::BoxStream;

/// The end of a stream.
#[derive(Default)]
pub(crate) struct End {
    is_broken: AtomicBool,
    /// Who waits to read.
    reader: Mutex<Option<Waker>>,
    dropped: CancellationToken,
}

impl End {
    /// Makes the stream fail from now on.
    pub(crate) fn bring_about(&self) {
        self.is_broken.store(true, Ordering::Release);
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Waits until the stream has been dropped.
    pub(crate) async fn reached(&self) {
        self.dropped.cancelled().await;
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.dropped.is_cancelled()
    }

    fn check(&self) -> io::Result<()> {
        if self.is_broken.load(Ordering::Acquire) {
            return Err(io::Error::new(ErrorKind::ConnectionAborted, "the connection was ended"));
        }
        Ok(())
    }
}

pub(super) struct Breakable {
    stream: BoxStream,
    end: Arc<End>,
}

impl Breakable {
    pub(super) fn new(stream: BoxStream) -> (Self, Arc<End>) {
        let end = Arc::new(End::default());
        (Self { stream, end: Arc::clone(&end) }, end)
    }
}

impl Drop for Breakable {
    fn drop(&mut self) {
        self.end.dropped.cancel();
    }
}

impl AsyncRead for Breakable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            return Poll::Ready(self.end.check().and(read));
        }
        // Registered before the check, so that no end is missed.
        {
            let mut reader = self.end.reader.lock().unwrap_or_else(PoisonError::into_inner);
            if !reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
                *reader = Some(context.waker().clone());
            }
        }
        match self.end.check() {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// One buffer at a time, see [`unvectored`](crate::unvectored).
impl AsyncWrite for Breakable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.end.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end.check().is_err() {
            return Poll::Ready(Ok(()));
        }
        let done = ready!(Pin::new(&mut self.stream).poll_shutdown(context));
        Poll::Ready(done)
    }
}
