//! Nodes, with what runs on them summed up.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use machinery::placement::HostPort;

use super::pod::PodInfo;
use crate::resources::Resources;

/// The number of a node, as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// A node, with what runs on it summed up.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Its number.
    pub id: NodeId,
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
    /// The pods on it, those that are only decided included.
    pub pods: Vec<Arc<PodInfo>>,
    /// The images on it, by each of their names, with their sizes in bytes.
    pub images: Arc<HashMap<String, i64>>,
}

impl NodeInfo {
    /// `node` without any pods.
    pub fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            id: NodeId(0),
            node: Arc::default(),
            allocatable: Resources::default(),
            requested: Resources::default(),
            nonzero: Resources::default(),
            host_ports: Vec::new(),
            pods: Vec::new(),
            images: Arc::default(),
        };
        info.update(node);
        info
    }

    /// Takes over what the node says of itself.
    pub fn update(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let offered = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        self.allocatable = offered.map(Resources::from_list).unwrap_or_default();
        let images = |node: &Node| node.status.as_ref().and_then(|status| status.images.clone());
        if images(&self.node) != images(&node) {
            let listed = status.and_then(|status| status.images.as_ref()).into_iter().flatten();
            self.images = Arc::new(
                listed
                    .flat_map(|image| {
                        let size = image.size_bytes.unwrap_or(0);
                        image.names.iter().flatten().map(move |name| (name.clone(), size))
                    })
                    .collect(),
            );
        }
        self.node = node;
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        let spec = self.node.spec.as_ref();
        spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    /// Charges the node with a pod.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.nonzero.add(&pod.nonzero);
        self.host_ports.extend(pod.host_ports.iter().cloned());
        self.pods.push(pod);
    }

    /// Takes the charge of a pod back.
    pub fn remove(&mut self, uid: &str) {
        let Some(position) = self.pods.iter().position(|pod| pod.uid == uid) else {
            return;
        };
        let pod = self.pods.swap_remove(position);
        self.requested.subtract(&pod.requests);
        self.nonzero.subtract(&pod.nonzero);
        for port in &pod.host_ports {
            if let Some(position) = self.host_ports.iter().position(|held| held == port) {
                self.host_ports.swap_remove(position);
            }
        }
    }
}
