//! The controller of RoleBasedGroupSets: several RoleBasedGroups of one template.
//!
//! Watches RoleBasedGroupSets and their groups; owns the groups. A group is written when it is made and when the template
//! changes, and not in between: its roles may be scaled one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use controllers::applier;
use controllers::client::{Api, Error, ok_if_not_found};
use controllers::controller::{Context, Controller};
use controllers::expectations::EXPECTATIONS_TIMEOUT;
use controllers::meta::ConditionStatus;
use controllers::owner::Owner;
use controllers::served::{CustomResourceController, InstalledBy, Objects, Subjects};
use informer::{Action, Cause, ObjectKey, WorkQueue};
use jiff::Timestamp;
use kube::CustomResourceExt;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use machinery::int_or_string;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::v1alpha2::{GroupRolloutType, RoleBasedGroup, RoleBasedGroupSet, RoleBasedGroupSetSpec};
use crate::api::{RoleBasedGroupSetStatus, RoleBasedGroupStatus};
use crate::conditions::Conditions;
use crate::controller::EXCLUSIVE;

const SET: &str = "rolebasedgroupset.workloads.x-k8s.io/name";
const INDEX: &str = "rolebasedgroupset.workloads.x-k8s.io/rbg-index";
/// The same labels as v1alpha2 has them.
const LATER_SET: &str = "rbg.workloads.x-k8s.io/groupset-name";
const LATER_INDEX: &str = "rbg.workloads.x-k8s.io/groupset-index";
/// The label with the hash of the template that a group is of.
const REVISION: &str = "rbg.workloads.x-k8s.io/groupset-revision";

/// The controller of RoleBasedGroupSets.
pub struct RoleBasedGroupSets {
    context: Context,
    subjects: Subjects<RoleBasedGroupSet>,
    groups: Objects,
}

impl Controller for RoleBasedGroupSets {
    const NAME: &'static str = "rolebasedgroupset";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        Self {
            context: context.clone(),
            subjects: Subjects::new(context, queue),
            groups: Objects::new(RoleBasedGroup::api_resource(), InstalledBy::Addon(crate::NAME)),
        }
    }

    fn watch(self: &Arc<Self>) {
        Subjects::watch(self, |controller| &controller.subjects);
    }

    async fn synced(&self) {
        self.subjects.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(set) = self.subjects.get(key)? else {
            return Ok(Action::AwaitChange.because("the set is gone or going"));
        };
        if !self.subjects.satisfied(key).await || !self.groups.is_followed() {
            // What shows the write, or the groups, brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT));
        }
        let owner = Owner::of(&set);
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
            let version = applier::resource(group["apiVersion"].as_str().unwrap_or_default(), "RoleBasedGroup");
            let api: Api<DynamicObject> = Api::namespaced_with(self.context.client.clone(), &key.namespace, &version);
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            api.patch(name, &PatchParams::apply("rbgset").force(), &Patch::Apply(group)).await?;
        }
        let status = set.status.clone().unwrap_or_default();
        self.subjects.patch_status(&self.context.client, &owner, (&status, &plan.status)).await?;
        Ok(Action::AwaitChange)
    }

    /// Follows the groups.
    async fn background(&self) {
        let turned = || self.subjects.enqueue_all(&Cause::new("its groups are served now"));
        self.groups.follow(&self.context, (SET, &self.subjects.queue), turned).await;
    }
}

impl CustomResourceController for RoleBasedGroupSets {
    const ADDON: &'static str = crate::NAME;
    type Resource = RoleBasedGroupSet;
}

/// What is to be done for a set.
#[derive(Debug, Default)]
struct Plan {
    /// Groups to delete: there are too many, or they are to be made anew.
    delete: Vec<Arc<DynamicObject>>,
    /// Groups to apply: new ones, and those of an earlier template.
    apply: Vec<Value>,
    /// The status before any of this shows.
    status: RoleBasedGroupSetStatus,
}

/// A group's template and its version.
struct Template<'a> {
    api_version: &'static str,
    labels: Option<&'a BTreeMap<String, String>>,
    annotations: Option<&'a BTreeMap<String, String>>,
    spec: Option<&'a Value>,
}

impl<'a> Template<'a> {
    fn of(spec: &'a RoleBasedGroupSetSpec) -> Self {
        // Each version has it in a field of its own.
        match &spec.group_template {
            Some(later) => Self {
                api_version: "workloads.x-k8s.io/v1alpha2",
                labels: later.labels.as_ref(),
                annotations: later.annotations.as_ref(),
                spec: Some(&later.spec),
            },
            None => Self {
                api_version: "workloads.x-k8s.io/v1alpha1",
                labels: None,
                annotations: None,
                spec: spec.template.as_ref(),
            },
        }
    }
}

