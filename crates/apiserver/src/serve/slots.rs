//! Who may have how many connections.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Limits;
use crate::counts::Counts;

/// Whom a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The users of this machine.
    Users,
    /// Pods, and whoever else reaches the address: they get half of the connections at most, and each address a
    /// sixteenth of that half, so that they do not lock out the users, nor fewer than sixteen of them each other.
    Pods,
}

/// So many addresses at least it takes to use up the connections of pods.
const PEERS: usize = 16;
/// How many connections an address may have where that leaves it fewer: what one client needs.
const PEER_CONNECTIONS_MIN: usize = 4;

/// The connections there may be.
pub(crate) struct Slots {
    all: Arc<Semaphore>,
    of_pods: Arc<Semaphore>,
    peers: Arc<Peers>,
}

/// How many connections each address has.
struct Peers {
    limit: usize,
    // Never held across an await.
    connections: Mutex<Counts<IpAddr>>,
}

/// The place of a connection, which is free again when it is dropped.
pub(super) struct Slot {
    _permits: (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>),
    peer: Option<(Arc<Peers>, IpAddr)>,
}

impl Slots {
    pub(crate) fn new(limits: &Limits) -> Self {
        let of_pods = limits.connections.div_ceil(2);
        let limit = limits.peer_connections.min((of_pods / PEERS).max(PEER_CONNECTIONS_MIN));
        Self {
            all: Arc::new(Semaphore::new(limits.connections)),
            of_pods: Arc::new(Semaphore::new(of_pods)),
            peers: Arc::new(Peers { limit, connections: Mutex::default() }),
        }
    }

    /// Waits until there may be one more connection.
    pub(super) async fn acquire(&self, audience: Audience) -> Slot {
        // The semaphores are never closed, so a permit always comes.
        let of_pods = match audience {
            Audience::Pods => Arc::clone(&self.of_pods).acquire_owned().await.ok(),
            Audience::Users => None,
        };
        let all = Arc::clone(&self.all).acquire_owned().await.ok();
        Slot { _permits: (of_pods, all), peer: None }
    }

    /// Counts a connection for the address it comes from; false when that has as many as it may have.
    pub(super) fn count(&self, slot: &mut Slot, audience: Audience, peer: IpAddr) -> bool {
        if audience == Audience::Users {
            return true;
        }
        let mut connections = self.peers.connections.lock();
        if connections.of(&peer) >= self.peers.limit {
            return false;
        }
        connections.add(peer);
        slot.peer = Some((Arc::clone(&self.peers), peer));
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((peers, peer)) = self.peer.take() {
            peers.connections.lock().remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_a_small_part_of_what_pods_may_have() {
        for (connections, peer_connections, expect) in
            [(10_000, 500, 312), (100_000, 500, 500), (1_000, 500, 31), (20, 500, 4), (8, 3, 3)]
        {
            let limits = Limits { connections, peer_connections, ..Limits::default() };
            assert_eq!(Slots::new(&limits).peers.limit, expect, "{connections} {peer_connections}");
        }
    }
}
