//! The volumes of a pod: claims that are not bound, and what could not be mounted.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodSpec};
use machinery::references::PodReferences;

use crate::common::{last_seen, latest_event};
use crate::explanation::{Explanation, Step};
use crate::meta::{condition, name};
use crate::related::Related;
use crate::words::{list, since};

/// Names the claims that are missing or not bound. Whether there are any that keep it from its containers.
pub(super) fn claims(out: &mut Explanation, spec: &PodSpec, pod: &Pod, related: &Related) -> bool {
    let wanted: Vec<String> = PodReferences::of(pod).claims.into_iter().collect();
    if wanted.is_empty() {
        return false;
    }
    out.wants(format!("the claims {}", list(&wanted)));
    if !related.knows("persistentvolumeclaims") {
        return false;
    }
    let there = related.all::<PersistentVolumeClaim>("persistentvolumeclaims");
    let mut open = false;
    for wanted in wanted {
        let claim = there.iter().find(|claim| claim.metadata.name.as_ref() == Some(&wanted));
        let phase = claim.and_then(|claim| claim.status.as_ref()).and_then(|status| status.phase.as_deref());
        match (claim, phase) {
            (None, _) => {
                open = true;
                out.why(format!("there is no persistentvolumeclaim {wanted}"));
            }
            (Some(_), Some("Bound")) => {}
            (Some(_), phase) => {
                open = true;
                let phase = phase.unwrap_or("Pending");
                out.why(format!("the persistentvolumeclaim {wanted} is {phase}; see: coracle explain pvc/{wanted}"));
            }
        }
    }
    // Before it has a node the scheduler waits for them, too, which is said already.
    if open && spec.node_name.is_some() {
        out.next(Step::new("The kubelet", "mounts its volumes").waits_for("its claims to be bound"));
    }
    open
}

/// The latest failure to mount something, of a pod none of whose containers was started.
pub(super) fn failed(out: &mut Explanation, pod: &Pod, related: &Related, kubelet: &str, now: Timestamp) -> bool {
    let started = pod.status.as_ref().is_some_and(|status| {
        let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        all.any(|one| one.container_id.is_some())
    });
    if started {
        return false;
    }
    let has_sandbox = condition(pod, "PodReadyToStartContainers").is_some_and(|it| it.status == "True");
    let reasons = ["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"];
    let reasons = if has_sandbox { &reasons[..2] } else { &reasons[..] };
    let Some(event) = latest_event(related, "Pod", name(&pod.metadata), reasons) else { return false };
    let seen = last_seen(&event).map(|at| format!(" ({} ago)", since(at, now))).unwrap_or_default();
    let what = match event.reason.as_deref() {
        Some("FailedCreatePodSandBox") => "makes its sandbox again",
        _ => "mounts its volumes again, and starts no container before",
    };
    out.next(Step::new(kubelet, what).waits_for("its next attempt"));
    out.why(format!("{}{seen}", event.message.unwrap_or_default()));
    true
}
