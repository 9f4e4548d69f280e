//! Listeners and connections: TCP, TLS, HTTP/1.1 and HTTP/2, and what protects them from bad clients.
//!
//! Every connection is a task of its own with limits of its own: a time for the handshake and for the head of a request, a size
//! for headers, keep-alives which find out when the other side is gone, and flow control: a client that
//! does not read what it asked for holds up its own streams only. What a connection holds is small and bounded.

pub(crate) mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::User;
use crate::body::RequestBody;
use crate::server::ApiServer;
use tls::Tls;

/// What a connection may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for the head of a request, and for an HTTP/1.1 connection to be idle.
    pub head: Duration,
    /// Size of the head of a request, in bytes.
    pub head_bytes: u32,
    /// How many connections there may be; further clients wait.
    pub connections: usize,
    /// How many requests may run on one HTTP/2 connection.
    pub streams: u32,
    /// How long running requests get to finish at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            // Longer than the 90 s after which the usual clients give up an idle connection: they close it, not we.
            head: Duration::from_secs(100),
            head_bytes: 64 * 1024,
            connections: 10_000,
            streams: 1_000,
            drain: Duration::from_secs(5),
        }
    }
}

/// Accepts connections and serves them until told to stop.
pub(crate) struct Serving {
    server: ApiServer,
    pub(crate) tls: Tls,
    limits: Limits,
    slots: Arc<Semaphore>,
}

impl Serving {
    pub(crate) fn new(server: ApiServer, tls: Tls, limits: Limits) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(limits.connections));
        Arc::new(Self { server, tls, limits, slots })
    }

    /// Serves what comes in on `listener`, until [`Serving::stop`].
    pub(crate) fn accept_on(self: &Arc<Self>, listener: TcpListener) {
        let serving = Arc::clone(self);
        self.server.0.lifecycle.tasks.spawn(async move { serving.accept(listener).await });
    }

    /// Stops accepting, lets running requests finish for a while, then ends whatever is left.
    pub(crate) async fn stop(&self) {
        self.server.0.lifecycle.stopping.cancel();
        self.server.0.lifecycle.tasks.close();
        if tokio::time::timeout(self.limits.drain, self.server.0.lifecycle.tasks.wait()).await.is_err() {
            tracing::info!(
                connections = self.server.0.lifecycle.tasks.len(),
                "closing connections which did not end by themselves"
            );
            self.server.0.lifecycle.killed.cancel();
            self.server.0.lifecycle.tasks.wait().await;
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let next = async {
                // The semaphore is never closed, so a permit always comes.
                let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
                (slot, listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                next = next => next,
                () = self.server.0.lifecycle.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let serving = Arc::clone(&self);
                    self.server.0.lifecycle.tasks.spawn(async move { serving.connection(stream, peer, slot).await });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others end soon, trying at once would only burn time.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, _slot: Option<OwnedSemaphorePermit>) {
        prepare_socket(&stream);
        let handshake = async {
            if speaks_plain_http(&stream).await {
                refuse_plain_http(stream).await;
                return None;
            }
            match self.tls.acceptor.accept(stream).await {
                Ok(stream) => Some(stream),
                Err(error) => {
                    tracing::debug!(%peer, %error, "TLS handshake failed");
                    None
                }
            }
        };
        let stream = tokio::select! {
            done = tokio::time::timeout(self.limits.handshake, handshake) => match done {
                Ok(Some(stream)) => stream,
                Ok(None) => return,
                Err(_) => {
                    tracing::debug!(%peer, "TLS handshake took too long");
                    return;
                }
            },
            () = self.server.0.lifecycle.stopping.cancelled() => return,
        };
        let session = stream.get_ref().1;
        let user = match session.peer_certificates() {
            Some(chain) => self.tls.clients.user(chain).map(Arc::new),
            None => Some(Arc::new(User::anonymous())),
        };
        let http2 = session.alpn_protocol() == Some(b"h2");
        let result = if http2 { self.http2(stream, user).await } else { self.http1(stream, user).await };
        if let Err(error) = result {
            tracing::debug!(%peer, %error, "connection ended early");
        }
    }

    async fn http1<S>(&self, stream: S, user: Option<Arc<User>>) -> hyper::Result<()>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(self.limits.head_bytes.max(8192) as usize)
            .serve_connection(TokioIo::new(stream), service_fn(|request| self.respond(request, user.clone())))
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result,
            () = self.server.0.lifecycle.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            result = connection => result,
            () = self.server.0.lifecycle.killed.cancelled() => Ok(()),
        }
    }

    async fn http2<S>(&self, stream: S, user: Option<Arc<User>>) -> hyper::Result<()>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let executor =
            Tracked { tasks: self.server.0.lifecycle.tasks.clone(), killed: self.server.0.lifecycle.killed.clone() };
        let server = self.server.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, user) = (server.clone(), user.clone());
            async move { Ok::<_, Infallible>(server.handle(request.map(RequestBody::Network), user).await) }
        });
        let connection = http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .max_concurrent_streams(self.limits.streams)
            .max_header_list_size(self.limits.head_bytes)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_send_buf_size(256 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result,
            () = self.server.0.lifecycle.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            result = connection => result,
            () = self.server.0.lifecycle.killed.cancelled() => Ok(()),
        }
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        user: Option<Arc<User>>,
    ) -> Result<http::Response<crate::body::ResponseBody>, Infallible> {
        Ok(self.server.handle(request.map(RequestBody::Network), user).await)
    }
}

/// Runs the tasks of an HTTP/2 connection where they can be waited for and ended.
#[derive(Clone)]
struct Tracked {
    tasks: TaskTracker,
    killed: CancellationToken,
}

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let killed = self.killed.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                _ = future => {}
                () = killed.cancelled() => {}
            }
        });
    }
}

/// Small writes go out at once, and a peer that has vanished is noticed after about a minute.
fn prepare_socket(stream: &TcpStream) {
    use rustix::net::sockopt;
    let set = || {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
        std::io::Result::Ok(())
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "cannot set socket options");
    }
}

/// Whether the first byte is that of a method, not of a TLS record.
async fn speaks_plain_http(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase()
}

/// Tells somebody who typed `http://` what is wrong, as Go's server does.
async fn refuse_plain_http(mut stream: TcpStream) {
    const TEXT: &str = "Client sent an HTTP request to an HTTPS server.\n";
    let status = StatusCode::BAD_REQUEST;
    let answer = format!("HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n{TEXT}");
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        // The client may still be sending; whether it hears us out is its own affair.
        let _ = stream.shutdown().await;
    }
}
