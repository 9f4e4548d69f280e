//! Taints keep pods away that do not tolerate them.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{PodSpec, Taint};
use machinery::placement;

use crate::cache::Cache;
use crate::framework::{self, Candidate, ClusterEvent, Filtering, MAX_SCORE, NodeInfo, Plugin, Refusal};

pub(super) struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, _cache: &'a Cache) -> Filtering<'a> {
        Filtering::each_node(|node: &NodeInfo| match repels(pod.spec(), node.taints()) {
            true => Err(Refusal::unresolvable(Cow::Borrowed("node(s) had untolerated taint(s)"))),
            false => Ok(()),
        })
    }

    /// The fewer taints ask the pod, politely, to stay away, the better.
    fn score(&self, pod: &Candidate, _cache: &Cache, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let asks = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !tolerates(pod.spec(), taint);
        let count = |node: &&NodeInfo| i64::try_from(node.taints().iter().filter(asks).count()).unwrap_or(i64::MAX);
        let mut scores: Vec<i64> = nodes.iter().map(count).collect();
        if scores.iter().all(|score| *score == 0) {
            return Some(vec![MAX_SCORE; nodes.len()]);
        }
        framework::normalize_score(&mut scores, true);
        Some(scores)
    }

    fn queueing_hint(&self, pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::Node(node) if !repels(pod.spec(), node.taints()))
    }
}

/// Whether one of `taints` keeps pods with this specification away.
pub(crate) fn repels(pod: &PodSpec, taints: &[Taint]) -> bool {
    taints.iter().any(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerates(pod, taint))
}

/// Whether a pod with this specification tolerates `taint`.
pub(super) fn tolerates(pod: &PodSpec, taint: &Taint) -> bool {
    placement::tolerates(pod.tolerations.as_deref().unwrap_or_default(), taint)
}
