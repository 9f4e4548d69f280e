//! RoleBasedGroupSets (workloads.x-k8s.io): several RoleBasedGroups of one template. Runs while the
//! CustomResourceDefinition of the addon is there.
//!
//! Watches RoleBasedGroupSets and their groups; owns the groups. A group is written when it is made and when the template
//! changes, and not in between: its roles may be scaled one by one.

use std::sync::Arc;

use informer::{Action, Cause, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use machinery::addon::RBG;
use machinery::int_or_string;
use serde_json::{Value, json};

use super::conditions::Conditions;
use super::role::EXCLUSIVE;
use crate::addon::{CustomResourceController, InstalledBy, Objects, Subjects};
use crate::applier;
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::expectations::EXPECTATIONS_TIMEOUT;
use crate::owner::Owner;

const SET: &str = "rolebasedgroupset.workloads.x-k8s.io/name";
const INDEX: &str = "rolebasedgroupset.workloads.x-k8s.io/rbg-index";
/// The same labels as v1alpha2 has them.
const LATER_SET: &str = "rbg.workloads.x-k8s.io/groupset-name";
const LATER_INDEX: &str = "rbg.workloads.x-k8s.io/groupset-index";
/// The label with the hash of the template that a group is of.
const REVISION: &str = "rbg.workloads.x-k8s.io/groupset-revision";

fn resource() -> ApiResource {
    applier::resource(&super::resource().api_version, "RoleBasedGroupSet")
}

/// The controller of RoleBasedGroupSets.
pub(crate) struct RoleBasedGroupSets {
    context: Context,
    subjects: Subjects,
    groups: Objects,
}

impl Controller for RoleBasedGroupSets {
    const NAME: &'static str = "rolebasedgroupset";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        Self {
            context: context.clone(),
            subjects: Subjects::new(context, &resource(), queue),
            groups: Objects::new(super::resource(), InstalledBy::Addon(RBG)),
        }
    }

    fn watch(self: &Arc<Self>) {
        Subjects::watch(self, |controller| &controller.subjects);
    }

    async fn synced(&self) {
        self.subjects.objects.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(set) = self.subjects.get(key) else {
            return Ok(Action::AwaitChange.because("the set is gone or going"));
        };
        if !self.subjects.satisfied(key) || !self.groups.is_followed() {
            // What shows the write, or the groups, brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT));
        }
        let owner = Owner::of_dynamic(&set, &resource());
        let groups = self.groups.controlled_by(owner.uid());
        let plan = plan(&set, &owner, &groups, Timestamp::now());
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.context.client.clone(), &key.namespace, &self.groups.resource);
        for group in &plan.delete {
            let uid = group.metadata.uid.clone();
            let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
            ok_if_not_found(api.delete(group.metadata.name.as_deref().unwrap_or_default(), &params).await)?;
        }
        for group in &plan.apply {
            let version = applier::resource(group["apiVersion"].as_str().unwrap_or_default(), super::KIND);
            let api: Api<DynamicObject> = Api::namespaced_with(self.context.client.clone(), &key.namespace, &version);
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            api.patch(name, &PatchParams::apply("rbgset").force(), &Patch::Apply(group)).await?;
        }
        self.subjects.patch_status(&self.context.client, (&owner, &set), &plan.status).await?;
        Ok(Action::AwaitChange)
    }

    /// Follows the groups.
    async fn background(&self) {
        let turned = || self.subjects.enqueue_all(&Cause::new("its groups are served now"));
        self.groups.follow(&self.context, (SET, &self.subjects.queue), turned).await;
    }
}

impl CustomResourceController for RoleBasedGroupSets {
    const ADDON: &'static str = RBG;

    fn resource() -> ApiResource {
        resource()
    }
}

/// What is to be done for a set.
#[derive(Debug, Default)]
struct Plan {
    /// Groups to delete: there are too many, or they are to be made anew.
    delete: Vec<Arc<DynamicObject>>,
    /// Groups to apply: new ones, and those of an earlier template.
    apply: Vec<Value>,
    /// The status before any of this shows.
    status: Value,
}

/// A group's template and its version.
struct Template<'a> {
    api_version: &'static str,
    labels: &'a Value,
    annotations: &'a Value,
    spec: &'a Value,
}

