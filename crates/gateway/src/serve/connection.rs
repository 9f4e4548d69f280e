//! A client's connection: TLS, HTTP/1.1 or HTTP/2, until it ends by itself, does nothing for long, or the proxy stops.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serving::{LOCAL_RESETS, PENDING_RESETS, Stall, Streams, prepare_socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Proxy;
use crate::table::Place;

/// What a connection of HTTP/2 without TLS begins with (RFC 9113, section 3.4). No method begins like this.
const PREFACE: &[u8] = b"PRI ";
/// What is kept of a connection of HTTP/1.1 that one side does not take, in bytes.
const BUFFER: usize = 128 * 1024;
/// What a client of HTTP/2 may send of a body that the backend does not take, in bytes; of all its bodies twice as much.
const STREAM_WINDOW: u32 = 128 * 1024;
/// A connection that has come in.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) proxy: Arc<Proxy>,
    pub(super) peer: SocketAddr,
    pub(super) place: Place,
    /// The port that it came in by.
    pub(super) port: u16,
    /// The host that its client asked for in the handshake (SNI), in lower case; none without TLS, or if it named none.
    pub(super) server_name: Option<Arc<str>>,
    /// Its place among all: it has it until the last of it has ended.
    pub(super) slot: Arc<Option<OwnedSemaphorePermit>>,
}

impl Connection {
    /// Serves it until it ends.
    pub(super) async fn serve(mut self, stream: TcpStream, acceptor: TlsAcceptor) {
        prepare_socket(&stream);
        let proxy = Arc::clone(&self.proxy);
        let peer = self.peer;
        let Some(is_tls) = proxy.table.load().entry_points.get(&self.place).map(|entry| entry.tls.is_some()) else {
            return;
        };
        let begun = async {
            if is_tls {
                let stream = acceptor.accept(stream).await?;
                let session = stream.get_ref().1;
                let is_http2 = session.alpn_protocol() == Some(b"h2");
                let name = session.server_name().map(|name| name.to_ascii_lowercase().into());
                let socket = Socket::new(Stream::Tls(Box::new(stream)), proxy.limits.stall);
                return io::Result::Ok((socket, is_http2, name));
            }
            let is_http2 = begins_http2(&stream).await?;
            Ok((Socket::new(Stream::Plain(stream), proxy.limits.stall), is_http2, None))
        };
        let limit = if is_tls { proxy.limits.handshake } else { proxy.limits.head };
        let begun = tokio::select! {
            begun = tokio::time::timeout(limit, begun) => begun.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = proxy.stopping.cancelled() => return,
        };
        let (socket, is_http2, server_name) = match begun {
            Ok(begun) => begun,
            Err(error) => return tracing::debug!(%peer, %error, "a connection does not begin"),
        };
        self.server_name = server_name;
        let served = if is_http2 { self.http2(socket, is_tls).await } else { self.http1(socket, is_tls).await };
        if let Err(error) = served {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }

    async fn http1(self, socket: Socket, is_tls: bool) -> hyper::Result<()> {
        let proxy = Arc::clone(&self.proxy);
        let service = service_fn(move |request| {
            let connection = self.clone();
            async move { Ok::<_, Infallible>(connection.answer(request, is_tls).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(proxy.limits.head)
            .max_buf_size(BUFFER)
            .max_header_size(proxy.limits.head_bytes as usize)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result,
            () = proxy.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            result = connection => result,
            () = proxy.killed.cancelled() => Ok(()),
        }
    }

    async fn http2(self, socket: Socket, is_tls: bool) -> hyper::Result<()> {
        let proxy = Arc::clone(&self.proxy);
        let streams = Arc::new(Streams::default());
        let executor =
            Tracked { tasks: proxy.clients.clone(), killed: proxy.killed.clone(), streams: Arc::clone(&streams) };
        let service = service_fn(move |request| {
            let connection = self.clone();
            async move { Ok::<_, Infallible>(connection.answer(request, is_tls).await) }
        });
        let connection = http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .max_concurrent_streams(proxy.limits.streams)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(LOCAL_RESETS)
            .max_header_list_size(proxy.limits.head_bytes)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(2 * STREAM_WINDOW)
            .max_send_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(socket), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result,
            () = streams.idle(proxy.limits.head) => connection.as_mut().graceful_shutdown(),
            () = proxy.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            result = connection => result,
            () = proxy.killed.cancelled() => Ok(()),
        }
    }
}

/// Whether a client speaks HTTP/2 without having said so in a handshake. What it has sent stays to be read.
async fn begins_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut first).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !PREFACE.starts_with(&first[..length]) {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        // What is there is readable, so nothing but time tells when there is more.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs the streams of an HTTP/2 connection where they can be waited for and ended.
#[derive(Clone)]
struct Tracked {
    tasks: TaskTracker,
    killed: CancellationToken,
    streams: Arc<Streams>,
}

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let killed = self.killed.clone();
        let stream = self.streams.open();
        self.tasks.spawn(async move {
            let _stream = stream;
            killed.run_until_cancelled(future).await;
        });
    }
}

/// A client's bytes, with TLS or without.
enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// A client's connection, which ends when the client takes nothing of what it is sent for too long.
struct Socket {
    stream: Stream,
    stall: Stall,
}

impl Socket {
    fn new(stream: Stream, stall: Duration) -> Self {
        Self { stream, stall: Stall::new(stall) }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.stall.or_stalled(context, written, false)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        self.stall.or_stalled(context, written, false)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        self.stall.or_stalled(context, flushed, false)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        };
        self.stall.or_stalled(context, shut, false)
    }
}
