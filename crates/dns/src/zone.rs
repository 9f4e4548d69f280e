//! What each Service publishes under its name, and which names an address has. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use informer::{DurationMetric, ObjectKey, Reconciler};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};

/// What stands as cluster IP of a headless service.
const HEADLESS: &str = "None";

/// The cluster as DNS sees it. One change costs as much as the Service it touches is large.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    namespaces: HashSet<String>,
    // Two levels, so that looking up takes no key of its own.
    services: HashMap<String, HashMap<String, Arc<Published>>>,
    reverse: HashMap<IpAddr, Vec<Owner>>,
    /// Counts changes: the serial number of the zone.
    serial: u32,
}

/// What stands under a Service's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Published {
    /// One address that the proxy spreads over the endpoints.
    Cluster { addresses: Vec<IpAddr>, ports: Vec<Port>, endpoints: Vec<Endpoint> },
    /// The endpoints themselves.
    Headless { endpoints: Vec<Endpoint> },
    /// Another name.
    Alias(String),
}

/// A port with the name by which SRV records find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// In lower case: `tcp`.
    pub(crate) protocol: String,
    pub(crate) number: u16,
}

/// A pod, or whatever else stands behind a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The pod's hostname where it has one below this Service, else its address with dashes.
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) ports: Arc<[Port]>,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) service: ObjectKey,
    /// Endpoint below the Service; `None` for the Service's own address.
    pub(crate) endpoint: Option<String>,
}

/// What a change came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    /// The zone stays as it is, for this reason.
    Nothing(&'static str),
    /// So many addresses and names are found below a name now.
    Published(usize),
    /// Nothing is found below a name any more.
    Withdrawn,
}

impl Reconciler for Zone {
    const NAME: &'static str = "dns";
    // CoreDNS counts what it answers, and from when on somebody wanted a change, but not how long one takes.
    const DURATION: Option<DurationMetric> = None;
}

impl Published {
    /// How many addresses and names it is.
    fn len(&self) -> usize {
        match self {
            Self::Cluster { addresses, endpoints, .. } => addresses.len() + endpoints.len(),
            Self::Headless { endpoints } => endpoints.len(),
            Self::Alias(_) => 1,
        }
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        match self {
            Self::Cluster { endpoints, .. } | Self::Headless { endpoints } => endpoints,
            Self::Alias(_) => &[],
        }
    }

    /// The addresses that lead back to this Service, with the endpoint's name where it is one. Upstream answers for the
    /// endpoints of headless Services only: those of others are nobody's business.
    fn reverse(&self) -> Vec<(IpAddr, Option<&str>)> {
        match self {
            Self::Cluster { addresses, .. } => addresses.iter().map(|address| (*address, None)).collect(),
            Self::Headless { endpoints } => {
                endpoints.iter().map(|endpoint| (endpoint.address, Some(endpoint.name.as_str()))).collect()
            }
            Self::Alias(_) => Vec::new(),
        }
    }
}

impl Zone {
    /// Takes note of what a Service and its slices are now; `None` when it is gone.
    pub(crate) fn set(&mut self, key: &ObjectKey, service: Option<&Service>, slices: &[Arc<EndpointSlice>]) -> Update {
        let new = service.and_then(|service| publish(service, slices));
        let old = self.services.get(&key.namespace).and_then(|services| services.get(&key.name));
        if old.map(Arc::as_ref) == new.as_ref() {
            return Update::Nothing(match old {
                Some(_) => "what it publishes stays the same",
                None => "it has no address",
            });
        }
        self.serial = self.serial.wrapping_add(1);
        if let Some(old) = old.cloned() {
            for (address, _) in old.reverse() {
                if let Some(owners) = self.reverse.get_mut(&address) {
                    owners.retain(|owner| owner.service != *key);
                    if owners.is_empty() {
                        self.reverse.remove(&address);
                    }
                }
            }
        }
        let Some(new) = new else {
            if let Some(services) = self.services.get_mut(&key.namespace) {
                services.remove(&key.name);
                if services.is_empty() {
                    self.services.remove(&key.namespace);
                }
            }
            return Update::Withdrawn;
        };
        for (address, endpoint) in new.reverse() {
            let owner = Owner { service: key.clone(), endpoint: endpoint.map(str::to_owned) };
            self.reverse.entry(address).or_default().push(owner);
        }
        let records = new.len();
        self.services.entry(key.namespace.clone()).or_default().insert(key.name.clone(), Arc::new(new));
        Update::Published(records)
    }

    /// Takes note of a namespace that came or went.
    pub(crate) fn set_namespace(&mut self, name: &str, exists: bool) -> Update {
        if !exists {
            self.namespaces.remove(name);
            return Update::Withdrawn;
        }
        match self.namespaces.insert(name.to_owned()) {
            true => Update::Published(1),
            false => Update::Nothing("the namespace is known"),
        }
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Published>> {
        self.services.get(namespace)?.get(name)
    }

    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    pub(crate) fn owners(&self, address: IpAddr) -> &[Owner] {
        self.reverse.get(&address).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }
}

/// What stands under a Service's name; nothing while it has no address yet.
fn publish(service: &Service, slices: &[Arc<EndpointSlice>]) -> Option<Published> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return spec.external_name.clone().map(Published::Alias);
    }
    let endpoints = endpoints(slices, spec.publish_not_ready_addresses == Some(true));
    if spec.cluster_ip.as_deref() == Some(HEADLESS) {
        return Some(Published::Headless { endpoints });
    }
    // The single field repeats the first of the list, or stands alone in what an old client wrote.
    let several = spec.cluster_ips.as_deref().filter(|several| !several.is_empty());
    let addresses = several.unwrap_or(spec.cluster_ip.as_slice());
    let addresses: Vec<IpAddr> = addresses.iter().filter_map(|ip| ip.parse().ok()).collect();
    let ports = spec.ports.iter().flatten().filter_map(service_port).collect();
    (!addresses.is_empty()).then_some(Published::Cluster { addresses, ports, endpoints })
}

fn service_port(port: &ServicePort) -> Option<Port> {
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol(port.protocol.as_deref()),
        number: u16::try_from(port.port).ok()?,
    })
}

fn protocol(name: Option<&str>) -> String {
    name.unwrap_or("TCP").to_ascii_lowercase()
}

/// The endpoints that are ready, or all where the Service wants it so, each once.
fn endpoints(slices: &[Arc<EndpointSlice>], unready_too: bool) -> Vec<Endpoint> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for slice in slices {
        let ports: Arc<[Port]> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(Port {
                    name: port.name.clone().unwrap_or_default(),
                    protocol: protocol(port.protocol.as_deref()),
                    number: u16::try_from(port.port?).ok()?,
                })
            })
            .collect();
        let mut add = |endpoint: &SliceEndpoint, address: &str| {
            let address: IpAddr = address.parse().ok()?;
            let dashed = || address.to_string().replace(['.', ':'], "-");
            let name = endpoint.hostname.clone().unwrap_or_else(dashed);
            if seen.insert((name.clone(), address)) {
                found.push(Endpoint { name, address, ports: Arc::clone(&ports) });
            }
            Some(())
        };
        for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| unready_too || is_ready(endpoint)) {
            for address in &endpoint.addresses {
                add(endpoint, address);
            }
        }
    }
    found
}

/// Unknown counts as ready.
fn is_ready(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}