impl<'a> Template<'a> {
    fn of(spec: &'a Value) -> Self {
        // Each version has it in a field of its own.
        let later = &spec["groupTemplate"];
        if later.is_object() {
            let (labels, annotations) = (&later["labels"], &later["annotations"]);
            return Self { api_version: "workloads.x-k8s.io/v1alpha2", labels, annotations, spec: &later["spec"] };
        }
        let none = &Value::Null;
        Self { api_version: "workloads.x-k8s.io/v1alpha1", labels: none, annotations: none, spec: &spec["template"] }
    }
}

fn plan(set: &DynamicObject, owner: &Owner, groups: &[Arc<DynamicObject>], now: Timestamp) -> Plan {
    let spec = &set.data["spec"];
    let replicas = spec["replicas"].as_i64().unwrap_or(1).max(0);
    let template = Template::of(spec);
    let mut content = json!({ "labels": template.labels, "annotations": template.annotations, "spec": template.spec });
    let exclusive = EXCLUSIVE.iter().filter_map(|key| Some((*key, set.metadata.annotations.as_ref()?.get(*key)?)));
    for (key, value) in exclusive {
        if !content["annotations"].is_object() {
            content["annotations"] = json!({});
        }
        content["annotations"][key] = value.as_str().into();
    }
    let revision = machinery::hash::pod_template_hash(&content, None);
    let at = |index: i64| groups.iter().find(|group| index_of(group) == Some(index));
    let is_updated = |group: &DynamicObject| label(group, REVISION) == Some(revision.as_str());

    let mut plan = Plan::default();
    plan.delete.extend(groups.iter().filter(|group| index_of(group).is_none_or(|index| index >= replicas)).cloned());
    let mut outdated: Vec<(i64, &Arc<DynamicObject>)> = Vec::new();
    for index in (0..replicas).rev() {
        match at(index) {
            None => plan.apply.push(make(owner, &template, &content, &revision, index)),
            Some(group) if !is_updated(group) => outdated.push((index, group)),
            Some(_) => {}
        }
    }
    let rollout = &spec["rolloutStrategy"];
    let scaled = |field: &str| {
        let value: IntOrString = serde_json::from_value(rollout[field].clone()).ok()?;
        int_or_string::scaled(&value, i32::try_from(replicas).unwrap_or(i32::MAX), false).ok()
    };
    let partition = i64::from(scaled("partition").unwrap_or_default());
    // Upstream: without a strategy all groups are updated at once.
    let most = if rollout.is_object() { scaled("maxUnavailable").unwrap_or(1).max(1) } else { i32::MAX };
    let is_there = |index: i64| at(index).is_some_and(|group| is_ready(group));
    let mut unavailable = i32::try_from((0..replicas).filter(|index| !is_there(*index)).count()).unwrap_or(i32::MAX);
    for (index, group) in outdated.into_iter().filter(|(index, _)| *index >= partition) {
        if is_ready(group) {
            if unavailable >= most {
                continue;
            }
            unavailable += 1;
        }
        if rollout["type"] == "Recreate" {
            plan.delete.push(Arc::clone(group));
        } else {
            plan.apply.push(make(owner, &template, &content, &revision, index));
        }
    }
    plan.delete.retain(|group| group.metadata.deletion_timestamp.is_none());

    let count =
        |of: &dyn Fn(&DynamicObject) -> bool| (0..replicas).filter(|index| at(*index).is_some_and(|it| of(it))).count();
    let ready = groups.iter().filter(|group| is_ready(group)).count();
    let mut conditions = Conditions::new(set, now);
    if count(&is_ready) as u64 >= replicas.unsigned_abs() {
        conditions.set("Ready", true, "AllReplicasReady", "All RoleBasedGroup replicas are ready.");
    } else {
        let message = format!("Waiting for replicas to be ready ({ready}/{replicas})");
        conditions.set("Ready", false, "ReplicasNotReady", &message);
    }
    let updated = count(&is_updated);
    plan.status = json!({
        "observedGeneration": set.metadata.generation.unwrap_or_default(), "conditions": conditions.list,
        "replicas": groups.len(), "readyReplicas": ready, "updatedReplicas": updated,
        "currentReplicas": count(&|group| !is_updated(group)),
        "updatedReadyReplicas": count(&|group| is_updated(group) && is_ready(group)),
        "expectedUpdatedReplicas": (replicas - partition).max(0),
        "currentRevision": set.data["status"]["currentRevision"].as_str().unwrap_or(&revision), "updateRevision": revision,
    });
    if updated as u64 >= replicas.unsigned_abs() {
        plan.status["currentRevision"] = revision.into();
    }
    plan
}

fn label<'a>(group: &'a DynamicObject, key: &str) -> Option<&'a str> {
    group.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn index_of(group: &DynamicObject) -> Option<i64> {
    label(group, INDEX)?.parse().ok()
}

