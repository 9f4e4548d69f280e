//! Taints keep pods away that do not tolerate them.

use k8s_openapi::api::core::v1::{PodSpec, Taint, Toleration};

use crate::framework::{self, ClusterEvent, Filter, NodeInfo, PodInfo, Refusal, Score};

pub(super) struct TaintToleration;

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let repels = |taint: &&Taint| {
            matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerates(pod.spec(), taint)
        };
        match taints(node).find(repels) {
            None => Ok(()),
            Some(_) => Err(Refusal::unresolvable("node(s) had untolerated taint(s)")),
        }
    }

    fn healed_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeUpdated)
    }
}

impl Score for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    /// How many taints ask the pod, politely, to stay away.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let repels = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !tolerates(pod.spec(), taint);
        i64::try_from(taints(node).filter(repels).count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        framework::stretch(scores, true);
    }
}

fn taints(node: &NodeInfo) -> impl Iterator<Item = &Taint> {
    let taints = node.node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten()
}

/// Whether a pod with this specification tolerates `taint`.
pub(super) fn tolerates(pod: &PodSpec, taint: &Taint) -> bool {
    let tolerations = pod.tolerations.iter().flatten();
    tolerations.into_iter().any(|one| matches(one, taint))
}

/// Upstream's rule: an empty key with `Exists` tolerates every key, an empty effect every effect.
fn matches(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    let operator = given(&toleration.operator);
    let exists = operator.as_deref() == Some("Exists");
    match given(&toleration.key) {
        None => return exists,
        Some(key) if key != taint.key => return false,
        Some(_) => {}
    }
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let actual = taint.value.as_deref().unwrap_or_default();
    match operator.as_deref() {
        Some("Exists") => true,
        None | Some("Equal") => wanted == actual,
        Some(operator @ ("Lt" | "Gt")) => match (actual.parse::<i64>(), wanted.parse::<i64>()) {
            (Ok(actual), Ok(wanted)) if operator == "Lt" => actual < wanted,
            (Ok(actual), Ok(wanted)) => actual > wanted,
            _ => false,
        },
        Some(_) => false,
    }
}
