//! What must be in the kernel for which ports, and the transaction that gets there from what is in it. Pure.
//!
//! A service's port has a chain `svc/NAMESPACE/NAME/PROTOCOL/PORT` that picks an endpoint; the maps `services` and
//! `node-ports` lead to it. A port without endpoints has neither, so its packets are refused by the table's fixed part.
//! With session affinity every endpoint has a chain and a set of clients of its own. Where a load balancer lets in some sources
//! only, its addresses lead to a chain `guard/NAMESPACE/NAME/PROTOCOL/PORT` that asks who comes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use informer::ObjectKey;

use crate::flows;
use crate::service::{Port, Protocol};

/// Key of the map `services`.
pub(crate) type Address = (Ipv4Addr, Protocol, u16);
/// Key of the map `node-ports`.
pub(crate) type NodePort = (Protocol, u16);

/// All ports, and who claims what. Two services may claim the same for a moment, while one replaces the other: the first
/// chain in order that has endpoints gets it.
#[derive(Debug, Default)]
pub(crate) struct ServiceMap {
    ports: BTreeMap<ObjectKey, Vec<Port>>,
    chains: BTreeMap<String, Port>,
    addresses: BTreeMap<Address, BTreeSet<String>>,
    node_ports: BTreeMap<NodePort, BTreeSet<String>>,
    /// How many ports an address is an endpoint of.
    endpoints: BTreeMap<Ipv4Addr, usize>,
}

/// What may have changed.
#[derive(Debug, Default)]
pub(crate) struct ChangeTracker {
    chains: BTreeSet<String>,
    addresses: BTreeSet<Address>,
    pub(crate) node_ports: BTreeSet<NodePort>,
    endpoints: BTreeSet<Ipv4Addr>,
}

impl ChangeTracker {
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }
}

impl ServiceMap {
    /// Sets the ports of a service, none when it is gone, and notes what that touches.
    pub(crate) fn set(&mut self, service: &ObjectKey, ports: Vec<Port>, tracker: &mut ChangeTracker) {
        let old = self.ports.remove(service).unwrap_or_default();
        if old != ports {
            for port in &old {
                self.unclaim(port, tracker);
            }
            for port in &ports {
                self.claim(port, tracker);
            }
        }
        if !ports.is_empty() {
            self.ports.insert(service.clone(), ports);
        }
    }

    /// Everything.
    pub(crate) fn all(&self) -> ChangeTracker {
        ChangeTracker {
            chains: self.chains.keys().cloned().collect(),
            addresses: self.addresses.keys().copied().collect(),
            node_ports: self.node_ports.keys().copied().collect(),
            endpoints: self.endpoints.keys().copied().collect(),
        }
    }

    /// Who gets a node port: the first that claims it, with endpoints or, failing that, without.
    pub(crate) fn node_port(&self, node_port: NodePort) -> Option<&Port> {
        let claims = self.node_ports.get(&node_port)?;
        let name = self.winner(Some(claims)).or_else(|| claims.first())?;
        self.chains.get(name)
    }

    /// The UDP ports that may have changed, and where they lead now.
    pub(crate) fn udp(&self, tracker: &ChangeTracker) -> flows::Changed {
        let endpoints = |claims| {
            let port = self.winner(claims).and_then(|name| self.chains.get(name));
            port.map(|port| port.endpoints.iter().copied().collect()).unwrap_or_default()
        };
        let addresses = tracker.addresses.iter().filter(|(_, protocol, _)| *protocol == Protocol::Udp);
        let node_ports = tracker.node_ports.iter().filter(|(protocol, _)| *protocol == Protocol::Udp);
        flows::Changed {
            addresses: addresses.map(|key| ((key.0, key.2), endpoints(self.addresses.get(key)))).collect(),
            node_ports: node_ports.map(|key| (key.1, endpoints(self.node_ports.get(key)))).collect(),
        }
    }

    /// Whose pods may reach themselves through a service.
    pub(crate) fn has_endpoints(&self) -> bool {
        !self.endpoints.is_empty()
    }

    fn winner<'a>(&self, claims: Option<&'a BTreeSet<String>>) -> Option<&'a String> {
        claims?.iter().find(|name| self.serving(name).is_some())
    }

    fn serving(&self, chain: &str) -> Option<&Port> {
        self.chains.get(chain).filter(|port| !port.endpoints.is_empty())
    }

    /// The chain by which packets for an address come to a port's own chain.
    fn entry(&self, chain: &str, address: Ipv4Addr) -> String {
        match self.chains.get(chain) {
            Some(port) if port.guard.as_ref().is_some_and(|guard| guard.addresses.contains(&address)) => {
                guard_name(port)
            }
            _ => chain.to_owned(),
        }
    }

    fn claim(&mut self, port: &Port, tracker: &mut ChangeTracker) {
        let name = chain_name(port);
        tracker.note(port, &name);
        for address in addresses(port) {
            self.addresses.entry(address).or_default().insert(name.clone());
        }
        if let Some(node_port) = node_port(port) {
            self.node_ports.entry(node_port).or_default().insert(name.clone());
        }
        for endpoint in &port.endpoints {
            *self.endpoints.entry(*endpoint.ip()).or_default() += 1;
        }
        self.chains.insert(name, port.clone());
    }

    fn unclaim(&mut self, port: &Port, tracker: &mut ChangeTracker) {
        let name = chain_name(port);
        tracker.note(port, &name);
        for address in addresses(port) {
            drop_claim(&mut self.addresses, &address, &name);
        }
        if let Some(node_port) = node_port(port) {
            drop_claim(&mut self.node_ports, &node_port, &name);
        }
        for endpoint in &port.endpoints {
            if let Some(count) = self.endpoints.get_mut(endpoint.ip()) {
                *count -= 1;
                if *count == 0 {
                    self.endpoints.remove(endpoint.ip());
                }
            }
        }
        self.chains.remove(&name);
    }
}

