//! Two pods cannot hold the same port of the host.

use crate::framework::{ClusterEvent, Filter, NodeInfo, PodInfo, Refusal};

pub(super) struct NodePorts;

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let taken = pod.host_ports.iter().any(|wanted| node.host_ports.iter().any(|held| held.conflicts(wanted)));
        if taken {
            return Err(Refusal::resolvable("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }

    fn healed_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::PodRemoved)
    }
}
