//! `nodeSelector` and node affinity: what a pod demands of its node's labels, and what it would like.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeAffinity as Affinity, NodeSelectorRequirement, NodeSelectorTerm};

use crate::framework::{self, ClusterEvent, Filter, NodeInfo, PodInfo, Refusal, Score};

pub(super) struct NodeAffinity;

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let labels = node.node.metadata.labels.as_ref();
        let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
        let selected = pod.spec().node_selector.iter().flatten().all(has);
        let required =
            affinity(pod).and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        // Terms are alternatives.
        let wanted =
            required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)));
        if selected && wanted {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }

    fn healed_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeUpdated)
    }
}

impl Score for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    /// The sum of the weights of the preferences that the node meets.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let preferred =
            affinity(pod).and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
        preferred
            .into_iter()
            .flatten()
            .filter(|preference| matches(&preference.preference, node))
            .map(|preference| i64::from(preference.weight))
            .sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        framework::stretch(scores, false);
    }
}

fn affinity(pod: &PodInfo) -> Option<&Affinity> {
    pod.spec().affinity.as_ref()?.node_affinity.as_ref()
}

/// Whether `node` meets every demand of `term`. A term without any demand matches no node: upstream's rule.
fn matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let empty = BTreeMap::new();
    let labels = node.node.metadata.labels.as_ref().unwrap_or(&empty);
    expressions.iter().all(|demand| meets(demand, labels.get(&demand.key).map(String::as_str)))
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