impl ChangeTracker {
    fn note(&mut self, port: &Port, name: &str) {
        self.chains.insert(name.to_owned());
        self.addresses.extend(addresses(port));
        self.node_ports.extend(node_port(port));
        self.endpoints.extend(port.endpoints.iter().map(SocketAddrV4::ip).copied());
    }
}

fn drop_claim<K: Ord>(claims: &mut BTreeMap<K, BTreeSet<String>>, key: &K, name: &str) {
    if let Some(names) = claims.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            claims.remove(key);
        }
    }
}

fn addresses(port: &Port) -> impl Iterator<Item = Address> {
    port.addresses.iter().map(|address| (*address, port.protocol, port.port))
}

fn node_port(port: &Port) -> Option<NodePort> {
    port.node_port.map(|number| (port.protocol, number))
}

fn chain_name(port: &Port) -> String {
    format!("svc/{}", port_id(port))
}

fn guard_name(port: &Port) -> String {
    format!("guard/{}", port_id(port))
}

fn port_id(port: &Port) -> String {
    let ObjectKey { namespace, name } = &port.service;
    format!("{namespace}/{name}/{}/{}", port.protocol, port.port)
}

/// What is in the kernel, as far as transactions went through.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelState {
    chains: BTreeMap<String, Rules>,
    addresses: BTreeMap<Address, String>,
    node_ports: BTreeMap<NodePort, String>,
    hairpin: BTreeSet<Ipv4Addr>,
}

/// One difference between what is and what should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Chain { name: String, old: Rules, new: Rules },
    Address { key: Address, old: Option<String>, new: Option<String> },
    NodePort { key: NodePort, old: Option<String>, new: Option<String> },
    Hairpin { address: Ipv4Addr, wanted: bool },
}

impl KernelState {
    /// What to change, looking only at what may have changed.
    pub(crate) fn changes(&self, service_map: &ServiceMap, tracker: &ChangeTracker) -> Vec<Change> {
        let chains = tracker.chains.iter().map(|name| Change::Chain {
            name: name.clone(),
            old: self.chains.get(name).cloned().unwrap_or_default(),
            new: service_map.serving(name).map(rules).unwrap_or_default(),
        });
        let addresses = tracker.addresses.iter().map(|key| Change::Address {
            key: *key,
            old: self.addresses.get(key).cloned(),
            new: service_map.winner(service_map.addresses.get(key)).map(|chain| service_map.entry(chain, key.0)),
        });
        let node_ports = tracker.node_ports.iter().map(|key| Change::NodePort {
            key: *key,
            old: self.node_ports.get(key).cloned(),
            new: service_map.winner(service_map.node_ports.get(key)).cloned(),
        });
        let hairpin = tracker
            .endpoints
            .iter()
            .map(|address| (*address, service_map.endpoints.contains_key(address)))
            .filter(|(address, wanted)| self.hairpin.contains(address) != *wanted)
            .map(|(address, wanted)| Change::Hairpin { address, wanted });
        let differs = |change: &Change| match change {
            Change::Chain { old, new, .. } => old != new,
            Change::Address { old, new, .. } | Change::NodePort { old, new, .. } => old != new,
            Change::Hairpin { .. } => true,
        };
        chains.chain(addresses).chain(node_ports).chain(hairpin).filter(differs).collect()
    }

    /// Takes note that the changes are in the kernel.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        for change in changes {
            match change {
                Change::Chain { name, new, .. } => {
                    put(&mut self.chains, name, (new != Rules::default()).then_some(new));
                }
                Change::Address { key, new, .. } => put(&mut self.addresses, key, new),
                Change::NodePort { key, new, .. } => put(&mut self.node_ports, key, new),
                Change::Hairpin { address, wanted: true } => drop(self.hairpin.insert(address)),
                Change::Hairpin { address, wanted: false } => drop(self.hairpin.remove(&address)),
            }
        }
    }
}

/// The nft objects of one port: sets and chains by name, each chain with its rules, behind those that it leads to. None of
/// them when it has no endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    sets: BTreeMap<String, String>,
    chains: Vec<(String, Vec<String>)>,
}

