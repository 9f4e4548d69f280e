//! Entry points by where they are, before it is known at which addresses that is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::table::{EntryPoint, Place, Table};

/// A set of addresses that answer the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Site {
    /// The addresses of Ingresses, and of Gateways that have none of their own.
    Shared,
    /// The address of one Gateway.
    Own(IpAddr),
}

/// A table in the making.
#[derive(Debug, Default)]
pub(crate) struct Sites(pub(crate) BTreeMap<(Site, u16), EntryPoint>);

impl Sites {
    /// The table, in which [`Site::Shared`] is these addresses.
    pub(crate) fn into_table(self, shared: &[IpAddr]) -> Table {
        let mut entry_points = BTreeMap::new();
        for ((site, port), entry) in self.0 {
            let entry = Arc::new(entry);
            let own = match site {
                Site::Shared => None,
                Site::Own(address) => Some(address),
            };
            let addresses = own.iter().chain(own.is_none().then_some(shared).into_iter().flatten());
            entry_points.extend(addresses.map(|address| (Place { address: *address, port }, Arc::clone(&entry))));
        }
        Table { entry_points }
    }
}
