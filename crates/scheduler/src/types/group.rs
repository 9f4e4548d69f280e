//! Which pod group a pod belongs to, by its label or annotation.

use k8s_openapi::api::core::v1::Pod;

const LABELS: [&str; 3] =
    ["scheduling.x-k8s.io/pod-group", "pod-group.scheduling.sigs.k8s.io/name", "pod-group.scheduling.sigs.k8s.io"];
const ANNOTATION: &str = "scheduling.k8s.io/group-name";

/// The two kinds of PodGroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// scheduling.x-k8s.io/v1alpha1, of the coscheduling plugin.
    Coscheduling,
    /// scheduling.volcano.sh/v1beta1.
    Volcano,
}

/// Which group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// Of which kind.
    pub family: Family,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl GroupKey {
    /// The group that `pod` names.
    pub fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let labelled = LABELS.iter().find_map(|label| meta.labels.as_ref()?.get(*label));
        let annotated = meta.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
        let (family, name) = match (labelled, annotated) {
            (Some(name), _) => (Family::Coscheduling, name),
            (None, Some(name)) => (Family::Volcano, name),
            (None, None) => return None,
        };
        let namespace = meta.namespace.clone().unwrap_or_default();
        (!name.is_empty()).then(|| Self { family, namespace, name: name.clone() })
    }
}

impl std::fmt::Display for GroupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
