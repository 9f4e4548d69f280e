//! The sockets that are open.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::{Proxy, tls};
use crate::table::Place;

/// How many connections the system completes before they are accepted. It takes fewer where `net.core.somaxconn` says so.
const BACKLOG: u32 = 1024;
/// After a failed accept: too many open files do not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The ports of this machine for those that objects say. Port 0 is any that is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports {
    /// For port 80, the first that can be had.
    pub(crate) http: Vec<u16>,
    /// For port 443.
    pub(crate) https: Vec<u16>,
}

impl Ports {
    fn candidates(&self, port: u16) -> Vec<u16> {
        match port {
            80 => self.http.clone(),
            443 => self.https.clone(),
            other => vec![other],
        }
    }
}

/// The open sockets. Those that are closed leave their connections open.
pub(crate) struct Listeners {
    proxy: Arc<Proxy>,
    ports: Ports,
    open: BTreeMap<Place, Open>,
}

struct Open {
    port: u16,
    cancel: CancellationToken,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Listeners {
    /// None yet.
    pub(crate) fn new(proxy: Arc<Proxy>, ports: Ports) -> Self {
        Self { proxy, ports, open: BTreeMap::new() }
    }

    /// Listens at these places and at no others. Returns those where that is impossible, with the reason.
    pub(crate) fn set(&mut self, places: &BTreeSet<Place>) -> BTreeMap<Place, String> {
        self.open.retain(|place, _| places.contains(place));
        let mut failed = BTreeMap::new();
        for place in in_order(places) {
            if self.open.contains_key(&place) {
                continue;
            }
            match self.listen(place) {
                Ok(open) => {
                    self.open.insert(place, open);
                }
                Err(error) => {
                    failed.insert(place, error.to_string());
                }
            }
        }
        self.proxy.ports.store(Arc::new(self.open.iter().map(|(place, open)| (*place, open.port)).collect()));
        failed
    }

    fn listen(&self, place: Place) -> io::Result<Open> {
        // What it is at another address it should be here.
        let elsewhere = self.open.iter().filter(|(other, _)| other.port == place.port).map(|(_, open)| open.port);
        let candidates = elsewhere.chain(self.ports.candidates(place.port));
        let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for port in candidates {
            match bind(SocketAddr::new(place.address, port)) {
                Ok(listener) => return self.accept_on(listener, place),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn accept_on(&self, listener: TcpListener, place: Place) -> io::Result<Open> {
        let port = listener.local_addr()?.port();
        let acceptor = tls::acceptor(&self.proxy, place).map_err(io::Error::other)?;
        let cancel = self.proxy.stopping.child_token();
        let accept = accept(Arc::clone(&self.proxy), listener, place, port, acceptor);
        let ended = cancel.clone();
        self.proxy.clients.spawn(async move { ended.run_until_cancelled(accept).await });
        Ok(Open { port, cancel })
    }
}

/// In which order places are opened. A port at loopback is the first to be somebody else's, and what it is there it should be
/// at the other addresses too.
fn in_order(places: &BTreeSet<Place>) -> Vec<Place> {
    let mut ordered: Vec<_> = places.iter().copied().collect();
    ordered.sort_by_key(|place| !place.address.is_loopback());
    ordered
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(proxy: Arc<Proxy>, listener: TcpListener, place: Place, port: u16, acceptor: TlsAcceptor) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Meanwhile others wait to be accepted. The semaphore is never closed, so a permit always comes.
                let slot = Arc::clone(&proxy.connections).acquire_owned().await;
                let slot = Arc::new(slot.ok());
                let connection = Connection { proxy: Arc::clone(&proxy), peer, place, port, server_name: None, slot };
                proxy.clients.spawn(connection.serve(stream, acceptor.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_comes_first() {
        let place = |address: &str, port| Place { address: address.parse().unwrap(), port };
        let places = BTreeSet::from([place("10.0.0.1", 80), place("127.0.0.1", 80), place("::1", 443)]);
        assert_eq!(in_order(&places), [place("127.0.0.1", 80), place("::1", 443), place("10.0.0.1", 80)]);
    }
}
