//! A byte stream that is read a piece at a time, and written between the pieces.
//!
//! HTTP/2 reads all that is there before it writes. If as many calls are in flight as may be, that
//! makes both ends take turns: all responses arrive at once, what was waiting for them sends as many
//! requests, which leave at once, and this end waits until the peer has answered all of them. With
//! pieces, the peer works on some calls while this end works on others.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::BoxStream;

/// Some dozen responses: less than the calls in flight, and enough to be written in one go.
const PIECE_BYTES: usize = 4 * 1024;

pub(super) struct InPieces {
    stream: BoxStream,
    /// Until the piece has ended.
    left: usize,
}

impl InPieces {
    pub(super) fn new(stream: BoxStream) -> Self {
        Self { stream, left: PIECE_BYTES }
    }
}

impl AsyncRead for InPieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            self.left = PIECE_BYTES;
            // As if nothing were there; but the reader is behind those that its last piece has woken.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let room = buffer.remaining().min(self.left);
        let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut piece);
        let bytes = piece.filled().len();
        buffer.advance(bytes);
        self.left = if polled.is_pending() { PIECE_BYTES } else { self.left - bytes };
        polled
    }
}

/// One buffer at a time, see [`unvectored`](crate::unvectored).
impl AsyncWrite for InPieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
