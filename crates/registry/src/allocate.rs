//! What is handed out to objects once only: cluster IPs and node ports.
//!
//! The objects in the store are the truth; the pools here are derived from them. When the registry opens, every stored
//! Service [occupies](Allocators::occupy) what it holds. A write [begins](Allocators::begin) a [`Taking`], which marks
//! what it takes at once, so that no concurrent write can get the same, and gives it back unless the write is stored.
//! So nothing is handed out twice, and neither a failed write nor a crash leaks anything.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rand::RngExt;

use crate::kind::Reservation;

/// What may be handed out.
#[derive(Debug, Clone, Default)]
pub struct AllocatorConfig {
    /// Cluster IPs.
    pub services: ServiceRange,
    /// Node ports.
    pub node_ports: PortRange,
}

/// The range of cluster IPs: an IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceRange {
    network: u32,
    prefix: u8,
}

impl Default for ServiceRange {
    fn default() -> Self {
        Self { network: u32::from(Ipv4Addr::new(10, 96, 0, 0)), prefix: 16 }
    }
}

impl ServiceRange {
    /// A network in CIDR notation needs room for the two reserved addresses; upstream allows up to 2^20 addresses.
    const LONGEST_PREFIX: u8 = 28;
    const SHORTEST_PREFIX: u8 = 12;

    /// The address of the `kubernetes` Service: the first.
    #[must_use]
    pub fn kubernetes(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// The address of the cluster's DNS: the tenth, by custom.
    #[must_use]
    pub fn dns(&self) -> Ipv4Addr {
        self.at(10)
    }

    /// Whether an address can be handed out: neither the network's own nor its broadcast address.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.network);
        (1..=self.last()).contains(&offset)
    }

    fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network.wrapping_add(offset))
    }

    /// Offset of the last address that can be handed out.
    fn last(&self) -> u32 {
        (1_u32 << (32 - self.prefix)) - 2
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

/// Not a usable range of cluster IPs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a service range: an IPv4 network such as 10.96.0.0/16 is expected, with a prefix of /12 to /28")]
pub struct InvalidRange(String);

impl FromStr for ServiceRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let prefix: u8 = prefix.parse().ok()?;
            let address: Ipv4Addr = address.parse().ok()?;
            (Self::SHORTEST_PREFIX..=Self::LONGEST_PREFIX).contains(&prefix).then_some((address, prefix))
        });
        let (address, prefix) = parsed.ok_or_else(|| InvalidRange(text.to_owned()))?;
        Ok(Self { network: u32::from(address) & (u32::MAX << (32 - prefix)), prefix })
    }
}

/// The range of node ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self { first: 30_000, last: 32_767 }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Why something cannot be had. The texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// Another Service has the address.
    #[error("provided IP is already allocated")]
    AddressTaken,
    /// The address is not one of the cluster's.
    #[error("the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}")]
    AddressOutOfRange {
        /// The address asked for.
        address: Ipv4Addr,
        /// The cluster's range.
        range: ServiceRange,
    },
    /// Another Service has the port.
    #[error("provided port is already allocated")]
    PortTaken,
    /// The port is not one of the node ports.
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    PortOutOfRange(PortRange),
    /// Nothing is left.
    #[error("range is full")]
    Full,
}

/// What one object holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Cluster IPs.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Node ports.
    pub ports: BTreeSet<u16>,
}

impl Holdings {
    /// What is in this and not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self { addresses: &self.addresses - &other.addresses, ports: &self.ports - &other.ports }
    }
}

/// The pools, shared by all writes. Cheap to clone: what changes is behind a lock of its own.
#[derive(Debug, Clone, Default)]
pub struct Allocators {
    services: ServiceRange,
    node_ports: PortRange,
    taken: Arc<Mutex<Holdings>>,
}

impl Allocators {
    /// Empty pools of the configured ranges.
    #[must_use]
    pub fn new(config: &AllocatorConfig) -> Self {
        Self { services: config.services, node_ports: config.node_ports, taken: Arc::default() }
    }

    /// The range of cluster IPs.
    #[must_use]
    pub fn services(&self) -> ServiceRange {
        self.services
    }

    /// Begins to take things for one write.
    #[must_use]
    pub fn begin(&self) -> Taking {
        Taking { allocators: self.clone(), own: Holdings::default() }
    }

    /// Marks as taken what a stored object holds, be it in the range or not: the range may have been another one.
    pub fn occupy(&self, holdings: &Holdings) {
        let mut taken = self.lock();
        taken.addresses.extend(&holdings.addresses);
        taken.ports.extend(&holdings.ports);
    }

