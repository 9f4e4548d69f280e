//! The pods of the node, as `/pods` and `/runningpods` tell them.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use streaming::{NodeError, NodePod, PodRef};

use crate::pod::View;
use crate::types::desired::DesiredPod;
use crate::types::observed::Observed;

/// What can be asked about a pod that is bound to the node.
pub(super) fn node_pod(desired: &DesiredPod) -> NodePod {
    let identity = &desired.identity;
    NodePod {
        pod: PodRef { namespace: identity.namespace.clone(), name: identity.name.clone(), uid: identity.uid.clone() },
        containers: desired.containers.iter().map(|container| container.name().to_owned()).collect(),
    }
}

/// The objects of pods that the API knows, as it has them (upstream: `GetPods` in `pkg/kubelet/kubelet_pods.go`).
pub(super) fn bound(views: &[View]) -> Result<Vec<Value>, NodeError> {
    let known = views.iter().filter(|view| !view.desired.gone);
    known.map(|view| object(&view.desired.pod).map_err(|error| NodeError::Internal(error.to_string()))).collect()
}

/// An item of a list, which does not repeat what the list says of all.
fn object(pod: &Pod) -> serde_json::Result<Value> {
    let mut object = serde_json::to_value(pod)?;
    if let Some(fields) = object.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    Ok(object)
}

/// A pod of which something runs, whether or not the API knows it; `None` of one that has ended (upstream:
/// `GetRunningPods` in `pkg/kubelet/kubelet_pods.go`, `ToAPIPod` in `pkg/kubelet/container/runtime.go`).
pub(super) fn running(pod: &runtime::PodIdentity, observed: &Observed) -> Option<Value> {
    let containers = observed
        .running()
        .map(|container| json!({ "name": container.name, "image": container.image, "resources": {} }));
    let containers: Vec<Value> = containers.collect();
    let runs = !containers.is_empty() || observed.ready_sandbox().is_some();
    let runtime::PodIdentity { namespace, name, uid } = pod;
    let metadata = json!({ "name": name, "namespace": namespace, "uid": uid });
    runs.then(|| json!({ "metadata": metadata, "spec": { "containers": containers }, "status": {} }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::World;

    #[test]
    fn what_is_bound_and_what_runs() {
        let spec =
            json!({ "initContainers": [{ "name": "first" }], "containers": [{ "name": "main", "image": "nginx" }] });
        let mut world = World::new(spec);
        let identity = world.state.desired.identity.clone();
        let found = node_pod(&world.state.desired);
        assert_eq!((found.pod.name.as_str(), found.pod.uid.as_str()), ("web", "u"));
        assert_eq!(found.containers, ["first", "main"]);
        let view = |desired: Arc<DesiredPod>| View {
            desired,
            runtime: Arc::default(),
            status: Arc::default(),
            ending: false,
            torn_down: false,
        };
        let orphan = Arc::new(DesiredPod::orphan(&identity));
        let pods = bound(&[view(Arc::clone(&world.state.desired)), view(orphan)]).unwrap();
        assert_eq!(pods.len(), 1, "the API does not know an orphan");
        assert_eq!((&pods[0]["metadata"]["name"], pods[0].get("kind")), (&json!("web"), None));

        assert_eq!(running(&identity, &world.state.runtime), None);
        world.sandbox(0, true).container("first", 0, "exited 0").container("main", 0, "running");
        let pod = running(&identity, &world.state.runtime).unwrap();
        let names: Vec<&Value> = pod["spec"]["containers"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["main"]);
    }
}
