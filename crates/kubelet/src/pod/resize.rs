//! Resizing containers in place: what they have been given, what they should have, and why they do not have it (KEP-1287).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container as ApiContainer, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::quantity::Quantity;
use runtime::Container;

use super::state::PodState;
use crate::types::desired::{ContainerKind, DesiredContainer};
use crate::values::resources::{Allocatable, container_request, pod_request};

/// What can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Why a container has not been resized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Type of the condition that tells of it.
    pub(crate) condition: &'static str,
    /// Its reason.
    pub(crate) reason: &'static str,
    /// Its message.
    pub(crate) message: String,
}

impl Unfinished {
    /// The node could never give so much.
    pub(crate) fn infeasible(message: String) -> Self {
        Self { condition: PENDING, reason: "Infeasible", message }
    }

    /// The node cannot give so much now.
    pub(crate) fn deferred(message: String) -> Self {
        Self { condition: PENDING, reason: "Deferred", message }
    }

    /// It was tried.
    pub(crate) fn error(message: String) -> Self {
        Self { condition: IN_PROGRESS, reason: "Error", message }
    }
}

/// Types of the conditions (upstream: `k8s.io/api/core/v1/types.go`).
pub(crate) const PENDING: &str = "PodResizePending";
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";

/// What a container of the runtime has been given: as this process or the one before did it, else as it is specified.
pub(crate) fn applied<'a>(
    state: &'a PodState,
    desired: &'a DesiredContainer,
    container: &Container,
) -> Option<&'a ResourceRequirements> {
    if let Some(applied) = state.applied.get(&container.id) {
        return applied.as_ref();
    }
    let known = state.desired.container_status(desired.name()).filter(|known| {
        let id = known.container_id.as_deref().and_then(|id| id.split_once("://"));
        id.is_some_and(|(_, id)| id == container.id)
    });
    known.and_then(|known| known.resources.as_ref()).or(desired.spec.resources.as_ref())
}

/// Whether a running container has been given something else than it should have.
pub(crate) fn is_needed(state: &PodState, desired: &DesiredContainer, container: &Container) -> bool {
    let (applied, wanted) = (applied(state, desired, container), desired.spec.resources.as_ref());
    // Most often they are the same to the letter.
    applied != wanted
        && matches!(desired.kind, ContainerKind::App | ContainerKind::Sidecar)
        && amounts(applied) != amounts(wanted)
}

/// Whether what changes takes effect by a restart of the container only.
pub(crate) fn needs_restart(container: &ApiContainer, applied: Option<&ResourceRequirements>) -> bool {
    let (old, new) = (amounts(applied), amounts(container.resources.as_ref()));
    RESIZABLE.iter().zip(old.iter().zip(&new)).filter(|(_, (old, new))| old != new).any(|(name, _)| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|policy| policy.resource_name == *name && policy.restart_policy == "RestartContainer")
    })
}

/// Requests and limits, in the order of [`RESIZABLE`].
fn amounts(resources: Option<&ResourceRequirements>) -> [[Option<Quantity>; 2]; 2] {
    RESIZABLE.map(|name| {
        let of = |amounts: Option<&BTreeMap<String, ApiQuantity>>| amounts?.get(name)?.0.parse().ok();
        [of(resources.and_then(|all| all.requests.as_ref())), of(resources.and_then(|all| all.limits.as_ref()))]
    })
}

/// Whether the node can give a container what it should have, beside pods that asked for `others` (upstream: `canResizePod`
/// in `pkg/kubelet/allocation/allocation_manager.go`, with its messages). Who asks for no more than before gets it.
pub(crate) fn check(
    spec: &PodSpec,
    container: &ApiContainer,
    applied: Option<&ResourceRequirements>,
    others: [i64; 2],
    node: Allocatable,
) -> Result<(), Unfinished> {
    let before = ApiContainer { resources: applied.cloned(), ..ApiContainer::default() };
    for (name, others, capacity) in [("memory", others[1], node.memory), ("cpu", others[0], node.milli_cpu)] {
        let number = |quantity: Quantity| if name == "cpu" { quantity.milli_value() } else { quantity.value() };
        let request = |container| container_request(container, name).unwrap_or_default();
        if request(container) <= request(&before) {
            continue;
        }
        let requested = number(pod_request(spec, name));
        if requested > capacity {
            return Err(Unfinished::infeasible(format!(
                "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            )));
        }
        if requested.saturating_add(others) > capacity {
            return Err(Unfinished::deferred(format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {others}, capacity: {capacity}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(requests: &Value) -> ApiContainer {
        let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        serde_json::from_value(json!({"name": "c", "resources": {"requests": requests}, "resizePolicy": policy}))
            .expect("a container")
    }

    #[test]
    fn what_a_node_can_give() {
        let node = Allocatable { milli_cpu: 4000, memory: 1000, storage: 0 };
        let check = |requests: Value, others, expect: Result<(), (&str, &str)>| {
            let container = container(&requests);
            let spec = PodSpec { containers: vec![container.clone()], ..PodSpec::default() };
            let before: ResourceRequirements =
                serde_json::from_value(json!({"requests": {"cpu": "1", "memory": "500"}})).expect("resources");
            let found = super::check(&spec, &container, Some(&before), others, node);
            let found = found.as_ref().map_err(|why| (why.reason, why.message.as_str()));
            assert_eq!(found.copied(), expect, "{requests}");
        };
        check(json!({"cpu": "2", "memory": "600"}), [2000, 400], Ok(()));
        check(
            json!({"cpu": "5", "memory": "600"}),
            [0, 0],
            Err(("Infeasible", "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000")),
        );
        check(
            json!({"cpu": "1", "memory": "600"}),
            [9000, 401],
            Err(("Deferred", "Node didn't have enough resource: memory, requested: 600, used: 401, capacity: 1000")),
        );
        check(json!({"cpu": "500m", "memory": "500"}), [9000, 9000], Ok(()));
    }

    #[test]
    fn a_restart_where_the_policy_of_what_changes_asks_for_it() {
        let before = container(&json!({"cpu": "1", "memory": "1Ki"})).resources;
        assert!(!needs_restart(&container(&json!({"cpu": "2", "memory": "1024"})), before.as_ref()));
        assert!(needs_restart(&container(&json!({"cpu": "1", "memory": "2Ki"})), before.as_ref()));
    }
}