fn plan(set: &RoleBasedGroupSet, owner: &Owner, groups: &[Arc<DynamicObject>], now: Timestamp) -> Plan {
    let spec = &set.spec;
    let replicas = spec.replicas.max(0);
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
    let at = |index: i32| groups.iter().find(|group| index_of(group) == Some(index));
    let is_updated = |group: &DynamicObject| label(group, REVISION) == Some(revision.as_str());

    let mut plan = Plan::default();
    plan.delete.extend(groups.iter().filter(|group| index_of(group).is_none_or(|index| index >= replicas)).cloned());
    let mut outdated: Vec<(i32, &Arc<DynamicObject>)> = Vec::new();
    for index in (0..replicas).rev() {
        match at(index) {
            None => plan.apply.push(make(owner, &template, &content, &revision, index)),
            Some(group) if !is_updated(group) => outdated.push((index, group)),
            Some(_) => {}
        }
    }
    let rollout = spec.rollout_strategy.as_ref();
    let scaled = |value| int_or_string::scaled(value, replicas, false).ok();
    let partition = rollout.and_then(|rollout| scaled(&rollout.partition)).unwrap_or_default();
    // Upstream: without a strategy all groups are updated at once.
    let most = rollout.map_or(i32::MAX, |rollout| scaled(&rollout.max_unavailable).unwrap_or(1).max(1));
    let is_there = |index: i32| at(index).is_some_and(|group| is_ready(group));
    let mut unavailable = i32::try_from((0..replicas).filter(|index| !is_there(*index)).count()).unwrap_or(i32::MAX);
    for (index, group) in outdated.into_iter().filter(|(index, _)| *index >= partition) {
        if is_ready(group) {
            if unavailable >= most {
                continue;
            }
            unavailable += 1;
        }
        if rollout.is_some_and(|rollout| rollout.type_ == GroupRolloutType::Recreate) {
            plan.delete.push(Arc::clone(group));
        } else {
            plan.apply.push(make(owner, &template, &content, &revision, index));
        }
    }
    plan.delete.retain(|group| group.metadata.deletion_timestamp.is_none());

    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let count = |of: &dyn Fn(&DynamicObject) -> bool| {
        number((0..replicas).filter(|index| at(*index).is_some_and(|it| of(it))).count())
    };
    let ready = number(groups.iter().filter(|group| is_ready(group)).count());
    let old = set.status.as_ref();
    let known = old.and_then(|status| status.conditions.as_ref());
    let mut conditions = Conditions::new(&set.metadata, known, now);
    if count(&is_ready) >= replicas {
        conditions.set("Ready", true, "AllReplicasReady", "All RoleBasedGroup replicas are ready.");
    } else {
        let message = format!("Waiting for replicas to be ready ({ready}/{replicas})");
        conditions.set("Ready", false, "ReplicasNotReady", &message);
    }
    let updated = count(&is_updated);
    let current = old.and_then(|status| status.current_revision.clone()).filter(|_| updated < replicas);
    plan.status = RoleBasedGroupSetStatus {
        observed_generation: Some(set.metadata.generation.unwrap_or_default()),
        conditions: Some(conditions.list),
        replicas: Some(number(groups.len())),
        ready_replicas: Some(ready),
        updated_replicas: Some(updated),
        current_replicas: Some(count(&|group| !is_updated(group))),
        updated_ready_replicas: Some(count(&|group| is_updated(group) && is_ready(group))),
        expected_updated_replicas: Some((replicas - partition).max(0)),
        current_revision: Some(current.unwrap_or_else(|| revision.clone())),
        update_revision: Some(revision),
    };
    plan
}

fn label<'a>(group: &'a DynamicObject, key: &str) -> Option<&'a str> {
    group.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn index_of(group: &DynamicObject) -> Option<i32> {
    label(group, INDEX)?.parse().ok()
}

fn is_ready(group: &DynamicObject) -> bool {
    let Ok(status) = RoleBasedGroupStatus::deserialize(&group.data["status"]) else { return false };
    let mut conditions = status.conditions.iter().flatten();
    status.observed_generation == group.metadata.generation
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == ConditionStatus::True)
}

fn make(owner: &Owner, template: &Template<'_>, content: &Value, revision: &str, index: i32) -> Value {
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
    json!({ "apiVersion": template.api_version, "kind": "RoleBasedGroup", "metadata": metadata, "spec": content["spec"] })
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    fn set(spec: Value) -> RoleBasedGroupSet {
        let metadata = json!({ "name": "fleet", "namespace": "ns", "uid": "set", "generation": 1 });
        from_value(json!({ "metadata": metadata, "spec": spec })).expect("a set")
    }

    /// What is made (`+`), updated (`~`) and deleted (`-`), for groups from lines such as `1 old ready`.
    fn check(spec: Value, lines: &[&str], expect: &str) {
        let mut spec = spec;
        spec["groupTemplate"] = json!({ "spec": { "roles": [] } });
        let set = set(spec);
        let owner = Owner::of(&set);
        let first = plan(&set, &owner, &[], Timestamp::UNIX_EPOCH);
        let revision = first.status.update_revision.expect("a revision");
        let group = |line: &&str| {
            let words: Vec<_> = line.split(' ').collect();
            let revision = if words.contains(&"old") { "old" } else { revision.as_str() };
            let ready = json!({
                "type": "Ready", "status": if words.contains(&"ready") { "True" } else { "False" },
                "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "", "message": "",
            });
            let group = json!({
                "metadata": {
                    "name": format!("fleet-{}", words[0]), "generation": 1, "labels": { INDEX: words[0], REVISION: revision },
                },
                "status": { "observedGeneration": 1, "conditions": [ready], "roleStatuses": [] },
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
        let ready = &plan.status.conditions.as_ref().expect("conditions")[0].status;
        assert_eq!(format!("{} {ready}", words.join(" ")), expect, "{lines:?}");
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
