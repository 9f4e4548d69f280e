//! Telling the API server: the binding of a pod, what has to happen before it, or the reason why the pod has to wait.

use std::time::Duration;

use informer::{Informer, ObjectKey};
use k8s_openapi::api::core::v1::{
    Binding, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, Request};
use kube::{Api, Client, Resource};
use machinery::phase::ConditionStatus;
use machinery::well_known::{BOUND_BY_CONTROLLER, SELECTED_NODE};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::storage::{Promise, is_bound};
use crate::types::PodInfo;

/// So long volumes may take to be made and bound: upstream's number.
const VOLUME_PATIENCE: Duration = Duration::from_secs(600);

/// Why a pod was not bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The API server refused, or could not be asked.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// Its volumes did not come.
    #[error("binding volumes: {0}")]
    Volumes(String),
}

/// Binds `pod` to `node`: `POST .../pods/NAME/binding`.
pub(crate) async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            // A pod that was replaced by another of the same name meanwhile is not the one that was decided on.
            uid: Some(pod.uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some(Node::kind(&()).into_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let body = serde_json::to_vec(&binding).map_err(kube::Error::SerdeError)?;
    let request = Request::new(Pod::url_path(&(), Some(&pod.namespace)));
    let request = request.create_subresource("binding", &pod.name, &PostParams::default(), body);
    // The answer is a Status, of which only the code is of interest.
    let _: IgnoredAny = client.request(request.map_err(kube::Error::BuildRequest)?).await?;
    Ok(())
}

/// Does what was promised for the pod's claims, and waits until all of them are bound.
pub(crate) async fn keep_promises(
    client: &Client,
    claims: &Informer<PersistentVolumeClaim>,
    mut changes: watch::Receiver<()>,
    promises: &[Promise],
    node: &str,
) -> Result<(), BindError> {
    for promise in promises {
        match promise {
            Promise::Provision { claim } => {
                let (namespace, name) = claim.split_once('/').unwrap_or(("", claim));
                let patch = json!({ "metadata": { "annotations": { SELECTED_NODE: node } } });
                let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            Promise::Volume { volume, claim } => {
                let (namespace, name) = claim.split_once('/').unwrap_or(("", claim));
                let known = claims.get(&ObjectKey::new(namespace, name));
                let uid = known.and_then(|known| known.metadata.uid.clone());
                let reference = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": namespace, "name": name, "uid": uid });
                let patch = json!({
                    "metadata": { "annotations": { BOUND_BY_CONTROLLER: "yes" } },
                    "spec": { "claimRef": reference },
                });
                let api: Api<PersistentVolume> = Api::all(client.clone());
                api.patch(volume, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
        }
    }
    let deadline = tokio::time::Instant::now() + VOLUME_PATIENCE;
    // The annotation just written may not have come back yet, so only one that was seen can have been taken away.
    let mut seen = vec![false; promises.len()];
    loop {
        changes.borrow_and_update();
        let mut all = true;
        for (promise, seen) in promises.iter().zip(&mut seen) {
            let (Promise::Volume { claim: key, .. } | Promise::Provision { claim: key }) = promise;
            let (namespace, name) = key.split_once('/').unwrap_or(("", key));
            let Some(claim) = claims.get(&ObjectKey::new(namespace, name)) else {
                return Err(BindError::Volumes(format!("persistentvolumeclaim \"{name}\" not found")));
            };
            if is_bound(&claim) {
                continue;
            }
            all = false;
            let annotations = claim.metadata.annotations.as_ref();
            let selected = annotations.is_some_and(|annotations| annotations.contains_key(SELECTED_NODE));
            if *seen && !selected && matches!(promise, Promise::Provision { .. }) {
                return Err(BindError::Volumes(format!("provisioning failed for PVC \"{name}\"")));
            }
            *seen |= selected;
        }
        if all {
            return Ok(());
        }
        match tokio::time::timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(BindError::Volumes("the scheduler stops".to_owned())),
            Err(_) => return Err(BindError::Volumes("timed out waiting for the condition".to_owned())),
        }
    }
}

/// What becomes of `status.nominatedNodeName`, the node that is being cleared for a pod (upstream: `NominatingInfo` in
/// `pkg/scheduler/framework/interface.go`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Nomination {
    /// It stays as it is: the pods that were preempted are still leaving.
    Keep,
    /// This node is being cleared.
    Set(String),
    /// None is being cleared any more.
    Clear,
}

/// Writes into the pod's status that it cannot be scheduled, unless it says so already.
pub(crate) async fn report_unschedulable(
    client: &Client,
    pod: &Pod,
    message: &str,
    nomination: &Nomination,
) -> Result<(), kube::Error> {
    let status = pod.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let old = conditions.find(|condition| condition.type_ == "PodScheduled");
    let told = old.is_some_and(|old| old.status == ConditionStatus::False && old.message.as_deref() == Some(message));
    let known = status.and_then(|status| status.nominated_node_name.as_deref());
    let nominated = match nomination {
        Nomination::Keep => known,
        Nomination::Set(node) => Some(node.as_str()),
        Nomination::Clear => None,
    };
    if told && nominated == known {
        return Ok(());
    }
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: ConditionStatus::False.to_string(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.to_owned()),
        observed_generation: pod.metadata.generation,
        last_transition_time: old
            .filter(|old| old.status == ConditionStatus::False)
            .and_then(|old| old.last_transition_time.clone())
            .or_else(|| Some(now())),
        ..PodCondition::default()
    };
    // Conditions merge by their type, so those of others stay.
    let mut patch = json!({
        "metadata": { "uid": pod.metadata.uid },
        "status": { "conditions": [condition] },
    });
    if nominated != known {
        patch["status"]["nominatedNodeName"] = nominated.map_or(Value::Null, Value::from);
    }
    patch_status(client, pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref(), patch).await
}

/// Ends a pod that has to make room: says why in its status, and deletes it.
pub(crate) async fn evict(client: &Client, victim: &PodInfo, scheduler: &str) -> Result<(), kube::Error> {
    let patch = json!({
        "metadata": { "uid": victim.uid },
        "status": { "conditions": [{
            "type": "DisruptionTarget", "status": ConditionStatus::True.as_str(), "reason": "PreemptionByScheduler",
            "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
            "lastTransitionTime": now(), "observedGeneration": victim.generation,
        }] },
    });
    patch_status(client, Some(&victim.namespace), Some(&victim.name), patch).await?;
    let params =
        DeleteParams::default().preconditions(Preconditions { uid: Some(victim.uid.clone()), resource_version: None });
    let request = Request::new(Pod::url_path(&(), Some(&victim.namespace))).delete(&victim.name, &params);
    let _: IgnoredAny = client.request(request.map_err(kube::Error::BuildRequest)?).await?;
    Ok(())
}

async fn patch_status(
    client: &Client,
    namespace: Option<&str>,
    name: Option<&str>,
    patch: Value,
) -> Result<(), kube::Error> {
    let request = Request::new(Pod::url_path(&(), namespace)).patch_subresource(
        "status",
        name.unwrap_or_default(),
        &PatchParams::default(),
        &Patch::Strategic(patch),
    );
    let _: IgnoredAny = client.request(request.map_err(kube::Error::BuildRequest)?).await?;
    Ok(())
}

fn now() -> Time {
    Time(Timestamp::now())
}
