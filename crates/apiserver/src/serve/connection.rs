//! One connection: HTTP/1.1 or HTTP/2, until it ends by itself, does nothing for long, or the server stops.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, EXPECT};
use http::{HeaderMap, HeaderValue, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serving::{LOCAL_RESETS, PENDING_RESETS, Streams};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::slots::Slot;
use super::socket::Socket;
use super::{Audience, Limits, Service};
use crate::authn::{Identity, User};
use crate::body::{RequestBody, ResponseBody};
use crate::lifecycle;
use crate::peer::PeerAddress;

/// How many bytes of an answer are buffered before what makes it waits, whatever the client says it could take.
const SEND_BUFFER: usize = 32 * 1024;

/// A connection after its handshake.
pub(super) struct Connection<'a> {
    pub(super) service: &'a Service,
    pub(super) limits: &'a Limits,
    /// None where what the client said of itself is not true.
    pub(super) identity: Option<Identity>,
    pub(super) peer: SocketAddr,
    pub(super) audience: Audience,
}

impl Connection<'_> {
    /// The address it comes from, where that is a pod's.
    fn pod(&self) -> Option<IpAddr> {
        (self.audience == Audience::Pods).then(|| self.peer.ip())
    }

    /// Serves HTTP/1.1.
    pub(super) async fn http1(self, stream: TlsStream<TcpStream>, slot: Slot) -> hyper::Result<()> {
        lifecycle::exchange(self.requests_in_turn(Socket::new(stream, self.limits.idle, slot))).await
    }

    async fn requests_in_turn(&self, socket: Socket) -> hyper::Result<()> {
        let lifecycle = self.service.lifecycle();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(self.limits.head_bytes.max(8192) as usize)
            .serve_connection(TokioIo::new(socket), service_fn(|request| self.answer(request)))
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result,
            () = lifecycle.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            result = connection => result,
            () = lifecycle.killed.cancelled() => Ok(()),
        }
    }

    /// Answers a request of HTTP/1.1, behind which the next one can only be read once its body has been.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
        lifecycle::set_lasts(false);
        let is_expected = request.headers().contains_key(EXPECT);
        let (mut parts, incoming) = request.into_parts();
        let server = self.service.server();
        parts.extensions.insert(PeerAddress(self.peer));
        let user = user(self.identity.as_ref(), &mut parts.headers);
        let (body, inbound) = RequestBody::network(incoming, &server.0.bodies, self.pod());
        let request = Request::from_parts(parts, body);
        let mut response = self.service.handle(request, user).await;
        if let Some(inbound) = inbound
            && !inbound.drain(is_expected).await
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    /// Serves HTTP/2.
    pub(super) async fn http2(self, stream: TlsStream<TcpStream>) -> hyper::Result<()> {
        let lifecycle = self.service.lifecycle();
        let streams = Arc::new(Streams::default());
        let executor = Tracked {
            tasks: lifecycle.tasks.clone(),
            killed: lifecycle.killed.clone(),
            streams: Arc::clone(&streams),
            limit: self.service.server().request_timeout() * 2,
        };
        let (pod, service, identity, peer) = (self.pod(), self.service.clone(), self.identity, self.peer);
        let answer = service_fn(move |request: Request<Incoming>| {
            let handler = service.clone();
            let (mut parts, incoming) = request.into_parts();
            let user = user(identity.as_ref(), &mut parts.headers);
            async move {
                let server = handler.server();
                parts.extensions.insert(PeerAddress(peer));
                let (body, inbound) = RequestBody::network(incoming, &server.0.bodies, pod);
                let response = handler.handle(Request::from_parts(parts, body), user).await;
                drop(inbound);
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .max_concurrent_streams(self.limits.streams)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(LOCAL_RESETS)
            .max_header_list_size(self.limits.head_bytes)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_send_buf_size(SEND_BUFFER)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result,
            () = streams.idle(self.limits.idle) => {
                connection.as_mut().graceful_shutdown();
                // What the client has not taken by then it never does.
                return tokio::select! {
                    taken = tokio::time::timeout(self.limits.idle, connection) => taken.unwrap_or(Ok(())),
                    () = lifecycle.killed.cancelled() => Ok(()),
                };
            }
            () = lifecycle.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            result = connection => result,
            () = lifecycle.killed.cancelled() => Ok(()),
        }
    }
}

/// Who asks on the connection now.
fn user(identity: Option<&Identity>, headers: &mut HeaderMap) -> Option<Arc<User>> {
    identity?.user(headers)
}

/// Runs the streams of an HTTP/2 connection where they can be waited for and ended. One that takes too long ends, so that no
/// client keeps what it does not read.
#[derive(Clone)]
struct Tracked {
    tasks: TaskTracker,
    killed: CancellationToken,
    streams: Arc<Streams>,
    limit: Duration,
}

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let (killed, limit) = (self.killed.clone(), self.limit);
        let stream = self.streams.open();
        let too_late = async move {
            tokio::time::sleep(limit).await;
            if lifecycle::lasts() {
                std::future::pending::<()>().await;
            }
        };
        self.tasks.spawn(lifecycle::exchange(async move {
            let _stream = stream;
            tokio::select! {
                biased;
                _ = future => {}
                () = killed.cancelled() => {}
                () = too_late => {}
            }
        }));
    }
}
