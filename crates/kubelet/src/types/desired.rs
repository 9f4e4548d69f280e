//! What is desired: the API's pod, with the questions the plan asks of it already answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, EphemeralContainer, Pod, PodSpec, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::phase::PodPhase;
use machinery::quantity::Quantity;
use runtime::PodIdentity;

use super::failure::EVICTED;
use crate::time::after;

/// Which part a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerKind {
    /// Runs to its end before the next container starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs as long as the pod.
    Sidecar,
    /// An ordinary container.
    App,
    /// Added to a running pod by a person who looks for something; never started again.
    Ephemeral,
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    /// Whenever it ended.
    Always,
    /// When it failed.
    OnFailure,
    /// Never.
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

/// One container of the pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DesiredContainer {
    /// Its part.
    pub(crate) kind: ContainerKind,
    /// Hash of what makes a new container necessary when it changes.
    pub(crate) hash: String,
    /// The API's words.
    pub(crate) spec: Container,
    /// Of an ephemeral container: the container whose processes it sees.
    pub(crate) target: Option<String>,
    policy: RestartPolicy,
}

impl DesiredContainer {
    fn ephemeral(container: &EphemeralContainer) -> Self {
        let spec = machinery::ephemeral::as_container(container);
        let target = container.target_container_name.clone().filter(|name| !name.is_empty());
        Self { kind: ContainerKind::Ephemeral, hash: container_hash(&spec), spec, target, policy: RestartPolicy::Never }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// Whether it can have other resources while its pod lives.
    pub(crate) fn is_resizable(&self) -> bool {
        matches!(self.kind, ContainerKind::App | ContainerKind::Sidecar)
    }

    /// Whether it is to be started again after it ended with `exit_code`.
    pub(crate) fn restarts_after(&self, exit_code: i32) -> bool {
        let rules = self.spec.restart_policy_rules.iter().flatten();
        for rule in rules.filter(|rule| rule.action == "Restart") {
            let Some(exit_codes) = &rule.exit_codes else {
                continue;
            };
            let listed = exit_codes.values.as_ref().is_some_and(|values| values.contains(&exit_code));
            if listed == (exit_codes.operator == "In") {
                return true;
            }
        }
        match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }

    /// The object reference's `fieldPath` in events about it.
    pub(crate) fn field_path(&self) -> String {
        let list = match self.kind {
            ContainerKind::App => "containers",
            ContainerKind::Ephemeral => "ephemeralContainers",
            ContainerKind::Init | ContainerKind::Sidecar => "initContainers",
        };
        format!("spec.{list}{{{}}}", self.name())
    }
}

/// What can be resized.
pub(crate) const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Requests and limits of what can be resized, in the order of [`RESIZABLE`].
pub(crate) fn resizable_amounts(resources: Option<&ResourceRequirements>) -> [[Option<Quantity>; 2]; 2] {
    RESIZABLE.map(|name| {
        let of = |amounts: Option<&BTreeMap<String, ApiQuantity>>| amounts?.get(name)?.0.parse().ok();
        [of(resources.and_then(|all| all.requests.as_ref())), of(resources.and_then(|all| all.limits.as_ref()))]
    })
}

/// By name of container: the resources that the node has allocated to it.
pub(crate) type Allocated = BTreeMap<String, Option<ResourceRequirements>>;

/// What the node had allocated to containers of `pod` when it wrote the status that the API has. That is where a kubelet
/// that starts learns of it (upstream keeps a file: `pkg/kubelet/allocation/state`).
pub(crate) fn allocated_in_status(pod: &Pod) -> Allocated {
    let status = pod.status.as_ref();
    let apps = status.and_then(|status| status.container_statuses.as_ref());
    let inits = status.and_then(|status| status.init_container_statuses.as_ref());
    let statuses = apps.into_iter().chain(inits).flatten();
    let spec = pod.spec.as_ref();
    let asked = |name: &str| {
        let containers = spec.map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        containers.into_iter().flatten().find(|container| container.name == name)?.resources.as_ref()
    };
    let of = |status: &ContainerStatus| {
        // Of a container that was never made it says nothing, unless that has something else than it asks for.
        let given = status.resources.as_ref()?;
        // The status tells of requests only. A resize that was allocated and not carried out yet is the one asked for.
        let allocated = some(status.allocated_resources.as_ref());
        let asked = asked(&status.name).filter(|asked| some(asked.requests.as_ref()) == allocated);
        Some((status.name.clone(), Some(asked.unwrap_or(given).clone())))
    };
    statuses.filter_map(of).collect()
}

/// Amounts, if there are any: where none are allocated the API has no list.
fn some(amounts: Option<&BTreeMap<String, ApiQuantity>>) -> Option<&BTreeMap<String, ApiQuantity>> {
    amounts.filter(|amounts| !amounts.is_empty())
}

/// The pod as it should be.
#[derive(Debug, Clone)]
pub(crate) struct DesiredPod {
    /// The API's object as last seen.
    pub(crate) pod: Arc<Pod>,
    /// Namespace, name and uid.
    pub(crate) identity: PodIdentity,
    /// Init containers in their order, then the others, ephemeral ones last; with what the node has allocated to them.
    pub(crate) containers: Vec<DesiredContainer>,
    /// The pod's own restart policy.
    pub(crate) restart_policy: RestartPolicy,
    /// Whether the object no longer exists, so that nobody is left to tell.
    pub(crate) gone: bool,
    /// The pod with what the node has allocated to its containers, where that is not what they ask for.
    allocated: Option<Arc<Pod>>,
}

impl DesiredPod {
    /// Reads a pod of the API. Containers have what they ask for.
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let restart_policy = RestartPolicy::parse(spec.restart_policy.as_deref());
        let init = spec.init_containers.iter().flatten().map(|container| {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            let (kind, policy) = match (sidecar, restart_policy) {
                (true, _) => (ContainerKind::Sidecar, RestartPolicy::Always),
                // An init container that succeeded is done, whatever the pod's policy.
                (false, RestartPolicy::Always) => (ContainerKind::Init, RestartPolicy::OnFailure),
                (false, policy) => (ContainerKind::Init, policy),
            };
            (container, kind, policy)
        });
        let apps = spec.containers.iter().map(|container| {
            let policy = container.restart_policy.as_deref();
            let policy = policy.map_or(restart_policy, |policy| RestartPolicy::parse(Some(policy)));
            (container, ContainerKind::App, policy)
        });
        let containers = init
            .chain(apps)
            .map(|(spec, kind, policy)| DesiredContainer {
                kind,
                hash: container_hash(spec),
                spec: spec.clone(),
                target: None,
                policy,
            })
            .chain(spec.ephemeral_containers.iter().flatten().map(DesiredContainer::ephemeral))
            .collect();
        let identity = PodIdentity {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        };
        Self { identity, containers, restart_policy, gone: false, allocated: None, pod }
    }

