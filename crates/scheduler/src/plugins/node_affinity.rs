//! `nodeSelector` and node affinity: what a pod demands of its node's labels, and what it would like.

use k8s_openapi::api::core::v1::{NodeAffinity as Affinity, PodSpec, PreferredSchedulingTerm};
use machinery::placement::{UNWANTED_NODE, selects, term_selects, wants_node};
use serde::Deserialize;
use serde_json::Value;

use crate::cache::Cache;
use crate::framework::{self, Candidate, ClusterEvent, Filtering, NodeInfo, Plugin, Refusal};

/// `NodeAffinityArgs`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeAffinity {
    /// What the profile requires and prefers for all of its pods.
    added_affinity: Option<Affinity>,
}

impl NodeAffinity {
    pub(super) fn new(args: &Value) -> Result<Self, String> {
        super::arguments(args)
    }

    fn meets_added(&self, node: &NodeInfo) -> bool {
        let added = self.added_affinity.as_ref();
        added
            .and_then(|added| added.required_during_scheduling_ignored_during_execution.as_ref())
            .is_none_or(|required| selects(required, &node.node))
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, _cache: &'a Cache) -> Filtering<'a> {
        let spec = pod.spec();
        let asks = spec.node_selector.as_ref().is_some_and(|selector| !selector.is_empty())
            || affinity(spec).is_some_and(|it| it.required_during_scheduling_ignored_during_execution.is_some());
        if !asks && self.added_affinity.is_none() {
            return Filtering::Skip;
        }
        Filtering::each_node(move |node: &NodeInfo| {
            if !self.meets_added(node) {
                return Err(Refusal::unresolvable("node(s) didn't match scheduler-enforced node affinity"));
            }
            match wants_node(spec, &node.node) {
                true => Ok(()),
                false => Err(Refusal::unresolvable(UNWANTED_NODE)),
            }
        })
    }

    /// The sum of the weights of the preferences that the node meets.
    fn score(&self, pod: &Candidate, _cache: &Cache, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let preferred = |affinity: Option<&'_ Affinity>| -> Vec<PreferredSchedulingTerm> {
            let terms = affinity.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.clone());
            terms.unwrap_or_default()
        };
        let mut all = preferred(affinity(pod.spec()));
        all.extend(preferred(self.added_affinity.as_ref()));
        if all.is_empty() {
            return None;
        }
        let sum = |node: &&NodeInfo| {
            let met = all.iter().filter(|preference| term_selects(&preference.preference, &node.node));
            met.map(|preference| i64::from(preference.weight)).sum()
        };
        let mut scores: Vec<i64> = nodes.iter().map(sum).collect();
        framework::normalize_score(&mut scores, false);
        Some(scores)
    }

    fn queueing_hint(&self, pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::Node(node) if self.meets_added(node) && wants_node(pod.spec(), &node.node))
    }
}

fn affinity(spec: &PodSpec) -> Option<&Affinity> {
    spec.affinity.as_ref()?.node_affinity.as_ref()
}
