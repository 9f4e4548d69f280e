//! Who is at the other end of a connection.

use std::net::SocketAddr;

/// The address a connection comes from, in the extensions of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub(crate) SocketAddr);
