//! `nodeSelector` and node affinity: what a pod demands of its node's labels, and what it would like.

use k8s_openapi::api::core::v1::{
    NodeAffinity as Affinity, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PreferredSchedulingTerm,
};
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::framework::{self, Candidate, ClusterEvent, Filtering, NodeInfo, Plugin, Refusal};

/// `NodeAffinityArgs`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeAffinity {
    /// What the profile demands of and wishes for all of its pods.
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
            .is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)))
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, _cluster: &'a Cluster) -> Filtering<'a> {
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
            match required(spec, node) {
                true => Ok(()),
                false => Err(Refusal::unresolvable("node(s) didn't match Pod's node affinity/selector")),
            }
        })
    }

    /// The sum of the weights of the preferences that the node meets.
    fn score(&self, pod: &Candidate, _cluster: &Cluster, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
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
            let met = all.iter().filter(|preference| matches(&preference.preference, node));
            met.map(|preference| i64::from(preference.weight)).sum()
        };
        let mut scores: Vec<i64> = nodes.iter().map(sum).collect();
        framework::stretch(&mut scores, false);
        Some(scores)
    }

    fn helped_by(&self, pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::Node(node) if self.meets_added(node) && required(pod.spec(), node))
    }
}

fn affinity(spec: &PodSpec) -> Option<&Affinity> {
    spec.affinity.as_ref()?.node_affinity.as_ref()
}

/// Whether `node` has what the pod's selector and required affinity demand.
pub(crate) fn required(spec: &PodSpec, node: &NodeInfo) -> bool {
    let mut selector = spec.node_selector.iter().flatten();
    let required = affinity(spec).and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    // Terms are alternatives.
    selector.all(|(key, value)| node.label(key) == Some(value.as_str()))
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)))
}

/// Whether `node` meets every demand of `term`. A term without any demand matches no node: upstream's rule.
pub(crate) fn matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|demand| meets(demand, node.label(&demand.key)))
        && fields.iter().all(|demand| {
            // The API knows one field that nodes can be selected by.
            demand.key == "metadata.name" && meets(demand, Some(node.name()))
        })
}

fn meets(demand: &NodeSelectorRequirement, actual: Option<&str>) -> bool {
    let values = demand.values.as_deref().unwrap_or_default();
    let listed = || values.iter().any(|value| Some(value.as_str()) == actual);
    let compare = |holds: fn(i64, i64) -> bool| {
        let wanted = values.first().and_then(|value| value.parse().ok());
        let actual = actual.and_then(|value| value.parse().ok());
        matches!((actual, wanted), (Some(actual), Some(wanted)) if holds(actual, wanted))
    };
    match demand.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compare(|actual, wanted| actual > wanted),
        "Lt" => compare(|actual, wanted| actual < wanted),
        _ => false,
    }
}
