//! The status of Volcano's queues: how far their groups are, and what they use.

use std::time::Duration;

use addon_gang::volcano;
use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use machinery::phase::PodPhase;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::spec::{DEFAULT_QUEUE, Group};
use super::status::{self, Objects};
use crate::resources::{self, Resources};
use crate::types::{Family, GroupKey};

/// The index under which a group is found by its queue.
const BY_QUEUE: &str = "scheduler/queue";
/// The members of a group change one after the other: they are counted together.
const SETTLE: Duration = Duration::from_millis(200);
/// The phases of groups that are counted, and under which names.
const PHASES: [(&str, &str); 5] = [
    ("Pending", "pending"),
    ("Inqueue", "inqueue"),
    ("Running", "running"),
    ("Unknown", "unknown"),
    ("Completed", "completed"),
];

/// The status that a queue should have, beside what it has. `phases` are those of its groups.
fn plan(queue: &Value, phases: &[String], used: &Resources) -> Option<Value> {
    let old = &queue["status"];
    // upstream: what somebody wrote there is what is desired. A queue that is to be closed waits for its groups to go.
    let state = match (old["state"].as_str().unwrap_or_default(), phases.is_empty()) {
        ("" | "Open", _) => "Open",
        ("Closed" | "Closing", true) => "Closed",
        ("Closed" | "Closing", false) => "Closing",
        _ => "Unknown",
    };
    let mut status = json!({ "state": state });
    for (phase, field) in PHASES {
        status[field] = phases.iter().filter(|known| *known == phase).count().into();
    }
    let mut allocated: Map<String, Value> =
        used.each().map(|(resource, amount)| (resource.to_owned(), Resources::text(resource, amount).into())).collect();
    let gone = old["allocated"].as_object().into_iter().flatten().map(|(resource, _)| resource.clone());
    for resource in gone {
        allocated.entry(resource).or_insert(Value::Null);
    }
    if !allocated.is_empty() {
        status["allocated"] = Value::Object(allocated);
    }
    // Absent and zero are the same, and so are absent and what is to go.
    let same = |old: &Value, new: &Value| old == new || (old.is_null() && *new == json!(0));
    let differs = |(name, new): (&String, &Value)| match new {
        Value::Object(amounts) => amounts.iter().any(|(resource, amount)| old[name][resource] != *amount),
        new => !same(&old[name], new),
    };
    status.as_object()?.iter().any(differs).then(|| json!({ "status": status }))
}

/// Keeps the status of all queues until `cancel` is triggered. `groups` are Volcano's, while these are defined.
pub(super) async fn keep(
    work: WorkQueue<ObjectKey>,
    client: Client,
    resource: ApiResource,
    queues: Objects,
    mut groups: watch::Receiver<Option<Objects>>,
    pods: Informer<Pod>,
    cancel: CancellationToken,
) {
    status::index(&pods);
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    if queues.get(&ObjectKey::new("", DEFAULT_QUEUE)).is_none() {
        make_default(&api, &resource).await;
    }
    let wake = work.clone();
    queues.on_change(move |change| wake.add_changed(change));
    let known = groups.clone();
    let (wake, over) = (work.clone(), cancel.clone());
    let follow = async move {
        loop {
            if let Some(groups) = groups.borrow_and_update().clone() {
                groups.index(BY_QUEUE, |group| vec![queue_of(group)]);
                let (wake, over) = (wake.clone(), over.clone());
                groups.on_change(move |change| {
                    let queues = [&change.old, &change.new].into_iter().flatten().map(|group| queue_of(group));
                    for queue in queues.filter(|_| !over.is_cancelled()) {
                        wake.add_after(ObjectKey::new("", queue), SETTLE, change.cause());
                    }
                });
            }
            if groups.changed().await.is_err() {
                return;
            }
        }
    };
    let write = informer::run(work, 1, cancel.clone(), |key: ObjectKey| {
        let (api, queue, groups) = (api.clone(), queues.get(&key), known.borrow().clone());
        let members = groups.map(|groups| groups.by_index(BY_QUEUE, &key.name)).unwrap_or_default();
        let used = used(&members, &pods);
        async move {
            let phases: Vec<String> = members.iter().map(|group| phase(&group.data)).collect();
            if let Some(patch) = queue.and_then(|queue| plan(&queue.data, &phases, &used)) {
                match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    result => drop(result?),
                }
            }
            Ok::<_, kube::Error>(Action::AwaitChange)
        }
    });
    tokio::select! {
        () = write => {}
        // The informers of groups end with the scheduler; queues are kept until their own kind goes.
        () = async { follow.await; std::future::pending().await } => {}
    }
}

