//! Nodes that were cordoned take no new pods, except those that tolerate it.

use k8s_openapi::api::core::v1::Taint;
use machinery::well_known::TAINT_UNSCHEDULABLE;

use super::taint_toleration::tolerates;
use crate::cache::Cache;
use crate::framework::{Candidate, ClusterEvent, Filtering, NodeInfo, Plugin, Refusal};

pub(super) struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, _cache: &'a Cache) -> Filtering<'a> {
        let cordoned =
            Taint { key: TAINT_UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        if tolerates(pod.spec(), &cordoned) {
            return Filtering::Skip;
        }
        Filtering::each_node(|node: &NodeInfo| match is_cordoned(node) {
            true => Err(Refusal::unresolvable("node(s) were unschedulable")),
            false => Ok(()),
        })
    }

    fn queueing_hint(&self, _pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::Node(node) if !is_cordoned(node))
    }
}

fn is_cordoned(node: &NodeInfo) -> bool {
    node.node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))
}