    /// The same pod, whose containers have what the node has allocated to them (upstream: `UpdatePodFromAllocation` in
    /// `pkg/kubelet/allocation/allocation_manager.go`).
    pub(crate) fn with_allocated(mut self, allocated: &Allocated) -> Self {
        let mut differs = false;
        for container in self.containers.iter_mut().filter(|container| container.is_resizable()) {
            let Some(held) = allocated.get(container.name()) else { continue };
            let asked = &container.spec.resources;
            // Most often they are the same to the letter.
            if held == asked || resizable_amounts(held.as_ref()) == resizable_amounts(asked.as_ref()) {
                continue;
            }
            container.spec.resources.clone_from(held);
            differs = true;
        }
        self.allocated = differs.then(|| {
            let mut pod = Pod::clone(&self.pod);
            if let Some(spec) = &mut pod.spec {
                for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                    if let Some(desired) = self.container(&container.name) {
                        container.resources.clone_from(&desired.spec.resources);
                    }
                }
            }
            Arc::new(pod)
        });
        self
    }

    /// What the node has allocated to containers.
    pub(crate) fn allocated(&self) -> Allocated {
        let containers = self.containers.iter().filter(|container| container.is_resizable());
        containers.map(|container| (container.name().to_owned(), container.spec.resources.clone())).collect()
    }

    /// Whether containers ask for other resources than the node has allocated to them.
    pub(crate) fn has_unallocated_resize(&self) -> bool {
        self.allocated.is_some()
    }

    /// What is desired of containers of a pod that the API does not know: to be rid of them.
    pub(crate) fn orphan(identity: &PodIdentity) -> Self {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some(identity.namespace.clone());
        pod.metadata.name = Some(identity.name.clone());
        pod.metadata.uid = Some(identity.uid.clone());
        // Upstream gives containers of unknown pods one second.
        pod.metadata.deletion_grace_period_seconds = Some(1);
        Self { gone: true, ..Self::new(Arc::new(pod)) }
    }

    /// The pod's specification, with what the node has allocated to its containers; none for an orphan.
    pub(crate) fn spec(&self) -> Option<&PodSpec> {
        self.allocated_pod().spec.as_ref()
    }

    /// The API's object, with what the node has allocated to its containers.
    pub(crate) fn allocated_pod(&self) -> &Pod {
        self.allocated.as_ref().unwrap_or(&self.pod)
    }

    /// The status as last seen in the API.
    pub(crate) fn status(&self) -> Option<&PodStatus> {
        self.pod.status.as_ref()
    }

    /// The status of container `name` as last seen in the API.
    pub(crate) fn container_status(&self, name: &str) -> Option<&ContainerStatus> {
        let status = self.status()?;
        let inits = status.init_container_statuses.iter().flatten();
        let others = status.container_statuses.iter().chain(&status.ephemeral_container_statuses).flatten();
        inits.chain(others).find(|status| status.name == name)
    }

    /// The container called `name`.
    pub(crate) fn container(&self, name: &str) -> Option<&DesiredContainer> {
        self.containers.iter().find(|container| container.name() == name)
    }

    /// The ordinary containers.
    pub(crate) fn apps(&self) -> impl Iterator<Item = &DesiredContainer> {
        self.containers.iter().filter(|container| container.kind == ContainerKind::App)
    }

    /// The init containers, sidecars among them, in their order.
    pub(crate) fn inits(&self) -> impl Iterator<Item = &DesiredContainer> {
        self.containers
            .iter()
            .filter(|container| matches!(container.kind, ContainerKind::Init | ContainerKind::Sidecar))
    }

    /// The init containers that run to their end before others start.
    pub(crate) fn inits_to_end(&self) -> impl Iterator<Item = &DesiredContainer> {
        self.containers.iter().filter(|container| container.kind == ContainerKind::Init)
    }

    /// The ephemeral containers.
    pub(crate) fn ephemerals(&self) -> impl Iterator<Item = &DesiredContainer> {
        self.containers.iter().filter(|container| container.kind == ContainerKind::Ephemeral)
    }

    /// Whether somebody asked for the pod's end, or it is gone already.
    pub(crate) fn deleting(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether the API's status says that the pod has ended for good; it never comes back from there.
    pub(crate) fn ended(&self) -> bool {
        PodPhase::of(&self.pod).is_some_and(PodPhase::is_terminal)
    }

    /// Whether the API's status says that the pod was evicted.
    pub(crate) fn evicted(&self) -> bool {
        self.ended() && self.status().is_some_and(|status| status.reason.as_deref() == Some(EVICTED))
    }

    /// How long containers have between the polite signal and the kill: what the deletion asked for, else what the
    /// specification says, and never less than a second.
    pub(crate) fn grace(&self) -> Duration {
        let deletion = self.pod.metadata.deletion_grace_period_seconds;
        let spec = self.spec().and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = deletion.filter(|seconds| *seconds > 0).or(spec).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
    }

    /// When `activeDeadlineSeconds` is over, for a pod that started at `start`.
    pub(crate) fn deadline(&self, start: Timestamp) -> Option<Timestamp> {
        let seconds = self.spec()?.active_deadline_seconds?;
        Some(after(start, Duration::from_secs(u64::try_from(seconds).ok()?)))
    }

    /// `NAME_NAMESPACE(UID)`, the form of upstream's messages.
    pub(crate) fn describe(&self) -> String {
        let PodIdentity { namespace, name, uid } = &self.identity;
        format!("{name}_{namespace}({uid})")
    }
}

