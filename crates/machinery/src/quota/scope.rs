//! Which objects a quota is about: its scopes.

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, PodSpec, ResourceQuotaSpec};

use super::usage::concerns;
use super::{Counted, parse};
use crate::quantity::Quantity;

/// Whether a quota counts an object: it limits something of the kind, and all its scopes fit.
#[must_use]
pub fn matches(quota: &ResourceQuotaSpec, object: Counted<'_>) -> bool {
    let limits = quota.hard.iter().flatten().any(|(name, _)| concerns(object, name));
    let plain = quota.scopes.iter().flatten().map(|scope| (scope.as_str(), "Exists", &[][..]));
    let selected = quota.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    let selected = selected.map(|expression| {
        let values = expression.values.as_deref().unwrap_or_default();
        (expression.scope_name.as_str(), expression.operator.as_str(), values)
    });
    let mut scopes = plain.chain(selected);
    limits
        && match object {
            Counted::Pod(pod) => {
                let spec = pod.spec.as_ref();
                scopes.all(|(scope, operator, values)| spec.is_some_and(|spec| fits(spec, scope, operator, values)))
            }
            // Only pods have scopes.
            _ => scopes.next().is_none(),
        }
}

fn fits(spec: &PodSpec, scope: &str, operator: &str, values: &[String]) -> bool {
    let bounded = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => bounded,
        "NotTerminating" => !bounded,
        "BestEffort" => is_best_effort(spec),
        "NotBestEffort" => !is_best_effort(spec),
        "CrossNamespacePodAffinity" => spec.affinity.as_ref().is_some_and(is_cross_namespace),
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().unwrap_or_default();
            let listed = values.iter().any(|value| value == class);
            match operator {
                "In" => listed,
                // Upstream: a label selector's rule, so that a pod without a class is not in any.
                "NotIn" => !listed,
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                _ => false,
            }
        }
        _ => false,
    }
}

/// No container asks for or is limited in CPU or memory, nor is the pod.
fn is_best_effort(spec: &PodSpec) -> bool {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let of_containers = containers.filter_map(|container| container.resources.as_ref());
    of_containers.chain(&spec.resources).all(|resources| {
        let said = parse(resources.requests.as_ref()).into_iter().chain(parse(resources.limits.as_ref()));
        said.into_iter().all(|(name, amount)| !matches!(name.as_str(), "cpu" | "memory") || amount <= Quantity::ZERO)
    })
}

fn is_cross_namespace(affinity: &Affinity) -> bool {
    let crosses = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    };
    let near = affinity.pod_affinity.iter().flat_map(|side| {
        let required = side.required_during_scheduling_ignored_during_execution.iter().flatten();
        let preferred = side.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|term| &term.pod_affinity_term))
    });
    let apart = affinity.pod_anti_affinity.iter().flat_map(|side| {
        let required = side.required_during_scheduling_ignored_during_execution.iter().flatten();
        let preferred = side.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|term| &term.pod_affinity_term))
    });
    near.chain(apart).any(crosses)
}
