//! Events about pods, containers and the node.

use informer::{EventType, Recorder};
use k8s_openapi::api::core::v1::ObjectReference;

use crate::pod::wish::PodWish;

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

    /// An event of a pod, or of its container with this name.
    pub(crate) fn pod(&self, wish: &PodWish, container: Option<&str>, reason: &str, message: &str) {
        self.event(wish, container, EventType::Normal, reason, message);
    }

    /// A bad event of a pod, or of its container with this name.
    pub(crate) fn pod_warning(&self, wish: &PodWish, container: Option<&str>, reason: &str, message: &str) {
        self.event(wish, container, EventType::Warning, reason, message);
    }

    fn event(&self, wish: &PodWish, container: Option<&str>, type_: EventType, reason: &str, message: &str) {
        // Nobody looks for events of a pod that is not there.
        if wish.spec().is_none() {
            return;
        }
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(wish.identity.namespace.clone()),
            name: Some(wish.identity.name.clone()),
            uid: Some(wish.identity.uid.clone()),
            field_path: container
                .and_then(|name| wish.container(name))
                .map(crate::pod::wish::ContainerWish::field_path),
            ..ObjectReference::default()
        };
        self.recorder.event(&about, type_, reason, message);
    }
}
