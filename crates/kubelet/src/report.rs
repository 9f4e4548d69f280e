//! Events about pods, containers and the node.

use informer::{EventType, Recorder};
use k8s_openapi::api::core::v1::ObjectReference;

use crate::types::desired::DesiredPod;

/// Writes the kubelet's events.
#[derive(Clone)]
pub(crate) struct Reporter {
    recorder: Recorder,
    node: ObjectReference,
}

impl Reporter {
    /// Events of the node called `node`.
    pub(crate) fn new(recorder: Recorder, node: &str) -> Self {
        let node = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            // Upstream's kubelet uses the name here: it reports before it knows the uid.
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        Self { recorder, node }
    }

    /// An event of the node.
    pub(crate) fn node(&self, reason: &str, message: &str) {
        self.recorder.event(&self.node, EventType::Normal, reason, message);
    }

    /// A bad event of the node.
    pub(crate) fn node_warning(&self, reason: &str, message: &str) {
        self.recorder.event(&self.node, EventType::Warning, reason, message);
    }

    /// An event of a pod, or of its container with this name.
    pub(crate) fn pod(&self, desired: &DesiredPod, container: Option<&str>, reason: &str, message: &str) {
        self.event(desired, container, EventType::Normal, reason, message);
    }

    /// A bad event of a pod, or of its container with this name.
    pub(crate) fn pod_warning(&self, desired: &DesiredPod, container: Option<&str>, reason: &str, message: &str) {
        self.event(desired, container, EventType::Warning, reason, message);
    }

    fn event(&self, desired: &DesiredPod, container: Option<&str>, type_: EventType, reason: &str, message: &str) {
        // Nobody looks for events of a pod that is not there.
        if desired.spec().is_none() {
            return;
        }
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(desired.identity.namespace.clone()),
            name: Some(desired.identity.name.clone()),
            uid: Some(desired.identity.uid.clone()),
            field_path: container
                .and_then(|name| desired.container(name))
                .map(crate::types::desired::DesiredContainer::field_path),
            ..ObjectReference::default()
        };
        self.recorder.event(&about, type_, reason, message);
    }
}
