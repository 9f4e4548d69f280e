//! The data plane: connections in, requests to backends.
//!
//! | module | what is in it |
//! |---|---|
//! | `listeners` | the sockets that are open, and those that cannot be |
//! | `connection` | a client's connection: TLS, HTTP/1.1 or HTTP/2, its bounds |
//! | `tls` | the certificate for a name |
//! | `handler` | a request: its rule, its backend, the answer |
//! | `redirect`, `headers` | pure: where a client is sent; what is passed on of a head |
//! | `pool` | connections to endpoints |
//! | `body` | bodies, which pass in pieces and are never gathered |
//!
//! The table is read once for each request, without a lock, and exchanged as a whole.

mod body;
mod connection;
mod handler;
mod headers;
mod listeners;
mod pool;
mod redirect;
mod tls;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::sign::CertifiedKey;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use listeners::{Listeners, Ports};
use pool::Pool;

use crate::table::{Place, Table};

/// What clients and their requests may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many connections there may be on all ports; further clients wait.
    pub connections: usize,
    /// How many requests may be at backends at a time; further ones get 503.
    pub requests: usize,
    /// How many requests may run on one HTTP/2 connection.
    pub streams: u32,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for the head of a request, and for a connection to be idle.
    pub head: Duration,
    /// Size of the head of a request, in bytes.
    pub head_bytes: u32,
    /// How long a client may send nothing of a body that it has begun, or take nothing of its response.
    pub stall: Duration,
    /// Time for a connection to an endpoint.
    pub connect: Duration,
    /// How long a backend may think before it answers, and may say nothing while it does, where no rule says less.
    pub response: Duration,
    /// How long running requests get to finish at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests: 1024,
            streams: 128,
            handshake: Duration::from_secs(30),
            // Longer than the 90 s after which the usual clients give up an idle connection: they close it, not we.
            head: Duration::from_secs(100),
            head_bytes: 64 * 1024,
            stall: Duration::from_secs(100),
            connect: Duration::from_secs(5),
            // Models take their time, and streams of events are quiet for long.
            response: Duration::from_secs(3600),
            drain: Duration::from_secs(5),
        }
    }
}

/// What all connections share.
pub(crate) struct Proxy {
    table: ArcSwap<Table>,
    default_certificate: ArcSwapOption<CertifiedKey>,
    /// The ports that are open, which may be others than those that objects say.
    ports: ArcSwap<BTreeMap<Place, u16>>,
    pool: Pool,
    pub(crate) limits: Limits,
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    /// Triggered when no new request is to be taken.
    stopping: CancellationToken,
    /// Triggered when what runs is to end.
    killed: CancellationToken,
    /// What serves clients.
    clients: TaskTracker,
}

impl Proxy {
    /// One with no rules, nor anything that listens. Must be called within a tokio runtime.
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let pool = Pool::new(limits.connect);
        Arc::new(Self {
            table: ArcSwap::default(),
            default_certificate: ArcSwapOption::empty(),
            ports: ArcSwap::default(),
            pool,
            connections: Arc::new(Semaphore::new(limits.connections)),
            requests: Arc::new(Semaphore::new(limits.requests)),
            limits,
            stopping: CancellationToken::new(),
            killed: CancellationToken::new(),
            clients: TaskTracker::new(),
        })
    }

    /// Answers by these rules from the next request on.
    pub(crate) fn set_table(&self, table: Table) {
        self.table.store(Arc::new(table));
    }

    /// Serves what has no certificate of its own with this one.
    pub(crate) fn set_default_certificate(&self, certificate: Option<Arc<CertifiedKey>>) {
        self.default_certificate.store(certificate);
    }

    /// The port that is open for a place.
    pub(crate) fn port(&self, place: Place) -> Option<u16> {
        self.ports.load().get(&place).copied()
    }

    /// Stops accepting, lets running requests finish for a while, then ends whatever is left.
    pub(crate) async fn shutdown(&self) {
        self.stopping.cancel();
        self.clients.close();
        if tokio::time::timeout(self.limits.drain, self.clients.wait()).await.is_err() {
            tracing::info!(connections = self.clients.len(), "closing connections which did not end by themselves");
        }
        self.killed.cancel();
        self.clients.wait().await;
        self.pool.close().await;
    }
}
