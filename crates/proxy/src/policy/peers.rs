//! What the rules of a policy select: peers among the pods and outside, and ports. Pure.
//!
//! Upstream: `staging/src/k8s.io/api/networking/v1/types.go` says what each field means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, Namespace, Pod};
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::LabelSelector;

use super::ranges::{Addresses, EVERYWHERE, Ports, block, subtract, union};
use crate::service::Protocol;

/// A pod on the pods' network, at one of its addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct PodAt<'a> {
    pub(super) address: Ipv4Addr,
    pub(super) namespace: &'a str,
    pub(super) pod: &'a Pod,
}

impl PodAt<'_> {
    /// Whether a selector selects it by its labels.
    pub(super) fn is_selected(&self, selector: &LabelSelector) -> bool {
        selector.matches_option(self.pod.metadata.labels.as_ref())
    }

    /// The numbers that its containers give to the port of this name.
    fn ports(&self, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
        named_ports(self.pod).filter(move |port| port.0 == name && port.1 == protocol).map(|(_, _, number)| number)
    }
}

/// The ports of a pod's containers that have names, those of sidecars among them.
pub(super) fn named_ports(pod: &Pod) -> impl Iterator<Item = (&str, Protocol, u16)> {
    let spec = pod.spec.as_ref();
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten().filter(is_sidecar);
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default().iter();
    containers.chain(sidecars).flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some((port.name.as_deref()?, Protocol::parse(port.protocol.as_deref())?, number))
    })
}

/// The pods and namespaces that policies select from.
#[derive(Debug, Default)]
pub(super) struct Population<'a> {
    /// By namespace; in the order of addresses.
    pods: BTreeMap<&'a str, Vec<PodAt<'a>>>,
    /// Labels by name.
    namespaces: BTreeMap<&'a str, Option<&'a BTreeMap<String, String>>>,
}

impl<'a> Population<'a> {
    /// Pods that have ended are not among the pods, since their addresses may be others' by now, nor are pods of the host's
    /// network: those are the node.
    pub(super) fn new(
        namespaces: impl IntoIterator<Item = &'a Namespace>,
        pods: impl IntoIterator<Item = &'a Pod>,
    ) -> Self {
        let mut population = Self::default();
        for namespace in namespaces {
            let name = namespace.metadata.name.as_deref().unwrap_or_default();
            population.namespaces.insert(name, namespace.metadata.labels.as_ref());
        }
        for pod in pods {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let at = addresses(pod).into_iter().map(|address| PodAt { address, namespace, pod });
            population.pods.entry(namespace).or_default().extend(at);
        }
        for pods in population.pods.values_mut() {
            pods.sort_by_key(|pod| (pod.address, pod.pod.metadata.name.as_deref()));
        }
        population
    }

    /// The pods of a namespace, in the order of their addresses.
    pub(super) fn of_namespace(&self, namespace: &str) -> &[PodAt<'a>] {
        self.pods.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    fn all(&self) -> impl Iterator<Item = PodAt<'a>> {
        self.pods.values().flatten().copied()
    }

    fn of_namespaces(&self, selector: &LabelSelector) -> impl Iterator<Item = PodAt<'a>> {
        let selected = self.namespaces.iter().filter(|(_, labels)| selector.matches_option(**labels));
        selected.flat_map(|(name, _)| self.of_namespace(name)).copied()
    }
}

/// The addresses by which others reach a pod on the pods' network; none of a pod that is not on it or has ended.
pub(super) fn addresses(pod: &Pod) -> BTreeSet<Ipv4Addr> {
    let is_host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
    let Some(status) = pod.status.as_ref().filter(|_| !is_host) else {
        return BTreeSet::new();
    };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return BTreeSet::new();
    }
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    listed.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect()
}

/// A selector of an object. One that is malformed has not passed validation, and selects nothing.
pub(super) fn selector(object: Option<&v1::LabelSelector>) -> LabelSelector {
    LabelSelector::from_object(object).unwrap_or_else(|_| LabelSelector::nothing())
}

/// One side of a rule: `from` or `to`.
#[derive(Debug, Clone)]
pub(super) enum Peers {
    /// None are given: everybody, inside and outside.
    All,
    These(Vec<Peer>),
}

/// One peer of a rule.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// Pods with these labels in the policy's own namespace.
    Pods(LabelSelector),
    /// Pods with these labels in namespaces with those.
    PodsIn(LabelSelector, LabelSelector),
    /// Addresses, whoever has them.
    Block(Vec<Addresses>),
}

