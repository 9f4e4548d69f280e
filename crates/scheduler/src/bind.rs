//! Telling the API server: the binding of a pod, or the reason why it has to wait.

use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;

/// Binds `pod` to `node`: `POST .../pods/NAME/binding`.
pub(crate) async fn bind(client: &Client, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let meta = &pod.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let binding = Binding {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            // A pod that was replaced by another of the same name meanwhile is not the one that was decided on.
            uid: meta.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some(Node::kind(&()).into_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api = pods(client, pod);
    // The answer is a Status, of which only the code is of interest.
    let _: serde_json::Value = api.create_subresource("binding", &name, &PostParams::default(), &binding).await?;
    Ok(())
}

/// Writes into the pod's status that it cannot be scheduled, unless it says so already.
pub(crate) async fn report_unschedulable(client: &Client, pod: &Pod, message: &str) -> Result<(), kube::Error> {
    let status = pod.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let old = conditions.find(|condition| condition.type_ == "PodScheduled");
    if old.is_some_and(|old| old.status == "False" && old.message.as_deref() == Some(message)) {
        return Ok(());
    }
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.to_owned()),
        observed_generation: pod.metadata.generation,
        last_transition_time: old
            .filter(|old| old.status == "False")
            .and_then(|old| old.last_transition_time.clone())
            .or_else(|| Some(Time(Timestamp::now()))),
        ..PodCondition::default()
    };
    // Conditions merge by their type, so those of others stay.
    let patch = json!({
        "metadata": { "uid": pod.metadata.uid },
        "status": { "conditions": [condition] },
    });
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    pods(client, pod).patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

fn pods(client: &Client, pod: &Pod) -> Api<Pod> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    Api::namespaced(client.clone(), namespace)
}
