//! Which Pods must leave a node because of its `NoExecute` taints, and when.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Taint};
use machinery::placement::is_for;

/// What the taints of its node mean for a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays.
    Stays,
    /// It must leave after this time; zero is now.
    Leaves(Duration),
}

/// The taints among `taints` that drive Pods away.
pub(crate) fn driving(taints: &[Taint]) -> Vec<&Taint> {
    taints.iter().filter(|taint| taint.effect == "NoExecute").collect()
}

/// Decides about `pod`, which has been on a node with `taints`, all of effect `NoExecute`, for `since`.
pub(crate) fn plan(pod: &Pod, taints: &[&Taint], since: Duration) -> Verdict {
    if taints.is_empty() {
        return Verdict::Stays;
    }
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut limit: Option<i64> = None;
    for taint in taints {
        let mut tolerating = tolerations.iter().filter(|toleration| is_for(toleration, taint));
        // The first that fits is the one that counts.
        let Some(toleration) = tolerating.next() else {
            return Verdict::Leaves(Duration::ZERO);
        };
        if let Some(seconds) = toleration.toleration_seconds {
            limit = Some(limit.map_or(seconds, |limit| limit.min(seconds)));
        }
    }
    match limit {
        None => Verdict::Stays,
        Some(seconds) => {
            let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            Verdict::Leaves(limit.saturating_sub(since))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn pods_leave_when_their_tolerance_ends() {
        let unreachable = json!({ "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" });
        let gpu = json!({ "key": "gpu", "value": "a", "effect": "NoExecute" });
        let for_seconds = |seconds: i64| json!({ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds });
        let leaves = |seconds| Verdict::Leaves(Duration::from_secs(seconds));
        let table: [(Vec<&Value>, Vec<Value>, u64, Verdict); 11] = [
            (vec![], vec![], 0, Verdict::Stays),
            (vec![&unreachable], vec![], 0, leaves(0)),
            (vec![&unreachable], vec![for_seconds(300)], 0, leaves(300)),
            (vec![&unreachable], vec![for_seconds(300)], 100, leaves(200)),
            (vec![&unreachable], vec![for_seconds(300)], 400, leaves(0)),
            (vec![&unreachable], vec![for_seconds(-5)], 0, leaves(0)),
            (vec![&unreachable], vec![json!({ "operator": "Exists" })], 900, Verdict::Stays),
            (vec![&unreachable, &gpu], vec![for_seconds(300)], 0, leaves(0)),
            (vec![&unreachable, &gpu], vec![for_seconds(300), json!({ "key": "gpu", "value": "a" })], 0, leaves(300)),
            (vec![&gpu], vec![json!({ "key": "gpu", "value": "b" })], 0, leaves(0)),
            (vec![&gpu], vec![json!({ "key": "gpu", "operator": "Exists", "effect": "NoSchedule" })], 0, leaves(0)),
        ];
        for (taints, tolerations, since, expect) in table {
            let pod: Pod =
                from_value(json!({ "metadata": {}, "spec": { "containers": [], "tolerations": tolerations } }))
                    .expect("pod");
            let taints: Vec<Taint> =
                taints.into_iter().map(|taint| from_value(taint.clone()).expect("taint")).collect();
            assert_eq!(plan(&pod, &driving(&taints), Duration::from_secs(since)), expect, "{pod:?}");
        }
    }
}