impl Peers {
    pub(super) fn new(peers: Option<&[NetworkPolicyPeer]>) -> Self {
        match peers {
            None | Some([]) => Self::All,
            Some(peers) => Self::These(peers.iter().map(Peer::new).collect()),
        }
    }

    /// The pods among the peers of a policy's rule.
    pub(super) fn pods<'a>(&self, namespace: &str, population: &Population<'a>) -> Vec<PodAt<'a>> {
        match self {
            Self::All => population.all().collect(),
            Self::These(peers) => peers.iter().flat_map(|peer| peer.pods(namespace, population)).collect(),
        }
    }

    /// The addresses of the peers of a policy's rule.
    pub(super) fn addresses(&self, namespace: &str, population: &Population<'_>) -> Vec<Addresses> {
        let Self::These(peers) = self else {
            return vec![EVERYWHERE];
        };
        let blocks = peers.iter().flat_map(|peer| match peer {
            Peer::Block(ranges) => ranges.as_slice(),
            Peer::Pods(_) | Peer::PodsIn(..) => &[],
        });
        let pods = self.pods(namespace, population).into_iter().map(|pod| (pod.address, pod.address));
        union(blocks.copied().chain(pods).collect())
    }
}

impl Peer {
    fn new(peer: &NetworkPolicyPeer) -> Self {
        let pods =
            |labels: Option<&v1::LabelSelector>| labels.map_or_else(LabelSelector::default, |_| selector(labels));
        match (&peer.ip_block, &peer.namespace_selector) {
            (Some(block), _) => Self::Block(outside(block)),
            (None, Some(namespaces)) => Self::PodsIn(pods(peer.pod_selector.as_ref()), selector(Some(namespaces))),
            (None, None) => Self::Pods(selector(peer.pod_selector.as_ref())),
        }
    }

    fn pods<'a>(&self, namespace: &str, population: &Population<'a>) -> Vec<PodAt<'a>> {
        match self {
            Self::Pods(labels) => {
                population.of_namespace(namespace).iter().filter(|pod| pod.is_selected(labels)).copied().collect()
            }
            Self::PodsIn(labels, namespaces) => {
                population.of_namespaces(namespaces).filter(|pod| pod.is_selected(labels)).collect()
            }
            Self::Block(_) => Vec::new(),
        }
    }
}

/// The addresses of a block without those excepted.
fn outside(ip_block: &IPBlock) -> Vec<Addresses> {
    let excepted = ip_block.except.iter().flatten().filter_map(|cidr| block(cidr)).collect();
    block(&ip_block.cidr).map(|range| subtract(range, excepted)).unwrap_or_default()
}

/// The ports of a rule.
#[derive(Debug, Clone)]
pub(super) enum PortsOf {
    /// None are given: all, of every protocol.
    All,
    These(Vec<Port>),
}

/// One port of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Port {
    /// Ports by number.
    Numbers(Ports),
    /// The port that the receiving pod has under this name.
    Named(String, Protocol),
}

impl PortsOf {
    pub(super) fn new(ports: Option<&[NetworkPolicyPort]>) -> Self {
        match ports {
            None | Some([]) => Self::All,
            Some(ports) => Self::These(ports.iter().filter_map(Port::new).collect()),
        }
    }

    /// Whether one is given by name.
    pub(super) fn has_names(&self) -> bool {
        matches!(self, Self::These(ports) if ports.iter().any(|port| matches!(port, Port::Named(..))))
    }
}

impl Port {
    /// `None` for what has not passed validation.
    fn new(port: &NetworkPolicyPort) -> Option<Self> {
        let protocol = Protocol::parse(port.protocol.as_deref())?;
        Some(match &port.port {
            None => Self::Numbers((protocol, 0, u16::MAX)),
            Some(IntOrString::String(name)) => Self::Named(name.clone(), protocol),
            Some(IntOrString::Int(first)) => {
                let last = u16::try_from(port.end_port.unwrap_or(*first)).ok()?;
                let first = u16::try_from(*first).ok().filter(|first| *first <= last)?;
                Self::Numbers((protocol, first, last))
            }
        })
    }

    /// The numbers that a pod gives it.
    pub(super) fn at(&self, pod: PodAt<'_>) -> Vec<Ports> {
        match self {
            Self::Numbers(ports) => vec![*ports],
            Self::Named(name, protocol) => {
                pod.ports(name, *protocol).map(|number| (*protocol, number, number)).collect()
            }
        }
    }
}
