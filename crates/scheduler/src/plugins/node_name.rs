//! A pod that names its node runs there or nowhere.

use crate::framework::{ClusterEvent, Filter, NodeInfo, PodInfo, Refusal};

pub(super) struct NodeName;

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        match pod.spec().node_name.as_deref() {
            None | Some("") => Ok(()),
            Some(wanted) if wanted == node.name() => Ok(()),
            Some(_) => Err(Refusal::unresolvable("node(s) didn't match the requested node name")),
        }
    }

    fn healed_by(&self, event: ClusterEvent) -> bool {
        event == ClusterEvent::NodeAdded
    }
}
