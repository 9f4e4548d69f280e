//! Nodes that were cordoned take no new pods, except those that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerates;
use crate::framework::{ClusterEvent, Filter, NodeInfo, PodInfo, Refusal};

pub(super) struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let spec = node.node.spec.as_ref();
        if spec.is_none_or(|spec| spec.unschedulable != Some(true)) {
            return Ok(());
        }
        let cordoned = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if tolerates(pod.spec(), &cordoned) {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) were unschedulable"))
    }

    fn healed_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeUpdated)
    }
}
