//! The endpoints of a node port, from which one is chosen for each connection.

use std::net::SocketAddrV4;
use std::sync::Arc;

use rand::seq::IndexedRandom;
use tokio::sync::watch;

/// Where the connections of a node port go, as it changes.
pub(crate) type Endpoints = watch::Receiver<Arc<[SocketAddrV4]>>;

/// An endpoint for a new connection, at random. Affinity plays no part: all clients of loopback have one address.
pub(crate) fn choose(endpoints: &Endpoints) -> Option<SocketAddrV4> {
    endpoints.borrow().choose(&mut rand::rng()).copied()
}
