//! The admission plugin `LeaderWorkerSet`: what a Pod of a set is told about its group when it is created: labels, environment,
//! affinity.
//!
//! The LeaderWorkerSet project does this in a mutating webhook; here the controller is built in, and so is this. A Pod that
//! none of its StatefulSets made is left alone, and so is every Pod while the addon is off: then the sets, if there are
//! any, are those of the project's own controller, which has its webhook.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Affinity, Container, EnvVar, Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use kube::CustomResourceExt;
use machinery::hash::fnv32a;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, PODS, object_of_mut};
use registry::custom::CRDS;
use registry::object::Object;
use registry::optional::{entry, text};
use serde::Deserialize;

use crate::api::LeaderWorkerSet;
use crate::labels::{
    EXCLUSIVE, GROUP_INDEX, GROUP_KEY, LEADER_NAME, NAME, SIZE, SUBDOMAIN_POLICY, SUBGROUP_EXCLUSIVE, SUBGROUP_INDEX,
    SUBGROUP_KEY, SUBGROUP_SIZE, WORKER_INDEX,
};

/// The plugin.
#[derive(Debug)]
pub struct LeaderWorkerSetPlugin;

#[async_trait]
impl AdmissionPlugin for LeaderWorkerSetPlugin {
    fn name(&self) -> &'static str {
        "LeaderWorkerSet"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates(PODS)
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        let pod: &mut Pod = object_of_mut(object)?;
        // The definition is looked at only for what may be a member.
        let is_member = entry(&pod.metadata.labels, NAME).is_some() && is_enabled(attributes)?;
        if is_member {
            tell_member(pod);
        }
        Ok(is_member)
    }
}

/// Whether the addon is on: its definition is there, is its own, and is to stay.
fn is_enabled(attributes: &Attributes<'_>) -> Result<bool, ApiError> {
    #[derive(Deserialize)]
    struct Definition {
        metadata: ObjectMeta,
    }
    let definition = attributes.stored::<Definition>(CRDS, "", LeaderWorkerSet::crd_name())?;
    Ok(definition.is_some_and(|definition| {
        let metadata = &definition.metadata;
        metadata.deletion_timestamp.is_none() && addons::installed(metadata.labels.as_ref(), crate::NAME)
    }))
}

fn tell_member(pod: &mut Pod) {
    let Some(set) = entry(&pod.metadata.labels, NAME).cloned() else { return };
    let size = entry(&pod.metadata.annotations, SIZE).and_then(|text| text.parse::<i32>().ok());
    let name = text(&pod.metadata.name).to_owned();
    let ordinal = name.rsplit_once('-').and_then(|(_, digits)| digits.parse::<i32>().ok());
    let (Some(size), Some(ordinal)) = (size, ordinal) else { return };
    let namespace = text(&pod.metadata.namespace).to_owned();
    let annotation = |key: &str| entry(&pod.metadata.annotations, key).cloned();
    let subgroup_size = annotation(SUBGROUP_SIZE).and_then(|text| text.parse::<i32>().ok()).filter(|size| *size > 0);
    let (exclusive, subgroup_exclusive) = (annotation(EXCLUSIVE), annotation(SUBGROUP_EXCLUSIVE));
    let own_subdomain = annotation(SUBDOMAIN_POLICY).is_some_and(|policy| policy == "UniquePerReplica");
    let leader_name = annotation(LEADER_NAME);

    let is_leader = entry(&pod.metadata.labels, WORKER_INDEX).is_some_and(|index| index == "0");
    let labels = pod.metadata.labels.get_or_insert_default();
    let subgroup = if is_leader {
        labels.entry(GROUP_INDEX.to_owned()).or_insert_with(|| ordinal.to_string());
        labels.entry(GROUP_KEY.to_owned()).or_insert_with(|| key(&namespace, &name));
        // The leader is in the first subgroup.
        subgroup_size.map(|_| 0)
    } else {
        labels.insert(WORKER_INDEX.to_owned(), ordinal.to_string());
        // Where the size leaves one over, that is the leader.
        subgroup_size.map(|of| if (size - 1) % of == 0 { (ordinal - 1) / of } else { ordinal / of })
    };
    let mut exclusives = Vec::new();
    if let (true, Some(topology), Some(value)) = (is_leader, exclusive, labels.get(GROUP_KEY)) {
        exclusives.push((GROUP_KEY, value.clone(), topology));
    }
    if let Some(index) = subgroup {
        let value = key(leader_name.as_deref().unwrap_or(&name), &index.to_string());
        labels.entry(SUBGROUP_INDEX.to_owned()).or_insert_with(|| index.to_string());
        labels.entry(SUBGROUP_KEY.to_owned()).or_insert_with(|| value.clone());
        if let Some(topology) = subgroup_exclusive {
            exclusives.push((SUBGROUP_KEY, value, topology));
        }
    }
    let group = labels.get(GROUP_INDEX).cloned().unwrap_or_default();
    let index = labels.get(WORKER_INDEX).cloned().unwrap_or_default();
    let spec = pod.spec.get_or_insert_default();
    if is_leader && own_subdomain {
        spec.subdomain = Some(name);
    }
    for (label, value, topology) in exclusives {
        keep_apart(spec.affinity.get_or_insert_default(), label, &value, &topology);
    }
    let address = format!("{set}-{group}.{}.{namespace}", text(&spec.subdomain));
    let variables =
        [("LWS_LEADER_ADDRESS", address), ("LWS_GROUP_SIZE", size.to_string()), ("LWS_WORKER_INDEX", index)];
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        tell(container, &variables);
    }
}

