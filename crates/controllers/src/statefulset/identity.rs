//! What makes the Pod of an ordinal the same one for ever: its name, host name, labels and claims.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::history::POD_REVISION;
use crate::meta;
use crate::owner::Owner;
use crate::pod_control;

/// The label with the Pod's name.
pub(crate) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label with the Pod's ordinal.
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The Pod with this ordinal, of the revision called `revision` with the template `template`.
pub(crate) fn pod(
    owner: &Owner,
    spec: &StatefulSetSpec,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let mut pod = pod_control::from_template(template, owner, format!("{}-", owner.name()));
    let name = format!("{}-{ordinal}", owner.name());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_REVISION.to_owned(), revision.to_owned());
    labels.extend(identity_labels(&name, ordinal));
    let body = pod.spec.get_or_insert_default();
    body.hostname = Some(name.clone());
    body.subdomain.clone_from(&spec.service_name);
    let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
    if !templates.is_empty() {
        let mounted = |volume: &Volume| templates.iter().any(|template| meta::name(template) == volume.name);
        let volumes = body.volumes.get_or_insert_default();
        // Upstream: a claim stands in for a volume of the template that has its name.
        volumes.retain(|volume| !mounted(volume));
        volumes.extend(templates.iter().map(|template| volume(meta::name(template), &name)));
    }
    pod.metadata.name = Some(name);
    pod
}

fn volume(template: &str, pod: &str) -> Volume {
    Volume {
        name: template.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(template, pod),
            // Upstream: the claim is made for writing, whatever the mount says.
            read_only: None,
        }),
        ..Volume::default()
    }
}

/// The labels by which a Pod says who it is.
pub(crate) fn identity_labels(name: &str, ordinal: i32) -> [(String, String); 2] {
    [(POD_NAME.to_owned(), name.to_owned()), (POD_INDEX.to_owned(), ordinal.to_string())]
}

/// Whether `pod` says who it is.
pub(crate) fn has_identity(pod: &Pod) -> bool {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_NAME));
    label.map(String::as_str) == pod.metadata.name.as_deref()
}

fn claim_name(template: &str, pod: &str) -> String {
    format!("{template}-{pod}")
}

/// The claims of the Pod called `pod`, as they are to be created.
pub(crate) fn claims(set: &StatefulSet, owner: &Owner, pod: &str) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let selected = spec.selector.match_labels.clone().unwrap_or_default();
    let claim = |template: &PersistentVolumeClaim| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(selected.clone());
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(claim_name(meta::name(template), pod)),
                namespace: Some(owner.key.namespace.clone()),
                labels: Some(labels).filter(|labels: &BTreeMap<_, _>| !labels.is_empty()),
                annotations: template.metadata.annotations.clone(),
                owner_references: Retention::of(spec).deleted.then(|| vec![owner.controller.clone()]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    };
    spec.volume_claim_templates.iter().flatten().map(claim).collect()
}

/// Whether claims go with what they were made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// With the set.
    pub(crate) deleted: bool,
    /// With a Pod that scaling down removes.
    pub(crate) scaled: bool,
}

impl Retention {
    /// The policy of a set.
    pub(crate) fn of(spec: &StatefulSetSpec) -> Self {
        let policy = spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |word: Option<&String>| word.is_some_and(|word| word == "Delete");
        Self {
            deleted: deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
            scaled: deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
        }
    }

    /// The owner references of a claim of `pod` under this policy; nothing if they are right as they are. `condemned`
    /// says whether the set no longer has the Pod's ordinal.
    pub(crate) fn owners(
        self,
        owner: &Owner,
        claim: &PersistentVolumeClaim,
        pod: &Pod,
        condemned: bool,
    ) -> Option<Vec<OwnerReference>> {
        let of_pod = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: meta::name(pod).to_owned(),
            uid: meta::uid(pod).to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        };
        let wanted = match (self.scaled && condemned, self.deleted) {
            (true, _) => Some(&of_pod),
            (false, true) => Some(&owner.controller),
            (false, false) => None,
        };
        let now = claim.metadata.owner_references.as_deref().unwrap_or_default();
        let ours = |reference: &&OwnerReference| {
            reference.uid == owner.uid() || (reference.kind == "Pod" && reference.name == of_pod.name)
        };
        // Somebody else controls the claim: upstream leaves such a one alone.
        if now.iter().any(|reference| reference.controller == Some(true) && !ours(&reference)) {
            return None;
        }
        let has: Vec<&str> = now.iter().filter(ours).map(|reference| reference.uid.as_str()).collect();
        let wants: Vec<&str> = wanted.iter().map(|reference| reference.uid.as_str()).collect();
        if has == wants {
            return None;
        }
        let others = now.iter().filter(|reference| !ours(reference)).cloned();
        Some(others.chain(wanted.cloned()).collect())
    }
}

/// Whether `claim` belongs to an earlier Pod of the name `pod`, which does not exist now, and will go with it.
pub(crate) fn is_stale(claim: &PersistentVolumeClaim, pod: &str) -> bool {
    pod_owners(claim).any(|name| name == pod)
}

/// The Pods that `claim` goes with.
pub(crate) fn pod_owners(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let owners = claim.metadata.owner_references.iter().flatten();
    owners.filter(|owner| owner.kind == "Pod").map(|owner| owner.name.as_str())
}