    /// Gives back what an object held.
    pub fn release(&self, holdings: &Holdings) {
        let mut taken = self.lock();
        *taken = taken.without(holdings);
    }

    fn lock(&self) -> MutexGuard<'_, Holdings> {
        // Every change leaves the sets whole, so a panic elsewhere does not make them doubtful.
        self.taken.lock()
    }
}

/// Things taken for one write; given back when dropped.
#[derive(Debug)]
pub struct Taking {
    allocators: Allocators,
    own: Holdings,
}

impl Taking {
    /// Takes this address.
    ///
    /// # Errors
    /// When it is taken or not one of the cluster's.
    pub fn address(&mut self, address: Ipv4Addr) -> Result<(), AllocationError> {
        let range = self.allocators.services;
        if !range.contains(address) {
            return Err(AllocationError::AddressOutOfRange { address, range });
        }
        if !self.allocators.lock().addresses.insert(address) {
            return Err(AllocationError::AddressTaken);
        }
        self.own.addresses.insert(address);
        Ok(())
    }

    /// Takes any address, at random: one that was just given back is not handed out again at once, while connections
    /// to its last owner linger. The lower part of the range is left to those who choose an address themselves.
    ///
    /// # Errors
    /// When none is left.
    pub fn any_address(&mut self) -> Result<Ipv4Addr, AllocationError> {
        let range = self.allocators.services;
        let reserved = [range.kubernetes(), range.dns()];
        let found = {
            let mut taken = self.allocators.lock();
            let free = |offset: &u32| {
                let address = range.at(*offset);
                !reserved.contains(&address) && !taken.addresses.contains(&address)
            };
            let offset = pick(1..=range.last(), static_band(range.last(), 16, 256), free);
            let address = range.at(offset.ok_or(AllocationError::Full)?);
            taken.addresses.insert(address);
            address
        };
        self.own.addresses.insert(found);
        Ok(found)
    }

    /// Takes this node port.
    ///
    /// # Errors
    /// When it is taken or not a node port.
    pub fn port(&mut self, port: u16) -> Result<(), AllocationError> {
        let range = self.allocators.node_ports;
        if !(range.first..=range.last).contains(&port) {
            return Err(self.port_out_of_range());
        }
        if !self.allocators.lock().ports.insert(port) {
            return Err(AllocationError::PortTaken);
        }
        self.own.ports.insert(port);
        Ok(())
    }

    /// Takes any node port, as [`Taking::any_address`] takes an address.
    ///
    /// # Errors
    /// When none is left.
    pub fn any_port(&mut self) -> Result<u16, AllocationError> {
        let range = self.allocators.node_ports;
        let (first, last) = (u32::from(range.first), u32::from(range.last));
        let found = {
            let mut taken = self.allocators.lock();
            let free = |port: &u32| u16::try_from(*port).is_ok_and(|port| !taken.ports.contains(&port));
            let band = static_band(last.saturating_sub(first) + 1, 32, 128);
            let port = pick(first..=last, band, free).and_then(|port| u16::try_from(port).ok());
            let port = port.ok_or(AllocationError::Full)?;
            taken.ports.insert(port);
            port
        };
        self.own.ports.insert(found);
        Ok(found)
    }

    /// The refusal of a number that is no node port.
    #[must_use]
    pub fn port_out_of_range(&self) -> AllocationError {
        AllocationError::PortOutOfRange(self.allocators.node_ports)
    }

    /// Hands what was taken over to the fate of the write; `obsolete` is given back once the write is stored.
    pub fn keep(mut self, obsolete: Holdings) -> Reservation {
        let own = std::mem::take(&mut self.own);
        let (on_commit, on_abandon) = (self.allocators.clone(), self.allocators.clone());
        Reservation::new(move || on_commit.release(&obsolete), move || on_abandon.release(&own))
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.allocators.release(&self.own);
    }
}

/// How much of a range is left to those who choose themselves: upstream's formula, `min(max(16, size/step), most)`.
fn static_band(size: u32, step: u32, most: u32) -> u32 {
    if size <= 16 { 0 } else { (size / step).max(16).min(most) }
}

/// A free member of a range: at random from above the band, else from the band.
fn pick(range: RangeInclusive<u32>, band: u32, free: impl Fn(&u32) -> bool) -> Option<u32> {
    let (first, last) = range.into_inner();
    let middle = first.saturating_add(band).min(last);
    let start = rand::rng().random_range(middle..=last);
    (start..=last).chain(middle..start).chain(first..middle).find(free)
}

#[cfg(test)]
#[path = "allocate_tests.rs"]
mod tests;
