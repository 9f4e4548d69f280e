//! Two pods cannot hold the same port of the host.

use machinery::placement::{NO_FREE_PORTS, ports_conflict};

use crate::cache::Cache;
use crate::framework::{Candidate, ClusterEvent, Filtering, NodeInfo, Plugin, Refusal};

pub(super) struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, _cache: &'a Cache) -> Filtering<'a> {
        if pod.host_ports.is_empty() {
            return Filtering::Skip;
        }
        Filtering::each_node(|node: &NodeInfo| match ports_conflict(&pod.host_ports, &node.host_ports) {
            true => Err(Refusal::resolvable(NO_FREE_PORTS)),
            false => Ok(()),
        })
    }

    fn queueing_hint(&self, pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node(_) => true,
            ClusterEvent::PodRemoved(gone) => ports_conflict(&pod.host_ports, &gone.host_ports),
            _ => false,
        }
    }
}
