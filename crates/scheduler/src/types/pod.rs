//! Pods, with what plugins ask of them worked out once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec, WeightedPodAffinityTerm};
use k8s_openapi::jiff::Timestamp;
use machinery::placement::{HostPort, host_ports};
use machinery::selector::LabelSelector;

use super::group::GroupKey;
use crate::resources::{self, Resources};

/// The labels of namespaces, by their names.
pub type Namespaces = HashMap<String, BTreeMap<String, String>>;

/// What is kept of a pod once it is on a node. The object itself is not: ten thousand of them are large.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its unique id.
    pub uid: String,
    /// Counts up when its specification changes, or when it is deleted.
    pub generation: Option<i64>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its priority.
    pub priority: i32,
    /// Since when it runs.
    pub started: Option<Timestamp>,
    /// Whether it was asked to go.
    pub deleting: bool,
    /// The unique id of the ReplicaSet, StatefulSet or ReplicationController that it belongs to.
    pub owner: Option<String>,
    /// What it counts for.
    pub requests: Resources,
    /// Whether it has something else than it asks for, as its status tells.
    pub resizing: bool,
    /// What it is taken to use when nodes are scored.
    pub nonzero: Resources,
    /// Ports of the host that it wants.
    pub host_ports: Vec<HostPort>,
    /// The claims that it mounts: `NAMESPACE/NAME`.
    pub claims: Vec<String>,
    /// Which pods it wants to be near to, and far from.
    pub affinity: Option<Box<PodAffinity>>,
    /// The group that it is to be started with.
    pub group: Option<GroupKey>,
}

impl PodInfo {
    /// Works out what plugins ask of `pod`.
    pub fn new(pod: &Pod) -> Self {
        let (meta, spec) = (&pod.metadata, spec_of(pod));
        let owner = meta.owner_references.iter().flatten().find(|owner| {
            owner.controller == Some(true)
                && matches!(owner.kind.as_str(), "ReplicaSet" | "StatefulSet" | "ReplicationController")
        });
        let namespace = meta.namespace.clone().unwrap_or_default();
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation,
            labels: meta.labels.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            started: pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            deleting: meta.deletion_timestamp.is_some(),
            owner: owner.map(|owner| owner.uid.clone()),
            requests: resources::requests(pod),
            resizing: resources::is_resizing(pod),
            nonzero: resources::nonzero_requests(pod),
            host_ports: host_ports(spec),
            claims: claims(pod, spec, &namespace),
            affinity: PodAffinity::new(spec, &namespace).map(Box::new),
            group: GroupKey::of(pod),
            namespace,
        }
    }

    /// Whether `pod` differs from what is known here. Status updates, the many, do not, unless they tell that a resize was
    /// granted or refused.
    pub fn is_outdated_by(&self, pod: &Pod) -> bool {
        let meta = &pod.metadata;
        self.generation != meta.generation
            || self.deleting != meta.deletion_timestamp.is_some()
            || self.started.is_none() && pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
            || meta.labels.as_ref().map_or(!self.labels.is_empty(), |labels| *labels != self.labels)
            || (self.resizing || resources::is_resizing(pod)) && self.requests != resources::requests(pod)
    }

    /// `NAMESPACE/NAME`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A pod that is to be placed: the whole object beside what is kept of it later.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The object.
    pub pod: Arc<Pod>,
    /// What is worked out of it.
    pub info: Arc<PodInfo>,
}

impl Candidate {
    /// Works out what plugins ask of `pod`.
    pub fn new(pod: Arc<Pod>) -> Self {
        Self { info: Arc::new(PodInfo::new(&pod)), pod }
    }

    /// The pod's specification; an empty one for a pod without, which no API server returns.
    pub fn spec(&self) -> &PodSpec {
        spec_of(&self.pod)
    }

    /// The node that was cleared, or is being cleared, for this pod.
    pub fn nominated(&self) -> Option<&str> {
        let status = self.pod.status.as_ref()?;
        status.nominated_node_name.as_deref().filter(|name| !name.is_empty())
    }
}

impl Deref for Candidate {
    type Target = PodInfo;

    fn deref(&self) -> &PodInfo {
        &self.info
    }
}

fn spec_of(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Which pods a pod wants to be near to, and far from.
#[derive(Debug, Clone, Default)]
pub struct PodAffinity {
    /// It must be near to such pods, by every one of these.
    pub required: Vec<Term>,
    /// It would like to be near to such pods, with weights.
    pub preferred: Vec<(i64, Term)>,
    /// It must be far from such pods.
    pub anti_required: Vec<Term>,
    /// It would like to be far from such pods, with weights.
    pub anti_preferred: Vec<(i64, Term)>,
}

impl PodAffinity {
    fn new(spec: &PodSpec, namespace: &str) -> Option<Self> {
        let affinity = spec.affinity.as_ref()?;
        let plain = |terms: &Option<Vec<PodAffinityTerm>>| -> Vec<Term> {
            terms.iter().flatten().map(|term| Term::new(term, namespace)).collect()
        };
        let weighted = |terms: &Option<Vec<WeightedPodAffinityTerm>>| -> Vec<(i64, Term)> {
            let terms = terms.iter().flatten();
            terms.map(|term| (i64::from(term.weight), Term::new(&term.pod_affinity_term, namespace))).collect()
        };
        let mut all = Self::default();
        if let Some(near) = &affinity.pod_affinity {
            all.required = plain(&near.required_during_scheduling_ignored_during_execution);
            all.preferred = weighted(&near.preferred_during_scheduling_ignored_during_execution);
        }
        if let Some(far) = &affinity.pod_anti_affinity {
            all.anti_required = plain(&far.required_during_scheduling_ignored_during_execution);
            all.anti_preferred = weighted(&far.preferred_during_scheduling_ignored_during_execution);
        }
        let any = !all.required.is_empty()
            || !all.preferred.is_empty()
            || !all.anti_required.is_empty()
            || !all.anti_preferred.is_empty();
        any.then_some(all)
    }
}

/// Some pods, and the label that says which nodes are one place.
#[derive(Debug, Clone)]
pub struct Term {
    /// The pods, by their labels. Label keys to match were merged in by the API server.
    pub selector: LabelSelector,
    /// The namespaces they are looked for in.
    pub namespaces: BTreeSet<String>,
    /// Further namespaces, by their labels.
    pub namespace_selector: Option<LabelSelector>,
    /// Nodes with the same value of this label are one place.
    pub topology_key: String,
}

impl Term {
    fn new(term: &PodAffinityTerm, own_namespace: &str) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(own_namespace.to_owned());
        }
        // What does not parse was let in by no API server; it selects nothing.
        let parse = |selector| LabelSelector::from_object(selector).unwrap_or(const { LabelSelector::nothing() });
        Self {
            selector: parse(term.label_selector.as_ref()),
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|selector| parse(Some(selector))),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether `pod` is one of those meant.
    pub fn matches(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        self.covers(&pod.namespace, namespaces) && self.selector.matches(&pod.labels)
    }

    /// Whether pods of `namespace` may be meant.
    fn covers(&self, namespace: &str, namespaces: &Namespaces) -> bool {
        self.namespaces.contains(namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.matches_option(namespaces.get(namespace)))
    }
}

fn claims(pod: &Pod, spec: &PodSpec, namespace: &str) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(format!("{namespace}/{}", claim.claim_name)),
            // Upstream: the claim of an ephemeral volume is called after pod and volume.
            (None, Some(_)) => Some(format!("{namespace}/{name}-{}", volume.name)),
            _ => None,
        })
        .collect()
}
