//! Resizing containers in place (KEP-1287): what the node allocates to them, what they have been given, and why that is not
//! what they ask for.
//!
//! What a pod asks for is allocated as a whole, or not at all; its containers are then given that, one by one. All else goes by
//! what is allocated: [`DesiredPod::spec`](crate::types::desired::DesiredPod::spec).

use k8s_openapi::api::core::v1::{Container as ApiContainer, ResourceRequirements};
use machinery::resources::{INFEASIBLE, RESIZE_PENDING, Resources};
use runtime::Container;

use super::state::PodState;
use crate::types::desired::{DesiredContainer, RESIZABLE, resizable_amounts};
use crate::values::resources::Allocatable;

/// Why containers do not have what they ask for.
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
        Self { condition: PENDING, reason: INFEASIBLE, message }
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
pub(crate) const PENDING: &str = RESIZE_PENDING;
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";

/// What a container of the runtime has been given: as this process or the one before did it, as its start was begun, else as
/// is allocated to it.
pub(crate) fn applied<'a>(
    state: &'a PodState,
    desired: &'a DesiredContainer,
    container: &Container,
) -> Option<&'a ResourceRequirements> {
    if let Some(applied) = state.applied.get(&container.id) {
        return applied.as_ref();
    }
    // Until its post-start hook has ended, nothing else is noted of it. What is allocated meanwhile it does not have.
    let starting = state.retry(desired.name()).filter(|retry| retry.start.is_busy() && container.state.is_running());
    if let Some(starting) = starting {
        return starting.given.as_ref();
    }
    let known = state.desired.container_status(desired.name()).filter(|known| {
        let id = known.container_id.as_deref().and_then(|id| id.split_once("://"));
        id.is_some_and(|(_, id)| id == container.id)
    });
    known.and_then(|known| known.resources.as_ref()).or(desired.spec.resources.as_ref())
}

/// Whether a running container has been given something else than is allocated to it.
pub(crate) fn is_needed(state: &PodState, desired: &DesiredContainer, container: &Container) -> bool {
    let (applied, wanted) = (applied(state, desired, container), desired.spec.resources.as_ref());
    // Most often they are the same to the letter.
    applied != wanted && desired.is_resizable() && resizable_amounts(applied) != resizable_amounts(wanted)
}

/// Whether what changes takes effect by a restart of the container only.
pub(crate) fn needs_restart(container: &ApiContainer, applied: Option<&ResourceRequirements>) -> bool {
    let (old, new) = (resizable_amounts(applied), resizable_amounts(container.resources.as_ref()));
    RESIZABLE.iter().zip(old.iter().zip(&new)).filter(|(_, (old, new))| old != new).any(|(name, _)| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|policy| policy.resource_name == *name && policy.restart_policy == "RestartContainer")
    })
}

/// Whether the node can give a pod that has `held` what it asks for, beside pods that have `others` (upstream: `canResizePod`
/// in `pkg/kubelet/allocation/allocation_manager.go`, with its messages). Who asks for no more than before gets it.
pub(crate) fn check(
    held: &Resources,
    asked: &Resources,
    others: &Resources,
    node: Allocatable,
) -> Result<(), Unfinished> {
    let memory = ("memory", held.memory, asked.memory, others.memory, node.memory);
    let cpu = ("cpu", held.milli_cpu, asked.milli_cpu, others.milli_cpu, node.milli_cpu);
    let more = |amounts: &[(&'static str, i64, i64, i64, i64); 2]| {
        let more = amounts.iter().copied().filter(|(_, held, asked, ..)| asked > held);
        more.map(|(name, _, asked, others, capacity)| (name, asked, others, capacity)).collect::<Vec<_>>()
    };
    if let Some((name, asked, _, capacity)) =
        more(&[memory, cpu]).into_iter().find(|(_, asked, _, capacity)| asked > capacity)
    {
        return Err(Unfinished::infeasible(format!(
            "Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"
        )));
    }
    let lacks = |(_, asked, others, capacity): &(&str, i64, i64, i64)| asked.saturating_add(*others) > *capacity;
    match more(&[cpu, memory]).into_iter().find(lacks) {
        Some((name, asked, others, capacity)) => Err(Unfinished::deferred(format!(
            "Node didn't have enough resource: {name}, requested: {asked}, used: {others}, capacity: {capacity}"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::step::Step;
    use crate::testing::World;

    fn container(requests: &Value) -> ApiContainer {
        let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        serde_json::from_value(json!({"name": "c", "resources": {"requests": requests}, "resizePolicy": policy}))
            .expect("a container")
    }

    #[test]
    fn what_a_node_can_give() {
        let node = Allocatable { milli_cpu: 4000, memory: 1000, storage: 0 };
        let amounts = |[milli_cpu, memory]: [i64; 2]| Resources { milli_cpu, memory, ..Resources::default() };
        let check = |asked, others, expect: Result<(), (&str, &str)>| {
            let found = super::check(&amounts([1000, 500]), &amounts(asked), &amounts(others), node);
            let found = found.as_ref().map_err(|why| (why.reason, why.message.as_str()));
            assert_eq!(found.copied(), expect, "{asked:?}");
        };
        check([2000, 600], [2000, 400], Ok(()));
        check(
            [5000, 600],
            [0, 0],
            Err(("Infeasible", "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000")),
        );
        check(
            [1000, 600],
            [9000, 401],
            Err(("Deferred", "Node didn't have enough resource: memory, requested: 600, used: 401, capacity: 1000")),
        );
        // That one could wait for, but not for the other.
        check(
            [5000, 600],
            [0, 500],
            Err(("Infeasible", "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000")),
        );
        check([500, 500], [9000, 9000], Ok(()));
    }

    #[test]
    fn a_restart_where_the_policy_of_what_changes_asks_for_it() {
        let before = container(&json!({"cpu": "1", "memory": "1Ki"})).resources;
        assert!(!needs_restart(&container(&json!({"cpu": "2", "memory": "1024"})), before.as_ref()));
        assert!(needs_restart(&container(&json!({"cpu": "1", "memory": "2Ki"})), before.as_ref()));
    }

    #[test]
    fn a_container_that_is_being_started_has_what_its_start_was_begun_with() {
        let spec =
            |cpu: &str| json!({"containers": [{"name": "a", "image": "x", "resources": {"limits": {"cpu": cpu}}}]});
        let limit = |world: &World| {
            let container = world.state.runtime.latest("a").expect("a container");
            let applied = applied(&world.state, &world.state.desired.containers[0], container)?;
            Some(applied.limits.as_ref()?["cpu"].0.clone())
        };
        let mut world = World::new(spec("1"));
        world.sandbox(0, true);
        let given = world.state.desired.containers[0].spec.resources.clone();
        world.state.retry_mut("a").given = given;
        world.state.retry_mut("a").start = Step::Busy;
        world.container("a", 0, "running");
        // It is resized while its post-start hook runs.
        world.api(|pod| pod.spec = serde_json::from_value(spec("2")).ok());
        assert_eq!(limit(&world).as_deref(), Some("1"));
    }
}