/// A value that is the same for all of a group, and for nobody else: it tells groups apart and hides nothing.
fn key(scope: &str, name: &str) -> String {
    let text = format!("{scope}/{name}");
    format!("{:08x}{:08x}", fnv32a(text.as_bytes()), fnv32a(format!("{text}/").as_bytes()))
}

/// Puts variables before those of the container, so that its own may refer to them.
fn tell(container: &mut Container, variables: &[(&str, String)]) {
    let known = container.env.take().unwrap_or_default();
    let is_new = |name: &str| known.iter().all(|variable| variable.name != name);
    let mut env: Vec<EnvVar> = variables
        .iter()
        .filter(|(name, _)| is_new(name))
        .map(|(name, value)| EnvVar { name: (*name).to_owned(), value: Some(value.clone()), value_from: None })
        .collect();
    env.extend(known);
    container.env = Some(env);
}

/// Ties Pods with this label and value to one topology domain, and keeps those with another value out of it.
fn keep_apart(affinity: &mut Affinity, label: &str, value: &str, topology: &str) {
    let term = |demands: &[(&str, bool)]| PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: None,
            match_expressions: Some(
                demands
                    .iter()
                    .map(|(operator, valued)| LabelSelectorRequirement {
                        key: label.to_owned(),
                        operator: (*operator).to_owned(),
                        values: valued.then(|| vec![value.to_owned()]),
                    })
                    .collect(),
            ),
        }),
        topology_key: topology.to_owned(),
        ..PodAffinityTerm::default()
    };
    let near = affinity.pod_affinity.get_or_insert_default();
    let far = affinity.pod_anti_affinity.get_or_insert_default();
    for (terms, term) in [
        (&mut near.required_during_scheduling_ignored_during_execution, term(&[("In", true)])),
        (&mut far.required_during_scheduling_ignored_during_execution, term(&[("Exists", false), ("NotIn", true)])),
    ] {
        // A pod that a webhook changed comes here twice.
        let terms = terms.get_or_insert_default();
        if !terms.contains(&term) {
            terms.push(term);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn joined(name: &str, labels: Value, annotations: Value) -> Value {
        let metadata = json!({ "name": name, "namespace": "ns", "labels": labels, "annotations": annotations });
        let spec = json!({ "subdomain": "x", "containers": [{ "name": "c", "env": [{ "name": "A", "value": "b" }] }] });
        let mut pod: Pod = from_value(json!({ "metadata": metadata, "spec": spec })).expect("pod");
        tell_member(&mut pod);
        serde_json::to_value(pod).expect("pod")
    }

    #[test]
    fn leaders_and_workers_know_their_group() {
        let leader = joined("x-1", json!({ NAME: "x", WORKER_INDEX: "0" }), json!({ SIZE: "3" }));
        assert_eq!(leader["metadata"]["labels"][GROUP_INDEX], "1");
        let env = |pod: &Value| {
            let env = pod["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
            env.iter().map(|one| format!("{}={}", one["name"], one["value"]).replace('"', "")).collect::<Vec<_>>()
        };
        let expect = ["LWS_LEADER_ADDRESS=x-1.x.ns", "LWS_GROUP_SIZE=3", "LWS_WORKER_INDEX=0", "A=b"];
        assert_eq!(env(&leader), expect);
        let worker = joined("x-1-2", json!({ NAME: "x", GROUP_INDEX: "1" }), json!({ SIZE: "3", LEADER_NAME: "x-1" }));
        assert_eq!(worker["metadata"]["labels"][WORKER_INDEX], "2");
        assert_eq!(env(&worker)[..3], ["LWS_LEADER_ADDRESS=x-1.x.ns", "LWS_GROUP_SIZE=3", "LWS_WORKER_INDEX=2"]);
        let stranger = joined("x-1", json!({ "app": "x" }), json!({}));
        assert_eq!(env(&stranger), ["A=b"]);
    }

    #[test]
    fn groups_that_want_a_domain_alone_get_it() {
        let pod = joined("x-0", json!({ NAME: "x", WORKER_INDEX: "0" }), json!({ SIZE: "2", EXCLUSIVE: "rack" }));
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        assert_eq!(pod["spec"]["affinity"]["podAffinity"][required][0]["topologyKey"], "rack");
        let far = &pod["spec"]["affinity"]["podAntiAffinity"][required][0]["labelSelector"]["matchExpressions"];
        assert_eq!((&far[0]["operator"], &far[1]["operator"]), (&json!("Exists"), &json!("NotIn")));
        let annotations = json!({ SIZE: "5", SUBGROUP_SIZE: "2", LEADER_NAME: "x-0" });
        let worker = joined("x-0-3", json!({ NAME: "x", GROUP_INDEX: "0" }), annotations);
        assert_eq!(worker["metadata"]["labels"][SUBGROUP_INDEX], "1");
    }
}