/// upstream: the scheduler makes the queue of groups that name none.
async fn make_default(api: &Api<DynamicObject>, resource: &ApiResource) {
    let queue =
        DynamicObject::new(DEFAULT_QUEUE, resource).data(json!({ "spec": { "weight": 1, "reclaimable": true } }));
    match api.create(&PostParams::default(), &queue).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => warn!(%error, "the queue {DEFAULT_QUEUE} cannot be made"),
        Ok(_) => {}
    }
}

fn queue_of(group: &DynamicObject) -> String {
    Group::read(Family::Volcano, &group.data).queue.unwrap_or_default()
}

fn phase(group: &Value) -> String {
    volcano::PodGroupStatus::deserialize(&group["status"]).map_or_else(|_| "Pending".to_owned(), |status| status.phase)
}

/// What the members of these groups use on nodes.
fn used(groups: &[std::sync::Arc<DynamicObject>], pods: &Informer<Pod>) -> Resources {
    let mut used = Resources::default();
    for group in groups {
        let namespace = group.metadata.namespace.clone().unwrap_or_default();
        let key =
            GroupKey { family: Family::Volcano, namespace, name: group.metadata.name.clone().unwrap_or_default() };
        for pod in status::members(pods, &key) {
            let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref().is_some_and(|it| !it.is_empty()));
            if bound && !PodPhase::of(&pod).is_some_and(PodPhase::is_terminal) {
                used.add(&resources::requests(&pod));
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_counts_its_groups() {
        let check = |old: Value, phases: &[&str], gpus: i64, expected: Option<Value>| {
            let phases: Vec<String> = phases.iter().map(|phase| (*phase).to_owned()).collect();
            let mut used = Resources::default();
            used.extended.insert("nvidia.com/gpu".to_owned(), gpus);
            let patch = plan(&json!({ "status": old }), &phases, &used).map(|patch| patch["status"].clone());
            assert_eq!(patch, expected);
        };
        let none =
            || json!({ "state": "Open", "pending": 0, "inqueue": 0, "running": 0, "unknown": 0, "completed": 0 });
        check(json!({}), &[], 0, Some(none()));
        check(json!({ "state": "Open" }), &[], 0, None);
        let mut some = none();
        some["running"] = 2.into();
        some["inqueue"] = 1.into();
        some["allocated"] = json!({ "nvidia.com/gpu": "4" });
        check(json!({ "state": "Open" }), &["Running", "Inqueue", "Running"], 4, Some(some.clone()));
        check(some.clone(), &["Running", "Inqueue", "Running"], 4, None);
        // What is not used any more goes.
        let mut gone = none();
        gone["allocated"] = json!({ "nvidia.com/gpu": null });
        check(some, &[], 0, Some(gone));
        // Closing waits for the groups.
        let state = |old: &str, phases: &[&str]| {
            let phases: Vec<String> = phases.iter().map(|phase| (*phase).to_owned()).collect();
            let patch = plan(&json!({ "status": { "state": old } }), &phases, &Resources::default());
            patch.map_or(old.to_owned(), |patch| patch["status"]["state"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(state("Closed", &["Running"]), "Closing");
        assert_eq!(state("Closing", &["Running"]), "Closing");
        assert_eq!(state("Closing", &[]), "Closed");
        assert_eq!(state("Ajar", &[]), "Unknown");
    }
}
