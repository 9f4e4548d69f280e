//! The status of groups, as their own controllers write it.

use std::sync::Arc;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use machinery::phase::PodPhase;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::spec::Group;
use crate::types::{Family, GroupKey};

/// The objects of one kind of group, or of queues.
pub(super) type Objects = Informer<DynamicObject>;

/// The index under which a pod is found by its group.
const BY_GROUP: &str = "scheduler/group";

/// How many members are how far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) pods: usize,
    pub(super) scheduled: usize,
    pub(super) running: usize,
    pub(super) succeeded: usize,
    pub(super) failed: usize,
}

impl Members {
    fn count(pods: &[Arc<Pod>]) -> Self {
        let mut members = Self { pods: pods.len(), ..Self::default() };
        for pod in pods {
            let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref().is_some_and(|it| !it.is_empty()));
            members.scheduled += usize::from(bound);
            match PodPhase::of(pod) {
                Some(PodPhase::Running) => members.running += 1,
                Some(PodPhase::Succeeded) => members.succeeded += 1,
                Some(PodPhase::Failed) => members.failed += 1,
                _ => {}
            }
        }
        members
    }
}

/// The status that a group should have, beside what it has.
pub(super) fn plan(family: Family, object: &Value, members: Members, now: Timestamp) -> Option<Value> {
    let needed = Group::read(family, object).min_member.max(1);
    let old = &object["status"];
    let Members { pods, scheduled, running, succeeded, failed } = members;
    let whole = scheduled >= needed;
    let mut status = json!({ "running": running, "succeeded": succeeded, "failed": failed });
    let phase = match family {
        Family::Coscheduling if pods > 0 && succeeded + failed == pods && failed == 0 && pods >= needed => "Finished",
        Family::Coscheduling if failed > 0 && failed + succeeded >= needed => "Failed",
        Family::Coscheduling if running + succeeded >= needed => "Running",
        Family::Coscheduling if whole => "Scheduled",
        Family::Coscheduling if pods >= needed => "Scheduling",
        Family::Coscheduling => "Pending",
        Family::Volcano if pods > 0 && succeeded + failed == pods && pods >= needed => "Completed",
        Family::Volcano if running + succeeded >= needed => "Running",
        Family::Volcano if scheduled > 0 && !whole => "Unknown",
        Family::Volcano if pods >= needed => "Inqueue",
        Family::Volcano => "Pending",
    };
    status["phase"] = phase.into();
    match family {
        Family::Coscheduling => {
            if pods >= needed && old["scheduleStartTime"].is_null() {
                status["scheduleStartTime"] = json!(seconds(now));
            }
        }
        Family::Volcano => {
            let (type_, reason, message) = match whole {
                true => ("Scheduled", "tasks in gang are ready to be scheduled", String::new()),
                false => {
                    let waiting = pods - scheduled;
                    let message = format!(
                        "{waiting}/{needed} tasks in gang unschedulable: pod group is not ready, {waiting} Pending, \
                         {needed} minAvailable"
                    );
                    ("Unschedulable", "NotEnoughResources", message)
                }
            };
            let known = old["conditions"].as_array().and_then(|all| all.first());
            let same = known.is_some_and(|known| known["type"] == type_ && known["message"] == message.as_str());
            status["conditions"] = match known {
                Some(known) if same => json!([known]),
                _ => json!([{
                    "type": type_, "status": "True", "reason": reason, "message": message,
                    "lastTransitionTime": seconds(now), "transitionID": object["metadata"]["uid"],
                }]),
            };
        }
    }
    let differs = |(name, value): (&String, &Value)| {
        // Absent and zero are the same.
        old[name] != *value && !(old[name].is_null() && *value == json!(0))
    };
    status.as_object()?.iter().any(differs).then(|| json!({ "status": status }))
}

fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Keeps the status of all groups of one kind until `cancel` is triggered.
pub(super) async fn keep(
    queue: WorkQueue<ObjectKey>,
    family: Family,
    client: Client,
    resource: ApiResource,
    groups: Objects,
    pods: Informer<Pod>,
    cancel: CancellationToken,
) {
    index(&pods);
    let wake = queue.clone();
    groups.on_change(move |change| wake.add_changed(change));
    let (wake, known, over) = (queue.clone(), groups.clone(), cancel.clone());
    pods.on_change(move |change| {
        // Handlers stay for as long as the informer does.
        if over.is_cancelled() {
            return;
        }
        let named = [&change.old, &change.new].into_iter().flatten().filter_map(|pod| GroupKey::of(pod));
        for key in named.filter(|key| key.family == family) {
            let key = ObjectKey::new(key.namespace, key.name);
            if known.get(&key).is_some() {
                wake.add(key, change.cause());
            }
        }
    });
    informer::run(queue, 1, cancel, |key: ObjectKey| {
        let (client, resource, groups, pods) = (client.clone(), resource.clone(), groups.clone(), pods.clone());
        async move {
            let Some(group) = groups.get(&key) else {
                return Ok(Action::AwaitChange);
            };
            let name = GroupKey { family, namespace: key.namespace.clone(), name: key.name.clone() };
            let members = Members::count(&members(&pods, &name));
            let mut object = group.data.clone();
            object["metadata"]["uid"] = json!(group.metadata.uid);
            if let Some(patch) = plan(family, &object, members, Timestamp::now()) {
                write(&client, &resource, &key, &patch).await?;
            }
            Ok::<_, kube::Error>(Action::AwaitChange)
        }
    })
    .await;
}

/// Patches the status; some definitions have no such subresource.
async fn write(client: &Client, resource: &ApiResource, key: &ObjectKey, patch: &Value) -> Result<(), kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, resource);
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    let gone = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
    let mut result = api.patch_status(&key.name, &params, &patch).await;
    if result.as_ref().is_err_and(gone) {
        result = api.patch(&key.name, &params, &patch).await;
    }
    match result {
        Err(error) if gone(&error) => Ok(()),
        result => result.map(drop),
    }
}

/// Has pods found by their group.
pub(super) fn index(pods: &Informer<Pod>) {
    pods.index(BY_GROUP, |pod| GroupKey::of(pod).map(|key| value(&key)).into_iter().collect());
}

/// The pods that name the group.
pub(super) fn members(pods: &Informer<Pod>, group: &GroupKey) -> Vec<Arc<Pod>> {
    pods.by_index(BY_GROUP, &value(group))
}

fn value(key: &GroupKey) -> String {
    let family = match key.family {
        Family::Coscheduling => "c",
        Family::Volcano => "v",
    };
    format!("{family}|{}|{}", key.namespace, key.name)
}
