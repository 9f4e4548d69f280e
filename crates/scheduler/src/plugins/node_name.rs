//! A pod that names its node runs there or nowhere.

use crate::cache::Cache;
use crate::framework::{Candidate, ClusterEvent, Filtering, NodeInfo, Plugin, Refusal};

pub(super) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, _cache: &'a Cache) -> Filtering<'a> {
        match pod.spec().node_name.as_deref() {
            None | Some("") => Filtering::Skip,
            Some(wanted) => Filtering::each_node(move |node: &NodeInfo| match wanted == node.name() {
                true => Ok(()),
                false => Err(Refusal::unresolvable("node(s) didn't match the requested node name")),
            }),
        }
    }

    fn queueing_hint(&self, _pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::Node(_))
    }
}