/// Upstream hashes what can change in a running pod and needs a new container: the name and the image. FNV-32a of both,
/// so that a later version of this program, which may know more fields, restarts nothing.
fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let bytes = container.name.bytes().chain([0]).chain(image.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(asked: &str, status: &Value) -> Arc<Pod> {
        let container = json!({"name": "a", "resources": {"requests": {"cpu": asked}}});
        let init = json!({"name": "i", "resources": {"requests": {"cpu": "9"}}});
        let spec = json!({"containers": [container], "initContainers": [init]});
        Arc::new(serde_json::from_value(json!({"spec": spec, "status": status})).unwrap())
    }

    fn status(given: &str, allocated: &str) -> Value {
        json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "resources": {"requests": {"cpu": given}}, "allocatedResources": {"cpu": allocated}}]})
    }

    fn cpu(container: &Container) -> String {
        container.resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0.clone()
    }

    #[test]
    fn containers_have_what_the_node_has_allocated() {
        let check = |asked: &str, status: &Value, expect: &str| {
            let pod = pod(asked, status);
            let desired = DesiredPod::new(Arc::clone(&pod)).with_allocated(&allocated_in_status(&pod));
            assert_eq!(cpu(&desired.container("a").unwrap().spec), expect, "{asked} {status}");
            assert_eq!(cpu(&desired.spec().unwrap().containers[0]), expect, "{asked} {status}");
            assert_eq!(cpu(&desired.spec().unwrap().init_containers.as_ref().unwrap()[0]), "9");
            assert_eq!(desired.has_unallocated_resize(), expect != asked, "{asked} {status}");
            // What the API says next does not change it.
            let next = DesiredPod::new(Arc::clone(&pod)).with_allocated(&desired.allocated());
            assert_eq!(next.containers, desired.containers);
        };
        check("1", &json!({}), "1");
        check("1", &status("1", "1"), "1");
        check("1", &status("1000m", "1000m"), "1");
        check("2", &status("1", "1"), "1");
        // It was allocated, and was yet to be carried out.
        check("2", &status("1", "2"), "2");

        // It was never made.
        let mut bare = status("1", "1");
        let of_container = bare["containerStatuses"][0].as_object_mut().unwrap();
        of_container.remove("resources");
        of_container.remove("allocatedResources");
        check("2", &bare, "2");
        // It was made when it asked for nothing.
        bare["containerStatuses"][0]["resources"] = json!({});
        let pod = pod("2", &bare);
        let desired = DesiredPod::new(Arc::clone(&pod)).with_allocated(&allocated_in_status(&pod));
        assert!(desired.has_unallocated_resize());
        assert_eq!(desired.container("a").unwrap().spec.resources, Some(ResourceRequirements::default()));
    }
}
