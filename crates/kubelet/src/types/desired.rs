//! What is desired: the API's pod, with the questions the plan asks of it already answered.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, EphemeralContainer, Pod, PodSpec, PodStatus};

use machinery::phase::PodPhase;
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

/// The pod as it should be.
#[derive(Debug, Clone)]
pub(crate) struct DesiredPod {
    /// The API's object as last seen.
    pub(crate) pod: Arc<Pod>,
    /// Namespace, name and uid.
    pub(crate) identity: PodIdentity,
    /// Init containers in their order, then the others, ephemeral ones last.
    pub(crate) containers: Vec<DesiredContainer>,
    /// The pod's own restart policy.
    pub(crate) restart_policy: RestartPolicy,
    /// Whether the object no longer exists, so that nobody is left to tell.
    pub(crate) gone: bool,
}

impl DesiredPod {
    /// Reads a pod of the API.
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
        Self { identity, containers, restart_policy, gone: false, pod }
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

    /// The pod's specification; an empty one for an orphan.
    pub(crate) fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
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