fn is_ready(group: &DynamicObject) -> bool {
    let status = &group.data["status"];
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    status["observedGeneration"].as_i64() == group.metadata.generation
        && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn make(owner: &Owner, template: &Template<'_>, content: &Value, revision: &str, index: i64) -> Value {
    let mut metadata = json!({
        "name": format!("{}-{index}", owner.name()), "namespace": owner.key.namespace,
        "labels": {}, "annotations": {}, "ownerReferences": [owner.controller],
    });
    for field in ["labels", "annotations"] {
        if content[field].is_object() {
            metadata[field] = content[field].clone();
        }
    }
    for key in [SET, LATER_SET] {
        metadata["labels"][key] = owner.name().into();
    }
    for key in [INDEX, LATER_INDEX] {
        metadata["labels"][key] = index.to_string().into();
    }
    metadata["labels"][REVISION] = revision.into();
    json!({ "apiVersion": template.api_version, "kind": super::KIND, "metadata": metadata, "spec": content["spec"] })
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    fn set(spec: Value) -> DynamicObject {
        let metadata = json!({ "name": "fleet", "namespace": "ns", "uid": "set", "generation": 1 });
        from_value(json!({ "metadata": metadata, "spec": spec })).expect("a set")
    }

    /// What is made (`+`), updated (`~`) and deleted (`-`), for groups from lines such as `1 old ready`.
    fn check(spec: Value, lines: &[&str], expect: &str) {
        let mut spec = spec;
        spec["groupTemplate"] = json!({ "spec": { "roles": [] } });
        let set = set(spec);
        let owner = Owner::of_dynamic(&set, &resource());
        let first = plan(&set, &owner, &[], Timestamp::UNIX_EPOCH);
        let revision = first.status["updateRevision"].as_str().expect("a revision").to_owned();
        let group = |line: &&str| {
            let words: Vec<_> = line.split(' ').collect();
            let revision = if words.contains(&"old") { "old" } else { revision.as_str() };
            let ready = json!({ "type": "Ready", "status": if words.contains(&"ready") { "True" } else { "False" } });
            let group = json!({
                "metadata": {
                    "name": format!("fleet-{}", words[0]), "generation": 1, "labels": { INDEX: words[0], REVISION: revision },
                },
                "status": { "observedGeneration": 1, "conditions": [ready] },
            });
            Arc::new(from_value::<DynamicObject>(group).expect("a group"))
        };
        let groups: Vec<_> = lines.iter().map(group).collect();
        let plan = plan(&set, &owner, &groups, Timestamp::UNIX_EPOCH);
        let name = |name: &str| name.trim_start_matches("fleet-").to_owned();
        let mut words: Vec<_> =
            plan.delete.iter().map(|it| format!("-{}", name(it.metadata.name.as_deref().unwrap_or("?")))).collect();
        for made in &plan.apply {
            let index = name(made["metadata"]["name"].as_str().unwrap_or("?"));
            let is_new = groups.iter().all(|group| label(group, INDEX) != Some(&index));
            words.push(format!("{}{index}", if is_new { '+' } else { '~' }));
        }
        let ready = &plan.status["conditions"][0]["status"];
        assert_eq!(format!("{} {}", words.join(" "), ready.as_str().unwrap_or("?")), expect, "{lines:?}");
    }

    #[test]
    fn there_are_as_many_groups_as_are_asked_for_and_of_the_template() {
        check(json!({ "replicas": 2 }), &[], "+1 +0 False");
        check(json!({ "replicas": 2 }), &["0 ready", "1 ready"], " True");
        check(json!({ "replicas": 1 }), &["0 ready", "1 ready", "2"], "-1 -2 True");
        check(json!({ "replicas": 2 }), &["0 old ready", "1 old ready"], "~1 ~0 True");
        let one = json!({ "replicas": 3, "rolloutStrategy": { "type": "InPlaceUpdate", "maxUnavailable": 1 } });
        check(one.clone(), &["0 old ready", "1 old ready", "2 old ready"], "~2 True");
        check(one.clone(), &["0 old ready", "1 old ready", "2"], " False");
        check(one, &["0 old", "1 old ready", "2 ready"], "~0 False");
        let part =
            json!({ "replicas": 2, "rolloutStrategy": { "type": "Recreate", "partition": 1, "maxUnavailable": 2 } });
        check(part, &["0 old ready", "1 old ready"], "-1 True");
    }
}
