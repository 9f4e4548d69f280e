//! Connections to endpoints, which are kept for a while after a request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use serving::prepare_socket;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::ProxyBody;
use crate::backend::Protocol;

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(60);
/// How many connections are kept that nobody uses.
const MOST_IDLE: usize = 256;
/// Of the head of a response, in bytes.
const HEAD_BYTES: usize = 256 * 1024;

/// The connections to all endpoints.
pub(super) struct Pool {
    connect: Duration,
    connections: Arc<Mutex<Connections>>,
    tasks: TaskTracker,
    killed: CancellationToken,
}

/// Few enough to be looked through. Never locked across an await.
#[derive(Default)]
struct Connections {
    /// Those of HTTP/1.1, each for one request at a time: the one that was used last is at the end.
    idle: Vec<Idle>,
    /// Those of HTTP/2, which requests share.
    shared: Vec<Shared>,
}

struct Idle {
    endpoint: SocketAddr,
    since: Instant,
    sender: http1::SendRequest<ProxyBody>,
}

struct Shared {
    endpoint: SocketAddr,
    used: Instant,
    sender: http2::SendRequest<ProxyBody>,
}

/// A connection for a request.
pub(super) struct Connection {
    endpoint: SocketAddr,
    sender: Sender,
    /// Whether it has carried requests before, so that its other end may have had enough of it.
    pub(super) is_reused: bool,
}

enum Sender {
    Http1(http1::SendRequest<ProxyBody>),
    Http2(http2::SendRequest<ProxyBody>),
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the connection is refused: {0}")]
    Refused(io::Error),
    #[error("the connection takes too long")]
    ConnectTimeout,
    #[error("{0}")]
    Broken(hyper::Error),
    #[error("there is no response in time")]
    Timeout,
}

/// A request without a response.
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    /// The request, where it was not sent.
    pub(super) unsent: Option<Request<ProxyBody>>,
}

impl Pool {
    /// An empty one. Must be called within a tokio runtime.
    pub(super) fn new(connect: Duration) -> Self {
        let (tasks, killed) = (TaskTracker::new(), CancellationToken::new());
        let connections = Arc::<Mutex<Connections>>::default();
        let swept = Arc::clone(&connections);
        let sweep = async move {
            loop {
                tokio::time::sleep(IDLE / 2).await;
                let old = Instant::now().checked_sub(IDLE);
                let mut connections = swept.lock();
                connections.idle.retain(|idle| Some(idle.since) > old && !idle.sender.is_closed());
                connections.shared.retain(|shared| Some(shared.used) > old && !shared.sender.is_closed());
            }
        };
        let ended = killed.clone();
        tasks.spawn(async move { ended.run_until_cancelled(sweep).await });
        Self { connect, connections, tasks, killed }
    }

    /// Ends all connections.
    pub(super) async fn close(&self) {
        self.killed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A connection to an endpoint: one that is kept, where there is one that is wanted, or else a new one.
    pub(super) async fn get(
        &self,
        endpoint: SocketAddr,
        protocol: Protocol,
        may_reuse: bool,
    ) -> Result<Connection, Failure> {
        if may_reuse && let Some(sender) = self.kept(endpoint, protocol) {
            return Ok(Connection { endpoint, sender, is_reused: true });
        }
        let connected = tokio::time::timeout(self.connect, TcpStream::connect(endpoint)).await;
        let stream = connected.map_err(|_| Failure::ConnectTimeout)?.map_err(Failure::Refused)?;
        prepare_socket(&stream);
        let stream = TokioIo::new(stream);
        let sender = match protocol {
            Protocol::Http => {
                let mut builder = http1::Builder::new();
                let (sender, connection) =
                    builder.max_buf_size(HEAD_BYTES).handshake(stream).await.map_err(Failure::Broken)?;
                self.drive(connection.with_upgrades());
                Sender::Http1(sender)
            }
            Protocol::H2c => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .keep_alive_interval(Duration::from_secs(30))
                    .keep_alive_timeout(Duration::from_secs(20))
                    .max_header_list_size(64 * 1024)
                    .initial_stream_window_size(256 * 1024)
                    .initial_connection_window_size(1024 * 1024)
                    .max_send_buf_size(256 * 1024);
                let (sender, connection) = builder.handshake(stream).await.map_err(Failure::Broken)?;
                self.drive(connection);
                let mut connections = self.connections.lock();
                connections.shared.retain(|shared| shared.endpoint != endpoint);
                connections.shared.push(Shared { endpoint, used: Instant::now(), sender: sender.clone() });
                Sender::Http2(sender)
            }
        };
        Ok(Connection { endpoint, sender, is_reused: false })
    }

    fn kept(&self, endpoint: SocketAddr, protocol: Protocol) -> Option<Sender> {
        let mut connections = self.connections.lock();
        match protocol {
            Protocol::Http => loop {
                let at = connections.idle.iter().rposition(|idle| idle.endpoint == endpoint)?;
                let idle = connections.idle.remove(at);
                if idle.sender.is_ready() {
                    return Some(Sender::Http1(idle.sender));
                }
            },
            Protocol::H2c => {
                let shared = connections.shared.iter_mut().find(|shared| shared.endpoint == endpoint)?;
                shared.used = Instant::now();
                (!shared.sender.is_closed()).then(|| Sender::Http2(shared.sender.clone()))
            }
        }
    }

    /// Carries the bytes of a connection until it ends.
    fn drive<F: Future<Output = hyper::Result<()>> + Send + 'static>(&self, connection: F) {
        let killed = self.killed.clone();
        self.tasks.spawn(async move {
            // Whoever waits for a response is told why there is none.
            if let Some(Err(error)) = killed.run_until_cancelled(connection).await {
                tracing::debug!(%error, "a connection to an endpoint ended");
            }
        });
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn send(
        &self,
        connection: Connection,
        request: Request<ProxyBody>,
    ) -> Result<Response<Incoming>, Box<Unanswered>> {
        let Connection { endpoint, sender, .. } = connection;
        let (answered, http1) = match sender {
            Sender::Http1(mut sender) => (sender.try_send_request(request).await, Some(sender)),
            Sender::Http2(mut sender) => (sender.try_send_request(request).await, None),
        };
        let response = answered.map_err(|mut error| {
            let unsent = error.take_message();
            Box::new(Unanswered { failure: Failure::Broken(error.into_error()), unsent })
        })?;
        if let Some(sender) = http1 {
            self.keep(endpoint, sender);
        }
        Ok(response)
    }

    /// Keeps a connection once the response has been read that it still carries.
    fn keep(&self, endpoint: SocketAddr, mut sender: http1::SendRequest<ProxyBody>) {
        let (connections, killed) = (Arc::clone(&self.connections), self.killed.clone());
        self.tasks.spawn(async move {
            // It fails when the connection ends or becomes another protocol's.
            if let Some(Ok(())) = killed.run_until_cancelled(sender.ready()).await {
                let mut connections = connections.lock();
                if connections.idle.len() == MOST_IDLE {
                    connections.idle.remove(0);
                }
                connections.idle.push(Idle { endpoint, since: Instant::now(), sender });
            }
        });
    }
}
