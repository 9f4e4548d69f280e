//! A connection of HTTP/1.1 as its bytes go: it ends when its client takes none for long, and it ends so that what was said last
//! arrives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serving::Stall;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::slots::Slot;
use crate::lifecycle;

/// What a client still sends after the last answer is read for so long, and so much of it: a socket that is closed with unread
/// bytes is reset, and the client loses the answer (`lingeringClose` of nginx, `closeWriteAndWait` of Go's `net/http`).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 8 * 1024 * 1024;

pub(super) struct Socket {
    stream: TlsStream<TcpStream>,
    /// Whether the client takes what does not last.
    stall: Stall,
    lingering: Option<Lingering>,
    /// Whatever the connection becomes, it has its place among the others until it ends.
    _slot: Slot,
}

struct Lingering {
    end: Pin<Box<Sleep>>,
    left: usize,
}

impl Socket {
    pub(super) fn new(stream: TlsStream<TcpStream>, stall: Duration, slot: Slot) -> Self {
        Self { stream, stall: Stall::new(stall), lingering: None, _slot: slot }
    }

    /// What became of a write, unless the client has taken nothing for too long.
    fn or_stalled<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.stall.or_stalled(context, written, lifecycle::lasts())
    }

    /// Reads what comes, and forgets it.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let lingering = self
            .lingering
            .get_or_insert_with(|| Lingering { end: Box::pin(tokio::time::sleep(LINGER)), left: LINGER_BYTES });
        let mut chunk = [0; 8 * 1024];
        loop {
            if lingering.end.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut chunk);
            // Below TLS: nobody reads it.
            let read = ready!(Pin::new(self.stream.get_mut().0).poll_read(context, &mut buffer));
            let length = buffer.filled().len();
            if read.is_err() || length == 0 || length > lingering.left {
                return Poll::Ready(());
            }
            lingering.left -= length;
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.or_stalled(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.or_stalled(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.or_stalled(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let shut = Pin::new(&mut self.stream).poll_shutdown(context);
            ready!(self.or_stalled(context, shut))?;
        }
        if lifecycle::in_exchange() {
            return self.poll_linger(context).map(Ok);
        }
        // It has become another protocol's: what still comes is for whoever reads it.
        Poll::Ready(Ok(()))
    }
}
