//! A TLS stream that takes one buffer at a time.
//!
//! h2 asks whether a stream takes several. If so, it writes every payload of 256 bytes or more by
//! itself, so that 15 responses are 15 TLS records, 15 system calls, and up to 15 packets that wake
//! the peer; if not, it collects payloads of less than 1 KiB. A run that is started has such a size,
//! and so has the response. TLS copies what it encrypts anyway, so nothing is lost.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Stream;

/// Leaves out `poll_write_vectored` and `is_write_vectored`.
pub(crate) struct Unvectored<S>(pub(crate) S);

impl<S: Stream> AsyncRead for Unvectored<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: Stream> AsyncWrite for Unvectored<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
