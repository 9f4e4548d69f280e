//! Listeners and connections: TCP, TLS, HTTP/1.1 and HTTP/2, and what protects them from bad clients.
//!
//! Every connection is a task of its own with limits of its own: a time for the handshake and for the head of a request, a size
//! for headers, keep-alives which find out when the other side is gone, and flow control: a client that does not read what it
//! asked for holds up its own streams only, and not for long. What a connection holds is small and bounded, and so is the number of
//! connections: of all, of those that pods may have, and of those of one address ([`slots`]).

mod connection;
mod slots;
mod socket;
pub(crate) mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Request, Response, StatusCode};
use serving::prepare_socket;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::authn::{Identity, User};
use crate::body::{RequestBody, ResponseBody};
use crate::kubelet::Kubelet;
use crate::lifecycle::Lifecycle;
use crate::server::{ApiServer, Caller};
use connection::Connection;
use slots::Slot;
pub(crate) use slots::{Audience, Slots};
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
    /// How long an HTTP/2 connection without requests stays, and a client may read nothing of its response.
    pub idle: Duration,
    /// How many connections there may be; further clients wait. Half of them at most are those of pods.
    pub connections: usize,
    /// How many connections one address may have to a listener for pods, though never more than a sixteenth of those of all pods
    /// (or four, where that is fewer); further ones are closed.
    pub peer_connections: usize,
    /// How many requests may run on one HTTP/2 connection (golang.org/x/net `http2.Server` has 250 as well).
    pub streams: u32,
    /// How long running requests get to finish at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Some thousands of clients that come at once take turns.
            handshake: Duration::from_secs(30),
            // Longer than the 90 s after which the usual clients give up an idle connection: they close it, not we.
            head: Duration::from_secs(100),
            head_bytes: 64 * 1024,
            idle: Duration::from_secs(100),
            connections: 10_000,
            peer_connections: 500,
            streams: 250,
            drain: Duration::from_secs(5),
        }
    }
}

/// Who answers what comes in.
#[derive(Clone)]
pub(crate) enum Service {
    /// The API server.
    Api(ApiServer),
    /// A kubelet.
    Kubelet(Arc<Kubelet>),
}

impl Service {
    /// The server whose bounds hold.
    fn server(&self) -> &ApiServer {
        match self {
            Self::Api(server) => server,
            Self::Kubelet(kubelet) => &kubelet.server,
        }
    }

    fn lifecycle(&self) -> &Lifecycle {
        match self {
            Self::Api(server) => &server.0.lifecycle,
            Self::Kubelet(kubelet) => &kubelet.lifecycle,
        }
    }

    async fn handle(&self, request: Request<RequestBody>, user: Option<Arc<User>>) -> Response<ResponseBody> {
        match self {
            Self::Api(server) => server.handle(request, user, Caller::Client).await,
            Self::Kubelet(kubelet) => kubelet.handle(request, user).await,
        }
    }
}

/// Accepts connections and serves them until told to stop.
pub(crate) struct Serving {
    service: Service,
    pub(crate) tls: Tls,
    pub(crate) limits: Limits,
    pub(crate) slots: Arc<Slots>,
}

/// How many connections the system completes before they are accepted. It takes fewer where `net.core.somaxconn` says so.
const BACKLOG: u32 = 4096;

/// How many connections are accepted before other tasks have their turn.
const TURN: u32 = 64;

/// A socket that listens. Connections that come at once wait in it instead of being reset.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Serving {
    /// Listeners that share `slots` share the connections there may be.
    pub(crate) fn new(service: Service, tls: Tls, limits: Limits, slots: Arc<Slots>) -> Arc<Self> {
        Arc::new(Self { service, tls, limits, slots })
    }

    /// Serves what comes in on `listener`, until [`Serving::stop`].
    pub(crate) fn accept_on(self: &Arc<Self>, listener: TcpListener, audience: Audience) {
        let accept = Arc::clone(self).accept(listener, audience);
        // With few turns for other tasks, of which thousands of handshakes are many: all that have come in are accepted soon.
        self.service.lifecycle().tasks.spawn(tokio::task::unconstrained(accept));
    }

    /// Stops accepting, lets running requests finish for a while, then ends whatever is left.
    pub(crate) async fn stop(&self) {
        let lifecycle = self.service.lifecycle();
        lifecycle.stopping.cancel();
        lifecycle.tasks.close();
        if tokio::time::timeout(self.limits.drain, lifecycle.tasks.wait()).await.is_err() {
            tracing::info!(connections = lifecycle.tasks.len(), "closing connections which did not end by themselves");
            lifecycle.killed.cancel();
            lifecycle.tasks.wait().await;
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, audience: Audience) {
        let mut in_a_row = 0;
        loop {
            if in_a_row == TURN {
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
            in_a_row += 1;
            let next = async { (self.slots.acquire(audience).await, listener.accept().await) };
            let (mut slot, accepted) = tokio::select! {
                next = next => next,
                () = self.service.lifecycle().stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if !self.slots.count(&mut slot, audience, peer.ip()) {
                        tracing::debug!(%peer, "an address has as many connections as it may have");
                        // It may well try again for ever.
                        in_a_row = TURN;
                        continue;
                    }
                    let serving = Arc::clone(&self);
                    let connection = async move { serving.connection(stream, peer, audience, slot).await };
                    self.service.lifecycle().tasks.spawn(connection);
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others end soon, trying at once would only burn time.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, audience: Audience, slot: Slot) {
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
            () = self.service.lifecycle().stopping.cancelled() => return,
        };
        let session = stream.get_ref().1;
        let identity = match session.peer_certificates() {
            Some(chain) => self.tls.clients.identity(chain),
            None => Some(Identity::anonymous()),
        };
        let http2 = session.alpn_protocol() == Some(b"h2");
        let connection = Connection { service: &self.service, limits: &self.limits, identity, peer, audience };
        // What HTTP/1.1 is upgraded to keeps the slot beyond this; of HTTP/2 nothing is left behind.
        let result = if http2 { connection.http2(stream).await } else { connection.http1(stream, slot).await };
        if let Err(error) = result {
            tracing::debug!(%peer, %error, "connection ended early");
        }
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
