//! When a pod has to leave its node, and what keeps others from evicting it.

use controllers::preview;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use machinery::placement::taints;

use crate::explanation::{Explanation, Step};
use crate::meta::{name, selects};
use crate::related::Related;
use crate::words::{after, count, list};

/// When the taints of its node make it leave (upstream: `pkg/controller/tainteviction/taint_eviction.go`).
pub(super) fn from_node(out: &mut Explanation, pod: &Pod, related: &Related) {
    let Some(spec) = &pod.spec else { return };
    let nodes = related.all::<Node>("nodes");
    let Some(node) = nodes.iter().find(|node| node.metadata.name == spec.node_name && spec.node_name.is_some()) else {
        return;
    };
    let Some(bears) = preview::eviction(pod, node) else { return };
    let driving: Vec<&Taint> = taints(node).iter().filter(|taint| taint.effect == "NoExecute").collect();
    let keys: Vec<&str> = driving.iter().map(|taint| taint.key.as_str()).collect();
    let met = driving.iter().filter_map(|taint| taint.time_added.as_ref()).map(|time| time.0).min();
    let step = Step::new(
        "The node lifecycle controller",
        format!("deletes it, if its node {} still has the taint {} then", name(&node.metadata), list(&keys)),
    );
    let seconds = i64::try_from(bears.as_secs()).unwrap_or(i64::MAX);
    out.next(step.until(met.and_then(|met| after(met, seconds))));
}

/// What a budget says of evictions.
pub(super) fn budget(out: &mut Explanation, pod: &Pod, related: &Related) {
    for budget in related.all::<PodDisruptionBudget>("poddisruptionbudgets.policy") {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let Some(status) = budget.status.as_ref().filter(|_| selector.is_some_and(|it| selects(it, &pod.metadata)))
        else {
            continue;
        };
        out.has(format!(
            "the PodDisruptionBudget {}, which allows {} now ({} of its pods are healthy, {} have to be)",
            name(&budget.metadata),
            count(status.disruptions_allowed.unwrap_or(0), "eviction"),
            status.current_healthy.unwrap_or(0),
            status.desired_healthy.unwrap_or(0)
        ));
    }
}
