//! One stream of a connection: how it is opened, read and written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use super::frame::{Control, status};
use super::headers::Headers;

/// The most streams at a time.
pub(crate) const MAX_STREAMS: usize = 256;
/// The longest data frame we send.
pub(super) const CHUNK: usize = 16 * 1024;

/// A stream that the peer wants to open.
pub(crate) struct Opened {
    pub(crate) headers: Headers,
    pub(super) stream: Stream,
    pub(super) out: mpsc::Sender<Out>,
}

/// An open stream. Reading ends when the peer closed its side; shutting down closes ours.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(super) id: u32,
    pub(super) io: DuplexStream,
}

/// Something to write.
#[derive(Debug)]
pub(super) enum Out {
    Control(Control),
    Reply(u32),
    Data(u32, Bytes),
    Fin(u32),
}

impl Opened {
    /// The stream's number.
    pub(crate) fn id(&self) -> u32 {
        self.stream.id
    }

    /// Lets the stream open.
    pub(crate) async fn accept(self) -> Stream {
        // Should the connection be gone, the stream says so itself.
        let _ = self.out.send(Out::Reply(self.stream.id)).await;
        self.stream
    }

    /// Refuses the stream.
    pub(crate) async fn refuse(self) {
        let reset = Control::Reset { id: self.stream.id, status: status::REFUSED_STREAM };
        let _ = self.out.send(Out::Control(reset)).await;
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
