//! What a plugin is: a [`Filter`] refuses nodes, a [`Score`] prefers some of the rest.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use crate::resources::{self, Resources};

/// The best score that a plugin can give a node; 0 is the worst.
pub const MAX_SCORE: i64 = 100;

/// A pod, with what plugins ask of it worked out once.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// The pod itself.
    pub pod: Arc<Pod>,
    /// What it asks for.
    pub requests: Resources,
    /// What it is taken to use when nodes are scored.
    pub nonzero: Resources,
    /// Ports of the host that it wants.
    pub host_ports: Vec<HostPort>,
}

impl PodInfo {
    /// Works out what plugins ask of `pod`.
    pub fn new(pod: Arc<Pod>) -> Self {
        Self {
            requests: resources::requests(&pod),
            nonzero: resources::nonzero_requests(&pod),
            host_ports: host_ports(&pod),
            pod,
        }
    }

    /// The pod's specification; an empty one for a pod without, which no API server returns.
    pub fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// The pod's unique id.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }
}

/// A port of the host that a container wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host's address; `0.0.0.0` stands for all of them.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port, 1 to 65535.
    pub port: i32,
}

impl HostPort {
    /// Whether only one of the two can be had on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == any || other.address == any)
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    // Only sidecars among the init containers hold their ports while the pod runs.
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|port| *port > 0)?;
            Some(HostPort {
                address: port
                    .host_ip
                    .clone()
                    .filter(|address| !address.is_empty())
                    .unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: number,
            })
        })
        .collect()
}

/// A node, with what runs on it summed up.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// The node itself.
    pub node: Arc<Node>,
    /// What pods may use of it.
    pub allocatable: Resources,
    /// What its pods ask for.
    pub requested: Resources,
    /// What its pods are taken to use when nodes are scored.
    pub nonzero: Resources,
    /// Ports of the host that its pods hold.
    pub host_ports: Vec<HostPort>,
}

impl NodeInfo {
    /// `node` without any pods.
    pub fn new(node: Arc<Node>) -> Self {
        let status = node.status.as_ref();
        let offered = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        Self {
            allocatable: offered.map(Resources::from_list).unwrap_or_default(),
            requested: Resources::default(),
            nonzero: Resources::default(),
            host_ports: Vec::new(),
            node,
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// Charges the node with a pod.
    pub fn add(&mut self, pod: &PodInfo) {
        self.requested.add(&pod.requests);
        self.nonzero.add(&pod.nonzero);
        self.host_ports.extend(pod.host_ports.iter().cloned());
    }

    /// Takes the charge of a pod back.
    pub fn remove(&mut self, pod: &PodInfo) {
        self.requested.subtract(&pod.requests);
        self.nonzero.subtract(&pod.nonzero);
        for port in &pod.host_ports {
            if let Some(position) = self.host_ports.iter().position(|held| held == port) {
                self.host_ports.swap_remove(position);
            }
        }
    }
}

/// Why a plugin refuses a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reasons, in the words that upstream uses: people search for them.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether the node could take the pod if other pods left it.
    pub resolvable: bool,
}

impl Refusal {
    /// A refusal that pods leaving the node would end.
    pub fn resolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: true }
    }

    /// A refusal that stands whatever runs on the node.
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }
}

/// A change of the cluster that may make room for a pod that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClusterEvent {
    /// A node appeared.
    NodeAdded,
    /// A node changed its labels, taints, capacity, or whether it is schedulable.
    NodeUpdated,
    /// A pod left its node: it was deleted or has ended.
    PodRemoved,
}

/// Refuses nodes on which a pod cannot run.
pub trait Filter: Send + Sync {
    /// The plugin's name, upstream's where it has it.
    fn name(&self) -> &'static str;
    /// Whether `pod` can run on `node`.
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal>;
    /// Whether `event` may end a refusal by this plugin.
    fn healed_by(&self, event: ClusterEvent) -> bool;
}

/// Prefers some nodes over others.
pub trait Score: Send + Sync {
    /// The plugin's name, upstream's where it has it.
    fn name(&self) -> &'static str;
    /// How much this plugin counts beside the others.
    fn weight(&self) -> i64;
    /// How well `node` suits `pod`: 0 to [`MAX_SCORE`], or any scale that [`Score::normalize`] brings there.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64;
    /// Brings the scores of all nodes to the scale 0 to [`MAX_SCORE`].
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Stretches scores so that the largest becomes [`MAX_SCORE`]; with `reverse`, so that the largest becomes 0.
pub fn stretch(scores: &mut [i64], reverse: bool) {
    let largest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let stretched = if largest > 0 { *score * MAX_SCORE / largest } else { 0 };
        *score = if reverse { MAX_SCORE - stretched } else { stretched };
    }
}