fn rules(port: &Port) -> Rules {
    let mut rules = own_rules(port);
    if let Some(guard) = &port.guard {
        let sources: Vec<String> = guard.sources.iter().map(ToString::to_string).collect();
        let let_in = format!("ip saddr {{ {} }} goto {}", sources.join(", "), chain_name(port));
        // Dropped and not refused, as upstream has it.
        let ask = (!sources.is_empty()).then_some(let_in).into_iter().chain(["drop".to_owned()]);
        rules.chains.push((guard_name(port), ask.collect()));
    }
    rules
}

fn own_rules(port: &Port) -> Rules {
    let (name, protocol) = (chain_name(port), port.protocol);
    let count = port.endpoints.len();
    let pick = |items: Vec<String>| {
        let numbered: Vec<String> = items.iter().enumerate().map(|(n, item)| format!("{n} : {item}")).collect();
        numbered.join(", ")
    };
    let Some(timeout) = port.affinity else {
        let target = match &port.endpoints[..] {
            [only] => only.to_string(),
            many => {
                let items = many.iter().map(|endpoint| format!("{} . {}", endpoint.ip(), endpoint.port()));
                format!("numgen random mod {count} map {{ {} }}", pick(items.collect()))
            }
        };
        let rule = format!("meta l4proto {protocol} dnat to {target}");
        return Rules { sets: BTreeMap::new(), chains: vec![(name, vec![rule])] };
    };
    let mut rules = Rules::default();
    let (mut main, mut picks) = (Vec::new(), Vec::new());
    for endpoint in &port.endpoints {
        let id = format!("{name}/{}/{}", endpoint.ip(), endpoint.port());
        let (set, chain) = (format!("clients/{id}"), format!("to/{id}"));
        rules.sets.insert(set.clone(), format!("type ipv4_addr; flags dynamic,timeout; timeout {timeout}s;"));
        let to = vec![format!("update @{set} {{ ip saddr }}"), format!("meta l4proto {protocol} dnat to {endpoint}")];
        main.push(format!("ip saddr @{set} goto {chain}"));
        picks.push(format!("goto {chain}"));
        rules.chains.push((chain, to));
    }
    main.push(format!("numgen random mod {count} vmap {{ {} }}", pick(picks)));
    rules.chains.push((name, main));
    rules
}

/// The changes as one transaction. First what is new comes into being, then references move over, then what nothing refers
/// to any more goes. Sets that stay keep their content, so that clients stay with their endpoints.
pub(crate) fn transaction(table: &str, changes: &[Change]) -> String {
    let (mut make, mut unlink, mut fill, mut link, mut remove) =
        (String::new(), String::new(), String::new(), String::new(), String::new());
    // Writing to a string cannot fail.
    let line = |to: &mut String, text: std::fmt::Arguments<'_>| {
        let _ = writeln!(to, "{text}");
    };
    for change in changes {
        match change {
            Change::Chain { old, new, .. } => {
                let old_chains: BTreeMap<_, _> = old.chains.iter().map(|(name, rules)| (name, rules)).collect();
                let new_chains: BTreeMap<_, _> = new.chains.iter().map(|(name, rules)| (name, rules)).collect();
                for (name, definition) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
                    line(&mut make, format_args!("add set ip {table} {name} {{ {definition} }}"));
                }
                for (name, rules) in &new.chains {
                    match old_chains.get(name) {
                        Some(same) if *same == rules => continue,
                        Some(_) => line(&mut fill, format_args!("flush chain ip {table} {name}")),
                        None => line(&mut make, format_args!("add chain ip {table} {name}")),
                    }
                    for rule in rules {
                        line(&mut fill, format_args!("add rule ip {table} {name} {rule}"));
                    }
                }
                let gone: Vec<_> = old.chains.iter().rev().filter(|(name, _)| !new_chains.contains_key(name)).collect();
                for (name, _) in &gone {
                    line(&mut remove, format_args!("flush chain ip {table} {name}"));
                }
                for (name, _) in &gone {
                    line(&mut remove, format_args!("delete chain ip {table} {name}"));
                }
                for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
                    line(&mut remove, format_args!("delete set ip {table} {name}"));
                }
            }
            Change::Address { key: (ip, protocol, port), old, new } => {
                let key = format!("{ip} . {protocol} . {port}");
                if let Some(old) = old {
                    line(&mut unlink, format_args!("delete element ip {table} services {{ {key} : goto {old} }}"));
                }
                if let Some(new) = new {
                    line(&mut link, format_args!("add element ip {table} services {{ {key} : goto {new} }}"));
                }
            }
            Change::NodePort { key: (protocol, port), old, new } => {
                let key = format!("{protocol} . {port}");
                if let Some(old) = old {
                    line(&mut unlink, format_args!("delete element ip {table} node-ports {{ {key} : goto {old} }}"));
                }
                if let Some(new) = new {
                    line(&mut link, format_args!("add element ip {table} node-ports {{ {key} : goto {new} }}"));
                }
            }
            Change::Hairpin { address, wanted } => {
                let verb = if *wanted { "add" } else { "delete" };
                line(&mut link, format_args!("{verb} element ip {table} hairpin {{ {address} . {address} }}"));
            }
        }
    }
    [make, unlink, fill, link, remove].concat()
}

#[cfg(test)]
mod tests;
